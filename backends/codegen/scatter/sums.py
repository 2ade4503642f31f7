"""Recognition of sums over what indices name: scatter-add, along an axis or by row, and the gradients of gathers."""

from __future__ import annotations

from dataclasses import dataclass

from backends.codegen.recognition import recognised
from graphcore.base.dtypes import int32
from graphcore.base.shapes import Extent
from graphcore.kernel.expr import Expr, both, cast, const, dynamic_values, select, size_value, transform, walk
from graphcore.kernel.index import PARALLEL, Axis, Dynamic, Index, as_index
from graphcore.kernel.ir import Kernel
from graphcore.plan.target import Reject

__all__ = ["BucketSum", "find_sums", "point_axis"]


@dataclass(frozen=True)
class BucketSum:
    """A guarded sum seen as the sum of a row's bucket.

    Attributes:
        total: the sum in the kernel.
        axis: what it sums over.
        position: the row, in terms of the kernel's axes.
        rows: how many there are.
        key: the row that a point of ``axis`` belongs to, ``rows`` for none; the axis is called ``i0`` there, unless
            indices run along rows.
        term: what is added where the point belongs to the row.
        slot: number of its sorted order; sums over the same indices share one.
    """

    total: Expr
    axis: Axis
    position: Index
    rows: Extent
    key: Expr
    term: Expr
    slot: int


@recognised
def find_sums(kernel: Kernel, along: bool = False) -> tuple[BucketSum, ...] | Reject:
    """The sums of a kernel that take what indices name, or why there are none.

    The indices depend on the summed axis alone or, with ``along``, on all axes but the one that they name positions of.
    """
    found: list[BucketSum] = []
    slots: dict[Expr, int] = {}
    reason = "it has no sum over one axis of its own"
    for value in kernel.values():
        if (
            value.fn != "reduce"
            or value.combine != "add"
            or len(value.reduce_axes) != 1
            or value.reduce_axes[0] in kernel.axes
        ):
            continue
        seen = _bucket_sum(kernel, value, slots, along)
        if isinstance(seen, str):
            reason = seen
        else:
            found.append(seen)
    return tuple(found) or Reject(reason)


def _bucket_sum(kernel: Kernel, total: Expr, slots: dict[Expr, int], along: bool) -> BucketSum | str:
    (axis,), body = total.reduce_axes, total.args[0]
    guard = body.args[0] if _is_guarded(body) else None
    if guard is None:
        return "its sum's terms have no common guard"
    conditions = _conditions(guard)
    for test in conditions:
        named = _named(test, axis, along)
        if named is None or any(True for v in walk(named[0]) if v.fn == "load" for _ in dynamic_values(v.index)):
            continue
        counted, position = named
        below = next(
            (c for c in conditions if c.fn == "lt" and c.args[0] is counted and c.args[1].fn in ("const", "size")), None
        )
        above = next((c for c in conditions if c.fn == "ge" and c.args[0] is counted and _is_zero(c.args[1])), None)
        if below is None or (above is None and not counted.dtype.is_unsigned):
            return "its indices' range is not tested"
        limit = below.args[1]
        rows: Extent = limit.value if limit.fn == "const" else limit.extent
        if not _within(position, rows) or not position.axes() <= set(kernel.axes):
            return "its rows are not known to be in range"
        inside = below if above is None else both(above, below)
        key = select(inside, cast(counted, int32), size_value(rows, int32))
        if not along:
            key = key.substitute({axis: as_index(point_axis(axis))})
        dropped = frozenset(c for c in (test, below, above) if c is not None)
        return BucketSum(total, axis, position, rows, key, _without(body, dropped), slots.setdefault(key, len(slots)))
    return "its guard compares no indices with a row"


def _is_guarded(body: Expr) -> bool:
    return (body.fn == "load" and body.guard is not None) or (body.fn == "select" and _is_zero(body.args[2]))


def _is_zero(value: Expr) -> bool:
    return value is const(0, value.dtype)


def _conditions(guard: Expr) -> list[Expr]:
    """What must all hold for a guard to hold."""
    return [c for a in guard.args for c in _conditions(a)] if guard.fn == "and" else [guard]


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


def _within(position: Index, rows: Extent) -> bool:
    """Whether a position is one of the rows at every point."""
    low, high = position.range()
    if isinstance(rows, int):
        return low >= 0 and high < rows
    if len(position.terms) != 1 or position.constant != 0:
        return False
    ((atom, step),) = position.terms
    return step == 1 and isinstance(atom, (Axis, Dynamic)) and atom.extent == rows


def _without(body: Expr, conditions: frozenset[Expr]) -> Expr:
    """A guarded value where some conditions are known to hold."""

    def change(node: Expr, args: tuple[Expr, ...]) -> Expr | None:
        if node in conditions:
            return const(True, node.dtype)
        return both(*args) if node.fn == "and" else None

    return transform(body, change)


def point_axis(axis: Axis) -> Axis:
    return Axis("i0", axis.extent, PARALLEL)
