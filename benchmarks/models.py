"""Training steps that a compiler should do well: what the golden digests and the paired timings of steps are taken of.

Every function builds one step with graphcore's public interface: fetches, and feeds with fixed random numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import graphcore as gc
from graphcore import nn, optim

__all__ = ["STEPS", "Step"]

Step = tuple[list[Any], Mapping[Any, Any]]


def _finish(logits: Any, y: Any, feeds: Mapping[Any, Any]) -> Step:
    loss = nn.functional.cross_entropy(logits, y)
    return [loss, optim.Adam(1e-3).minimize(loss)], feeds


def _classifier(model: Any, batch: int, inputs: tuple[int, ...], classes: int = 10) -> Step:
    """Mean cross entropy and Adam over a symbolic batch."""
    x = gc.placeholder("float32", (None, *inputs), name="x")
    y = gc.placeholder("int64", (None,), name="y")
    rng = np.random.default_rng(0)
    feeds = {x: rng.standard_normal((batch, *inputs), dtype=np.float32), y: rng.integers(0, classes, batch)}
    return _finish(model(x), y, feeds)


def _mlp(*widths: int) -> Any:
    layers: list[Any] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def mlp_small() -> Step:
    """MLP 64-64-10, batch 32."""
    return _classifier(_mlp(64, 64, 10), 32, (64,))


def mlp() -> Step:
    """MLP 784-512-512-10, batch 128."""
    return _classifier(_mlp(784, 512, 512, 10), 128, (784,))


def lenet() -> Step:
    """Two 5x5 convolutions with max pooling, 3136-1024-10, 28x28, batch 64."""
    model = nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3136, 1024),
        nn.ReLU(),
        nn.Linear(1024, 10),
    )
    return _classifier(model, 64, (1, 28, 28))


class _Attention(nn.Module):
    """A transformer's layer, normalised before its parts."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        b, s, d = x.shape
        qkv = self.qkv(self.norm1(x)).reshape((b, s, 3, self.heads, d // self.heads))
        q, k, v = (gc.permute(qkv[:, :, i], (0, 2, 1, 3)) for i in range(3))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(gc.permute(mixed, (0, 2, 1, 3)).reshape((b, s, d)))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def gpt() -> Step:
    """GPT, 4 layers, width 256, 4 heads, 128 tokens, vocabulary 256, batch 8."""
    width, positions, vocabulary, batch = 256, 128, 256, 8
    rows = gc.Dim("batch")
    tokens = gc.placeholder("int64", (rows, positions), name="tokens")
    targets = gc.placeholder("int64", (rows, positions), name="targets")
    h = nn.Embedding(vocabulary, width)(tokens) + nn.Embedding(positions, width)(gc.arange(positions))
    h = nn.Sequential(*(_Attention(width, 4, causal=True) for _ in range(4)))(h)
    logits = nn.Linear(width, vocabulary)(nn.LayerNorm(width)(h))
    rng = np.random.default_rng(0)
    feeds = {t: rng.integers(0, vocabulary, (batch, positions)) for t in (tokens, targets)}
    return _finish(logits.reshape((-1, vocabulary)), targets.reshape((-1,)), feeds)


def vit() -> Step:
    """ViT, 6 layers, width 192, 3 heads, 64 patches of 4x4, batch 32."""
    width, patches, batch = 192, 64, 32
    images = gc.placeholder("float32", (None, 3, 32, 32), name="images")
    labels = gc.placeholder("int64", (None,), name="labels")
    h = nn.Conv2d(3, width, 4, stride=4)(images)
    h = gc.permute(h.reshape((images.shape[0], width, patches)), (0, 2, 1))
    h = h + gc.Variable(gc.init.normal((patches, width), std=0.02), name="positions")
    h = nn.Sequential(*(_Attention(width, 3, causal=False) for _ in range(6)))(h)
    logits = nn.Linear(width, 10)(nn.LayerNorm(width)(h).mean(axis=1))
    rng = np.random.default_rng(0)
    feeds = {
        images: rng.standard_normal((batch, 3, 32, 32), dtype=np.float32),
        labels: rng.integers(0, 10, batch),
    }
    return _finish(logits, labels, feeds)


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> list[Any]:
    return [
        nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        self.body = nn.Sequential(*_conv(inputs, outputs, stride=stride), nn.ReLU(), *_conv(outputs, outputs))
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(inputs, outputs, 1, stride))

    def forward(self, x: Any) -> Any:
        return gc.relu(self.body(x) + self.shortcut(x))


def resnet18() -> Step:
    """ResNet-18 with the CIFAR stem, 32x32, batch 32."""
    blocks: list[Any] = []
    channels = 64
    for width in (64, 128, 256, 512):
        for stride in (1 if width == 64 else 2, 1):
            blocks.append(_Residual(channels, width, stride))
            channels = width
    body = nn.Sequential(*_conv(3, 64), nn.ReLU(), *blocks)
    head = nn.Linear(512, 10)
    return _classifier(lambda x: head(body(x).mean(axis=(2, 3))), 32, (3, 32, 32))


def unet() -> Step:
    """A U-Net of three levels, 16-64 channels, 64x64, batch 8; two classes a pixel."""
    batch, size, classes = 8, 64, 2

    def twice(inputs: int, outputs: int) -> Any:
        return nn.Sequential(*_conv(inputs, outputs), nn.ReLU(), *_conv(outputs, outputs), nn.ReLU())

    def doubled(t: Any) -> Any:
        b, c, h, w = t.shape
        return gc.broadcast_to(t[:, :, :, None, :, None], (b, c, h, 2, w, 2)).reshape((b, c, 2 * h, 2 * w))

    x = gc.placeholder("float32", (None, 3, size, size), name="x")
    y = gc.placeholder("int64", (None, size, size), name="y")
    pool = nn.MaxPool2d(2)
    first = twice(3, 16)(x)
    second = twice(16, 32)(pool(first))
    h = twice(32, 64)(pool(second))
    h = twice(96, 32)(gc.concat([doubled(h), second], axis=1))
    h = twice(48, 16)(gc.concat([doubled(h), first], axis=1))
    logits = nn.Conv2d(16, classes, 1)(h)
    rng = np.random.default_rng(0)
    feeds = {
        x: rng.standard_normal((batch, 3, size, size), dtype=np.float32),
        y: rng.integers(0, classes, (batch, size, size)),
    }
    return _finish(logits, y, feeds)


def gru() -> Step:
    """A GRU of width 128 unrolled over 24 steps, batch 32."""
    width, steps = 128, 24
    read, keep = nn.Linear(width, 3 * width), nn.Linear(width, 3 * width)
    head = nn.Linear(width, 10)

    def model(x: Any) -> Any:
        h = gc.zeros((x.shape[0], width))
        for t in range(steps):
            a, b = read(x[:, t]), keep(h)
            reset = gc.sigmoid(a[:, :width] + b[:, :width])
            update = gc.sigmoid(a[:, width : 2 * width] + b[:, width : 2 * width])
            new = gc.tanh(a[:, 2 * width :] + reset * b[:, 2 * width :])
            h = new + update * (h - new)
        return head(h)

    return _classifier(model, 32, (steps, width))


def embedding() -> Step:
    """The mean of 16 embeddings out of 100,000, width 64, and a linear layer, batch 256."""
    words, width, batch, length = 100_000, 64, 256, 16
    ids = gc.placeholder("int64", (None, length), name="ids")
    labels = gc.placeholder("int64", (None,), name="labels")
    logits = nn.Linear(width, 10)(nn.Embedding(words, width)(ids).mean(axis=1))
    rng = np.random.default_rng(0)
    feeds = {ids: rng.integers(0, words, (batch, length)), labels: rng.integers(0, 10, batch)}
    return _finish(logits, labels, feeds)


STEPS: dict[str, Callable[[], Step]] = {
    f.__name__: f for f in (mlp_small, mlp, lenet, gpt, vit, resnet18, unet, gru, embedding)
}
