"""Small programs that are nearly one kernel each: what the cost models' numbers are fitted to.

Sizes run from a core's own cache to memory, so that every number of the model decides some of the times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import graphcore as gc
from graphcore import nn, optim

__all__ = ["KERNELS", "Built", "levels"]

Built = tuple[list[Any], Mapping[Any, Any]]
_OWN, _SHARED, _FAR = 1 << 15, 1 << 20, 1 << 24  # floats: in a core's own cache, in the shared one, in memory


def _fed(*shape: int, dtype: str = "float32", above: float = 0.0) -> tuple[Any, Any]:
    draw = np.random.default_rng(0)
    array = draw.standard_normal(shape) if dtype.startswith("float") else draw.integers(0, 64, shape)
    return gc.placeholder(dtype, shape), (np.abs(array) + above if above else array).astype(dtype)


def _map(function: Callable[..., Any], *counts: int, operands: int = 1, above: float = 0.0) -> Callable[[], Built]:
    def build() -> Built:
        fed = [_fed(*counts, above=above) for _ in range(operands)]
        return [function(*(t for t, _ in fed))], dict(fed)

    return build


def _product(m: int, n: int, k: int, turned: str = "", dtype: str = "float32") -> Callable[[], Built]:
    def build() -> Built:
        a, x = _fed(*((k, m) if "a" in turned else (m, k)), dtype=dtype)
        b, y = _fed(*((n, k) if "b" in turned else (k, n)), dtype=dtype)
        left, right = (gc.permute(t, (1, 0)) if name in turned else t for t, name in ((a, "a"), (b, "b")))
        return [left @ right], {a: x, b: y}

    return build


def _batched() -> Built:
    a, x = _fed(32, 128, 64)
    b, y = _fed(32, 64, 128)
    return [a @ b], {a: x, b: y}


def _conv(
    channels: int, size: int, filters: int, taps: int, stride: int = 1, groups: int = 1, batch: int = 16
) -> Callable[[], Built]:
    """A convolution, and both its gradients."""

    def build() -> Built:
        x, array = _fed(batch, channels, size, size)
        layer = nn.Conv2d(channels, filters, taps, stride=stride, padding=taps // 2, groups=groups, bias=False)
        y = layer(x)
        return [y, *gc.gradients((y * y).sum(), [x, layer.weight])], {x: array}

    return build


def _taken() -> Built:
    table = gc.Variable(np.zeros((4096, 64), np.float32))
    ids, array = _fed(4096, dtype="int64")
    taken = gc.take(table, ids, axis=0)
    return [taken, *gc.gradients((taken * taken).sum(), [table])], {ids: array}


def _updated() -> Built:
    weight = gc.Variable(np.ones((1024, 1024), np.float32))
    g, array = _fed(1024, 1024)
    return [optim.Adam(1e-3).minimize((weight * g).sum())], {g: array}


def _pooled() -> Built:
    x, array = _fed(16, 32, 32, 32)
    y = nn.functional.max_pool2d(x, 2)
    return [y, *gc.gradients((y * y).sum(), [x])], {x: array}


def _norm() -> Built:
    x, array = _fed(1024, 256)
    return [nn.LayerNorm(256)(x)], {x: array}


def _entropy() -> Built:
    x, array = _fed(1024, 256)
    labels, at = _fed(1024, dtype="int64")
    loss = nn.functional.cross_entropy(x, labels)
    return [loss, *gc.gradients(loss, [x])], {x: array, labels: at}


def levels() -> Built:
    """Sixteen small kernels, one after the other, each just large enough for all cores."""
    x, array = _fed(128, 128)
    y = x
    for number in range(16):
        y = gc.softmax(y, -1 - number % 2)
    return [y], {x: array}


KERNELS: dict[str, Callable[[], Built]] = {
    "add, own cache": _map(lambda a, b: a + b, _OWN // 4, operands=2),
    "add, shared cache": _map(lambda a, b: a + b, _SHARED, operands=2),
    "add, memory": _map(lambda a, b: a + b, _FAR, operands=2),
    "eight operations": _map(lambda a: ((a * a + 1.0) * a - 2.0) * a + gc.maximum(a, 0.5) * 3.0, _OWN),
    "divide": _map(lambda a, b: a / b, _OWN // 2, operands=2, above=1.0),
    "square root": _map(gc.sqrt, _OWN, above=1.0),
    "exponential": _map(gc.exp, _OWN),
    "logarithm": _map(gc.log, _OWN, above=1.0),
    "tanh": _map(gc.tanh, _OWN),
    "sigmoid": _map(gc.sigmoid, _OWN),
    "sine": _map(gc.sin, _OWN),
    "erf": _map(gc.erf, _OWN),
    "power": _map(gc.pow, _OWN // 2, operands=2, above=1.0),
    "gelu, shared cache": _map(nn.functional.gelu, _SHARED),
    "softmax, short rows": _map(lambda a: gc.softmax(a, -1), 4096, 64),
    "softmax, long rows": _map(lambda a: gc.softmax(a, -1), 128, 4096),
    "softmax, memory": _map(lambda a: gc.softmax(a, -1), 8192, 1024),
    "sum of rows": _map(lambda a: gc.sum(a, axis=1), 512, 1024),
    "sum of columns": _map(lambda a: gc.sum(a, axis=0), 1024, 512),
    "sum of columns, memory": _map(lambda a: gc.sum(a, axis=0), 8192, 2048),
    "sum of few columns": _map(lambda a: gc.sum(a, axis=0), 8192, 32),
    "sum of all": _map(gc.sum, _SHARED),
    "argmax of rows": _map(lambda a: gc.argmax(a, axis=1), 512, 256),
    "layer norm": _norm,
    "cross entropy": _entropy,
    "transpose": _map(lambda a: gc.permute(a, (1, 0)) + 1.0, 1024, 1024),
    "heads": _map(lambda a: gc.permute(a, (0, 2, 1, 3)) + 1.0, 8, 128, 4, 64),
    "max pooling": _pooled,
    "gather and scatter": _taken,
    "update": _updated,
    "product 64": _product(64, 64, 64),
    "product 512": _product(512, 512, 512),
    "product 1024": _product(1024, 1024, 1024),
    "product, thin": _product(128, 10, 512),
    "product, few rows": _product(4, 1024, 1024),
    "product, weight gradient": _product(256, 512, 1024, "a"),
    "product, transposed": _product(512, 256, 256, "b"),
    "product, float64": _product(256, 256, 256, dtype="float64"),
    "products, batched": _batched,
    "convolution 3x3": _conv(64, 32, 64, 3),
    "convolution 1x1": _conv(128, 16, 128, 1),
    "convolution 5x5": _conv(1, 28, 32, 5),
    "convolution, stride 2": _conv(64, 32, 128, 3, stride=2),
    "convolution, depthwise": _conv(64, 32, 64, 3, groups=64),
}
