"""Equal graphs over other variables are one program of a session, and each keeps its own values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphcore as gc
from graphcore import nn, optim
from graphcore.ir.fingerprint import fingerprint
from graphcore.ir.graph import collect

FEED = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def variable(*values: float, name: str | None = None) -> gc.Variable:
    return gc.Variable(np.array(values, np.float32), name=name)


def step(model: nn.Module, x: gc.Tensor) -> list[Any]:
    loss = (model(x) ** 2).mean()
    return [loss, optim.Adam(lr=0.1).minimize(loss)]


def test_a_model_that_is_built_again_is_not_compiled_again(sess: gc.Session) -> None:
    x = gc.placeholder("float32", (None, 3), name="x")
    models = [nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)) for _ in "abc"]
    steps = [step(model, x) for model in models]
    first = [float(sess.run(fetches, {x: FEED})[0]) for fetches in steps]
    assert len(set(first)) == 3  # drawn one by one
    info = sess.cache_info()
    assert (info.programs, info.compilations, info.executables) == (1, 1, 3)
    apart = [sess.get_value(model[2].weight) for model in models]
    for _ in range(3):
        sess.run(steps[1], {x: FEED})
    after = [sess.get_value(model[2].weight) for model in models]
    assert [bool((a == b).all()) for a, b in zip(apart, after, strict=True)] == [True, False, True]
    assert sess.cache_info().compilations == 1


# What is built of two variables, and whether it is one program with the first of the list.
SAME: list[tuple[Callable[[Any, Any], list[Any]], bool]] = [
    (lambda a, b: [a - 2 * b], True),
    (lambda a, b: [b - 2 * a], True),
    (lambda a, b: [a - 2 * a], False),
    (lambda a, b: [a - 2 * b, a.assign(b)], False),
    (lambda a, b: [a - 2 * b, b.assign(a)], False),
]


def test_slots_are_numbered_by_where_they_appear() -> None:
    def digest(fetches: list[Any]) -> bytes:
        tensors = [f.value for f in fetches if isinstance(f, gc.Tensor)]
        return fingerprint(collect(tensors, [f for f in fetches if isinstance(f, gc.Update)])).digest

    one, other = (variable(1, 2), variable(3, 4)), (variable(5, 6), variable(7, 8))
    wanted = digest(SAME[0][0](*one))
    for build, same in SAME:
        assert (digest(build(*one)) == wanted) is same and digest(build(*one)) == digest(build(*other))
        assert digest(build(*one)) == digest(build(*reversed(other)))
    assert fingerprint(collect([(one[1] - one[0]).value])).slots == (one[1].slot, one[0].slot)
    wide = gc.Variable(np.ones(2, np.float64))
    assert digest([one[0] * 2]) != digest([wide * 2]) and digest([one[0] * 2]) != digest([variable(1, 2, 3) * 2])


def test_variables_change_places(sess: gc.Session) -> None:
    a, b = variable(1, 2), variable(10, 20)
    for p, q in ((a, b), (b, a), (a, b)):
        one, other = sess.get_value(p), sess.get_value(q)
        fetched, _ = sess.run([p - 2 * q, p.assign(p + q)])
        np.testing.assert_array_equal(fetched, one - 2 * other)
        np.testing.assert_array_equal(sess.get_value(p), one + other)
        np.testing.assert_array_equal(sess.get_value(q), other)
    assert sess.cache_info().programs == sess.cache_info().compilations == 1


def test_state_stays_apart_where_memory_grows(sess: gc.Session) -> None:
    """A later program needs more room than there is: what was bound before moves with its values."""
    counts = [variable(float(i)) for i in range(3)]
    steps = [c.assign_add(1.0) for c in counts]
    for one in steps:
        sess.run(one)
    large = gc.Variable(np.zeros((300, 300), np.float32))
    sess.run(large.assign_add(1.0))
    for one in steps[1:]:
        sess.run(one)
    assert [float(sess.get_value(c)[0]) for c in counts] == [1.0, 3.0, 4.0]


def test_reports_name_the_variables_that_were_asked_for(fast: gc.Session) -> None:
    def text(name: str) -> str:
        w = variable(1, 2, name=name)
        fetches = [gc.exp(w), w.assign(w * 2.0)]
        fast.run(fetches)
        return fast.compile(fetches).as_text("plan") + fast.compile(fetches).as_text("simplified")

    one, other = text("hidden"), text("other")
    assert "hidden" in one and "other" not in one and "other" in other and "hidden" not in other
    assert fast.cache_info().programs == 1


@pytest.mark.parametrize("device", ["numpy", "numpy:kernels"])
def test_a_variable_that_nobody_holds_is_made_again(device: str) -> None:
    def hidden() -> list[Any]:
        w = variable(1, 2, name="w")
        w.requires_grad_(False)
        b = variable(0, 0, name="b")
        loss = (w * 3 + b).sum()
        return [loss, optim.SGD(lr=0.5).minimize(loss)]

    with gc.Session(device) as session:
        fetches = hidden()
        session.run(fetches)
        (update,) = fetches[1].updates
        again = update.variable
        assert again is update.variable and again.name == "b" and again.trainable
        np.testing.assert_array_equal(session.get_value(again), [-0.5, -0.5])
        state = session.state_dict()
        assert set(state) == {"w", "b"} and state["w"].tolist() == [1, 2]


def test_a_variable_that_no_plan_needs_has_a_value_all_the_same(sess: gc.Session) -> None:
    """What simplifying drops is still there where the graph itself is run."""
    x, w, v = gc.placeholder("float32", (2,)), variable(1, 2), variable(3, 4)
    for fetch in (gc.where(gc.constant(True), x, w), gc.where(gc.constant(False), v, x)):
        np.testing.assert_array_equal(sess.run(fetch, {x: [5, 6]}), [5, 6])
    sess.run(w.assign(gc.where(gc.constant(True), w + 1, variable(7, 8))))
    np.testing.assert_array_equal(sess.get_value(w), [2, 3])
