"""Order: in which level every step runs.

By default all orders with the fewest levels are tried that differ in one choice, how late independent steps run, and
the one whose simulated peak of live bytes is lowest wins; ties go to the earliest. Fewest levels, because a level is a
launch. Under a memory limit that such an order exceeds, every step gets a level of its own, in the order with the
lowest peak that list scheduling finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphcore.base.errors import CompileError
from graphcore.base.shapes import bind
from graphcore.plan.plan import ARENA, Plan
from passes.planning.order import StepInfo, best_order

__all__ = ["earliest_levels", "latest_levels", "levels_of", "single_steps"]

_WORTH_SCATTERING = 1.1  # how much larger the peak may be for the sake of all updates running as rows of one kernel


def levels_of(
    plan: Plan, after: Sequence[set[int]], pinned: Sequence[int], hints: Mapping[str, int]
) -> tuple[list[int], str]:
    """The level of every step, and the name of the order that won.

    Args:
        plan: its steps, in any valid order.
        after: for every step the steps that must be finished before.
        pinned: steps that run in the last level of any of them, unless that costs much memory: the optimizer's updates.
        hints: extents to simulate with.

    Raises:
        CompileError: the steps depend on each other in a circle.
    """
    early = earliest_levels(after)
    gathered = list(early)
    together = max((early[i] for i in pinned), default=0)
    for i in pinned:
        gathered[i] = together
    candidates = [("as early as possible", gathered), ("as late as possible", latest_levels(after, gathered))]
    if gathered != early:  # updates apart are more kernels, so they must be worth it
        candidates.append(("as early as possible, updates not gathered", early))
    peaks = [_peak(plan, levels, hints) * (_WORTH_SCATTERING if levels is early else 1.0) for _, levels in candidates]
    best = min(range(len(candidates)), key=lambda i: peaks[i])
    return candidates[best][1], candidates[best][0]


def single_steps(plan: Plan, after: Sequence[set[int]], hints: Mapping[str, int]) -> tuple[list[int], str]:
    """A level for every step: the order in which the fewest bytes live at once, and its name."""
    infos = [
        StepInfo(step.reads, step.writes, 0, tuple(sorted(before)))
        for step, before in zip(plan.steps, after, strict=True)
    ]
    external = {b.number for b in plan.buffers if b.space != ARENA}
    sizes = {b.number: int(bind(b.nbytes, hints)) for b in plan.buffers if b.space == ARENA}
    kept = {f.buffer for f in plan.fetches if f.buffer is not None} - external
    found = best_order(infos, sizes, kept, external)
    levels = [0] * len(infos)
    for position, step in enumerate(found.order):
        levels[step] = position
    return levels, f"one at a time, {found.name}"


def earliest_levels(after: Sequence[set[int]]) -> list[int]:
    """One more than the largest level of those a step follows."""
    users: list[list[int]] = [[] for _ in after]
    waiting = [len(a) for a in after]
    for i, before in enumerate(after):
        for j in before:
            users[j].append(i)
    level = [0] * len(after)
    ready = [i for i, n in enumerate(waiting) if n == 0]
    done = 0
    while ready:
        i = ready.pop()
        done += 1
        for u in users[i]:
            level[u] = max(level[u], level[i] + 1)
            waiting[u] -= 1
            if waiting[u] == 0:
                ready.append(u)
    if done != len(after):
        raise CompileError("the plan's steps depend on each other in a circle")
    return level


def latest_levels(after: Sequence[set[int]], early: Sequence[int]) -> list[int]:
    """One less than the smallest level of those that follow a step; what nothing follows keeps its level."""
    users: list[list[int]] = [[] for _ in after]
    for i, before in enumerate(after):
        for j in before:
            users[j].append(i)
    late = list(early)
    for i in sorted(range(len(after)), key=lambda i: -early[i]):
        if users[i]:
            late[i] = min(late[u] for u in users[i]) - 1
    return late


def _peak(plan: Plan, levels: Sequence[int], hints: Mapping[str, int]) -> int:
    """The largest sum of live bytes at any level."""
    last = max(levels, default=0) + 1
    lives: dict[int, list[int]] = {number: [-1, -1] for _, number in plan.feeds}
    for step, level in zip(plan.steps, levels, strict=True):
        for number in (*step.buffers, *step.workspace):
            if plan.buffers[number].space == ARENA:
                life = lives.setdefault(number, [level, level])
                life[0], life[1] = min(life[0], level), max(life[1], level)
    change = [0] * (last + 3)
    for number, (first, end) in lives.items():
        size = int(bind(plan.buffers[number].nbytes, hints))
        change[first + 1] += size
        change[(last if plan.buffers[number].role == "fetch" else end) + 2] -= size
    peak = total = 0
    for delta in change:
        total += delta
        peak = max(peak, total)
    return peak
