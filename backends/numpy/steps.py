"""The interpreter of a plan's steps: kernels by the kernel oracle, loops and branches over memory inside of memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcore.base.errors import DeviceError
from graphcore.base.shapes import bind
from graphcore.kernel.interpret import run_kernel
from graphcore.plan.plan import CONSTANT, Buffer, Launch, Plan, Step
from graphcore.plan.steps import Branch, Collective, Copy, HostCall, Loop

__all__ = ["run_step"]

Arrays = Mapping[int, Any]
Host = Mapping[str, Callable[..., Sequence[Any]]]


def run_step(step: Step, arrays: Arrays, sizes: Mapping[str, int], host: Host) -> None:
    """Run one step.

    Args:
        step: of a verified plan.
        arrays: a flat array for each of its buffers, by number.
        sizes: values of the symbolic extents.
        host: functions of flat arrays, which give what they make.

    Raises:
        DeviceError: a call of a host function that is not there.
    """
    if isinstance(step, Launch):
        run_kernel(step.kernel, [arrays[n] for n in step.buffers], sizes)
    elif isinstance(step, (Copy, Collective)):  # of a group of one process, the sum is what it gives
        arrays[step.target][...] = arrays[step.source]
    elif isinstance(step, Loop):
        _run_loop(step, arrays, sizes, host)
    elif isinstance(step, Branch):
        chosen = min(max(int(arrays[step.index][0]), 0), len(step.plans) - 1)
        _run_inside(step.plans[chosen], arrays, {}, 0, sizes, host)
    elif isinstance(step, HostCall):
        if step.function not in host:
            raise DeviceError(f"the plan calls {step.function!r} on the host, and there is no such function")
        made = host[step.function](*(arrays[n] for n in step.operands))
        for number, value in zip(step.results, made, strict=True):
            arrays[number][...] = np.reshape(value, -1)
    else:
        raise DeviceError(f"the plan interpreter cannot run a {type(step).__name__} ({step.title})")


def _run_loop(loop: Loop, arrays: Arrays, sizes: Mapping[str, int], host: Host) -> None:
    """Every carry has two places: a trip reads what the one before wrote, and writes the other."""
    places = [(arrays[c.initial].copy(), _unwritten(loop.body.buffers[c.given], sizes)) for c in loop.carries]
    done = 0
    for trip in range(int(bind(loop.trips, sizes))):
        if loop.predicate is not None and not places[loop.predicate][trip % 2][0]:
            break
        own: dict[int, Any] = {}
        for carry, pair in zip(loop.carries, places, strict=True):
            own[carry.given], own[carry.made] = pair[trip % 2], pair[(trip + 1) % 2]
        _run_inside(loop.body, arrays, own, trip, sizes, host)
        done = trip + 1
    for carry, pair in zip(loop.carries, places, strict=True):
        arrays[carry.final][...] = pair[done % 2]


def _run_inside(plan: Plan, around: Arrays, own: Arrays, trip: int, sizes: Mapping[str, int], host: Host) -> None:
    """A plan once; ``own`` are the buffers that it is given, the others are made here."""
    others = (b for b in plan.buffers if b.number not in own)
    inside = {**own, **{b.number: _memory(plan, b, around, trip, sizes) for b in others}}
    for step in plan.steps:
        run_step(step, inside, sizes, host)


def _memory(plan: Plan, buffer: Buffer, around: Arrays, trip: int, sizes: Mapping[str, int]) -> Any:
    if buffer.space == CONSTANT:
        return np.ascontiguousarray(plan.constant(buffer)).reshape(-1)
    within = buffer.within
    if within is None:
        return _unwritten(buffer, sizes)
    nbytes = int(bind(buffer.nbytes, sizes))
    start = int(bind(within.offset, sizes)) + trip * int(bind(within.stride, sizes))
    return around[within.parent].view(np.uint8)[start : start + nbytes].view(buffer.dtype.storage)


def _unwritten(buffer: Buffer, sizes: Mapping[str, int]) -> Any:
    """Memory that nothing was written to: NaN in every floating type."""
    return np.full(int(bind(buffer.nbytes, sizes)), 0xFF, np.uint8).view(buffer.dtype.storage)
