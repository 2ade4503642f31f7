"""Reductions over axes. ``axis`` is None (all), an int or a tuple; ``dim`` and ``keepdim`` are accepted as PyTorch
spells them."""

from __future__ import annotations

import math
from typing import Any

from graphcore.api.elementwise import abs as absolute
from graphcore.api.elementwise import add, divide, exp, log, maximum, multiply, pow, stop_gradient, subtract
from graphcore.api.logic import as_bool, equal, not_equal, where
from graphcore.api.operands import align, axes_of, axis_of, build, cast, count_of, fail, promote, scalar, tensor
from graphcore.api.shaping import reshape
from graphcore.api.special import safe_sqrt
from graphcore.api.tensor import Tensor
from graphcore.base import dtypes
from graphcore.base.dtypes import DType
from graphcore.base.errors import DTypeError, ShapeError, UsageError
from graphcore.base.notices import ResultWarning, warn_once
from graphcore.base.shapes import Dim, format_shape, product
from graphcore.ir.node import describe

# fmt: off
__all__ = [
    "all",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "count_nonzero",
    "logsumexp",
    "max",
    "mean",
    "min",
    "norm",
    "prod",
    "std",
    "sum",
    "var",
]
# fmt: on


def _arguments(op: str, axis: Any, keepdims: bool, dim: Any, keepdim: bool | None) -> tuple[Any, bool]:
    """NumPy's and PyTorch's spellings as one."""
    if dim is not None and axis is not None:
        raise UsageError(f"{op}: axis={axis!r} and dim={dim!r} are two names of one argument; pass one")
    return (axis if dim is None else dim), (keepdims if keepdim is None else keepdim)


def restore_axes(x: Tensor, like: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The result of a reduction of ``like`` with its reduced axes back as 1."""
    return reshape(x, tuple(1 if a in axes else e for a, e in enumerate(like.shape)))


def _reduce(op: str, x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    if not axes and op not in ("argmax", "argmin"):
        return x
    result = build(op, x, axes=axes)
    return restore_axes(result, x, axes) if keepdims else result


def _accumulator(op: str, x: Any, dtype: Any) -> Tensor:
    """The operand of a sum or product: small integers and bools become 64 bit, as in NumPy."""
    t = tensor(op, x)
    if dtype is not None:
        return cast(t, dtypes.as_dtype(dtype))
    if t.dtype.is_float:
        return t
    return cast(t, dtypes.uint64 if t.dtype.is_unsigned else dtypes.int64)


def sum(
    x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None, *, dim: Any = None, keepdim: bool | None = None
) -> Tensor:
    """The sum over axes. Small integers and bools add up as int64 (uint64), unless ``dtype`` says otherwise.

    Args:
        x: a tensor of numbers or bools.
        axis: an axis, a tuple of axes, or None for all.
        keepdims: keep the reduced axes as 1.
        dtype: cast to this type first.

    Raises:
        ShapeError: an axis is out of range or repeated.

    >>> sum([[1.0, 2.0]], axis=1).shape
    (1,)
    """
    axis, keepdims = _arguments("sum", axis, keepdims, dim, keepdim)
    t = _accumulator("sum", x, dtype)
    return _reduce("sum", t, axes_of("sum", t, axis), keepdims)


def prod(
    x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None, *, dim: Any = None, keepdim: bool | None = None
) -> Tensor:
    """The product over axes, with the arguments of ``sum``.

    >>> prod([2.0, 3.0]).shape
    ()
    """
    axis, keepdims = _arguments("prod", axis, keepdims, dim, keepdim)
    t = _accumulator("prod", x, dtype)
    return _reduce("prod", t, axes_of("prod", t, axis), keepdims)


class Extreme(Tensor):
    """What ``max`` and ``min`` give: the values, as in NumPy, which know where they were.

    ``x.max(1)[0]`` means the values in PyTorch and their first row in NumPy, as here: it warns, once a line.

    Attributes:
        values: the values, the plain tensor.
        indices: their positions along the one axis that was reduced, int64.
    """

    __slots__ = ("_axes", "_keepdims", "_op", "_source", "values")

    def __init__(self, result: Tensor, op: str, source: Tensor, axes: tuple[int, ...], keepdims: bool) -> None:
        super().__init__(result.value)
        self.values = result
        self._op, self._source, self._axes, self._keepdims = op, source, axes, keepdims

    @property
    def grad(self) -> Tensor | None:
        """What ``backward`` left for the values."""
        return self.values.grad

    @grad.setter
    def grad(self, gradient: Tensor | None) -> None:
        self.values.grad = gradient

    @property
    def indices(self) -> Tensor:
        """The positions of the values along the axis, the first of equal ones.

        Raises:
            UsageError: not over one axis.
        """
        if len(self._axes) != 1:
            raise fail(
                UsageError, f"{self._op}: .indices are positions along one axis; {len(self._axes)} were reduced", self
            )
        return _position(f"arg{self._op}", self._source, self._axes[0], self._keepdims)

    def __getitem__(self, key: Any) -> Tensor:
        """Indexed as any tensor."""
        if isinstance(key, int) and not isinstance(key, bool) and key in (0, 1) and len(self._axes) == 1:
            warn_once(
                ResultWarning,
                "extreme",
                f"{self._op}(...)[{key}] is row {key} of the values; write .values or .indices for what PyTorch gives "
                f"there, or .values[{key}] if you mean the row\n  they are {describe(self)}",
            )
        return Tensor.__getitem__(self, key)

    def __iter__(self) -> Any:
        raise fail(
            UsageError,
            f"{self._op} gives one tensor, the values: write m = x.{self._op}(axis), m.values, m.indices",
            self,
        )


def _extreme(op: str, x: Any, axis: Any, keepdims: bool) -> Extreme:
    t = tensor(op, x)
    if t.dtype.is_bool:
        raise fail(DTypeError, f"{op}: the operand is bool; use gc.any or gc.all, or cast with .astype('int32')", t)
    axes = axes_of(op, t, axis)
    return Extreme(_reduce(op, t, axes, keepdims), op, t, axes, keepdims)


def max(x: Any, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool | None = None) -> Extreme:
    """The largest element over axes (values, as in NumPy; ``.indices`` has their positions along one axis); NaN wins.
    Ties share the gradient.

    Raises:
        ShapeError: a reduced axis is empty or out of range.

    >>> max([[1.0, 2.0]], axis=-1, keepdims=True).shape
    (1, 1)
    """
    return _extreme("max", x, *_arguments("max", axis, keepdims, dim, keepdim))


def min(x: Any, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool | None = None) -> Extreme:
    """The smallest element over axes (values, as in NumPy; ``.indices`` has their positions along one axis); NaN wins.
    Ties share the gradient.

    Raises:
        ShapeError: a reduced axis is empty or out of range.

    >>> min([[1.0, 2.0]], axis=-1).shape
    (1,)
    """
    return _extreme("min", x, *_arguments("min", axis, keepdims, dim, keepdim))


amax, amin = max, min


def all(x: Any, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool | None = None) -> Tensor:
    """Whether all elements hold (numbers hold where not zero); bool.

    >>> all([True, False]).dtype
    bool
    """
    t = as_bool(x)
    axis, keepdims = _arguments("all", axis, keepdims, dim, keepdim)
    return _reduce("all", t, axes_of("all", t, axis), keepdims)


def any(x: Any, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool | None = None) -> Tensor:
    """Whether some element holds (numbers hold where not zero); bool.

    >>> any([True, False]).dtype
    bool
    """
    t = as_bool(x)
    axis, keepdims = _arguments("any", axis, keepdims, dim, keepdim)
    return _reduce("any", t, axes_of("any", t, axis), keepdims)


def count_nonzero(x: Any, axis: Any = None, keepdims: bool = False) -> Tensor:
    """How many elements are not zero; int64.

    >>> count_nonzero([1, 0, 2]).dtype
    int64
    """
    t = tensor("count_nonzero", x)
    return sum(t if t.dtype.is_bool else not_equal(t, 0), axis, keepdims)


def _position(op: str, x: Any, axis: Any, keepdims: bool) -> Tensor:
    t = tensor(op, x)
    if t.dtype.is_bool:
        t = cast(t, dtypes.int8)
    if axis is None:
        flat = build(op, reshape(t, (-1,)), axes=(0,))
        return reshape(flat, (1,) * t.ndim) if keepdims else flat
    return _reduce(op, t, (axis_of(op, t, axis),), keepdims)


def argmax(x: Any, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool | None = None) -> Tensor:
    """The position of the first largest element along one axis (None: of the flattened tensor); int64.

    >>> argmax([[1, 3, 2]], axis=1).shape
    (1,)
    """
    return _position("argmax", x, *_arguments("argmax", axis, keepdims, dim, keepdim))


def argmin(x: Any, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool | None = None) -> Tensor:
    """The position of the first smallest element along one axis (None: of the flattened tensor); int64.

    >>> argmin([[1, 3, 2]], axis=1).shape
    (1,)
    """
    return _position("argmin", x, *_arguments("argmin", axis, keepdims, dim, keepdim))


def _real(op: str, x: Any) -> tuple[Tensor, DType]:
    """The operand in the type to compute in (float32 for halves, whose sums would overflow), and the type of the
    result."""
    (t,) = promote(op, x, floating=True)
    return cast(t, dtypes.as_dtype(t.dtype.compute)), t.dtype


def _mean(t: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    if not axes:
        return t
    extents = [t.shape[a] for a in axes]
    return divide(_reduce("sum", t, axes, keepdims), count_of(extents, t.dtype))


def mean(x: Any, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool | None = None) -> Tensor:
    """The mean over axes, also over symbolic ones. Integers and bools give float32; halves add up in float32.

    Raises:
        ShapeError: an axis is out of range or repeated.

    >>> mean([[1.0, 2.0]], axis=1).shape
    (1,)
    """
    axis, keepdims = _arguments("mean", axis, keepdims, dim, keepdim)
    t, dtype = _real("mean", x)
    return cast(_mean(t, axes_of("mean", t, axis), keepdims), dtype)


def _variance(op: str, x: Any, axis: Any, correction: float, keepdims: bool) -> tuple[Tensor, DType]:
    t, dtype = _real(op, x)
    axes = axes_of(op, t, axis)
    extents = [t.shape[a] for a in axes]
    count = product(extents)
    centred = subtract(t, _mean(t, axes, True))
    total = _reduce("sum", multiply(centred, centred), axes, keepdims)
    if not correction:
        return divide(total, count_of(extents, t.dtype)), dtype
    if isinstance(count, Dim):
        free = maximum(subtract(count_of(extents, t.dtype), float(correction)), 0.0)
    else:
        free = scalar(op, count - correction if count > correction else 0.0, t.dtype)
    return divide(total, free), dtype


def var(
    x: Any,
    axis: Any = None,
    correction: float = 0,
    keepdims: bool = False,
    *,
    dim: Any = None,
    keepdim: bool | None = None,
) -> Tensor:
    """The mean of squared distances from the mean, over axes; ``correction=1`` divides by n - 1.

    >>> var([[1.0, 2.0]], axis=1).shape
    (1,)
    """
    axis, keepdims = _arguments("var", axis, keepdims, dim, keepdim)
    value, dtype = _variance("var", x, axis, correction, keepdims)
    return cast(value, dtype)


def std(
    x: Any,
    axis: Any = None,
    correction: float = 0,
    keepdims: bool = False,
    *,
    dim: Any = None,
    keepdim: bool | None = None,
) -> Tensor:
    """The square root of ``var``; its gradient where all elements are equal is 0.

    >>> std([[1.0, 2.0]], axis=1).shape
    (1,)
    """
    axis, keepdims = _arguments("std", axis, keepdims, dim, keepdim)
    value, dtype = _variance("std", x, axis, correction, keepdims)
    return cast(safe_sqrt(value), dtype)


def logsumexp(
    x: Any, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool | None = None
) -> Tensor:
    """log(sum(e ** x)) over axes without overflow; of -inf only it is -inf. Equals share the gradient, also infinities.

    >>> logsumexp([[1.0, 2.0]], axis=1).shape
    (1,)
    """
    axis, keepdims = _arguments("logsumexp", axis, keepdims, dim, keepdim)
    t, dtype = _real("logsumexp", x)
    axes = axes_of("logsumexp", t, axis)
    if not axes:
        return cast(t, dtype)
    top = stop_gradient(_reduce("max", t, axes, True))
    value = log(_reduce("sum", exp(build("excess", *align("logsumexp", t, top))), axes, keepdims))
    shift = top if keepdims else reshape(top, value.shape)
    return cast(add(value, shift), dtype)


def norm(
    x: Any, ord: Any = 2, axis: Any = None, keepdims: bool = False, *, dim: Any = None, keepdim: bool | None = None
) -> Tensor:
    """The vector norm over axes (None: of the flattened tensor).

    Args:
        ord: 2 (or "fro"), 1, 0 (how many are not zero), inf, -inf, or any other number p: sum(|x| ** p) ** (1 / p).

    The gradient at zero is 0, of the inf-norm shared among the largest.

    >>> norm([3.0, 4.0]).shape
    ()
    """
    axis, keepdims = _arguments("norm", axis, keepdims, dim, keepdim)
    t, dtype = _real("norm", x)
    axes = axes_of("norm", t, axis)
    if ord in (2, "fro", None):
        value = safe_sqrt(_reduce("sum", multiply(t, t), axes, keepdims))
    elif isinstance(ord, str):
        raise UsageError(f"norm: ord {ord!r} is unknown; use a number or 'fro'")
    elif ord == 0:
        value = _reduce("sum", cast(not_equal(t, 0), t.dtype), axes, keepdims)
    elif ord == 1:
        value = _reduce("sum", absolute(t), axes, keepdims)
    elif ord in (float("inf"), float("-inf")):
        value = _reduce("max" if ord > 0 else "min", absolute(t), axes, keepdims)
    else:
        total = _reduce("sum", _safe_power(t, float(ord)), axes, keepdims)
        value = _safe_power(total, 1.0 / ord)
    return cast(value, dtype)


def _safe_power(x: Tensor, exponent: float) -> Tensor:
    """|x| ** exponent with gradient 0 at 0, where that of the power may be infinite or, multiplied by 0, NaN."""
    zero = equal(x, 0)
    return where(zero, 0.0 if exponent > 0 else math.inf, pow(absolute(where(zero, 1.0, x)), exponent))


def pooled_axes(op: str, x: Tensor, count: int) -> tuple[int, ...]:
    """The last ``count`` axes."""
    if x.ndim < count:
        raise fail(ShapeError, f"{op}: needs at least {count} axes, got {format_shape(x.shape)}", x)
    return tuple(range(x.ndim - count, x.ndim))


def normalize(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / sqrt(var + eps) over axes with its mean and variance, which keep their axes."""
    centre = _mean(x, axes, True)
    centred = subtract(x, centre)
    spread = _mean(multiply(centred, centred), axes, True)
    inverse = build("rsqrt", add(spread, eps))
    return multiply(*align("normalize", centred, inverse)), centre, spread
