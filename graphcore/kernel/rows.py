"""Rows and columns of a kernel: the parallel axes that results have, and those that reductions bind."""

from __future__ import annotations

from collections.abc import Sequence

from graphcore.kernel.expr import Expr, children
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel

__all__ = ["columns_of", "is_contiguous", "row_reductions", "rows_of"]


def columns_of(kernel: Kernel) -> tuple[Axis, ...]:
    """The domain axes that reductions bind."""
    bound = {a for v in kernel.reductions() for a in v.reduce_axes}
    return tuple(a for a in kernel.axes if a in bound)


def rows_of(kernel: Kernel) -> tuple[Axis, ...]:
    """The domain axes that no reduction binds."""
    columns = columns_of(kernel)
    return tuple(a for a in kernel.axes if a not in columns)


def row_reductions(kernel: Kernel) -> list[Expr]:
    """The reductions with one result a row, in an order where operands come first."""
    rows = frozenset(rows_of(kernel))
    return [v for v in kernel.reductions() if v.axes <= rows]


def is_contiguous(kernel: Kernel, reductions: Sequence[Expr]) -> bool:
    """Whether neighbouring elements of a row, rather than neighbouring rows, are neighbours in memory."""
    rows = rows_of(kernel)
    along = across = 0
    for r in reductions:
        for value in _below(r):
            # What all rows share stays in the cache.
            if value.fn == "load" and (not rows or rows[-1] in value.index.axes()):
                along += value.index.stride(r.reduce_axes[-1]) == 1
                across += bool(rows) and value.index.stride(rows[-1]) == 1
    return along >= across


def _below(r: Expr) -> set[Expr]:
    """The values that a reduction computes for every element."""
    seen: set[Expr] = set()
    stack = [r.args[0]]
    while stack:
        value = stack.pop()
        if value in seen or value.fn == "reduce":
            continue
        seen.add(value)
        stack.extend(children(value))
    return seen
