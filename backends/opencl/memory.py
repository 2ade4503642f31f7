"""Device memory: the arena, the variables and the constants of one backend.

On CPU devices memory is ours: page-aligned NumPy arrays that OpenCL uses in place, so feeding and fetching are plain
copies with no call into the runtime. On GPUs it is a device buffer with explicit transfers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backends.opencl.device.device import Device
from graphcore.base.errors import OutOfMemoryError
from graphcore.base.lazy import pyopencl as cl

__all__ = ["Memory"]

_PAGE = 4096
_SLACK = 256  # bytes after the last value: explicit vectors may be loaded from an aligned start near the end


class Memory:
    """A block of device memory that can grow; ``generation`` changes when its handle does."""

    def __init__(self, device: Device) -> None:
        self.device = device
        # Oclgrind copies what it should use in place, and tells what was never written only of memory that it owns.
        self.on_host = device.info.is_cpu and device.info.vendor != "oclgrind"
        self.size = 0
        self.generation = 0
        self.buffer: Any = None
        self.host: Any = None
        self.grow(_PAGE)

    def grow(self, size: int) -> None:
        """Make room for ``size`` bytes, keeping the contents.

        Raises:
            OutOfMemoryError: the device cannot give so much.
        """
        if size <= self.size:
            return
        wanted = -(-(size + _SLACK) // _PAGE) * _PAGE
        flags = cl.mem_flags
        try:
            if self.on_host:
                raw = np.empty(wanted + _PAGE, np.uint8)
                start = -raw.ctypes.data % _PAGE
                host = raw[start : start + wanted]
                host[: self.size] = self.host[: self.size] if self.host is not None else 0
                fresh = cl.Buffer(self.device.context, flags.READ_WRITE | flags.USE_HOST_PTR, hostbuf=host)
            else:
                fresh = cl.Buffer(self.device.context, flags.READ_WRITE, wanted)
                if self.buffer is not None:
                    cl.enqueue_copy(self.device.queue, fresh, self.buffer, byte_count=self.size)
                    self.device.queue.finish()
                host = None
        except (MemoryError, cl.MemoryError, cl.RuntimeError, cl.LogicError) as error:
            raise OutOfMemoryError(f"{self.device.info.name} cannot allocate {wanted:,} bytes: {error}") from None
        # No call between these: Ctrl-C comes before all of them or after.
        self.buffer, self.host, self.size, self.generation = fresh, host, wanted, self.generation + 1

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
