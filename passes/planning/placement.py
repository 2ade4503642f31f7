"""Memory: offsets in the arena, for one set of sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from graphcore.plan.plan import Placed, Plan
from passes.planning.flow import arena_sizes, lifetimes
from passes.planning.limits import refuse_oversized
from passes.planning.offsets import Block, assign_offsets, check_no_overlap
from passes.stage import Stage, StageContext

__all__ = ["Memory", "place"]


def place(plan: Plan, sizes: Mapping[str, int], alignment: int = 128, check: bool = True) -> Placed:
    """Offsets for every arena buffer.

    Raises:
        VerifyError: two buffers that live at the same time would overlap (a defect of the planner).
    """
    lives = lifetimes(plan)
    nbytes = arena_sizes(plan, sizes)
    blocks = [Block(n, max(nbytes[n], 1), first, last) for n, (first, last) in lives.items()]
    placement = assign_offsets(blocks, alignment)
    if check:
        check_no_overlap(blocks, placement.offsets)
    return Placed(
        dict(sizes), dict(placement.offsets), placement.total, placement.lower_bound, lives, placement.strategy
    )


@dataclass(frozen=True)
class Memory(Stage[Plan, Placed]):
    """Place the arena's buffers for the sizes compiled for, and refuse what the device cannot allocate; for other sizes
    ``place`` and ``refuse_oversized`` do it again.

    Requires: steps in levels.
    Ensures: no two buffers that live at the same time overlap; an independent sweep checks it.
    """

    name: ClassVar[str] = "memory"
    takes: ClassVar[type] = Plan
    gives: ClassVar[type] = Placed

    def run(self, plan: Plan, ctx: StageContext, /) -> Placed:
        placed = place(plan, ctx.sizes)
        refuse_oversized(plan, placed, ctx.target)
        ctx.say(
            f"the arena has {placed.arena_bytes:,} bytes, {placed.lower_bound_bytes:,} live at once, placed by "
            f"{placed.strategy}"
        )
        return placed

    def show(self, placed: Placed, /) -> str:
        lines = [f"arena {placed.arena_bytes} bytes, lower bound {placed.lower_bound_bytes}"]
        for number, offset in sorted(placed.offsets.items(), key=lambda item: (item[1], item[0])):
            first, last = placed.lifetimes[number]
            lines.append(f"  buffer {number} at {offset}, from level {first} to {last}")
        return "\n".join(lines)
