"""How wide the integers of a kernel's loops must be: whether 32 bits hold every position, count and extent of it.

Compilers make better code of 32-bit indices, so generated loops count in them wherever the sizes prove that they fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphcore.base.shapes import Extent, bind, product
from graphcore.kernel.expr import INDEXED
from graphcore.kernel.index import Axis, Dynamic, Index, Mod
from graphcore.kernel.ir import Kernel

__all__ = ["NARROW", "is_narrow", "within"]

# Half of what 31 bits hold: rounding a count up to whole vectors or tiles, and a loop's step past its end, stay inside.
NARROW = 2**30


def within(extents: Iterable[Extent], sizes: Mapping[str, int]) -> bool:
    """Whether 32 bits hold some extents, for these sizes of the symbolic ones."""
    return all(bind(e, sizes) <= NARROW for e in extents)


def is_narrow(kernel: Kernel, sizes: Mapping[str, int], flat: bool = True) -> bool:
    """Whether 32 bits hold everything that a kernel's loops count, for these sizes of the symbolic extents.

    These are the elements of its parameters, the points of its parallel axes (of all of them together, if the loops may
    be ``flat``), the positions of arg-reductions, and all indices with the terms that they are summed of.
    """
    values = kernel.values()
    reductions = kernel.reductions()
    bound = {a for v in reductions for a in v.reduce_axes}
    counts: list[Extent] = [p.size for p in kernel.params]
    if flat:
        counts.append(product(a.extent for a in kernel.axes if a not in bound))
    counts += [a.extent for a in (*kernel.axes, *bound)]
    counts += [product(a.extent for a in v.reduce_axes) for v in reductions if v.combine.startswith("arg")]
    counts += [v.extent for v in values if v.fn == "size"]
    counts += [v.high for v in values if v.fn == "in_range"]
    if not within(counts, sizes):
        return False
    peaks = _Peaks(sizes)
    indices = {s.index for s in kernel.stores} | {v.index for v in values if v.fn in INDEXED}
    return all(peaks.of(index) <= NARROW for index in indices)


class _Peaks:
    """The largest magnitudes that computing indices can meet, each computed once."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = sizes
        self.known: dict[Index, int] = {}

    def of(self, index: Index) -> int:
        """Of an index, of every sum of its terms and of what is divided inside of it."""
        found = self.known.get(index)
        if found is None:
            total, inside = abs(index.constant), 0
            for atom, coefficient in index.terms:
                if isinstance(atom, (Axis, Dynamic)):
                    most = max(int(bind(atom.extent, self.sizes)) - 1, 0)
                else:
                    below = self.of(atom.value)
                    inside = max(inside, below + atom.divisor)  # a multiple of it makes the operand positive
                    most = min(below, atom.divisor - 1) if isinstance(atom, Mod) else below // atom.divisor + 1
                total += most * abs(coefficient)
            found = self.known[index] = max(total, inside)
        return found
