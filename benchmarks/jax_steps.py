"""Training steps of ``models.py`` written in JAX, and one of them compiled from nothing: ``python -m
benchmarks.jax_steps resnet18`` prints the seconds as JSON.

Same shapes, same optimizer, same statistics of batch norms; the whole step is one jitted function, its state donated.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["STEPS", "adam"]

Model = Callable[["Store", Any], Any]
_DRIFT = 0.1  # of batch norms' running statistics


class Store:
    """Parameters and running statistics in the order in which a model asks for them.

    Args:
        weights, averages: what it answers; None while their shapes are found out.
    """

    def __init__(self, weights: list[Any] | None = None, averages: list[Any] | None = None) -> None:
        self.shapes: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = [], []
        self.given = weights, averages
        self.moved: list[Any] = []

    def _next(self, which: int, shape: tuple[int, ...]) -> Any:
        self.shapes[which].append(shape)
        given = self.given[which]
        return jnp.zeros(shape) if given is None else given[len(self.shapes[which]) - 1]

    def weight(self, *shape: int) -> Any:
        """The next parameter."""
        return self._next(0, shape)

    def drift(self, value: Any) -> None:
        """Move the next running statistic towards a batch's."""
        old = self._next(1, value.shape)
        self.moved.append(old + _DRIFT * (value - old))


def linear(s: Store, x: Any, out: int) -> Any:
    return x @ s.weight(x.shape[-1], out) + s.weight(out)


def conv(s: Store, x: Any, out: int, size: int = 3, stride: int = 1, pad: int | None = None) -> Any:
    pad = size // 2 if pad is None else pad
    weight = s.weight(out, x.shape[1], size, size)
    return jax.lax.conv_general_dilated(x, weight, (stride, stride), [(pad, pad)] * 2)


def batch_norm(s: Store, x: Any) -> Any:
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    s.drift(mean)
    s.drift(var)
    scale, shift = s.weight(x.shape[1]), s.weight(x.shape[1])
    x = (x - mean[:, None, None]) * jax.lax.rsqrt(var + 1e-5)[:, None, None]
    return x * scale[:, None, None] + shift[:, None, None]


def layer_norm(s: Store, x: Any) -> Any:
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + 1e-5) * s.weight(x.shape[-1]) + s.weight(x.shape[-1])


def attention_layer(s: Store, x: Any, heads: int, causal: bool) -> Any:
    batch, length, width = x.shape
    qkv = linear(s, layer_norm(s, x), 3 * width).reshape(batch, length, 3, heads, width // heads)
    q, k, v = (qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(width // heads)
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -jnp.inf)
    mixed = (jax.nn.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(batch, length, width)
    x = x + linear(s, mixed, width)
    return x + linear(s, jax.nn.gelu(linear(s, layer_norm(s, x), 4 * width), approximate=False), width)


def resnet18(s: Store, x: Any) -> Any:
    x = jax.nn.relu(batch_norm(s, conv(s, x, 64)))
    for width in (64, 128, 256, 512):
        for stride in (1 if width == 64 else 2, 1):
            same = stride == 1 and x.shape[1] == width
            h = jax.nn.relu(batch_norm(s, conv(s, x, width, 3, stride)))
            h = batch_norm(s, conv(s, h, width))
            x = jax.nn.relu(h + (x if same else batch_norm(s, conv(s, x, width, 1, stride))))
    return linear(s, x.mean((2, 3)), 10)


def unet(s: Store, x: Any) -> Any:
    def twice(x: Any, out: int) -> Any:
        for _ in range(2):
            x = jax.nn.relu(batch_norm(s, conv(s, x, out)))
        return x

    def pool(x: Any) -> Any:
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

    def doubled(x: Any) -> Any:
        b, c, h, w = x.shape
        return jnp.broadcast_to(x[:, :, :, None, :, None], (b, c, h, 2, w, 2)).reshape(b, c, 2 * h, 2 * w)

    first = twice(x, 16)
    second = twice(pool(first), 32)
    h = twice(pool(second), 64)
    h = twice(jnp.concatenate([doubled(h), second], 1), 32)
    h = twice(jnp.concatenate([doubled(h), first], 1), 16)
    h = conv(s, h, 2, 1) + s.weight(2)[:, None, None]
    return h.transpose(0, 2, 3, 1)


def gpt(s: Store, tokens: Any) -> Any:
    h = s.weight(256, 256)[tokens] + s.weight(128, 256)
    for _ in range(4):
        h = attention_layer(s, h, 4, causal=True)
    return linear(s, layer_norm(s, h), 256)


def vit(s: Store, images: Any) -> Any:
    h = conv(s, images, 192, 4, 4, pad=0) + s.weight(192)[:, None, None]
    h = h.reshape(h.shape[0], 192, 64).transpose(0, 2, 1) + s.weight(64, 192)
    for _ in range(6):
        h = attention_layer(s, h, 3, causal=False)
    return linear(s, layer_norm(s, h).mean(1), 10)


def _images(batch: int, size: int, classes: int, *label_shape: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, (batch, *label_shape)).astype(np.int32)
    return rng.standard_normal((batch, 3, size, size), dtype=np.float32), labels


def _tokens() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 256, (8, 128)).astype(np.int32) for _ in range(2))
    return x, y


STEPS: dict[str, tuple[Model, Callable[[], tuple[Any, Any]]]] = {
    "resnet18": (resnet18, lambda: _images(32, 32, 10)),
    "unet": (unet, lambda: _images(8, 64, 2, 64, 64)),
    "gpt": (gpt, _tokens),
    "vit": (vit, lambda: _images(32, 32, 10)),
}


def adam(p: Any, m: Any, v: Any, t: Any, g: Any) -> tuple[Any, Any, Any]:
    """Adam with learning rate 1e-3 at step ``t``, counted from 1: new parameters and moments."""
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
    rate, root = 1e-3 / (1 - 0.9**t), 1 / jnp.sqrt(1 - 0.999**t)
    p = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) * root + 1e-8), p, m, v)
    return p, m, v


def _parameters(model: Model, x: Any) -> tuple[list[Any], list[Any]]:
    store = Store()
    jax.eval_shape(lambda x: model(store, x), x)
    rng = np.random.default_rng(1)

    def drawn(shape: tuple[int, ...]) -> Any:
        fan_in = math.prod(shape[1:]) if len(shape) == 4 else shape[0]
        return rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(math.sqrt(fan_in))

    weights = [np.zeros(s, np.float32) if len(s) == 1 else drawn(s) for s in store.shapes[0]]
    return weights, [np.zeros(s, np.float32) for s in store.shapes[1]]


def _train(model: Model) -> Callable[..., Any]:
    def loss_of(p: Any, averages: Any, x: Any, y: Any) -> Any:
        store = Store(p, averages)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(model(store, x)), y[..., None], -1)
        return -chosen.mean(), store.moved

    def train(state: Any, x: Any, y: Any) -> Any:
        p, m, v, t, averages = state
        (loss, averages), g = jax.value_and_grad(loss_of, has_aux=True)(p, averages, x, y)
        return (*adam(p, m, v, t + 1, g), t + 1, averages), loss

    return train


def main() -> None:
    """Trace, compile and run a step once; print the seconds of each."""
    model, feed = STEPS[sys.argv[1]]
    times = [time.perf_counter()]
    x, y = feed()
    weights, averages = _parameters(model, x)
    zeros = [np.zeros_like(w) for w in weights]
    state = (weights, zeros, [np.zeros_like(w) for w in weights], np.float32(0), averages)
    times.append(time.perf_counter())
    traced = jax.jit(_train(model), donate_argnums=0).lower(state, x, y)
    times.append(time.perf_counter())
    compiled = traced.compile()
    times.append(time.perf_counter())
    _, loss = compiled(state, x, y)
    loss = float(loss)
    times.append(time.perf_counter())
    parts = {
        name: round(b - a, 3)
        for name, a, b in zip(("build", "trace", "compiler", "first run"), times, times[1:], strict=False)
    }
    seconds = round(times[-1] - times[0], 3)
    print(json.dumps({"seconds": seconds, "cpu": round(sum(os.times()[:4]), 2), "parts": parts, "loss": loss}))


if __name__ == "__main__":
    main()
