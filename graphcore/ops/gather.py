"""Reading and adding at computed positions: take, one-hot, take-along-axis, and their gradients.

A negative index counts from the end. An index out of range reads nothing: it gives NaN (0 for types without NaN, and in
gradients), and what would be added there is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from graphcore.base import dtypes
from graphcore.base.dtypes import DType
from graphcore.base.errors import ShapeError
from graphcore.base.shapes import Extent, Shape, format_shape, product
from graphcore.ir.op import INTEGER, REAL, Example, Lowering, Opaque, Read, TensorType, one_type, primitive
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Dynamic, Index, as_index
from graphcore.ops._examples import floats, integers
from graphcore.ops.conv import fresh_axes

__all__ = ["OneHot", "ScatterAdd", "ScatterAlong", "Take", "TakeAlong"]


def _counted(given: Expr, extent: Extent) -> tuple[Expr, Expr]:
    """An index with negatives counted from the end, and whether it is in range. 32-bit where that suffices."""
    unsigned = given.dtype.is_unsigned
    wide = dtypes.position_dtype(extent) if given.dtype.itemsize <= 4 else dtypes.int64
    wide = dtypes.as_dtype(("u" if unsigned else "") + wide.name)
    value, size, zero = expr.cast(given, wide), expr.size_value(extent, wide), expr.const(0, wide)
    below = expr.call("lt", value, size)
    if unsigned:
        return value, below
    counted = expr.select(expr.call("lt", value, zero), expr.call("add", value, size), value)
    return counted, expr.both(expr.call("ge", counted, zero), expr.call("lt", counted, size))


def _dynamic(given: Expr, extent: Extent) -> tuple[Index, Expr]:
    """A given index as an index, clamped to the extent, and whether it was in range."""
    counted, inside = _counted(given, extent)
    return as_index(Dynamic(expr.select(inside, counted, expr.const(0, counted.dtype)), extent)), inside


def _names(given: Expr, position: Index, extent: Extent) -> Expr:
    """Whether a given index names a position along an axis."""
    counted, inside = _counted(given, extent)
    return expr.both(inside, expr.call("eq", counted, expr.index_value(position, counted.dtype)))


def _found(value: Expr, inside: Expr, zeros: bool) -> Expr:
    """What an index out of range gives: guarded reads give 0 already."""
    if zeros or not value.dtype.is_float:
        return value
    return expr.select(inside, value, expr.const(math.nan, value.dtype))


def _positions(indices: Any, extent: int) -> tuple[Any, Any]:
    """By NumPy: positions with negatives counted from the end (0 where out of range), and whether they are in range."""
    if dtypes.as_dtype(indices.dtype).is_unsigned:
        inside = indices < extent
        return np.where(inside, indices, 0).astype(np.int64), inside
    wide = indices.astype(np.int64)
    counted = np.where(wide < 0, wide + extent, wide)
    inside = (counted >= 0) & (counted < extent)
    return np.where(inside, counted, 0), inside


def _masked(values: Any, inside: Any, zeros: bool, given: Any) -> Any:
    missing = 0 if zeros or not dtypes.as_dtype(given.dtype).is_float else math.nan
    return np.where(inside, values, np.asarray(missing).astype(given.dtype))


def _added(shape: tuple[int, ...], where: Any, values: Any) -> Any:
    """Zeros with values added at positions; half types add up in the compute type."""
    out = np.zeros(shape, np.dtype(dtypes.as_dtype(values.dtype).compute))
    np.add.at(out, where, values.astype(out.dtype))
    return out.astype(values.dtype)


class _Gather(Opaque):
    """Checks that the family shares."""

    arity: ClassVar[int | None] = 2

    def axis_of(self, shape: Shape, axis: int) -> None:
        if not 0 <= axis < len(shape):
            raise ShapeError(f"{self.name}: axis {axis} is out of range for {format_shape(shape)}")

    def along(self, x: TensorType, y: TensorType, axis: int) -> None:
        """Check equal ranks, and equal extents outside the axis."""
        self.axis_of(x.shape, axis)
        rest = (*x.shape[:axis], *x.shape[axis + 1 :])
        if x.rank != y.rank or rest != (*y.shape[:axis], *y.shape[axis + 1 :]):
            shapes = f"{format_shape(x.shape)} and {format_shape(y.shape)}"
            raise ShapeError(f"{self.name}: {shapes} differ outside axis {axis}")


@primitive
class Take(_Gather):
    """Slices of x along an axis: (x, indices) -> x.shape[:axis] + indices.shape + x.shape[axis+1:].

    ``zeros``: an index out of range gives 0 for floating types too, as a gradient needs.
    """

    axis: int
    zeros: bool = False

    def linear_in(self, count: int) -> tuple[int, ...]:
        return (0,)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, indices = inputs
        self.check(1, indices, INTEGER)
        self.axis_of(x.shape, self.axis)
        return one_type((*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :]), x.dtype)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        x, indices = call.inputs
        stop = self.axis + indices.rank
        row, inside = _dynamic(read(1, index[self.axis : stop]), x.shape[self.axis])
        value = read(0, (*index[: self.axis], row, *index[stop:]), inside)
        return _found(value, inside, self.zeros)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        """Rows of the gradient added up: the axes of the indices first and flat, then the others."""
        b, (x, indices), g, axis = call.b, call.inputs, gradients[0], self.axis
        middle = range(axis, axis + indices.ndim)
        moved = b.permute(g, axes=(*middle, *range(axis), *range(axis + indices.ndim, g.ndim)))
        rest = (*x.shape[:axis], *x.shape[axis + 1 :])
        count = product(indices.shape)
        flat, updates = b.reshape(indices, shape=(count,)), b.reshape(moved, shape=(count, *rest))
        rows = b.scatter_add(flat, updates, rows=x.shape[axis])
        return b.permute(rows, axes=(*range(1, axis + 1), 0, *range(axis + 1, x.ndim))), None

    def reference(self, *inputs: Any) -> Any:
        x, indices = inputs
        where, inside = _positions(indices, x.shape[self.axis])
        if x.shape[self.axis] == 0:
            x = np.zeros((*x.shape[: self.axis], 1, *x.shape[self.axis + 1 :]), x.dtype)
        inside = inside.reshape((*inside.shape, *(1,) * (x.ndim - self.axis - 1)))
        return _masked(np.take(x, where, axis=self.axis), inside, self.zeros, x)

    def examples(self) -> Iterator[Example]:
        yield Take(0), floats(5, 3), np.array([0, 4, 4, -1, -5, 2])
        yield Take(1), floats(2, 4, 3), integers(2, 2, low=-4, high=4)
        yield Take(2), floats(2, 3, 4), np.array(1, np.int8)
        yield Take(0), floats(5), np.array([[1, 1], [0, 3]], np.uint8)
        yield Take(0), integers(5, 2), np.array([0, 5, -6, 2], np.int32)
        yield Take(0), np.array([1, np.nan, 3], np.float32), np.array([3, 0, 1, -4, 10**9], np.int64)
        yield Take(0, True), floats(3, 2), np.array([3, 0, 1, -4], np.int64)
        yield Take(0), integers(3), np.array([2, 2**64 - 1, 0], np.uint64)
        yield Take(0), floats(4, 2), np.zeros((0,), np.int32)
        yield Take(0), integers(0, 2), np.array([0, -1])
        yield Take(1), floats(1, 1), np.array([0, 0, 0])
        yield Take(0), floats(5, 2, dtype="bfloat16"), np.array([1, 4])


@primitive
class OneHot(Opaque):
    """indices -> (..., depth): 1 at the index along the last axis, 0 elsewhere; negative indices count from the end."""

    depth: int
    dtype: DType
    inline: ClassVar[bool] = True

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        self.check(0, inputs[0], INTEGER)
        return one_type((*inputs[0].shape, self.depth), self.dtype)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        return expr.cast(_names(read(0, index[:-1]), index[-1], self.depth), self.dtype)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (None,)

    def reference(self, *inputs: Any) -> Any:
        where, inside = _positions(inputs[0], self.depth)
        hot = (where[..., None] == np.arange(self.depth)) & inside[..., None]
        return hot.astype(self.dtype.storage)

    def examples(self) -> Iterator[Example]:
        yield OneHot(4, dtypes.float32), integers(3, 2, low=-4, high=4)
        yield OneHot(3, dtypes.float32), np.array([0, 3, -3, -4, 2, 2])
        yield OneHot(300, dtypes.int32), np.array([0, 200], np.uint8)
        yield OneHot(3, dtypes.bool_), np.array(1, np.int64)
        yield OneHot(1, dtypes.float64), np.array([0, 1])
        yield OneHot(0, dtypes.float32), np.array([0, 1])
        yield OneHot(3, dtypes.float16), np.zeros((0,), np.int32)


@primitive
class TakeAlong(_Gather):
    """y[i, j, k] = x[i, indices[i, j, k], k] for axis 1, and so on: NumPy's take_along_axis.

    ``zeros``: an index out of range gives 0 for floating types too, as a gradient needs.
    """

    axis: int
    zeros: bool = False

    def linear_in(self, count: int) -> tuple[int, ...]:
        return (0,)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, indices = inputs
        self.check(1, indices, INTEGER)
        self.along(x, indices, self.axis)
        return one_type(indices.shape, x.dtype)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        row, inside = _dynamic(read(1, index), call.inputs[0].shape[self.axis])
        value = read(0, (*index[: self.axis], row, *index[self.axis + 1 :]), inside)
        return _found(value, inside, self.zeros)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        x, indices = call.inputs
        return call.b.scatter_along(indices, gradients[0], axis=self.axis, extent=x.shape[self.axis]), None

    def reference(self, *inputs: Any) -> Any:
        x, indices = inputs
        where, inside = _positions(indices, x.shape[self.axis])
        if x.shape[self.axis] == 0:
            x = np.zeros((*x.shape[: self.axis], 1, *x.shape[self.axis + 1 :]), x.dtype)
        return _masked(np.take_along_axis(x, where, self.axis), inside, self.zeros, x)

    def examples(self) -> Iterator[Example]:
        yield TakeAlong(1), floats(3, 4), integers(3, 6, low=-4, high=4)
        yield TakeAlong(0), floats(3, 4, 2), integers(1, 4, 2, low=0, high=3, dtype="int64")
        yield TakeAlong(1), integers(2, 3), np.array([[0, 3], [-4, 2]])
        yield TakeAlong(0), np.array([1, np.nan, 3], np.float32), np.array([3, 0, 1, -4])
        yield TakeAlong(0, True), floats(3), np.array([3, 0, 1, -4])
        yield TakeAlong(1), floats(2, 3), np.zeros((2, 0), np.int32)
        yield TakeAlong(0), floats(1), np.array([0, -1], np.int8)


@primitive
class ScatterAdd(_Gather):
    """Rows added up by index: (indices (N,), updates (N, ...)) -> (rows, ...). The gradient of ``take``."""

    loops: ClassVar[bool] = True

    rows: Extent

    def linear_in(self, count: int) -> tuple[int, ...]:
        return (1,)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        indices, updates = inputs
        self.check(0, indices, INTEGER)
        self.check(1, updates, REAL)
        if indices.rank != 1 or updates.rank < 1 or updates.shape[0] != indices.shape[0]:
            raise ShapeError(
                f"{self.name}: indices {format_shape(indices.shape)} and "
                f"updates {format_shape(updates.shape)} need equal first extents"
            )
        return one_type((self.rows, *updates.shape[1:]), updates.dtype)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        axes, (n,) = fresh_axes(call, call.inputs[0].shape[0])
        return expr.total(axes, read(1, (n, *index[1:]), _names(read(0, (n,)), index[0], self.rows)))

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return None, call.b.take(gradients[0], call.inputs[0], axis=0, zeros=True)

    def reference(self, *inputs: Any) -> Any:
        indices, updates = inputs
        where, inside = _positions(indices, int(self.rows))
        return _added((int(self.rows), *updates.shape[1:]), where[inside], updates[inside])

    def examples(self) -> Iterator[Example]:
        yield ScatterAdd(4), np.array([0, 3, 3, -1, 1, -4]), floats(6, 3)
        yield ScatterAdd(3), np.array([0, 3, -4, 2, 2], np.int32), floats(5)
        yield ScatterAdd(3), np.array([2], np.uint8), floats(1, 2)
        yield ScatterAdd(3), np.zeros((0,), np.int64), floats(0, 2)
        yield ScatterAdd(0), np.array([0, -1]), floats(2, 2)
        yield ScatterAdd(2), np.array([1, 1, 0]), integers(3, 2)
        yield ScatterAdd(2), np.array([1, 1, 0]), floats(3, 2, dtype="float16")


@primitive
class ScatterAlong(_Gather):
    """y[i, indices[i, j, k], k] += updates[i, j, k] for axis 1, and so on, from zeros with ``extent`` along the axis.

    Duplicates add up. The gradient of ``take_along``.
    """

    loops: ClassVar[bool] = True

    axis: int
    extent: Extent

    def linear_in(self, count: int) -> tuple[int, ...]:
        return (1,)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        indices, updates = inputs
        self.check(0, indices, INTEGER)
        self.check(1, updates, REAL)
        self.axis_of(updates.shape, self.axis)
        if indices.shape != updates.shape:
            raise ShapeError(
                f"{self.name}: indices {format_shape(indices.shape)} and "
                f"updates {format_shape(updates.shape)} need equal shapes"
            )
        shape = updates.shape
        return one_type((*shape[: self.axis], self.extent, *shape[self.axis + 1 :]), updates.dtype)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        axes, (n,) = fresh_axes(call, call.inputs[0].shape[self.axis])
        source = (*index[: self.axis], n, *index[self.axis + 1 :])
        return expr.total(axes, read(1, source, _names(read(0, source), index[self.axis], self.extent)))

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return None, call.b.take_along(gradients[0], call.inputs[0], axis=self.axis, zeros=True)

    def reference(self, *inputs: Any) -> Any:
        indices, updates = inputs
        where, inside = _positions(indices, int(self.extent))
        grid = list(np.indices(indices.shape))
        grid[self.axis] = where
        shape = tuple(int(self.extent) if a == self.axis else e for a, e in enumerate(updates.shape))
        return _added(shape, tuple(g[inside] for g in grid), updates[inside])

    def examples(self) -> Iterator[Example]:
        yield ScatterAlong(1, 4), integers(3, 6, low=-4, high=4), floats(3, 6)
        yield ScatterAlong(0, 3), np.array([0, 3, -4, 2, 2]), floats(5)
        yield ScatterAlong(0, 2), integers(1, 3, low=0, high=2, dtype="uint8"), floats(1, 3)
        yield ScatterAlong(1, 2), np.zeros((2, 0), np.int32), floats(2, 0)
        yield ScatterAlong(0, 2), np.array([1, 1, 0]), integers(3)
