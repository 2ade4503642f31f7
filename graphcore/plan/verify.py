"""The verifier of plans."""

from __future__ import annotations

from graphcore.base.errors import VerifyError
from graphcore.base.shapes import may_equal, product
from graphcore.plan.plan import ARENA, CONSTANT, VARIABLE, Launch, Plan

__all__ = ["verify_plan"]


def verify_plan(plan: Plan) -> None:
    """Check that positions name what exists, that steps read what was written before, and that none depends on another
    one of its level.

    Raises:
        VerifyError: naming the step and the buffer.
    """
    _check_table(plan)
    level = 0
    made = set(plan.feeds)
    for step in plan.steps:
        _check_buffers(plan, step)
        if not 0 <= step.level < len(plan.steps):
            raise VerifyError(f"step {step.kernel.name} is in level {step.level} of {len(plan.steps)} steps")
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
    for old, place in plan.in_place:
        if not 0 <= place < len(plan.steps) or old not in plan.steps[place].writes:
            raise VerifyError(f"step {place} does not write {_named(plan, old)} in place")


def _check_table(plan: Plan) -> None:
    """Buffers, and the positions that name them."""
    for number, buffer in enumerate(plan.buffers):
        if buffer.number != number:
            raise VerifyError(f"buffer {number} has the number {buffer.number}")
        if (buffer.position is None) != (buffer.space == ARENA) or (buffer.position or 0) < 0:
            raise VerifyError(f"{_named(plan, number)} of the space {buffer.space} has the position {buffer.position}")
        if buffer.space == CONSTANT:
            if plan.slot(number) >= len(plan.constants):
                raise VerifyError(f"{_named(plan, number)} is constant {buffer.position} of {len(plan.constants)}")
            array = plan.constant(buffer)
            if array.dtype != buffer.dtype.storage or array.shape != buffer.shape:
                raise VerifyError(f"{_named(plan, number)} is not of its constant's type")
    for number in (*plan.feeds, *plan.variables, *(old for old, _ in plan.in_place)):
        if not 0 <= number < len(plan.buffers):
            raise VerifyError(f"buffer {number} does not exist")
    if any(plan.buffers[number].space != ARENA for number in plan.feeds):
        raise VerifyError(f"not all feeds {plan.feeds} are in the arena")
    held = [b.number for b in plan.buffers if b.space == VARIABLE]
    if sorted(plan.variables) != held or len({*map(plan.slot, held)}) < len(held):
        raise VerifyError(f"the variables {plan.variables} are not the buffers {held}, each of another variable")
    for fetch in plan.fetches:
        if (fetch.buffer is None) == (fetch.constant is None):
            raise VerifyError(f"the fetch {fetch} is of a buffer or of a constant")
        count = len(plan.buffers) if fetch.constant is None else len(plan.constants)
        if not 0 <= (fetch.buffer or 0) + (fetch.constant or 0) < count:
            raise VerifyError(f"the fetch {fetch} is of nothing that exists")
        if not may_equal(product(plan.fetched(fetch, plan.buffers).shape), product(fetch.shape)):
            raise VerifyError(f"the fetch {fetch} has other elements than what it views")


def _check_buffers(plan: Plan, step: Launch) -> None:
    if len(step.buffers) != len(step.kernel.params):
        raise VerifyError(
            f"step {step.kernel.name} has {len(step.buffers)} buffers for {len(step.kernel.params)} parameters"
        )
    for number in (*step.buffers, *step.workspace):
        if not 0 <= number < len(plan.buffers):
            raise VerifyError(f"step {step.kernel.name} names buffer {number}, which does not exist")
    for number, param in zip(step.buffers, step.kernel.params, strict=True):
        if plan.buffers[number].dtype != param.dtype:
            raise VerifyError(f"step {step.kernel.name} takes {_named(plan, number)} as {param.dtype}")


def _is_missing(plan: Plan, number: int, made: set[int]) -> bool:
    buffer = plan.buffers[number]
    return buffer.space == ARENA and number not in made and buffer.nbytes != 0  # nothing is written of no elements


def _named(plan: Plan, number: int) -> str:
    return f"buffer {number} ({plan.buffers[number].label})"
