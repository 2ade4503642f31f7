"""How a bound plan is started: a launch a step, a launch a level, or the whole plan in one; by the cost model.

Where a plan is several programs, a level has a launch for each of them that its steps lie in, and the whole plan one
for every stretch of rows in one program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from graphcore.plan.costs import CostModel, Work

__all__ = ["LAUNCHES", "Grid", "Row", "choose_mode", "mode_seconds", "plan_launches"]

LAUNCHES = {"step": "launch a step", "level": "launch a level", "one": "one launch"}


@dataclass(frozen=True)
class Grid:
    """A kernel to start: its name, how many work-groups, which rows of the table it runs, and its program."""

    kernel: str
    groups: int
    first: int
    last: int
    program: int = 0


@dataclass(frozen=True)
class Row:
    """A row of a plan's table: a step for known sizes.

    Attributes:
        function: the number of the function that it calls.
        tasks: how many tasks share its work; none where nothing is to be done.
        words: what follows the function, the first task and the tasks.
        work: what it does, in numbers.
        program: which of the plan's programs has the function.
    """

    function: int
    tasks: int
    words: tuple[int, ...]
    work: Work
    program: int = 0


def mode_seconds(levels: Sequence[Sequence[Row]], costs: CostModel, footprint: float, gpu: bool) -> dict[str, float]:
    """Seconds of a run in every mode.

    Args:
        levels: the rows of every level.
        costs: of the device.
        footprint: bytes that a run touches.
        gpu: whether every function of a level is a launch of its own.
    """
    pieces = sum(1 for _ in groupby(r.program for r in _by_program(levels)))
    one = max(pieces, 1) * (costs.launch_seconds + costs.level_seconds)
    by_step = by_level = 0.0
    for rows in levels:
        busy = [r for r in rows if r.tasks]
        each = [costs.seconds(r.work, r.tasks, footprint) for r in busy]
        alone = [costs.seconds(r.work, r.tasks, footprint, alone=True) for r in busy]
        one += sum(alone) / costs.alone_share
        by_step += sum(each) + len(busy) * (costs.launch_seconds + costs.level_seconds)
        if gpu:
            by_level += sum(each) + len({r.function for r in busy}) * costs.launch_seconds
            by_level += costs.level_seconds if busy else 0.0
            continue
        for program in {r.program for r in busy}:
            ours = [i for i, r in enumerate(busy) if r.program == program]
            by_level += max(max(each[i] for i in ours), sum(alone[i] for i in ours) / costs.cores)
            by_level += costs.launch_seconds + costs.level_seconds
    return {LAUNCHES["step"]: by_step, LAUNCHES["level"]: by_level, LAUNCHES["one"]: one}


def choose_mode(seconds: dict[str, float]) -> str:
    """One work-item or work-group for the whole plan where starting its levels would cost more than all cores save.

    A launch a step is for comparisons: it is never faster than a launch a level.
    """
    return min((LAUNCHES["level"], LAUNCHES["one"]), key=lambda mode: seconds[mode])


def plan_launches(levels: Sequence[Sequence[Row]], mode: str, gpu: bool) -> tuple[list[tuple[Row, int]], list[Grid]]:
    """The rows in the order of the table, each with its first task, and the launches."""
    rows = [r for level in levels for r in level]
    if gpu and mode != LAUNCHES["step"]:
        order, launches = _by_function(levels)
        return order, [Grid("run_whole", 1, 0, len(order))] if mode == LAUNCHES["one"] and order else launches
    if mode == LAUNCHES["step"]:
        busy = [r for r in rows if r.tasks]
        return [(r, 0) for r in busy], [
            Grid(f"step_{r.function}" if gpu else "run_plan", r.tasks, at, at + 1, r.program)
            for at, r in enumerate(busy)
        ]
    order, launches = [], []
    if mode == LAUNCHES["one"]:
        for program, members in groupby(_by_program(levels), key=lambda r: r.program):
            first = len(order)
            order += [(r, 0) for r in members]
            launches.append(Grid("run_plan", 1, first, len(order), program))
        return order, launches
    for level in levels:
        for program, members in groupby(_by_program([level]), key=lambda r: r.program):
            started, first = 0, len(order)
            for r in members:
                order.append((r, started))
                started += r.tasks
            if started:
                launches.append(Grid("run_plan", started, first, len(order), program))
    return order, launches


def _by_program(levels: Sequence[Sequence[Row]]) -> list[Row]:
    """All rows, those of a level that lie in one program together, those first whose program ran last."""
    rows: list[Row] = []
    for level in levels:
        last = rows[-1].program if rows else 0
        rows += sorted(level, key=lambda r: (r.program != last, r.program))
    return rows


def _by_function(levels: Sequence[Sequence[Row]]) -> tuple[list[tuple[Row, int]], list[Grid]]:
    """A launch for every function of a level: its steps are rows of one grid."""
    order: list[tuple[Row, int]] = []
    launches: list[Grid] = []
    for level in levels:
        of_function: dict[int, list[Row]] = {}
        for r in level:
            if r.tasks:
                of_function.setdefault(r.function, []).append(r)
        for function, members in of_function.items():
            started, first = 0, len(order)
            for r in members:
                order.append((r, started))
                started += r.tasks
            launches.append(Grid(f"step_{function}", started, first, len(order)))
    return order, launches
