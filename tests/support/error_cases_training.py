"""Wrong uses of what comes after building: gradients, optimizers, modules, files, data."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphcore as gc
from graphcore.api.tensor import Builder
from support.error_values import LONELY, LOSS, B, K, N, S, W, X, folder, load_into_a_used_session, nn, on, optim

__all__ = ["CASES"]

# A case: what is done, on one line; the error; the built-in that it also is; fragments of the message. "{line}" is the
# file and the line of the case, "{X}" and so on the line of ``error_values`` that made the value.
CASES: list[tuple[Any, type[Exception], type[Exception], list[str]]] = [
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
        lambda: on("restore", folder("error_values.py")),
        gc.FormatError,
        ValueError,
        ["error_values.py: truncated or not a safetensors file"],
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
