"""Device memory: the arena, the variables and the constants of one backend.

Each is a space of one block, or of several where the device's largest allocation asks for it. Blocks grow
geometrically, so that what is copied on the way to a size is at most a few times that size; a pool knows the places of
values in a space. On CPU devices memory is ours: page-aligned NumPy arrays that OpenCL
uses in place, so feeding and fetching are plain copies with no call into the runtime. On GPUs it is a device buffer
with explicit transfers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from backends.opencl.device.device import Device, DeviceInfo
from graphcore.base.errors import OutOfMemoryError
from graphcore.base.lazy import pyopencl as cl

__all__ = ["Blocks", "Memory", "Pool", "Slot", "Space", "section_bytes"]

_ALIGN = 128
_PAGE = 4096
_SLACK = 256  # bytes after the last value: explicit vectors may be loaded from an aligned start near the end
_GROWTH = 1.5


def section_bytes(info: DeviceInfo) -> int:
    """The most bytes of values in one block."""
    return (info.max_alloc - _SLACK) // _ALIGN * _ALIGN


class Blocks(list["Memory"]):
    """All blocks that one owner has on a device; ``moves`` changes whenever the handle of any of them does."""

    moves = 0


class Memory:
    """A block of device memory that can grow.

    Args:
        device: an open device.
        beside: the owner's blocks, to which this one is added.

    Attributes:
        used: bytes at its beginning whose contents outlast a run, and are copied when it grows.
        growths: how often it has grown.
        copied: bytes that growing has copied so far.
    """

    def __init__(self, device: Device, beside: Blocks | None = None) -> None:
        self.device = device
        self.beside = Blocks() if beside is None else beside
        self.on_host = device.info.is_cpu and not device.info.is_simulated
        self.size = self.used = self.copied = 0
        self.growths = -1
        self.buffer: Any = None
        self.host: Any = None
        self.grow(min(_PAGE, section_bytes(device.info)))
        self.beside.append(self)

    def grow(self, size: int) -> None:
        """Make room for ``size`` bytes and, where the device has it, for more to come.

        Raises:
            OutOfMemoryError: the device cannot give so much; nothing has changed.
        """
        if size <= self.size:
            return
        needed = -(-(size + _SLACK) // _PAGE) * _PAGE
        if size <= section_bytes(self.device.info):
            needed = min(needed, self.device.info.max_alloc)
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
        flags, info = cl.mem_flags, self.device.info
        taken = sum(memory.size for memory in self.beside if memory is not self)
        if taken + wanted > info.global_mem:
            raise OutOfMemoryError(
                f"{info.name} has {info.global_mem:,} bytes, of which {taken:,} are taken: no {wanted:,} more"
            )
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
        self.growths += 1
        # No call between these: Ctrl-C comes before all of them or after.
        self.buffer, self.host, self.size, self.beside.moves = fresh, host, wanted, self.beside.moves + 1

    def release(self) -> None:
        """Give the block back; there is none afterwards."""
        self.buffer = self.host = None
        self.size = self.used = 0
        self.beside.moves += 1

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


class Space:
    """One or more blocks, none above the device's largest allocation.

    An address is the number of a block times ``section`` plus the offset in it. No value crosses from one block into
    the next: who places them sees to that.

    Args:
        device: an open device.
        beside: the owner's blocks, to which this one's are added.
    """

    def __init__(self, device: Device, beside: Blocks | None = None) -> None:
        self.device = device
        self.beside = Blocks() if beside is None else beside
        self.section = section_bytes(device.info)
        self.blocks = [Memory(device, self.beside)]

    @property
    def on_host(self) -> bool:
        """Whether the memory is ours."""
        return self.blocks[0].on_host

    @property
    def size(self) -> int:
        """Bytes of all blocks."""
        return sum(b.size for b in self.blocks)

    @property
    def growths(self) -> int:
        """How often blocks have grown."""
        return sum(b.growths for b in self.blocks)

    @property
    def copied(self) -> int:
        """Bytes that growing has copied so far."""
        return sum(b.copied for b in self.blocks)

    def locate(self, address: int) -> tuple[int, int]:
        """The number of a block, and the offset in it."""
        return divmod(address, self.section)

    def tops(self, ends: Iterable[int]) -> dict[int, int]:
        """How far values reach in every block, by the addresses right behind them."""
        found: dict[int, int] = {}
        for end in ends:
            number, last = self.locate(max(end, 1) - 1)
            found[number] = max(found.get(number, 0), last + 1)
        return found

    def grow(self, *ends: int) -> None:
        """Make room for values that end at these addresses.

        Raises:
            OutOfMemoryError: the device cannot give so much; what is there is kept.
        """
        for number, top in sorted(self.tops(ends).items()):
            while len(self.blocks) <= number:
                self.blocks.append(Memory(self.device, self.beside))
            self.blocks[number].grow(top)

    def hold(self, ends: Iterable[int]) -> None:
        """Say where the values end whose contents outlast a run."""
        tops = self.tops(ends)
        for number, block in enumerate(self.blocks):
            block.used = tops.get(number, 0)

    def release(self) -> None:
        """Give all blocks back."""
        for block in self.blocks:
            block.release()

    def write(self, address: int, array: Any) -> None:
        """Copy an array in."""
        number, offset = self.locate(address)
        self.blocks[number].write(offset, array)

    def read(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """A fresh array of what is at an address."""
        number, offset = self.locate(address)
        return self.blocks[number].read(offset, shape, dtype)


class Pool:
    """Values side by side in a space; the place of one that nobody holds any more is given to others."""

    def __init__(self, memory: Space) -> None:
        self.memory = memory
        self.slots: WeakValueDictionary[Any, Slot] = WeakValueDictionary()

    def place(self, sizes: Mapping[Any, int]) -> dict[Any, Slot]:
        """Slots for values by key, those that are there or fresh ones; every block grows once at most.

        Args:
            sizes: bytes of each value.

        Raises:
            OutOfMemoryError: the device cannot give so much, or not at once; nothing has changed.
        """
        found = {key: slot for key in sizes if (slot := self.slots.get(key)) is not None}
        missing = {key: -(-max(size, 1) // _ALIGN) * _ALIGN for key, size in sizes.items() if key not in found}
        if not missing:
            return found
        held = sorted((slot.offset, slot.end) for slot in list(self.slots.values()))
        fresh = _fill(held, missing, self.memory.section)
        self.memory.grow(*(slot.end for slot in fresh.values()))
        self.memory.hold([*(end for _, end in held), *(slot.end for slot in fresh.values())])
        self.slots.update(fresh)
        return found | fresh


def _fill(held: list[tuple[int, int]], sizes: Mapping[Any, int], section: int) -> dict[Any, Slot]:
    """Slots in the first gaps between what is held, or behind all of it; each in one section."""
    end = max((end for _, end in held), default=0)
    gaps: list[list[int]] = []
    begin = 0
    for offset, behind in held:
        while begin < offset:
            border = min(offset, (begin // section + 1) * section)
            gaps.append([begin, border])
            begin = border
        begin = behind
    fresh: dict[Any, Slot] = {}
    for key, size in sizes.items():
        if size > section:
            raise OutOfMemoryError(
                f"a value takes {size:,} bytes, and the device allocates at most {section:,} at once"
            )
        gap = next((g for g in gaps if g[1] - g[0] >= size), None)
        if gap is None:
            if end % section + size > section:
                border = (end // section + 1) * section
                gaps.append([end, border])
                end = border
            fresh[key] = Slot(end, end + size)
            end += size
        else:
            fresh[key] = Slot(gap[0], gap[0] + size)
            gap[0] += size
    return fresh
