"""The cost models of classes of devices: what each takes for work.

A class is a runtime and a kind of device. Numbers are those of one core, and scale with the cores that a device has.
They are data like the text of a kernel, never measured when a program is compiled. Those of CPUs were fitted by
``python -m benchmarks.costs --fit`` on two cores with AVX-512, double-pumped, at about 3.6 GHz. Those of GPUs are
guesses from data sheets and from the machine code of the product kernels: nothing was measured.
"""

from __future__ import annotations

from dataclasses import replace

from graphcore.plan.costs import CostModel

__all__ = ["costs_of"]

_INTEL = CostModel(
    name="intel cpu",
    cores=1,
    lanes=16,
    launch_seconds=5e-6,
    level_seconds=1.8e-6,
    row_seconds=3.6e-7,
    task_seconds=5e-8,
    least_task_seconds=1.16e-6,
    kernel_launches=0.2,
    instruction_seconds=1.1e-10,
    scattered_seconds=4.1e-10,
    far_seconds=(1.1e-9, 1.1e-9, 1.9e-8),
    turn_seconds=6.8e-10,
    overlap=0.2,
    product_rates=(("float32", 1.13e11), ("float64", 5.8e10)),
    cache_bytes=(1 << 20, 24 << 20),
    bytes_per_second=(2.2e11, 1.07e11, 3.1e10),
    memory_cores=1.5,
    alone_share=1.0,
    compile_seconds=(0.05, 0.005),
)
_POCL = replace(
    _INTEL,
    name="pocl cpu",
    lanes=8,
    level_seconds=5.6e-6,
    row_seconds=2.2e-7,
    task_seconds=2.7e-8,
    instruction_seconds=1.04e-10,
    scattered_seconds=1.4e-10,
    far_seconds=(1.1e-9, 1.1e-9, 1.3e-8),
    turn_seconds=7.1e-10,
    overlap=0.08,
    product_rates=(("float32", 1.09e11), ("float64", 5.7e10)),
    bytes_per_second=(1.7e11, 9.3e10, 3.4e10),
)


def costs_of(vendor: str, kind: str, cores: int, lanes: int) -> CostModel:
    """The model of a device with so many cores, whose explicit vectors have so many lanes.

    CPU runtimes that are in no class, and the oracle, count as Intel's.
    """
    if kind == "gpu":
        return _gpu(vendor, cores)
    found = _POCL if vendor == "pocl" else _INTEL
    return replace(found, cores=cores, lanes=lanes, memory_cores=min(found.memory_cores, cores))


def _gpu(vendor: str, cores: int) -> CostModel:
    """The roofline of a common card: 10 TFLOP/s and 500 GB/s, however many multiprocessors share them."""
    flops, nbytes = 1e13 / cores, 5e11 / cores
    return replace(
        _INTEL,
        name=f"{vendor} gpu",
        cores=cores,
        lanes=1,
        launch_seconds=5e-6,
        level_seconds=0.0,
        row_seconds=0.0,
        task_seconds=0.0,
        kernel_launches=1.0,
        instruction_seconds=1 / flops,
        scattered_seconds=16 / flops,
        far_seconds=(0.0, 0.0, 0.0),
        turn_seconds=5e-6 / 2048,
        overlap=0.0,
        product_rates=(("float32", flops), ("float64", flops / 2)),
        cache_bytes=(1 << 17, 1 << 22),
        bytes_per_second=(4 * nbytes, 2 * nbytes, nbytes),
        memory_cores=cores,
        alone_share=0.3,
    )
