"""Memory: offsets in the arena, for one set of sizes."""

from __future__ import annotations

from collections.abc import Mapping

from graphcore.plan.plan import Placed, Plan
from passes.planning.flow import arena_sizes, lifetimes
from passes.planning.offsets import Block, assign_offsets, check_no_overlap

__all__ = ["place"]


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
