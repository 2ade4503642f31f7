"""What passes may know of a device."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphcore.base.shapes import Shape
from graphcore.kernel.contraction import ContractionRoles
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel
from graphcore.plan.costs import CostModel

__all__ = ["Blocks", "Loads", "Orders", "Reject", "Shares", "Sharing", "Target"]

# loads(roles, shapes, operand, elements): how often each element of a value is loaded, that has so many elements and is
# an operand of a sum of products; None where the schedules take only operands that are in memory. ``shapes`` are those
# of the two operands and of the result.
Loads = Callable[[ContractionRoles, tuple[Shape, ...], int, float], "float | None"]
# blocks(kernel, sizes): where every block of a product's work can add up in its epilogue what it makes (stores of mode
# "add", last of a kernel's stores): the axes that a block sums over, each with the block's extent, None for all of it.
# None where the family that takes the kernel has no such epilogue.
Blocks = Callable[[Kernel, Mapping[str, int]], "Mapping[Axis, int | None] | None"]
# orders(kernel, results, sizes): whether a kernel that puts points in the order of their rows, and sums of every row's
# own points after it, take less than comparing the row of each of so many results with that of every point.
Orders = Callable[[Kernel, int, Mapping[str, int]], bool]
# shares(kernel, sizes): how the family that takes a kernel would share out longer work on its sums; None where it
# shares them out by itself.
Shares = Callable[[Kernel, Mapping[str, int]], "Sharing | None"]


# alternatives(kernel, sizes): what else the family that takes a kernel could make of it with the same bits and less
# text: pieces, and roughly which part of the first guess's text theirs is.
Alternatives = Callable[[Kernel, Mapping[str, int]], "Sequence[tuple[Sequence[Any], float]]"]
# function(piece): what tells the function of a piece from others (equal functions are compiled once), and the seconds
# that compiling it takes.
Function = Callable[[Any], "tuple[Hashable, float]"]


@dataclass(frozen=True)
class Reject:
    """A family's or fusion's refusal, with its reason."""

    reason: str


@dataclass(frozen=True)
class Sharing:
    """What a device could do beside the units of work that a kernel's results are.

    Attributes:
        parts: parts of every sum that keep the device busy, each worth its start; 1 where it is busy already.
        shortest: terms of a sum that are worth a part.
        saved: seconds that parts save at most, as far as the cost model can be relied on.
    """

    parts: int
    shortest: int
    saved: float


@dataclass(frozen=True)
class Target:
    """A device as the passes see it: limits, costs and how it schedules a kernel.

    Attributes:
        name: for fingerprints and messages.
        kind: ``"cpu"``, ``"gpu"`` or ``"oracle"``.
        cores: compute units.
        vector_width: float32 lanes of an explicit vector.
        local_memory: bytes of work-group memory.
        costs: what it takes for work.
        schedule: ``schedule(kernel, target) -> list of steps | Reject``; None for the graph oracle.
        loads: how often its products load an operand; None where they compute none while they load it.
        blocks: over which blocks a product's epilogue gathers sums; None where kernels stay as they were lowered.
        orders: whether points are put in order for the sums of rows; None where kernels stay as they were lowered.
        shares: what parts of long sums would be good for; None where kernels stay as they were lowered.
        alternatives: other ways to run a kernel; None where there is one way only.
        function: the function of a scheduled kernel; None where nothing is compiled.
        max_alloc: the most bytes of values in one allocation.
        memory: bytes of memory in all.
        fp64: whether it computes in float64.
        max_operands, max_ops, max_reductions: caps on one kernel.
    """

    name: str
    costs: CostModel
    kind: str = "cpu"
    cores: int = 1
    vector_width: int = 8
    local_memory: int = 32768
    max_alloc: int = 2**63
    memory: int = 2**63
    fp64: bool = True
    alignment: int = 128
    max_operands: int = 32
    max_ops: int = 64
    max_reductions: int = 4
    schedule: Callable[..., Any] | None = field(default=None, compare=False, repr=False)
    loads: Loads | None = field(default=None, compare=False, repr=False)
    blocks: Blocks | None = field(default=None, compare=False, repr=False)
    orders: Orders | None = field(default=None, compare=False, repr=False)
    shares: Shares | None = field(default=None, compare=False, repr=False)
    alternatives: Alternatives | None = field(default=None, compare=False, repr=False)
    function: Function | None = field(default=None, compare=False, repr=False)
