"""Long reductions on GPUs in two steps: partial results for blocks of the summed axis, into a workspace, then their combination.

It is a change of the kernel, not a schedule: the first kernel has one more parallel axis, the second reduces over that, and both are
scheduled like any other. Few results of long sums (losses, bias and weight gradients) then still use the whole device. The order of
all sums is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backends.base import Piece
from backends.opencl.emit import Dialect, identity
from backends.opencl.templates.base import Scheduler
from backends.opencl.templates.gpu_matmul import TileConfig, find_contraction
from backends.opencl.templates.gpu_rows import RowsConfig, contiguous, row_reductions
from graphcore.kernel.expr import Expr, both, call, const, dynamic_values, in_range, load, reduce, select, transform, walk
from graphcore.kernel.index import PARALLEL, REDUCE, Axis, Index, as_index, flatten
from graphcore.kernel.ir import Kernel, Param, Store
from graphcore.shapes import Dim, bind, product
from graphcore.target import Reject

__all__ = ["GpuSplit", "split_reductions"]

_LONGEST = 2048  # elements of a sum that one step walks without regret
_BLOCK = 256  # elements of a partial sum at least, where work items share it
_ALONE = 32  # and where one work item sums them up alone
_MOST = 256  # partial sums of one result at most
_MANY_RESULTS = 1024
_ITEMS_PER_CORE = 512  # work items that keep a multiprocessor busy


@dataclass(frozen=True)
class _Cut:
    """How an axis is cut into blocks: the block's axis, the axis inside of it, and the old axis in terms of both."""

    axis: Axis
    block: Axis
    inside: Axis
    index: Index
    guard: Expr | None


class GpuSplit:
    """Schedules the two kernels that it makes with the templates it was given."""

    name = "gpu-split"

    def __init__(self, templates: Sequence[Scheduler]) -> None:
        self.templates = templates

    def schedule(self, kernel: Kernel, dialect: Dialect, hints: Mapping[str, int]) -> Sequence[Piece] | Reject:
        if dialect.kind != "gpu":
            return Reject("it is made for GPUs")
        reductions = row_reductions(kernel)
        reason = _reason(kernel, reductions)
        if reason is not None:
            return Reject(reason)
        parts = self._parts(kernel, reductions, dialect, hints)
        if parts < 2:
            return Reject("its sums are short, or many enough")
        first, last, workspaces = split_reductions(kernel, reductions, parts, hints)
        used, first = _without_unused(first)
        (one,) = self._scheduled(first, dialect, hints)
        (two,) = self._scheduled(last, dialect, hints)
        numbered = tuple((i, shape, dtype) for i, (shape, dtype) in enumerate(workspaces))
        return [replace(one, params=used, workspace=numbered, helper=True), replace(two, params=tuple(range(len(last.params))), workspace=numbered)]

    def _scheduled(self, kernel: Kernel, dialect: Dialect, hints: Mapping[str, int]) -> Sequence[Piece]:
        answers = (t.schedule(kernel, dialect, hints) for t in self.templates)
        return next(a for a in answers if not isinstance(a, Reject))

    def _parts(self, kernel: Kernel, reductions: Sequence[Expr], dialect: Dialect, hints: Mapping[str, int]) -> int:
        """Into how many blocks to cut: as many as fill the device, each worth a start."""
        length = _number(reductions[0].data[1], hints)
        if length < (_LONGEST if contiguous(kernel, reductions) else _LONGEST // 8):
            return 1
        config = self._scheduled(kernel, dialect, hints)[0].config
        results = _number(kernel.axes, hints)
        if isinstance(config, TileConfig):
            found = find_contraction(kernel)
            assert not isinstance(found, Reject)
            (height, width) = config.tile
            groups = _number(found.batch, hints) * -(-_number(found.rows, hints) // height) * -(-_number(found.cols, hints) // width)
            wanted = 2 * dialect.cores // max(groups, 1)
        elif isinstance(config, RowsConfig) and contiguous(kernel, reductions):
            wanted = _ITEMS_PER_CORE * dialect.cores // max(results * config.lanes, 1)
        else:  # a work item a result
            return max(1, min(_ITEMS_PER_CORE * dialect.cores // max(results, 1), length // _ALONE, _MOST))
        return max(1, min(wanted, length // _BLOCK, _MOST))


def _number(axes: Sequence[Axis], hints: Mapping[str, int]) -> int:
    return int(bind(product(a.extent for a in axes), hints))  # type: ignore[arg-type]


def _reason(kernel: Kernel, reductions: Sequence[Expr]) -> str | None:
    """Why a kernel is not cut in two."""
    if not reductions or len(reductions) != sum(v.fn == "reduce" for v in kernel.values()):
        return "it has no reductions, or others inside of them"
    axes = reductions[0].data[1]
    if any(r.data[1] != axes or r.data[0].startswith("arg") or r.dtype.rounds for r in reductions):
        return "its reductions are over different axes, or not sums"
    if set(axes) & set(kernel.axes):
        return "its reductions bind the columns of its results"
    if any(v.fn == "reduce" for r in reductions for v in walk(r.args[0])):
        return "a reduction needs another one"
    if sum(isinstance(a.extent, Dim) for a in kernel.axes) > 1:
        return "several extents are symbolic"
    if any(True for v in kernel.values() if v.fn in ("load", "index", "in_range") for _ in dynamic_values(v.data[v.fn == "load"])):
        return "it gathers"
    if any(s.mode != "set" or any(True for _ in dynamic_values(s.index)) for s in kernel.stores):
        return "it scatters"
    return None


def split_reductions(kernel: Kernel, reductions: Sequence[Expr], parts: int, hints: Mapping[str, int]) -> tuple[Kernel, Kernel, list[tuple[Any, Any]]]:
    """The two kernels of a split, and the workspaces' shapes and types; workspaces are parameters after the kernel's own.

    Args:
        kernel: has reductions over the same axes only.
        reductions: these.
        parts: blocks wanted; as many or fewer are made.
        hints: sizes that decide which axis is cut.
    """
    axes: tuple[Axis, ...] = reductions[0].data[1]
    cut = _cut(_chosen(axes, parts, hints), parts)
    count = cut.block.extent
    inside = tuple(cut.inside if a == cut.axis else a for a in axes)
    # Many results are combined by a work item each: then neighbouring results are neighbours. Few are by a group each.
    many = _number(kernel.axes, hints) >= _MANY_RESULTS
    order = (cut.block, *kernel.axes) if many else (*kernel.axes, cut.block)
    order = tuple(sorted(order, key=lambda a: isinstance(a.extent, int)))  # a symbolic extent must lead
    shape = tuple(a.extent for a in order)
    at = flatten(tuple(map(as_index, order)), shape)
    stores: list[Store] = []
    replaced: dict[Expr, Expr] = {}
    params = list(kernel.params)
    spaces: list[tuple[Any, Any]] = []
    for r in reductions:
        number = len(params)
        params.append(Param(f"p{number}", r.dtype, shape))
        spaces.append((shape, r.dtype))
        stores.append(Store(number, at, reduce(r.data[0], inside, _cut_body(r, cut))))
        combined = Axis("part", count, REDUCE)
        replaced[r] = reduce(r.data[0], (combined,), load(number, at.substitute({cut.block: as_index(combined)}), r.dtype))
    first = replace(kernel, name=f"{kernel.name}_parts", params=tuple(params), axes=(cut.block, *kernel.axes), stores=tuple(stores))
    results = tuple(replace(s, value=transform(s.value, lambda node, _: replaced.get(node))) for s in kernel.stores)
    return first, replace(kernel, params=tuple(params), stores=results), spaces


def _chosen(axes: Sequence[Axis], parts: int, hints: Mapping[str, int]) -> Axis:
    """The axis to cut: the outermost that is long enough, so that the blocks keep what is contiguous; else the longest."""
    long = [a for a in axes if _number([a], hints) >= parts]
    return long[0] if long else max(axes, key=lambda a: _number([a], hints))


def _cut(axis: Axis, parts: int) -> _Cut:
    """Blocks of neighbours where the extent is known; with a symbolic one block b takes the elements b, b + parts, ..."""
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
        return load(*node.data, node.dtype, both(args[0], guard) if args else guard)

    body = transform(body, guarded)
    if r.data[0] == "add" and body.fn == "mul":  # keep the form of a product of two factors
        return call("mul", *(select(guard, f, const(0, f.dtype)) for f in body.args))
    return select(guard, body, const(identity(r.data[0], r.args[0].dtype), r.args[0].dtype))


def _without_unused(kernel: Kernel) -> tuple[tuple[int, ...], Kernel]:
    """The kernel with only the parameters that it touches, and their old positions."""
    used = tuple(sorted(kernel.read() | kernel.written()))
    position = {old: new for new, old in enumerate(used)}

    def moved(node: Expr, args: tuple[Expr, ...]) -> Expr | None:
        return load(position[node.data[0]], node.data[1], node.dtype, *args) if node.fn == "load" else None

    stores = tuple(Store(position[s.param], s.index, transform(s.value, moved), s.mode) for s in kernel.stores)
    params = tuple(replace(kernel.params[old], name=f"p{new}") for new, old in enumerate(used))
    return used, replace(kernel, params=params, stores=stores)
