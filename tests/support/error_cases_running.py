"""Wrong uses of what comes after building: feeds, fetches, sessions, variables."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphcore as gc
from support.error_values import ESCAPED, LOSS, K, N, S, Session, W, X, nn, on, optim, run

__all__ = ["CASES"]

# A case: what is done, on one line; the error; the built-in that it also is; fragments of the message. "{line}" is the
# file and the line of the case, "{X}" and so on the line of ``error_values`` that made the value.
CASES: list[tuple[Any, type[Exception], type[Exception], list[str]]] = [
    # feeds
    (
        lambda: run(LOSS),
        gc.FeedError,
        ValueError,
        ["placeholder 'x' is not fed; pass it in the feed_dict", "{x: array}", "built at {X}"],
    ),
    (
        lambda: run(LOSS, {X: np.ones((3, 5))}),
        gc.FeedError,
        ValueError,
        ["the feed for 'x' has the shape (3, 5), but axis 1 must be 4, not 5", "built at {X}"],
    ),
    (
        lambda: run(LOSS, {X: np.ones(4)}),
        gc.FeedError,
        ValueError,
        ["the feed for 'x' has rank 1, shape (4,); it must have rank 2", "built at {X}"],
    ),
    (
        lambda: run(S * 1, {S: "1"}),
        gc.FeedError,
        ValueError,
        ["the feed for 's' is '1', which holds no numbers", "built at {S}"],
    ),
    (lambda: run(S * 1, {S: None}), gc.FeedError, ValueError, ["the feed for 's' is None, which holds no numbers"]),
    (
        lambda: run(S * 1, {S: {"a": 1}}),
        gc.FeedError,
        ValueError,
        ["the feed for 's' is {'a': 1}, which holds no numbers"],
    ),
    (
        lambda: run(X * 1, {X: [[1, 2], [3]]}),
        gc.FeedError,
        ValueError,
        ["the feed for 'x' is no array", "built at {X}"],
    ),
    (
        lambda: run(S * 1, {S: S + 1}),
        gc.FeedError,
        ValueError,
        [
            "is itself a symbolic tensor; feed an array, or build the graph on that tensor",
            "built at {line}",
            "built at {S}",
        ],
    ),
    (
        lambda: run(N * 1, {N: [0.5, 1, 2]}),
        gc.FeedError,
        ValueError,
        [
            "the feed for 'n' has dtype float64, which does not convert to int32",
            "array.astype('int32')",
            "built at {N}",
        ],
    ),
    (
        lambda: run(N * 1, {N: [2**40, 0, 0]}),
        gc.FeedError,
        ValueError,
        ["holds 1099511627776, which int32 cannot: it goes from -2147483648 to 2147483647"],
    ),
    (
        lambda: run(S * 1, {S: np.array(1j)}),
        gc.FeedError,
        ValueError,
        ["has dtype complex128, which does not convert to float32"],
    ),
    (
        lambda: run(S * 1, {S: np.array("2020-01-01", "datetime64[D]")}),
        gc.FeedError,
        ValueError,
        ["is an array of datetime64[D], which holds no numbers"],
    ),
    (lambda: run(S, {"t": 1}), gc.FeedError, ValueError, ["no tensor has the name 't'", "there are 's'"]),
    (lambda: run(S, {1: 1}), gc.FeedError, ValueError, ["feed_dict: keys must be tensors or their names, got int"]),
    (
        lambda: run(S, [(S, 1)]),
        gc.UsageError,
        TypeError,
        ["feed_dict: expected a dict of tensor to array, got list; write {x: array}"],
    ),
    (
        lambda: run(W * 1, {W: np.ones((4, 2))}),
        gc.FeedError,
        ValueError,
        ["'w' is a variable; use sess.set_value(variable, array)", "built at {W}"],
    ),
    (lambda: on("make_callable", S, [S, S]), gc.FeedError, ValueError, ["'s' is fed twice", "built at {S}"]),
    (
        lambda: on("make_callable", S, [3]),
        gc.UsageError,
        TypeError,
        ["make_callable: inputs must be tensors, got int"],
    ),
    (
        lambda: Session("numpy").make_callable(S, [S])(),
        gc.FeedError,
        ValueError,
        ["this callable takes 1 arrays (s), got 0"],
    ),
    # fetches
    (
        lambda: run("loss"),
        gc.UsageError,
        TypeError,
        ["no tensor has the name 'loss'", "there is no global graph", "use the tensor itself"],
    ),
    (
        lambda: run([S, 3.0], {S: 1}),
        gc.UsageError,
        TypeError,
        ["cannot fetch a float; fetch tensors, updates, or lists, tuples and dicts of them"],
    ),
    (
        lambda: run(optim.SGD(0.1)),
        gc.UsageError,
        TypeError,
        ["cannot fetch a SGD", "the step that optimizer.minimize(loss) gives"],
    ),
    (
        lambda: run(nn.Linear(3, 2)),
        gc.UsageError,
        TypeError,
        ["cannot fetch a Linear", "what it gives when it is called on a tensor"],
    ),
    (lambda: run(np.ones(3)), gc.UsageError, TypeError, ["cannot fetch a ndarray"]),
    (
        lambda: run([W.assign(W + 1), W.assign(W + 2)]),
        gc.GraphError,
        ValueError,
        [
            "variable 'w' is updated twice in one run, with different values",
            "at {line}",
            "combine them into one assign",
        ],
    ),
    (
        lambda: run(ESCAPED[0], {X: np.ones((1, 4))}),
        gc.UsageError,
        TypeError,
        ["belongs to the body of a checkpoint, custom gradient or loop and cannot be fetched outside"],
    ),
    (lambda: gc.function(["x"], LOSS), gc.UsageError, TypeError, ["function: inputs must be placeholders, got str"]),
    (lambda: gc.function([X], "loss"), gc.UsageError, TypeError, ["no tensor has the name 'loss'"]),
    # sessions and devices
    (
        lambda: Session("cuda"),
        gc.DeviceError,
        RuntimeError,
        ["no backend for device 'cuda'; there are numpy, opencl", "Session(device='opencl:intel')"],
    ),
    (lambda: Session("numpy:gpu"), gc.DeviceError, RuntimeError, ["no device 'numpy:gpu'; use 'numpy'"]),
    (lambda: Session("opencl:nosuch"), gc.DeviceError, RuntimeError, ["opencl:nosuch"]),
    (
        lambda: Session(0),
        gc.DeviceError,
        RuntimeError,
        ["device must be a string such as 'auto' or 'opencl:intel', got int"],
    ),  # type: ignore[arg-type]
    (lambda: Session("numpy", seed="a"), gc.UsageError, TypeError, ["Session: seed 'a' is no integer"]),  # type: ignore[arg-type]
    (
        lambda: Session("numpy", memory_limit="2 apples"),
        gc.UsageError,
        TypeError,
        ["memory_limit: '2 apples' is no size; write bytes or text like '2GB'"],
    ),
    (
        lambda: Session("numpy", passes=["simplify"]),
        gc.UsageError,
        TypeError,
        ["'simplify' is no graphcore pass; build on passes.graph.base.Pass"],
    ),
    (
        lambda: Session("numpy", passes=3),  # type: ignore[arg-type]
        gc.UsageError,
        TypeError,
        ["expected a list of passes or a pipeline, got int"],
    ),
    (
        lambda: Session("numpy", memory_limit="1KB").run(X @ W, {X: np.ones((100, 4))}),
        gc.OutOfMemoryError,
        MemoryError,
        [
            "the memory limit is 1,000 bytes; the plan needs",
            "for variables; the largest values:",
            "bytes: matmul at error_cases_running.py",
        ],
    ),
    (
        lambda: Session("numpy", check_numerics=True).run(gc.log(S), {S: -1}),
        gc.SessionError,
        RuntimeError,
        ["check_numerics: 'log' holds NaN", "built at {line}"],
    ),
    (
        lambda: (s := Session("numpy"), s.close(), s.run(S, {S: 1})),
        gc.SessionError,
        RuntimeError,
        ["the session is closed; make a new gc.Session()"],
    ),
    (
        lambda: on("compile", S * 2, {S: ()}).as_text("tokens"),
        gc.UsageError,
        TypeError,
        ["no stage 'tokens'; use one of built, simplified, fused, kernels, plan, source"],
    ),
    (lambda: on("compile", LOSS, {X: (3, 5)}), gc.FeedError, ValueError, ["axis 1 must be 4, not 5", "built at {X}"]),
    (
        lambda: run(X + gc.placeholder("float32", (None, 4), name="y"), {X: np.ones((2, 4))}),
        gc.FeedError,
        ValueError,
        ["placeholder 'y' is not fed", "built at {line}"],
    ),
    # variables
    (
        lambda: W.assign(np.zeros((2, 4), np.float32)),
        gc.ShapeError,
        ValueError,
        ["assign: variable 'w' has shape (4, 2), the value (2, 4)", "made at {W}", "built at {line}"],
    ),
    (
        lambda: W.assign(W.astype("float64")),
        gc.DTypeError,
        TypeError,
        [
            "assign: variable 'w' is float32, the value float64; cast it with .astype('float32')",
            "made at {W}",
            "built at {line}",
        ],
    ),
    (
        lambda: K.assign(1.5),
        gc.DTypeError,
        TypeError,
        ["assign: variable 'k' is int32, the value float64; convert it with array.astype('int32')", "made at {K}"],
    ),
    (
        lambda: gc.Variable(S * 2),
        gc.GraphError,
        ValueError,
        ["the initial value depends on a placeholder", "sess.set_value", "built at {S}"],
    ),
    (
        lambda: gc.Variable("abc"),
        gc.DTypeError,
        TypeError,
        ["'abc' of type str holds no numbers; use a number, an array or a nested list"],
    ),
    (lambda: gc.Variable(None), gc.DTypeError, TypeError, ["None of type NoneType holds no numbers"]),
    (
        lambda: gc.Variable([[1], [1, 2]]),
        gc.ShapeError,
        ValueError,
        ["a nested list is no array: its parts have different lengths"],
    ),
    (
        lambda: gc.Variable(1.0, dtype="float99"),
        gc.DTypeError,
        TypeError,
        ["'float99' is not a dtype of graphcore; use one of float16"],
    ),
    (
        lambda: W.set_initial(np.zeros(3)),
        gc.ShapeError,
        ValueError,
        ["set_initial: variable 'w' has shape (4, 2), the value (3,)", "made at {W}"],
    ),
    (lambda: K.set_initial(1.5), gc.DTypeError, TypeError, ["set_initial: variable 'k' is int32, the value float64"]),
    (
        lambda: on("get_value", X),
        gc.UsageError,
        TypeError,
        ["get_value: expected a Variable, got Tensor", "built at {X}"],
    ),
    (lambda: on("get_value", "w"), gc.UsageError, TypeError, ["get_value: expected a Variable, got str"]),
    (
        lambda: on("set_value", W, np.ones(3)),
        gc.ShapeError,
        ValueError,
        ["set_value: variable 'w' has shape (4, 2), the value (3,)", "made at {W}"],
    ),
    (
        lambda: on("set_value", K, 0.5),
        gc.DTypeError,
        TypeError,
        ["variable 'k' is int32, the value float64", "array.astype('int32')", "made at {K}"],
    ),
    (
        lambda: on("set_value", W, W + 1),
        gc.UsageError,
        TypeError,
        ["is a symbolic tensor; pass an array, or fetch variable.assign(tensor)", "built at {line}"],
    ),
]
