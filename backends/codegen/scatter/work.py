"""What sums over indexed rows do: the sort of the points, and the rows' sums."""

from __future__ import annotations

from collections.abc import Sequence

from backends.codegen.amounts import Amounts, below
from backends.codegen.nest.schedule import NestConfig, blocks, nest_units
from graphcore.base.shapes import Extent
from graphcore.kernel.buckets import BucketSum, PointOrder
from graphcore.kernel.expr import Expr, dynamic_values, reduce, transform, walk
from graphcore.kernel.index import Axis
from graphcore.kernel.indexed_sums import IndexedSum
from graphcore.kernel.ir import Kernel
from graphcore.plan.costs import Work

__all__ = ["bucket_work", "ranking_work", "row_work", "sort_amounts", "sort_work"]

_UNIT = 10  # instructions that find a row's bucket
_COUNT, _PLACE = 3, 8  # instructions of the sort for a row and for a point
_COMPARE = 4  # instructions of one comparison with a point, and of counting it


def bucket_work(kernel: Kernel, config: NestConfig, sums: Sequence[BucketSum]) -> Work:
    """The work of adding up every row's own terms, for any sizes."""
    amounts = Amounts(kernel, config.lane, config.width)
    of_axis = {s.axis: s for s in sums}

    def times(axes: frozenset[Axis]) -> Extent:
        total: Extent = 1
        for s in (of_axis[a] for a in axes & of_axis.keys()):
            total = total * s.axis.extent
            axes = axes - s.position.axes() - {s.axis}  # a point belongs to one row
        for a in axes:
            total = total * (blocks(a.extent, config.width) if a == config.lane else a.extent)
        return total

    walked = {s.total: reduce("add", (s.axis,), s.term) for s in sums}
    for value in walk(*(transform(s.value, lambda node, _: walked.get(node)) for s in kernel.stores)):
        if value.fn == "reduce":
            added = times(value.axes | frozenset(value.reduce_axes))
            amounts.instructions = amounts.instructions + added
            amounts.turns = amounts.turns + added
        else:
            amounts.value(value, times(value.axes))
            in_order = value.fn != "load" or not any(True for _ in dynamic_values(value.index))
            if value.axes & of_axis.keys() and not in_order:  # points of one row lie anywhere
                amounts.far = amounts.far + times(value.axes)
    for store in kernel.stores:
        amounts.access(store.param, store.index, times(store.index.axes()))
    amounts.instructions = amounts.instructions + nest_units(kernel, config) * _UNIT
    return amounts.work()


def sort_work(kernel: Kernel, found: PointOrder) -> Work:
    """The work of one task's counting sort."""
    amounts = Amounts(kernel, None, 1)
    points = found.point.extent
    for value in below(found.row):
        amounts.value(value, points)
    sort = sort_amounts(found.rows, points)
    amounts.instructions = amounts.instructions + sort.instructions
    amounts.scattered = amounts.scattered + sort.scattered
    return amounts.work()


def ranking_work(kernel: Kernel, found: PointOrder) -> Work:
    """The work of comparing every point, and every row, with every point."""
    amounts = Amounts(kernel, None, 1)
    points = found.point.extent
    for value in below(found.row):
        amounts.value(value, points)
    compared = points * (points + found.rows + 1)
    amounts.instructions = amounts.instructions + compared * _COMPARE
    for store in kernel.stores:
        amounts.access(store.param, store.index, kernel.params[store.param].size)
    return amounts.work()


def sort_amounts(rows: Extent, points: Extent) -> Work:
    """The work of sorting so many known rows' points."""
    return Work(instructions=rows * _COUNT + points * _PLACE, scattered=points * 2)


def row_work(kernel: Kernel, width: int, sums: Sequence[IndexedSum], named: Axis) -> Work:
    """The work of sums along rows, each in a task's own memory."""
    amounts = Amounts(kernel, named, width)
    rows: Extent = 1
    for a in kernel.axes:
        rows = rows * (1 if a == named else a.extent)
    held: set[Expr] = set()
    for s in sums:
        points = rows * s.axis.extent
        for value in below(s.row, s.term):
            amounts.value(value, points)
        amounts.scattered = amounts.scattered + points * 2
        held |= {s.total, *below(s.total)}
    vectors = rows * blocks(named.extent, width)
    for value in walk(*(s.value for s in kernel.stores)):
        if value not in held:
            amounts.value(value, vectors)
    for store in kernel.stores:
        amounts.access(store.param, store.index, vectors)
    amounts.instructions = amounts.instructions + vectors * (2 * len(sums))
    return amounts.work()
