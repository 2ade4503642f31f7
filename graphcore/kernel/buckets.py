"""Points in the order of the rows that they belong to, and sums that walk a row's points only: as kernels say it.

One kernel, of the form of a sort, stores the order of the points and where every row's points start in it. Another one
sums over the order, and guards what it adds by the row's start and the next one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphcore.base.dtypes import int32
from graphcore.base.shapes import Extent
from graphcore.kernel.expr import Expr, call, cast, const, index_value, load, reduce, size_value
from graphcore.kernel.guards import assuming, conditions, guard_of
from graphcore.kernel.index import Axis, Index, as_index
from graphcore.kernel.ir import Kernel
from graphcore.kernel.whole_forms import Sort

__all__ = ["BucketSum", "PointOrder", "count_below", "find_bucket_sums", "find_order", "in_bucket"]


@dataclass(frozen=True)
class PointOrder:
    """A kernel that puts points in order.

    Attributes:
        point: the axis of the points.
        rows: how many rows there are.
        row: the row that a point belongs to, ``rows`` for none.
        order: the parameter of the points' numbers in the order of their rows, equal ones as they come.
        starts: the parameter of how many points belong to the rows before a row.
    """

    point: Axis
    rows: Extent
    row: Expr
    order: int
    starts: int


def count_below(key: Expr, point: Axis, over: Axis, row: Axis) -> Expr:
    """How many points belong to the rows before a row.

    Args:
        key: the row of a point.
        point: the axis of the points in ``key``; ``over`` the one to count along.
        row: the axis of the rows.
    """
    other = key.substitute({point: as_index(over)})
    return reduce("add", (over,), cast(call("lt", other, index_value(as_index(row), int32)), int32))


def find_order(kernel: Kernel) -> PointOrder | str:
    """What a kernel puts in order, or why it is no order of points by row."""
    form = kernel.form
    if not isinstance(form, Sort):
        return "it sorts nothing"
    (keys,) = form.operands
    if form.descending or keys.axes != (form.axis,) or keys.value.dtype != int32 or len(kernel.stores) != 2:
        return "it does not put the points of one axis in order by row"
    order, starts = kernel.stores
    rows = next((a for a in kernel.axes if a != form.axis), None)
    counted = starts.value
    if (
        order.value is not cast(form.results[1], int32)
        or order.index != as_index(form.axis)
        or rows is None
        or starts.index != as_index(rows)
        or counted.fn != "reduce"
        or len(counted.reduce_axes) != 1
        or counted is not count_below(keys.value, form.axis, counted.reduce_axes[0], rows)
    ):
        return "it does not store where the rows' points start"
    extent = rows.extent - 1
    if not _is_row(keys.value, extent):
        return "its keys are not known to be rows"
    return PointOrder(form.axis, extent, keys.value, order.param, starts.param)


def _is_row(key: Expr, rows: Extent) -> bool:
    """Whether a key is a row or, where what it is made of is none, the number of rows."""
    if key.fn != "select" or key.args[2] is not size_value(rows, int32):
        return False
    inside, held, _ = key.args
    return any(_is_tested(c, rows, conditions(inside)) for c in (held, *(held.args if held.fn == "cast" else ())))


def _is_tested(counted: Expr, rows: Extent, known: Sequence[Expr]) -> bool:
    """Whether conditions say that a value is one of the rows."""
    zero, end = const(0, counted.dtype), size_value(rows, counted.dtype)
    below = any(c.fn == "lt" and c.args[0] is counted and c.args[1] is end for c in known)
    above = any(c.fn == "ge" and c.args[0] is counted and c.args[1] is zero for c in known)
    return below and (above or counted.dtype.is_unsigned)


@dataclass(frozen=True)
class BucketSum:
    """A sum over the points of one row.

    Attributes:
        total: the sum in the kernel.
        axis: it runs over places in the order of the points.
        position: the row, in terms of the kernel's axes.
        starts: the parameter of where the rows' points start.
        low, high: the row's first place, and the one after its last.
        term: what is added at a place.
    """

    total: Expr
    axis: Axis
    position: Index
    starts: int
    low: Expr
    high: Expr
    term: Expr


def in_bucket(place: Axis, starts: int, position: Index) -> Expr:
    """Whether a place in the order is one of a row's.

    Args:
        place: the axis of places.
        starts: the parameter of where the rows' points start.
        position: the row.
    """
    at = index_value(as_index(place), int32)
    low, high = load(starts, position, int32), load(starts, position + 1, int32)
    return call("and", call("ge", at, low), call("lt", at, high))


def find_bucket_sums(kernel: Kernel) -> tuple[BucketSum, ...] | str:
    """The sums of a kernel over the points of a row, or why there are none."""
    found = [s for v in kernel.values() if v.fn == "reduce" and (s := _bucket_sum(v)) is not None]
    return tuple(found) or "it sums no points of a row"


def _bucket_sum(total: Expr) -> BucketSum | None:
    guard = guard_of(total.args[0])
    if total.combine != "add" or len(total.reduce_axes) != 1 or guard is None:
        return None
    (axis,), known = total.reduce_axes, conditions(guard)
    for test in known:
        if test.fn != "ge" or test.args[1].fn != "load":
            continue
        low = test.args[1]
        both = conditions(in_bucket(axis, low.param, low.index))
        if test is both[0] and both[1] in known:
            term = assuming(total.args[0], {c: const(True, c.dtype) for c in both})
            return BucketSum(total, axis, low.index, low.param, low, both[1].args[1], term)
    return None
