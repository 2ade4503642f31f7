"""Points in the order of their rows, for CPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from backends.codegen.device_model import DeviceModel
from backends.codegen.emitter import Emitter
from backends.codegen.family import Family
from backends.codegen.scatter.sums import order_of, taken
from backends.codegen.scatter.work import sort_amounts, sort_work
from backends.codegen.template import function
from graphcore.base.dtypes import int32
from graphcore.base.shapes import Extent, bind
from graphcore.kernel.ir import Kernel, Param
from graphcore.kernel.whole_forms import Sort, WholeForm
from graphcore.plan.backend import Piece
from graphcore.plan.costs import Work
from graphcore.plan.target import Reject

__all__ = ["ScatterSort"]

_FEWEST = 8  # indices that are worth sorting
_COMPARED = 4  # operations for one result and one index


@dataclass(frozen=True)
class SortConfig:
    """Where the rows of the points are kept among the parameters."""

    keys: int

    def describe(self) -> str:
        return "rows counted"


class ScatterSort(Family):
    """One task's stable counting sort of the points by row: a pass over the rows and two over the points."""

    name = "scatter-sort"
    choices = SortConfig
    flattens = False  # it walks the points, and then the rows
    takes: ClassVar[tuple[type[WholeForm], ...]] = (Sort,)

    def serves(self, model: DeviceModel) -> bool:
        return model.is_cpu

    def candidates(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[SortConfig] | Reject:
        found = order_of(kernel)
        return found if isinstance(found, Reject) else [SortConfig(len(kernel.params))]

    def pieces(
        self, kernel: Kernel, config: SortConfig, model: DeviceModel, hints: Mapping[str, int]
    ) -> Sequence[Piece]:
        """The kernel with memory for the rows of its points, which may take long to compute."""
        shape = (taken(order_of(kernel)).point.extent,)
        keys = Param(f"p{config.keys}", int32, shape)
        made = replace(kernel, params=(*kernel.params, keys), scratch=((config.keys, "rw"),))
        return [Piece(made, self.name, config, tuple(range(len(made.params))), ((0, shape, int32),))]

    def orders(
        self, kernel: Kernel, config: SortConfig, model: DeviceModel, results: int, sizes: Mapping[str, int]
    ) -> bool:
        found = taken(order_of(kernel))
        rows, points = (int(bind(e, sizes)) for e in (found.rows, found.point.extent))
        compared = model.costs.elementwise_seconds(results * points * _COMPARED)
        return points >= _FEWEST and compared > model.costs.seconds(sort_amounts(rows, points), 1, 0.0)

    def emit(self, kernel: Kernel, config: SortConfig, model: DeviceModel) -> str:
        em, found = Emitter(kernel, model), taken(order_of(kernel))
        keys, starts, order = (f"p{number}" for number in (config.keys, found.starts, found.order))
        rows = em.extent(found.rows)
        em.line("if (task != 0) return;")
        em.line(f"for (int v = 0; v <= {rows}; ++v) {starts}[v] = 0;")
        with em.loop(found.point, "n"):
            em.line(f"const int key = {em.value(found.row)};")
            em.line(f"{keys}[n] = key;")
            em.line(f"if (key < {rows}) ++{starts}[key + 1];")
        # Every count becomes its row's start, and moves on to its end as the row is filled: that is the next one's
        # start. Points of no row come last.
        em.line("int total = 0;")
        em.line(
            f"for (int v = 1; v <= {rows}; ++v) {{ const int count = {starts}[v]; {starts}[v] = total; total += "
            f"count; }}"
        )
        with em.loop(found.point, "n"):
            em.line(f"const int key = {keys}[n];")
            em.line(f"{order}[key < {rows} ? {starts}[key + 1]++ : total++] = n;")
        return function(model.language, kernel, em.lines)

    def tasks(self, kernel: Kernel, config: SortConfig, model: DeviceModel) -> Extent:
        return 1

    def work(self, kernel: Kernel, config: SortConfig) -> Work:
        return sort_work(kernel, taken(order_of(kernel)))
