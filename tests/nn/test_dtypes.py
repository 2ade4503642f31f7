"""Modules take another element type before they are used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.values import message_of

import graphcore as gc


class Net(gc.nn.Module):
    def __init__(self) -> None:
        self.body = gc.nn.Linear(3, 2)  # drawn
        self.norm = gc.nn.BatchNorm2d(2)  # arrays, and an integer
        self.made = gc.nn.Parameter(gc.ones((2,)) * 3.0)  # a tensor

    def forward(self, x: Any) -> Any:
        return self.norm(self.body(x).reshape(-1, 2, 1, 1)).reshape(-1, 2) * self.made


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "float32"])
def test_a_module_of_another_type_draws_the_same_numbers(sess: gc.Session, dtype: str) -> None:
    short = {"float16": "half", "float64": "double", "float32": "float", "bfloat16": "bfloat16"}
    plain, net = Net(), Net()
    assert getattr(net, short[dtype])() is net
    kinds = {path: str(v.dtype) for path, v in (*net.named_parameters(), *net.named_buffers())}
    assert kinds.pop("norm.num_batches_tracked") == "int64" and set(kinds.values()) == {dtype}
    with gc.Session(sess.device, seed=4) as one, gc.Session(sess.device, seed=4) as other:
        wanted, got = one.state_dict(plain), other.state_dict(net)
        assert str(got["body.weight"].dtype) == dtype
        for path, value in wanted.items():
            rounding = 2.0 ** -{"float16": 10, "bfloat16": 7}.get(dtype, 23)
            np.testing.assert_allclose(got[path].astype(np.float64), value.astype(np.float64), rtol=rounding)
    x = gc.placeholder(dtype, (None, 3))
    y = net(x)
    step = gc.optim.SGD(net.parameters(), lr=0.5).minimize((y * y).astype("float32").mean())
    assert y.dtype == dtype
    sess.run([y, step], {x: np.eye(3)[:, :3].astype(np.float16 if dtype == "float16" else np.float32)})
    assert sess.get_value(net.made).dtype == net.made.dtype.storage


def test_other_parameters_know_it_too() -> None:
    """The variables are the same ones: an optimizer made before trains them."""
    net = Net()
    optimizer = gc.optim.SGD(net.parameters(), lr=0.5, momentum=0.5)
    net.to(gc.float64)
    step = optimizer.minimize(net(gc.ones((4, 3), "float64")).sum())
    assert {u.value.dtype for u in step} == {gc.float64}
    assert {v.dtype for v in optimizer.variables()} == {gc.float64}


def test_it_is_too_late_once_the_module_is_used() -> None:
    net, x = Net(), gc.placeholder("float32", (None, 3), name="x")
    y = net(x)
    with gc.Session("numpy") as session:
        net.double()
        text = message_of(gc.GraphError, lambda: session.run(y, {x: np.ones((4, 3))}))
        assert "was float32 when something was built on it, and is float64" in text and f"{__file__}:" in text
        session.get_value(net.made)
        assert "in an open session already" in message_of(gc.SessionError, net.half)
    assert "float32, which does not become int8" in message_of(gc.DTypeError, lambda: Net().to("int8"))
