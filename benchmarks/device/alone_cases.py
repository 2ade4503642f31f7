"""Single operations at sizes that matter: what they compute, how much that is, and what NumPy makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import graphcore as gc
from graphcore.base.dtypes import as_dtype
from graphcore.functional.conv import conv2d
from graphcore.functional.embedding import embedding

__all__ = ["Alone", "cases"]

Feeds = Mapping[Any, Any]


@dataclass(frozen=True)
class Alone:
    """One operation.

    Attributes:
        build: its result, and arrays by placeholder.
        flops, nbytes: that it takes at least.
        peer: its name among ``torch_peers.PEERS``.
        arrays: what the peer takes.
        wanted: NumPy's result of those; None where NumPy has nothing that is fast enough.
        settings: numbers that the peer wants beside arrays.
    """

    build: Callable[[], tuple[Any, Feeds]]
    flops: float
    nbytes: float
    peer: str
    arrays: tuple[Any, ...]
    wanted: Callable[..., Any] | None = None
    settings: tuple[int, ...] = ()


def _drawn(*shape: int, dtype: str = "float32") -> Any:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32).astype(as_dtype(dtype).storage)


def _map(function: Callable[..., Any], *arrays: Any) -> tuple[Any, Feeds]:
    fed = {gc.placeholder(str(a.dtype), a.shape): a for a in arrays}
    return function(*fed), fed


def _product(size: int, dtype: str) -> Alone:
    a, b = _drawn(size, size, dtype=dtype), _drawn(size, size, dtype=dtype)[::-1].copy()
    build = partial(_map, gc.matmul, a, b)

    def wanted(a: Any, b: Any) -> Any:
        return a.astype(np.float32) @ b.astype(np.float32)

    return Alone(build, 2.0 * size**3, 3.0 * a.nbytes, f"product {dtype}", (a, b), wanted)


def _convolution(batch: int, inputs: int, outputs: int, size: int, taps: int) -> dict[str, Alone]:
    """A convolution, and its gradients of the input and of the window."""
    x, w, g = _drawn(batch, inputs, size, size), _drawn(outputs, inputs, taps, taps), _drawn(batch, outputs, size, size)
    flops = 2.0 * g.size * inputs * taps * taps
    pad = taps // 2

    def gradient(of: int) -> tuple[Any, Feeds]:
        px, pw, pg = (gc.placeholder("float32", t.shape) for t in (x, w, g))
        y = conv2d(px, pw, padding=pad)
        found = gc.gradients(gc.sum(y * pg), [px, pw])[of]
        return found, {pg: g, **({pw: w} if of == 0 else {px: x})}

    title = f"{batch}x{inputs}x{size}x{size} to {outputs}, {taps}x{taps}"
    nbytes, arrays = float(x.nbytes + w.nbytes + g.nbytes), (x, w, g)
    forward = partial(_map, lambda x, w: conv2d(x, w, padding=pad), x, w)
    return {
        f"convolution {title}": Alone(forward, flops, nbytes, "convolution", arrays, settings=(pad,)),
        f"its input's gradient {title}": Alone(
            partial(gradient, 0), flops, nbytes, "input gradient", arrays, settings=(pad,)
        ),
        f"its window's gradient {title}": Alone(
            partial(gradient, 1), flops, nbytes, "window gradient", arrays, settings=(pad,)
        ),
    }


def _rows(rows: int, columns: int) -> dict[str, Alone]:
    """A softmax of rows, and sums of columns."""
    x = _drawn(rows, columns)

    def softmax(x: Any) -> Any:
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    return {
        f"softmax {rows}x{columns}": Alone(
            partial(_map, lambda t: gc.softmax(t, -1), x), 4.0 * x.size, 2.0 * x.nbytes, "softmax", (x,), softmax
        ),
        f"column sums {rows}x{columns}": Alone(
            partial(_map, lambda t: gc.sum(t, axis=0), x),
            x.size,
            x.nbytes,
            "column sums",
            (x,),
            lambda x: x.sum(0, dtype=np.float64),
        ),
    }


def _embedding(words: int, width: int, count: int) -> Alone:
    ids, g = np.random.default_rng(0).integers(0, words, count), _drawn(count, width)

    def build() -> tuple[Any, Feeds]:
        table = gc.Variable(np.zeros((words, width), np.float32))
        i, c = gc.placeholder("int64", ids.shape), gc.placeholder("float32", g.shape)
        return gc.gradients(gc.sum(embedding(i, table) * c), [table])[0], {i: ids, c: g}

    def wanted(g: Any, ids: Any) -> Any:
        found = np.zeros((words, width))
        np.add.at(found, ids, g)
        return found

    nbytes = 4.0 * width * (count + words)
    return Alone(build, float(g.size), nbytes, "embedding gradient", (g, ids), wanted, (words,))


def cases(small: bool) -> dict[str, Callable[[], dict[str, Alone]]]:
    """Makers of operations, by title; those of a title share their arrays."""
    sizes = (128, 256) if small else (512, 1024, 2048, 4096)
    shapes = ((2, 16, 16, 8, 3),) if small else ((64, 64, 64, 56, 3), (64, 256, 256, 14, 3), (64, 256, 64, 56, 1))
    rows = ((64, 128),) if small else ((4096, 1024), (1024, 50257), (4, 1 << 20))
    count, square = (1 << 16, 256) if small else (1 << 24, 4096)
    words = (1000, 64, 256) if small else (50257, 256, 16384)

    def one(title: str, make: Callable[..., Alone], *arguments: Any) -> dict[str, Alone]:
        return {title: make(*arguments)}

    def elementwise() -> Alone:
        x, y = _drawn(count), _drawn(count) * 2
        build = partial(_map, lambda a, b: gc.exp(a) * b + 1.0, x, y)
        return Alone(build, 3.0 * count, 3.0 * x.nbytes, "elementwise", (x, y), lambda a, b: np.exp(a) * b + 1)

    def whole() -> Alone:
        x = _drawn(count) + 1
        return Alone(
            partial(_map, gc.sum, x), count, x.nbytes, "sum", (x,), lambda x: np.asarray(x.sum(dtype=np.float64))
        )

    def turned() -> Alone:
        x = _drawn(square, square)
        build = partial(_map, lambda t: gc.permute(t, (1, 0)) * 2.0, x)
        return Alone(build, x.size, 2.0 * x.nbytes, "transpose", (x,), lambda x: x.T * 2)

    found: dict[str, Callable[[], dict[str, Alone]]] = {}
    for size in sizes:
        found[f"product {size}"] = partial(one, f"product {size}", _product, size, "float32")
    found["elementwise"] = partial(one, f"exp(x) * y + 1, {count}", elementwise)
    for shape in shapes:
        found[f"convolution {shape}"] = partial(_convolution, *shape)
    for size in sizes:
        found[f"product {size} bf16"] = partial(one, f"product {size} bf16", _product, size, "bfloat16")
    for shape2 in rows:
        found[f"rows {shape2}"] = partial(_rows, *shape2)
    found["sum"] = partial(one, f"sum of {count}", whole)
    found["transpose"] = partial(one, f"transpose {square}", turned)
    found["embedding"] = partial(one, f"embedding gradient {words}", _embedding, *words)
    return found
