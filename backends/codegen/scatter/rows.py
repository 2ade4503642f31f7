"""Sums over what indices name along an axis: scatter-add along it, the gradient of ``take_along_axis``.

Such a kernel says ``out[p, v] = sum over n of (g[p, n] if index[p, n] == v else 0)``. A task takes one p after the
other: it clears a row of its own, adds the terms up in their order, each to the place that its index names, and then
makes the results of that row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from backends.codegen.cnames import register_type
from backends.codegen.device_model import DeviceModel
from backends.codegen.emitter import Emitter
from backends.codegen.family import Family
from backends.codegen.nest.schedule import tail_widths
from backends.codegen.scatter.sums import sums_along, taken
from backends.codegen.scatter.work import row_work
from backends.codegen.sharing import at_most
from backends.codegen.template import function
from graphcore.base.shapes import Extent, bind, product
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Axis
from graphcore.kernel.indexed_sums import IndexedSum
from graphcore.kernel.ir import Kernel, Param
from graphcore.kernel.rows import columns_of
from graphcore.plan.backend import Piece
from graphcore.plan.costs import Work
from graphcore.plan.target import Reject

__all__ = ["ScatterRows"]

_TASKS_PER_CORE = 4
_COMPARED = 2  # instructions for one index and one place


@dataclass(frozen=True)
class RowsConfig:
    """Lanes of the vectors that results are made in, tasks at most, and where the tasks' rows are among the
    parameters."""

    width: int
    tasks: int
    first: int

    def describe(self) -> str:
        return f"a row a task, {self.width} lanes"


class ScatterRows(Family):
    """Sums of rows in memory, for CPUs: on a GPU a work item has no row of its own."""

    name = "scatter-rows"
    choices = RowsConfig

    def serves(self, model: DeviceModel) -> bool:
        return model.is_cpu

    def candidates(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[RowsConfig] | Reject:
        sums = sums_along(kernel)
        if isinstance(sums, Reject):
            return sums
        reason = _reason(kernel, sums, model, hints)
        if reason is not None:
            return Reject(reason)
        axis = _named_axis(sums)
        width = model.lanes(kernel)
        while width > int(bind(axis.extent, {})):
            width //= 2
        return [RowsConfig(width, _TASKS_PER_CORE * model.cores, len(kernel.params))]

    def pieces(
        self, kernel: Kernel, config: RowsConfig, model: DeviceModel, hints: Mapping[str, int]
    ) -> Sequence[Piece]:
        sums = taken(sums_along(kernel))
        axis = _named_axis(sums)
        shape = (config.tasks * axis.extent,)
        spaces = tuple((i, shape, s.total.dtype) for i, s in enumerate(sums))
        params = tuple(Param(f"p{config.first + i}", dtype, shape) for i, _, dtype in spaces)
        made = replace(
            kernel, params=(*kernel.params, *params), scratch=tuple((config.first + i, "rw") for i, _, _ in spaces)
        )
        return [Piece(made, self.name, config, tuple(range(len(made.params))), spaces)]

    def emit(self, kernel: Kernel, config: RowsConfig, model: DeviceModel) -> str:
        sums = taken(sums_along(kernel))
        em = Emitter(kernel, model)
        axis = _named_axis(sums)
        rows = [a for a in kernel.axes if a != axis]
        em.line(f"const int units = {' * '.join(em.extent(a.extent) for a in rows) or '1'};")
        em.line("const int begin = (int)((long)units * task / tasks), end = (int)((long)units * (task + 1) / tasks);")
        for i, s in enumerate(sums):
            row = em.language.pointer(register_type(s.total.dtype))
            em.line(f"{row} const row{i} = p{config.first + i} + (size_t)task * {axis.extent};")
        with em.block("for (int u = begin; u < end; ++u)", rows):
            rest = "u"
            for position, a in reversed(list(enumerate(rows))):
                code = em.fresh(f"{a.name}_")
                em.name_axis(a, code)
                em.line(f"const int {code} = {rest if position == 0 else f'({rest} % {em.extent(a.extent)})'};")
                rest = f"({rest} / {em.extent(a.extent)})"
            for i, s in enumerate(sums):
                em.line(f"for (int v = 0; v < {axis.extent}; ++v) row{i}[v] = 0;")
                with em.loop(s.axis):
                    key = em.value(s.row)
                    with em.block(f"if ({key} < {axis.extent})", (s.axis,)):
                        em.line(f"row{i}[{key}] += {em.value(s.term)};")
            self.results(em, config, axis, {s.total: f"row{i}" for i, s in enumerate(sums)})
        return function(model.language, kernel, em.lines)

    def results(self, em: Emitter, config: RowsConfig, axis: Axis, held: Mapping[Expr, str]) -> None:
        """Everything that is stored of one row, by vectors and what is left of them."""
        extent, width = int(bind(axis.extent, {})), config.width

        def piece(start: str, lanes: int) -> None:
            rows = {total: partial(em.language.load, row, start, total.dtype) for total, row in held.items()}
            with em.reading(rows), em.lanes(axis, start, lanes):
                em.store_all(em.kernel.stores)

        name = em.fresh(f"{axis.name}_")
        with em.block(f"for (int {name} = 0; {name} < {extent // width * width}; {name} += {width})", (axis,)):
            piece(name, width)
        at = extent // width * width
        for lanes in tail_widths(extent % width):
            with em.block("", (axis,)):
                piece(str(at), lanes)
            at += lanes

    def tasks(self, kernel: Kernel, config: RowsConfig, model: DeviceModel) -> Extent:
        sums = taken(sums_along(kernel))
        axis = _named_axis(sums)
        return at_most(product(a.extent for a in kernel.axes if a != axis), config.tasks)

    def work(self, kernel: Kernel, config: RowsConfig) -> Work:
        sums = taken(sums_along(kernel))
        return row_work(kernel, config.width, sums, _named_axis(sums))


def _named_axis(sums: Sequence[IndexedSum]) -> Axis:
    """The axis whose positions indices name."""
    (axis,) = sums[0].position.axes()
    return axis


def _reason(kernel: Kernel, sums: Sequence[IndexedSum], model: DeviceModel, hints: Mapping[str, int]) -> str | None:
    """Why the loop nest takes the kernel."""
    if columns_of(kernel) or len(sums) != sum(v.fn == "reduce" for v in kernel.values()):
        return "it has other reductions"
    places = {s.position for s in sums}
    if (
        len(places) != 1
        or any(c != 1 or not isinstance(a, Axis) for p in places for a, c in p.terms)
        or any(len(p.terms) != 1 or p.constant for p in places)
    ):
        return "its sums are not along one of its axes"
    axis = _named_axis(sums)
    if not isinstance(axis.extent, int) or axis not in kernel.axes:
        return "the axis that its indices name is symbolic"
    if any(axis in s.term.axes or s.total.dtype.rounds or s.total.dtype.is_bool for s in sums):
        return "its terms depend on the place that they are added to, or are rounded"
    if any(s.index.axes() != frozenset(kernel.axes) or s.mode != "set" for s in kernel.stores):
        return "it stores values smaller than a row"
    if not _worth_a_row(min(axis.extent * int(bind(s.axis.extent, hints)) for s in sums), model):
        return "its rows are short"
    return None


def _worth_a_row(compared: int, model: DeviceModel) -> bool:
    """Whether comparing each index with each place takes longer than a row in memory."""
    return _COMPARED * compared * model.costs.instruction_seconds > model.costs.task_seconds
