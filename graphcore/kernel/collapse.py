"""A kernel's axes, made such that indices walk them in even steps: cut where a view divides them, merged where all walk
them as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from graphcore.kernel.expr import INDEXED, substituted
from graphcore.kernel.index import PARALLEL, REDUCE, Axis, Div, Index, Mod, as_index
from graphcore.kernel.ir import Kernel, Store

__all__ = ["collapse_axes", "split_axes"]

_SHORTEST = 16  # of the inner axis of a cut: shorter loops are better read by quotients and remainders


def collapse_axes(kernel: Kernel) -> Kernel:
    """Merge neighbouring parallel axes that every index walks as one: fewer loops, longer vectors.

    ``a`` (outer) and ``b`` (inner) merge when every index depends on them only as ``step * (a * extent(b) + b)``, and
    every reduction binds both or neither; one that gives a position, next to each other.
    """
    while True:
        uses = _index_uses(kernel)
        bound = [(v.reduce_axes, v.combine.startswith("arg")) for v in kernel.reductions()]
        pair = next(
            (
                (a, b)
                for a in kernel.axes
                for b in kernel.axes
                if a is not b
                and isinstance(b.extent, int)
                and all(_bound_as_one(axes, ordered, a, b) for axes, ordered in bound)
                and _walk_as_one(uses, a, b)
            ),
            None,
        )
        if pair is None:
            return _renamed(kernel)
        kernel = _merged(kernel, *pair)


def split_axes(kernel: Kernel) -> Kernel:
    """Cut axes whose quotient and remainder by one number are what indices walk, as reshaped transposes do.

    ``k -> d * high + low`` turns ``k // d`` into ``high`` and ``k % d`` into ``low``.
    """
    while True:
        cut = next((c for a in kernel.axes for c in _cuts(kernel, a)), None)
        if cut is None:
            return kernel
        kernel = cut


def _cuts(kernel: Kernel, axis: Axis) -> Iterator[Kernel]:
    """The kernel with an axis cut by one of its divisors, where that leaves fewer quotients and remainders."""
    extent = axis.extent
    if not isinstance(extent, int):
        return
    before = _divided(kernel)
    bare = as_index(axis)
    for d in sorted(
        {
            atom.divisor
            for atom in before
            if atom.value == bare and extent % atom.divisor == 0 and _SHORTEST <= atom.divisor < extent
        }
    ):
        high, low = (
            Axis(f"{axis.name}h", extent // d, axis.kind),
            Axis(f"{axis.name}l", d, axis.kind),
        )  # in the order of their names
        mapping = {axis: as_index(high) * d + as_index(low)}
        stores = _substituted(kernel, mapping)
        axes = tuple(b for a in kernel.axes for b in ((high, low) if a is axis else (a,)))
        made = replace(kernel, axes=axes, stores=stores)
        if len(_divided(made)) < len(before):
            yield made


def _divided(kernel: Kernel) -> set[Div | Mod]:
    """All quotients and remainders in a kernel's indices."""
    found: set[Div | Mod] = set()
    stack = _index_uses(kernel)
    while stack:
        for atom, _ in stack.pop().terms:
            if isinstance(atom, (Div, Mod)) and atom not in found:
                found.add(atom)
                stack.append(atom.value)
    return found


def _index_uses(kernel: Kernel) -> list[Index]:
    found = {s.index for s in kernel.stores}
    for value in kernel.values():
        if value.fn in INDEXED:
            found.add(value.index)
    return list(found)


def _bound_as_one(axes: tuple[Axis, ...], ordered: bool, a: Axis, b: Axis) -> bool:
    """Whether a reduction's axes allow that two become one; where elements are counted, only neighbours can."""
    if a not in axes or b not in axes:
        return a not in axes and b not in axes
    return not ordered or axes.index(b) == axes.index(a) + 1


def _walk_as_one(uses: Sequence[Index], a: Axis, b: Axis) -> bool:
    for index in uses:
        sa, sb = index.stride(a), index.stride(b)
        if sa is None or sb is None or sa != sb * b.extent:
            return False
    return True


def _merged(kernel: Kernel, a: Axis, b: Axis) -> Kernel:
    """Replace ``a`` and ``b`` by one axis; since all uses are linear with proportional steps, ``a -> 0`` and ``b ->
    merged``."""
    merged = Axis(f"{a.name}{b.name}", a.extent * b.extent, PARALLEL)
    mapping = {a: Index(0), b: as_index(merged)}
    axes = tuple(merged if x is a else x for x in kernel.axes if x is not b)
    return replace(kernel, axes=axes, stores=_substituted(kernel, mapping))


def _substituted(kernel: Kernel, mapping: Mapping[Axis, Index]) -> tuple[Store, ...]:
    """The stores with axes replaced by indices."""
    values = substituted([s.value for s in kernel.stores], mapping)
    return tuple(
        replace(s, index=s.index.substitute(mapping), value=value)
        for s, value in zip(kernel.stores, values, strict=True)
    )


def _renamed(kernel: Kernel) -> Kernel:
    """Canonical axis names, so that equal kernels have equal text: i0, i1, ... outermost first, reductions r0, r1,
    ..."""
    bound: dict[Axis, None] = {}
    for value in kernel.reductions():
        bound.update(dict.fromkeys(a for a in value.reduce_axes if a not in kernel.axes))
    fresh = [Axis(f"i{n}", a.extent, PARALLEL) for n, a in enumerate(kernel.axes)]
    inner = [Axis(f"r{n}", a.extent, REDUCE) for n, a in enumerate(bound)]
    mapping = {
        old: as_index(new) for old, new in zip((*kernel.axes, *bound), (*fresh, *inner), strict=True) if old != new
    }
    if not mapping:
        return kernel
    return replace(kernel, axes=tuple(fresh), stores=_substituted(kernel, mapping))
