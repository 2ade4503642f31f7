"""``nn.init``: initial values replaced in place, with PyTorch's formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.values import message_of

import graphcore as gc

init = gc.nn.init
SHAPE = (60, 40, 3, 3)  # 360 inputs, 540 outputs

# The standard deviation, and the largest magnitude, that each should have.
DRAWN: dict[str, tuple[Callable[[gc.Variable], Any], float, float]] = {
    "uniform_": (lambda v: init.uniform_(v, -3.0, 3.0), math.sqrt(3.0), 3.0),
    "normal_": (lambda v: init.normal_(v, std=0.02), 0.02, 1.0),
    "trunc_normal_": (lambda v: init.trunc_normal_(v, std=0.02), 0.02, 1.0),
    "trunc_normal_ cut": (lambda v: init.trunc_normal_(v, 1.0, 1.0, 0.0, 2.0), 0.5396, 2.0),
    "xavier_uniform_": (lambda v: init.xavier_uniform_(v, 2.0), 2.0 / math.sqrt(450), 2.0 * math.sqrt(3 / 450)),
    "xavier_normal_": (init.xavier_normal_, 1 / math.sqrt(450), 1.0),
    "kaiming_uniform_": (
        lambda v: init.kaiming_uniform_(v, a=math.sqrt(5)),
        1 / math.sqrt(3 * 360),
        1 / math.sqrt(360),
    ),
    "kaiming_normal_": (
        lambda v: init.kaiming_normal_(v, mode="fan_out", nonlinearity="relu"),
        math.sqrt(2 / 540),
        1.0,
    ),
    "orthogonal_": (lambda v: init.orthogonal_(v, 2.0), 2.0 / math.sqrt(360), 2.0),
}


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_draws_have_pytorchs_spread(name: str, dtype: str) -> None:
    draw, std, largest = DRAWN[name]
    v = gc.Variable(np.ones(SHAPE, dtype), name="v")
    assert draw(v) is v
    with gc.Session("numpy", seed=3) as one, gc.Session("numpy", seed=3) as other:
        value = one.get_value(v)
        np.testing.assert_array_equal(value, other.get_value(v))  # by the session's seed
    assert value.dtype == dtype
    assert value.astype(float).std() == pytest.approx(std, rel=0.03)
    assert abs(value.astype(float)).max() <= largest * 1.001


def test_what_is_not_drawn() -> None:
    v, m = gc.Variable(np.zeros((4, 2, 3, 3), np.float32)), gc.Variable(np.ones((2, 3), np.float32))
    with gc.Session("numpy") as session:
        assert (session.run(init.ones_(gc.Variable([1.0, 2.0])) * 1.0) == 1).all()
        assert session.get_value(init.constant_(gc.Variable([1.0]), 0.5)).tolist() == [0.5]
        assert session.get_value(init.zeros_(gc.Variable([1.0]))).tolist() == [0]
        assert session.get_value(init.eye_(m)).tolist() == [[1, 0, 0], [0, 1, 0]]
        x = gc.placeholder("float32", (1, 2, 5, 5))
        y = gc.nn.functional.conv2d(x, init.dirac_(v), padding=1)
        fed = np.arange(50, dtype=np.float32).reshape(1, 2, 5, 5)
        np.testing.assert_array_equal(session.run(y, {x: fed})[:, :2], fed)
    assert init.calculate_gain("leaky_relu", 0.0) == init.calculate_gain("relu") == math.sqrt(2.0)


def test_every_layer_of_a_model(sess: gc.Session) -> None:
    """``model.apply(init_weights)``, as people write it."""
    model = gc.nn.Sequential(gc.nn.Linear(3, 2), gc.nn.ReLU(), gc.nn.Linear(2, 1))

    def init_weights(m: gc.nn.Module) -> None:
        if isinstance(m, gc.nn.Linear):
            init.xavier_uniform_(m.weight)
            init.constant_(m.bias, 0.25)

    model.apply(init_weights)
    assert {v.tolist()[0] for k, v in sess.state_dict(model).items() if "bias" in k} == {0.25}
    text = message_of(gc.SessionError, lambda: model.apply(init_weights))
    assert "sess.set_value(variable, array)" in text and f"{__file__}:" in text


def test_data_is_the_initial_value(sess: gc.Session) -> None:
    """``m.weight.data.normal_(0.0, 0.02)``, as people write it."""
    layer = gc.nn.Linear(50, 40)
    assert layer.weight.data.normal_(0.0, 0.02) is layer.weight and layer.bias is not None
    layer.bias.data.zero_().data.fill_(2)
    other = gc.Variable(np.zeros(3, np.float32), name="other")
    other.data = np.array([1.0, 2.0, 3.0])
    assert sess.get_value(layer.weight).std() == pytest.approx(0.02, rel=0.05)
    assert set(sess.get_value(layer.bias)) == {2} and sess.get_value(other).tolist() == [1, 2, 3]
    for change in (other.data.zero_, lambda: other.data.copy_([0, 0, 0]), lambda: setattr(other, "data", [0, 0, 0])):
        assert "sess.set_value(variable, array)" in message_of(gc.SessionError, change)
    free = gc.Variable(np.zeros((2, 2)))
    assert abs(free.data.uniform_(-1.0, -0.5).initial.sample(np.random.default_rng(0)) + 0.75).max() <= 0.25
    with pytest.raises(AttributeError, match=r"sess\.get_value"):
        free.data.clone()


def test_what_does_not_fit() -> None:
    v = gc.Variable([1.0, 2.0])
    assert "at least 2 axes" in message_of(gc.ShapeError, lambda: init.xavier_normal_(v))
    assert "expected a Variable" in message_of(gc.UsageError, lambda: init.zeros_(np.ones(2)))  # type: ignore[arg-type]
    assert "no nonlinearity 'gelu'" in message_of(gc.UsageError, lambda: init.calculate_gain("gelu"))
    assert "mode is 'in'" in message_of(gc.UsageError, lambda: init.kaiming_normal_(gc.Variable([[1.0]]), mode="in"))
    assert "the initializer init.zeros" in message_of(gc.ShapeError, lambda: v.set_initial(gc.init.zeros((3,))))
