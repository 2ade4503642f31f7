"""Offsets in one arena for blocks with known lifetimes (dynamic storage allocation), and an independent check.

Every candidate is a greedy heuristic; the best one wins. Two engines share the work:

* a *sweep* over time with a list of free gaps, best fit, near-linear in the number of blocks: forwards, backwards,
  or from the peak (where the blocks are stacked without gaps) to both ends;
* *lines*: the lowest stretch of the skyline takes the first block that fits into it, from the bottom up
  (Sekiyama et al., "Profile-guided memory optimization for deep neural networks", 2018), which also serves as the
  decoder of a local search over priorities.

The latter runs only while a budget of counted work lasts, so the result never depends on the clock.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphcore.base.errors import VerifyError
from passes.planning.flow import live_sizes

__all__ = ["Block", "Placement", "assign_offsets", "check_no_overlap"]

Ints = NDArray[np.int64]

_ENDLESS = 1 << 62
# Budget of counted work for what is not near-linear: a unit is about a tenth of a microsecond.
_BUDGET = 8_000_000
# Local improvement starts above this excess over the lower bound.
_GOOD_ENOUGH = 0.01


@dataclass(frozen=True)
class Block:
    """A buffer to place.

    Args:
        key: the caller's name for the buffer, unique among the blocks.
        size: bytes.
        start: first step at which the buffer is live.
        end: last step at which it is live (inclusive).
    """

    key: int
    size: int
    start: int
    end: int


@dataclass(frozen=True)
class Placement:
    """Where each block lies.

    Args:
        offsets: block key -> byte offset, a multiple of the alignment.
        total: bytes of the arena.
        lower_bound: the most bytes (aligned) that are live at one step; no placement can be smaller.
        strategy: the name of the winning candidate.
        work: counted units of work spent, for tests of scaling.
    """

    offsets: dict[int, int]
    total: int
    lower_bound: int
    strategy: str
    work: int = 0


@dataclass(frozen=True)
class _Problem:
    """The blocks as arrays: sizes in units of the alignment, times as ranks among the distinct starts."""

    size: Ints
    start: Ints
    end: Ints
    slots: int

    @property
    def count(self) -> int:
        """The number of blocks."""
        return len(self.size)

    def mirrored(self) -> _Problem:
        """The same blocks with time running backwards."""
        return _Problem(self.size, self.slots - 1 - self.end, self.slots - 1 - self.start, self.slots)

    def live(self) -> Ints:
        """Live units at each slot."""
        return live_sizes(self.start, self.end, self.size, self.slots)


class _Gaps:
    """Free ranges of an endless arena: best fit by binary search, neighbours merged on release."""

    def __init__(self, used: int) -> None:
        self.by_size: list[tuple[int, int]] = [(_ENDLESS - used, used)]
        self.end_of: dict[int, int] = {used: _ENDLESS}
        self.start_of: dict[int, int] = {_ENDLESS: used}
        self.work = 0

    def _add(self, low: int, high: int) -> None:
        insort(self.by_size, (high - low, low))
        self.end_of[low] = high
        self.start_of[high] = low

    def _drop(self, low: int, high: int) -> None:
        del self.by_size[bisect_left(self.by_size, (high - low, low))]
        del self.end_of[low]
        del self.start_of[high]

    def take(self, size: int, ceiling: int) -> int:
        """Reserve `size` units in the tightest gap.

        Args:
            size: units.
            ceiling: 0 to use the low end of the gap; otherwise its high end, the endless gap ending at `ceiling`.
        """
        self.work += 8 + len(self.by_size).bit_length()
        _, low = self.by_size[bisect_left(self.by_size, (size, 0))]
        high = self.end_of[low]
        self._drop(low, high)
        at = low
        if ceiling:
            at = max(low, (ceiling if high == _ENDLESS else high) - size)
        if at > low:
            self._add(low, at)
        if at + size < high:
            self._add(at + size, high)
        return at

    def give(self, low: int, size: int) -> None:
        """Release what `take` reserved."""
        self.work += 8 + len(self.by_size).bit_length()
        high = low + size
        before = self.start_of.get(low)
        if before is not None:
            self._drop(before, low)
            low = before
        after = self.end_of.get(high)
        if after is not None:
            self._drop(high, after)
            high = after
        self._add(low, high)


def _sweep(problem: _Problem, offsets: list[int], first: int, used: int, reach: int, ceiling: int) -> int:
    """Place in time order, best fit, the blocks that start after slot `first`; those live at `first` are placed.

    Args:
        problem: the blocks.
        offsets: read for the blocks live at `first` (they fill [0, used) exactly), written for later ones.
        first: slot that is placed already; -1 to begin with an empty arena.
        used: height of what is placed.
        reach: blocks that live at most so many slots beyond their start go to the high ends of gaps (-1: none),
            which keeps what comes and goes from cutting up the space of what stays.
        ceiling: where the endless gap ends for those.

    Returns:
        Units of work.
    """
    later = np.flatnonzero(problem.start > first)
    alive = np.flatnonzero((problem.start <= first) & (problem.end >= first)) if first >= 0 else later[:0]
    later = later[np.lexsort((-problem.size[later], -problem.end[later], problem.start[later]))]
    leaving = np.concatenate((alive, later))
    leaving = leaving[np.argsort(problem.end[leaving], kind="stable")].tolist()
    size, start, end = problem.size.tolist(), problem.start.tolist(), problem.end.tolist()
    gaps = _Gaps(used)
    gone = 0
    for block in later.tolist():
        now = start[block]
        while end[leaving[gone]] < now:
            gaps.give(offsets[leaving[gone]], size[leaving[gone]])
            gone += 1
        offsets[block] = gaps.take(size[block], ceiling if end[block] - now <= reach else 0)
    return gaps.work


def _from_peak(problem: _Problem, stack: str, reach: int) -> tuple[Ints, int]:
    """Stack the blocks live at the peak without gaps, then sweep from there to the end and to the beginning.

    Args:
        problem: the blocks.
        stack: order of the stack from below: by "span" (longest first) or "start" (earliest first).
        reach: see `_sweep`.
    """
    live = problem.live()
    peak = int(np.argmax(live))
    at_peak = np.flatnonzero((problem.start <= peak) & (problem.end >= peak))
    start, end = problem.start[at_peak], problem.end[at_peak]
    rank = {"span": start - end, "start": start}[stack]
    at_peak = at_peak[np.lexsort((-problem.size[at_peak], rank))]
    tops = np.cumsum(problem.size[at_peak])
    placed = np.zeros(problem.count, np.int64)
    placed[at_peak] = tops - problem.size[at_peak]
    offsets, bound = placed.tolist(), int(live[peak])
    work = _sweep(problem, offsets, peak, bound, reach, bound)
    work += _sweep(problem.mirrored(), offsets, problem.slots - 1 - peak, bound, reach, bound)
    return np.array(offsets, np.int64), work


def _one_way(problem: _Problem, reach: int) -> tuple[Ints, int]:
    """Sweep from the first slot to the last."""
    offsets = [0] * problem.count
    work = _sweep(problem, offsets, -1, 0, reach, int(problem.live().max()))
    return np.array(offsets, np.int64), work


class _Skyline:
    """Stretches of equal height over the slots, the lowest first; neighbours merge when they meet in height."""

    def __init__(self, slots: int) -> None:
        self.stretch: dict[int, tuple[int, int]] = {0: (slots - 1, 0)}  # first slot -> last slot, height
        self.first_of: dict[int, int] = {slots - 1: 0}
        self.heap: list[tuple[int, int, int]] = [(0, 0, slots - 1)]

    def lowest(self) -> tuple[int, int, int]:
        """First slot, last slot and height of the lowest stretch."""
        while True:
            height, first, last = self.heap[0]
            if self.stretch.get(first) == (last, height):
                return first, last, height
            heapq.heappop(self.heap)

    def _set(self, first: int, last: int, height: int) -> None:
        self.stretch[first] = (last, height)
        self.first_of[last] = first
        heapq.heappush(self.heap, (height, first, last))

    def lift(self, first: int, last: int) -> None:
        """Raise a stretch that no block fits into to its lower neighbour, and merge."""
        left, right = self.first_of.get(first - 1), self.stretch.get(last + 1)
        height = min(([] if left is None else [self.stretch[left][1]]) + ([] if right is None else [right[1]]))
        del self.stretch[first], self.first_of[last]
        if left is not None and self.stretch[left][1] == height:
            del self.stretch[left], self.first_of[first - 1]
            first = left
        if right is not None and right[1] == height:
            del self.stretch[last + 1], self.first_of[right[0]]
            last = right[0]
        self._set(first, last, height)

    def put(self, first: int, last: int, start: int, end: int, size: int) -> None:
        """Put a block of slots start..end onto the stretch first..last."""
        _, height = self.stretch[first]
        del self.stretch[first], self.first_of[last]
        if start > first:
            self._set(first, start - 1, height)
        self._set(start, end, height + size)
        if end < last:
            self._set(end + 1, last, height)


def _lines(problem: _Problem, rank: Ints, touch: bool, limit: int, budget: int) -> tuple[Ints | None, int]:
    """Fill the lowest stretch of the skyline with the block of lowest rank that fits into it, again and again.

    Args:
        problem: the blocks.
        rank: a permutation; the lowest goes first.
        touch: prefer blocks that end where the stretch ends, on both sides or on one.
        limit: give up once a block would end above this height.
        budget: give up once so much work is done.

    Returns:
        The offsets, or None when given up; the work done.
    """
    count, slots = problem.count, problem.slots
    order = np.argsort(problem.start, kind="stable")
    begin = np.searchsorted(problem.start[order], np.arange(slots + 1)).tolist()  # first block from each slot on
    start, end, rank = problem.start[order], problem.end[order], rank[order]
    until = end.copy()  # of what is placed: never
    sizes, starts, ends = problem.size[order].tolist(), start.tolist(), end.tolist()
    offsets = np.zeros(count, np.int64)
    skyline, work, left = _Skyline(slots), 0, count
    while left:
        first, last, height = skyline.lowest()
        low, high = begin[first], begin[last + 1]
        work += 60 + (high - low) // 64
        fits = np.flatnonzero(until[low:high] <= last)
        if not len(fits):
            skyline.lift(first, last)
            continue
        fits += low
        key = rank[fits]
        if touch:
            key = key - count * ((start[fits] == first).astype(np.int64) + (end[fits] == last))
        block = int(fits[key.argmin()])
        if height + sizes[block] > limit or work > budget:
            return None, work
        offsets[block] = height
        until[block] = slots
        left -= 1
        skyline.put(first, last, starts[block], ends[block], sizes[block])
    result = np.empty(count, np.int64)
    result[order] = offsets
    return result, work


class _Search:
    """Runs candidates against one problem, keeps the best placement and counts the work."""

    def __init__(self, problem: _Problem) -> None:
        self.problem = problem
        self.mirror = problem.mirrored()
        self.bound = int(problem.live().max())
        self.best = np.zeros(problem.count, np.int64)
        self.total = _ENDLESS
        self.name = ""
        self.work = 0
        self.left = _BUDGET
        self.seeds: list[tuple[int, int, bool, bool, Ints]] = []  # total, number, backward, touch, rank

    def offer(self, name: str, offsets: Ints) -> None:
        """Keep the placement if it is the smallest so far (ties to the earlier)."""
        total = int((offsets + self.problem.size).max())
        if total < self.total:
            self.best, self.total, self.name = offsets, total, name

    @property
    def done(self) -> bool:
        """Whether the bound is met."""
        return self.total == self.bound

    def run(self) -> None:
        """Candidates from cheap to dear, until one meets the bound or the budget is spent."""
        for phase in (self._sweeps, self._lines_ranks, self._improve):
            phase()
            if self.done:
                return

    def _sweeps(self) -> None:
        candidates: dict[str, Callable[[int], tuple[Ints, int]]] = {
            "from-peak by lifetime": lambda reach: _from_peak(self.problem, "span", reach),
            "from-peak by start": lambda reach: _from_peak(self.problem, "start", reach),
            "event-order": lambda reach: _one_way(self.problem, reach),
            "reverse event-order": lambda reach: _one_way(self.mirror, reach),
        }
        typical = int(np.median(self.problem.end - self.problem.start))
        for reach in (-1, 2 * typical, 8 * typical):
            for name, place in candidates.items():
                offsets, work = place(reach)
                self.work += work
                self.offer(name if reach < 0 else f"{name}, two-ended up to {reach}", offsets)
                if self.done:
                    return

    def _ranks(self, problem: _Problem) -> dict[str, Ints]:
        span = problem.end - problem.start
        return {
            "start": np.lexsort((-span, problem.start)),
            "start and size": np.lexsort((-problem.size, problem.start)),
            "lifetime": np.lexsort((-problem.size, -span)),
            "size": np.lexsort((-span, -problem.size)),
            "area": np.argsort(-problem.size.astype(np.float64) * (span + 1), kind="stable"),
        }

    def _spend(self, work: int) -> None:
        self.work += work
        self.left -= work

    def _lines_ranks(self) -> None:
        for backward, problem in ((False, self.problem), (True, self.mirror)):
            for name, order in self._ranks(problem).items():
                for touch in (True, False):
                    rank = _inverse(order)
                    offsets, work = _lines(problem, rank, touch, _ENDLESS, self.left)
                    self._spend(work)
                    if offsets is None:
                        return
                    self.offer(f"lowest line by {name}{', backwards' if backward else ''}", offsets)
                    total = int((offsets + problem.size).max())
                    self.seeds.append((total, len(self.seeds), backward, touch, rank))
                    if self.done:
                        return

    def _improve(self) -> None:
        """Change priorities at random, more for blocks that stick out above the bound, and keep what is no worse."""
        if not self.seeds or self.total <= self.bound * (1 + _GOOD_ENOUGH):
            return
        total, _, backward, touch, rank = min(self.seeds)
        problem = self.mirror if backward else self.problem
        draw = np.random.default_rng(0)
        offsets, work = _lines(problem, rank, touch, _ENDLESS, _ENDLESS)
        self._spend(work)
        while self.left > 0 and offsets is not None and total > self.bound:
            trial = _disturbed(problem, rank, offsets, total, self.bound, draw)
            found, work = _lines(problem, trial, touch, total, self.left)
            self._spend(work)
            if found is not None:
                rank, offsets = trial, found
                total = int((found + problem.size).max())
                self.offer("lowest line, improved", found)


def _inverse(order: Ints) -> Ints:
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def _disturbed(problem: _Problem, rank: Ints, offsets: Ints, total: int, bound: int, draw: np.random.Generator) -> Ints:
    """Another permutation near `rank`: either a few swaps, or some blocks that end high moved forward."""
    count = problem.count
    if draw.random() < 0.5:
        trial = rank.copy()
        for left, right in draw.integers(0, count, (int(draw.integers(1, 5)), 2)).tolist():
            trial[left], trial[right] = trial[right], trial[left]
        return trial
    blamed = offsets + problem.size > bound + (total - bound) * draw.random()
    moved = rank - count * 0.3 * draw.random(count) * (blamed & (draw.random(count) < 0.5))
    moved += draw.normal(0, count * 0.05, count) * (draw.random(count) < 0.1)
    return _inverse(np.argsort(moved, kind="stable"))


def _problem_of(blocks: Sequence[Block], alignment: int) -> _Problem:
    """Round sizes up to units and shorten time to the distinct starts: two blocks that meet, meet at a start."""
    size = np.array([-(-block.size // alignment) for block in blocks], np.int64)
    start = np.array([block.start for block in blocks], np.int64)
    end = np.array([block.end for block in blocks], np.int64)
    slots = np.unique(start)
    return _Problem(size, slots.searchsorted(start), slots.searchsorted(end, side="right") - 1, len(slots))


def assign_offsets(blocks: Sequence[Block], alignment: int = 128) -> Placement:
    """Give each block an offset in one arena so that blocks live at a common step never overlap.

    Args:
        blocks: what to place; keys must be unique, sizes in bytes, lifetimes in steps (inclusive).
        alignment: bytes; offsets are multiples of it and sizes are rounded up to it.

    Returns:
        The smallest arena among the candidates; the same for the same blocks, whatever the machine or its load.

    Raises:
        ValueError: an argument makes no sense (a negative size, an end before its start, a repeated key).
        OverflowError: the sizes add up to 2**62 bytes or more.
    """
    if alignment < 1:
        raise ValueError(f"alignment must be at least 1, not {alignment}")
    for block in blocks:
        if block.size < 0 or block.end < block.start:
            raise ValueError(f"block {block.key}: size {block.size}, live from {block.start} to {block.end}")
    offsets = {block.key: 0 for block in blocks}
    if len(offsets) != len(blocks):
        raise ValueError("two blocks have the same key")
    if sum(block.size + alignment for block in blocks) >= _ENDLESS:
        raise OverflowError("the sizes of the blocks add up to 2**62 bytes or more")
    solid = [block for block in blocks if block.size]  # an empty block fits anywhere
    if not solid:
        return Placement(offsets, 0, 0, "empty")
    search = _Search(_problem_of(solid, alignment))
    search.run()
    for block, at in zip(solid, search.best.tolist(), strict=True):
        offsets[block.key] = at * alignment
    return Placement(offsets, search.total * alignment, search.bound * alignment, search.name, search.work)


def check_no_overlap(blocks: Sequence[Block], offsets: Mapping[int, int]) -> None:
    """Prove by a sweep over time that no two blocks live at a common step share a byte.

    It shares nothing with `assign_offsets`. The live ranges are kept sorted; as they are disjoint until the first
    fault, a new range can only collide with its two neighbours.

    Args:
        blocks: the blocks, sizes in bytes (as used, not rounded up).
        offsets: block key -> byte offset.

    Raises:
        VerifyError: two blocks overlap, or a block has no offset, a negative one, or a lifetime or key that is wrong.
    """
    seen: set[int] = set()
    for block in blocks:
        if block.key in seen:
            raise VerifyError(f"two blocks have the key {block.key}")
        seen.add(block.key)
        if offsets.get(block.key, -1) < 0 or block.size < 0 or block.end < block.start:
            raise VerifyError(f"{block} cannot be at offset {offsets.get(block.key)}")
    # At one step blocks leave (0) before others arrive (1); a block is still live at its own last step.
    events = [(block.start, 1, number) for number, block in enumerate(blocks) if block.size]
    events += [(block.end + 1, 0, number) for number, block in enumerate(blocks) if block.size]
    live: list[tuple[int, int]] = []  # offset, number of the block
    for _, arrives, number in sorted(events):
        block = blocks[number]
        entry = (offsets[block.key], number)
        spot = bisect_left(live, entry)
        if not arrives:
            del live[spot]
            continue
        for low, other in live[max(spot - 1, 0) : spot + 1]:
            if low < entry[0] + block.size and entry[0] < low + blocks[other].size:
                raise VerifyError(f"{block} at offset {entry[0]} overlaps {blocks[other]} at offset {low}")
        live.insert(spot, entry)
