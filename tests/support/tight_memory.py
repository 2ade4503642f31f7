"""A session's memory as blocks without slack, in which values take turns at the ends.

A session's memory is one block with values side by side, where a load beyond a value's end goes unseen. So every plan
runs many times, each time with another value at the very end of a block without slack (and, as the order is rotated,
another one at the very beginning) and other contents in what nothing has written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from backends.opencl import memory
from graphcore.base.shapes import bind

GPU = "as-gpu"
_ALIGN = 128
_LAUNCHES = ("one", "step", "level")
_FILLINGS = (255, 0, 60)  # what values that nothing has written look like: NaN or -1, zero, a number near 0.01


def rotated(sizes: Mapping[Any, int], turn: int) -> tuple[dict[Any, int], int]:
    """Offsets side by side in an order that puts another one last at every turn, and the end of the last."""
    keys = list(sizes)
    turn = turn % len(keys) if keys else 0
    offsets: dict[Any, int] = {}
    end = 0
    for key in keys[turn + 1 :] + keys[: turn + 1]:
        offsets[key] = -(-end // _ALIGN) * _ALIGN
        end = offsets[key] + sizes[key]
    return offsets, end


class _Block(memory.Memory):
    """Memory that is always written as a whole: a transfer makes Oclgrind forget that the rest of a buffer was ever
    written."""

    def write(self, offset: int, array: Any) -> None:
        whole = self.read(0, (self.size,), np.dtype(np.uint8))
        whole[offset : offset + array.nbytes] = (
            np.ascontiguousarray(array).reshape(-1).view(np.uint8)[: max(self.size - offset, 0)]
        )
        super().write(0, whole)


class Tight:
    """Makes a session's plans run in memory without slack, in every rotation of their values, with equal results.

    Args:
        backend: the session's.
        share: runs over which the rotations are spread.
        missing: bytes to leave out at the end of the arena, which makes every plan access what it must not.
    """

    def __init__(self, backend: Any, share: int = 1, missing: int = 0) -> None:
        self.backend, self.share, self.missing, self.runs = backend, share, missing, 0
        self.arrays: dict[Any, Any] = {}
        self.held: dict[Any, memory.Slot] = {}
        self.bind, self.place_constants = backend.bind, backend.place_constants
        self.templates: set[str] = set()
        backend.bind, backend.place_constants = self._bound, self._noted

    def _noted(self, plan: Any) -> dict[int, memory.Slot]:
        placed: dict[int, memory.Slot] = self.place_constants(plan)
        keys = {id(slot): key for key, slot in self.backend.constant_pool.slots.items()}
        for number, slot in placed.items():
            self.arrays[keys[id(slot)]] = plan.constant(plan.buffers[number])
            self.held[keys[id(slot)]] = slot
        return placed

    def _bound(self, program: Any, placed: Any, slots: Any = (), graph: Any = None) -> Any:
        self.templates |= {step.family for step in program.plan.steps}
        return _Rotating(self, program, placed, slots)

    def arrange(self, placed: Any, sizes: Mapping[int, int], turn: int) -> Any:
        """New blocks for all values: the placement of the arena; variables and constants move with their contents."""
        b = self.backend
        offsets, end = rotated(sizes, turn)
        end = max(end - self.missing, 1)
        b.arena = self._block(end, _FILLINGS[turn % len(_FILLINGS)])
        values = [(v, b.read(v)) for _, v in b._slots.values()]
        places, size = rotated({id(v): max(a.nbytes, 1) for v, a in values}, turn)
        b.variables = self._filled(b.variable_pool, places, size)
        b._slots = {id(v): (b.variable_pool.slots[id(v)], v) for v, _ in values}
        for v, a in values:
            b.write(v, a)
        places, size = rotated({k: max(a.nbytes, 1) for k, a in self.arrays.items()}, turn)
        b.constants = self._filled(b.constant_pool, places, size)
        for key, offset in places.items():
            b.constants.write(offset, self.arrays[key])
            b.constant_pool.slots[key].written = True
        return replace(placed, offsets=offsets, arena_bytes=end)

    def _filled(self, pool: memory.Pool, places: Mapping[Any, int], size: int) -> memory.Space:
        """Move a pool to a fresh block of ``size`` bytes, with its values in other places."""
        pool.memory = self._block(size, 255)
        pool.memory.hold([size])
        end = -(-size // _ALIGN) * _ALIGN  # where the next one may start
        fresh = {key: memory.Slot(offset, end) for key, offset in places.items()}
        pool.slots.update(fresh)
        self.held.update(fresh)
        return pool.memory

    def _block(self, size: int, filling: int) -> memory.Space:
        space, block = memory.Space(self.backend.device), _Block(self.backend.device)
        block.grow(size)
        block.write(0, np.full(block.size, filling, np.uint8))
        space.blocks = [block]
        return space


class _Rotating:
    """An executable that runs once for every rotation, each time from the same variables."""

    def __init__(self, tight: Tight, program: Any, placed: Any, slots: Any) -> None:
        self.tight, self.program, self.placed, self.slots = tight, program, placed, slots
        self.bound = tight.bind(program, placed, slots)  # makes the slots of variables and constants
        self.compiled: Any = None
        self.launches, self.mode = self.bound.launches, self.bound.mode

    def run(self, feeds: Sequence[Any]) -> list[Any]:
        tight, plan = self.tight, self.program.plan
        backend = tight.backend
        sizes = {n: max(int(bind(plan.buffers[n].nbytes, self.placed.sizes)), 1) for n in self.placed.offsets}
        variables = [self.slots[plan.slot(number)] for number in plan.variables]
        before = [backend.read(v) for v in variables]
        first: list[Any] | None = None
        turns = range(max(len(sizes), len(backend._slots), len(tight.arrays), 3))
        for count, turn in enumerate(turns[tight.runs % tight.share :: tight.share]):
            for v, a in zip(variables, before, strict=True):
                backend.write(v, a)
            backend.launch = _LAUNCHES[min(count + tight.runs % tight.share, 2)]
            placed = tight.arrange(self.placed, sizes, turn)
            found = tight.bind(self.program, placed, self.slots).run(feeds)
            results = [*found, *(backend.read(v) for v in variables)]
            if first is None:
                first = results
            elif any(a.tobytes() != b.tobytes() for a, b in zip(first, results, strict=True)):
                raise AssertionError(f"results depend on where values lie or how steps are launched (turn {turn})")
        tight.runs += 1
        return found
