"""What the call of a module, or of a function with a training form, may be given, and what it is warned of."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.values import message_of

import graphcore as gc
from graphcore.base import notices

F = gc.nn.functional
X = gc.placeholder("float32", (None, 4), name="x")


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if no line had been warned of."""
    monkeypatch.setattr(notices, "_warned", set())
    monkeypatch.setattr(notices, "_built", type(notices._built)())
    yield


def warned(call: Callable[[], Any]) -> list[str]:
    """The texts of the warnings that a call gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert {w.category for w in caught} <= {gc.BuildWarning} and all(w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught]


FUNCTIONS = {name: getattr(F, name) for name in dir(F) if callable(getattr(F, name))}
WITH_TRAINING = [name for name, f in FUNCTIONS.items() if "training" in inspect.signature(f).parameters]


@pytest.mark.parametrize("flag", [gc.placeholder("bool", (), name="flag"), gc.constant(True, name="flag")])
def test_a_tensor_does_not_decide_what_is_built(flag: gc.Tensor) -> None:
    assert {"dropout", "batch_norm"} <= set(WITH_TRAINING)
    more = {"running_mean": gc.zeros((4,)), "running_var": gc.ones((4,))}
    for name in WITH_TRAINING:
        function = getattr(F, name)
        given = {key: value for key, value in more.items() if key in inspect.signature(function).parameters}
        for x in (X, X[:, :, None], X[:, :, None, None]):
            try:
                function(x, **given, training=False)
            except gc.ShapeError:
                continue
            text = message_of(gc.UsageError, lambda: function(x, **given, training=flag))  # noqa: B023
            assert (text.startswith(f"{name}: training is a tensor") and "'flag'" in text) or "flag: bool()" in text
            assert "model.train()" in text and "model.eval()" in text
    assert "Dropout.train: training is a tensor" in message_of(gc.UsageError, lambda: gc.nn.Dropout().train(flag))  # type: ignore[arg-type]


def test_modes_change_nothing_that_is_built() -> None:
    model = gc.nn.Sequential(gc.nn.Linear(4, 4), gc.nn.Dropout(0.5))
    trained, evaluated = model(X), model.eval()(X)
    model.train()
    with gc.Session("numpy", seed=1) as session:
        fed = {X: np.ones((3, 4), np.float32)}
        np.testing.assert_array_equal(session.run(evaluated, fed), session.run(evaluated, fed))
        assert (session.run(trained, fed) == 0).any()
        two = session.run([model(X), model(X)], fed)
    assert not np.array_equal(*two)  # each call drops anew


def test_a_module_called_on_an_array_works_and_warns_once() -> None:
    model, data = gc.nn.Sequential(gc.nn.Linear(4, 2), gc.nn.ReLU()), np.ones((3, 4), np.float32)
    made: list[gc.Tensor] = []

    def call() -> None:
        for _ in range(2):
            made.append(model(data))

    (text,) = warned(call)
    assert "the call of Sequential is given an array" in text and "feed a placeholder" in text
    with gc.Session("numpy") as session:
        assert session.run(made[0]).shape == (3, 2)


def test_a_line_that_calls_a_module_again_and_again_is_told_once() -> None:
    model, other = gc.nn.Sequential(gc.nn.Linear(4, 4), gc.nn.ReLU()), gc.nn.Linear(4, 4)

    def again() -> None:
        for _ in range(6):
            model(X)

    (text,) = warned(again)
    assert "the call of Sequential is built here for the 4th time" in text and "sess.run(" in text

    def unrolled() -> None:
        h = X
        for _ in range(6):
            h = other(h)
        for layer in [gc.nn.Linear(4, 4) for _ in range(6)]:
            h = layer(h)

    assert not warned(unrolled)


def test_a_large_constant_outside_a_variable_warns_once() -> None:
    large, small = np.ones((600, 600), np.float32), np.ones((100, 100), np.float32)
    x = gc.placeholder("float32", (600, 600))
    assert not warned(
        lambda: (gc.Variable(large), gc.constant(small), gc.ones((600, 600)), gc.init.constant((600, 600), 1))
    )
    builds: list[Callable[[], Any]] = [
        lambda: gc.constant(large),
        lambda: x + large,
        lambda: gc.asarray(large),
        lambda: x @ large,
    ]
    for build in builds:
        (text,) = warned(lambda: (build(), build()))  # noqa: B023
        assert "1,440,000 bytes" in text and "gc.Variable(array, trainable=False)" in text


def test_an_option_of_an_optimizer_is_that_of_every_group() -> None:
    a, b = gc.Variable(1.0, name="a"), gc.Variable(1.0, name="b")
    optimizer = gc.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1)
    optimizer.lr = 0.25
    step = optimizer.minimize(a + b)
    with gc.Session("numpy") as session:
        session.run(step)
        assert session.run([a, b]) == [0.75, 0.75]
    text = message_of(gc.UsageError, lambda: setattr(optimizer, "lr", 1.0))
    assert "lr=gc.Variable(" in text and optimizer.lr == 0.25
    alone = gc.optim.SGD(lr=0.1)
    alone.minimize(a * b)
    assert "lr=gc.Variable(" in message_of(gc.UsageError, lambda: setattr(alone, "lr", 1.0))
