"""Checks of gradients by finite differences, and matrices of derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from graphcore.api.gradients import gradients
from graphcore.api.shaping import reshape, stack
from graphcore.api.tensor import Tensor
from graphcore.api.variable import as_tensor, placeholder
from graphcore.base.errors import GradientError, ShapeError, UsageError
from graphcore.base.shapes import is_static, product
from graphcore.ir.node import describe
from graphcore.runtime.anomaly import detect_anomaly
from graphcore.runtime.session import Session

__all__ = ["detect_anomaly", "gradcheck", "gradgradcheck", "hessian", "jacobian"]

Function = Callable[..., Any]


def gradcheck(
    f: Function, inputs: Any, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3, raise_exception: bool = True
) -> bool:
    """Compare the gradients of a function with central differences, in float64 with NumPy.

    Args:
        f: from tensors to a tensor, or a list of them.
        inputs: an array, or a list of them; floating ones are checked (as float64), the others are constants.
        eps: half the step of the differences.
        atol, rtol: the gradients may differ by ``atol + rtol * |difference quotient|``.
        raise_exception: whether to raise where they differ, and not to return False.

    Raises:
        GradientError: they differ; the message says where.
        UsageError: no floating input or output, or ``f`` gives other values when run again.

    >>> gradcheck(lambda x: x * x, [np.array([1.0, 2.0])])
    True
    """
    arrays = _arrays(inputs, "gradcheck")
    fed = [placeholder("float64", a.shape) if a.dtype.kind == "f" else as_tensor(a) for a in arrays]
    checked = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    ys = [y for y in _listed(f(*fed)) if isinstance(y, Tensor) and y.dtype.is_float]
    if not checked or not ys:
        raise UsageError(
            "gradcheck: nothing to check: "
            + ("no input is of a floating type" if not checked else "f gives no tensor of a floating type")
        )
    xs = [fed[i] for i in checked]
    us = [placeholder(y.dtype, y.shape) for y in ys]
    with Session("numpy") as session:
        forward = session.make_callable(ys, xs)
        backward = session.make_callable(gradients(ys, xs, us, unconnected="zero"), [*xs, *us])
        at = [arrays[i] for i in checked]
        values = forward(*at)
        if any(a.tobytes() != b.tobytes() for a, b in zip(values, forward(*at), strict=True)):
            raise UsageError("gradcheck: f gives other values when run again (does it draw random numbers?)")
        rows = [_rows(backward, at, values, i) for i in range(len(ys))]
        for k in range(len(xs)):
            columns = _columns(forward, at, k, eps)
            for i in range(len(ys)):
                wrong = _difference(rows[i][k], columns[i], atol, rtol)
                if wrong is not None:
                    if not raise_exception:
                        return False
                    raise GradientError(
                        f"gradcheck: the gradient of output {i} for input {checked[k]} is wrong: {wrong}"
                        f"\n  the output is {describe(ys[i])}"
                    )
    return True


def gradgradcheck(
    f: Function,
    inputs: Any,
    grad_outputs: Any = None,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Check second derivatives: ``gradcheck`` of the gradients of ``f``, as a function of the inputs and the
    cotangents.

    Args:
        f, inputs, eps, atol, rtol, raise_exception: as for ``gradcheck``.
        grad_outputs: cotangents; by default random ones.

    >>> gradgradcheck(lambda x: x * x * x, [np.array([1.0, 2.0])])
    True
    """
    arrays = _arrays(inputs, "gradgradcheck")
    probe = [placeholder("float64", a.shape) if a.dtype.kind == "f" else as_tensor(a) for a in arrays]
    shapes = [y.shape for y in _listed(f(*probe)) if isinstance(y, Tensor) and y.dtype.is_float]
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        given = [rng.standard_normal(s) for s in shapes]
    else:
        given = _arrays(grad_outputs, "gradgradcheck")
    count = len(arrays)

    def first(*tensors: Tensor) -> list[Tensor]:
        xs, us = tensors[:count], tensors[count:]
        ys = [y for y in _listed(f(*xs)) if isinstance(y, Tensor) and y.dtype.is_float]
        return gradients(ys, [x for x in xs if x.dtype.is_float], list(us), unconnected="zero")

    return gradcheck(first, [*arrays, *given], eps, atol, rtol, raise_exception)


def jacobian(f: Any, inputs: Any = None, *, argnums: int | Sequence[int] = 0) -> Any:
    """The derivatives of every output element for every input element, built one output element at a time.

    Args:
        f: a function from tensors to a tensor or a tuple of them; or the outputs themselves, a tensor or a tuple.
        inputs: a tensor or array, or a tuple of them. Without it, for a function, the result is a function of them.
        argnums: of that function's arguments, which to differentiate for: a position, or several.

    Returns:
        A tensor of the shape ``y.shape + x.shape``; a tuple over inputs if these are a tuple or list, in a tuple over
        outputs if those are. Without ``inputs`` a function that gives this.

    Raises:
        ShapeError: a symbolic extent.
        UsageError: outputs without inputs.

    >>> jacobian(lambda x: x * x, np.ones((3,), np.float32)).shape
    (3, 3)
    >>> jacobian(lambda x: x * x)(np.ones((3,), np.float32)).shape
    (3, 3)
    """
    if inputs is None:
        return _of_arguments("jacobian", jacobian, f, argnums)
    ys, xs = _evaluated("jacobian", f, inputs)
    several = isinstance(inputs, (list, tuple))
    rows = tuple(_jacobian(y, xs, several) for y in _listed(ys))
    return rows if isinstance(ys, (list, tuple)) else rows[0]


def hessian(f: Any, inputs: Any = None, *, argnums: int | Sequence[int] = 0) -> Any:
    """The second derivatives of a scalar.

    Args:
        f: a function from tensors to a scalar tensor; or the scalar tensor itself.
        inputs, argnums: as for ``jacobian``.

    Returns:
        A tensor of the shape ``x.shape + x.shape``; a tuple of tuples of ``x_i.shape + x_j.shape`` if ``inputs`` is a
        tuple or list. Without ``inputs`` a function that gives this.

    Raises:
        GradientError: no scalar.
        ShapeError: a symbolic extent.

    >>> hessian(lambda x: (x * x).sum(), np.ones((3,), np.float32)).shape
    (3, 3)
    >>> x = placeholder("float32", (3,))
    >>> hessian((x * x).sum(), x).shape
    (3, 3)
    """
    if inputs is None:
        return _of_arguments("hessian", hessian, f, argnums)
    y, xs = _evaluated("hessian", f, inputs)
    several = isinstance(inputs, (list, tuple))
    rows = tuple(_jacobian(g, xs, several) for g in gradients(y, xs, unconnected="zero"))
    return rows if several else rows[0]


def _evaluated(op: str, f: Any, inputs: Any) -> tuple[Any, list[Tensor]]:
    """The outputs, and the inputs as tensors."""
    xs = [as_tensor(x) for x in _listed(inputs)]
    if callable(f):
        return f(*xs), xs
    for x in _listed(inputs):
        if not isinstance(x, Tensor):
            raise UsageError(
                f"{op}: the inputs of a tensor are the tensors that it was built from, got {type(x).__name__}; "
                f"pass those, or a function and arrays"
            )
    return f, xs


def _of_arguments(op: str, derive: Function, f: Any, argnums: int | Sequence[int]) -> Function:
    """``derive`` of a function, as a function of its arguments."""
    if not callable(f):
        raise UsageError(f"{op}: for which inputs? Write gc.{op}(y, x)")

    @wraps(f)
    def derivative(*arguments: Any) -> Any:
        places = [argnums] if isinstance(argnums, int) else list(argnums)
        if not all(-len(arguments) <= place < len(arguments) for place in places):
            raise UsageError(f"{op}: argnums is {argnums}, but there are {len(arguments)} arguments")
        places = [place % len(arguments) for place in places]

        def partly(*varied: Any) -> Any:
            return f(*(varied[places.index(i)] if i in places else a for i, a in enumerate(arguments)))

        chosen = tuple(arguments[place] for place in places)
        return derive(partly, chosen[0] if isinstance(argnums, int) else chosen)

    return derivative


def _jacobian(y: Tensor, xs: Sequence[Tensor], several: bool) -> Any:
    for t in (y, *xs):
        if not is_static(t.shape):
            raise ShapeError(f"jacobian: a symbolic extent in the shape of {describe(t)}; build it on fixed shapes")
    count = int(product(y.shape))
    flat = reshape(y, (count,))
    rows = [gradients(flat[i], list(xs), unconnected="zero") for i in range(count)]
    found = tuple(
        reshape(stack([row[k] for row in rows]), (*y.shape, *x.shape))
        if rows
        else as_tensor(np.zeros((*y.shape, *x.shape), x.dtype.storage))
        for k, x in enumerate(xs)
    )
    return found if several else found[0]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _arrays(inputs: Any, who: str) -> list[Any]:
    found = []
    for value in _listed(inputs) if not _is_numbers(inputs) else [inputs]:
        if isinstance(value, Tensor):
            raise UsageError(
                f"{who}: inputs are arrays, at which the gradient is checked; got a symbolic tensor"
                f"\n  {describe(value)}"
            )
        array = np.asarray(value)
        found.append(array.astype(np.float64) if array.dtype.kind not in "iub" else array)
    return found


def _is_numbers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(v, (int, float)) for v in value)


def _rows(backward: Function, at: Sequence[Any], values: Sequence[Any], which: int) -> list[Any]:
    """For one output and every input the matrix of derivatives, by one reverse sweep an output element."""
    result = [np.zeros((values[which].size, x.size)) for x in at]
    for j in range(values[which].size):
        cotangents = [np.zeros_like(v) for v in values]
        cotangents[which].reshape(-1)[j] = 1
        for matrix, g in zip(result, backward(*at, *cotangents), strict=True):
            matrix[j] = g.reshape(-1)
    return result


def _columns(forward: Function, at: Sequence[Any], which: int, eps: float) -> list[Any]:
    """For one input and every output the matrix of difference quotients."""
    found: list[list[Any]] = []
    for k in range(at[which].size):
        ends = []
        for sign in (1, -1):
            moved = [a.copy() for a in at]
            moved[which].reshape(-1)[k] += sign * eps
            ends.append(forward(*moved))
        found.append([((high - low) / (2 * eps)).reshape(-1) for high, low in zip(*ends, strict=True)])
    outputs = forward(*at)
    return [
        np.stack([column[i] for column in found], axis=1) if found else np.zeros((outputs[i].size, 0))
        for i in range(len(outputs))
    ]


def _difference(ours: Any, numeric: Any, atol: float, rtol: float) -> str | None:
    good = np.abs(ours - numeric) <= atol + rtol * np.abs(numeric)
    if good.all():
        return None
    j, k = (int(n) for n in np.argwhere(~good)[0])
    return (
        f"{int((~good).sum())} of {good.size} derivatives differ; that of output element {j} for input element "
        f"{k} is {ours[j, k]:.9g}, the difference quotient {numeric[j, k]:.9g}"
    )
