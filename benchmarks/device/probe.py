"""What a device is, and what it does at best: launches, transfers, copies, multiply-adds, matrix units, one product.

Run as ``python -m benchmarks.device.probe --device opencl:gpu``.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from backends.opencl.device import icd
from backends.opencl.device.device import Device, list_devices, open_device
from benchmarks.device.probe_kernels import BASIC, CHAINS, PRODUCT, TENSOR_OPERATIONS, TILE, tensor_source
from benchmarks.device.report import Options, Report, event_seconds, parse_part, seconds_of

_GROUP = 256
_GROUPS = 16  # for every multiprocessor
# What drivers tell beyond OpenCL's own: names of pyopencl's properties, which other vendors lack.
_FACTS = (
    "max_clock_frequency",
    "max_compute_units",
    "global_mem_cache_size",
    "global_mem_cacheline_size",
    "local_mem_size",
    "max_constant_buffer_size",
    "preferred_vector_width_float",
    "warp_size_nv",
    "registers_per_block_nv",
    "compute_capability_major_nv",
    "compute_capability_minor_nv",
    "gpu_overlap_nv",
    "attribute_async_engine_count_nv",
)


class Bench:
    """An open device with memory to try things on.

    Args:
        device: its queue records times.
        small: little memory and few turns.
    """

    def __init__(self, device: Device, small: bool) -> None:
        self.cl, self.device, self.queue = icd.load(), device, device.queue
        self.nbytes = 8 << 20 if small else 256 << 20
        self.turns = 200 if small else 4000
        self.items = min(device.info.compute_units * _GROUPS * _GROUP, self.nbytes // 4)
        self.first, self.second = (self.buffer(self.nbytes) for _ in range(2))
        for buffer in (self.first, self.second):
            self.copied(buffer, np.ones(self.nbytes // 4, np.float32))

    def buffer(self, nbytes: int, flags: int = 0) -> Any:
        return self.cl.Buffer(self.device.context, self.cl.mem_flags.READ_WRITE | flags, nbytes)

    def kernel(self, text: str, name: str, *arguments: Any) -> Any:
        built = self.cl.Program(self.device.context, text).build()
        found = self.cl.Kernel(built, name)
        found.set_args(*arguments)
        return found

    def launched(self, kernel: Any, items: tuple[int, ...], group: tuple[int, ...] = (_GROUP,)) -> Any:
        return self.cl.enqueue_nd_range_kernel(self.queue, kernel, items, group)

    def seconds(self, kernel: Any, items: tuple[int, ...], group: tuple[int, ...] = (_GROUP,)) -> float:
        """Of a launch, by the device's clock."""
        return event_seconds(self.queue, lambda: self.launched(kernel, items, group))

    def copied(self, to: Any, source: Any) -> None:
        self.cl.enqueue_copy(self.queue, to, source, is_blocking=True)
        self.queue.finish()


def facts(bench: Bench) -> dict[str, Any]:
    """What the driver tells."""
    found = {}
    for name in _FACTS:
        try:
            found[name] = getattr(bench.device.handle, name)
        except (AttributeError, bench.cl.Error):
            continue
    return found


def launching(bench: Bench) -> dict[str, Any]:
    """Microseconds of a launch that is waited for, of each of a hundred that are not, and of a small read."""
    kernel = bench.kernel(BASIC, "nothing", bench.first)
    number = np.zeros(1, np.float32)

    def launch(times: int) -> None:
        for _ in range(times):
            bench.launched(kernel, (_GROUP,))
        bench.queue.finish()

    return {
        "launch and finish us": seconds_of(lambda: launch(1)) * 1e6,
        "each of 100 us": seconds_of(lambda: launch(100)) * 1e4,
        "read of 4 bytes us": seconds_of(lambda: bench.copied(number, bench.first)) * 1e6,
    }


def transfers(bench: Bench) -> dict[str, Any]:
    """GB/s between the host's memory and the device's."""
    cl, count = bench.cl, bench.nbytes // 4
    plain = np.ones(count, np.float32)
    pinned = bench.buffer(bench.nbytes, cl.mem_flags.ALLOC_HOST_PTR)
    flags = cl.map_flags.READ | cl.map_flags.WRITE
    mapped, _ = cl.enqueue_map_buffer(bench.queue, pinned, flags, 0, (count,), np.float32)
    mapped[:] = 1.0

    def rate(to: Any, source: Any) -> float:
        return bench.nbytes / seconds_of(lambda: bench.copied(to, source), 0.3, 3) / 1e9

    return {
        "to device GB/s": rate(bench.first, plain),
        "to device, pinned": rate(bench.first, mapped),
        "from device": rate(plain, bench.first),
        "from device, pinned": rate(mapped, bench.first),
    }


def copies(bench: Bench) -> dict[str, Any]:
    """GB/s of copies on the device, what is read and what is written counted."""
    rates = {}
    for name in ("copy_floats", "copy_vectors"):
        kernel = bench.kernel(BASIC, name, bench.first, bench.second, np.int32(bench.nbytes // 4))
        rates[f"{name} GB/s"] = 2 * bench.nbytes / bench.seconds(kernel, (bench.items,)) / 1e9
    return rates


def arithmetic(bench: Bench) -> dict[str, Any]:
    """TFLOP/s of multiply-adds in registers."""
    kernel = bench.kernel(BASIC, "multiply_add", bench.first, np.int32(bench.turns))
    operations = 2 * CHAINS * bench.turns * bench.items
    return {"multiply-add TFLOP/s": operations / bench.seconds(kernel, (bench.items,)) / 1e12}


def tensor_units(bench: Bench, kind: str) -> dict[str, Any]:
    """TFLOP/s of NVIDIA's matrix units, by instructions of its own in OpenCL C."""
    if bench.device.info.vendor != "nvidia":
        return {"left out": "the instructions are NVIDIA's"}
    kernel = bench.kernel(tensor_source(kind), "tensor", bench.first, bench.second, np.int32(bench.turns))
    operations = bench.items // 32 * bench.turns * 8 * TENSOR_OPERATIONS[kind]
    return {"TFLOP/s": operations / bench.seconds(kernel, (bench.items,)) / 1e12}


def product(bench: Bench, size: int) -> dict[str, Any]:
    """TFLOP/s of the tiled product of square matrices, and its greatest error as a part of the greatest result."""
    draw = np.random.default_rng(0)
    left, right = (draw.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    found = np.zeros((size, size), np.float32)
    buffers = [bench.buffer(left.nbytes) for _ in range(3)]
    for buffer, array in zip(buffers, (left, right), strict=False):
        bench.copied(buffer, array)
    kernel = bench.kernel(PRODUCT, "product", *buffers, *(np.int32(size) for _ in range(3)))
    seconds = bench.seconds(kernel, (size // TILE * _GROUP, size // TILE), (_GROUP, 1))
    bench.copied(found, buffers[2])
    wanted = left @ right
    return {
        "TFLOP/s": 2 * size**3 / seconds / 1e12,
        "us": seconds * 1e6,
        "wrong": float(np.abs(found - wanted).max() / np.abs(wanted).max()),
    }


def cases(bench: Bench, options: Options) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured, by name."""
    sizes = (128, 256) if options.small else (1024, 2048, 4096)
    return {
        **{f.__name__: partial(f, bench) for f in (facts, launching, transfers, copies, arithmetic)},
        **{f"tensor units, {kind}": partial(tensor_units, bench, kind) for kind in TENSOR_OPERATIONS},
        **{f"product {size}": partial(product, bench, size) for size in sizes},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 1 if a case failed."""
    options = parse_part("probe", arguments)
    report = Report("probe", options)
    for info in list_devices():
        row = {**dataclasses.asdict(info), "extensions": sorted(info.extensions)}
        report.add({"case": f"device {info.index}", **row})
    bench = Bench(open_device(options.device.removesuffix(":as-gpu"), profiling=True), options.small)
    measured = cases(bench, options)
    for name in report.cases(measured):
        with report.case(name) as row:
            row.update(measured[name]())
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
