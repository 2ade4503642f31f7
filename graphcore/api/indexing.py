"""Indexing by slices, integers and integer tensors; taking and adding at positions; ``x.at[i].set(v)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphcore.api.agreement import taken
from graphcore.api.elementwise import add, multiply
from graphcore.api.logic import less, where
from graphcore.api.operands import axis_of, build, cast, fail, fit, in_range, promote, tensor
from graphcore.api.shaping import flip, moveaxis, permute_dims, reshape
from graphcore.api.spans import symbolic_span
from graphcore.api.tensor import Tensor
from graphcore.base import dtypes
from graphcore.base.errors import DTypeError, OutOfRangeError, ShapeError, UsageError
from graphcore.base.shapes import (
    Dim,
    Extent,
    Shape,
    agree,
    broadcast_shapes,
    broadcasts,
    format_shape,
    product,
    widths_around,
)
from graphcore.ir.node import mismatch

__all__ = [
    "Basic",
    "basic_index",
    "gather",
    "getitem",
    "index_add",
    "one_hot",
    "scatter_add",
    "take",
    "take_along_axis",
]


@dataclass(frozen=True)
class Basic:
    """A basic index of a tensor: a slice with positive steps, axes to reverse, and the shape with axes dropped and
    added."""

    starts: Shape
    lengths: Shape
    steps: tuple[int, ...]
    flips: tuple[int, ...]
    shape: Shape

    def read(self, x: Tensor) -> Tensor:
        """The elements of ``x`` that the index names."""
        if self.lengths != x.shape or any(self.starts) or any(s != 1 for s in self.steps):
            x = build("slice", x, starts=self.starts, lengths=self.lengths, steps=self.steps)
        return reshape(flip(x, self.flips) if self.flips else x, self.shape)

    def place(self, v: Tensor, shape: Shape) -> Tensor:
        """``v``, of the shape that ``read`` gives, put where the index names in a tensor of zeros."""
        v = reshape(v, self.lengths)
        v = flip(v, self.flips) if self.flips else v
        low, high, gaps = widths_around(shape, self.starts, self.lengths, self.steps)
        return build("pad", v, low=low, high=high, gaps=gaps)


def getitem(x: Tensor, key: Any) -> Tensor:
    """``x[key]`` with NumPy's meaning: integers, slices (also with negative steps), None, ``...``, and integer arrays
    or tensors.

    A computed index out of range gives NaN (0 for integers); constant and fed ones raise.

    Raises:
        ShapeError: too many indices or one out of range.
        UsageError: a boolean mask (its result would have no fixed shape) or something that is no index.
    """
    items = expand_index(x, key)
    if not any(is_array(i) for i in items):
        return basic_index(x, items).read(x)
    return _advanced(x, items)


def is_array(item: Any) -> bool:
    return isinstance(item, (Tensor, np.ndarray, list))


def expand_index(x: Tensor, key: Any) -> list[Any]:
    """The index as one entry per axis of ``x``, and None for every new axis."""
    items = [_checked(x, k) for k in _without_masks(x, key if isinstance(key, tuple) else (key,))]
    dots = [i for i, k in enumerate(items) if k is Ellipsis]
    if len(dots) > 1:
        raise fail(OutOfRangeError, f"index: more than one '...' in an index of {format_shape(x.shape)}", x)
    named = len([k for k in items if k is not None and k is not Ellipsis])
    if named > x.ndim:
        raise fail(OutOfRangeError, f"index: {named} indices for a tensor of rank {x.ndim}, {format_shape(x.shape)}", x)
    at = dots[0] if dots else len(items)
    return [*items[:at], *[slice(None)] * (x.ndim - named), *items[at + 1 :]]


def _without_masks(x: Tensor, key: tuple[Any, ...]) -> list[Any]:
    """The index with every boolean array, whose elements are known, as the positions of its True elements."""
    wide = [np.ndim(k) if is_mask(k) else int(k is not None and k is not Ellipsis) for k in key]
    items: list[Any] = []
    for i, k in enumerate(key):
        if not is_mask(k):
            items.append(k)
            continue
        first = x.ndim - sum(wide[i:]) if any(j is Ellipsis for j in key[:i]) else sum(wide[:i])
        mask, part = np.asarray(k), x.shape[first : first + wide[i]]
        if mask.shape != part:
            raise fail(
                OutOfRangeError, f"index: a mask of {format_shape(mask.shape)} for the axes {format_shape(part)}", x
            )
        items.extend(np.nonzero(mask))
    return items


def is_mask(item: Any) -> bool:
    """Whether an index is a boolean array with axes."""
    return isinstance(item, (np.ndarray, list)) and np.ndim(item) > 0 and np.asarray(item).dtype == bool


def _checked(x: Tensor, item: Any) -> Any:
    """One entry of an index, with arrays as arrays or tensors of integers."""
    if item is None or item is Ellipsis or isinstance(item, (slice, Dim)):
        return item
    if (
        isinstance(item, (bool, np.bool_))
        or (isinstance(item, (np.ndarray, list)) and np.asarray(item).dtype == bool)
        or (isinstance(item, Tensor) and item.dtype.is_bool)
    ):
        raise fail(
            UsageError,
            "index: a boolean mask selects a number of elements that is not known before the run; use gc.where(mask, "
            "x, 0), "
            "or multiply by the mask",
            x,
            *([item] if isinstance(item, Tensor) else []),
        )
    if isinstance(item, Tensor):
        if not item.dtype.is_integer:
            raise fail(
                DTypeError,
                f"index: an index tensor is {item.dtype}, but must be of integers; cast it with .astype('int64')",
                x,
                item,
            )
        return item
    if isinstance(item, (np.ndarray, list)):
        array = (
            np.asarray(item, np.int64 if len(item) == 0 else None)
            if not isinstance(item, np.ndarray) or item.ndim
            else item
        )
        if array.dtype.kind not in "iu":
            raise fail(DTypeError, f"index: an index array is {array.dtype}, but must be of integers", x)
        return array if array.ndim else int(array)
    try:
        return int(item.__index__())
    except (AttributeError, TypeError):
        raise fail(
            UsageError, f"index: {item!r} is no index; use integers, slices, None, ... or integer tensors", x
        ) from None


def basic_index(x: Tensor, items: list[Any]) -> Basic:
    starts: list[Extent] = []
    lengths: list[Extent] = []
    steps: list[int] = []
    flips: list[int] = []
    shape: list[Extent] = []
    axis = 0
    for item in items:
        if item is None:
            shape.append(1)
            continue
        extent = x.shape[axis]
        if isinstance(item, slice):
            start, length, step = _span(x, axis, item)
            shape.append(length)
        else:
            start, length, step = _position(x, axis, item, extent), 1, 1
        if step < 0:
            flips.append(axis)
        starts.append(start)
        lengths.append(length)
        steps.append(abs(step))
        axis += 1
    return Basic(tuple(starts), tuple(lengths), tuple(steps), tuple(flips), tuple(shape))


def _position(x: Tensor, axis: int, index: int, extent: Extent) -> Extent:
    if isinstance(extent, Dim):  # whether it is there is checked when feeds bind
        return extent + index if index < 0 else index
    if not -extent <= index < extent:
        raise fail(
            OutOfRangeError,
            f"index: {index} is out of range for axis {axis} with extent {extent} of {format_shape(x.shape)}",
            x,
        )
    return index % extent


def _span(x: Tensor, axis: int, item: slice) -> tuple[Extent, Extent, int]:
    """Start, number and step of a slice; a negative step gives the start of the reversed, increasing slice."""
    extent = x.shape[axis]
    try:
        fixed = slice(
            *(
                None if v is None or (isinstance(v, Dim) and v == extent) else v.__index__()
                for v in (item.start, item.stop, item.step)
            )
        )
    except (AttributeError, TypeError):
        raise fail(
            UsageError,
            f"index: the bounds of {item} must be integers known while building; use gc.take with computed indices",
            x,
        ) from None
    if fixed.step == 0:
        raise fail(ShapeError, "index: a slice's step must not be 0", x)
    if isinstance(extent, Dim):
        return symbolic_span(fixed, extent)
    start, stop, step = fixed.indices(extent)
    count = len(range(start, stop, step))
    if count == 0:
        return 0, 0, 1
    return (start, count, step) if step > 0 else (start + (count - 1) * step, count, step)


def _advanced(x: Tensor, items: list[Any]) -> Tensor:
    """Basic parts first; then the axes with integer arrays become one axis, taken at row-major positions."""
    whole = [i for i in items if i is not None]
    arrays = {axis: i for axis, i in enumerate(whole) if not isinstance(i, slice)}
    places = [p for p, i in enumerate(items) if i is not None and not isinstance(i, slice)]
    together = places == list(range(places[0], places[0] + len(places)))
    kept = [slice(None) if not isinstance(i, slice) else i for i in whole]
    y = basic_index(x, kept).read(x)
    indices = _joint_index(x, y, arrays)
    first = min(arrays)
    rest = [a for a in range(y.ndim) if a not in arrays]
    before = [a for a in rest if a < first] if together else []
    after = [a for a in rest if a not in before]
    ordered = permute_dims(y, (*before, *sorted(arrays), *after))
    merged = reshape(
        ordered,
        (*(y.shape[a] for a in before), product(y.shape[a] for a in sorted(arrays)), *(y.shape[a] for a in after)),
    )
    result = build("take", merged, indices, axis=len(before))
    return _insert_axes(result, items, places, together, indices.ndim)


def _insert_axes(result: Tensor, items: list[Any], places: list[int], together: bool, rank: int) -> Tensor:
    """New axes (None in the index) put in."""
    if not any(item is None for item in items):
        return result
    extents = iter(result.shape)
    shape: list[Extent] = [] if together else [next(extents) for _ in range(rank)]
    for place, item in enumerate(items):
        if item is None:
            shape.append(1)
        elif place not in places:
            shape.append(next(extents))
        elif together and place == places[0]:
            shape.extend(next(extents) for _ in range(rank))
    return reshape(result, tuple(shape))


def _joint_index(x: Tensor, y: Tensor, arrays: dict[int, Any]) -> Tensor:
    """The row-major position over several axes of ``y`` from an index into each; constants are checked."""
    for axis, index in arrays.items():
        check_constant(x, axis, index, y.shape[axis])
    if len(arrays) == 1:
        ((axis, index),) = arrays.items()
        return named_positions("index", index, y.shape[axis])
    total: Tensor | None = None
    for axis in sorted(arrays):
        extent = y.shape[axis]
        index = named_positions("index", arrays[axis] if is_array(arrays[axis]) else np.asarray(arrays[axis]), extent)
        index = cast(index, dtypes.int64)
        counted = where(less(index, 0), add(index, extent), index)
        total = counted if total is None else add(multiply(total, extent), counted)
    assert total is not None
    return total


def named_positions(op: str, index: Any, extent: Extent) -> Tensor:
    """An index, whose arrays ``check_constant`` has seen, as a tensor that is checked when it is fed."""
    return in_range(op, index, extent) if isinstance(index, Tensor) else tensor(op, index)


def check_constant(x: Tensor, axis: int, index: Any, extent: Extent) -> None:
    if isinstance(index, Tensor) or isinstance(extent, Dim):
        return
    array = np.asarray(index)
    bad = array[(array < -extent) | (array >= extent)]
    if bad.size:
        raise fail(
            OutOfRangeError,
            f"index: {bad.flat[0]} is out of range for axis {axis} with extent {extent} of {format_shape(x.shape)}",
            x,
        )


def _integers(op: str, indices: Any) -> Tensor:
    t = tensor(op, np.asarray(indices, np.int64) if isinstance(indices, (list, tuple)) and not indices else indices)
    if not t.dtype.is_integer:
        raise fail(DTypeError, f"{op}: indices are {t.dtype}, but must be integers; cast them with .astype('int64')", t)
    return t


def take(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """Slices of ``x`` along an axis (None: of the flattened tensor) at ``indices``, of any shape.

    A negative index counts from the end. A computed index out of range gives NaN (0 for integers).

    Raises:
        DTypeError: indices that are no integers.
        OutOfRangeError: constant indices out of range; fed ones raise FeedError when they are fed.

    >>> take([[1, 2], [3, 4]], [0, 0, 1], axis=0).shape
    (3, 2)
    """
    t, at = tensor("take", x), _integers("take", indices)
    if axis is None:
        t, axis = reshape(t, (-1,)), 0
    place = axis_of("take", t, axis)
    if not isinstance(indices, Tensor):
        check_constant(t, place, indices, t.shape[place])
    return build("take", t, in_range("take", at, t.shape[place]), axis=place)


def take_along_axis(x: Any, indices: Any, axis: int = -1) -> Tensor:
    """y[i, j] = x[i, indices[i, j]] for axis 1, and so on; the other axes broadcast.

    >>> take_along_axis([[1, 2], [3, 4]], [[1], [0]], 1).shape
    (2, 1)
    """
    t, at = tensor("take_along_axis", x), _integers("take_along_axis", indices)
    place = axis_of("take_along_axis", t, axis)
    if t.ndim != at.ndim:
        raise mismatch("take_along_axis", t, at, "ranks differ")
    try:
        rest = broadcast_shapes(t.shape[:place] + t.shape[place + 1 :], at.shape[:place] + at.shape[place + 1 :])
    except ShapeError:
        raise mismatch("take_along_axis", t, at, f"shapes differ outside axis {place}") from None
    at = in_range("take_along_axis", at, t.shape[place])
    pair = ((t, at), (at, t))
    t, at = (fit(u, (*rest[:place], u.shape[place], *rest[place:]), "take_along_axis", v) for u, v in pair)
    return build("take_along", t, at, axis=place)


def gather(x: Any, dim: int, index: Any) -> Tensor:
    """PyTorch's gather: y[i, j] = x[i, index[i, j]] for ``dim`` 1, and so on; ``index`` may be smaller than ``x`` along
    other axes.

    >>> gather([[1, 2], [3, 4]], 1, [[1], [0]]).shape
    (2, 1)
    """
    t, at = tensor("gather", x), _integers("gather", index)
    place = axis_of("gather", t, dim)
    if t.ndim != at.ndim or any(
        isinstance(a, int) and isinstance(b, int) and a < b
        for i, (a, b) in enumerate(zip(t.shape, at.shape, strict=True))
        if i != place
    ):
        raise mismatch("gather", t, at, f"the index must have the rank of x and be no larger outside dim {place}")
    lengths = tuple(e if i == place else at.shape[i] for i, e in enumerate(t.shape))
    if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(lengths, t.shape, strict=True)):
        cut = tuple(
            n if isinstance(n, int) and isinstance(e, int) else e for n, e in zip(lengths, t.shape, strict=True)
        )
        t = build("slice", t, starts=(0,) * t.ndim, lengths=cut, steps=(1,) * t.ndim)
    return build("take_along", taken(t, lengths, "gather", at), in_range("gather", at, t.shape[place]), axis=place)


def scatter_add(x: Any, dim: int, index: Any, src: Any) -> Tensor:
    """PyTorch's scatter_add: ``x`` with src[i, j] added at [i, index[i, j]] for ``dim`` 1, and so on; duplicates add
    up.

    ``index`` may be smaller than ``src``, whose other elements are not used, and outside ``dim`` than ``x``. Indices
    out of range are dropped; fed ones raise FeedError.

    >>> scatter_add([[0.0, 0.0]], 1, [[1]], [[2.0]]).shape
    (1, 2)
    """
    (t, values), at = promote("scatter_add", x, src), _integers("scatter_add", index)
    place = axis_of("scatter_add", t, dim)
    if not at.ndim == t.ndim == values.ndim:
        raise mismatch("scatter_add", at, values, "index and src must have the rank of x")
    if at.shape != values.shape:
        cut = tuple(map(_no_longer, at.shape, values.shape))
        if not agree(cut, at.shape):
            raise mismatch("scatter_add", at, values, "the index must be no larger than src")
        if cut != values.shape:
            values = build("slice", values, starts=(0,) * t.ndim, lengths=cut, steps=(1,) * t.ndim)
        values = taken(values, at.shape, "scatter_add", at)
    room = tuple(n if i == place else _no_longer(n, e) for i, (n, e) in enumerate(zip(at.shape, t.shape, strict=True)))
    if not agree(room, at.shape):
        raise mismatch("scatter_add", t, at, f"the index must be no larger than x outside dim {place}")
    at, values = taken(at, room, "scatter_add", t), taken(values, room, "scatter_add", t)
    missing = tuple(0 if i == place or e == room[i] else e - room[i] for i, e in enumerate(t.shape))
    at = in_range("scatter_add", at, t.shape[place], constants=False)
    added = build("scatter_along", at, values, axis=place, extent=t.shape[place])
    return add(t, build("pad", added, low=(0,) * t.ndim, high=missing, gaps=(0,) * t.ndim) if any(missing) else added)


def _no_longer(n: Extent, extent: Extent) -> Extent:
    """How many of ``extent`` elements are left of ``n``: unknown extents are taken to be equal."""
    return min(n, extent) if isinstance(n, int) and isinstance(extent, int) else extent


def index_add(x: Any, dim: int, index: Any, source: Any) -> Tensor:
    """``x`` with the slices of ``source`` along ``dim`` added at the positions ``index`` (N,); duplicates add up.

    Indices out of range are dropped; fed ones raise FeedError.

    >>> index_add([[0.0], [0.0]], 0, [1, 1], [[2.0], [3.0]]).shape
    (2, 1)
    """
    (t, values), at = promote("index_add", x, source), _integers("index_add", index)
    place = axis_of("index_add", t, dim)
    if at.ndim != 1 or values.ndim != t.ndim:
        raise mismatch("index_add", at, values, f"the index must have 1 axis and the source {t.ndim}")
    at = in_range("index_add", at, t.shape[place], constants=False)
    return add(t, moveaxis(rows_added(moveaxis(t, place, 0), at, moveaxis(values, place, 0), "index_add"), 0, place))


def rows_added(x: Tensor, index: Tensor, values: Tensor, op: str) -> Tensor:
    wanted = (*index.shape, *x.shape[1:])
    if not broadcasts(values.shape, wanted):
        raise mismatch(op, x, values, f"the values must be {format_shape(wanted)}")
    count = product(index.shape)
    against = x if values.shape[1:] != x.shape[1:] else index
    flat = reshape(fit(values, wanted, op, against), (count, *x.shape[1:]))
    return build("scatter_add", reshape(index, (count,)), flat, rows=x.shape[0])


def one_hot(indices: Any, depth: int, dtype: Any = "float32") -> Tensor:
    """indices -> (..., depth): 1 at the index along the last axis, 0 elsewhere.

    A negative index counts from the end. An index out of range gives zeros; a fed one raises FeedError.

    >>> one_hot([0, 2], 3).shape
    (2, 3)
    """
    at = in_range("one_hot", _integers("one_hot", indices), int(depth), constants=False)
    return build("one_hot", at, depth=int(depth), dtype=dtypes.as_dtype(dtype))
