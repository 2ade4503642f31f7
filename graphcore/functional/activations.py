"""Activations, elementwise and along an axis."""

from __future__ import annotations

import math
from typing import Any

from graphcore.api.elementwise import (
    abs,
    add,
    divide,
    exp,
    expm1,
    log,
    maximum,
    minimum,
    multiply,
    negative,
    relu,
    sigmoid,
    stop_gradient,
    subtract,
    tanh,
)
from graphcore.api.gradients import custom_gradient
from graphcore.api.logic import clip, equal, greater, largest, where
from graphcore.api.operands import axis_of, build, cast, fail, promote
from graphcore.api.shaping import split
from graphcore.api.special import softplus
from graphcore.api.tensor import Tensor
from graphcore.base import dtypes
from graphcore.base.errors import ShapeError, UsageError
from graphcore.base.shapes import format_shape
from graphcore.base.source import name_scope

# fmt: off
__all__ = [
    "celu",
    "elu",
    "gelu",
    "glu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "log_softmax",
    "logsigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "softsign",
    "swish",
    "tanh",
    "tanhshrink",
    "threshold",
]
# fmt: on


def _float(name: str, x: Any) -> Tensor:
    return promote(name, x, floating=True)[0]


def relu6(x: Any) -> Tensor:
    """min(max(x, 0), 6), elementwise.

    >>> relu6([7.0]).shape
    (1,)
    """
    return minimum(relu(x), 6)


def leaky_relu(x: Any, negative_slope: float = 0.01) -> Tensor:
    """x where positive, else negative_slope * x.

    >>> leaky_relu([-1.0]).shape
    (1,)
    """
    t = _float("leaky_relu", x)
    return where(greater(t, 0), t, multiply(t, negative_slope))


def prelu(x: Any, weight: Any) -> Tensor:
    """x where positive, else weight * x; the weight has one element, or one per channel (axis 1).

    >>> prelu([[-1.0, 2.0]], [0.1, 0.2]).shape
    (1, 2)
    """
    t, w = promote("prelu", x, weight, floating=True)
    if w.ndim == 1 and t.ndim > 2 and w.shape != (1,):
        w = build("reshape", w, shape=(*w.shape, *(1,) * (t.ndim - 2)))
    return where(greater(t, 0), t, multiply(t, w))


def _exponential_below(t: Tensor, scaled: Tensor, alpha: float) -> Tensor:
    """``t`` above 0, else alpha * (e ** scaled - 1). One condition decides, at 0 for the exponential, whose slope
    counts there: a minimum inside would halve it."""
    return where(greater(t, 0), t, multiply(expm1(scaled), alpha))


def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """x where positive, else alpha * (e ** x - 1). The slope at 0 is alpha.

    >>> elu([-1.0]).shape
    (1,)
    """
    t = _float("elu", x)
    return _exponential_below(t, t, alpha)


def selu(x: Any) -> Tensor:
    """elu with the scales that keep mean 0 and variance 1 (Klambauer et al., 2017).

    >>> selu([-1.0]).shape
    (1,)
    """
    return multiply(elu(x, 1.6732632423543772), 1.0507009873554805)


def celu(x: Any, alpha: float = 1.0) -> Tensor:
    """max(x, 0) + min(0, alpha * (e ** (x / alpha) - 1)).

    >>> celu([-1.0]).shape
    (1,)
    """
    t = _float("celu", x)
    return _exponential_below(t, divide(t, alpha), alpha)


def gelu(x: Any, approximate: str = "none") -> Tensor:
    """x * P(Z <= x) of a standard normal Z; ``approximate="tanh"`` uses the tanh formula (Hendrycks and Gimpel, 2016).

    >>> gelu([1.0]).shape
    (1,)
    """
    t = _float("gelu", x)
    if approximate == "tanh":
        return multiply(maximum(t, -largest(t.dtype)), _tanh_gate(t))
    if approximate != "none":
        raise UsageError(f"gelu: approximate is {approximate!r}; use 'none' or 'tanh'")
    return build("gelu", t)


def _tanh_gate(t: Tensor) -> Tensor:
    """(1 + tanh u) / 2 = sigmoid(2 u) with u = sqrt(2 / pi) (t + 0.044715 t ** 3)."""
    near = clip(t, -24.0, 24.0)  # beyond, the gate is 0 or 1 and flat, and the cube may overflow
    cube = multiply(near, multiply(near, near))
    return sigmoid(multiply(math.sqrt(8 / math.pi), add(near, multiply(0.044715, cube))))


def silu(x: Any) -> Tensor:
    """x * sigmoid(x), also called swish.

    >>> silu([1.0]).shape
    (1,)
    """
    return build("silu", _float("silu", x))


swish = silu


def mish(x: Any) -> Tensor:
    """x * tanh(softplus(x)).

    >>> mish([1.0]).shape
    (1,)
    """
    return build("mish", _float("mish", x))


def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """x limited to min_val .. max_val.

    >>> hardtanh([2.0]).shape
    (1,)
    """
    return minimum(maximum(_float("hardtanh", x), min_val), max_val)


def hardsigmoid(x: Any) -> Tensor:
    """relu6(x + 3) / 6.

    >>> hardsigmoid([2.0]).shape
    (1,)
    """
    return divide(relu6(add(_float("hardsigmoid", x), 3.0)), 6.0)


def hardswish(x: Any) -> Tensor:
    """x * relu6(x + 3) / 6.

    >>> hardswish([2.0]).shape
    (1,)
    """
    t = _float("hardswish", x)
    return multiply(maximum(t, -3.0), hardsigmoid(t))


def softsign(x: Any) -> Tensor:
    """x / (1 + |x|).

    >>> softsign([2.0]).shape
    (1,)
    """
    t = _float("softsign", x)
    t = clip(t, -largest(t.dtype), largest(t.dtype))  # at infinity as next to it
    return divide(t, add(1.0, abs(t)))


def tanhshrink(x: Any) -> Tensor:
    """x - tanh(x).

    >>> tanhshrink([2.0]).shape
    (1,)
    """
    t = _float("tanhshrink", x)
    return subtract(t, tanh(t))


def logsigmoid(x: Any) -> Tensor:
    """log(sigmoid(x)) without overflow.

    >>> logsigmoid([2.0]).shape
    (1,)
    """
    return negative(softplus(negative(_float("logsigmoid", x))))


def threshold(x: Any, threshold: float, value: float) -> Tensor:
    """x where above the threshold, else value.

    >>> threshold([2.0], 1.0, 0.0).shape
    (1,)
    """
    (t,) = promote("threshold", x)
    return where(greater(t, threshold), t, value)


def glu(x: Any, dim: int = -1) -> Tensor:
    """The first half along an axis times the sigmoid of the second.

    >>> glu([[1.0, 2.0]]).shape
    (1, 1)
    """
    t = _float("glu", x)
    axis = axis_of("glu", t, dim)
    if t.shape[axis] % 2 != 0:
        raise fail(ShapeError, f"glu: axis {axis} of {format_shape(t.shape)} does not split into halves", t)
    a, b = split(t, 2, axis)
    return multiply(a, sigmoid(b))


def _axis(name: str, t: Tensor, dim: Any, axis: Any) -> int:
    if axis is not None and dim != -1 and axis != dim:
        raise UsageError(f"{name}: dim={dim!r} and axis={axis!r} are two names of one argument; pass one")
    return axis_of(name, t, dim if axis is None else axis)


def shifted(t: Tensor, axis: int) -> Tensor:
    """``t`` minus its maximum along an axis, which is constant for gradients: exponentials of it do not overflow."""
    shape = tuple(1 if a == axis else e for a, e in enumerate(t.shape))
    top = stop_gradient(build("reshape", build("max", t, axes=(axis,)), shape=shape))
    return subtract(t, top)


def summed(t: Tensor, axis: int) -> Tensor:
    """The sum along an axis, which stays as 1."""
    return build(
        "reshape", build("sum", t, axes=(axis,)), shape=tuple(1 if a == axis else e for a, e in enumerate(t.shape))
    )


def softmax(x: Any, dim: int = -1, dtype: Any = None, *, axis: int | None = None) -> Tensor:
    """e ** x / sum(e ** x) along an axis; halves are computed in float32.

    Args:
        x: any shape.
        dim, axis: two names of the axis.
        dtype: cast to this type first.

    Raises:
        ShapeError: the axis is out of range.

    >>> softmax([[1.0, 2.0]], dim=1).shape
    (1, 2)
    """
    t, result = _wide("softmax", x, dtype)
    place = _axis("softmax", t, dim, axis)
    with name_scope("softmax"):
        return cast(_softmax(t, place), result)


def masked_softmax(x: Tensor, axis: int) -> Tensor:
    """The softmax of scores of which some are -inf, for no attention: 0 in rows where all are."""
    with name_scope("softmax"):
        return cast(_softmax(cast(x, dtypes.as_dtype(x.dtype.compute)), axis, True), x.dtype)


def _softmax(t: Tensor, axis: int, masked: bool = False) -> Tensor:
    """With the derivative on the output, ``(g - sum(g y)) y``: a training step keeps y and not also e ** x.

    A row of nothing but -inf gives NaN or, where that is what a mask made of it, 0.
    """

    @custom_gradient
    def function(x: Tensor) -> Any:
        e = exp(shifted(x, axis))
        e = where(equal(x, -math.inf), 0.0, e) if masked else e
        total = summed(e, axis)
        y = divide(e, where(equal(total, 0), 1.0, total) if masked else total)
        return y, lambda g: multiply(subtract(g, summed(multiply(g, y), axis)), y)

    return function(t)  # type: ignore[no-any-return]


def log_softmax(x: Any, dim: int = -1, dtype: Any = None, *, axis: int | None = None) -> Tensor:
    """log(softmax(x)) without overflow.

    >>> log_softmax([[1.0, 2.0]], dim=1).shape
    (1, 2)
    """
    t, result = _wide("log_softmax", x, dtype)
    place = _axis("log_softmax", t, dim, axis)
    with name_scope("log_softmax"):
        return cast(_log_softmax(t, place), result)


def _log_softmax(t: Tensor, axis: int) -> Tensor:
    """With the derivative on the output, ``g - sum(g) e ** y``."""

    @custom_gradient
    def function(x: Tensor) -> Any:
        z = shifted(x, axis)
        y = subtract(z, log(summed(exp(z), axis)))
        return y, lambda g: subtract(g, multiply(summed(g, axis), exp(y)))

    return function(t)  # type: ignore[no-any-return]


def softmin(x: Any, dim: int = -1) -> Tensor:
    """softmax(-x).

    >>> softmin([[1.0, 2.0]]).shape
    (1, 2)
    """
    return softmax(negative(_float("softmin", x)), dim)


def _wide(name: str, x: Any, dtype: Any) -> tuple[Tensor, Any]:
    """The operand in its compute type, and the type of the result."""
    t = _float(name, x)
    if dtype is not None:
        t = cast(t, dtypes.as_dtype(dtype))
    return cast(t, dtypes.as_dtype(t.dtype.compute)), t.dtype
