"""A node's device is a fact that copies keep; a session refuses nodes that ask for another device than its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.sessions import opened
from support.values import message_of

import graphcore as gc
from graphcore.ir.graph import Graph, collect
from graphcore.ir.op import Kind
from graphcore.runtime.feeds import feed_points
from passes.pipeline import DEFAULT, compile_graph

X = gc.placeholder("float32", (None, 4), name="x")


def program() -> tuple[list[gc.Tensor], list[Any]]:
    """What makes every stage copy: gradients, regions, draws, side updates, symbolic extents, algebra."""
    w, norm = gc.Variable(np.ones((4, 4), np.float32)), gc.nn.BatchNorm2d(4)
    h = gc.checkpoint(lambda v: gc.tanh(v @ w) + gc.random.normal((4,)))(X)
    y = norm((h - -h).reshape(-1, 4, 1, 1)).reshape(-1, 4) + gc.concat([X, X], 0).sum(0)
    loss = (gc.nn.functional.dropout(y, 0.5) ** 2).mean()
    gradient = gc.gradients(loss, w)[0]
    return [loss, gradient], [w.assign(w - 0.1 * gradient)]


@pytest.mark.parametrize("stage", [None, *(s.name for s in DEFAULT if s.gives is Graph)])
def test_copies_keep_the_device(stage: str | None) -> None:
    with gc.device("numpy:kernels"):
        outputs, updates = program()
    with gc.device("opencl:1"):  # and not what is asked for where they happen to be made
        graph, _ = feed_points(collect(outputs, updates, (X.value,)), (X.value,))
        sizes = {str(X.shape[0]): 3}
        made = graph if stage is None else compile_graph(graph, None, sizes, upto=stage).value
    asked = {node.device for node in made.nodes() if node.op.kind is not Kind.LEAF}
    assert asked <= {"numpy:kernels", None}
    others = [node for node in made.nodes() if node.op.kind is not Kind.LEAF and node.device is None]
    assert {t.node.op.name for node in others for t in node.inputs} <= {"variable", "constant"}  # the count of draws


def test_foreign_devices_are_refused(sess: gc.Session) -> None:
    with gc.device("cuda:0"):
        nowhere = X * 2.0
    with gc.device("opencl:77"):
        missing = X * 2.0
    with gc.device("numpy" if sess.device != "numpy" else "numpy:kernels"):
        foreign = gc.checkpoint(lambda v: v * 2.0)(X) + 1.0
    feeds = {X: np.ones((1, 4))}
    assert "no backend for device 'cuda:0'; there are numpy, opencl" in message_of(
        gc.DeviceError, lambda: sess.run(nowhere, feeds)
    )
    text = message_of(gc.DeviceError, lambda: sess.run(missing, feeds))
    assert '"opencl:77"' in text and ("there are:\n  opencl:0" in text or "no OpenCL device was found" in text)
    text = message_of(gc.DeviceError, lambda: sess.run(foreign, feeds))
    assert "gc.Session(device='numpy" in text and f"{__file__}:" in text
    assert sess.run(missing, {missing: np.ones((1, 4))}).tolist() == [[1, 1, 1, 1]]  # which is fed
    assert "got int" in message_of(gc.DeviceError, lambda: gc.device(3).__enter__())  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["numpy", "numpy:kernels", "opencl:intel", "opencl:pocl"])
def test_its_own_device_is_served(device: str) -> None:
    with opened(device) as session:
        for name in {device, device.split(":")[0] if device.startswith("opencl") else device, "auto", None}:
            with gc.device(name):
                y = X + 1.0
            assert session.run(y, {X: np.ones((1, 4))}).tolist() == [[2, 2, 2, 2]]
