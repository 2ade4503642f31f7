"""Which functions of a plan go into which of several programs, so that several processes can compile them at once.

A vendor's compiler takes seconds in proportion to the text, on one core. Every program has a dispatch kernel of its
own, so steps of one level that lie in different programs need a launch each: the level is cut. What is weighed is the
modelled seconds of the longest build against those of the launches that cuts add to ``_RUNS`` runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from graphcore.plan.costs import CostModel

__all__ = ["Split", "Splitting", "split_functions"]

_RUNS = 2000  # of a compiled plan, over which the launches of cut levels count
_MORE_WORKERS = 0.1  # of what the first costs: they start at once, but everyone takes part of a core and of memory
_PASSES = 3  # over all functions, looking for better places


@dataclass(frozen=True)
class Splitting:
    """How plans are divided into programs.

    Attributes:
        costs: of the device.
        most: programs of one plan: as many as cores compile at once.
        worker_seconds: what a second process costs before it compiles: its interpreter, its context.
    """

    costs: CostModel
    most: int
    worker_seconds: float = 0.5


@dataclass(frozen=True)
class Split:
    """A division of functions among programs.

    Attributes:
        members: the functions of every program, in increasing order; small ones may be in several.
        of_step: for every step the program that runs it.
    """

    members: tuple[tuple[int, ...], ...]
    of_step: tuple[int, ...]


def split_functions(sizes: Sequence[int], levels: Sequence[Sequence[int]], splitting: Splitting) -> Split:
    """Divide functions among as many programs as are worth their cuts; one, where that is as good.

    Args:
        sizes: bytes of every function's text.
        levels: the functions that the steps of every level call, in the order of the steps.
        splitting: what is allowed and what it costs.
    """
    seconds = [splitting.costs.build_seconds(size) - splitting.costs.build_seconds(0) for size in sizes]
    steps = [f for level in levels for f in level]
    best = Split((tuple(range(len(sizes))),), (0,) * len(steps))
    least = sum(seconds)
    order = _by_level(len(sizes), levels)
    for count in range(2, min(splitting.most, len(sizes)) + 1):
        started = splitting.worker_seconds * (1 + _MORE_WORKERS * (count - 2))
        if sum(seconds) / count + started >= least:
            continue  # even without a cut it is no better
        search = _Search(seconds, levels, count, splitting.costs)
        search.cut(order)
        for _ in range(_PASSES):
            if not search.improve(order):
                break
        split = search.copied()
        total = search.objective() + started
        if total < least:
            best, least = split, total
    return best


def _by_level(count: int, levels: Sequence[Sequence[int]]) -> list[int]:
    """Functions in the order of the mean level of their steps, so that neighbours share levels."""
    total, uses = [0] * count, [0] * count
    for number, level in enumerate(levels):
        for f in level:
            total[f] += number
            uses[f] += 1
    return sorted(range(count), key=lambda f: (total[f] / max(uses[f], 1), f))


class _Search:
    """One division into a number of programs, and the steps that make it better."""

    def __init__(self, seconds: Sequence[float], levels: Sequence[Sequence[int]], count: int, costs: CostModel) -> None:
        self.seconds, self.levels, self.count = seconds, levels, count
        self.cut_seconds = _RUNS * (costs.launch_seconds + costs.level_seconds)
        self.home = [0] * len(seconds)
        self.loads = [0.0] * count
        self.used: list[set[int]] = [set() for _ in seconds]  # the levels of every function
        for number, level in enumerate(levels):
            for f in level:
                self.used[f].add(number)
        self.there: list[Counter[int]] = [Counter() for _ in levels]  # how many functions of a program a level has
        self.cuts = 0

    def objective(self) -> float:
        """Seconds of the longest build and of the launches that cuts add."""
        return max(self.loads) + self.cuts * self.cut_seconds

    def cut(self, order: Sequence[int]) -> None:
        """Cut an order of the functions into pieces of about the same seconds."""
        total, done = sum(self.seconds), 0.0
        for f in order:
            middle = done + self.seconds[f] / 2
            self.home[f] = part = min(int(middle / total * self.count), self.count - 1)
            self.loads[part] += self.seconds[f]
            done += self.seconds[f]
            for level in self.used[f]:
                self.there[level][part] += 1
        self.cuts = sum(len(+parts) - 1 for parts in self.there if parts)

    def improve(self, order: Sequence[int]) -> bool:
        """Move every function where that makes the whole better; whether any was moved."""
        moved = False
        for f in order:
            for part in range(self.count):
                before = self.objective()
                home = self.home[f]
                if part == home:
                    continue
                self._move(f, part)
                if self.objective() < before - 1e-9:
                    moved = True
                else:
                    self._move(f, home)
        return moved

    def _move(self, f: int, part: int) -> None:
        home = self.home[f]
        for level in self.used[f]:
            parts = self.there[level]
            parts[home] -= 1
            parts[part] += 1
            self.cuts += (parts[part] == 1) - (parts[home] == 0)
        self.loads[home] -= self.seconds[f]
        self.loads[part] += self.seconds[f]
        self.home[f] = part

    def copied(self) -> Split:
        """The division, with copies of functions in other programs where a copy compiles faster than its cuts run."""
        members = [{f for f, home in enumerate(self.home) if home == part} for part in range(self.count)]
        elsewhere: dict[tuple[int, int], int] = {}  # (level, function) to the program whose copy runs it
        for f in sorted(range(len(self.seconds)), key=lambda f: self.seconds[f]):
            for part in range(self.count):
                home = self.home[f]
                saved = [n for n in self.used[f] if self.there[n][home] == 1 and self.there[n][part]]
                if part == home or len(saved) * self.cut_seconds <= self.seconds[f]:
                    continue
                members[part].add(f)
                self.loads[part] += self.seconds[f]
                for n in saved:
                    self.there[n][home] -= 1
                    self.there[n][part] += 1
                    elsewhere[n, f] = part
                self.cuts -= len(saved)
        for f, home in enumerate(self.home):
            if self.used[f] and all((n, f) in elsewhere for n in self.used[f]):
                members[home].discard(f)
                self.loads[home] -= self.seconds[f]
        return Split(
            tuple(tuple(sorted(part)) for part in members),
            tuple(elsewhere.get((n, f), self.home[f]) for n, level in enumerate(self.levels) for f in level),
        )
