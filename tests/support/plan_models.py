"""Models and runs that the tests of plans share: what was compiled, and what went into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import graphcore as gc
from graphcore import nn, optim
from graphcore.api.tensor import Tensor
from graphcore.base.errors import DeviceError
from graphcore.runtime.compiled import Compiled
from support.device_names import RUNTIMES
from support.sessions import opened

__all__ = ["RUNTIMES", "any_runtime", "cnn", "mlp", "report", "session", "train", "transformer"]


def session(device: str) -> gc.Session:
    """A session; skips the test where the runtime is not installed."""
    return opened(device, seed=1)


def any_runtime() -> gc.Session:
    """A session on the first CPU runtime that is installed."""
    for device in RUNTIMES:
        try:
            return gc.Session(device, seed=1)
        except DeviceError:
            continue
    pytest.skip("no OpenCL CPU runtime")


def report(compiled: Compiled) -> str:
    """What a failing test shows: the kernels, the plan and the reasons."""
    cost = compiled.cost_analysis()
    kernels = "\n".join(
        f"level {k['level']}: {k['name']} [{k['family']}] {k['rows']} rows, {k['bytes']:,.0f} bytes"
        for k in cost["kernels"]
    )
    return (
        f"{len(cost['kernels'])} kernels in {cost['levels']} levels, {cost['bytes_accessed']:,.0f} bytes"
        f"\n{kernels}\n{compiled.as_text('plan')}\n{compiled.explain()}"
    )


def train(model: Any, inputs: Sequence[int], batch: int, classes: int = 10) -> tuple[list[Any], dict[Tensor, Any]]:
    """Fetches and feeds of a training step: mean cross entropy and Adam."""
    x = gc.placeholder("float32", (None, *inputs), name="x")
    y = gc.placeholder("int64", (None,), name="y")
    loss = gc.functional.cross_entropy(model(x), y)
    rng = np.random.default_rng(0)
    feeds = {x: rng.standard_normal((batch, *inputs)).astype(np.float32), y: rng.integers(0, classes, batch)}
    return [loss, optim.Adam(1e-3).minimize(loss)], feeds


def mlp(sizes: Sequence[int]) -> Any:
    """Linear layers with relu between them."""
    layers: list[Any] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(first: int, second: int, size: int) -> Any:
    """Two 3x3 convolutions, each with relu and 2x2 max pooling, and a linear layer: for digits of size x size."""
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * (size // 4) ** 2, 10),
    )


class _Block(nn.Module):
    """A transformer's layer, normalised before its parts; attention by plain products."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def split(self, t: Tensor) -> Tensor:
        """(batch, positions, width) -> (batch, heads, positions, width / heads)."""
        b, s, d = t.shape
        return gc.permute(gc.reshape(t, (b, s, self.heads, d // self.heads)), (0, 2, 1, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        q, k, v = self.split(self.query(h)), self.split(self.key(h)), self.split(self.value(h))
        weights = gc.softmax(q @ gc.matrix_transpose(k) * (q.shape[-1] ** -0.5), -1)
        x = x + self.out(gc.reshape(gc.permute(weights @ v, (0, 2, 1, 3)), x.shape))
        return x + self.down(gc.functional.activations.gelu(self.up(self.norm2(x))))


def transformer(layers: int, width: int, heads: int, positions: int, batch: int) -> tuple[list[Any], dict[Tensor, Any]]:
    """Fetches and feeds of a training step of a stack of layers: mean squared error and Adam."""
    model = nn.Sequential(*(_Block(width, heads) for _ in range(layers)))
    x = gc.placeholder("float32", (batch, positions, width), name="x")
    y = gc.placeholder("float32", (batch, positions, width), name="y")
    loss = gc.square(model(x) - y).mean()
    rng = np.random.default_rng(0)
    feeds: Mapping[Tensor, Any] = {t: rng.standard_normal((batch, positions, width)).astype(np.float32) for t in (x, y)}
    return [loss, optim.Adam(1e-3).minimize(loss)], dict(feeds)
