"""Row reductions on GPUs: the work items of a group share out a row, and a tree in local memory combines what they
found.

Softmax, layer norm, cross entropy, arg-max and full reductions. As in the loop nest, a row is walked once a *phase*: a
reduction belongs to the phase after those that its body needs, a store over columns to the phase after those that its
value needs. A group of work items takes several short rows at a time, or one long one. All sums have a fixed order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backends.codegen.accumulator import Accumulator
from backends.codegen.cnames import register_bytes, register_type
from backends.codegen.device_model import DeviceModel
from backends.codegen.emitter import Emitter
from backends.codegen.family import Family
from backends.codegen.language import Space
from backends.codegen.nest.code import store_free
from backends.codegen.nest.schedule import NestConfig, blocks
from backends.codegen.nest.work import nest_work
from backends.codegen.recognition import recognised
from backends.codegen.sharing import ITEMS_PER_CORE, among_groups, among_items, at_most, points
from backends.codegen.template import NAME, signature
from graphcore.base.shapes import Extent, bind, product
from graphcore.kernel.expr import Expr, children, dynamic_values
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel, Store
from graphcore.kernel.rows import columns_of, is_contiguous, row_reductions, rows_of
from graphcore.plan.costs import Work
from graphcore.plan.target import Reject, Sharing

__all__ = ["GpuRows", "RowsConfig", "row_length"]

_SHORTEST = 32  # elements of a row below which one work item a row is as good
_FEW_ROWS, _LONG_ROW = 1024, 1024  # few long rows are worth a group each even where their elements lie apart
_ELEMENTS_PER_ITEM = 4
_GROUPS_PER_CORE = 16


@dataclass(frozen=True)
class RowsConfig:
    """How rows are shared out.

    Attributes:
        lanes: work items of one row, a power of two.
        group: work items of a group; ``group // lanes`` rows at a time.
    """

    lanes: int
    group: int

    def describe(self) -> str:
        return f"{self.lanes} work items a row, {self.group // self.lanes} rows a group"


def row_length(kernel: Kernel, reductions: Sequence[Expr], sizes: Mapping[str, int]) -> int:
    """Elements of the longest reduction of a row."""
    return max((int(bind(product(a.extent for a in r.reduce_axes), sizes)) for r in reductions), default=0)


def _reason(kernel: Kernel, hints: Mapping[str, int]) -> str | None:
    """Why this family does not take the kernel."""
    reductions = row_reductions(kernel)
    if not reductions:
        return "no reduction has one result a row"
    columns = set(columns_of(kernel))
    for value in kernel.values():
        if value.fn == "reduce" and columns & {*value.reduce_axes, *value.axes} and set(value.reduce_axes) != columns:
            return "a reduction takes a part of the columns"
    if any(s.mode != "set" for s in kernel.stores):
        return "it adds to memory"
    if any(True for s in kernel.stores for _ in dynamic_values(s.index)):
        return "it scatters"
    depth = _depths(kernel)
    if rows_of(kernel) and any(not s.value.axes and depth[s.value] for s in kernel.stores):
        return "it stores a reduction that belongs to no row"
    length = row_length(kernel, reductions, hints)
    if length < _SHORTEST:
        return f"rows of {length} elements are too short to share"
    count = int(bind(product(a.extent for a in rows_of(kernel)), hints))
    if not is_contiguous(kernel, reductions) and (count > _FEW_ROWS or length < _LONG_ROW):
        return "its rows' elements lie apart"
    return None


class GpuRows(Family):
    """Rows on GPUs."""

    name = "gpu-rows"
    choices = RowsConfig

    def serves(self, model: DeviceModel) -> bool:
        return model.is_gpu

    def candidates(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[RowsConfig] | Reject:
        reason = _reason(kernel, hints)
        if reason is not None:
            return Reject(reason)
        length = row_length(kernel, row_reductions(kernel), hints)
        lanes = min(model.group, 8)
        while lanes < model.group and lanes * _ELEMENTS_PER_ITEM < length:
            lanes *= 2
        if not rows_of(kernel):
            lanes = model.group
        return [RowsConfig(lanes, model.group)]

    def sharing(self, kernel: Kernel, config: RowsConfig, model: DeviceModel, sizes: Mapping[str, int]) -> Sharing:
        if not is_contiguous(kernel, row_reductions(kernel)):  # parts are as well summed up by a work item each
            return among_items(kernel, model, sizes)
        items = points(rows_of(kernel), sizes) * config.lanes
        return among_groups(kernel, ITEMS_PER_CORE * model.cores // max(items, 1), model, sizes)

    def local_bytes(self, kernel: Kernel, config: RowsConfig, model: DeviceModel) -> int:
        levels: dict[int, int] = {}
        depth = _depths(kernel)
        for r in row_reductions(kernel):
            levels[depth[r]] = levels.get(depth[r], 0) + _slot_bytes(r, config)
        return max(levels.values())

    def emit(self, kernel: Kernel, config: RowsConfig, model: DeviceModel) -> str:
        emitter = Emitter(kernel, model)
        lines = _Rows(emitter, config).emit()
        body = "\n".join("  " + line for line in lines)
        return (
            f"GC_NOINLINE static void {NAME}({signature(model.language, kernel)}, const int task, const int tasks, "
            f"{model.language.pointer('char', Space.LOCAL)} pool) {{\n{body}\n}}\n"
        )

    def tasks(self, kernel: Kernel, config: RowsConfig, model: DeviceModel) -> Extent:
        """Work-groups: one for every few rows, but no more than keep the device busy."""
        items = product(a.extent for a in rows_of(kernel)) * config.lanes
        return at_most(blocks(items, config.group), _GROUPS_PER_CORE * model.cores)

    def work(self, kernel: Kernel, config: RowsConfig) -> Work:
        return nest_work(kernel, NestConfig(None, 1))


def _slot_bytes(r: Expr, config: RowsConfig) -> int:
    """Local memory of one reduction: an element a work item, and its position for arg-reductions."""
    return config.group * (8 + (8 if r.combine.startswith("arg") else 0))


@recognised
def _depths(kernel: Kernel) -> Mapping[Expr, int]:
    """The phase after which a value is known: 0 for what needs no row reduction."""
    reductions = set(row_reductions(kernel))
    depth: dict[Expr, int] = {}
    for value in kernel.values():
        depth[value] = max((depth[c] for c in children(value)), default=0) + (value in reductions)
    return depth


class _Rows:
    def __init__(self, emitter: Emitter, config: RowsConfig) -> None:
        self.em, self.kernel, self.config = emitter, emitter.kernel, config
        self.rows, self.columns = rows_of(self.kernel), columns_of(self.kernel)
        self.reductions = row_reductions(self.kernel)
        self.depth = _depths(self.kernel)
        # Scalars that have nothing to do with the rows are stored also when there are no rows.
        self.free = [s for s in self.kernel.stores if self.rows and not s.index.axes() and not s.value.axes]

    def emit(self) -> list[str]:
        em, lanes, at_once = self.em, self.config.lanes, self.config.group // self.config.lanes
        em.line(f"const int item = {em.language.local_id()}, lane = item & {lanes - 1};")
        self.pin()
        if not self.rows:  # one row: the first group's
            em.line("if (task != 0) return;")
            em.line("const int live = 1;")
            self.phases()
            return em.lines
        store_free(em, self.free, [s for s in self.kernel.stores if s not in self.free], "if (task == 0 && item == 0)")
        em.line(f"const int rows = {' * '.join(em.extent(a.extent) for a in self.rows)};")
        with em.block(f"for (int first = task * {at_once}; first < rows; first += tasks * {at_once})", self.rows):
            mine = "first" if at_once == 1 else f"first + item / {lanes}"
            # Work items without a row of their own repeat the last one and store nothing: all must reach the barriers.
            em.line(f"const int live = {mine} < rows;")
            em.line(f"const int row = min({mine}, rows - 1);")
            decode(em, self.rows, "row")
            self.phases()
        return em.lines

    def pin(self) -> None:
        """Reductions, and what is made of them, stay inside the rows' loop even where they depend on no row."""
        for value in self.kernel.values():
            if self.depth[value]:
                self.em.keep_inside(value, self.rows)

    def phases(self) -> None:
        columns = set(self.columns)
        over_columns = [s for s in self.kernel.stores if (s.index.axes() | s.value.axes) & columns]
        once = [s for s in self.kernel.stores if s not in over_columns and s not in self.free]
        last = max([*(self.depth[r] for r in self.reductions), *(self._level(s) for s in over_columns)])
        for level in range(1, last + 1):
            self.phase(
                [r for r in self.reductions if self.depth[r] == level],
                [s for s in over_columns if self._level(s) == level],
            )
        for store in once:
            self.em.value(store.value)
        for store in once:
            absent = [a for a in self.rows if a not in store.index.axes()]
            first = "".join(f" && {self.em.axis_code[a]} == 0" for a in absent)
            with self.em.block(f"if (live && lane == 0{first})"):
                self.em.store(store)

    def _level(self, store: Store) -> int:
        return self.depth[store.value] + 1

    def phase(self, reduces: Sequence[Expr], stores: Sequence[Store]) -> None:
        """One walk along the row for every tuple of axes, then the tree."""
        em = self.em
        accumulators = {r: Accumulator(em, r, 1) for r in reduces}
        for accumulator in accumulators.values():
            accumulator.declare(em.scope)
        walks: dict[tuple[Axis, ...], list[Expr]] = {}
        for r in reduces:
            walks.setdefault(self.columns if set(r.reduce_axes) == set(self.columns) else r.reduce_axes, []).append(r)
        if stores:
            walks.setdefault(self.columns, [])
        for axes, members in walks.items():
            self.walk(axes, [(accumulators[r], r) for r in members], stores if axes == self.columns else ())
        if reduces:
            self.tree(accumulators)

    def walk(self, axes: Sequence[Axis], members: Sequence[tuple[Accumulator, Expr]], stores: Sequence[Store]) -> None:
        """This work item's elements of the row: neighbouring work items take neighbouring elements."""
        em = self.em
        count = " * ".join(em.extent(a.extent) for a in axes)
        name = em.fresh("e")
        with em.block(f"if (live) for (int {name} = lane; {name} < {count}; {name} += {self.config.lanes})", axes):
            decode(em, axes, name)
            for accumulator, r in members:
                accumulator.add(r.args[0], em.position(r.reduce_axes))
            em.store_all(stores)

    def tree(self, accumulators: Mapping[Expr, Accumulator]) -> None:
        """Combine the work items' results; afterwards each knows the row's."""
        em, config = self.em, self.config
        slots: list[tuple[Accumulator, str, str]] = []
        offset = 0
        for r, a in accumulators.items():
            kind, held, where = register_type(a.dtype), em.fresh("l"), ""
            values, places = (em.language.pointer(k, Space.LOCAL) for k in (kind, "int"))
            em.line(f"{values} const {held} = ({values})(pool + {offset});")
            em.line(f"{held}[item] = {a.name};")
            if a.position:
                where = em.fresh("lat")
                em.line(f"{places} const {where} = ({places})(pool + {offset + 8 * config.group});")
                em.line(f"{where}[item] = {a.position};")
            assert register_bytes(a.dtype) <= 8
            offset += _slot_bytes(r, config)
            slots.append((a, held, where))
        em.line(em.language.barrier())
        step = em.fresh("s")
        with em.block(f"for (int {step} = {config.lanes // 2}; {step} > 0; {step} >>= 1)"):
            with em.block(f"if (lane < {step})"):
                for a, held, where in slots:
                    self.combine(a, held, where, step)
            em.line(em.language.barrier())
        for (r, a), (_, held, where) in zip(accumulators.items(), slots, strict=True):
            em.line(f"{a.name} = {held}[item - lane];")
            if where:
                em.line(f"{a.position} = {where}[item - lane];")
            em.define(r, a.finish(em.scope))
        em.line(em.language.barrier())  # the next tree uses the same memory

    def combine(self, a: Accumulator, held: str, where: str, step: str) -> None:
        """Fold the upper half's results into the lower half's; of equal extremes the first position wins."""
        em, kind = self.em, register_type(a.dtype)
        old, new = em.fresh("x"), em.fresh("y")
        em.line(f"const {kind} {old} = {held}[item], {new} = {held}[item + {step}];")
        if not where:
            em.line(f"{held}[item] = {a.merged(old, new, 1)};")
            return
        mine, other = em.fresh("i"), em.fresh("j")
        em.line(f"const int {mine} = {where}[item], {other} = {where}[item + {step}];")
        equal = (
            f"(({new} == {old}) | (({new} != {new}) & ({old} != {old})))" if a.dtype.is_float else f"({new} == {old})"
        )
        better = f"{other} >= 0 && ({mine} < 0 || {a.better(new, old, 1)} || ({equal} && {other} < {mine}))"
        em.line(f"if ({better}) {{ {held}[item] = {new}; {where}[item] = {other}; }}")


def decode(em: Emitter, axes: Sequence[Axis], position: str) -> None:
    """Name the axes' values at a row-major position, the last axis fastest."""
    rest = position
    for i in range(len(axes) - 1, -1, -1):
        extent = em.extent(axes[i].extent)
        name = em.fresh(axes[i].name + "_")
        em.line(f"const int {name} = {rest if i == 0 else f'{rest} % {extent}'};")
        em.name_axis(axes[i], name)
        if i:
            following = em.fresh("q")
            em.line(f"const int {following} = {rest} / {extent};")
            rest = following
