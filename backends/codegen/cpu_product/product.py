"""Recognition of matrix products: a kernel's sum, its factors and the roles of its axes."""

from __future__ import annotations

from dataclasses import dataclass

from backends.codegen.recognition import recognised
from graphcore.base.dtypes import float32, float64
from graphcore.kernel.expr import Expr, dynamic_values
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel
from graphcore.plan.target import Reject

__all__ = ["Product", "find_product", "is_plain"]


@dataclass(frozen=True)
class Product:
    """A kernel seen as a product: its sum, operands and the roles of its axes. ``row`` or ``col`` None is a vector."""

    total: Expr
    left: Expr
    right: Expr
    row: Axis | None
    col: Axis | None
    term: Axis
    batch: tuple[Axis, ...]


@recognised
def find_product(kernel: Kernel) -> Product | Reject:
    """The product inside a kernel, or why there is none."""
    form = kernel.product()
    if form is None or len(form.terms) != 1 or len(kernel.reductions()) != 1:
        return Reject("it is not one sum of products over one axis")
    if form.types.accumulator not in (float32, float64):
        return Reject("the sum's terms are not products of float32 or float64 values")
    (term,), (left, right) = form.terms, form.factors
    if not (term in left.axes and term in right.axes):
        return Reject("a factor does not depend on the summed axis")
    if any(a not in left.axes for a in form.batch):
        return Reject("neither factor depends on some axis of the result")
    rows, cols = form.rows, form.columns
    if len(rows) > 1 or len(cols) > 1:
        return Reject("the result's rows or columns are not one axis")
    row, col = rows[0] if rows else None, cols[0] if cols else None
    if any(s.mode == "set" and s.index.axes() != frozenset(kernel.axes) for s in kernel.stores):
        return Reject("it stores values smaller than the product")
    if _step(kernel, col) != 1 and _step(kernel, row) == 1:  # write along contiguous elements: compute the transpose
        left, right, row, col = right, left, col, row
    return Product(form.total, left, right, row, col, term, form.batch)


def _step(kernel: Kernel, axis: Axis | None) -> int | None:
    return kernel.stores[0].index.stride(axis) if axis is not None else None


def is_plain(factor: Expr, own: Axis | None, term: Axis) -> bool:
    """Whether a factor is a matrix in memory: a load whose address steps evenly along both its axes."""
    if factor.fn != "load" or factor.args:
        return False
    index = factor.index
    return all(a is None or index.stride(a) is not None for a in (own, term)) and not any(
        True for _ in dynamic_values(index)
    )
