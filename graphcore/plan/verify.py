"""The verifier of plans."""

from __future__ import annotations

from collections.abc import Collection

from graphcore.base.errors import VerifyError
from graphcore.base.shapes import may_equal, product
from graphcore.plan.plan import ARENA, CONSTANT, VARIABLE, Buffer, Launch, Plan, Step, by_level
from graphcore.plan.steps import Branch, Collective, Copy, HostCall, Loop

__all__ = ["verify_plan"]


def verify_plan(plan: Plan) -> None:
    """Check that positions name what exists, that steps read what was written before, and that none depends on another
    one of its level; so in the plans of loops and branches.

    Raises:
        VerifyError: naming the step and the buffer.
    """
    inside = next((b for b in plan.buffers if b.within is not None), None)
    if inside is not None:
        raise VerifyError(f"{_named(plan, inside.number)} lies within buffer {inside.within} of no plan around")
    _check_plan(plan, ())


def _check_plan(plan: Plan, given: Collection[int]) -> None:
    """A plan in which the buffers ``given`` have values before the first step."""
    _check_table(plan)
    level = 0
    made = {*plan.feeds, *given}
    for step in plan.steps:
        _check_buffers(plan, step)
        if not 0 <= step.level < len(plan.steps):
            raise VerifyError(f"step {step.title} is in level {step.level} of {len(plan.steps)} steps")
        if step.level < level:
            raise VerifyError(f"step {step.title} of level {step.level} comes after one of level {level}")
        level = step.level
    for steps in by_level(plan.steps):
        writer: dict[int, Step] = {}
        for step in steps:
            for number in step.writes:
                if writer.setdefault(number, step) is not step:
                    raise VerifyError(f"{_named(plan, number)} is written by two steps of level {step.level}")
        for step in steps:
            for number in step.reads:
                if writer.get(number, step) is not step:
                    raise VerifyError(f"{step.title} reads {_named(plan, number)}, which its own level writes")
                if number not in step.writes and _is_missing(plan, number, made):
                    raise VerifyError(f"{step.title} reads {_named(plan, number)}, which nothing has written")
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


def _check_buffers(plan: Plan, step: Step) -> None:
    """That a step is given buffers that exist, of the types that it takes."""
    if isinstance(step, Launch) and len(step.buffers) != len(step.kernel.params):
        raise VerifyError(f"step {step.title} has {len(step.buffers)} buffers for {len(step.kernel.params)} parameters")
    for number in (*step.buffers, *step.workspace):
        if not 0 <= number < len(plan.buffers):
            raise VerifyError(f"step {step.title} names buffer {number}, which does not exist")
    if isinstance(step, Launch):
        for number, param in zip(step.buffers, step.kernel.params, strict=True):
            if plan.buffers[number].dtype != param.dtype:
                raise VerifyError(f"step {step.title} takes {_named(plan, number)} as {param.dtype}")
    elif isinstance(step, (Copy, Collective)):
        _check_alike(step, plan.buffers[step.source], plan.buffers[step.target])
    elif isinstance(step, Loop):
        _check_loop(plan, step)
    elif isinstance(step, Branch):
        if not step.plans or plan.buffers[step.index].dtype.is_float or product(plan.buffers[step.index].shape) != 1:
            raise VerifyError(f"a branch chooses among {len(step.plans)} plans by {_named(plan, step.index)}")
        for inner in step.plans:
            _check_inside(plan, inner, 1, ())
    elif not isinstance(step, HostCall):
        raise VerifyError(f"step {step.title} is no step of the plan IR")


def _check_loop(plan: Plan, loop: Loop) -> None:
    body = loop.body
    if isinstance(loop.trips, int) and loop.trips < 0:
        raise VerifyError(f"a loop of {loop.trips} trips")
    own = [number for carry in loop.carries for number in (carry.given, carry.made)]
    for number in own:
        if not 0 <= number < len(body.buffers) or body.buffers[number].within or body.buffers[number].space != ARENA:
            raise VerifyError(f"a carry names buffer {number}, which is no memory of the body's own")
    if len({*own}) < len(own) or len({c.final for c in loop.carries}) < len(loop.carries):
        raise VerifyError("two carries share a buffer")
    for carry in loop.carries:
        for outer in (carry.initial, carry.final):
            _check_alike(loop, plan.buffers[outer], body.buffers[carry.given])
        _check_alike(loop, body.buffers[carry.given], body.buffers[carry.made])
    if loop.predicate is not None:
        if not 0 <= loop.predicate < len(loop.carries):
            raise VerifyError(f"the predicate is carry {loop.predicate} of {len(loop.carries)}")
        decides = body.buffers[loop.carries[loop.predicate].given]
        if not decides.dtype.is_bool or product(decides.shape) != 1:
            raise VerifyError(f"the predicate {_named(body, decides.number)} is no single bool")
    _check_inside(plan, body, loop.trips, [carry.given for carry in loop.carries])
    written = {number for step in body.steps for number in step.writes}
    for carry in loop.carries:
        if carry.made not in written:
            raise VerifyError(f"{_named(body, carry.made)} is carried on, which nothing has written")
        if carry.given in written:
            raise VerifyError(f"{_named(body, carry.given)} is carried in, and the body writes it")


def _check_inside(plan: Plan, inner: Plan, trips: object, given: Collection[int]) -> None:
    """A plan inside of another one."""
    if inner.feeds or inner.fetches or inner.variables:
        raise VerifyError("the plan of a loop or a branch has feeds, fetches or variables: they are the outer plan's")
    for buffer in inner.buffers:
        within = buffer.within
        if within is None:
            continue
        if buffer.space != ARENA or not 0 <= within.parent < len(plan.buffers):
            raise VerifyError(f"{_named(inner, buffer.number)} lies within buffer {within.parent}, which is not there")
        size, whole = buffer.nbytes, plan.buffers[within.parent].nbytes
        known = isinstance(within.offset, int) and isinstance(within.stride, int)
        if not known or not isinstance(size, int) or not isinstance(whole, int) or not isinstance(trips, int):
            continue
        assert isinstance(within.offset, int) and isinstance(within.stride, int)
        ends = (within.offset, within.offset + within.stride * max(trips - 1, 0))
        if min(ends) < 0 or max(ends) + size > whole:
            raise VerifyError(f"{_named(inner, buffer.number)} leaves {_named(plan, within.parent)}")
        if within.offset % buffer.dtype.itemsize or within.stride % buffer.dtype.itemsize:
            raise VerifyError(f"{_named(inner, buffer.number)} is not aligned to its elements")
    _check_plan(inner, given)


def _check_alike(step: Step, a: Buffer, b: Buffer) -> None:
    if a.dtype != b.dtype or not may_equal(product(a.shape), product(b.shape)):
        raise VerifyError(f"{step.title}: buffer {a.number} ({a.label}) is of another type than {b.number} ({b.label})")


def _is_missing(plan: Plan, number: int, made: set[int]) -> bool:
    buffer = plan.buffers[number]
    own = buffer.space == ARENA and buffer.within is None
    return own and number not in made and buffer.nbytes != 0  # nothing is written of no elements


def _named(plan: Plan, number: int) -> str:
    return f"buffer {number} ({plan.buffers[number].label})"
