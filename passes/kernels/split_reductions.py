"""Long reductions in steps: partial results for blocks of the summed axis, into a workspace, then their combination.

The first kernel has one more parallel axis, the second reduces over that, and a third computes what the kernel stores
for every element. Few results of long sums (losses, bias and weight gradients) then still use the whole device: all
groups of a GPU, all cores of a CPU. The order of all sums is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphcore.base.dtypes import DType
from graphcore.base.shapes import Dim, Shape, bind, product
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
from graphcore.kernel.forms import find_product
from graphcore.kernel.index import PARALLEL, REDUCE, Axis, Index, as_index, flatten
from graphcore.kernel.ir import Kernel, Param, Store
from graphcore.kernel.monoids import identity
from graphcore.kernel.parts import Part, Parts, Workspace, without_unused
from graphcore.kernel.rows import columns_of, row_reductions, rows_of
from graphcore.plan.target import Reject, Target

__all__ = ["cut_reductions", "layout_of", "split_reductions", "with_values"]

_MOST = 256  # partial sums of one result at most
_MANY_RESULTS = 1024


@dataclass(frozen=True)
class _Cut:
    """How an axis is cut into blocks: the block's axis, the axis inside of it, and the old axis in terms of both."""

    axis: Axis
    block: Axis
    inside: Axis
    index: Index
    guard: Expr | None


def split_reductions(kernel: Kernel, target: Target, sizes: Mapping[str, int]) -> Parts | Reject:
    """A kernel whose reductions are cut into as many parts as the device has use for, or why it stays whole.

    Args:
        kernel: any.
        target: says what parts are good for; how many there are follows from extents and its cost model alone.
        sizes: the symbolic extents' values.
    """
    reductions = row_reductions(kernel)
    reason = _reason(kernel, reductions)
    if reason is not None:
        return Reject(reason)
    sharing = target.shares(kernel, sizes) if target.shares is not None else None
    if sharing is None:
        return Reject("the device shares it out as it is")
    costs, length = target.costs, _number(reductions[0].reduce_axes, sizes)
    if sharing.saved < costs.launch_seconds + costs.level_seconds:
        return Reject("its sums are short")
    parts = min(sharing.parts, length // sharing.shortest, _MOST)
    if parts < 2:
        return Reject("its sums are short, or many enough")
    made = cut_reductions(kernel, parts, sizes)
    names = ", ".join(p.kernel.name for p in made.parts)
    line = f"{kernel.name} is cut into {names}: its sums of {length} terms leave the device idle"
    return replace(made, reasons=(line,))


def _number(axes: Sequence[Axis], sizes: Mapping[str, int]) -> int:
    return int(bind(product(a.extent for a in axes), sizes))


def _reason(kernel: Kernel, reductions: Sequence[Expr]) -> str | None:
    """Why a kernel is not cut."""
    if not reductions or len(reductions) != len(kernel.reductions()):
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


def cut_reductions(kernel: Kernel, parts: int, sizes: Mapping[str, int]) -> Parts:
    """The kernel with its reductions cut into parts; workspaces hold the parts' results and, where elements need them,
    the combined ones.

    Args:
        kernel: has reductions over the same axes only.
        parts: blocks wanted, at least 1; as many or fewer are made.
        sizes: values of symbolic extents, which decide which axis is cut.
    """
    reductions = row_reductions(kernel)
    axes: tuple[Axis, ...] = reductions[0].reduce_axes
    rows, columns = rows_of(kernel), frozenset(columns_of(kernel))
    cut = _cut(_chosen(axes, parts, sizes), parts)
    inside = tuple(cut.inside if a == cut.axis else a for a in axes)
    # Many results are combined by a work item each: then neighbouring results are neighbours. Few are by a group each.
    many = _number(rows, sizes) >= _MANY_RESULTS
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
        params.append(_space(params, r.dtype, shape))
    results = [with_values(s, combined) for s in kernel.stores if s not in (*over, *on_the_way)]
    # What is stored for every element reads the combined results from memory.
    shape, at = layout_of(rows)
    known: dict[Expr, Expr] = {}
    for r in reductions:
        if any(v is r for s in over for v in walk(s.value)):
            results.append(Store(len(params), at, combined[r]))
            known[r] = load(len(params), at, r.dtype)
            params.append(_space(params, r.dtype, shape))
    block_axes = (cut.block, *rows, *(a for a in inside if columns))
    kernels = [
        replace(kernel, name=f"{kernel.name}_parts", axes=block_axes, stores=tuple(sums)),
        replace(kernel, name=f"{kernel.name}_sums" if over else kernel.name, axes=rows, stores=tuple(results)),
        replace(kernel, stores=tuple(with_values(s, known) for s in over)),
    ]
    made = [replace(k, params=tuple(params), form=find_product(k.axes, k.values())) for k in kernels if k.stores]
    spaces = tuple(Workspace(p.shape, p.dtype) for p in params[len(kernel.params) :])
    return Parts(kernel, tuple(_part(k, kernel, k is made[-1]) for k in made), spaces)


def _space(params: Sequence[Param], dtype: DType, shape: Shape) -> Param:
    return Param(f"p{len(params)}", dtype, shape)


def _part(made: Kernel, whole: Kernel, last: bool) -> Part:
    """A part over what it touches; the last one stands for the whole kernel in reports."""
    used, small = without_unused(made)
    return Part(small, used, not last, whole if last else None)


def layout_of(axes: Sequence[Axis]) -> tuple[Shape, Index]:
    """A workspace over axes, and the address of a point: a symbolic extent must lead."""
    order = sorted(axes, key=lambda a: isinstance(a.extent, int))
    shape = tuple(a.extent for a in order)
    return shape, flatten(tuple(map(as_index, order)), shape)


def with_values(store: Store, mapping: Mapping[Expr, Expr]) -> Store:
    """The store with some values replaced."""
    return replace(store, value=transform(store.value, lambda node, _: mapping.get(node)))


def _chosen(axes: Sequence[Axis], parts: int, sizes: Mapping[str, int]) -> Axis:
    """The axis to cut: the outermost that is long enough, so that the blocks keep what is contiguous; else the
    longest."""
    long = [a for a in axes if _number([a], sizes) >= parts]
    return long[0] if long else max(axes, key=lambda a: _number([a], sizes))


def _cut(axis: Axis, parts: int) -> _Cut:
    """Blocks of neighbours where the extent is known; with a symbolic one block b takes the elements b, b + parts,
    ..."""
    extent = axis.extent
    if not isinstance(extent, int):
        block, inside = Axis("part", parts, PARALLEL), Axis(f"{axis.name}_in", (extent + (parts - 1)) // parts, REDUCE)
        index = as_index(inside) * parts + as_index(block)
        return _Cut(axis, block, inside, index, in_range(index, 0, extent))
    parts = max(min(parts, extent), 1)
    even = next((p for p in range(parts, parts // 2, -1) if extent % p == 0), None)
    count = even or parts
    size = max(-(-extent // count), 1)
    count = max(-(-extent // size), 1)
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
