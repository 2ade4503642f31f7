"""Loops and branches in plans: by hand, on the plan interpreter against NumPy, and the rules that they keep."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.devices import backend

from backends.numpy.runtime import open_numpy
from graphcore.base.dtypes import DType, bool_, float32, int32
from graphcore.base.errors import DeviceError, VerifyError
from graphcore.base.shapes import Dim
from graphcore.io.plan_json import plan_from_json, plan_to_json
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Axis, Index, as_index
from graphcore.kernel.ir import Kernel, Param, Store
from graphcore.plan.plan import ARENA, Buffer, Fetch, Launch, Plan, Unchosen, Within
from graphcore.plan.steps import Branch, Carry, Collective, Copy, HostCall, Loop
from graphcore.plan.verify import verify_plan
from passes.planning.placement import place

WIDTH = 3
ROW = WIDTH * 4  # bytes


def _buffers(*kinds: Any) -> tuple[Buffer, ...]:
    """Buffers in the arena: of a shape, with a type where it is not float32, and where they lie."""
    found = []
    for number, kind in enumerate(kinds):
        shape, dtype, within = (*kind, float32, None)[:3] if len(kind) < 2 else (*kind, None)[:3]
        found.append(Buffer(number, ARENA, shape, dtype, f"b{number}", within=within))
    return tuple(found)


def _launch(name: str, make: Callable[..., Expr], buffers: Sequence[int], level: int, made: DType = float32) -> Launch:
    """A kernel that makes every element of its last buffer from those of the others, or one bool of their first."""
    axis = Axis("i0", WIDTH)
    at = Index(0) if made.is_bool else as_index(axis)
    inputs = [expr.load(i, at, float32) for i in range(len(buffers) - 1)]
    params = [Param(f"p{i}", float32, (WIDTH,)) for i in range(len(inputs))]
    params.append(Param(f"p{len(inputs)}", made, () if made.is_bool else (WIDTH,)))
    store = Store(len(inputs), at, make(*inputs))
    kernel = Kernel(name, tuple(params), () if made.is_bool else (axis,), (store,))
    return Launch(kernel, tuple(buffers), "nest", Unchosen(), level=level)


def _number(value: float) -> Expr:
    return expr.const(value, float32)


def _while_small() -> Plan:
    """A body: (u, go) -> (2 u, 2 u[0] < 10)."""
    return Plan(
        _buffers(((WIDTH,),), ((WIDTH,),), ((), bool_), ((), bool_)),
        (
            _launch("twice", lambda u: expr.call("mul", u, _number(2)), (0, 1), 0),
            _launch("small", lambda u: expr.call("lt", u, _number(10)), (1, 3), 1, bool_),
        ),
    )


def _choices() -> tuple[Plan, Plan]:
    """Of t, buffer 3 around, into buffer 5 around: 3 t, or t - 1."""
    buffers = _buffers(((WIDTH,), float32, Within(3)), ((WIDTH,), float32, Within(5)))
    tripled = _launch("tripled", lambda t: expr.call("mul", t, _number(3)), (0, 1), 0)
    less = _launch("less", lambda t: expr.call("sub", t, _number(1)), (0, 1), 0)
    return Plan(buffers, (tripled,)), Plan(buffers, (less,))


def _trip(trips: int) -> Plan:
    """A body: t = s + x[i]; c = t - 1 if t[0] > 2 else 3 t; while c[0] < 10: c = 2 c; y[trips - 1 - i] = s = c."""
    x, y = Within(0, 0, ROW), Within(2, (trips - 1) * ROW, -ROW)
    vector = ((WIDTH,),)
    buffers = _buffers(
        vector, ((WIDTH,), float32, x), ((WIDTH,), float32, y), vector, ((), bool_), vector, vector, vector,
        ((), bool_), ((), bool_),
    )  # fmt: skip
    inner = Loop(_while_small(), 20, (Carry(5, 0, 1, 6), Carry(8, 2, 3, 9)), predicate=1, level=4)
    steps = (
        _launch("added", lambda s, x: expr.call("add", s, x), (0, 1, 3), 0),
        _launch("large", lambda t: expr.call("gt", t, _number(2)), (3, 4), 1, bool_),
        Branch(4, _choices(), 2),
        _launch("small", lambda c: expr.call("lt", c, _number(10)), (5, 8), 3, bool_),
        inner,
        Copy(6, 7, 5),
        Copy(6, 2, 5),
    )
    return Plan(buffers, steps)


def _nested(trips: int) -> Plan:
    """Feeds x and s; fetches the last s, all y."""
    buffers = list(_buffers(((trips, WIDTH),), ((WIDTH,),), ((trips, WIDTH),), ((WIDTH,),)))
    buffers[:2] = [replace(b, role="feed") for b in buffers[:2]]
    fetches = (Fetch(3, (WIDTH,), float32), Fetch(2, (trips, WIDTH), float32))
    return Plan(tuple(buffers), (Loop(_trip(trips), trips, (Carry(1, 0, 7, 3),)),), (0, 1), fetches)


def _expected(x: Any, s: Any) -> tuple[Any, Any]:
    y = np.zeros_like(x)
    for i in range(len(x)):
        t = s + x[i]
        s = t - 1 if t[0] > 2 else t * 3
        while s[0] < 10:
            s = s * 2
        y[len(x) - 1 - i] = s
    return s, y


def _run(plan: Plan, *feeds: Any, sizes: dict[str, int] | None = None, **host: Any) -> list[Any]:
    verify_plan(plan)
    device = open_numpy("numpy:kernels")
    device.host.update(host)
    found: list[Any] = device.bind(device.compile(plan), place(plan, sizes or {}), ()).run(list(feeds))
    return found


@pytest.mark.parametrize("trips", [1, 2, 5])
def test_nested_loops_and_branches(trips: int) -> None:
    x = (np.arange(trips * WIDTH, dtype=np.float32).reshape(trips, WIDTH) - 9) / 4
    x[:, 0] = np.abs(x[:, 0])
    s = np.array([0.5, -1, 2], np.float32)
    plan = _nested(trips)
    for each in (plan, plan_from_json(plan_to_json(plan))):
        last, stacked = _run(each, x, s)
        expected = _expected(x, s)
        np.testing.assert_array_equal(last, expected[0])
        np.testing.assert_array_equal(stacked, expected[1])
    assert plan_from_json(plan_to_json(plan)) == plan


@pytest.mark.parametrize("start", [0.5, 9.0, 11.0])
def test_a_predicate_is_asked_before_every_trip(start: float) -> None:
    u = np.full(WIDTH, start, np.float32)
    buffers = _buffers(((WIDTH,),), ((), bool_), ((WIDTH,),), ((), bool_))
    loop = Loop(_while_small(), Dim("most"), (Carry(0, 0, 1, 2), Carry(1, 2, 3, 3)), predicate=1)
    plan = Plan(buffers, (loop,), (0, 1), (Fetch(2, (WIDTH,), float32), Fetch(3, (), bool_)))
    for most in (100, 1, 0):
        value = start
        for _ in range(most):
            value = value * 2 if value < 10 else value
        last, more = _run(plan, u, np.array(start < 10), sizes={"most": most})
        np.testing.assert_array_equal(last, np.full(WIDTH, value, np.float32))
        assert more == (value < 10)


@pytest.mark.parametrize(("index", "chosen"), [(-1, 0), (0, 0), (1, 1), (7, 1)])
def test_branches_take_the_nearest_plan(index: int, chosen: int) -> None:
    around = _buffers(((WIDTH,),), ((), int32), ((),), ((WIDTH,),), ((),), ((WIDTH,),))
    plan = Plan(around, (Branch(1, _choices()),), (3, 1), (Fetch(5, (WIDTH,), float32),))
    t = np.arange(WIDTH, dtype=np.float32)
    (found,) = _run(plan, t, np.array(index, np.int32))
    np.testing.assert_array_equal(found, [t * 3, t - 1][chosen])


def test_calls_of_the_host_and_collectives() -> None:
    buffers = _buffers(((WIDTH,),), ((WIDTH,),), ((WIDTH,),))
    steps = (HostCall("halve", (0,), (1,)), Collective("all_reduce", 1, 2, 1))
    plan = Plan(buffers, steps, (0,), (Fetch(2, (WIDTH,), float32),))
    x = np.arange(WIDTH, dtype=np.float32)
    (found,) = _run(plan, x, halve=lambda a: [a / 2])
    np.testing.assert_array_equal(found, x / 2)
    with pytest.raises(DeviceError, match="the plan calls 'halve' on the host, and there is no such function"):
        _run(plan, x)


def test_other_devices_refuse_by_name() -> None:
    plan = _nested(2)
    with pytest.raises(DeviceError, match=r"cannot run a Loop yet \(loop\).*'numpy:kernels'"):
        backend("opencl").compile(plan)


def test_plans_inside_are_printed() -> None:
    text = str(_nested(2))
    for line in (
        "  loop 2 times, carries 1 as 0 <- 7 to 3 reads arena:1, arena:0 writes arena:3, arena:2",
        "      branch by 4 reads arena:4, arena:3 writes arena:5",
        "          tripled [nest: oracle] reads arena:0 writes arena:1",
        "      loop 20 times while carry 1, carries 5 as 0 <- 1 to 6, carries 8 as 2 <- 3 to 9 reads arena:5, arena:8",
    ):
        assert line in text, text


def _loop(**changes: Any) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, steps=(replace(plan.steps[0], **changes),))  # type: ignore[type-var]


def _inside(number: int, **changes: Any) -> Callable[[Plan], Plan]:
    def spoil(plan: Plan) -> Plan:
        loop = plan.steps[0]
        assert isinstance(loop, Loop)
        buffers = tuple(replace(b, **changes) if b.number == number else b for b in loop.body.buffers)
        return _loop(body=replace(loop.body, buffers=buffers))(plan)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_loop(trips=-1), "a loop of -1 trips"),
        (_loop(trips=3), "leaves buffer 0"),
        (_loop(predicate=0), "is no single bool"),
        (_loop(predicate=1), "the predicate is carry 1 of 1"),
        (_loop(carries=()), "which nothing has written"),
        (_loop(carries=(Carry(1, 0, 3, 3), Carry(1, 0, 7, 2))), "two carries share a buffer"),
        (_loop(carries=(Carry(1, 0, 77, 3),)), "no memory of the body's own"),
        (_loop(carries=(Carry(0, 0, 7, 3),)), "is of another type"),
        (_loop(carries=(Carry(77, 0, 7, 3),)), "names buffer 77, which does not exist"),
        (_loop(carries=(Carry(1, 3, 7, 3),)), "nothing has written|is carried in, and the body writes it"),
        (_loop(body=replace(_trip(2), feeds=(0,))), "has feeds, fetches or variables"),
        (_inside(1, within=Within(0, 2, ROW)), "leaves buffer 0|not aligned"),
        (_inside(1, within=Within(0, 2, 6)), "is not aligned"),
        (_inside(1, within=Within(0, -4, ROW)), "leaves buffer 0"),
        (_inside(2, within=Within(2, 0, -ROW)), "leaves buffer 2"),
        (_inside(1, dtype=int32), "as float32"),
        (_inside(4, dtype=float32, shape=()), "as bool"),
        (lambda p: replace(p, buffers=(replace(p.buffers[0], within=Within(1)), *p.buffers[1:])), "no plan around"),
        (lambda p: replace(p, steps=(Copy(0, 3), *p.steps)), "is of another type"),
        (lambda p: replace(p, steps=(Branch(0, _choices()),)), "names buffer 5, which does not exist"),
        (lambda p: replace(p, steps=(Branch(0, ()),)), "a branch chooses among 0 plans"),
    ],
)  # fmt: skip
def test_wrong_steps_are_refused(spoil: Callable[[Plan], Plan], words: str) -> None:
    plan = _nested(2)
    verify_plan(plan)
    with pytest.raises(VerifyError) as error:
        verify_plan(spoil(plan))
    assert re.search(words, str(error.value))
