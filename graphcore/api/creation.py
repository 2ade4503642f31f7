"""New tensors: from data, of one value, ranges, triangles. The default float is float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphcore.api import operands as coercion
from graphcore.api.elementwise import add, multiply
from graphcore.api.logic import equal, greater_equal, less_equal, where
from graphcore.api.operands import build, cast, fail, promote, tensor
from graphcore.api.shaping import stack
from graphcore.api.tensor import Tensor
from graphcore.api.variable import fixed
from graphcore.base import dtypes
from graphcore.base.dtypes import DType
from graphcore.base.errors import DTypeError, ShapeError, UsageError
from graphcore.base.shapes import Dim, Extent, Shape, format_shape

# fmt: off
__all__ = [
    "arange",
    "array",
    "asarray",
    "eye",
    "full",
    "full_like",
    "linspace",
    "meshgrid",
    "ones",
    "ones_like",
    "tril",
    "triu",
    "zeros",
    "zeros_like",
]
# fmt: on


def asarray(value: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """``value`` as a tensor: a tensor stays, data becomes a constant, a list with tensors in it is stacked.

    Args:
        dtype: cast to this type; by default Python floats are float32, integers int64, arrays keep their type.

    >>> asarray([1.0, 2.0]).shape
    (2,)
    """
    if (
        isinstance(value, (list, tuple))
        and any(isinstance(v, (Tensor, list, tuple)) for v in value)
        and _holds_tensor(value)
    ):
        value = stack([asarray(v) for v in value])
    if isinstance(value, Tensor):
        return value if dtype is None else cast(value, dtypes.as_dtype(dtype))
    if isinstance(value, Dim):
        return tensor("asarray", value, None if dtype is None else dtypes.as_dtype(dtype))
    if name is None:
        return tensor("asarray", value, None if dtype is None else dtypes.as_dtype(dtype))
    return fixed("asarray", value, dtype, name)


array = asarray


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, (list, tuple)) and any(_holds_tensor(v) for v in value))


def _shape(op: str, shape: Any) -> Shape:
    """Extents, symbolic ones only as ``Dim``s of other tensors."""
    result: list[Extent] = []
    for e in shape if isinstance(shape, (tuple, list)) else (shape,):
        if isinstance(e, Dim):
            result.append(e)
            continue
        try:
            extent = int(e.__index__())
        except (AttributeError, TypeError):
            hint = "; for a symbolic extent use x.shape[0] of a placeholder, or zeros_like" if e is None else ""
            raise ShapeError(f"{op}: {e!r} in the shape {shape!r} is no extent{hint}") from None
        if extent < 0:
            raise ShapeError(f"{op}: the extent {extent} in the shape {shape!r} is negative")
        result.append(extent)
    return tuple(result)


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Tensor:
    """One value everywhere (a number, or a tensor that broadcasts to ``shape``); nothing is stored but the value.

    >>> full((2, 3), 7.0).dtype
    float32
    """
    extents = _shape("full", shape)
    wanted = None if dtype is None else dtypes.as_dtype(dtype)
    value = tensor("full", fill_value, wanted)
    value = value if wanted is None else cast(value, wanted)
    if value.ndim > len(extents):
        raise fail(
            ShapeError,
            f"full: the value {format_shape(value.shape)} does not broadcast to {format_shape(extents)}",
            value,
        )
    return coercion.fit(value, extents)


def zeros(shape: Any, dtype: Any = "float32") -> Tensor:
    """Zeros of a shape (extents may be ``x.shape[0]`` of a placeholder).

    >>> zeros((2, 3)).shape
    (2, 3)
    """
    return coercion.full(_shape("zeros", shape), 0, dtypes.as_dtype(dtype))


def ones(shape: Any, dtype: Any = "float32") -> Tensor:
    """Ones of a shape.

    >>> ones((2, 3)).shape
    (2, 3)
    """
    return coercion.full(_shape("ones", shape), 1, dtypes.as_dtype(dtype))


def full_like(x: Any, fill_value: bool | int | float, dtype: Any = None) -> Tensor:
    """A number, of the shape and (unless given) the type of ``x``.

    >>> full_like([1.0, 2.0], 3).dtype
    float32
    """
    t = tensor("full_like", x)
    return coercion.full(t.shape, fill_value, t.dtype if dtype is None else dtypes.as_dtype(dtype), "full_like")


def zeros_like(x: Any, dtype: Any = None) -> Tensor:
    """Zeros of the shape and type of ``x``.

    >>> zeros_like([1.0, 2.0]).shape
    (2,)
    """
    return full_like(x, 0, dtype)


def ones_like(x: Any, dtype: Any = None) -> Tensor:
    """Ones of the shape and type of ``x``.

    >>> ones_like([1.0, 2.0]).shape
    (2,)
    """
    return full_like(x, 1, dtype)


def _grid(shape: Shape, k: int) -> tuple[Tensor, Tensor]:
    """Row numbers plus k and column numbers of the last two axes."""
    rank = len(shape)
    dtype = dtypes.position_dtype(shape[-2] + abs(k), shape[-1])
    row, column = (build("iota", shape=shape, axis=axis, dtype=dtype) for axis in (rank - 2, rank - 1))
    return add(row, k) if k else row, column


def eye(n: Any, m: Any = None, k: int = 0, dtype: Any = "float32") -> Tensor:
    """Ones on the k-th diagonal of an (n, m) matrix, zeros elsewhere.

    >>> eye(3).shape
    (3, 3)
    """
    return cast(equal(*_grid(_shape("eye", (n, n if m is None else m)), k)), dtypes.as_dtype(dtype))


def _triangle(op: str, x: Any, k: int, compare: Any) -> Tensor:
    t = tensor(op, x)
    if t.ndim < 2:
        raise fail(ShapeError, f"{op}: needs at least 2 axes, got {format_shape(t.shape)}", t)
    return where(compare(*_grid(t.shape, k)), t, False if t.dtype.is_bool else 0)


def tril(x: Any, k: int = 0) -> Tensor:
    """The lower triangle of the last two axes, up to the k-th diagonal; zeros above.

    >>> tril([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    return _triangle("tril", x, k, greater_equal)


def triu(x: Any, k: int = 0) -> Tensor:
    """The upper triangle of the last two axes, from the k-th diagonal; zeros below.

    >>> triu([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    return _triangle("triu", x, k, less_equal)


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Tensor:
    """Numbers from ``start`` (0 if only one bound is given) up to but without ``stop``, ``step`` apart.

    Args:
        start, stop, step: Python numbers; ``stop`` may be symbolic if ``start`` is an integer and ``step`` 1.
        dtype: by default int64, or float32 if a bound is a float.

    Raises:
        DTypeError: an integer type does not hold all numbers.

    >>> arange(5).shape
    (5,)
    """
    if stop is None:
        start, stop = 0, start
    for bound in (start, stop, step):
        if isinstance(bound, bool) or not isinstance(bound, (int, float, Dim, np.integer, np.floating)):
            raise UsageError(f"arange: {bound!r} is no number; the length must be known while building")
    floating = any(isinstance(b, (float, np.floating)) for b in (start, stop, step))
    wanted: DType = dtypes.as_dtype(dtype) if dtype is not None else dtypes.float32 if floating else dtypes.int64
    if isinstance(start, Dim) or isinstance(step, Dim) or (isinstance(stop, Dim) and (step != 1 or floating)):
        raise ShapeError(
            f"arange: only the stop may be symbolic, with an integer start and the step 1, got arange({start}, "
            f"{stop}, {step})"
        )
    if step == 0:
        raise ShapeError("arange: the step must not be 0")
    count: Extent = stop - start if isinstance(stop, Dim) else max(0, math.ceil((stop - start) / step))
    if wanted.is_bool:
        raise DTypeError("arange: bool is no type of numbers; use 'int64'")
    if wanted.is_integer and isinstance(count, int) and count:
        bounds, info = sorted((int(start), int(start + (count - 1) * step))), np.iinfo(wanted.storage)
        if bounds[0] < info.min or bounds[1] > info.max:
            raise DTypeError(
                f"arange: {bounds[0]} to {bounds[1]} does not fit {wanted} ({info.min} to {info.max}); give a wider "
                f"dtype"
            )
    at = build("iota", shape=(count,), axis=0, dtype=wanted)
    scaled = at if step == 1 else multiply(at, _python(step, wanted))
    return scaled if start == 0 else add(scaled, _python(start, wanted))


def _python(value: Any, dtype: DType) -> int | float:
    return float(value) if dtype.is_float else int(value)


def linspace(start: float, stop: float, num: int = 50, endpoint: bool = True, dtype: Any = "float32") -> Tensor:
    """``num`` numbers evenly from ``start`` to ``stop`` (without it, if not ``endpoint``).

    >>> linspace(0.0, 1.0, 5).shape
    (5,)
    """
    if not isinstance(num, (int, np.integer)) or num < 0:
        raise ShapeError(f"linspace: num is {num!r}, but must be an integer of at least 0")
    return fixed("linspace", np.linspace(start, stop, int(num), endpoint=endpoint), dtype)


def meshgrid(*xs: Any, indexing: str = "xy") -> list[Tensor]:
    """Coordinate matrices of vectors: ``"xy"`` swaps the first two axes as NumPy does by default, ``"ij"`` does not.

    >>> [t.shape for t in meshgrid([1, 2], [1, 2, 3], indexing="ij")]
    [(2, 3), (2, 3)]
    """
    if indexing not in ("xy", "ij"):
        raise UsageError(f"meshgrid: indexing is {indexing!r}; use 'xy' or 'ij'")
    vectors = promote("meshgrid", *xs) if xs else []
    for v in vectors:
        if v.ndim != 1:
            raise fail(ShapeError, f"meshgrid: takes vectors, got {format_shape(v.shape)}", v)
    order = list(range(len(vectors)))
    if indexing == "xy" and len(order) > 1:
        order[0], order[1] = 1, 0
    shape = tuple(vectors[i].shape[0] for i in order)
    grids = []
    for i, v in enumerate(vectors):
        place = order.index(i)
        apart = tuple(v.shape[0] if a == place else 1 for a in range(len(order)))
        grids.append(coercion.fit(build("reshape", v, shape=apart) if len(order) > 1 else v, shape))
    return grids
