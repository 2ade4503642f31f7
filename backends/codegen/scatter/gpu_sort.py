"""Points in the order of their rows, for GPUs: every point counts those before it, and every row the points of the rows
before. A serial sort would take longer.

A work item has one point or one row. Its group takes the rows of the points into local memory, a piece after the other,
and every work item compares its own with all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from backends.codegen.device_model import DeviceModel
from backends.codegen.emitter import Emitter
from backends.codegen.family import Family
from backends.codegen.language import Space
from backends.codegen.nest.schedule import blocks
from backends.codegen.scatter.sums import order_of, taken
from backends.codegen.scatter.work import ranking_work
from backends.codegen.sharing import at_most
from backends.codegen.template import function
from graphcore.base.shapes import Extent, bind
from graphcore.kernel.ir import Kernel
from graphcore.kernel.whole_forms import Sort, WholeForm
from graphcore.plan.costs import Work
from graphcore.plan.target import Reject

__all__ = ["GpuSort"]

_FEWEST = 8  # indices that are worth sorting
_FEWEST_PAIRS = 4096  # rows times indices that are worth a kernel more
_PIECE = 4  # points that a work item takes into local memory
_GROUPS_PER_CORE = 32


@dataclass(frozen=True)
class RankConfig:
    """Work items of a group, and the points that it compares with at a time."""

    group: int
    piece: int

    def describe(self) -> str:
        return f"{self.piece} points at a time, groups of {self.group}"


class GpuSort(Family):
    """Ranks by counting."""

    name = "gpu-sort"
    choices = RankConfig
    flattens = False  # it walks the points, and then the rows
    takes: ClassVar[tuple[type[WholeForm], ...]] = (Sort,)

    def serves(self, model: DeviceModel) -> bool:
        return model.is_gpu

    def candidates(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[RankConfig] | Reject:
        found = order_of(kernel)
        return found if isinstance(found, Reject) else [RankConfig(model.group, _PIECE * model.group)]

    def orders(
        self, kernel: Kernel, config: RankConfig, model: DeviceModel, results: int, sizes: Mapping[str, int]
    ) -> bool:
        found = taken(order_of(kernel))
        rows, points = (int(bind(e, sizes)) for e in (found.rows, found.point.extent))
        # With more indices than results comparing them with each other takes longer than with the results.
        return points >= _FEWEST and rows * points >= _FEWEST_PAIRS and points <= results

    def local_bytes(self, kernel: Kernel, config: RankConfig, model: DeviceModel) -> int:
        return 4 * config.piece

    def emit(self, kernel: Kernel, config: RankConfig, model: DeviceModel) -> str:
        em, found = Emitter(kernel, model), taken(order_of(kernel))
        points, rows, group = em.extent(found.point.extent), em.extent(found.rows), config.group
        keys = em.language.pointer("int", Space.LOCAL)
        em.line(f"{keys} const keys = ({keys})pool;")
        em.line(f"const int item = {em.language.local_id()}, points = {points}, units = points + {rows} + 1;")
        with em.block(f"for (int first = task * {group}; first < units; first += tasks * {group})"):
            em.line("const int unit = first + item, row = unit - points;")
            em.line("int mine = row, ties = 0, rank = 0;")  # of equal points those before it count, for a row none
            with em.block("if (row < 0)", (found.point,)):
                em.name_axis(found.point, "unit")
                em.line(f"mine = {em.value(found.row)};", "ties = unit;")
            with em.block(f"for (int start = 0; start < points; start += {config.piece})"):
                em.line(f"const int count = min({config.piece}, points - start);")
                with em.block(f"for (int i = item; i < count; i += {group})", (found.point,)):
                    em.name_axis(found.point, "(start + i)")
                    em.line(f"keys[i] = {em.value(found.row)};")
                em.line(em.language.barrier())
                with em.block("for (int i = 0; i < count; ++i)"):
                    em.line("const int other = keys[i];")
                    em.line("rank += (other < mine) | ((other == mine) & (start + i < ties));")
                em.line(em.language.barrier())  # the next piece uses the same memory
            em.line(f"if (row < 0) p{found.order}[rank] = unit;")
            em.line(f"else if (unit < units) p{found.starts}[row] = rank;")
        return function(model.language, kernel, em.lines, pool=True)

    def tasks(self, kernel: Kernel, config: RankConfig, model: DeviceModel) -> Extent:
        found = taken(order_of(kernel))
        return at_most(blocks(found.point.extent + found.rows + 1, config.group), _GROUPS_PER_CORE * model.cores)

    def work(self, kernel: Kernel, config: RankConfig) -> Work:
        return ranking_work(kernel, taken(order_of(kernel)))
