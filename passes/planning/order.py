"""The order of steps with the lowest peak of live bytes, among several candidates.

All of it is near-linear in steps and edges, without recursion.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from passes.planning.flow import Flow

__all__ = ["Ordering", "best_order", "candidate_orders", "simulate"]


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


def _by_key(flow: Flow, key: Sequence[int]) -> list[int]:
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


def _depth_first(flow: Flow) -> list[int]:
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


def _reverse_depth_first(flow: Flow) -> list[int]:
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


def _greedy(flow: Flow, sizes: Mapping[int, int], keep: AbstractSet[int], growth_first: bool) -> list[int]:
    """List scheduling by what a step needs while it runs and what it leaves behind.

    What a step frees grows when it becomes the last user of a value; each value does so once, so stale heap entries
    are as few as values and are skipped when they come up.

    Args:
        flow: the dependencies.
        sizes: bytes of the values that count.
        keep: values that are never freed.
        growth_first: order by the net change of live bytes; otherwise steps that free at least what they allocate come
            first, and among them, and among the others, the least need.
    """
    allocates, frees = [0] * flow.count, [0] * flow.count
    left: dict[int, int] = {}
    users: dict[int, int] = {}  # sum of the steps' numbers: when one use is left, this tells whose it is
    for number, touched in enumerate(flow.touched):
        for value in touched:
            if value not in left:
                left[value] = users[value] = 0
                if value not in flow.initial:
                    allocates[number] += sizes.get(value, 0)
            left[value] += 1
            users[value] += number

    def last_use(value: int) -> int:
        """Note that one use of the value is left; the step that has it."""
        if value not in keep:
            frees[users[value]] += sizes.get(value, 0)
        return users[value]

    def key(number: int) -> tuple[int, int, int]:
        growth, need = allocates[number] - frees[number], allocates[number] + flow.steps[number].workspace
        return (growth, need, number) if growth_first else (int(growth > 0), need, number)

    for value, uses in left.items():
        if uses == 1:
            last_use(value)
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
        for value in flow.touched[number]:
            flow.work += 1
            left[value] -= 1
            users[value] -= number
            if left[value] == 1:
                user = last_use(value)
                if not waiting[user]:
                    heapq.heappush(ready, key(user))
        for then in flow.behind[number]:
            flow.work += 1
            waiting[then] -= 1
            if not waiting[then]:
                heapq.heappush(ready, key(then))
    return flow.complete(order)


def simulate(flow: Flow, order: Sequence[int], sizes: Mapping[int, int], keep: AbstractSet[int] = frozenset()) -> int:
    """Peak of live bytes when the steps run in the given order.

    A value is live from the step that first writes it (from the beginning if it is read before that) to the last step
    that touches it; during a step what it reads and writes and its workspace are live together.

    Args:
        flow: the steps.
        order: step numbers, a topological order.
        sizes: value -> bytes; others cost nothing.
        keep: values that are never freed.

    Raises:
        ValueError: `order` does not hold each step once.
    """
    if sorted(order) != list(range(flow.count)):
        raise ValueError(f"not an order of {flow.count} steps, each once")
    times = [0] * flow.count
    for time, number in enumerate(order):
        times[number] = time
    return flow.peak(times, sizes, keep)


def best_order(flow: Flow, sizes: Mapping[int, int], keep: AbstractSet[int] = frozenset()) -> Ordering:
    """Simulate several topological orders of the steps and keep the one with the lowest peak.

    Args:
        flow: the steps.
        sizes: value -> bytes; others cost nothing.
        keep: values that are never freed.

    Returns:
        The order with the lowest peak, ties to the earlier candidate: as built, by level, depth first, reverse depth
        first, least peak first, least growth first.

    Raises:
        VerifyError: the dependencies have a circle.
    """
    best: tuple[int, str, list[int]] | None = None
    for name, order in _candidates(flow, sizes, keep):
        peak = simulate(flow, order, sizes, keep)
        if best is None or peak < best[0]:
            best = (peak, name, order)
    assert best is not None
    return Ordering(tuple(best[2]), best[0], best[1], flow.work)


def candidate_orders(
    flow: Flow, sizes: Mapping[int, int], keep: AbstractSet[int] = frozenset()
) -> dict[str, list[int]]:
    """The orders that `best_order` chooses from, by name; for the arguments and errors see there."""
    return dict(_candidates(flow, sizes, keep))


def _candidates(flow: Flow, sizes: Mapping[int, int], keep: AbstractSet[int]) -> Iterator[tuple[str, list[int]]]:
    yield "as built", _by_key(flow, range(flow.count))
    yield "by level", _by_key(flow, flow.levels())
    yield "depth first", _depth_first(flow)
    yield "reverse depth first", _reverse_depth_first(flow)
    yield "least peak first", _greedy(flow, sizes, keep, growth_first=False)
    yield "least growth first", _greedy(flow, sizes, keep, growth_first=True)
