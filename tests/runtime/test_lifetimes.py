"""Graphs die with the last one who holds them: none needs Python's collector of circles."""

from __future__ import annotations

import gc as garbage
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.sessions import opened

import graphcore as gc
from graphcore import nn, optim
from graphcore.ir.node import Node

DEVICES = (None, "numpy", "numpy:kernels", "opencl:intel")  # None: only built
X = np.linspace(-1, 1, 48, dtype=np.float32).reshape(4, 12)
Built = tuple[list[Any], dict[gc.Tensor, Any]]


def fed() -> gc.Tensor:
    return gc.placeholder("float32", (None, 12), name="x")


def weights(*shape: int) -> gc.Variable:
    return gc.Variable(np.ones(shape, np.float32))


def derived() -> Built:
    x, w = fed(), weights(12, 5)
    loss = (gc.softmax(gc.tanh(x @ w), axis=1) ** 2).mean()
    (g,) = gc.gradients(loss, [w])
    return [loss, g, *gc.gradients(gc.sum(g * g), [w])], {x: X}


def left_by_backward() -> Built:
    x, w = fed(), weights(12, 5)
    h = x @ w
    h.retain_grad()
    h.sum().backward()
    return [w.grad, h.grad], {x: X}


def trained(optimizer: Callable[[], optim.Optimizer]) -> Callable[[], Built]:
    def build() -> Built:
        x, labels = fed(), gc.placeholder("int64", (None,), name="labels")
        model = nn.Sequential(nn.Linear(12, 8), nn.LayerNorm(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
        loss = nn.functional.cross_entropy(model(x), labels)
        return [loss, optimizer().minimize(loss)], {x: X, labels: [0, 2, 1, 1]}

    return build


def images() -> Built:
    x = fed()
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    loss = (model(x.reshape((-1, 3, 2, 2))) ** 2).mean()
    return [loss, optim.SGD(lr=0.1, momentum=0.9).minimize(loss)], {x: X}


def attended() -> Built:
    x, w = fed(), weights(4, 4)
    tokens = x.reshape((-1, 3, 4))
    y = nn.functional.scaled_dot_product_attention(tokens @ w, tokens, tokens)
    return [y, *gc.gradients(y.sum(), [w])], {x: X}


def in_regions() -> Built:
    x, w = fed(), weights(12, 5)

    @gc.custom_gradient
    def scaled(t: gc.Tensor) -> Any:
        return gc.exp(t), lambda g: g * 2.0 * t

    y = scaled(gc.checkpoint(lambda t: gc.tanh(t @ w))(x))
    return [y, *gc.gradients(y.sum(), [x, w])], {x: X}


def gathered() -> Built:
    x, table = fed(), weights(7, 12)
    at = gc.placeholder("int64", (None,), name="at")
    y = (nn.functional.embedding(at, table) * x).sum(axis=1)
    return [gc.argmax(y), *gc.gradients(y.sum(), [table])], {x: X, at: [6, 0, 3, 3]}


def begun_by_others() -> Built:
    x, v = fed(), weights(12)
    w = gc.Variable(v * 2.0 + gc.random.normal((12,)))
    return [(x * w).sum(), v.assign(w)], {x: X}


CASES: list[Callable[[], Built]] = [
    derived,
    left_by_backward,
    trained(lambda: optim.Adam(lr=0.1)),
    trained(lambda: optim.RMSprop(lr=0.1)),
    images,
    attended,
    in_regions,
    gathered,
    begun_by_others,
]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[Node]]]:
    """Weakly all nodes that are made; no circle is collected meanwhile."""
    gc.random.state()  # belongs to the process
    made: list[weakref.ref[Node]] = []
    begin = Node.__init__

    def noted(node: Node, *args: Any, **named: Any) -> None:
        begin(node, *args, **named)
        made.append(weakref.ref(node))

    monkeypatch.setattr(Node, "__init__", noted)
    enabled = garbage.isenabled()
    garbage.disable()
    yield made
    if enabled:
        garbage.enable()


def living(nodes: list[weakref.ref[Node]]) -> list[Node]:
    return [node for node in (made() for made in nodes) if node is not None]


def used(session: gc.Session, build: Callable[[], Built]) -> None:
    """Build, compile, run, look at it; nothing is given back."""
    fetches, feeds = build()
    compiled = session.compile(fetches, feeds)
    assert compiled.explain() and compiled.as_text("plan")
    session.run(fetches, feeds)
    call = session.make_callable(fetches, list(feeds))
    call(*feeds.values())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("build", CASES, ids=lambda case: str(case.__qualname__).split(".")[0])
def test_no_node_outlives_its_users(device: str | None, build: Callable[[], Built], nodes: Any) -> None:
    if device is None:
        build()
    else:
        session = opened(device, verify=True)
        used(session, build)
        assert living(nodes)  # the session's
        session.close()
        del session
    assert len(nodes) > 5 and not living(nodes)


def test_a_dropped_session_lets_go_of_its_graphs(nodes: Any) -> None:
    session = gc.Session("numpy:kernels")
    used(session, derived)
    assert living(nodes)
    del session
    assert not living(nodes)


def test_failures_let_go_of_their_graphs(nodes: Any) -> None:
    """Once nobody holds the exception, which holds the frames it went through."""
    with gc.Session("numpy:kernels") as session:
        for wrong in ({}, {fed(): np.ones((2, 3), np.float32)}):
            with pytest.raises(gc.FeedError):
                session.run(derived()[0], wrong)
        with pytest.raises(gc.ShapeError):
            _ = fed() + weights(5)
    del session, wrong
    assert not living(nodes)


def test_a_circle_would_be_found(nodes: Any) -> None:
    x = gc.exp(fed())
    holder: list[Any] = [x]
    holder.append(holder)
    del x, holder
    assert len(living(nodes)) == 2
    garbage.collect()
    assert not living(nodes)
