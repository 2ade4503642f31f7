"""What a loop nest does: how often its loops compute each value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backends.codegen.amounts import Amounts
from backends.codegen.nest.schedule import NestConfig, blocks, nest_units, tail_widths
from backends.codegen.recognition import recognised
from graphcore.base.shapes import Extent
from graphcore.kernel.expr import Expr, children, walk
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel
from graphcore.kernel.rows import columns_of, rows_of
from graphcore.plan.costs import Work

__all__ = ["nest_work"]

_UNIT, _DIGIT = 4, 10  # instructions of a unit's loop, and of taking one more axis's position out of its number
_FOLD = 10  # instructions that add up the lanes of one accumulator


@recognised
def nest_work(kernel: Kernel, config: NestConfig) -> Work:
    """What the loop nest does, for any sizes."""
    return _Loops(kernel, config).work()


@dataclass
class _Loops:
    kernel: Kernel
    config: NestConfig

    def __post_init__(self) -> None:
        columns = columns_of(self.kernel)
        lane = self.config.lane
        self.columns, self.domain = frozenset(columns), frozenset(self.kernel.axes)
        self.loops = [a for a in columns if a != lane] + ([lane] if lane is not None and lane in columns else [])
        self.units = nest_units(self.kernel, self.config)
        self.amounts = Amounts(self.kernel, lane, self.config.width)
        self.depth = self.depths()
        # Many values, few sets of axes.
        self.counted: dict[frozenset[Axis], tuple[Extent, Axis | None]] = {}

    def work(self) -> Work:
        amounts, rows = self.amounts, rows_of(self.kernel)
        for value, axes in self.computed():
            amounts.value(value, *self.loops_of(axes))
        level: dict[int, frozenset[Axis]] = {}
        for value, depth in self.depth.items():
            if value.fn != "reduce":
                continue
            axes = value.args[0].axes | frozenset(value.reduce_axes)
            amounts.instructions = amounts.instructions + self.times(axes)
            if self.is_row_reduce(value):
                level[depth] = level.get(depth, frozenset()) | axes
                if self.config.lane in self.columns:
                    amounts.instructions = amounts.instructions + self.units * _FOLD
            else:
                amounts.turns = amounts.turns + self.times(axes)
        for axes in level.values():
            amounts.turns = amounts.turns + self.times(axes)
        for store in self.kernel.stores:
            amounts.access(store.param, store.index, *self.loops_of(store.index.axes()))
        amounts.instructions = amounts.instructions + self.units * (_UNIT + _DIGIT * max(len(rows) - 1, 0))
        return amounts.work()

    def is_row_reduce(self, value: Expr) -> bool:
        return value.fn == "reduce" and not self.columns.isdisjoint(value.reduce_axes)

    def depths(self) -> dict[Expr, int]:
        """The phase after which each value is known."""
        depth: dict[Expr, int] = {}
        for value in walk(*(s.value for s in self.kernel.stores)):
            depth[value] = max((depth[c] for c in children(value)), default=0) + self.is_row_reduce(value)
        return depth

    def computed(self) -> Iterator[tuple[Expr, frozenset[Axis]]]:
        """Every value once a phase that computes it, with the axes whose loops it is in."""
        depth = self.depth
        roots = [(v.args[0], d) for v, d in depth.items() if self.is_row_reduce(v)]
        roots += [(s.value, depth[s.value] + 1 if s.index.axes() & self.columns else -1) for s in self.kernel.stores]
        seen: set[tuple[Expr, int]] = set()
        for root, phase in roots:
            stack = [root]
            while stack:
                value = stack.pop()
                # What depends on no column is computed once a unit.
                key = (value, phase if value.axes & self.columns else -1)
                if key in seen or self.is_row_reduce(value):
                    continue
                seen.add(key)
                own = frozenset(value.reduce_axes) | value.args[0].axes if value.fn == "reduce" else value.axes
                yield value, own
                stack.extend(children(value))

    def loops_of(self, axes: frozenset[Axis]) -> tuple[Extent, Axis | None]:
        """How often what depends on some axes is computed, and in which loop."""
        found = self.counted.get(axes)
        if found is None:
            found = self.counted[axes] = self.times(axes), self.inner(axes)
        return found

    def times(self, axes: frozenset[Axis]) -> Extent:
        """How often what depends on some axes is computed: once a unit and turn of the loops down to its last axis."""
        # What depends on no row and no column is computed once a task.
        total: Extent = self.units if axes & self.domain else 1
        last = max((i for i, a in enumerate(self.loops) if a in axes), default=-1)
        for axis in (*self.loops[: last + 1], *(a for a in axes if a not in self.kernel.axes)):
            total = total * self.turns(axis)
        return total

    def turns(self, axis: Axis) -> Extent:
        """Turns of a column's loop: whole vectors and what is left of them along the lanes."""
        if axis != self.config.lane:
            return axis.extent
        if not isinstance(axis.extent, int):
            return blocks(axis.extent, self.config.width)
        return axis.extent // self.config.width + len(tail_widths(axis.extent % self.config.width))

    def inner(self, axes: frozenset[Axis]) -> Axis | None:
        """The innermost loop of those that a value is in."""
        own = sorted((a for a in axes if a not in self.kernel.axes), key=str)
        return own[-1] if own else next((a for a in reversed(self.loops) if a in axes), None)
