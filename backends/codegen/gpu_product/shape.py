"""What a tiled product is: its factors and axes by role, and the shape of its tiles."""

from __future__ import annotations

from dataclasses import dataclass

from backends.codegen.recognition import recognised
from graphcore.base.dtypes import float32, float64
from graphcore.kernel.expr import Expr, dynamic_values
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel
from graphcore.plan.target import Reject

__all__ = ["TileConfig", "TiledProduct", "find_contraction"]


@dataclass(frozen=True)
class TiledProduct:
    """A kernel's contraction as its tiles walk it: its factors and the roles of its axes, outermost first."""

    total: Expr
    left: Expr
    right: Expr
    rows: tuple[Axis, ...]
    cols: tuple[Axis, ...]
    terms: tuple[Axis, ...]
    batch: tuple[Axis, ...]


@dataclass(frozen=True)
class TileConfig:
    """A tile of the result, computed by one group of ``across * down`` work items.

    Attributes:
        across, down: work items along the columns and the rows.
        rows, cols: results of one work item.
        depth: terms in local memory at a time.
        across_vector, down_vector: neighbouring columns and rows of one work item, which it reads as one vector.
        buffers: blocks of terms in local memory, one or two.
    """

    across: int
    down: int
    rows: int
    cols: int
    depth: int
    across_vector: int = 1
    down_vector: int = 1
    buffers: int = 2

    @property
    def tile(self) -> tuple[int, int]:
        return self.rows * self.down, self.cols * self.across

    def nbytes(self, itemsize: int) -> int:
        """Local memory of both factors' tiles; what is added to their rows keeps work items off each other's banks."""
        height, width = self.tile
        return self.buffers * self.depth * (height + self.down_vector + width + self.across_vector) * itemsize

    def describe(self) -> str:
        return f"tile {self.tile[0]}x{self.tile[1]}x{self.depth}, {self.rows}x{self.cols} a work item"


@recognised
def find_contraction(kernel: Kernel) -> TiledProduct | Reject:
    """The sum of products inside a kernel, or why there is none."""
    form = kernel.product()
    if form is None or sum(v.fn == "reduce" for v in kernel.values()) != 1:
        return Reject("it is not one sum of products")
    if form.types.accumulator not in (float32, float64):
        return Reject("the sum's terms are not products of float32 or float64 values")
    if any(
        s.mode != "set" or s.index.axes() != frozenset(kernel.axes) or any(True for _ in dynamic_values(s.index))
        for s in kernel.stores
    ):
        return Reject("it stores other elements than the result's")
    left, right = form.factors
    if not all(set(form.terms) & f.axes for f in (left, right)):
        return Reject("a factor depends on no summed axis")
    rows, cols = form.rows, form.columns
    if not rows or not cols:
        return Reject("it has no rows or no columns")
    if (
        kernel.axes[-1] in rows
    ):  # neighbouring work items take neighbouring columns: let those be neighbours in the result
        left, right, rows, cols = right, left, cols, rows
    return TiledProduct(form.total, left, right, rows, cols, form.terms, form.batch)
