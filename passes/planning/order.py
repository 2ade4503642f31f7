"""The order of a plan's steps with the lowest simulated peak of live bytes, among several candidates.

Steps are abstract: the buffers they read and write, their workspace, extra steps that must come before. Hazards follow
from the steps as built (a read sees the last write before it; a write waits for the reads of what it replaces), so any
topological order of them computes the same. All of it is near-linear in steps and edges, without recursion.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from graphcore.base.errors import VerifyError

__all__ = ["Ordering", "StepInfo", "best_order", "candidate_orders", "level_of", "simulate"]


@dataclass(frozen=True)
class StepInfo:
    """What ordering needs to know of a step.

    Args:
        inputs: ids of the buffers it reads.
        outputs: ids of the buffers it writes; one that is also an input is written in place.
        workspace: bytes that are live during this step only.
        after: numbers of steps that must come before, beyond what the buffers imply.
        level: steps of one level may share a launch; used by the candidate "by level" only.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    workspace: int = 0
    after: tuple[int, ...] = ()
    level: int = 0


@dataclass(frozen=True)
class Ordering:
    """A topological order of steps.

    Args:
        order: step numbers, first to last.
        peak: the most bytes live during a step.
        name: the candidate that won.
        work: counted units of work of all candidates, for tests of scaling.
    """

    order: tuple[int, ...]
    peak: int
    name: str
    work: int = 0


class _Flow:
    """The dependencies of the steps, each edge once per reason, and a count of the work."""

    def __init__(self, steps: Sequence[StepInfo]) -> None:
        self.count = len(steps)
        self.before: list[list[int]] = [[] for _ in steps]
        self.behind: list[list[int]] = [[] for _ in steps]
        self.work = 0
        writer: dict[int, int] = {}
        readers: dict[int, list[int]] = {}
        for number, step in enumerate(steps):
            for buffer in step.inputs:
                if buffer in writer:
                    self._edge(writer[buffer], number)
                readers.setdefault(buffer, []).append(number)
            for buffer in step.outputs:
                for reader in readers.pop(buffer, ()):
                    self._edge(reader, number)
                if buffer in writer:
                    self._edge(writer[buffer], number)
                writer[buffer] = number
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

    def complete(self, order: list[int]) -> list[int]:
        """The order, if it has all the steps; otherwise the dependencies have a cycle."""
        if len(order) < self.count:
            stuck = sorted(set(range(self.count)) - set(order))
            raise VerifyError(f"the steps depend on each other in a circle: {len(stuck)} of them, such as {stuck[:8]}")
        return order


def _by_key(flow: _Flow, key: Sequence[int]) -> list[int]:
    """The topological order that always takes the ready step of least key, then least number."""
    waiting = [len(before) for before in flow.before]
    ready = [(key[number], number) for number, missing in enumerate(waiting) if not missing]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        flow.work += len(ready).bit_length()
        _, number = heapq.heappop(ready)
        order.append(number)
        for then in flow.behind[number]:
            flow.work += 1
            waiting[then] -= 1
            if not waiting[then]:
                heapq.heappush(ready, (key[then], then))
    return flow.complete(order)


def _depth_first(flow: _Flow) -> list[int]:
    """From each last step, what it needs comes directly before it: depth-first post-order along the dependencies."""
    order: list[int] = []
    seen = [False] * flow.count
    for last in range(flow.count):
        if flow.behind[last] or seen[last]:
            continue
        seen[last] = True
        path = [(last, iter(flow.before[last]))]
        while path:
            flow.work += 1
            number, rest = path[-1]
            for needed in rest:
                flow.work += 1
                if not seen[needed]:
                    seen[needed] = True
                    path.append((needed, iter(flow.before[needed])))
                    break
            else:
                order.append(number)
                path.pop()
    return order


def _reverse_depth_first(flow: _Flow) -> list[int]:
    """Built from the end: each step as late as possible, directly before the earliest step that needs it."""
    waiting = [len(behind) for behind in flow.behind]
    ready = [number for number, missing in enumerate(waiting) if not missing]
    order: list[int] = []
    while ready:
        number = ready.pop()
        order.append(number)
        for needed in flow.before[number]:
            flow.work += 1
            waiting[needed] -= 1
            if not waiting[needed]:
                ready.append(needed)
    order.reverse()
    return flow.complete(order)


class _Memory:
    """How many steps touch each buffer, and which buffers are there from the beginning."""

    def __init__(
        self,
        steps: Sequence[StepInfo],
        sizes: Mapping[int, int],
        keep: AbstractSet[int],
        external: AbstractSet[int],
    ) -> None:
        self.touched = [tuple({*step.inputs, *step.outputs}) for step in steps]
        self.cost: dict[int, int] = {}
        self.uses: dict[int, int] = {}
        self.users: dict[int, int] = {}  # sum of the step numbers: when one use is left, this tells whose it is
        self.initial: set[int] = set()
        self.keep = keep
        for number, step in enumerate(steps):
            read = set(step.inputs)
            for buffer in self.touched[number]:
                if buffer not in self.cost:
                    self.cost[buffer] = 0 if buffer in external else sizes[buffer]
                    self.uses[buffer] = self.users[buffer] = 0
                    if buffer in read:
                        self.initial.add(buffer)
                self.uses[buffer] += 1
                self.users[buffer] += number

    def initial_bytes(self) -> int:
        """Bytes live before the first step: buffers that are read before any step writes them."""
        return sum(self.cost[buffer] for buffer in self.initial)

    def peak(self, steps: Sequence[StepInfo], order: Sequence[int]) -> int:
        """The most bytes live during a step."""
        left = dict(self.uses)
        there = set(self.initial)
        live = peak = self.initial_bytes()
        for number in order:
            for buffer in steps[number].outputs:
                if buffer not in there:
                    there.add(buffer)
                    live += self.cost[buffer]
            peak = max(peak, live + steps[number].workspace)
            for buffer in self.touched[number]:
                left[buffer] -= 1
                if not left[buffer] and buffer not in self.keep:
                    live -= self.cost[buffer]
        return peak


def _greedy(flow: _Flow, memory: _Memory, steps: Sequence[StepInfo], growth_first: bool) -> list[int]:
    """List scheduling by what a step needs while it runs and what it leaves behind.

    What a step frees grows when it becomes the last user of a buffer; each buffer does so once, so stale heap entries
    are as few as buffers and are skipped when they come up.

    Args:
        flow: the dependencies.
        memory: the buffers.
        steps: the steps.
        growth_first: order by the net change of live bytes; otherwise steps that free at least what they allocate come
            first, and among them, and among the others, the least need.
    """
    allocates = [0] * flow.count
    frees = [0] * flow.count
    there = set(memory.initial)
    for number, step in enumerate(steps):
        for buffer in step.outputs:
            if buffer not in there:
                there.add(buffer)
                allocates[number] += memory.cost[buffer]
    left, users = dict(memory.uses), dict(memory.users)

    def last_use(buffer: int) -> int:
        """Note that one use of the buffer is left; the step that has it."""
        if buffer not in memory.keep:
            frees[users[buffer]] += memory.cost[buffer]
        return users[buffer]

    def key(number: int) -> tuple[int, int, int]:
        growth, need = allocates[number] - frees[number], allocates[number] + steps[number].workspace
        return (growth, need, number) if growth_first else (int(growth > 0), need, number)

    for buffer, uses in left.items():
        if uses == 1:
            last_use(buffer)
    waiting = [len(before) for before in flow.before]
    done = [False] * flow.count
    ready = [key(number) for number, missing in enumerate(waiting) if not missing]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        flow.work += len(ready).bit_length()
        number = heapq.heappop(ready)[2]
        if done[number]:
            continue
        done[number] = True
        order.append(number)
        for buffer in memory.touched[number]:
            flow.work += 1
            left[buffer] -= 1
            users[buffer] -= number
            if left[buffer] == 1:
                user = last_use(buffer)
                if not waiting[user]:
                    heapq.heappush(ready, key(user))
        for then in flow.behind[number]:
            flow.work += 1
            waiting[then] -= 1
            if not waiting[then]:
                heapq.heappush(ready, key(then))
    return flow.complete(order)


def simulate(
    steps: Sequence[StepInfo],
    order: Sequence[int],
    sizes: Mapping[int, int],
    keep: AbstractSet[int] = frozenset(),
    external: AbstractSet[int] = frozenset(),
) -> int:
    """Peak of live bytes when the steps run in the given order.

    A buffer is live from the step that first writes it (from the beginning if it is read before that) to the last step
    that touches it; during a step its inputs, outputs and workspace are live together.

    Args:
        steps: the steps as built.
        order: step numbers, a topological order.
        sizes: buffer id -> bytes, for all buffers that are not external.
        keep: buffers that are never freed.
        external: buffers that cost nothing.

    Returns:
        Bytes.

    Raises:
        ValueError: `order` does not hold each step once.
    """
    if sorted(order) != list(range(len(steps))):
        raise ValueError(f"not an order of {len(steps)} steps, each once")
    return _Memory(steps, sizes, keep, external).peak(steps, order)


def best_order(
    steps: Sequence[StepInfo],
    sizes: Mapping[int, int],
    keep: AbstractSet[int] = frozenset(),
    external: AbstractSet[int] = frozenset(),
) -> Ordering:
    """Simulate several topological orders of the steps and keep the one with the lowest peak.

    Args:
        steps: the steps as built.
        sizes: buffer id -> bytes, for all buffers that are not external.
        keep: buffers that are never freed.
        external: buffers that cost nothing.

    Returns:
        The order with the lowest peak, ties to the earlier candidate: as built, by level, depth first, reverse depth
        first, least peak first, least growth first.

    Raises:
        VerifyError: the dependencies have a cycle, or name a step that does not exist.
    """
    flow = _Flow(steps)
    memory = _Memory(steps, sizes, keep, external)
    touches = sum(map(len, memory.touched))
    best: tuple[int, str, list[int]] | None = None
    for name, order in _candidates(flow, memory, steps):
        peak = memory.peak(steps, order)
        flow.work += touches
        if best is None or peak < best[0]:
            best = (peak, name, order)
    assert best is not None
    return Ordering(tuple(best[2]), best[0], best[1], flow.work)


def candidate_orders(
    steps: Sequence[StepInfo],
    sizes: Mapping[int, int],
    keep: AbstractSet[int] = frozenset(),
    external: AbstractSet[int] = frozenset(),
) -> dict[str, list[int]]:
    """The orders that `best_order` chooses from, by name; for the arguments and errors see there."""
    return dict(_candidates(_Flow(steps), _Memory(steps, sizes, keep, external), steps))


def _candidates(flow: _Flow, memory: _Memory, steps: Sequence[StepInfo]) -> Iterator[tuple[str, list[int]]]:
    yield "as built", _by_key(flow, range(len(steps)))
    yield "by level", _by_key(flow, [step.level for step in steps])
    yield "depth first", _depth_first(flow)
    yield "reverse depth first", _reverse_depth_first(flow)
    yield "least peak first", _greedy(flow, memory, steps, growth_first=False)
    yield "least growth first", _greedy(flow, memory, steps, growth_first=True)


def level_of(steps: Sequence[StepInfo]) -> list[int]:
    """Level of each step: 0 without dependencies, otherwise one more than the highest of those it depends on.

    Args:
        steps: the steps as built; their own `level` is not looked at.

    Raises:
        VerifyError: the dependencies have a cycle, or name a step that does not exist.
    """
    flow = _Flow(steps)
    level = [0] * len(steps)
    for number in _by_key(flow, range(len(steps))):
        level[number] = 1 + max((level[other] for other in flow.before[number]), default=-1)
    return level
