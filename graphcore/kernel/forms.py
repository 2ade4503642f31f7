"""Forms: what a kernel is as a whole, beside the loops that say it element by element.

A form has its axes by role, its operands as what an element of them is made of (the prologue), and its result as a
leaf that stores use (the epilogue). What it computes in NumPy is in ``meaning``. Families of schedules ask the form;
the loops stay what a kernel means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphcore.base.dtypes import DType
from graphcore.base.errors import VerifyError
from graphcore.base.shapes import Extent, Shape, product
from graphcore.kernel.contraction import Window, WindowResult
from graphcore.kernel.expr import Expr, load, transform, walk
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
        at = flatten(tuple(as_index(a) for a in self.axes), tuple(a.extent for a in self.axes))
        held = self.value.fn == "load" and not self.value.args and self.value.index == at
        return self.value.param if held else None

    def loaded(self) -> frozenset[int]:
        """Parameters that it is made of."""
        return frozenset(v.param for v in walk(self.value) if v.fn == "load")

    def renumbered(self, position: Mapping[int, int]) -> Computed:
        """The same over parameters at other positions."""
        return replace(self, value=renumbered(self.value, position))


def renumbered(value: Expr, position: Mapping[int, int]) -> Expr:
    """A value over parameters at other positions."""

    def moved(node: Expr, args: tuple[Expr, ...]) -> Expr | None:
        return load(position[node.param], node.index, node.dtype, *args) if node.fn == "load" else None

    return transform(value, moved)


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

    def verify(self, kernel: str, axes: Sequence[Axis], values: Sequence[Expr]) -> None:
        """Check the rules of the form against its kernel's name, axes and values.

        Raises:
            VerifyError: an axis with two roles or none, a result that the kernel does not have, a type or an extent
                that does not fit.
        """
        roles = (*self.rows, *self.columns, *self.terms, *self.batch)
        if len(set(roles)) != len(roles):
            raise VerifyError(f"kernel {kernel}: an axis of its contraction has two roles: {roles}")
        if set(axes) != {a for a in self.result_axes if a in axes or a.extent != 1}:
            raise VerifyError(f"kernel {kernel}: its contraction is over {self.result_axes}, its axes are {axes}")
        total = self.total
        if self.result not in values or total.fn != "reduce" or total.combine != "add" or total.args[0].fn != "mul":
            raise VerifyError(f"kernel {kernel}: its contraction's result is no sum of products that it makes")
        if total.reduce_axes != self.terms:
            raise VerifyError(f"kernel {kernel}: its contraction sums over {total.reduce_axes}, not {self.terms}")
        made = ContractionTypes(self.left.value.dtype, self.right.value.dtype, total.dtype, self.result.dtype)
        if made != self.types:
            raise VerifyError(f"kernel {kernel}: its contraction says {self.types}, it has {made}")
        for operand in self.operands:
            if not operand.value.axes <= set(operand.axes):
                raise VerifyError(f"kernel {kernel}: an operand depends on axes that are not its own: {operand}")
            if product(a.extent for a in operand.axes) != product(operand.shape):
                raise VerifyError(f"kernel {kernel}: axes {operand.axes} do not walk an operand of {operand.shape}")
        if self.window is not None:
            self._verify_window(kernel, self.window)
        elif not set(self.left.axes) <= {*self.batch, *self.rows, *self.terms} or not set(self.right.axes) <= {
            *self.batch,
            *self.columns,
            *self.terms,
        }:
            raise VerifyError(f"kernel {kernel}: an operand of its contraction has axes of the other one")

    def _verify_window(self, kernel: str, window: Window) -> None:
        images, weights, made = self.parts()
        rank = len(window.taps)
        if {len(images), len(weights), len(made)} != {rank + 2} or {len(window.stride), len(window.dilation)} != {rank}:
            raise VerifyError(f"kernel {kernel}: operands of {len(images)} axes do not fit a window of {rank}")
        fits = (
            images[0] == made[0]
            and weights[0] == made[1]
            and images[1] == weights[1] * window.groups
            and tuple(weights[2:]) == window.taps
            and tuple(made[2:]) == tuple(window.positions(axis, images[axis + 2]) for axis in range(rank))
        )
        if not fits:
            raise VerifyError(
                f"kernel {kernel}: images {tuple(images)}, weights {tuple(weights)} and {tuple(made)} positions "
                f"do not fit {window}"
            )

    def __str__(self) -> str:
        def named(axes: Sequence[Axis]) -> str:
            return " ".join(map(str, axes)) or "-"

        t = self.types
        walked = (
            "" if self.window is None else f", window of {self.window.result} {'x'.join(map(str, self.window.taps))}"
        )
        return (
            f"contraction rows {named(self.rows)}, columns {named(self.columns)}, terms {named(self.terms)}, "
            f"batch {named(self.batch)}{walked}, {t.left} x {t.right} -> {t.accumulator} -> {t.result}"
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
