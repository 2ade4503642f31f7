"""Sums over the points of a row, which another kernel has put in order.

The kernel is a loop nest with everything that is fused to it; only the loops of such sums walk a row's places in the
order, where the kernel says that all others add nothing. Every sum adds its terms up in their order, so that it has the
bits of the sum over all points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from backends.codegen.accumulator import Accumulator
from backends.codegen.device_model import DeviceModel
from backends.codegen.emitter import Emitter
from backends.codegen.family import Family
from backends.codegen.nest.code import NestCode
from backends.codegen.nest.schedule import (
    NestConfig,
    blocks,
    choose_nest,
    nest_units,
    tail_widths,
)
from backends.codegen.scatter.sums import bucket_sums_of, taken
from backends.codegen.scatter.work import bucket_work
from backends.codegen.sharing import at_most
from backends.codegen.template import function
from graphcore.base.shapes import Extent, bind, dim_min
from graphcore.kernel.buckets import BucketSum
from graphcore.kernel.expr import (
    Expr,
    children,
    reduce,
    transform,
    walk,
)
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel, Store
from graphcore.plan.backend import Piece
from graphcore.plan.costs import Work
from graphcore.plan.target import Reject

__all__ = ["Scatter"]

_GROUPS_PER_CORE = 32  # of a GPU, as for the loop nest
_TASKS_PER_CORE = 8  # of a CPU: buckets differ in length


@dataclass(frozen=True)
class ScatterConfig:
    """The loop nest's layout."""

    nest: NestConfig

    def describe(self) -> str:
        return f"{self.nest.describe()}, sorted indices"


class Scatter(Family):
    """The rows' sums after the steps that sort their terms."""

    name = "scatter"
    choices = ScatterConfig
    wide = True

    def candidates(
        self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]
    ) -> Sequence[ScatterConfig] | Reject:
        sums = bucket_sums_of(kernel)
        if isinstance(sums, Reject):
            return sums
        return [ScatterConfig(replace(_lanes(kernel, sums, model), strided=model.is_gpu))]

    def pieces(
        self, kernel: Kernel, config: ScatterConfig, model: DeviceModel, hints: Mapping[str, int]
    ) -> Sequence[Piece]:
        flops, nbytes = _counted(kernel, taken(bucket_sums_of(kernel)), hints)
        params = tuple(range(len(kernel.params)))
        return [
            Piece(kernel, self.name, config, params, flops=flops, nbytes=nbytes, elementwise_order=True),
        ]

    def emit(self, kernel: Kernel, config: ScatterConfig, model: DeviceModel) -> str:
        return function(model.language, kernel, _Rows(_Buckets(kernel, model), config.nest).emit())

    def tasks(self, kernel: Kernel, config: ScatterConfig, model: DeviceModel) -> Extent:
        units = nest_units(kernel, config.nest)
        if config.nest.strided:  # work-groups, not work items
            return at_most(blocks(units, model.group), _GROUPS_PER_CORE * model.cores)
        worth = model.costs.tasks_worth_starting(self.work(kernel, config))
        return at_most(dim_min(units, _TASKS_PER_CORE * model.cores), worth)

    def work(self, kernel: Kernel, config: ScatterConfig) -> Work:
        return bucket_work(kernel, config.nest, taken(bucket_sums_of(kernel)))


def _lanes(kernel: Kernel, sums: Sequence[BucketSum], model: DeviceModel) -> NestConfig:
    """The loop nest's choice, except that all lanes must be of one row."""
    placed = set().union(*(s.position.axes() for s in sums))
    walked = {s.total: reduce("add", (s.axis,), s.term) for s in sums}
    stores = tuple(
        Store(s.param, s.index, transform(s.value, lambda node, _: walked.get(node)), s.mode) for s in kernel.stores
    )
    return replace(
        choose_nest(replace(kernel, axes=tuple(a for a in kernel.axes if a not in placed), stores=stores), model),
        tiled=None,
    )


def _counted(kernel: Kernel, sums: Sequence[BucketSum], sizes: Mapping[str, int]) -> tuple[float, float]:
    """Operations and bytes of the main step: every term once, everything else as the kernel says."""
    of_axis = {s.axis: s for s in sums}
    extents = {a: float(bind(a.extent, sizes)) for a in kernel.axes}

    def count(axes: frozenset[Axis]) -> float:
        total = 1.0
        for s in (of_axis[a] for a in axes & of_axis.keys()):
            total *= float(bind(s.axis.extent, sizes))
            axes = axes - s.position.axes()  # a point belongs to one row
        for a in axes:
            total *= extents.get(a, 1.0)
        return total

    walked = {s.total: reduce("add", (s.axis,), s.term) for s in sums}
    flops = 0.0
    touched: dict[int, float] = {}
    for value in walk(*(transform(s.value, lambda node, _: walked.get(node)) for s in kernel.stores)):
        if value.fn == "load":
            touched[value.param] = touched.get(value.param, 0.0) + count(value.axes)
        elif value.fn == "reduce":
            flops += count(value.axes | frozenset(value.reduce_axes))
        elif value.fn not in ("const", "index", "size", "in_range", "cast"):
            flops += count(value.axes)
    nbytes = sum(
        min(n, float(bind(kernel.params[p].size, sizes))) * kernel.params[p].dtype.itemsize for p, n in touched.items()
    )
    nbytes += sum(count(s.index.axes()) * kernel.params[s.param].dtype.itemsize for s in kernel.stores)
    nbytes += sum(4.0 * float(bind(kernel.params[p].size, sizes)) for p in {s.starts for s in sums})
    return flops, nbytes


# Code


class _Buckets(Emitter):
    """Writes the loops of bucket sums over the points of one row."""

    def __init__(self, kernel: Kernel, model: DeviceModel) -> None:
        super().__init__(kernel, model)
        self.sums = {s.total: s for s in taken(bucket_sums_of(kernel))}
        for s in self.sums.values():
            self.keep_guarded(s)

    def keep_guarded(self, s: BucketSum) -> None:
        """What was guarded is read for the points of a row only, also where it is the same for all of them."""
        free = set(walk(s.total.args[0]))
        for value in walk(s.term):
            if s.axis not in value.axes and (
                (value.fn == "load" and value not in free) or any(c in self.pinned for c in children(value))
            ):
                self.keep_inside(value, (s.axis,))

    def _nest(self, axes: list[Axis], accumulator: Accumulator, e: Expr) -> None:
        s = self.sums.get(e)
        if s is None:
            super()._nest(axes, accumulator, e)
            return
        low, high, at = self.value(s.low), self.value(s.high), self.fresh("q")
        header = self.language.in_order if accumulator.width == 1 else ""
        with self.block(f"{header}for (int {at} = {low}; {at} < {high}; ++{at})", (s.axis,)):
            self.name_axis(s.axis, at)
            # Never one operation with a product: the loop nest adds what a guard has selected.
            added = accumulator.merged(accumulator.name, self.vector(s.term, accumulator.width), accumulator.width)
            self.line(f"{accumulator.name} = {added};")


class _Rows(NestCode):
    """The loop nest, on CPUs with the lanes' loop inside of the rows': a row looks its bucket up once."""

    def __init__(self, emitter: Emitter, config: NestConfig) -> None:
        super().__init__(emitter, config)
        self.inner = None if config.strided else config.lane
        self.rows = tuple(a for a in self.rows if a != self.inner)

    def phases(self) -> None:
        em, axis, width = self.em, self.inner, self.config.width
        if axis is None:
            super().phases()
            return
        extent, name = axis.extent, em.fresh(axis.name + "_")
        full = str(extent // width * width) if isinstance(extent, int) else f"{em.extent(extent)} / {width} * {width}"
        with (
            em.block(f"for (int {name} = 0; {name} < {full}; {name} += {width})", (axis,)),
            em.lanes(axis, name, width),
        ):
            super().phases()
        if not isinstance(extent, int):
            with (
                em.block(f"for (int {name} = {full}; {name} < {em.extent(extent)}; ++{name})", (axis,)),
                em.lanes(axis, name, 1),
            ):
                super().phases()
            return
        start = extent // width * width
        for piece in tail_widths(extent % width):
            with em.block("", (axis,)), em.lanes(axis, str(start), piece):
                super().phases()
            start += piece
