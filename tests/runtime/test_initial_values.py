"""Initial values: the seed, the checkpoint key and the order among equal keys decide them, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.sessions import opened

import graphcore as gc
from graphcore import nn

DEVICES = ("numpy", "opencl:intel", "opencl:pocl")


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))


def values(made: nn.Module, seed: int | None = 0, before: Callable[[gc.Session], Any] | None = None) -> dict[str, Any]:
    """The values in a new session that has done something before."""
    with gc.Session("numpy", seed=seed) as session:
        if before is not None:
            before(session)
        return session.state_dict(made)


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    assert a.keys() == b.keys()
    same = {key for key in a if np.array_equal(a[key], b[key])}
    assert len(same) in (0, len(a)), f"only {sorted(same)} are equal"
    return bool(same)


def test_the_same_model_starts_equal_whatever_was_used_or_built_before() -> None:
    made = model()
    wanted = values(made)
    assert len({v.tobytes() for v in wanted.values()}) == len(wanted)
    others = [gc.Variable(gc.init.normal((5,)), name="other"), gc.Variable(gc.init.normal((5,)))]
    histories: list[Callable[[gc.Session], Any]] = [
        lambda s: s.run(others),
        lambda s: [s.get_value(v) for v in reversed(list(made.parameters()))],
        lambda s: s.run(made[2](gc.ones((1, 4)))),
        lambda s: s.set_value(others[0], np.zeros(5, np.float32)),
        lambda s: s.run(gc.random.normal((3,))),
    ]
    for before in histories:
        assert equal(values(made, before=before), wanted)
    assert equal(values(model()), wanted)  # built anew, after all that
    assert not equal(values(made, seed=1), wanted)
    gc.random.seed(1)
    assert equal(values(made, seed=None), values(made, seed=1))
    gc.random.seed(0)


def test_models_alike_start_different_in_one_session() -> None:
    a, b = model(), model()
    with gc.Session("numpy") as session:
        first, second = session.state_dict(a), session.state_dict(b)
        assert not equal(first, second)
        assert equal(session.state_dict(a), first)
    with gc.Session("numpy") as session:  # first used is first
        assert equal(session.state_dict(b), first) and equal(session.state_dict(a), second)
    x = gc.ones((1, 3))
    for fetches in ([a(x), b(x)], [b(x), a(x)]):  # in one run, first built is first
        with gc.Session("numpy") as session:
            session.run(fetches)
            assert equal(session.state_dict(a), first) and equal(session.state_dict(b), second)


def test_variables_without_names_do_not_tell_how_many_there_are() -> None:
    def build() -> list[gc.Variable]:
        with gc.name_scope("scope"):
            return [gc.Variable(gc.init.normal((4,))) for _ in range(2)]

    def start(made: list[gc.Variable]) -> list[Any]:
        with gc.Session("numpy", seed=3) as session:
            return [v.tobytes() for v in session.run(made)]

    once, twice = build(), build()
    assert start(once) == start(twice) == start(once[::-1])[::-1]
    assert len({*start(once), *start([gc.Variable(gc.init.normal((4,)))])}) == 3
    assert once[0].name != once[1].name


@pytest.mark.parametrize("device", DEVICES)
def test_drawn_tensors_start_as_their_keys_and_the_seed_say(device: str) -> None:
    """They are drawn apart from what the session draws."""

    def build() -> list[gc.Variable]:
        a, b = (gc.Variable(gc.random.normal((6,)), name=name) for name in "ab")
        pair = gc.random.uniform((6,)), gc.random.uniform((6,))
        return [a, b, gc.Variable(gc.stack(list(pair)), name="c"), gc.Variable(a * 2, name="d")]

    made, again, noise = build(), build(), gc.random.normal((6,))
    with opened(device, seed=2) as session:
        wanted = session.run(made)
        assert session.get_value(gc.random.state()[1]) == 0
        drawn = session.run(noise)
        assert not any(np.array_equal(drawn, v) for v in wanted)
    assert not np.array_equal(wanted[0], wanted[1]) and not np.array_equal(*wanted[2])
    np.testing.assert_array_equal(wanted[3], wanted[0] * 2)
    with opened(device, seed=2) as session:
        np.testing.assert_array_equal(session.run(noise), drawn)
        found = [session.get_value(v) for v in again[::-1]][::-1]
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)
    with opened(device, seed=3) as session:
        assert not np.array_equal(session.get_value(made[0]), wanted[0])


def test_modules_draw_their_own_state_as_a_session_would() -> None:
    gc.random.seed(0)
    expected = values(model())
    a, b = model(), model()
    assert equal(a.state_dict(), expected)
    assert not equal(b.state_dict(), expected)
    assert equal(values(a, seed=9), expected)  # what was shown is what runs start from
    gc.random.seed(4)
    assert equal(model().state_dict(), values(model(), seed=4))
    gc.random.seed(0)
    assert equal(model().state_dict(), expected)
