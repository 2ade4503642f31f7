"""Memory: offsets in the arena, for one set of sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from graphcore.plan.plan import Placed, Plan
from passes.planning.flow import arena_sizes, lifetimes
from passes.planning.limits import refuse_oversized
from passes.planning.offsets import Block, assign_offsets, check_no_overlap
from passes.planning.sections import check_sections, place_in_sections, section_tops
from passes.stage import Stage, StageContext

__all__ = ["Memory", "place"]


def place(
    plan: Plan, sizes: Mapping[str, int], alignment: int = 128, check: bool = True, section: int | None = None
) -> Placed:
    """Offsets for every arena buffer.

    Args:
        plan: with its steps in levels.
        sizes: of the symbolic extents.
        alignment: bytes; offsets are multiples of it.
        check: whether to prove that the placement is right.
        section: the most bytes of values in one allocation; an arena that needs more has several sections, and no
            value crosses from one into the next, unless it is larger itself (``refuse_oversized`` says so).

    Raises:
        VerifyError: two buffers that live at the same time would overlap (a defect of the planner).
    """
    lives = lifetimes(plan)
    nbytes = arena_sizes(plan, sizes)
    blocks = [Block(n, max(nbytes[n], 1), first, last) for n, (first, last) in lives.items()]
    placement = assign_offsets(blocks, alignment)
    section = placement.total if section is None else section // alignment * alignment
    several = placement.total > section >= max((b.size for b in blocks), default=0)
    if several:
        placement = place_in_sections(blocks, section, alignment, placement.lower_bound)
    if check:
        check_no_overlap(blocks, placement.offsets)
        if several:
            check_sections(blocks, placement.offsets, section)
    tops = section_tops(blocks, placement.offsets, section, alignment) if several else ()
    return Placed(
        dict(sizes),
        dict(placement.offsets),
        sum(tops) if several else placement.total,
        placement.lower_bound,
        lives,
        placement.strategy,
        tops,
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
        placed = place(plan, ctx.sizes, section=ctx.target.max_alloc)
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
