"""Device memory: the arena, the variables and the constants of one backend.

Each is one block that grows geometrically, so that what is copied on the way to a size is at most a few times that
size; a pool knows the places of values in one. On CPU devices memory is ours: page-aligned NumPy arrays that OpenCL
uses in place, so feeding and fetching are plain copies with no call into the runtime. On GPUs it is a device buffer
with explicit transfers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from backends.opencl.device.device import Device
from graphcore.base.errors import OutOfMemoryError
from graphcore.base.lazy import pyopencl as cl

__all__ = ["Memory", "Pool", "Slot"]

_ALIGN = 128
_PAGE = 4096
_SLACK = 256  # bytes after the last value: explicit vectors may be loaded from an aligned start near the end
_GROWTH = 1.5


class Memory:
    """A block of device memory that can grow; ``generation`` changes when its handle does.

    Args:
        device: an open device.
        beside: what else the owner has on the device, to which this one is added.

    Attributes:
        used: bytes at its beginning whose contents outlast a run, and are copied when it grows.
        copied: bytes that growing has copied so far.
    """

    def __init__(self, device: Device, beside: list[Memory] | None = None) -> None:
        self.device = device
        self.beside = [] if beside is None else beside
        self.on_host = device.info.is_cpu and not device.info.is_simulated
        self.size = self.used = self.copied = 0
        self.generation = 0
        self.buffer: Any = None
        self.host: Any = None
        self.grow(_PAGE)
        self.beside.append(self)

    @property
    def growths(self) -> int:
        """How often it has grown."""
        return self.generation - 1

    def grow(self, size: int) -> None:
        """Make room for ``size`` bytes and, where the device has it, for more to come.

        Raises:
            OutOfMemoryError: the device cannot give so much; nothing has changed.
        """
        if size <= self.size:
            return
        needed = -(-(size + _SLACK) // _PAGE) * _PAGE
        roomy = int(min(self.size * _GROWTH, self._most()) // _PAGE) * _PAGE
        if roomy > needed:
            try:
                return self._move(roomy)
            except OutOfMemoryError:
                pass  # what must be may still fit
        self._move(needed)

    def _most(self) -> int:
        """The largest block that the device allows, or has free while the present one is still there."""
        info = self.device.info
        return min(info.max_alloc, info.global_mem - sum(memory.size for memory in self.beside))

    def _move(self, wanted: int) -> None:
        flags = cl.mem_flags
        try:
            if self.on_host:
                raw = np.empty(wanted + _PAGE, np.uint8)
                start = -raw.ctypes.data % _PAGE
                host = raw[start : start + wanted]
                if self.used:
                    host[: self.used] = self.host[: self.used]
                fresh = cl.Buffer(self.device.context, flags.READ_WRITE | flags.USE_HOST_PTR, hostbuf=host)
            else:
                fresh = cl.Buffer(self.device.context, flags.READ_WRITE, wanted)
                if self.used:
                    cl.enqueue_copy(self.device.queue, fresh, self.buffer, byte_count=self.used)
                    self.device.queue.finish()
                host = None
        except (MemoryError, cl.MemoryError, cl.RuntimeError, cl.LogicError) as error:
            raise OutOfMemoryError(f"{self.device.info.name} cannot allocate {wanted:,} bytes: {error}") from None
        self.copied += self.used
        # No call between these: Ctrl-C comes before all of them or after.
        self.buffer, self.host, self.size, self.generation = fresh, host, wanted, self.generation + 1

    def release(self) -> None:
        """Give the block back; there is none afterwards."""
        self.buffer = self.host = None
        self.size = self.used = 0
        self.generation += 1

    def view(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Host memory at an offset as an array (CPU devices)."""
        count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return self.host[offset : offset + count].view(dtype).reshape(shape)

    def write(self, offset: int, array: Any) -> None:
        """Copy an array in (any device)."""
        if array.nbytes == 0:
            return
        if self.on_host:
            self.host[offset : offset + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            return
        cl.enqueue_copy(
            self.device.queue,
            self.buffer,
            np.ascontiguousarray(array).reshape(-1).view(np.uint8),
            dst_offset=offset,
            is_blocking=True,
        )

    def read(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """A fresh array of what is at an offset (any device; the queue must be done with it)."""
        if self.on_host:
            return self.view(offset, shape, dtype).copy()
        out = np.empty(shape, dtype)
        if out.nbytes:
            flat = out.reshape(-1).view(np.uint8)
            cl.enqueue_copy(self.device.queue, flat, self.buffer, src_offset=offset, is_blocking=True)
        return out


@dataclass(eq=False)
class Slot:
    """The place of a value in a pool: its own for as long as somebody holds the slot; ``written`` is the owner's."""

    offset: int
    end: int
    written: bool = False


class Pool:
    """Values side by side in one block of memory; the place of one that nobody holds any more is given to others."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.slots: WeakValueDictionary[Any, Slot] = WeakValueDictionary()

    def place(self, sizes: Mapping[Any, int]) -> dict[Any, Slot]:
        """Slots for values by key, those that are there or fresh ones; the memory grows once at most.

        Args:
            sizes: bytes of each value.

        Raises:
            OutOfMemoryError: the device cannot give so much; nothing has changed.
        """
        found = {key: slot for key in sizes if (slot := self.slots.get(key)) is not None}
        missing = {key: -(-max(size, 1) // _ALIGN) * _ALIGN for key, size in sizes.items() if key not in found}
        if not missing:
            return found
        held = sorted((slot.offset, slot.end) for slot in list(self.slots.values()))
        fresh = _fill(held, missing)
        self.memory.grow(max(slot.end for slot in fresh.values()))
        self.memory.used = max(end for _, end in [*held, *((slot.offset, slot.end) for slot in fresh.values())])
        self.slots.update(fresh)
        return found | fresh


def _fill(held: list[tuple[int, int]], sizes: Mapping[Any, int]) -> dict[Any, Slot]:
    """Slots in the first gaps between what is held, or behind all of it."""
    end = max((end for _, end in held), default=0)
    gaps = []
    begin = 0
    for offset, behind in held:
        if offset > begin:
            gaps.append([begin, offset])
        begin = behind
    fresh: dict[Any, Slot] = {}
    for key, size in sizes.items():
        gap = next((g for g in gaps if g[1] - g[0] >= size), None)
        if gap is None:
            fresh[key] = Slot(end, end + size)
            end += size
        else:
            fresh[key] = Slot(gap[0], gap[0] + size)
            gap[0] += size
    return fresh
