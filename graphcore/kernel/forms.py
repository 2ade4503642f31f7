"""Forms: what a kernel is as a whole, beside the loops that say it element by element.

A form has its axes by role, its operands as what an element of them is made of (the prologue), and its result as a
leaf that stores use (the epilogue). What it computes in NumPy is in ``meaning``. Families of schedules ask the form;
the loops stay what a kernel means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphcore.base.dtypes import DType
from graphcore.base.shapes import Extent, Shape
from graphcore.kernel.contraction import Window, WindowResult
from graphcore.kernel.expr import Expr, in_range, index_value, load, rebuild, walk
from graphcore.kernel.index import Axis, as_index, flatten

__all__ = ["Computed", "Contraction", "ContractionTypes", "find_product", "renumbered"]


@dataclass(frozen=True)
class Computed:
    """An operand of a form: one element of it.

    Attributes:
        value: the element, made of the kernel's parameters.
        axes: the axes that walk its elements, outermost first, in row-major order; neighbours may be walked as one.
        shape: its extents.
    """

    value: Expr
    axes: tuple[Axis, ...]
    shape: Shape

    @property
    def param(self) -> int | None:
        """The parameter that holds the operand as it is, element after element; None if it has to be computed."""
        if not all(isinstance(a.extent, int) for a in self.axes[1:]):  # no parameter has such an extent inside
            return None
        at = flatten(tuple(as_index(a) for a in self.axes), tuple(a.extent for a in self.axes))
        held = self.value.fn == "load" and not self.value.args and self.value.index == at
        return self.value.param if held else None

    def loaded(self) -> frozenset[int]:
        """Parameters that it is made of."""
        return frozenset(v.param for v in walk(self.value) if v.fn == "load")

    def __str__(self) -> str:
        held = self.param is not None
        made = ",".join(f"p{p}" for p in sorted(self.loaded()))
        how = f" in {made}" if held else f" of {made}" if made else ""
        return f"{self.value.dtype}[{','.join(map(str, self.axes))}]{how}"

    def renumbered(self, position: Mapping[int, int]) -> Computed:
        """The same over parameters at other positions."""
        return replace(self, value=renumbered(self.value, position))


def renumbered(value: Expr, position: Mapping[int, int]) -> Expr:
    """A value over parameters at other positions, also those that its indices are read from."""
    known: dict[Expr, Expr] = {}
    for node in walk(value):
        args = tuple(known[a] for a in node.args)
        if node.fn == "load":
            known[node] = load(position[node.param], node.index.with_values(known), node.dtype, *args)
        elif node.fn == "index":
            known[node] = index_value(node.index.with_values(known), node.dtype)
        elif node.fn == "in_range":
            known[node] = in_range(node.index.with_values(known), node.low, node.high)
        else:
            known[node] = rebuild(node, args)
    return known[value]


@dataclass(frozen=True)
class ContractionTypes:
    """Element types of a contraction: its operands, what it adds up in, what its epilogue gets."""

    left: DType
    right: DType
    accumulator: DType
    result: DType


@dataclass(frozen=True)
class Contraction:
    """``result[batch, rows, columns] = sum over terms of left * right``, in the accumulator's type.

    With a window it is a convolution or one of its gradients, over as many axes as the window has: the images have
    axes (image, channel, places...), the weights (output, channel of a group, taps...), and what is made at the
    window's positions (image, output, positions...). Two of the three are the operands, in this order.

    Attributes:
        rows: axes of the result that only the left operand has; with a window the outermost is the image or output.
        columns: those that only the right one has; with a window the outermost is the channel.
        terms: axes of both that are summed.
        batch: the result's other axes.
        left, right: the operands, before they are converted to the accumulator's type.
        result: the leaf that the epilogue uses: the sum, or its conversion to the result's type.
        types: element types.
        window: how the images are walked; None for a product.

    Axes of extent 1 that the kernel does not loop over are named with a window only.
    """

    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    terms: tuple[Axis, ...]
    batch: tuple[Axis, ...]
    left: Computed
    right: Computed
    result: Expr
    types: ContractionTypes
    window: Window | None = None

    @property
    def total(self) -> Expr:
        """The sum itself."""
        return self.result.args[0] if self.result.fn == "cast" else self.result

    @property
    def factors(self) -> tuple[Expr, Expr]:
        """What is multiplied, over the kernel's axes and the terms, in the accumulator's type."""
        left, right = self.total.args[0].args
        return left, right

    @property
    def operands(self) -> tuple[Computed, Computed]:
        return self.left, self.right

    @property
    def result_axes(self) -> tuple[Axis, ...]:
        """The result's axes, outermost first."""
        if self.window is None:
            return (*self.batch, *self.rows, *self.columns)
        return (self.rows[0], self.columns[0], *self.rows[1:], *self.columns[1:])

    def renumbered(self, position: Mapping[int, int]) -> Contraction:
        """The same over parameters at other positions."""
        return replace(
            self,
            left=self.left.renumbered(position),
            right=self.right.renumbered(position),
            result=renumbered(self.result, position),
        )

    def loaded(self) -> frozenset[int]:
        """Parameters that its operands are made of."""
        return self.left.loaded() | self.right.loaded()

    def parts(self) -> tuple[Sequence[Extent], Sequence[Extent], Sequence[Extent]]:
        """Extents of the images, the weights and what is made at the positions of a window.

        Raises:
            ValueError: it has no window.
        """
        if self.window is None:
            raise ValueError("a product has no window")
        left, right, result = self.left.shape, self.right.shape, tuple(a.extent for a in self.result_axes)
        if self.window.result is WindowResult.POSITION:
            return left, right, result
        return (result, right, left) if self.window.result is WindowResult.PLACE else (left, result, right)

    def __str__(self) -> str:
        def named(axes: Sequence[Axis]) -> str:
            return " ".join(map(str, axes)) or "-"

        walked = "" if self.window is None else f", window {self.window}"
        return (
            f"contraction rows {named(self.rows)}, columns {named(self.columns)}, terms {named(self.terms)}, "
            f"batch {named(self.batch)}{walked}: {self.left} x {self.right} -> {self.types.accumulator} -> "
            f"{self.types.result}"
        )


def find_product(axes: Sequence[Axis], values: Sequence[Expr]) -> Contraction | None:
    """A kernel's contraction as a product: its one sum of products over axes of its own. None where it has none.

    Axes of the result that only one factor depends on are its rows or columns, all others its batch: so a convolution
    without groups is a product too, whose factors are guarded.

    Args:
        axes: the kernel's parallel axes.
        values: all its values. Sums of what it makes, over its axes, may be among them.
    """
    sums = [v for v in values if v.fn == "reduce" and not set(v.reduce_axes) & set(axes)]
    if len(sums) != 1 or sums[0].combine != "add" or sums[0].args[0].fn != "mul":
        return None
    total, (left, right) = sums[0], sums[0].args[0].args
    if any(v.fn == "reduce" for v in walk(left, right)):
        return None
    rows = tuple(a for a in axes if a in left.axes and a not in right.axes)
    columns = tuple(a for a in axes if a in right.axes and a not in left.axes)
    batch = tuple(a for a in axes if a not in rows and a not in columns)
    users = [v for v in values if total in v.args]
    result = users[0] if len(users) == 1 and users[0].fn == "cast" and total.dtype.is_float else total
    operands = []
    for factor in (left, right):
        stored = factor.args[0] if factor.fn == "cast" else factor
        own = tuple(a for a in (*axes, *total.reduce_axes) if a in stored.axes)
        operands.append(Computed(stored, own, tuple(a.extent for a in own)))
    types = ContractionTypes(operands[0].value.dtype, operands[1].value.dtype, total.dtype, result.dtype)
    return Contraction(rows, columns, total.reduce_axes, batch, operands[0], operands[1], result, types)
