"""Memory: lifetimes by level and offsets in the arena, for one set of sizes."""

from __future__ import annotations

from collections.abc import Mapping

from graphcore.base.shapes import bind
from graphcore.plan.plan import ARENA, Placed, Plan
from passes.planning.offsets import Block, assign_offsets, check_no_overlap

__all__ = ["lifetimes", "place"]


def lifetimes(plan: Plan) -> dict[int, tuple[int, int]]:
    """First and last level in which each arena buffer must keep its contents.

    Steps of one level may run at the same time, so a lifetime covers whole levels. Feeds are there before the first
    level, fetches are read after the last.
    """
    end = max((s.level for s in plan.steps), default=0) + 1
    found: dict[int, tuple[int, int]] = {}
    for number in (n for _, n in plan.feeds):
        found[number] = (-1, -1)
    for step in plan.steps:
        for number in (*step.buffers, *step.workspace):
            if plan.buffers[number].space == ARENA:
                first, last = found.get(number, (step.level, step.level))
                found[number] = (min(first, step.level), max(last, step.level))
    for fetch in plan.fetches:
        if fetch.buffer is not None and plan.buffers[fetch.buffer].space == ARENA:
            first, _ = found.get(fetch.buffer, (end, end))
            found[fetch.buffer] = (first, end)
    return found


def place(plan: Plan, sizes: Mapping[str, int], alignment: int = 128, check: bool = True) -> Placed:
    """Offsets for every arena buffer.

    Raises:
        VerifyError: two buffers that live at the same time would overlap (a defect of the planner).
    """
    lives = lifetimes(plan)
    blocks = [
        Block(n, max(int(bind(plan.buffers[n].nbytes, sizes)), 1), first, last) for n, (first, last) in lives.items()
    ]
    placement = assign_offsets(blocks, alignment)
    if check:
        check_no_overlap(blocks, placement.offsets)
    return Placed(
        dict(sizes), dict(placement.offsets), placement.total, placement.lower_bound, lives, placement.strategy
    )
