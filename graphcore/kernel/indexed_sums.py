"""Recognition of sums over what indices name: scatter-add, along an axis or by row, and the gradients of gathers."""

from __future__ import annotations

from dataclasses import dataclass

from graphcore.base.dtypes import int32
from graphcore.base.shapes import Extent
from graphcore.kernel.expr import Expr, both, cast, const, select, size_value
from graphcore.kernel.guards import assuming, conditions, guard_of
from graphcore.kernel.index import Axis, Dynamic, Index
from graphcore.kernel.ir import Kernel

__all__ = ["IndexedSum", "find_indexed_sums"]


@dataclass(frozen=True)
class IndexedSum:
    """A guarded sum seen as the sum of the points that name a row.

    Attributes:
        total: the sum in the kernel.
        axis: what it sums over: the points.
        position: the row, in terms of the kernel's axes.
        rows: how many there are.
        row: the row that a point belongs to, ``rows`` for none.
        test: the condition that the point's index is the row.
        within: the conditions that the index is one of the rows.
    """

    total: Expr
    axis: Axis
    position: Index
    rows: Extent
    row: Expr
    test: Expr
    within: tuple[Expr, ...]

    @property
    def term(self) -> Expr:
        """What is added where the point belongs to the row."""
        return assuming(self.total.args[0], {c: const(True, c.dtype) for c in (self.test, *self.within)})


def find_indexed_sums(kernel: Kernel, along: bool = False) -> tuple[IndexedSum, ...] | str:
    """The sums of a kernel that take what indices name, operands of others first; or why there are none.

    The indices depend on the summed axis alone or, with ``along``, on all axes but the one that they name positions of.
    """
    found: list[IndexedSum] = []
    reason = "it has no sum over one axis of its own"
    for value in kernel.values():
        if (
            value.fn != "reduce"
            or value.combine != "add"
            or len(value.reduce_axes) != 1
            or value.reduce_axes[0] in kernel.axes
        ):
            continue
        seen = _indexed_sum(kernel, value, along)
        if isinstance(seen, str):
            reason = seen
        else:
            found.append(seen)
    return tuple(found) or reason


def _indexed_sum(kernel: Kernel, total: Expr, along: bool) -> IndexedSum | str:
    (axis,), body = total.reduce_axes, total.args[0]
    guard = guard_of(body)
    if guard is None:
        return "its sum's terms have no common guard"
    known = conditions(guard)
    for test in known:
        named = _named(test, axis, along)
        if named is None:
            continue
        counted, position = named
        below = next(
            (c for c in known if c.fn == "lt" and c.args[0] is counted and c.args[1].fn in ("const", "size")), None
        )
        above = next(
            (c for c in known if c.fn == "ge" and c.args[0] is counted and c.args[1] is const(0, c.args[1].dtype)), None
        )
        if below is None or (above is None and not counted.dtype.is_unsigned):
            return "its indices' range is not tested"
        limit = below.args[1]
        rows: Extent = limit.value if limit.fn == "const" else limit.extent
        if not _are_rows(position, rows) or not position.axes() <= set(kernel.axes):
            return "its rows are not known to be in range"
        inside = below if above is None else both(above, below)
        key = select(inside, cast(counted, int32), size_value(rows, int32))
        return IndexedSum(total, axis, position, rows, key, test, (below,) if above is None else (below, above))
    return "its guard compares no indices with a row"


def _named(test: Expr, axis: Axis, along: bool) -> tuple[Expr, Index] | None:
    """The counted index and the position in a test for their equality."""
    if test.fn != "eq":
        return None
    for counted, place in (test.args, test.args[::-1]):
        if (
            place.fn == "index"
            and _may_count(counted, place, axis, along)
            and axis not in place.axes
            and counted.dtype.is_integer
        ):
            return counted, place.index
    return None


def _may_count(counted: Expr, place: Expr, axis: Axis, along: bool) -> bool:
    return axis in counted.axes and not counted.axes & place.axes if along else counted.axes == {axis}


def _are_rows(position: Index, rows: Extent) -> bool:
    """Whether a position is one of the rows at every point."""
    low, high = position.range()
    if isinstance(rows, int):
        return low >= 0 and high < rows
    if len(position.terms) != 1 or position.constant != 0:
        return False
    ((atom, step),) = position.terms
    return step == 1 and isinstance(atom, (Axis, Dynamic)) and atom.extent == rows
