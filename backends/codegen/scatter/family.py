"""Sums over what indices name, without looking at every index for every row: scatter-add, the gradient of ``take``.

Such a kernel says ``out[v, e] = sum over n of (g[n, e] if index[n] names v else 0)``. Done as said it takes rows x N
steps. Here the positions are sorted by row first, equal ones in their order, and a row then adds up its own terms only.
It leaves out nothing but zeros, so the results are the same to the bit; nothing is added by atomics.

The kernel itself stays a loop nest with everything that is fused to it; only the loops of such sums walk buckets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backends.codegen.accumulator import Accumulator
from backends.codegen.device_model import DeviceModel
from backends.codegen.emitter import Emitter
from backends.codegen.family import Family
from backends.codegen.nest.code import NestCode
from backends.codegen.nest.family import Nest
from backends.codegen.nest.schedule import (
    NestConfig,
    blocks,
    choose_nest,
    nest_units,
    tail_widths,
)
from backends.codegen.scatter.sums import BucketSum, find_sums, point_axis
from backends.codegen.scatter.work import bucket_work, sort_amounts, sort_work
from backends.codegen.sharing import at_most
from backends.codegen.template import function
from graphcore.base.dtypes import int32
from graphcore.base.shapes import Extent, bind, dim_min, product
from graphcore.kernel.expr import (
    Expr,
    call,
    cast,
    children,
    index_value,
    load,
    reduce,
    transform,
    walk,
)
from graphcore.kernel.index import PARALLEL, REDUCE, Axis, Dynamic, as_index
from graphcore.kernel.ir import Kernel, KernelKind, Param, Store
from graphcore.kernel.rows import columns_of
from graphcore.plan.backend import Piece
from graphcore.plan.costs import Work
from graphcore.plan.target import Reject

__all__ = ["Scatter", "ScatterSort"]

_FEWEST = 8  # indices that are worth sorting
_COMPARED = 4  # operations for one result and one index
_FEWEST_PAIRS = 4096  # rows times indices that are worth sorting on GPUs, where a sort is three kernels
_GROUPS_PER_CORE = 32  # of a GPU, as for the loop nest
_TASKS_PER_CORE = 8  # of a CPU: buckets differ in length
_WORKSPACES = ("keys", "starts", "order")


@dataclass(frozen=True)
class ScatterConfig:
    """The loop nest's layout, and the number of the first sum's starts among the parameters."""

    nest: NestConfig
    starts: int

    def describe(self) -> str:
        return f"{self.nest.describe()}, sorted indices"


@dataclass(frozen=True)
class SortConfig:
    """How many rows the points are sorted into."""

    rows: Extent

    def describe(self) -> str:
        return f"{self.rows} rows"


# Schedules


class Scatter(Family):
    """The rows' sums after the steps that sort their terms."""

    name = "scatter"
    wide = True

    def candidates(
        self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]
    ) -> Sequence[ScatterConfig] | Reject:
        sums = find_sums(kernel)
        if isinstance(sums, Reject):
            return sums
        reason = _reason(kernel, sums, model, hints)
        if reason is not None:
            return Reject(reason)
        return [ScatterConfig(replace(_lanes(kernel, sums, model), strided=model.is_gpu), len(kernel.params))]

    def pieces(
        self, kernel: Kernel, config: ScatterConfig, model: DeviceModel, hints: Mapping[str, int]
    ) -> Sequence[Piece]:
        sums = _sums(kernel)
        pieces: list[Piece] = []
        for one in {s.slot: s for s in sums}.values():
            pieces += _parallel_sort(kernel, one, model, hints) if model.is_gpu else [_sort(kernel, one, hints)]
        return [*pieces, self._main(kernel, sums, config, hints)]

    def _main(
        self, kernel: Kernel, sums: Sequence[BucketSum], config: ScatterConfig, hints: Mapping[str, int]
    ) -> Piece:
        """The kernel with the sorted orders as more parameters."""
        first = config.starts
        named = tuple(w for s in {s.slot: s for s in sums}.values() for w in _workspaces(s)[1:])
        extra = tuple(Param(f"p{first + i}", dtype, shape) for i, (_, shape, dtype) in enumerate(named))
        scratch = tuple((first + i, "r") for i in range(len(named)))
        params = (*range(first), *(first + number for number, _, _ in named))
        flops, nbytes = _work(kernel, sums, hints)
        return Piece(
            replace(kernel, params=(*kernel.params, *extra), scratch=scratch),
            self.name,
            config,
            params,
            named,
            flops=flops,
            nbytes=nbytes,
            elementwise_order=True,
        )

    def emit(self, kernel: Kernel, config: ScatterConfig, model: DeviceModel) -> str:
        lines = _Rows(_Buckets(kernel, model, config.starts), config.nest).emit()
        return function(model.language, kernel, lines)

    def tasks(self, kernel: Kernel, config: ScatterConfig, model: DeviceModel) -> Extent:
        units = nest_units(kernel, config.nest)
        if config.nest.strided:  # work-groups, not work items
            return at_most(blocks(units, model.group), _GROUPS_PER_CORE * model.cores)
        worth = model.costs.tasks_worth_starting(self.work(kernel, config))
        return at_most(dim_min(units, _TASKS_PER_CORE * model.cores), worth)

    def work(self, kernel: Kernel, config: ScatterConfig) -> Work:
        return bucket_work(kernel, config.nest, _sums(kernel))


class ScatterSort(Family):
    """One task's stable counting sort of the points by row, for CPUs: a pass over the rows and two over the points."""

    name = "scatter-sort"
    flattens = False  # it walks the points, and then the rows

    def candidates(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[SortConfig] | Reject:
        return Reject("it is a part of the family scatter")

    def emit(self, kernel: Kernel, config: SortConfig, model: DeviceModel) -> str:
        em = Emitter(kernel, model)
        keys, starts, order = (f"p{len(kernel.params) - 3 + i}" for i in range(3))
        store, axis, rows = kernel.stores[0], kernel.axes[0], em.extent(config.rows)
        em.line("if (task != 0) return;")
        em.line(f"for (int v = 0; v <= {rows}; ++v) {starts}[v] = 0;")
        with em.loop(axis, "n"):
            em.line(f"const int key = {em.value(store.value)};")
            em.line(f"{keys}[n] = key;")
            em.line(f"if (key < {rows}) ++{starts}[key + 1];")
        # Every count becomes its row's start, and moves on to its end as the row is filled: that is the next one's
        # start.
        em.line("int total = 0;")
        em.line(
            f"for (int v = 1; v <= {rows}; ++v) {{ const int count = {starts}[v]; {starts}[v] = total; total += "
            f"count; }}"
        )
        with em.loop(axis, "n"):
            em.line(f"const int key = {keys}[n];")
            em.line(f"if (key < {rows}) {order}[{starts}[key + 1]++] = n;")
        return function(model.language, kernel, em.lines)

    def tasks(self, kernel: Kernel, config: SortConfig, model: DeviceModel) -> Extent:
        return 1

    def work(self, kernel: Kernel, config: SortConfig) -> Work:
        return sort_work(kernel, config.rows)


def _sums(kernel: Kernel) -> tuple[BucketSum, ...]:
    found = find_sums(kernel)
    assert not isinstance(found, Reject)
    return found


def _reason(kernel: Kernel, sums: Sequence[BucketSum], model: DeviceModel, hints: Mapping[str, int]) -> str | None:
    """Why the loop nest is as good."""
    gpu, results = model.is_gpu, int(bind(product(a.extent for a in kernel.axes), hints))
    if columns_of(kernel):
        return "it reduces over its results too"
    for s in sums:
        rows, points = int(bind(s.rows, hints)), int(bind(s.axis.extent, hints))
        if rows < 2 or points < _FEWEST or not _worth_sorting(rows, points, results, model):
            return f"{points} indices into {rows} rows are too few to be worth sorting"
        if gpu and points > results:
            return "it has more indices than results"  # which the parallel sort compares with each other
    return None


def _worth_sorting(rows: int, points: int, results: int, model: DeviceModel) -> bool:
    """Whether comparing every result's row with every index takes longer than kernels of their own that sort them."""
    if model.is_gpu:
        return rows * points >= _FEWEST_PAIRS
    compared = model.costs.elementwise_seconds(results * points * _COMPARED)
    return compared > model.costs.seconds(sort_amounts(rows, points), 1, 0.0)


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


def _workspaces(s: BucketSum) -> list[tuple[int, Any, Any]]:
    """The row of every point; where every row's points start in the sorted order; the sorted order."""
    first = len(_WORKSPACES) * s.slot
    return [(first, (s.axis.extent,), int32), (first + 1, (s.rows + 1,), int32), (first + 2, (s.axis.extent,), int32)]


@dataclass(frozen=True)
class _Helpers:
    """Makes the steps that sort: kernels over some of the parameters of the main one, and over workspaces."""

    kernel: Kernel
    one: BucketSum

    def piece(
        self,
        name: str,
        axes: tuple[Axis, ...],
        params: Sequence[int],
        uses: Mapping[str, str],
        stores: Sequence[Store],
        work: tuple[float, float],
    ) -> Piece:
        """A step to be given a family; ``uses`` says which workspaces follow its parameters, and how."""
        kernel, known = self.kernel, _workspaces(self.one)
        spaces = [known[_WORKSPACES.index(w)] for w in uses]
        types = [
            *((kernel.params[p].dtype, kernel.params[p].shape) for p in params),
            *((dtype, shape) for _, shape, dtype in spaces),
        ]
        made = Kernel(
            f"{kernel.name}_{name}",
            tuple(Param(f"p{i}", dtype, shape) for i, (dtype, shape) in enumerate(types)),
            axes,
            tuple(stores),
            KernelKind.SCATTER,
            kernel.origins,
            scratch=tuple((len(params) + i, use) for i, use in enumerate(uses.values())),
        )
        mapped = (*params, *(len(kernel.params) + number for number, _, _ in spaces))
        return Piece(made, "", None, mapped, tuple(spaces), True, *work)

    def keys(self) -> tuple[list[int], Expr]:
        """The parameters that the rows of the points are read from, and the rows in terms of these alone."""
        params = sorted({v.param for v in walk(self.one.key) if v.fn == "load"})

        def moved(node: Expr, args: tuple[Expr, ...]) -> Expr | None:
            return load(params.index(node.param), node.index, node.dtype, *args) if node.fn == "load" else None

        return params, transform(self.one.key, moved)


def _sort(kernel: Kernel, one: BucketSum, hints: Mapping[str, int]) -> Piece:
    """The sort on a CPU: one step."""
    helpers, axis = _Helpers(kernel, one), point_axis(one.axis)
    params, key = helpers.keys()
    rows, points, width = _counts(kernel, one, params, hints)
    # Where no points are, the step must run as well: the starts are among its stores.
    row, other = Axis("i1", one.rows + 1, PARALLEL), Axis("r0", one.axis.extent, REDUCE)
    stores = [
        Store(len(params), as_index(axis), key),
        Store(len(params) + 1, as_index(row), _below(key.substitute({axis: as_index(other)}), other, row)),
    ]
    uses = {"keys": "rw", "starts": "rw", "order": "w"}
    piece = helpers.piece(
        "sort", (axis, row), params, uses, stores, (rows + 4 * points, points * (width + 12) + 12 * rows)
    )
    return replace(piece, family=ScatterSort.name, choices=SortConfig(one.rows))


def _parallel_sort(kernel: Kernel, one: BucketSum, model: DeviceModel, hints: Mapping[str, int]) -> list[Piece]:
    """The sort on a GPU: every point counts those before it, and every row those of the rows before. A serial sort
    would take longer."""
    helpers, axis, other = _Helpers(kernel, one), point_axis(one.axis), Axis("r0", one.axis.extent, REDUCE)
    row = Axis("i0", one.rows + 1, PARALLEL)
    params, key = helpers.keys()
    rows, points, width = _counts(kernel, one, params, hints)
    at, mine, theirs = as_index(axis), load(0, as_index(axis), int32), load(0, as_index(other), int32)
    tie = call("and", call("eq", theirs, mine), call("lt", index_value(as_index(other), int32), index_value(at, int32)))
    rank = reduce("add", (other,), cast(call("or", call("lt", theirs, mine), tie), int32))
    found = [
        helpers.piece(
            "keys", (axis,), params, {"keys": "w"}, [Store(len(params), at, key)], (4 * points, points * (width + 4))
        ),
        helpers.piece(
            "starts",
            (row,),
            (),
            {"keys": "r", "starts": "w"},
            [Store(1, as_index(row), _below(theirs, other, row))],
            (2 * rows * points, 4 * (rows + points)),
        ),
        helpers.piece(
            "order",
            (axis,),
            (),
            {"keys": "r", "order": "w"},
            [Store(1, as_index(Dynamic(rank, one.axis.extent)), index_value(at, int32))],
            (5 * points * points, 8 * points),
        ),
    ]
    return [
        replace(nest, params=p.params, workspace=p.workspace, helper=True, flops=p.flops, nbytes=p.nbytes)
        for p in found
        for nest in Nest().schedule(p.kernel, model, hints)
    ]


def _below(key: Expr, axis: Axis, row: Axis) -> Expr:
    """How many points belong to the rows before a row."""
    return reduce("add", (axis,), cast(call("lt", key, index_value(as_index(row), int32)), int32))


def _counts(
    kernel: Kernel, one: BucketSum, params: Sequence[int], hints: Mapping[str, int]
) -> tuple[float, float, float]:
    """Rows, points, and the bytes that the row of one point is read from."""
    return (
        float(bind(one.rows, hints)),
        float(bind(one.axis.extent, hints)),
        float(sum(kernel.params[p].dtype.itemsize for p in params)),
    )


def _work(kernel: Kernel, sums: Sequence[BucketSum], sizes: Mapping[str, int]) -> tuple[float, float]:
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
    for s in sums:
        nbytes += 4.0 * (float(bind(s.axis.extent, sizes)) + float(bind(s.rows, sizes)))
    return flops, nbytes


# Code


class _Buckets(Emitter):
    """Writes the loops of bucket sums over the points of one row."""

    def __init__(self, kernel: Kernel, model: DeviceModel, starts: int) -> None:
        super().__init__(kernel, model)
        self.starts = starts
        self.sums = {s.total: s for s in _sums(kernel)}
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
        begin, end = self.bounds(s)
        at, point = self.fresh("q"), self.fresh(s.axis.name + "_")
        header = self.language.in_order if accumulator.width == 1 else ""
        with self.block(f"{header}for (int {at} = {begin}; {at} < {end}; ++{at})", (s.axis,)):
            self.line(f"const {self.counter} {point} = p{self.starts + 2 * s.slot + 1}[{at}];")
            self.name_axis(s.axis, point)
            # Never one operation with a product: the loop nest adds what a guard has selected.
            added = accumulator.merged(accumulator.name, self.vector(s.term, accumulator.width), accumulator.width)
            self.line(f"{accumulator.name} = {added};")

    def bounds(self, s: BucketSum) -> tuple[str, str]:
        """The names of a row's first place in the sorted order and of the one after its last."""
        scope = self.place(s.position.axes())
        key = ("bucket", s.position, s.slot)
        if key not in scope.names:
            row, name, starts = self.fresh("row"), self.fresh("b"), f"p{self.starts + 2 * s.slot}"
            scope.line(f"const int {row} = {self.index(s.position)};")
            scope.line(f"const int {name} = {starts}[{row}], {name}e = {starts}[{row} + 1];")
            scope.define(key, name)
        return scope.names[key], f"{scope.names[key]}e"


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
