"""The loop-nest template: takes any kernel of the IR."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from backends.codegen.cnames import counter_type
from backends.codegen.device_model import DeviceModel
from backends.codegen.emitter import Emitter
from backends.codegen.family import Family
from backends.codegen.nest.code import NestCode
from backends.codegen.nest.schedule import NestConfig, blocks, choose_nest, nest_units, tail_widths
from backends.codegen.nest.work import nest_work
from backends.codegen.sharing import among_cores, among_items, at_most
from backends.codegen.template import function, sizes_of
from graphcore.base.shapes import Extent, bind, dim_min
from graphcore.kernel.ir import Kernel
from graphcore.kernel.rows import columns_of, rows_of
from graphcore.plan.backend import Piece
from graphcore.plan.costs import Work
from graphcore.plan.target import Sharing

__all__ = ["Nest"]

_GROUPS_PER_CORE = 32  # of a GPU: enough work-groups to hide latency, few enough that starting them costs nothing
_TASKS_PER_CORE = 4  # of a CPU: whoever is done early takes another


def _leading_is_free(kernel: Kernel) -> bool:
    """Whether the outermost axis is a row axis of fixed extent whose extent is written nowhere but in its own loop."""
    return bool(kernel.axes) and isinstance(kernel.axes[0].extent, int) and kernel.axes[0] in rows_of(kernel)


class Nest(Family):
    """Takes every kernel."""

    name = "nest"
    choices = NestConfig
    build_weight = 1.6
    wide = True

    def candidates(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[NestConfig]:
        """The best width of vectors, then smaller ones: of lanes along a summed axis each gives other bits."""
        best = replace(choose_nest(kernel, model), leading=_leading_is_free(kernel), strided=model.is_gpu)
        widths = [best.width >> i for i in range(1, best.width.bit_length() - 1)]
        narrower = [replace(best, width=w) for w in widths]
        return [best, *narrower, *([replace(best, lane=None, width=1, tiled=None)] if best.width > 1 else [])]

    def order_of_sums(self, kernel: Kernel, config: NestConfig) -> Hashable:
        """The lanes and the tiles along summed axes: other axes are walked by each sum alone."""
        columns = columns_of(kernel)
        lanes = (config.lane, config.width) if config.lane in columns else None
        return lanes, config.tiled if config.tiled in columns else None

    def schedule(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[Piece]:
        return self.pieces(kernel, self.candidates(kernel, model, hints)[0], model, hints)

    def pieces(self, kernel: Kernel, config: Any, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[Piece]:
        return [replace(p, elementwise_order=True) for p in super().pieces(kernel, config, model, hints)]

    def bodies(self, kernel: Kernel, config: NestConfig) -> float:
        """The loops over whole vectors, and what is left of the lanes' axis beside them."""
        if config.lane is None:
            return 1
        extent = config.lane.extent
        return 1 + (len(tail_widths(extent % config.width)) if isinstance(extent, int) else 1)

    def arguments(self, kernel: Kernel, config: NestConfig) -> list[Extent]:
        return [*sizes_of(kernel), *([kernel.axes[0].extent] if config.leading else [])]

    def emit(self, kernel: Kernel, config: NestConfig, model: DeviceModel) -> str:
        emitter = Emitter(kernel, model)
        lines = NestCode(emitter, config).emit()
        extra = [f"const {counter_type(kernel)} m0"] if config.leading else []
        return function(model.language, kernel, lines, extra)

    def tasks(self, kernel: Kernel, config: NestConfig, model: DeviceModel) -> Extent:
        """Enough for all cores, each worth starting."""
        units = nest_units(kernel, config)
        if config.strided:  # work-groups, not work items
            return at_most(blocks(units, model.group), _GROUPS_PER_CORE * model.cores)
        worth = model.costs.tasks_worth_starting(self.work(kernel, config))
        return at_most(dim_min(units, _TASKS_PER_CORE * model.cores), worth)

    def sharing(self, kernel: Kernel, config: NestConfig, model: DeviceModel, sizes: Mapping[str, int]) -> Sharing:
        if model.is_gpu:
            return among_items(kernel, model, sizes)
        seconds = model.costs.seconds(self.work(kernel, config).bound(sizes), 1, 0.0)
        return among_cores(int(bind(nest_units(kernel, config), sizes)), seconds, model)

    def work(self, kernel: Kernel, config: NestConfig) -> Work:
        return nest_work(kernel, config)
