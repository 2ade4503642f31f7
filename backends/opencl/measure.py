"""Times of a plan's steps one by one, in the order in which they run, so that caches hold what they hold in a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backends.opencl.launch_modes import LAUNCHES, Row
from backends.opencl.runtime import BoundPlan, OpenCLBackend, Program
from graphcore.base.errors import UsageError
from graphcore.plan.plan import Launch, Placed

__all__ = ["MeasuredStep", "measure_steps"]


@dataclass(frozen=True)
class MeasuredStep:
    """A step for known sizes, and the seconds that it took in each pass.

    Attributes:
        step: of the plan.
        row: its row of the table, with its work in numbers.
        seconds: of every pass; without the launch.
    """

    step: Launch
    row: Row
    seconds: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        """The least of all passes: on a shared machine the nearest to what the step takes."""
        return min(self.seconds)


def measure_steps(
    backend: OpenCLBackend,
    program: Program,
    placed: Placed,
    slots: Sequence[Any],
    feeds: Sequence[Any],
    seconds: float,
    passes: int = 10,
    alone: bool = False,
) -> list[MeasuredStep]:
    """Run a plan again and again, a launch a step, and time every launch.

    Args:
        backend: with values for the plan's variables, which the steps update.
        program: compiled.
        placed: its sizes and offsets.
        slots: the variables at the plan's positions.
        feeds: arrays in the plan's order.
        seconds: for how long.
        passes: but so many at least.
        alone: let one core do all tasks of a step (CPUs): then the time that the process computed counts where that is
            less than the time that passed, so that other processes do not.

    Raises:
        UsageError: ``alone`` on a device that has no single core to run on.
    """
    if alone and not backend.device.info.is_cpu:
        raise UsageError("only on CPUs one core can run a step alone")
    bound = BoundPlan(backend, program, placed, slots, LAUNCHES["step"])
    bound.feed(feeds)
    cl, device = backend.cl, backend.device
    queue = cl.CommandQueue(device.context, properties=cl.command_queue_properties.PROFILING_ENABLE)
    rows = [row for level in bound.levels for row in level]
    found = [MeasuredStep(s, r) for s, r in zip(bound.plan.launches, rows, strict=True) if r.tasks]
    if alone:
        for kernel, _ in bound.kernels:
            kernel.set_arg(bound.program.pointers + 3, np.int32(1))
    end, done = time.perf_counter() + seconds, 0
    while done < passes or time.perf_counter() < end:
        for measured, (kernel, size) in zip(found, bound.kernels, strict=True):
            group = (backend.model.group,)
            begin = time.process_time()
            event = cl.enqueue_nd_range_kernel(queue, kernel, group if alone else size, group)
            queue.finish()
            computed = time.process_time() - begin
            passed = (event.profile.end - event.profile.start) * 1e-9
            measured.seconds.append(min(passed, computed) if alone else passed)
        done += 1
    return found
