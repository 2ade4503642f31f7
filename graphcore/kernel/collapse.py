"""Merging a kernel's axes: neighbours that every index walks as one become one, which makes fewer loops and longer vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphcore.kernel.expr import Expr
from graphcore.kernel.index import PARALLEL, REDUCE, Axis, Index, as_index
from graphcore.kernel.ir import Kernel, Store

__all__ = ["collapse_axes"]


def collapse_axes(kernel: Kernel) -> Kernel:
    """Merge neighbouring parallel axes that every index walks as one: fewer loops, longer vectors.

    ``a`` (outer) and ``b`` (inner) merge when every index depends on them only as ``step * (a * extent(b) + b)``, and every
    reduction binds both or neither.
    """
    while True:
        uses = _index_uses(kernel)
        bound = [set(v.data[1]) for v in kernel.values() if v.fn == "reduce"]
        pair = next(((a, b) for a in kernel.axes for b in kernel.axes if a is not b and isinstance(b.extent, int)
                     and all((a in axes) == (b in axes) for axes in bound) and _walk_as_one(uses, a, b)), None)
        if pair is None:
            return _renamed(kernel)
        kernel = _merged(kernel, *pair)


def _index_uses(kernel: Kernel) -> list[Index]:
    found = {s.index for s in kernel.stores}
    for value in kernel.values():
        if value.fn == "load":
            found.add(value.data[1])
        elif value.fn in ("index", "in_range"):
            found.add(value.data[0])
    return list(found)


def _walk_as_one(uses: Sequence[Index], a: Axis, b: Axis) -> bool:
    for index in uses:
        sa, sb = index.stride(a), index.stride(b)
        if sa is None or sb is None or sa != sb * b.extent:
            return False
    return True


def _merged(kernel: Kernel, a: Axis, b: Axis) -> Kernel:
    """Replace ``a`` and ``b`` by one axis; since all uses are linear with proportional steps, ``a -> 0`` and ``b -> merged``."""
    merged = Axis(f"{a.name}{b.name}", a.extent * b.extent, PARALLEL)
    mapping = {a: Index(0), b: as_index(merged)}
    memo: dict[Expr, Expr] = {}
    stores = tuple(Store(s.param, s.index.substitute(mapping), memo.setdefault(s.value, s.value.substitute(mapping)), s.mode) for s in kernel.stores)
    axes = tuple(merged if x is a else x for x in kernel.axes if x is not b)
    return replace(kernel, axes=axes, stores=stores)


def _renamed(kernel: Kernel) -> Kernel:
    """Canonical axis names, so that equal kernels have equal text: i0, i1, ... outermost first, reductions r0, r1, ..."""
    bound: dict[Axis, None] = {}
    for value in kernel.values():
        if value.fn == "reduce":
            bound.update(dict.fromkeys(a for a in value.data[1] if a not in kernel.axes))
    fresh = [Axis(f"i{n}", a.extent, PARALLEL) for n, a in enumerate(kernel.axes)]
    inner = [Axis(f"r{n}", a.extent, REDUCE) for n, a in enumerate(bound)]
    mapping = {old: as_index(new) for old, new in zip((*kernel.axes, *bound), (*fresh, *inner), strict=True) if old != new}
    if not mapping:
        return kernel
    stores = tuple(Store(s.param, s.index.substitute(mapping), s.value.substitute(mapping), s.mode) for s in kernel.stores)
    return replace(kernel, axes=tuple(fresh), stores=stores)
