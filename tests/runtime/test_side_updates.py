"""Side updates belong to the call of the module that built them: every run that needs what the call gave performs all
of them, once, whatever was made of it on the way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from support.sessions import opened

import graphcore as gc
from graphcore.nn import utils
from graphcore.optim import clip

X = np.random.default_rng(5).standard_normal((4, 2, 3, 3)).astype(np.float32)


class Net(gc.nn.Module):
    """A batch norm before a layer, so that the gradients of that layer alone do not need the statistics."""

    def __init__(self) -> None:
        self.norm = gc.nn.BatchNorm2d(2)
        self.head = gc.nn.Linear(18, 1)

    def forward(self, x: Any) -> Any:
        return self.head(self.norm(x).reshape(4, 18))


def loss_of(net: Net, x: gc.Tensor) -> gc.Tensor:
    loss: gc.Tensor = (net(x) ** 2).mean()
    return loss


def sgd(net: Net) -> gc.optim.SGD:
    return gc.optim.SGD(net.parameters(), lr=0.0)


def clipped_pairs(function: Callable[..., Any], net: Net, x: gc.Tensor) -> Any:
    optimizer = sgd(net)
    pairs = optimizer.compute_gradients(loss_of(net, x))
    found = {
        clip.clip_by_value: lambda: function(pairs, -1.0, 1.0),
        clip.clip_by_norm: lambda: function(pairs, 1.0),
        clip.clip_by_global_norm: lambda: function(pairs, 1.0)[0],
    }[function]()
    return optimizer.apply_gradients(found)


def clipped_in_place(function: Callable[..., Any], net: Net, x: gc.Tensor) -> Any:
    optimizer = sgd(net)
    loss_of(net, x).backward()
    function(net.parameters(), 1.0)
    return optimizer.step()


def last_bias_alone(net: Net, x: gc.Tensor) -> Any:
    """Its gradient, 2 / n times the sum of the outputs, is made without the last node of the norm's call."""
    (g,) = gc.gradients(net(x).sum(), net.head.bias)
    return net.head.bias.assign(net.head.bias - 0.0 * g)


def graded(net: Net, x: gc.Tensor, make: Callable[..., Any]) -> Any:
    loss_of(net, x).backward()
    return make([v.grad for v in net.parameters()])


@gc.custom_gradient
def as_it_is(y: gc.Tensor) -> Any:
    return y * 1.0, lambda g: g


def custom(net: Net, x: gc.Tensor) -> gc.Tensor:
    @gc.custom_gradient
    def call(v: gc.Tensor) -> Any:
        return net(v), lambda g: gc.zeros((4, 2, 3, 3)) * g.sum()

    made: gc.Tensor = call(x)
    return made


def nested(net: Net, x: gc.Tensor) -> gc.Tensor:
    made: gc.Tensor = gc.checkpoint(lambda u: gc.checkpoint(net)(u * 1.0))(x)
    return made


def shifted(net: Net, x: gc.Tensor) -> gc.Tensor:
    """The gradient of x is x itself, which a run feeds."""
    return gc.gradients(net(x).sum() * 0.0 + (x * x.detach()).sum(), x)[0]


WAYS: dict[str, Callable[[Net, gc.Tensor], Any]] = {
    "output": lambda net, x: net(x),
    "loss": loss_of,
    "metric": lambda net, x: gc.argmax(net(x).detach(), 0),
    "gradient": lambda net, x: gc.gradients(loss_of(net, x), list(net.parameters())),
    "gradient of a bias": last_bias_alone,
    "gradient of the input": shifted,
    "given cotangent": lambda net, x: gc.gradients(net(x) + net.head.bias, net.head.bias, grad_ys=gc.ones((4, 1)))[0],
    "second gradient": lambda net, x: gc.gradients(
        gc.gradients(loss_of(net, x), net.head.bias)[0].sum(), net.head.bias
    ),
    "hvp": lambda net, x: gc.hvp(lambda v: (net(v) ** 2).sum(), [x], [gc.ones((4, 2, 3, 3))]),
    "jvp": lambda net, x: gc.jvp(net, [x], [gc.ones((4, 2, 3, 3))])[1],
    "grad": lambda net, x: graded(net, x, list),
    "one grad": lambda net, x: graded(net, x, lambda found: found[-1]),
    "minimize": lambda net, x: sgd(net).minimize(loss_of(net, x)),
    "minimize one": lambda net, x: gc.optim.Adam(lr=0.0).minimize(loss_of(net, x), [net.head.bias]),
    "minimize in halves": lambda net, x: sgd(net).apply_gradients(sgd(net).compute_gradients(loss_of(net, x))),
    "checkpoint": lambda net, x: gc.checkpoint(net)(x),
    "checkpoint's gradient": lambda net, x: gc.gradients((gc.checkpoint(net)(x) ** 2).sum(), net.head.bias),
    "nested checkpoints": nested,
    "nested checkpoints' gradient": lambda net, x: gc.gradients(nested(net, x).sum(), [net.norm.weight, x]),
    "custom gradient": custom,
    "custom gradient's gradient": lambda net, x: gc.gradients(custom(net, x).sum(), x),
    "custom gradient of the output": lambda net, x: gc.gradients(as_it_is(net(x)).sum(), net.norm.bias),
    **{name: partial(clipped_pairs, getattr(clip, name)) for name in clip.__all__},
    **{name: partial(clipped_in_place, getattr(utils, name)) for name in utils.__all__},
}


def check(device: str, way: str) -> None:
    net, x = Net(), gc.placeholder("float32", X.shape, name="x")
    fetched = WAYS[way](net, x)
    with opened(device) as session:
        for _ in range(2):
            session.run(fetched, {x: X})
        state = session.state_dict(net)
    np.testing.assert_allclose(state["norm.running_mean"], 0.19 * X.mean((0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(state["norm.running_var"], 0.81 + 0.19 * X.var((0, 2, 3), ddof=1), rtol=1e-4)
    assert state["norm.num_batches_tracked"] == 2


@pytest.mark.parametrize("way", WAYS)
def test_every_run_that_needs_a_call_performs_its_updates(way: str) -> None:
    check("numpy", way)


@pytest.mark.parametrize("device", ["numpy:kernels", "opencl:intel", "opencl:pocl"])
@pytest.mark.parametrize("way", ["clip_by_global_norm", "checkpoint's gradient"])
def test_devices_perform_them(device: str, way: str) -> None:
    check(device, way)


def momentum(value: float, *batches: np.ndarray) -> Any:
    for batch in batches:
        value = 0.9 * value + 0.1 * batch.mean((0, 2, 3))  # type: ignore[assignment]
    return value


@pytest.mark.parametrize("checkpointed", [False, True])
def test_calls_of_one_module_compose_in_build_order_whatever_is_fetched_first(checkpointed: bool) -> None:
    norm, x = gc.nn.BatchNorm2d(2), gc.placeholder("float32", X.shape)
    first = norm(x)
    call = gc.checkpoint(norm) if checkpointed else norm
    second, third = call(x * 2.0 + 1.0), norm(x * 5.0)
    expected = momentum(0.0, X, 2 * X + 1, 5 * X)
    for fetches in ([first, second, third], [third, first, second], [third * second * first], [second + third, first]):
        with gc.Session("numpy") as session:
            session.run(fetches, {x: X})
            np.testing.assert_allclose(session.state_dict(norm)["running_mean"], expected, rtol=1e-4)
            assert session.state_dict(norm)["num_batches_tracked"] == 3


def test_two_calls_inside_one_checkpoint_compose() -> None:
    norm, x = gc.nn.BatchNorm2d(2), gc.placeholder("float32", X.shape)
    before = norm(x * 3.0)
    both = gc.checkpoint(lambda v: norm(v * 2.0) + norm(v))(x)
    with gc.Session("numpy") as session:
        session.run([gc.gradients(both.sum(), x), before], {x: X})
        state = session.state_dict(norm)
    np.testing.assert_allclose(state["running_mean"], momentum(0.0, 3 * X, 2 * X, X), rtol=1e-4)
    assert state["num_batches_tracked"] == 3


def test_a_fed_output_and_a_call_in_evaluation_perform_none() -> None:
    net, x = Net(), gc.placeholder("float32", X.shape)
    y = net.norm(x)
    loss = (net.head(y.reshape(4, 18)) ** 2).mean()
    gradients = gc.gradients(loss, list(net.parameters()))
    step = gc.optim.SGD(lr=0.0).minimize(loss, [net.head.weight])
    net.eval()
    evaluated = gc.gradients(loss_of(net, x), list(net.parameters()))
    with gc.Session("numpy") as session:
        session.run([loss, step], {y: X})
        session.run([loss, gradients], {y: X, x: X})
        session.run(evaluated, {x: X})
        assert session.state_dict(net)["norm.num_batches_tracked"] == 0
        session.run(gradients, {x: X})
        assert session.state_dict(net)["norm.num_batches_tracked"] == 1


def test_an_explicit_assign_wins() -> None:
    norm, x = gc.nn.BatchNorm2d(2), gc.placeholder("float32", X.shape)
    assert norm.running_mean is not None
    y = norm(x)
    for fetched in (y, gc.gradients((y * y).sum(), x), gc.checkpoint(norm)(x)):
        with gc.Session("numpy") as session:
            session.run([fetched, norm.running_mean.assign(gc.constant([7.0, 8.0]))], {x: X})
            state = session.state_dict(norm)
        assert state["running_mean"].tolist() == [7, 8] and state["num_batches_tracked"] == 1


@pytest.mark.parametrize("wrap", [gc.checkpoint, lambda f: f], ids=["checkpoint", "plain"])
def test_a_drawn_mask_is_new_in_every_run(wrap: Any) -> None:
    x = gc.placeholder("float32", (64,))
    y = wrap(lambda v: gc.nn.functional.dropout(v, 0.5))(x)
    g = gc.gradients(y.sum(), x)[0]
    with gc.Session("numpy") as session:
        runs = [session.run([y, g], {x: np.ones(64, np.float32)}) for _ in range(2)]
    for value, gradient in runs:
        np.testing.assert_array_equal(value, gradient)
    assert not np.array_equal(runs[0][0], runs[1][0])
