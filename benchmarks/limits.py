"""This machine's own ceilings: multiply-adds from registers and copying memory. ``python -m benchmarks.limits [--quick]
[--device opencl:intel]``.

Kernels are to be judged as shares of these, measured in the same hour on the same machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backends.opencl.compiler.build import build_program
from backends.opencl.device.device import Device, icd, open_device
from benchmarks.timing import Measured, environment, interleave, table, write_results
from graphcore.base.errors import GraphcoreError

_CHAINS = 12  # independent accumulators: more than latency times issue rate on any core so far
_TURNS = 20_000  # of the loop; each does _CHAINS fused multiply-adds of a vector
_COPY_BYTES = 256 << 20  # beyond any cache

# Contraction is asked for by its pragma: the runtimes turn fma() and mad() of wide vectors into calls.
_SOURCE = """\
#pragma OPENCL FP_CONTRACT ON
__kernel void fma_peak(__global FLOATN* out, const float factor, const float term, const int turns) {
  const FLOATN a = (FLOATN)(factor), b = (FLOATN)(term);
DECLARE
  for (int i = 0; i < turns; ++i) {
BODY
  }
  out[get_global_id(0)] = SUM;
}

__kernel void copy(__global const FLOATN* restrict from, __global FLOATN* restrict to,
                   const long count, const int interleaved) {
  const long me = get_global_id(0), all = get_global_size(0);
  if (interleaved) {
    for (long i = me; i < count; i += all) to[i] = from[i];
  } else {
    const long end = count * (me + 1) / all;
    for (long i = count * me / all; i < end; ++i) to[i] = from[i];
  }
}
"""


def source(width: int) -> str:
    """The program for vectors of so many floats."""
    kind = f"float{width}" if width > 1 else "float"
    names = [f"x{i}" for i in range(_CHAINS)]
    declare = "\n".join(f"  FLOATN {n} = b + {i}.0f;" for i, n in enumerate(names))
    body = "\n".join(f"    {n} = {n} * a + b;" for n in names)
    return (
        _SOURCE.replace("DECLARE", declare)
        .replace("BODY", body)
        .replace("SUM", " + ".join(names))
        .replace("FLOATN", kind)
    )


def fma_peak(device: Device) -> tuple[Callable[[], float], float]:
    """A launch that only does fused multiply-adds, and its floating-point operations."""
    cl, info = icd.load(), device.info
    width = 1 if info.kind == "gpu" else info.vector_width
    items = info.compute_units * (2048 if info.kind == "gpu" else 1)
    group = 256 if info.kind == "gpu" else 1
    turns = _TURNS * (1 if info.kind == "gpu" else 10)
    kernel = cl.Kernel(build_program(device, source(width)), "fma_peak")
    out = cl.Buffer(device.context, cl.mem_flags.READ_WRITE, items * width * 4)
    kernel.set_args(out, np.float32(0.999), np.float32(0.001), np.int32(turns))
    return launch(device, kernel, items, group, [out]), 2.0 * _CHAINS * width * items * turns


def copy_rate(device: Device) -> tuple[Callable[[], float], float]:
    """A launch that copies a large buffer, and the bytes that it reads and writes."""
    cl, info = icd.load(), device.info
    gpu = info.kind == "gpu"
    width = 4 if gpu else info.vector_width
    kernel = cl.Kernel(build_program(device, source(width)), "copy")
    host = np.zeros(_COPY_BYTES // 4, np.float32)
    buffers = [
        cl.Buffer(device.context, cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR, hostbuf=host) for _ in range(2)
    ]
    kernel.set_args(*buffers, np.int64(_COPY_BYTES // 4 // width), np.int32(gpu))
    return launch(
        device, kernel, info.compute_units * (2048 if gpu else 1), 256 if gpu else 1, buffers
    ), 2.0 * _COPY_BYTES


def launch(device: Device, kernel: Any, items: int, group: int, buffers: list[Any]) -> Callable[[], float]:
    """A function that runs a kernel to its end, and keeps its buffers, which kernels do not."""
    cl = icd.load()

    def run() -> float:
        cl.enqueue_nd_range_kernel(device.queue, kernel, (items,), (group,))
        device.queue.finish()
        return float(len(buffers))

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--device",
        type=lambda text: text.split(","),
        default=["opencl:intel", "opencl:pocl", "opencl:gpu"],
        help="comma-separated",
    )
    parser.add_argument("--quick", action="store_true", help="few short rounds")
    parser.add_argument("--out", help="the result file; benchmarks/results/limits.json by default")
    options = parser.parse_args(arguments)
    found: list[dict[str, Any]] = []
    for spec in options.device:
        try:
            device = open_device(spec)
        except GraphcoreError as error:
            print(f"skipping {spec}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        work = [fma_peak(device), copy_rate(device)]
        timed = [Measured(name, run, 0.0) for name, (run, _) in zip(("fma", "copy"), work, strict=True)]
        interleave(timed, 5 if options.quick else 21, 0.1 if options.quick else 0.3, spec)
        flops, nbytes = (amount / m.best / 1e9 for (_, amount), m in zip(work, timed, strict=True))
        found.append(
            {
                "device": spec,
                "name": device.info.name,
                "driver": device.info.driver,
                "compute_units": device.info.compute_units,
                "gflops": round(flops, 1),
                "copy_gb_per_s": round(nbytes, 2),
            }
        )
    if not found:
        print("no OpenCL device opens", file=sys.stderr)
        return 1
    print(
        table(
            [
                {"device": f["device"], "fma GFLOP/s": f["gflops"], "copy GB/s": f["copy_gb_per_s"], "name": f["name"]}
                for f in found
            ],
            ["device", "fma GFLOP/s", "copy GB/s", "name"],
        )
    )
    print("written to", write_results("limits", {**environment(), "devices": found}, options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
