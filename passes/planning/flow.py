"""What flows where: the one analysis of steps that levels, order, placement and updates in place ask.

Steps are abstract here: the values that they read and write, their workspace, other steps that must come before. In a
list of steps a read sees the last write before it, and a write waits for the reads of what it replaces, so any
topological order of the dependencies computes the same. While a plan is made two more rules hold. State is functional:
whatever reads a *state* value reads the one from before the run, wherever it stands in the list. And a value may be
written *over* another one, in whose memory it is to live: then its writer waits for every other reader of that one.

All of it is linear in steps and edges, without recursion.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphcore.base.errors import VerifyError
from graphcore.base.shapes import bind
from graphcore.plan.plan import ARENA, Plan

__all__ = ["Access", "Flow", "accesses", "arena_sizes", "lifetimes", "live_sizes"]


@dataclass(frozen=True)
class Access:
    """What one step does with memory.

    Args:
        reads: ids of the values it reads.
        writes: ids of the values it writes; one that is also read is changed in place.
        workspace: bytes that are live during this step only.
        after: numbers of steps that must come before, beyond what the values imply.
    """

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    workspace: int = 0
    after: tuple[int, ...] = ()


class Flow:
    """Dependencies and lifetimes of a list of steps.

    Args:
        steps: in an order in which they compute what they should, but for state and ``over``.
        state: values whose readers read what was there before the run.
        over: new value -> the value whose memory it is written to.

    Attributes:
        before, behind: for every step those that it directly depends on and those that depend on it, once a reason.
        touched: for every step the values it reads or writes, each once.
        initial: values that are there before the first step: they are read before a step writes them.
        work: counted units of work, for tests of scaling.

    Raises:
        VerifyError: a step comes after itself or after one that does not exist.
    """

    def __init__(
        self,
        steps: Sequence[Access],
        state: AbstractSet[int] = frozenset(),
        over: Mapping[int, int] | None = None,
    ) -> None:
        self.steps = steps
        self.count = len(steps)
        self.before: list[list[int]] = [[] for _ in steps]
        self.behind: list[list[int]] = [[] for _ in steps]
        self.touched = [tuple(dict.fromkeys((*step.reads, *step.writes))) for step in steps]
        self.initial: set[int] = set()
        self.readers: dict[int, list[int]] = {}
        self.writers: dict[int, list[int]] = {}
        self.work = 0
        for number, step in enumerate(steps):
            for value in step.reads:
                self.readers.setdefault(value, []).append(number)
                if value not in self.writers:
                    self.initial.add(value)
            for value in step.writes:
                self.writers.setdefault(value, []).append(number)
        self._follow_the_list(state)
        replaced = {**{value: value for value in state if value in self.writers}, **(over or {})}
        for new, old in replaced.items():
            for writer in self.writers.get(new, ()):
                for earlier in (*self.readers.get(old, ()), *(() if new == old else self.writers.get(old, ()))):
                    self._edge(earlier, writer)

    def _follow_the_list(self, state: AbstractSet[int]) -> None:
        """A read comes after the last write before it; a write after that one's readers, and after the last write."""
        writer: dict[int, int] = {}
        readers: dict[int, list[int]] = {}
        for number, step in enumerate(self.steps):
            for value in step.reads:
                if value not in state:
                    if value in writer:
                        self._edge(writer[value], number)
                    readers.setdefault(value, []).append(number)
            for value in step.writes:
                if value not in state:
                    for reader in readers.pop(value, ()):
                        self._edge(reader, number)
                    if value in writer:
                        self._edge(writer[value], number)
                    writer[value] = number
            for other in step.after:
                if not 0 <= other < self.count:
                    raise VerifyError(f"step {number} comes after step {other}, which does not exist")
                if other == number:
                    raise VerifyError(f"step {number} comes after itself")
                self._edge(other, number)

    def _edge(self, first: int, then: int) -> None:
        self.work += 1
        if first != then:
            self.before[then].append(first)
            self.behind[first].append(then)

    # Dependencies

    def settled(self) -> list[int]:
        """Steps in a topological order; those that are in a circle, or wait for one, are missing."""
        waiting = [len(before) for before in self.before]
        order = [number for number, missing in enumerate(waiting) if not missing]
        for number in order:
            for then in self.behind[number]:
                self.work += 1
                waiting[then] -= 1
                if not waiting[then]:
                    order.append(then)
        return order

    def circular(self) -> set[int]:
        """Steps that are in a circle, or wait for one."""
        return set(range(self.count)).difference(self.settled())

    def complete(self, order: list[int]) -> list[int]:
        """The order, if it has all the steps.

        Raises:
            VerifyError: it has not, because the dependencies have a circle.
        """
        if len(order) < self.count:
            stuck = sorted(set(range(self.count)) - set(order))
            raise VerifyError(f"the steps depend on each other in a circle: {len(stuck)} of them, such as {stuck[:8]}")
        return order

    def levels(self) -> list[int]:
        """The level of each step: 0 without dependencies, otherwise one more than the highest of those it depends on.

        Raises:
            VerifyError: the dependencies have a circle.
        """
        level = [0] * self.count
        for number in self.complete(self.settled()):
            level[number] = 1 + max((level[other] for other in self.before[number]), default=-1)
        return level

    def latest_levels(self, levels: Sequence[int]) -> list[int]:
        """One less than the lowest level of those that depend on a step; what nothing depends on keeps its level."""
        late = list(levels)
        for number in sorted(range(self.count), key=lambda i: -levels[i]):
            if self.behind[number]:
                late[number] = min(late[then] for then in self.behind[number]) - 1
        return late

    def follows(self, first: int, others: Collection[int]) -> int | None:
        """The earliest of some steps that depends on ``first``, or None; dependencies must go down the list."""
        if not others:
            return None
        end, wanted, reached = max(others), set(others), {first}
        stack = [first]
        while stack:
            for then in self.behind[stack.pop()]:
                if then <= end and then not in reached:
                    reached.add(then)
                    stack.append(then)
        return min(wanted & reached - {first}, default=None)

    # Memory

    def lifetimes(
        self, times: Sequence[int], keep: AbstractSet[int] = frozenset(), initial: AbstractSet[int] = frozenset()
    ) -> dict[int, tuple[int, int]]:
        """First and last time at which each value must keep its contents.

        Args:
            times: when each step runs, from 0; steps of one time may run at once.
            keep: values that are needed after the last step, if a step touches them.
            initial: values that are there before the first step, beyond those that are read before they are written.

        Returns:
            Times from -1, before the first step, to one more than the last.
        """
        end = max(times, default=0) + 1
        lives = dict.fromkeys(initial, (-1, -1))
        for touched, time in zip(self.touched, times, strict=True):
            for value in touched:
                first, last = lives.get(value, (-1 if value in self.initial else time, time))
                lives[value] = (min(first, time), max(last, time))
        for value in keep & lives.keys():
            lives[value] = (lives[value][0], end)
        return lives

    def peak(
        self,
        times: Sequence[int],
        sizes: Mapping[int, int],
        keep: AbstractSet[int] = frozenset(),
        initial: AbstractSet[int] = frozenset(),
    ) -> int:
        """The most bytes that are live at a time when steps run.

        Args:
            times, keep, initial: as for `lifetimes`.
            sizes: bytes of the values that count.
        """
        lives = [
            (first, last, sizes[v]) for v, (first, last) in self.lifetimes(times, keep, initial).items() if v in sizes
        ]
        self.work += len(lives)
        slots = max(times, default=0) + 3
        first, last, size = np.array(lives, np.int64).reshape(-1, 3).T
        live = live_sizes(first + 1, last + 1, size, slots)
        np.add.at(live, np.array(times, np.int64) + 1, np.array([step.workspace for step in self.steps], np.int64))
        return int(live.max(initial=0))


def live_sizes(
    first: NDArray[np.int64], last: NDArray[np.int64], size: NDArray[np.int64], slots: int
) -> NDArray[np.int64]:
    """What is live at each of some times together: things of a size from their first to their last time, both
    included."""
    change = np.zeros(slots + 1, np.int64)
    np.add.at(change, first, size)
    np.subtract.at(change, last + 1, size)
    return np.cumsum(change)[:-1]


# Plans


def accesses(plan: Plan) -> list[Access]:
    """What the steps of a plan do with its buffers; an unwritten workspace holds nothing that could be read."""
    known = {*plan.feeds} | {b.number for b in plan.buffers if b.space != ARENA}
    found = []
    for step in plan.steps:
        found.append(Access(tuple(n for n in step.reads if n in known), step.writes))
        known.update(step.writes)
    return found


def arena_sizes(plan: Plan, sizes: Mapping[str, int]) -> dict[int, int]:
    """Bytes of every buffer in the arena."""
    return {b.number: int(bind(b.nbytes, sizes)) for b in plan.buffers if b.space == ARENA and b.role != "replaced"}


def lifetimes(plan: Plan) -> dict[int, tuple[int, int]]:
    """First and last level in which each arena buffer must keep its contents.

    Steps of one level may run at the same time, so a lifetime covers whole levels. Feeds are there before the first
    level (-1), fetches are read after the last.
    """
    fed = dict.fromkeys(plan.feeds)
    fetched = dict.fromkeys(f.buffer for f in plan.fetches if f.buffer is not None)
    levels = [s.level for s in plan.steps]
    end = max(levels, default=0) + 1
    found = Flow(accesses(plan)).lifetimes(levels, fetched.keys(), fed.keys())
    lives = {number: life for number, life in found.items() if plan.buffers[number].space == ARENA}
    for step in plan.steps:  # a parameter that a kernel neither loads nor stores needs a place all the same
        for number in (*step.buffers, *step.workspace):
            if plan.buffers[number].space == ARENA and number not in lives:
                lives[number] = (step.level, step.level)
    for number in fetched:
        if plan.buffers[number].space == ARENA and number not in lives:  # it is empty, so no step makes it
            lives[number] = (end, end)
    return lives
