"""Products and convolutions alone: ten shapes of each that training steps have, for ``python -m benchmarks.pairs OLD
--alone``.

Like ``benchmarks.models``, this uses graphcore's public interface only, so that an older checkout runs it too. Results
are kept in variables and not fetched: copying them would take as long as some of the kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import graphcore as gc
from graphcore import nn

__all__ = ["STEPS", "Step"]

Step = tuple[list[Any], Mapping[Any, Any]]
_PRODUCTS = (
    # batch, rows, terms, columns; which factor is turned
    (1, 32, 64, 64, ""),
    (1, 128, 784, 512, ""),
    (1, 128, 512, 512, "right"),
    (1, 784, 128, 512, "left"),
    (1, 1024, 256, 1024, ""),
    (1, 1024, 1024, 256, "right"),
    (1, 1024, 1024, 1024, ""),
    (32, 128, 64, 128, "right"),
    (32, 128, 128, 64, ""),
    (1, 2048, 192, 768, ""),
)
_CONVOLUTIONS = (
    # batch, channels, size, filters, taps, stride, groups
    (32, 3, 32, 64, 3, 1, 1),
    (32, 64, 32, 64, 3, 1, 1),
    (32, 64, 32, 128, 3, 2, 1),
    (32, 128, 16, 128, 3, 1, 1),
    (32, 256, 8, 256, 3, 1, 1),
    (32, 512, 4, 512, 3, 1, 1),
    (32, 64, 32, 128, 1, 2, 1),
    (64, 1, 28, 32, 5, 1, 1),
    (64, 32, 14, 64, 5, 1, 1),
    (16, 64, 32, 64, 3, 1, 64),
)


def _fed(rng: Any, *shape: int) -> tuple[Any, Any]:
    return gc.placeholder("float32", shape), rng.standard_normal(shape, dtype=np.float32)


def _kept(*tensors: Any) -> list[Any]:
    return [gc.Variable(np.zeros(t.shape, np.float32)).assign(t) for t in tensors]


def product(batch: int, rows: int, terms: int, columns: int, turned: str) -> Step:
    """One product of (batches of) matrices; a turned factor is stored the other way round."""
    rng = np.random.default_rng(0)
    a, x = _fed(rng, batch, *((terms, rows) if turned == "left" else (rows, terms)))
    b, y = _fed(rng, batch, *((columns, terms) if turned == "right" else (terms, columns)))
    left = gc.permute(a, (0, 2, 1)) if turned == "left" else a
    right = gc.permute(b, (0, 2, 1)) if turned == "right" else b
    return _kept(left @ right), {a: x, b: y}


def convolution(batch: int, channels: int, size: int, filters: int, taps: int, stride: int, groups: int) -> Step:
    """A convolution and both its gradients."""
    rng = np.random.default_rng(0)
    x, array = _fed(rng, batch, channels, size, size)
    w, window = _fed(rng, filters, channels // groups, taps, taps)
    y = nn.functional.conv2d(x, w, stride=stride, padding=taps // 2, groups=groups)
    g, slope = _fed(rng, *y.shape)
    return _kept(y, *gc.gradients((y * g).sum(), [x, w])), {x: array, w: window, g: slope}


def _named() -> dict[str, Callable[[], Step]]:
    found: dict[str, Callable[[], Step]] = {}
    for shape in _PRODUCTS:
        found["product " + "x".join(map(str, shape[:4])) + f" {shape[4]}".rstrip()] = functools.partial(product, *shape)
    for sizes in _CONVOLUTIONS:
        batch, channels, size, filters, taps, stride, groups = sizes
        name = f"conv {batch}x{channels}x{size}x{size} to {filters} {taps}x{taps}"
        name += f" stride {stride}" * (stride > 1) + f" {groups} groups" * (groups > 1)
        found[name] = functools.partial(convolution, *sizes)
    return found


STEPS = _named()
