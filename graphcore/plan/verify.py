"""The verifier of plans."""

from __future__ import annotations

from graphcore.base.errors import VerifyError
from graphcore.plan.plan import ARENA, Launch, Plan

__all__ = ["verify_plan"]


def verify_plan(plan: Plan) -> None:
    """Check that steps name buffers that exist, read what was written before, and in their level depend on no other.

    Raises:
        VerifyError: naming the step and the buffer.
    """
    level = 0
    made = set(plan.feeds)
    for step in plan.steps:
        _check_buffers(plan, step)
        if step.level < level:
            raise VerifyError(f"step {step.kernel.name} of level {step.level} comes after one of level {level}")
        level = step.level
    for steps in plan.levels:
        writer: dict[int, Launch] = {}
        for step in steps:
            for number in step.writes:
                if writer.setdefault(number, step) is not step:
                    raise VerifyError(f"{_named(plan, number)} is written by two steps of level {step.level}")
        for step in steps:
            for number in step.reads:
                if writer.get(number, step) is not step:
                    raise VerifyError(f"{step.kernel.name} reads {_named(plan, number)}, which its own level writes")
                if number not in step.writes and _is_missing(plan, number, made):
                    raise VerifyError(f"{step.kernel.name} reads {_named(plan, number)}, which nothing has written")
        made |= writer.keys()
    for fetch in plan.fetches:
        if fetch.buffer is not None and _is_missing(plan, fetch.buffer, made):
            raise VerifyError(f"{_named(plan, fetch.buffer)} is fetched, which nothing has written")


def _check_buffers(plan: Plan, step: Launch) -> None:
    if len(step.buffers) != len(step.kernel.params):
        raise VerifyError(
            f"step {step.kernel.name} has {len(step.buffers)} buffers for {len(step.kernel.params)} parameters"
        )
    for number in (*step.buffers, *step.workspace):
        if not 0 <= number < len(plan.buffers):
            raise VerifyError(f"step {step.kernel.name} names buffer {number}, which does not exist")


def _is_missing(plan: Plan, number: int, made: set[int]) -> bool:
    buffer = plan.buffers[number]
    return buffer.space == ARENA and number not in made and buffer.nbytes != 0  # nothing is written of no elements


def _named(plan: Plan, number: int) -> str:
    return f"buffer {number} ({plan.buffers[number].label})"
