"""Sums over a convolution's images and pixels are gathered in its epilogue: batch statistics, gradients of biases and
of norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.device_names import CPUS, RUNTIMES_AND_GPU
from support.sessions import exactly, launching_freely, opened

import graphcore as gc
from graphcore import functional as F
from graphcore.api.tensor import Tensor

RNG = np.random.default_rng(12)
PIXELS = (0, 2, 3)


def values(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def summed(y: Tensor) -> list[Tensor]:
    return [y, gc.sum(y, axis=PIXELS)]


def input_gradient(x: Tensor, w: Tensor, m: Tensor, **geometry: Any) -> list[Tensor]:
    """The gradient with respect to the images, and its sums a channel."""
    (dx,) = gc.gradients(gc.sum(F.conv2d(x, w, **geometry) * m), [x])
    return [dx, gc.sum(dx, axis=PIXELS)]


IMAGES, WEIGHTS = values(5, 6, 14, 15), values(7, 6, 3, 3)

# A name, operands, and results: the convolution's own and what is made of its sums.
CASES: dict[str, tuple[list[Any], Callable[..., list[Tensor]]]] = {
    "a sum of channels": ([IMAGES, WEIGHTS], lambda x, w: summed(F.conv2d(x, w, padding=1))),
    "the sum alone": ([IMAGES, WEIGHTS], lambda x, w: [gc.sum(F.conv2d(x, w), axis=PIXELS)]),
    "strided": ([IMAGES, WEIGHTS], lambda x, w: summed(F.conv2d(x, w, stride=2, padding=1))),
    "dilated": ([IMAGES, WEIGHTS], lambda x, w: summed(F.conv2d(x, w, dilation=2))),
    "groups": ([IMAGES, values(8, 3, 3, 3)], lambda x, w: summed(F.conv2d(x, w, groups=2))),
    "read in place": ([values(3, 8, 16, 16), values(20, 8, 1, 1)], lambda x, w: summed(F.conv2d(x, w))),
    "in place, with a rest": ([values(3, 8, 9, 7), values(20, 8, 1, 1)], lambda x, w: summed(F.conv2d(x, w))),
    "small images": ([values(13, 6, 5, 5), WEIGHTS], lambda x, w: summed(F.conv2d(x, w))),
    "one pixel": ([values(9, 6, 3, 3), WEIGHTS], lambda x, w: summed(F.conv2d(x, w))),
    "one image": ([values(1, 6, 14, 15), WEIGHTS], lambda x, w: summed(F.conv2d(x, w))),
    "one row": ([values(4, 6, 3, 20), WEIGHTS], lambda x, w: summed(F.conv2d(x, w))),
    "two channels": ([IMAGES, values(2, 6, 3, 3)], lambda x, w: summed(F.conv2d(x, w))),
    "one channel": ([IMAGES, values(1, 6, 3, 3)], lambda x, w: summed(F.conv2d(x, w))),
    "bands": ([values(2, 24, 80, 80), values(5, 24, 3, 3)], lambda x, w: summed(F.conv2d(x, w, padding=1))),
    "many channels": ([values(2, 3, 9, 9), values(1500, 3, 3, 3)], lambda x, w: summed(F.conv2d(x, w))),
    "of an epilogue": ([IMAGES, WEIGHTS, values(7)], lambda x, w, b: summed(gc.relu(F.conv2d(x, w, bias=b)))),
    "means and squares": (
        [IMAGES, WEIGHTS],
        lambda x, w: [
            gc.mean(F.conv2d(x, w), axis=PIXELS),
            gc.mean(gc.square(F.conv2d(x, w)), axis=PIXELS, keepdims=True),
        ],
    ),
    "work on the sum": ([IMAGES, WEIGHTS, values(7)], lambda x, w, b: [b - 0.1 * gc.sum(F.conv2d(x, w), axis=PIXELS)]),
    "of one image": ([IMAGES, WEIGHTS], lambda x, w: [gc.sum(F.conv2d(x, w), axis=(2, 3))]),
    "what needs the finished sum": (
        [IMAGES, WEIGHTS],
        lambda x, w: [F.conv2d(x, w) - gc.mean(F.conv2d(x, w), axis=PIXELS, keepdims=True)],
    ),
    "how many are positive": ([IMAGES, WEIGHTS], lambda x, w: [gc.sum(F.conv2d(x, w) > 0, axis=PIXELS)]),
    "half types": ([IMAGES.astype(np.float16), WEIGHTS.astype(np.float16)], lambda x, w: summed(F.conv2d(x, w))),
    "double": ([IMAGES.astype(np.float64), WEIGHTS.astype(np.float64)], lambda x, w: summed(F.conv2d(x, w))),
    "a computed operand": ([IMAGES, WEIGHTS], lambda x, w: summed(F.conv2d(gc.relu(x), w * 2.0))),
    "an input gradient": ([IMAGES, WEIGHTS, values(5, 7, 12, 13)], input_gradient),
    "of a strided one": (
        [IMAGES, WEIGHTS, values(5, 7, 7, 8)],
        lambda x, w, m: input_gradient(x, w, m, stride=2, padding=1),
    ),
    "of a wide stride": (
        [IMAGES, WEIGHTS, values(5, 7, 4, 5)],
        lambda x, w, m: input_gradient(x, w, m, stride=(4, 3), padding=1),
    ),
    "a weight gradient": (
        [IMAGES, WEIGHTS],
        lambda x, w: [gc.sum(gc.gradients(gc.sum(gc.square(F.conv2d(x, w))), [w])[0], axis=PIXELS)],
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("device", RUNTIMES_AND_GPU)
def test_values(device: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, build = CASES[name]
    feeds = {gc.placeholder(str(a.dtype), a.shape): a for a in arrays}
    with launching_freely(opened(device), monkeypatch) as session:
        found = session.run(build(*feeds), feeds)
    half = arrays[0].dtype == np.float16
    for a, b in zip(found, exactly(build, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=(2e-2 if half else 3e-6) * np.abs(b).max())


@pytest.mark.parametrize("device", CPUS)
def test_a_norms_mean_is_gathered_where_the_pixels_are_made(device: str) -> None:
    """Forward, the pixels are read once more, for the variance, and not twice; backward, both of its
    sums come from the input gradient. The third sums are those of the last bias's gradient."""
    model = gc.nn.Sequential(
        gc.nn.Conv2d(8, 16, 3, padding=1), gc.nn.BatchNorm2d(16), gc.nn.ReLU(), gc.nn.Conv2d(16, 16, 3, padding=1)
    )
    x = gc.placeholder("float32", (16, 8, 24, 24))
    loss = gc.mean(gc.square(model(x)))
    with opened(device) as session:
        compiled = session.compile([loss, gc.optim.SGD(0.1).minimize(loss)], {x: values(16, 8, 24, 24)})
    kernels, pixels = compiled.cost_analysis()["kernels"], 16 * 16 * 24 * 24 * 4
    sums = [k for k in kernels if k["name"].endswith("_sums") and k["name"].startswith("conv2d")]
    assert len(sums) == 3 and all(k["bytes"] < 0.1 * pixels for k in sums), compiled.explain()
    norm = next(k for k in kernels if k["name"].startswith("sum_sub"))
    assert norm["bytes"] < 2.4 * pixels, compiled.explain()  # the pixels, the normalised ones, and a mask


@pytest.mark.parametrize("device", CPUS)
def test_other_batch_sizes(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of units, and so of sums, follows the batch; nothing is compiled again."""
    x, w = gc.placeholder("float32", (None, 6, 9, 9)), values(7, 6, 3, 3)
    y = F.conv2d(x, gc.constant(w))
    with launching_freely(opened(device), monkeypatch) as session:
        for images in (64, 7, 1, 33, 200):
            a = values(images, 6, 9, 9)
            first, total = session.run([y, gc.sum(y, axis=PIXELS)], {x: a})
            np.testing.assert_allclose(
                total, first.astype(np.float64).sum(PIXELS), atol=1e-5 * np.abs(first).sum(PIXELS).max()
            )


@pytest.mark.parametrize("device", CPUS)
def test_the_same_bits_every_time(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = gc.placeholder("float32", (31, 6, 20, 20)), gc.placeholder("float32", (10, 6, 3, 3))
    feeds = {x: values(31, 6, 20, 20), w: values(10, 6, 3, 3)}
    y = F.conv2d(x, w)
    with launching_freely(opened(device), monkeypatch) as session:
        first = session.run([y, gc.sum(y, axis=PIXELS)], feeds)[1]
        for _ in range(20):
            np.testing.assert_array_equal(session.run([y, gc.sum(y, axis=PIXELS)], feeds)[1], first)
