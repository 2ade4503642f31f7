"""Optimizers' state in PyTorch's layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.values import message_of

import graphcore as gc

MAKE: dict[str, Any] = {
    "SGD": lambda params: gc.optim.SGD(params, lr=0.1, momentum=0.9),
    "RMSprop": lambda params: gc.optim.RMSprop(params, lr=0.1, momentum=0.5, centered=True),
    "Adam": lambda params: gc.optim.Adam(params, lr=0.1),
    "AdamW": lambda params: gc.optim.AdamW([{"params": params[:1]}, {"params": params[1:], "lr": 0.3}], lr=0.1),
}


def program(kind: str, start: Any = ((1.0, 2.0), (3.0,))) -> tuple[Any, Any, list[gc.Variable]]:
    params = [gc.Variable(list(value)) for value in start]
    optimizer = MAKE[kind](params)
    return optimizer, optimizer.minimize((params[0] ** 2).sum() * params[1].sum()), params


@pytest.mark.parametrize("kind", MAKE)
def test_training_goes_on_from_a_loaded_state(sess: gc.Session, kind: str) -> None:
    """Three steps are two steps, and one by another optimizer with the state of the first."""
    optimizer, step, params = program(kind)
    for _ in range(2):
        sess.run(step)
    state = optimizer.state_dict()
    assert set(state["state"]) == {0, 1}
    assert set(optimizer.slot_names) >= set(state["state"][0]) - {"step"} and len(state["state"][0]) >= 1
    assert [n for group in state["param_groups"] for n in group["params"]] == [0, 1]
    again, other_step, others = program(kind, sess.run(params))
    again.load_state_dict(state)
    sess.run(step)
    with gc.Session(sess.device) as other:
        other.run(other_step)
        for mine, theirs in zip(others, params, strict=True):
            np.testing.assert_allclose(other.get_value(mine), sess.get_value(theirs), rtol=1e-6)
        assert "has a value in an open session already" in message_of(
            gc.SessionError, lambda: again.load_state_dict(state)
        )
    assert "sess.commit()" in message_of(gc.SessionError, again.state_dict)
    again.load_state_dict(state)
    for number, held in again.state_dict()["state"].items():
        for slot, value in held.items():
            np.testing.assert_array_equal(value, state["state"][number][slot])


def test_a_state_of_pytorch() -> None:
    """With numbers that begin anywhere, and steps as floating tensors."""
    optimizer, step, params = program("Adam")
    rows = [np.array([0.5, 0.25], np.float32), np.array([0.125], np.float32)]
    held = [{"step": np.float32(4), "exp_avg": row, "exp_avg_sq": row * row, "max": None} for row in rows]
    given = {"state": dict(zip((7, 3), held, strict=True)), "param_groups": [{"lr": 0.7, "params": [7, 3]}]}
    optimizer.load_state_dict(given)
    with gc.Session("numpy") as session:
        slots = optimizer.slots(params[1])
        assert session.run([slots["exp_avg"], optimizer.iterations]) == [np.float32(0.125), 4]
        session.run(step)
        assert session.get_value(optimizer.iterations) == 5 and optimizer.lr == 0.1


def test_states_that_do_not_fit() -> None:
    optimizer, _, params = program("Adam")
    groups = [{"params": [0, 1]}]
    cases: list[tuple[type[Exception], Any, str]] = [
        (gc.FormatError, {"exp_avg": 1}, "expected a dict with 'state' and 'param_groups'"),
        (gc.FormatError, {"state": {}, "param_groups": [{"params": [0]}]}, "is of 1 parameters, there are 2"),
        (gc.FormatError, {"state": {0: {"sum": 1}}, "param_groups": groups}, "no slot 'sum'; there are 'exp_avg'"),
        (gc.ShapeError, {"state": {1: {"exp_avg": [1.0, 2.0]}}, "param_groups": groups}, "has shape (1,)"),
    ]
    for error, state, text in cases:
        assert text in message_of(error, lambda: optimizer.load_state_dict(state))  # noqa: B023
    first = {"exp_avg": [9.0, 9.0]}
    with pytest.raises(gc.ShapeError):
        optimizer.load_state_dict({"state": {0: first, 1: {"exp_avg": [1.0, 2.0]}}, "param_groups": groups})
    assert optimizer.state_dict()["state"][0]["exp_avg"].tolist() == [0, 0]  # all or nothing
    assert "was given no parameters" in message_of(gc.UsageError, lambda: gc.optim.Adam(lr=0.1).load_state_dict({}))
