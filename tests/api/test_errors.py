"""Wrong uses of what comes after building: every one gives our error, says what is wrong and what to write, and names
the user's lines."""

from __future__ import annotations

import pathlib
from typing import Any, ClassVar

import numpy as np
import pytest

import graphcore as gc
from graphcore.ir.node import Builder
from graphcore.ir.op import Map, primitive

HERE = str(pathlib.Path(__file__).resolve())
X = gc.placeholder("float32", (None, 4), name="x")
S = gc.placeholder("float32", (), name="s")
N = gc.placeholder("int32", (3,), name="n")
W = gc.Variable(np.ones((4, 2), np.float32), name="w")
B = gc.Variable(np.zeros(2, np.float32), name="b")
K = gc.Variable(np.int32(1), name="k")
LONELY = gc.Variable(1.0, name="lonely")
LOSS = ((X @ W + B) ** 2).mean()
ESCAPED: list[Any] = []
gc.checkpoint(lambda t: (ESCAPED.append(t * 2), t)[1])(X)
Session, nn, optim = gc.Session, gc.nn, gc.optim


@primitive
class RoughErrorSteps(Map):
    """A user's op of floats without a gradient."""

    differentiable: ClassVar[bool] = False


def line_of(name: str) -> str:
    """Where this file makes a module-level value."""
    for number, text in enumerate(pathlib.Path(HERE).read_text(encoding="utf-8").splitlines(), 1):
        if text.startswith(f"{name} = ") or (f"{name} = " in text.split("#")[0] and not text.startswith(" ")):
            return f"{HERE}:{number}"
    raise AssertionError(name)


def run(fetches: Any, feeds: Any = None) -> Any:
    with Session("numpy") as session:
        return session.run(fetches, feeds)


def on(method: str, *args: Any, **kwargs: Any) -> Any:
    with Session("numpy") as session:
        return getattr(session, method)(*args, **kwargs)


def load_into_a_used_session(state: Any) -> None:
    with Session("numpy") as session:
        session.run(gc.Variable(1.0, name="used"))
        session.load_state_dict(state)


def folder(name: str) -> str:
    return str(pathlib.Path(HERE).parent / name)


# A case: what is done, on one line; the error; the built-in that it also is; fragments of the message. "{line}" is this
# file and the line of the case, "{X}" and so on the line that made the value above.
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
    (lambda: run(S, {"s": 1}), gc.FeedError, ValueError, ["'s' is a name; use the tensor itself as the key"]),
    (lambda: run(S, {1: 1}), gc.FeedError, ValueError, ["feed_dict: keys must be tensors, got int"]),
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
        lambda: on("make_callable", S, ["s"]),
        gc.UsageError,
        TypeError,
        ["make_callable: inputs must be tensors, got str"],
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
        ["'loss' is a name; there is no global graph", "fetch the tensor itself"],
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
    (lambda: gc.function([X], "loss"), gc.UsageError, TypeError, ["'loss' is a name"]),
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
            "bytes: matmul at test_errors.py",
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
    # gradients
    (lambda: gc.gradients("loss", W), gc.UsageError, TypeError, ["gradients: ys must be tensors, got str"]),
    (lambda: gc.gradients(LOSS, [W, 3]), gc.UsageError, TypeError, ["gradients: xs must be tensors, got int"]),
    (
        lambda: gc.gradients((N * 2).sum(), N),
        gc.GradientError,
        ValueError,
        ["ys must be of floating types", "built at {line}", "cast it with .astype('float32')"],
    ),
    (
        lambda: gc.gradients(LOSS, K),
        gc.GradientError,
        ValueError,
        ["xs must be of floating types, k: int32(), built at {K}"],
    ),
    (
        lambda: gc.gradients(X @ W, W),
        gc.GradientError,
        ValueError,
        ["no grad_ys; reduce it to a scalar first, e.g. y.sum() or y.mean()", "built at {line}"],
    ),
    (lambda: (X @ W).backward(), gc.GradientError, ValueError, ["reduce it to a scalar first", "built at {line}"]),
    (
        lambda: gc.gradients(LOSS, LONELY, unconnected="raise"),
        gc.GradientError,
        ValueError,
        ["do not depend on xs[0], lonely: float32(), built at {LONELY}", "unconnected='zero'"],
    ),
    (
        lambda: gc.gradients(LOSS, W, unconnected=0),
        gc.UsageError,
        TypeError,
        ["unconnected is 0; use 'none', 'zero' or 'raise'"],
    ),  # type: ignore[arg-type]
    (
        lambda: gc.gradients(Builder().rough_error_steps(S), S),
        gc.GradientError,
        ValueError,
        ["rough_error_steps is not differentiable", "it was built at {line}", "gc.stop_gradient"],
    ),
    (
        lambda: gc.jvp(lambda a, b: a * b, [1.0, 2.0], [1.0]),
        gc.UsageError,
        TypeError,
        ["jvp: 2 primals but 1 tangents; pass one tangent for each primal"],
    ),
    (
        lambda: gc.hvp(lambda a: a * 2, [np.ones(3)], [np.ones(3)]),
        gc.GradientError,
        ValueError,
        ["reduce it to a scalar first", "built at {line}"],
    ),
    (
        lambda: gc.custom_gradient(lambda t: t)(X),
        gc.UsageError,
        TypeError,
        ["the function called at {line} must return (y, grad_fn), got Tensor"],
    ),
    (
        lambda: gc.checkpoint(lambda t: 3)(X),
        gc.UsageError,
        TypeError,
        ["checkpoint: the function called at {line} must return a tensor or a list of them, got int"],
    ),
    (lambda: gc.jacobian(lambda t: t * 2, X), gc.ShapeError, ValueError, ["jacobian: a symbolic extent", "{line}"]),
    # optimizers
    (lambda: optim.SGD(lr=-1), gc.UsageError, TypeError, ["SGD: lr must be a finite number of at least 0, got -1"]),
    (
        lambda: optim.SGD([X], lr=0.1),
        gc.UsageError,
        TypeError,
        ["SGD: params must be Variables, got Tensor"],
    ),
    (
        lambda: optim.Adam({"w": W}),
        gc.UsageError,
        TypeError,
        ["Adam: params must be parameters in a list", "Adam(model.parameters(), lr=0.001)"],
    ),  # type: ignore[arg-type]
    (
        lambda: gc.train.fit(None, None, loss=None, optimizer=None, metrics=["accuracy"]),
        gc.UsageError,
        TypeError,
        ["fit: metrics maps names to functions", "got ['accuracy']; write metrics={'accuracy': accuracy}"],
    ),  # type: ignore[arg-type]
    (lambda: optim.Adam(lr=0.1, betas=(1.5, 0.9)), gc.UsageError, TypeError, ["Adam: betas[0] must be", "got 1.5"]),
    (
        lambda: optim.SGD(0.1).minimize(X @ W),
        gc.GradientError,
        ValueError,
        ["minimize: the loss must be a scalar; reduce it with .mean() or .sum()", "built at {line}"],
    ),
    (
        lambda: optim.SGD(0.1).minimize(S * 2),
        gc.GradientError,
        ValueError,
        ["the loss depends on no trainable variable", "built at {line}"],
    ),
    (
        lambda: optim.SGD(0.1).minimize(LOSS, [W, LONELY]),
        gc.GradientError,
        ValueError,
        ["does not depend on the variable 'lonely', made at {LONELY}", "built at {LOSS}", "leave the variable out"],
    ),
    (
        lambda: optim.SGD(0.1).minimize(LOSS, [K]),
        gc.GradientError,
        ValueError,
        ["the variable 'k' is int32; only floating types can be trained"],
    ),
    (lambda: optim.SGD(0.1).minimize(LOSS, [X]), gc.UsageError, TypeError, ["variables must be Variables, got Tensor"]),
    (
        lambda: optim.SGD(0.1).apply_gradients([(W * 1, W), (W * 2, W)]),
        gc.UsageError,
        TypeError,
        ["the variable 'w', made at {W}, comes twice"],
    ),
    (
        lambda: optim.SGD(0.1).apply_gradients([(B * 1, W)]),
        gc.ShapeError,
        ValueError,
        ["the variable 'w' has shape (4, 2), its gradient (2,)", "built at {line}"],
    ),
    # modules
    (
        lambda: nn.Linear(3, 2)(X),
        gc.ShapeError,
        ValueError,
        ["linear: x has 4 features, the weight takes 3", "built at {X}", "built at {line}"],
    ),
    (lambda: nn.Linear(-1, 2), gc.ShapeError, ValueError, ["-1"]),
    (
        lambda: nn.Conv2d(3, 4, 3)(gc.placeholder("float32", (1, 2, 8, 8))),
        gc.ShapeError,
        ValueError,
        ["conv2d: the input has 2 channels, the weight takes 3", "built at {line}"],
    ),
    (
        lambda: nn.Conv2d(3, 4, 3, groups=2),
        gc.ShapeError,
        ValueError,
        ["3 input and 4 output channels do not divide into 2 groups"],
    ),
    (
        lambda: nn.Embedding(10, 3)(X),
        gc.DTypeError,
        TypeError,
        ["the indices are float32, but must be integers; cast them with .astype('int64')", "built at {X}"],
    ),
    (lambda: nn.Dropout(2.0), gc.UsageError, TypeError, ["Dropout: p is a probability between 0 and 1, got 2.0"]),
    (lambda: nn.Sequential(3), gc.UsageError, TypeError, ["Sequential takes modules, got int"]),  # type: ignore[arg-type]
    (
        lambda: nn.BatchNorm2d(3)(gc.placeholder("float32", (2, 4, 5, 5))),
        gc.ShapeError,
        ValueError,
        ["BatchNorm2d: takes (N, 3, H, W)", "built at {line}"],
    ),
    (
        lambda: nn.Linear(3, 2).load_state_dict({"weight": np.zeros((2, 3))}),
        gc.FormatError,
        ValueError,
        ["the keys do not match Linear", "missing: 'bias'", "pass strict=False"],
    ),
    (
        lambda: nn.Linear(3, 2).load_state_dict({"weight": np.zeros((3, 2)), "bias": np.zeros(2)}),
        gc.ShapeError,
        ValueError,
        ["'weight' has shape (2, 3), the given array (3, 2)", "made at {line}"],
    ),
    # state and files
    (
        lambda: load_into_a_used_session({"w": np.ones(2)}),
        gc.SessionError,
        RuntimeError,
        ["missing 'used', unexpected 'w'", "strict=False", "a session knows the variables that it has used"],
    ),
    (
        lambda: on("load_state_dict", [1]),
        gc.SessionError,
        RuntimeError,
        ["load_state_dict: expected a dict of key to array, got list"],
    ),
    (lambda: on("state_dict", 3), gc.UsageError, TypeError, ["expected a module, got int"]),
    (
        lambda: on("restore", folder("test_errors.py")),
        gc.FormatError,
        ValueError,
        ["test_errors.py: truncated or not a safetensors file"],
    ),
    (lambda: on("restore", folder("no such file")), FileNotFoundError, OSError, ["no such file"]),
    (lambda: on("save", folder("no/such/folder")), FileNotFoundError, OSError, ["No such file or directory"]),
    (lambda: on("save", folder("")), OSError, OSError, ["a checkpoint can replace only a regular file"]),
    # data and the rest
    (
        lambda: gc.data.DataLoader([1, 2], batch_size=0),
        gc.UsageError,
        TypeError,
        ["batch_size of a DataLoader must be an integer of at least 1, got 0"],
    ),
    (
        lambda: gc.data.TensorDataset(np.zeros(3), np.zeros(4)),
        gc.ShapeError,
        ValueError,
        ["differ in their first dimension: shapes (3,), (4,)"],
    ),
    (lambda: gc.random.seed(1.5), gc.UsageError, TypeError, ["random.seed: 1.5 is no integer"]),  # type: ignore[arg-type]
    (
        lambda: gc.Dim("n") > 3,
        gc.ShapeError,
        ValueError,
        ["the symbolic extent n has no value yet, so it cannot be compared"],
    ),
    (lambda: gc.Dim(""), gc.ShapeError, ValueError, ["a Dim's name is a non-empty string, got ''"]),
    (lambda: gc.placholder, AttributeError, AttributeError, ["module 'graphcore' has no attribute 'placholder'"]),
    (
        lambda: gc.gradcheck(lambda t: t > 0, [np.ones(3)]),
        gc.UsageError,
        TypeError,
        ["gradcheck: nothing to check: f gives no tensor of a floating type"],
    ),
]


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 90
    assert {c[1] for c in CASES} >= {
        gc.FeedError,
        gc.UsageError,
        gc.GraphError,
        gc.DeviceError,
        gc.SessionError,
        gc.ShapeError,
        gc.DTypeError,
        gc.GradientError,
        gc.OutOfMemoryError,
        gc.FormatError,
    }


@pytest.mark.parametrize(
    ("do", "error", "builtin", "fragments"),
    CASES,
    ids=[f"{c[0].__code__.co_firstlineno}-{c[3][0][:30]}" for c in CASES],
)
def test_message(do: Any, error: type[Exception], builtin: type[Exception], fragments: list[str]) -> None:
    with pytest.raises(builtin) as caught:
        do()
    assert type(caught.value) is error, repr(caught.value)
    text = str(caught.value)
    for fragment in fragments:
        for name in ("X", "S", "N", "W", "B", "K", "LOSS", "LONELY"):
            if f"{{{name}}}" in fragment:
                fragment = fragment.replace(f"{{{name}}}", line_of(name))
        fragment = fragment.replace("{line}", f"{HERE}:{do.__code__.co_firstlineno}")
        assert fragment in text, f"\n{fragment}\nis not in\n{text}"
    assert "object at 0x" not in text and "Traceback" not in text and "\n\n\n" not in text


def test_every_error_is_ours_and_a_builtin() -> None:
    from graphcore.base import errors

    expected = {
        "ShapeError": ValueError,
        "OutOfRangeError": IndexError,
        "DTypeError": TypeError,
        "FeedError": ValueError,
        "GradientError": ValueError,
        "GraphError": ValueError,
        "DeviceError": RuntimeError,
        "OutOfMemoryError": MemoryError,
        "CompileError": RuntimeError,
        "FormatError": ValueError,
        "VerifyError": RuntimeError,
        "SessionError": RuntimeError,
        "UsageError": TypeError,
    }
    assert set(errors.__all__) == {*expected, "GraphcoreError"}
    for name, builtin in expected.items():
        assert issubclass(getattr(gc, name), gc.GraphcoreError) and issubclass(getattr(gc, name), builtin), name


def test_a_misspelt_name_gets_a_suggestion() -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", "import graphcore as gc\ngc.placholder"],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(HERE).parents[2],
        check=False,
    )
    assert "Did you mean: 'placeholder'?" in done.stderr
