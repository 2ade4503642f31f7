"""Counting what a kernel's loops do: the instructions, accesses and bytes behind ``Work``.

A family tells how often each value is computed in its loops; one instruction computes a value for all lanes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from graphcore.base.shapes import Extent, dim_min, product
from graphcore.kernel import functions
from graphcore.kernel.expr import Expr, children, dynamic_values
from graphcore.kernel.index import Axis, Index
from graphcore.kernel.ir import Kernel
from graphcore.plan.costs import Work

__all__ = ["FAR", "Amounts", "below"]

FAR = 256  # bytes from one vector to the next from which on neither is in the line that came with the other
_COSTS = {0: 1, 1: 1, -1: 3, 2: 3}  # instructions of a vector, by its lanes' distance
_SEAM = 6  # and of one whose lanes are numbered by a division


@dataclass
class Amounts:
    """Counters over the loops of one function.

    Args:
        kernel: whose values are counted.
        lane: the axis along the vectors; None for scalar code.
        width: lanes.
    """

    kernel: Kernel
    lane: Axis | None
    width: int
    instructions: Extent = 0
    scattered: Extent = 0
    far: Extent = 0
    turns: Extent = 0
    touched: dict[int, Extent] = field(default_factory=dict)

    def value(self, value: Expr, times: Extent, inner: Axis | None = None) -> None:
        """Count a value that is computed ``times`` times, in a loop over ``inner``."""
        if value.fn == "load":
            self.access(value.param, value.index, times, inner)
        elif value.fn != "reduce":
            self.instructions = self.instructions + times * _instructions(value)

    def access(self, param: int, index: Index, times: Extent, inner: Axis | None = None) -> None:
        """Count a load or a store."""
        step = 0 if self.lane is None else index.stride(self.lane)
        if step in _COSTS:
            self.instructions = self.instructions + times * _COSTS[step]
            apart = index.stride(inner) if inner is not None and inner != self.lane else 0
            if step and (apart is None or abs(apart) * self.kernel.params[param].dtype.itemsize >= FAR):
                self.far = self.far + times
        elif step is None and not any(True for _ in dynamic_values(index)):
            self.instructions = self.instructions + times * _SEAM
        else:
            self.scattered = self.scattered + times * self.width
        self.touch(param, index)

    def touch(self, param: int, index: Index) -> None:
        """Note that a parameter is loaded or stored at an index."""
        elements = product(a.extent for a in index.axes())
        self.touched[param] = dim_min(self.touched.get(param, 0) + elements, self.kernel.params[param].size)

    def add(self, other: Amounts) -> None:
        """Count what another counter has counted."""
        self.instructions = self.instructions + other.instructions
        self.scattered = self.scattered + other.scattered
        self.far = self.far + other.far
        self.turns = self.turns + other.turns

    def work(self, products: Extent = 0, rate: str = "") -> Work:
        """All of it, with a product's operations."""
        traffic: Extent = 0
        for param, elements in self.touched.items():
            traffic = traffic + elements * self.kernel.params[param].dtype.itemsize
        return Work(products, rate, self.instructions, self.scattered, self.far, self.turns, traffic)


def _instructions(value: Expr) -> int:
    """What computing a value from its operands counts as; literals and positions are free."""
    if value.fn in ("cast", "select"):
        return 1
    return round(functions.work(value))


def below(*roots: Expr, stop: Expr | None = None) -> list[Expr]:
    """Values that some values are made of, and they themselves; not what only ``stop`` is made of."""
    seen: dict[Expr, None] = {}
    stack = list(roots)
    while stack:
        value = stack.pop()
        if value not in seen and value is not stop:
            seen[value] = None
            stack.extend(children(value))
    return list(seen)
