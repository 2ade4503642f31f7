"""Long reductions in steps: partial results for blocks of the summed axis, into a workspace, then their combination.

It is a change of the kernel, not a schedule: the first kernel has one more parallel axis, the second reduces over that,
and a third computes what the kernel stores for every element. They are scheduled like any other. Few results of long
sums (losses, bias and weight gradients) then still use the whole device: all groups of a GPU, all cores of a CPU. The
order of all sums is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backends.codegen.device_model import DeviceModel
from backends.codegen.gpu_product.family import TileConfig, find_contraction
from backends.codegen.gpu_rows.family import RowsConfig, contiguous, row_reductions
from backends.codegen.nest.schedule import NestConfig, columns_of, nest_units, rows_of
from backends.codegen.nest.work import nest_work
from backends.codegen.scalars import identity
from backends.codegen.template import Scheduler
from graphcore.base.shapes import Dim, bind, product
from graphcore.kernel.expr import (
    INDEXED,
    Expr,
    both,
    call,
    const,
    dynamic_values,
    in_range,
    load,
    reduce,
    select,
    transform,
    walk,
)
from graphcore.kernel.forms import Contraction, find_product, renumbered
from graphcore.kernel.index import PARALLEL, REDUCE, Axis, Index, as_index, flatten
from graphcore.kernel.ir import Kernel, Param, Store
from graphcore.plan.backend import Piece
from graphcore.plan.target import Reject

__all__ = ["Split", "layout_of", "split_reductions", "with_values", "without_unused"]

_BLOCK = 256  # elements of a partial sum at least, where work items share it
_ALONE = 32  # and where one work item sums them up alone
_MOST = 256  # partial sums of one result at most
_MANY_RESULTS = 1024
_LEVEL_WORTH = 1.5  # what another level saves on CPUs must be so many times what it costs
_APART = 8  # how many times longer a turn takes where neighbouring elements are not neighbours in memory
_ITEMS_PER_CORE = 512  # work items that keep a multiprocessor busy


@dataclass(frozen=True)
class _Cut:
    """How an axis is cut into blocks: the block's axis, the axis inside of it, and the old axis in terms of both."""

    axis: Axis
    block: Axis
    inside: Axis
    index: Index
    guard: Expr | None


class Split:
    """Schedules the kernels that it makes with the templates it was given."""

    name = "split"

    def __init__(self, templates: Sequence[Scheduler]) -> None:
        self.templates = templates

    def schedule(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[Piece] | Reject:
        reductions = row_reductions(kernel)
        reason = _reason(kernel, reductions)
        if reason is not None:
            return Reject(reason)
        parts = (self._gpu_parts if model.is_gpu else self._cpu_parts)(kernel, reductions, model, hints)
        if parts < 2:
            return Reject("its sums are short, or many enough")
        kernels, workspaces = split_reductions(kernel, reductions, parts, hints)
        numbered = tuple((i, shape, dtype) for i, (shape, dtype) in enumerate(workspaces))
        pieces = []
        for i, made in enumerate(kernels):
            used, small = without_unused(made)
            (piece,) = self._scheduled(small, model, hints)
            mine = tuple(w for w in numbered if len(kernel.params) + w[0] in used)
            pieces.append(replace(piece, params=used, workspace=mine, helper=i < len(kernels) - 1))
        return pieces

    def _scheduled(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[Piece]:
        answers = (t.schedule(kernel, model, hints) for t in self.templates)
        return next(a for a in answers if not isinstance(a, Reject))

    def _cpu_parts(
        self, kernel: Kernel, reductions: Sequence[Expr], model: DeviceModel, hints: Mapping[str, int]
    ) -> int:
        """Enough for all cores, each worth a task and all together another level."""
        pieces = self._scheduled(kernel, model, hints)
        config = pieces[0].choices
        if not isinstance(config, NestConfig):
            return 1
        units, costs = int(bind(nest_units(kernel, config), hints)), model.costs
        seconds = costs.seconds(nest_work(kernel, config).bound(hints), 1, 0.0)
        saved = seconds * (1 - 1 / model.cores)
        if units >= 2 * model.cores or saved < _LEVEL_WORTH * (costs.launch_seconds + costs.level_seconds):
            return 1
        return min(
            4 * model.cores // max(units, 1),
            costs.tasks_worth(seconds),
            _number(reductions[0].reduce_axes, hints) // _BLOCK,
            _MOST,
        )

    def _gpu_parts(
        self, kernel: Kernel, reductions: Sequence[Expr], model: DeviceModel, hints: Mapping[str, int]
    ) -> int:
        """Into how many blocks to cut: as many as fill the device, each worth a start."""
        length, costs = _number(reductions[0].reduce_axes, hints), model.costs
        if length * (1 if contiguous(kernel, reductions) else _APART) * costs.turn_seconds < costs.launch_seconds:
            return 1
        config = self._scheduled(kernel, model, hints)[0].choices
        results = _number(rows_of(kernel), hints)
        if isinstance(config, TileConfig):
            found = find_contraction(kernel)
            assert not isinstance(found, Reject)
            (height, width) = config.tile
            groups = (
                _number(found.batch, hints)
                * -(-_number(found.rows, hints) // height)
                * -(-_number(found.cols, hints) // width)
            )
            wanted = 2 * model.cores // max(groups, 1)
        elif isinstance(config, RowsConfig) and contiguous(kernel, reductions):
            wanted = _ITEMS_PER_CORE * model.cores // max(results * config.lanes, 1)
        else:  # a work item a result
            return max(1, min(_ITEMS_PER_CORE * model.cores // max(results, 1), length // _ALONE, _MOST))
        return max(1, min(wanted, length // _BLOCK, _MOST))


def _number(axes: Sequence[Axis], hints: Mapping[str, int]) -> int:
    return int(bind(product(a.extent for a in axes), hints))


def _reason(kernel: Kernel, reductions: Sequence[Expr]) -> str | None:
    """Why a kernel is not cut in two."""
    if not reductions or len(reductions) != sum(v.fn == "reduce" for v in kernel.values()):
        return "it has no reductions, or others inside of them"
    axes = reductions[0].reduce_axes
    if any(r.reduce_axes != axes or r.combine.startswith("arg") or r.dtype.rounds for r in reductions):
        return "its reductions are over different axes, or not sums"
    if set(axes) & set(kernel.axes) and set(axes) != set(columns_of(kernel)):
        return "its reductions take a part of the columns"
    if any(v.fn == "reduce" for r in reductions for v in walk(r.args[0])):
        return "a reduction needs another one"
    if sum(isinstance(a.extent, Dim) for a in kernel.axes) > 1:
        return "several extents are symbolic"
    if any(True for v in kernel.values() if v.fn in INDEXED for _ in dynamic_values(v.index)):
        return "it gathers"
    if any(s.mode != "set" or any(True for _ in dynamic_values(s.index)) for s in kernel.stores):
        return "it scatters"
    return None


def split_reductions(
    kernel: Kernel, reductions: Sequence[Expr], parts: int, hints: Mapping[str, int]
) -> tuple[list[Kernel], list[tuple[Any, Any]]]:
    """The kernels of a split, and the workspaces' shapes and types; workspaces are parameters after the kernel's own.

    Args:
        kernel: has reductions over the same axes only.
        reductions: these.
        parts: blocks wanted; as many or fewer are made.
        hints: sizes that decide which axis is cut.
    """
    axes: tuple[Axis, ...] = reductions[0].reduce_axes
    rows, columns = rows_of(kernel), frozenset(columns_of(kernel))
    cut = _cut(_chosen(axes, parts, hints), parts)
    inside = tuple(cut.inside if a == cut.axis else a for a in axes)
    # Many results are combined by a work item each: then neighbouring results are neighbours. Few are by a group each.
    many = _number(rows, hints) >= _MANY_RESULTS
    shape, at = layout_of((cut.block, *rows) if many else (*rows, cut.block))
    over = [s for s in kernel.stores if (s.index.axes() | s.value.axes) & columns]
    # What needs no sum is stored on the way, so that nothing is read twice; blocks that stick out would need a guard.
    on_the_way = [s for s in over if cut.guard is None and not any(v in reductions for v in walk(s.value))]
    over = [s for s in over if s not in on_the_way]
    params = list(kernel.params)
    sums = [
        Store(s.param, s.index.substitute({cut.axis: cut.index}), s.value.substitute({cut.axis: cut.index}))
        for s in on_the_way
    ]
    combined: dict[Expr, Expr] = {}
    whole = Axis("part", cut.block.extent, REDUCE)
    for r in reductions:
        sums.append(Store(len(params), at, reduce(r.combine, inside, _cut_body(r, cut))))
        combined[r] = reduce(
            r.combine, (whole,), load(len(params), at.substitute({cut.block: as_index(whole)}), r.dtype)
        )
        params.append(Param(f"p{len(params)}", r.dtype, shape))
    results = [with_values(s, combined) for s in kernel.stores if s not in (*over, *on_the_way)]
    # What is stored for every element reads the combined results from memory.
    shape, at = layout_of(rows)
    known: dict[Expr, Expr] = {}
    for r in reductions:
        if any(v is r for s in over for v in walk(s.value)):
            results.append(Store(len(params), at, combined[r]))
            known[r] = load(len(params), at, r.dtype)
            params.append(Param(f"p{len(params)}", r.dtype, shape))
    kernels = [
        replace(
            kernel,
            name=f"{kernel.name}_parts",
            axes=(cut.block, *rows, *(a for a in inside if columns)),
            stores=tuple(sums),
        ),
        replace(kernel, name=f"{kernel.name}_sums" if over else kernel.name, axes=rows, stores=tuple(results)),
        replace(kernel, stores=tuple(with_values(s, known) for s in over)),
    ]
    made = [replace(k, params=tuple(params), form=find_product(k.axes, k.values())) for k in kernels if k.stores]
    return made, [(p.shape, p.dtype) for p in params[len(kernel.params) :]]


def layout_of(axes: Sequence[Axis]) -> tuple[tuple[Any, ...], Index]:
    """A workspace over axes, and the address of a point: a symbolic extent must lead."""
    order = sorted(axes, key=lambda a: isinstance(a.extent, int))
    shape = tuple(a.extent for a in order)
    return shape, flatten(tuple(map(as_index, order)), shape)


def with_values(store: Store, mapping: Mapping[Expr, Expr]) -> Store:
    """The store with some values replaced."""
    return replace(store, value=transform(store.value, lambda node, _: mapping.get(node)))


def _chosen(axes: Sequence[Axis], parts: int, hints: Mapping[str, int]) -> Axis:
    """The axis to cut: the outermost that is long enough, so that the blocks keep what is contiguous; else the
    longest."""
    long = [a for a in axes if _number([a], hints) >= parts]
    return long[0] if long else max(axes, key=lambda a: _number([a], hints))


def _cut(axis: Axis, parts: int) -> _Cut:
    """Blocks of neighbours where the extent is known; with a symbolic one block b takes the elements b, b + parts,
    ..."""
    extent = axis.extent
    if not isinstance(extent, int):
        block, inside = Axis("part", parts, PARALLEL), Axis(f"{axis.name}_in", (extent + (parts - 1)) // parts, REDUCE)
        index = as_index(inside) * parts + as_index(block)
        return _Cut(axis, block, inside, index, in_range(index, 0, extent))
    parts = min(parts, extent)
    even = next((p for p in range(parts, parts // 2, -1) if extent % p == 0), None)
    count = even or parts
    size = -(-extent // count)
    count = -(-extent // size)
    block, inside = Axis("part", count, PARALLEL), Axis(f"{axis.name}_in", size, REDUCE)
    index = as_index(block) * size + as_index(inside)
    return _Cut(axis, block, inside, index, None if size * count == extent else in_range(index, 0, extent))


def _cut_body(r: Expr, cut: _Cut) -> Expr:
    """A reduction's body over the new axes: nothing is loaded, and nothing added, outside of the old axis."""
    body = r.args[0].substitute({cut.axis: cut.index})
    guard = cut.guard
    if guard is None:
        return body
    new = {cut.block, cut.inside}

    def guarded(node: Expr, args: tuple[Expr, ...]) -> Expr | None:
        if node.fn != "load" or not node.axes & new:
            return None
        return load(node.param, node.index, node.dtype, both(args[0], guard) if args else guard)

    body = transform(body, guarded)
    if r.combine == "add" and body.fn == "mul":  # keep the form of a product of two factors
        return call("mul", *(select(guard, f, const(0, f.dtype)) for f in body.args))
    return select(guard, body, const(identity(r.combine, r.args[0].dtype), r.args[0].dtype))


def without_unused(kernel: Kernel) -> tuple[tuple[int, ...], Kernel]:
    """The kernel with only the parameters that it touches, and their old positions."""
    used = tuple(sorted(kernel.read() | kernel.written()))
    position = {old: new for new, old in enumerate(used)}

    stores = tuple(Store(position[s.param], s.index, renumbered(s.value, position), s.mode) for s in kernel.stores)
    params = tuple(replace(kernel.params[old], name=f"p{new}") for new, old in enumerate(used))
    form = kernel.form if isinstance(kernel.form, Contraction) else None
    if form is not None:
        kept = form.loaded() <= position.keys() and form.result in kernel.values()
        form = form.renumbered(position) if kept else None
    return used, replace(kernel, params=params, stores=stores, form=form)
