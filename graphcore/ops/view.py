"""Views: ops that only move elements. Each is an index map, so a kernel that consumes one reads through it and nothing
is copied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from graphcore.base import dtypes
from graphcore.base.errors import DTypeError, ShapeError
from graphcore.base.shapes import (
    Dim,
    Extent,
    Shape,
    dim_min,
    format_shape,
    inner_extents,
    is_static,
    product,
    reach,
    widths_around,
)
from graphcore.ir.op import Condition, Cut, Example, Lowering, Opaque, Read, TensorType, View, one_type, primitive
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Index, flatten, unflatten
from graphcore.ops._examples import booleans, floats, integers

__all__ = ["Broadcast", "Concat", "Flip", "Pad", "Permute", "Reshape", "Slice"]


@primitive
class Reshape(View):
    """The same elements in row-major order under another shape with as many elements."""

    is_alias: ClassVar[bool] = True
    inverts_index: ClassVar[bool] = True
    shape: Shape

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        if inputs[0].size != product(self.shape):
            raise ShapeError(
                f"reshape: {format_shape(inputs[0].shape)} has {inputs[0].size} elements, {format_shape(self.shape)} "
                f"has {product(self.shape)}"
            )
        return one_type(self.shape, inputs[0].dtype)

    def source_index(self, call: Lowering, index: tuple[Index, ...]) -> tuple[Index, ...]:
        source = call.inputs[0].shape
        kept_from = [(i, e) for i, e in enumerate(source) if e != 1]
        kept_to = [(i, e) for i, e in enumerate(self.shape) if e != 1]
        if [e for _, e in kept_from] == [e for _, e in kept_to]:  # only size-1 axes come or go: no arithmetic at all
            result = [Index(0)] * len(source)
            for (a, _), (b, _) in zip(kept_from, kept_to, strict=True):
                result[a] = index[b]
            return tuple(result)
        return unflatten(flatten(index, self.shape), source)

    def result_index(self, source: Shape, index: tuple[Index, ...]) -> tuple[Index, ...]:
        kept_from = [i for i, e in enumerate(source) if e != 1]
        kept_to = [i for i, e in enumerate(self.shape) if e != 1]
        if [source[i] for i in kept_from] == [self.shape[i] for i in kept_to]:
            result = [Index(0)] * len(self.shape)
            for a, b in zip(kept_from, kept_to, strict=True):
                result[b] = index[a]
            return tuple(result)
        return unflatten(flatten(index, source), self.shape)

    def literal_extents(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> tuple[Extent, ...]:
        """An element's number in one shape is taken apart by the strides of the other."""
        return (*inner_extents(inputs[0].shape), *inner_extents(outputs[0].shape))

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (call.b.reshape(gradients[0], shape=call.inputs[0].shape),)

    def reference(self, *inputs: Any) -> Any:
        return np.reshape(inputs[0], self.shape)

    def examples(self) -> Iterator[Example]:
        yield Reshape((2, 6)), floats(3, 4)
        yield Reshape((3, 2, 2, 1)), floats(3, 4)
        yield Reshape(()), floats(1, 1)
        yield Reshape((0, 5)), floats(5, 0)


@primitive
class Permute(View):
    """y[i_axes[0], i_axes[1], ...] = x[i_0, i_1, ...]: NumPy's transpose."""

    inverts_index: ClassVar[bool] = True
    axes: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        if sorted(self.axes) != list(range(inputs[0].rank)):
            raise ShapeError(
                f"permute: {self.axes} is no permutation of the {inputs[0].rank} axes of "
                f"{format_shape(inputs[0].shape)}"
            )
        return one_type(tuple(inputs[0].shape[a] for a in self.axes), inputs[0].dtype)

    def source_index(self, call: Lowering, index: tuple[Index, ...]) -> tuple[Index, ...]:
        return tuple(index[self.axes.index(i)] for i in range(len(index)))

    def result_index(self, source: Shape, index: tuple[Index, ...]) -> tuple[Index, ...]:
        return tuple(index[a] for a in self.axes)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (call.b.permute(gradients[0], axes=tuple(int(i) for i in np.argsort(self.axes))),)

    def reference(self, *inputs: Any) -> Any:
        return np.transpose(inputs[0], self.axes)

    def examples(self) -> Iterator[Example]:
        yield Permute((1, 0)), floats(3, 4)
        yield Permute((2, 0, 1)), floats(2, 3, 4)
        yield Permute(()), floats()


@primitive
class Broadcast(View):
    """The operand repeated to ``shape`` by NumPy's rule: aligned at the last axis, extents 1 are stretched."""

    only_repeats: ClassVar[bool] = True
    shape: Shape

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        given = inputs[0].shape
        lead = len(self.shape) - len(given)
        if lead < 0 or any(e not in (1, self.shape[lead + i]) for i, e in enumerate(given)):
            raise ShapeError(f"broadcast_to: {format_shape(given)} does not broadcast to {format_shape(self.shape)}")
        return one_type(self.shape, inputs[0].dtype)

    def source_index(self, call: Lowering, index: tuple[Index, ...]) -> tuple[Index, ...]:
        given = call.inputs[0].shape
        lead = len(self.shape) - len(given)
        return tuple(Index(0) if e == 1 else index[lead + i] for i, e in enumerate(given))

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (call.b.unbroadcast(gradients[0], call.inputs[0].shape),)

    def reference(self, *inputs: Any) -> Any:
        return np.broadcast_to(inputs[0], [int(e) for e in self.shape])

    def examples(self) -> Iterator[Example]:
        yield Broadcast((2, 3)), floats(3)
        yield Broadcast((2, 3)), floats(2, 1)
        yield Broadcast((2, 1, 3)), floats()
        yield Broadcast((0, 3)), floats(1, 3)


@primitive
class Slice(View):
    """y[i] = x[start + i * step] along every axis, ``lengths[axis]`` elements; steps are positive."""

    starts: Shape
    lengths: Shape
    steps: tuple[int, ...]

    def cut(self) -> Cut | None:
        return self.starts, self.lengths, self.steps

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        given = inputs[0].shape
        if not len(given) == len(self.starts) == len(self.lengths) == len(self.steps):
            raise ShapeError(f"slice: {len(self.starts)} axes for the shape {format_shape(given)}")
        for extent, start, length, step in zip(given, self.starts, self.lengths, self.steps, strict=True):
            if step < 1 or (not isinstance(start, Dim) and start < 0):
                raise ShapeError(f"slice: start {start} and step {step} must be at least 0 and 1")
            if (
                not any(isinstance(e, Dim) for e in (extent, start, length))
                and length
                and start + (length - 1) * step >= extent
            ):
                raise ShapeError(
                    f"slice: {start}, {length} elements by {step}, leaves the extent {extent} of {format_shape(given)}"
                )
        return one_type(self.lengths, inputs[0].dtype)

    def conditions(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> tuple[Condition, ...]:
        """A fixed number of elements must be there; a symbolic one says itself how many are."""
        found = []
        axes = enumerate(zip(inputs[0].shape, self.starts, self.lengths, self.steps, strict=True))
        for axis, (extent, start, length, step) in axes:
            if not isinstance(length, Dim) and length and not is_static((extent, start)):
                ends = (start + (length - 1) * step + 1, extent - start)
                found += [Condition(axis, extent, end, "what reads a position of it", None, True) for end in ends]
        return tuple(c for c in found if dim_min(c.have, c.want) != c.want)

    def literal_extents(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> tuple[Extent, ...]:
        """What is added to an index."""
        return self.starts

    def source_index(self, call: Lowering, index: tuple[Index, ...]) -> tuple[Index, ...]:
        return tuple(i * step + int(start) for i, start, step in zip(index, self.starts, self.steps, strict=True))

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        shape = call.inputs[0].shape
        low, high, gaps = widths_around(shape, self.starts, self.lengths, self.steps)
        return (call.b.pad(gradients[0], low=low, high=high, gaps=gaps),)

    def reference(self, *inputs: Any) -> Any:
        where = tuple(
            slice(s, s + n * step, step)
            for s, n, step in zip(map(int, self.starts), map(int, self.lengths), self.steps, strict=True)
        )
        return inputs[0][where]

    def examples(self) -> Iterator[Example]:
        yield Slice((1, 0), (2, 2), (1, 2)), floats(3, 4)
        yield Slice((0,), (0,), (1,)), floats(5)
        yield Slice((2, 1), (1, 1), (1, 1)), integers(3, 4)


@primitive
class Flip(View):
    """The order of elements reversed along some axes."""

    axes: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return (inputs[0],)

    def literal_extents(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> tuple[Extent, ...]:
        """What an index is taken from."""
        return tuple(inputs[0].shape[a] for a in self.axes)

    def source_index(self, call: Lowering, index: tuple[Index, ...]) -> tuple[Index, ...]:
        shape = call.inputs[0].shape
        return tuple(i * -1 + (int(shape[a]) - 1) if a in self.axes else i for a, i in enumerate(index))

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (call.b.flip(gradients[0], axes=self.axes),)

    def reference(self, *inputs: Any) -> Any:
        return np.flip(inputs[0], self.axes)

    def examples(self) -> Iterator[Example]:
        yield Flip((0,)), floats(3, 2)
        yield Flip((0, 1)), floats(3, 1)


def _negative(extent: Extent) -> bool:
    return isinstance(extent, int) and extent < 0


@primitive
class Pad(Opaque):
    """Zeros around the operand: ``low`` before, ``high`` after, ``gaps`` between neighbours, along every axis.

    Around an operand without elements ``high`` may be negative, since the zeros before it may go beyond the end.
    """

    low: Shape
    high: Shape
    gaps: tuple[int, ...]
    inline: ClassVar[bool] = True

    def linear_in(self, count: int) -> tuple[int, ...]:
        return (0,)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        given = inputs[0].shape
        if not len(given) == len(self.low) == len(self.high) == len(self.gaps):
            raise ShapeError(f"pad: {len(self.low)} axes for the shape {format_shape(given)}")
        shape = tuple(
            a + reach(e, gap + 1) + b for e, a, b, gap in zip(given, self.low, self.high, self.gaps, strict=True)
        )
        high = (b for b, e, total in zip(self.high, given, shape, strict=True) if e != 0 or _negative(total))
        if any(map(_negative, (*self.low, *high, *self.gaps))):
            raise ShapeError("pad: widths must not be negative")
        return one_type(shape, inputs[0].dtype)

    def literal_extents(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> tuple[Extent, ...]:
        """What is taken from an index."""
        return self.low

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        source, guard = [], expr.const(True, dtypes.bool_)
        for i, extent, low, gap, out in zip(
            index, call.inputs[0].shape, self.low, self.gaps, call.outputs[0].shape, strict=True
        ):
            moved = i - int(low)
            if gap:
                guard = expr.both(guard, expr.in_range(moved % (gap + 1), 0, 1))
            position = moved // (gap + 1)
            if out != extent:
                guard = expr.both(guard, expr.in_range(position, 0, extent))
            source.append(position)
        return read(0, tuple(source), guard)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        steps = tuple(gap + 1 for gap in self.gaps)
        return (call.b.slice(gradients[0], starts=self.low, lengths=call.inputs[0].shape, steps=steps),)

    def reference(self, *inputs: Any) -> Any:
        shape = self.infer(TensorType(inputs[0].shape, dtypes.as_dtype(inputs[0].dtype)))[0].shape
        out = np.zeros(shape, inputs[0].dtype)
        out[
            tuple(
                slice(low, low + n * (gap + 1), gap + 1)
                for low, n, gap in zip(self.low, inputs[0].shape, self.gaps, strict=True)
            )
        ] = inputs[0]
        return out

    def examples(self) -> Iterator[Example]:
        yield Pad((1, 0), (2, 1), (0, 0)), floats(2, 3)
        yield Pad((0, 1), (0, 0), (1, 2)), floats(3, 2)
        yield Pad((1,), (1,), (0,)), integers(4)
        yield Pad((2,), (1,), (0,)), floats(0)


@primitive
class Concat(Opaque):
    """Operands of equal type joined along an axis."""

    axis: int
    arity: ClassVar[int | None] = None
    joins: ClassVar[bool] = True
    inline: ClassVar[bool] = True

    def linear_in(self, count: int) -> tuple[int, ...]:
        return tuple(range(count))

    def literal_extents(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> tuple[Extent, ...]:
        """Bounds between the operands."""
        return tuple(t.shape[self.axis] for t in inputs)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        first = inputs[0]
        for other in inputs[1:]:
            rest = (*other.shape[: self.axis], *other.shape[self.axis + 1 :])
            if other.rank != first.rank or rest != (*first.shape[: self.axis], *first.shape[self.axis + 1 :]):
                raise ShapeError(
                    f"concat: {format_shape(first.shape)} and {format_shape(other.shape)} differ outside axis "
                    f"{self.axis}"
                )
            if other.dtype != first.dtype:
                raise DTypeError(f"concat: operands have dtypes {first.dtype} and {other.dtype}")
        total: Any = 0
        for t in inputs:
            total = total + t.shape[self.axis]
        return one_type((*first.shape[: self.axis], total, *first.shape[self.axis + 1 :]), first.dtype)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        position = index[self.axis]
        bounds: list[int] = [0]
        for t in call.inputs:
            bounds.append(bounds[-1] + int(t.shape[self.axis]))
        result: Expr | None = None
        for i in reversed(range(len(call.inputs))):
            at = (*index[: self.axis], position - bounds[i], *index[self.axis + 1 :])
            inside = expr.in_range(position, bounds[i], bounds[i + 1])
            value = read(i, at, inside)
            result = value if result is None else expr.select(inside, value, result)
        assert result is not None
        return result

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        results, start = [], 0
        for t in call.inputs:
            starts = tuple(start if a == self.axis else 0 for a in range(t.ndim))
            results.append(call.b.slice(gradients[0], starts=starts, lengths=t.shape, steps=(1,) * t.ndim))
            start += t.shape[self.axis]
        return tuple(results)

    def reference(self, *inputs: Any) -> Any:
        return np.concatenate(inputs, self.axis)

    def examples(self) -> Iterator[Example]:
        yield Concat(0), floats(2, 3), floats(1, 3, seed=5)
        yield Concat(1), floats(2, 3), floats(2, 0), floats(2, 2, seed=5)
        yield Concat(0), booleans(3), booleans(2)
