"""Order: in which level every step runs.

By default all orders with the fewest levels are tried that differ in one choice, how late independent steps run, and
the one whose peak of live bytes is lowest wins; ties go to the earliest. Fewest levels, because a level is a launch.
Under a memory limit that such an order exceeds, every step gets a level of its own, in the order with the lowest peak
that list scheduling finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import ClassVar

from graphcore.kernel.ir import KernelKind
from graphcore.plan.plan import Plan, print_plan
from passes.planning.flow import Flow, arena_sizes
from passes.planning.order import best_order
from passes.stage import Stage, StageContext

__all__ = ["Levels", "Unordered", "levels_of", "single_steps"]

_WORTH_SCATTERING = 1.1  # how much larger the peak may be for the sake of all updates running as rows of one kernel


def levels_of(
    flow: Flow,
    pinned: Sequence[int],
    sizes: Mapping[int, int],
    keep: AbstractSet[int],
    initial: AbstractSet[int],
) -> tuple[list[int], str]:
    """The level of every step, and the name of the order that won.

    Args:
        flow: the steps.
        pinned: steps that run in the last level of any of them, unless that costs much memory: the optimizer's updates.
        sizes: bytes of the values in the arena.
        keep, initial: values that are there after the last step, and before the first.

    Raises:
        VerifyError: the steps depend on each other in a circle.
    """
    early = flow.levels()
    gathered = list(early)
    together = max((early[i] for i in pinned), default=0)
    for i in pinned:
        gathered[i] = together
    candidates = [("as early as possible", gathered), ("as late as possible", flow.latest_levels(gathered))]
    if gathered != early:  # updates apart are more kernels, so they must be worth it
        candidates.append(("as early as possible, updates not gathered", early))
    peaks = [
        flow.peak(levels, sizes, keep, initial) * (_WORTH_SCATTERING if levels is early else 1.0)
        for _, levels in candidates
    ]
    best = min(range(len(candidates)), key=lambda i: peaks[i])
    return candidates[best][1], candidates[best][0]


def single_steps(flow: Flow, sizes: Mapping[int, int], keep: AbstractSet[int]) -> tuple[list[int], str]:
    """A level for every step: the order in which the fewest bytes live at once, and its name."""
    found = best_order(flow, sizes, keep)
    levels = [0] * flow.count
    for position, step in enumerate(found.order):
        levels[step] = position
    return levels, f"one at a time, {found.name}"


@dataclass(frozen=True)
class Unordered:
    """A plan whose steps may run in any order that their dependencies allow."""

    plan: Plan
    flow: Flow

    def __str__(self) -> str:
        return print_plan(self.plan)


@dataclass(frozen=True)
class Levels(Stage[Unordered, Plan]):
    """Put the steps in levels and in order.

    Requires: a plan without an order, which is used up.
    Ensures: steps of one level do not depend on each other, only on steps of lower ones.
    """

    name: ClassVar[str] = "levels"
    takes: ClassVar[type] = Unordered
    gives: ClassVar[type] = Plan

    def run(self, unordered: Unordered, ctx: StageContext, /) -> Plan:
        plan, flow, launches = unordered.plan, unordered.flow, unordered.plan.launches
        sizes = arena_sizes(plan, plan.hints)
        fetched = {f.buffer for f in plan.fetches if f.buffer is not None}
        # Nothing waits for the optimizer's updates; in one level, updates of equal structure are rows of one kernel.
        sinks = [i for i, s in enumerate(launches) if not flow.behind[i] and s.kernel.kind is KernelKind.MAP]
        if ctx.fewest_bytes:
            levels, name = single_steps(flow, sizes, fetched)
        else:
            levels, name = levels_of(flow, sinks, sizes, fetched, {*plan.feeds})
        ctx.say(f"steps run {name}")
        order = sorted(range(len(launches)), key=lambda i: (levels[i], i))
        moved = {old: new for new, old in enumerate(order)}
        steps = tuple(replace(launches[i], level=levels[i]) for i in order)
        return replace(plan, steps=steps, in_place=tuple((b, moved[i]) for b, i in plan.in_place))
