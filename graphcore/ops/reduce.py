"""Reductions over axes. Outputs drop the reduced axes (the front end restores them for ``keepdims``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from graphcore.base import dtypes
from graphcore.base.errors import ShapeError
from graphcore.base.shapes import Shape, format_shape
from graphcore.ir.op import BOOL, REAL, Example, Lowering, Precision, Read, Reduce, TensorType, one_type, primitive
from graphcore.kernel import expr, interpret
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Axis, Index, as_index
from graphcore.ops._examples import booleans, floats, integers
from graphcore.ops._scalar import computed

__all__ = ["All", "Any_", "Argmax", "Argmin", "Max", "Min", "Prod", "Sum"]


class _Monoid(Reduce):
    """Shared by the plain monoids: ``axes`` are sorted and distinct."""

    axes: tuple[int, ...]
    operands: ClassVar[str] = REAL
    needs_elements: ClassVar[bool] = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        given = inputs[0]
        self.check(0, given, self.operands)
        if any(not 0 <= a < given.rank for a in self.axes) or list(self.axes) != sorted(set(self.axes)):
            raise ShapeError(f"{self.name}: axes {self.axes} do not fit {format_shape(given.shape)}")
        if self.needs_elements and any(given.shape[a] == 0 for a in self.axes):
            raise ShapeError(
                f"{self.name}: axes {self.axes} of {format_shape(given.shape)} are empty, and {self.name} of nothing "
                f"is not defined"
            )
        return one_type(tuple(e for a, e in enumerate(given.shape) if a not in self.axes), given.dtype)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        shape = call.inputs[0].shape
        kept = iter(index)
        bound, full = [], []
        for a, extent in enumerate(shape):
            if a in self.axes:
                axis = call.axis(extent, a)
                if axis is not None:
                    bound.append(axis)
                full.append(as_index(axis) if axis is not None else Index(0))
            else:
                full.append(next(kept))
        value = read(0, tuple(full))
        return self.combined(tuple(bound), value)

    def combined(self, axes: tuple[Axis, ...], value: Expr) -> Expr:
        """An element combined over the axes that are longer than 1."""
        return expr.reduce(self.combine, axes, value) if axes else value

    def kept_shape(self, shape: Shape) -> Shape:
        """The operand's shape with the reduced axes as 1."""
        return tuple(1 if a in self.axes else e for a, e in enumerate(shape))

    def spread(self, call: Any, value: Any) -> Any:
        """A result broadcast back over the reduced axes."""
        shape = call.inputs[0].shape
        return call.b.broadcast_to(call.b.reshape(value, shape=self.kept_shape(shape)), shape)


@primitive
class Sum(_Monoid):
    """The sum over axes, accumulated in the compute type."""

    precision: ClassVar[Precision] = Precision.WIDE
    axes: tuple[int, ...]

    def linear_in(self, count: int) -> tuple[int, ...]:
        return (0,)

    def combined(self, axes: tuple[Axis, ...], value: Expr) -> Expr:
        return expr.total(axes, value)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (self.spread(call, gradients[0]),)

    def reference(self, *inputs: Any) -> Any:
        return _accumulated(np.sum, inputs[0], self.axes)

    def examples(self) -> Iterator[Example]:
        yield Sum((1,)), floats(3, 4)
        yield Sum((0,)), floats(3, 4)
        yield Sum((0, 2)), floats(2, 3, 4)
        yield Sum(()), floats(3)
        yield Sum((0,)), floats(0, 2)
        yield Sum((0, 1)), integers(3, 4)


@primitive
class Prod(_Monoid):
    """The product over axes."""

    combine: ClassVar[str] = "mul"
    precision: ClassVar[Precision] = Precision.WIDE
    axes: tuple[int, ...]

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        """g * (product of the others), computed without dividing so that zeros are exact: see ``_others``."""
        return (call.b.mul(self.spread(call, gradients[0]), _others(call, self.axes)),)

    def reference(self, *inputs: Any) -> Any:
        return _accumulated(np.prod, inputs[0], self.axes)

    def examples(self) -> Iterator[Example]:
        yield Prod((1,)), floats(3, 4)
        yield Prod((0, 1)), np.array([[2.0, 0.0, 3.0]], np.float32)
        yield Prod((0,)), floats(0, 2)


def _others(call: Any, axes: tuple[int, ...]) -> Any:
    """For every element the product of the other elements along ``axes``: masks the diagonal of an outer copy with
    ones."""
    x, b = call.inputs[0], call.b
    kept = tuple(a for a in range(x.ndim) if a not in axes)
    moved = b.permute(x, axes=(*kept, *axes))
    lead = tuple(x.shape[a] for a in kept)
    count: Any = 1
    for a in axes:
        count = count * x.shape[a]
    rows = b.reshape(moved, shape=(*lead, 1, count))
    pairs = b.broadcast_to(rows, (*lead, count, count))
    i, j = (b.iota(shape=pairs.shape, axis=len(lead) + a, dtype=dtypes.position_dtype(count)) for a in (0, 1))
    masked = b.where(b.equal(i, j), b.full(pairs.shape, 1, x.dtype), pairs)
    others = b.prod(masked, axes=(len(lead) + 1,))
    back = b.reshape(others, shape=moved.shape)
    return b.permute(back, axes=tuple(int(i) for i in np.argsort((*kept, *axes))))


class _Extreme(_Monoid):
    """Ties share the gradient evenly; where NaN wins, the NaNs do."""

    smooth: ClassVar[bool] = False
    needs_elements: ClassVar[bool] = True

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        b, x = call.b, call.inputs[0]
        hit = b.logical_or(b.equal(x, self.spread(call, call.out)), b.isnan(x))
        count = b.apply(Sum(self.axes), b.cast(hit, dtype=x.dtype)).output(0)
        share = self.spread(call, b.div(gradients[0], count))
        return (b.where(hit, share, b.zeros_like(share)),)


@primitive
class Max(_Extreme):
    """The largest element over axes; NaN wins."""

    combine: ClassVar[str] = "max"
    axes: tuple[int, ...]

    def reference(self, *inputs: Any) -> Any:
        return _extreme("max", inputs[0], self.axes)

    def examples(self) -> Iterator[Example]:
        yield Max((1,)), floats(3, 4)
        yield Max((0, 1)), floats(3, 4)
        yield Max((0,)), np.array([[1, np.nan], [2, 0]], np.float32)
        yield Max((0,)), integers(5, 2)


@primitive
class Min(_Extreme):
    """The smallest element over axes; NaN wins."""

    combine: ClassVar[str] = "min"
    axes: tuple[int, ...]

    def reference(self, *inputs: Any) -> Any:
        return _extreme("min", inputs[0], self.axes)

    def examples(self) -> Iterator[Example]:
        yield Min((1,)), floats(3, 4)
        yield Min((0,)), integers(5, 2)


@primitive
class All(_Monoid):
    """Whether every element holds."""

    combine: ClassVar[str] = "and"
    operands: ClassVar[str] = BOOL
    differentiable: ClassVar[bool] = False
    axes: tuple[int, ...]

    def reference(self, *inputs: Any) -> Any:
        return np.all(inputs[0], self.axes)

    def examples(self) -> Iterator[Example]:
        yield All((1,)), booleans(3, 2)
        yield All((0,)), booleans(0, 2)


@primitive
class Any_(_Monoid):
    """Whether some element holds."""

    name: ClassVar[str] = "any"
    combine: ClassVar[str] = "or"
    operands: ClassVar[str] = BOOL
    differentiable: ClassVar[bool] = False
    axes: tuple[int, ...]

    def reference(self, *inputs: Any) -> Any:
        return np.any(inputs[0], self.axes)

    def examples(self) -> Iterator[Example]:
        yield Any_((1,)), booleans(3, 2)


class _Arg(_Monoid):
    """The position of the first extreme element along one axis; the first NaN wins. int64."""

    needs_elements: ClassVar[bool] = True
    differentiable: ClassVar[bool] = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        if len(self.axes) != 1:
            raise ShapeError(f"{self.name}: takes one axis, got {self.axes}; reshape to one axis first")
        return one_type(super().infer(*inputs)[0].shape, dtypes.int64)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        value = super().lower(call, index, read)
        return value if value.fn == "reduce" and value.combine == self.combine else expr.const(0, dtypes.int64)


@primitive
class Argmax(_Arg):
    """The position of the first largest element along an axis."""

    combine: ClassVar[str] = "argmax"
    axes: tuple[int, ...]

    def reference(self, *inputs: Any) -> Any:
        return np.argmax(inputs[0], self.axes[0])

    def examples(self) -> Iterator[Example]:
        yield Argmax((1,)), floats(3, 20)
        yield Argmax((0,)), np.array([[1, 2], [1, np.nan], [0, 2]], np.float32)
        yield Argmax((1,)), integers(3, 1)


@primitive
class Argmin(_Arg):
    """The position of the first smallest element along an axis."""

    combine: ClassVar[str] = "argmin"
    axes: tuple[int, ...]

    def reference(self, *inputs: Any) -> Any:
        return np.argmin(inputs[0], self.axes[0])

    def examples(self) -> Iterator[Example]:
        yield Argmin((1,)), floats(3, 4)


def _extreme(combine: str, x: Any, axes: tuple[int, ...]) -> Any:
    return computed(lambda wide: interpret.reduced(combine, wide, axes), x)


def _accumulated(function: Any, x: Any, axes: tuple[int, ...]) -> Any:
    dtype = dtypes.as_dtype(x.dtype)
    wide = np.dtype(dtype.compute) if dtype.is_float else x.dtype
    return np.asarray(function(x.astype(wide), axis=axes, dtype=wide)).astype(x.dtype)
