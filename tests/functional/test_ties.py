"""Who gets the gradient among equals: windows of -inf, of NaN and of ties, never the padding; reductions share evenly.

Cotangents are small whole numbers, so that sums are exact whatever their order, and every result is compared exactly
with loops over the windows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.sessions import DEVICES, opened

import graphcore as gc
from graphcore import functional as F
from graphcore.api.tensor import Tensor

ORACLES = ("numpy", "numpy:kernels")


def gradient(y: Tensor, x: Tensor, g: Any = None) -> Tensor:
    return gc.gradients(y, x, g)[0]  # type: ignore[no-any-return]


def contents(rows: int, columns: int) -> Any:
    """(1, 7, rows, columns): numbers, nothing but -inf, NaN and one tie, and mixtures of them."""
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 9, (1, 7, rows, columns)).astype(np.float32)
    x[0, 1], x[0, 2], x[0, 3] = -np.inf, np.nan, 2.0
    x[0, 4] = rng.integers(0, 2, (rows, columns))
    x[0, 5, rng.random((rows, columns)) > 0.2] = -np.inf
    x[0, 6, rng.random((rows, columns)) > 0.8] = np.nan
    return x


def sized(n: Any) -> tuple[int, int]:
    return n if isinstance(n, tuple) else (n, n)


def windows(shape: Any, kernel: Any, stride: Any, pad: Any, dilation: Any, ceil_mode: bool) -> Iterator[Any]:
    """For every window its place, the elements in it by row and column, and the positions that it has with padding."""
    per_axis = []
    for size, k, s, p, d in zip(shape[-2:], *map(sized, (kernel, stride, pad, dilation)), strict=True):
        room = size + 2 * p - d * (k - 1) - 1
        count = (-(-room // s) if ceil_mode else room // s) + 1
        count -= ceil_mode and (count - 1) * s >= size + p
        taps = [[i * s - p + t * d for t in range(k)] for i in range(count)]
        per_axis.append([[t for t in places if 0 <= t < size] for places in taps])
    for (i, rows), (j, columns) in itertools.product(*map(enumerate, per_axis)):
        yield (i, j), list(itertools.product(rows, columns))


def pooled(x: Any, g: Any, options: dict[str, Any]) -> tuple[Any, Any]:
    """A max pool and its gradient, an element at a time."""
    y, dx = np.full(g.shape, -np.inf, np.float32), np.zeros_like(x)
    for (i, j), inside in windows(x.shape, **options):
        for c in range(x.shape[1]):
            values = [x[0, c, r, q] for r, q in inside]
            if values:
                first = int(np.argmax(values))
                y[0, c, i, j] = values[first]
                dx[0, c, *inside[first]] += g[0, c, i, j]
    return y, dx


def averaged(x: Any, g: Any, options: dict[str, Any], count_padding: bool) -> tuple[Any, Any]:
    """An average pool and its gradient, an element at a time."""
    y, dx = np.zeros(g.shape), np.zeros(x.shape)
    for (i, j), inside in windows(x.shape, **options):
        count = np.prod(sized(options["kernel"])) if count_padding else len(inside)
        for c in range(x.shape[1]):
            y[0, c, i, j] = sum(float(x[0, c, r, q]) for r, q in inside) / count
            for r, q in inside:
                dx[0, c, r, q] += g[0, c, i, j] / count
    return y, dx


GEOMETRIES = [
    {"kernel": k, "stride": s, "pad": p, "dilation": d, "ceil_mode": ceil}
    for k, s, p, d, ceil in itertools.product(
        (1, 2, 3, (2, 3), (3, 1)), (1, 2, 3, (1, 2)), (0, 1, (1, 0)), (1, 2, (2, 1)), (False, True)
    )
    if all(a <= b // 2 for a, b in zip(sized(p), sized(k), strict=True))
]
SAMPLE = [g for i, g in enumerate(g for g in GEOMETRIES if g["pad"] != 0) if i % 9 == 0]
SHAPE = (1, 7, 5, 6)


def whole_numbers(shape: Any) -> Any:
    return np.random.default_rng(1).integers(-8, 9, shape).astype(np.float32)


def max_pools(geometries: list[dict[str, Any]]) -> tuple[list[Tensor], dict[Tensor, Any], list[Any]]:
    """Pools, their gradients, the feeds, and what both must be."""
    x = gc.placeholder("float32", SHAPE)
    feeds, fetches, wanted = {x: contents(*SHAPE[2:])}, [], []
    for options in geometries:
        y = F.max_pool2d(
            x, options["kernel"], options["stride"], options["pad"], options["dilation"], options["ceil_mode"]
        )
        g = gc.placeholder("float32", y.shape)
        feeds[g] = whole_numbers(y.shape)
        fetches += [y, gradient(y, x, g)]
        wanted += pooled(feeds[x], feeds[g], options)
    return fetches, feeds, wanted


@pytest.mark.parametrize("device", DEVICES)
def test_max_pools_give_to_the_first_largest_element(device: str) -> None:
    geometries = GEOMETRIES if device in ORACLES else SAMPLE
    fetches, feeds, wanted = max_pools(geometries)
    with opened(device) as session:
        found = session.run(fetches, feeds)
    for options, (y, dx), (value, gradient) in zip(
        geometries, zip(found[::2], found[1::2], strict=True), zip(wanted[::2], wanted[1::2], strict=True), strict=True
    ):
        np.testing.assert_array_equal(y, value, str(options))
        np.testing.assert_array_equal(dx, gradient, str(options))


def test_the_gradient_of_a_max_pool_sums_to_the_cotangent() -> None:
    """Over all geometries whose windows all hold an element, and none is lost to the padding."""
    complete = [g for g in GEOMETRIES if all(inside for _, inside in windows(SHAPE, **g))]
    assert len(complete) > 100 and any(g["pad"] != 0 and g["dilation"] != 1 for g in complete)
    fetches, feeds, _ = max_pools(complete)
    with gc.Session("numpy:kernels") as session:
        gradients = session.run(fetches[1::2], feeds)
    for options, dx, g in zip(complete, gradients, list(feeds.values())[1:], strict=True):
        np.testing.assert_array_equal(dx.sum((2, 3)), g.sum((2, 3)), str(options))


def test_max_pools_of_one_axis_and_of_signed_ties() -> None:
    x = gc.placeholder("float32", (1, 1, 4))
    g = gradient(F.max_pool1d(x, 3, 1, 1).sum(), x)
    with gc.Session("numpy:kernels") as session:
        np.testing.assert_array_equal(session.run(g, {x: [[[-np.inf] * 4]]}), [[[2, 1, 1, 0]]])
        np.testing.assert_array_equal(session.run(g, {x: [[[0.0, -0.0, 0.0, -0.0]]]}), [[[2, 1, 1, 0]]])


@pytest.mark.parametrize("device", DEVICES)
def test_average_pools_count_what_is_there(device: str) -> None:
    geometries = [g for g in GEOMETRIES if g["dilation"] == 1][:: 1 if device in ORACLES else 7]
    x = gc.placeholder("float32", SHAPE)
    feeds = {x: whole_numbers(SHAPE)}
    fetches, wanted = [], []
    for options, count_padding in itertools.product(geometries, (False, True)):
        if count_padding and options["ceil_mode"]:
            continue  # refused
        y = F.avg_pool2d(x, options["kernel"], options["stride"], options["pad"], options["ceil_mode"], count_padding)
        g = gc.placeholder("float32", y.shape)
        feeds[g] = whole_numbers(y.shape)
        fetches += [y, gradient(y, x, g)]
        wanted += averaged(feeds[x], feeds[g], options, count_padding)
    with opened(device) as session:
        for got, want in zip(session.run(fetches, feeds), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-5)


# -- reductions, pairs, adaptive pools: ties share evenly

ROWS = np.array(
    [
        [1, 3, 3, 2],
        [2, 2, 2, 2],
        [-np.inf, -np.inf, -np.inf, -np.inf],
        [np.inf, 1, np.inf, -np.inf],
        [np.nan, 1, np.nan, 5],
        [0.0, -0.0, -1, -1],
        [-3, -3, 5, -3],
    ],
    np.float32,
)


def shares(rows: Any, largest: Any) -> Any:
    """1 / n for each of the n elements of a row that are as large as its largest, or NaN where that is."""
    with np.errstate(invalid="ignore"):
        top = largest(rows, axis=1, keepdims=True)
        hit = (rows == top) | np.isnan(rows)
    return hit / hit.sum(1, keepdims=True)


@pytest.mark.parametrize("device", DEVICES)
def test_reductions_share_evenly(device: str) -> None:
    x = gc.placeholder("float32", ROWS.shape)
    g = np.array([4, -8, 12, 12, 8, 2, 24], np.float32)
    a, b = gc.placeholder("float32", (7,)), gc.placeholder("float32", (7,))
    outputs = [
        *(gradient(f(x, 1), x, g) for f in (gc.max, gc.min)),
        gradient(gc.max(x), x),
        gradient(F.adaptive_max_pool2d(x[None, None], (7, 2)).sum(), x),
        gradient(gc.norm(x, np.inf, 1), x, g),
        *gc.gradients(gc.maximum(a, b).sum(), [a, b]),
        *gc.gradients(gc.minimum(a, b).sum(), [a, b]),
        gc.argmax(x, 1),
        gc.argmin(x, 1),
    ]
    with opened(device) as session:
        found = session.run(outputs, {x: ROWS, a: ROWS[:, 0], b: ROWS[:, 1]})
    np.testing.assert_array_equal(found[0], shares(ROWS, np.max) * g[:, None])
    np.testing.assert_array_equal(found[1], shares(ROWS, np.min) * g[:, None])
    np.testing.assert_array_equal(found[2], np.isnan(ROWS) / 2)
    halves = [shares(half, np.max) for half in (ROWS[:, :2], ROWS[:, 2:])]
    np.testing.assert_array_equal(found[3], np.concatenate(halves, 1))
    sizes = np.abs(ROWS)
    np.testing.assert_array_equal(found[4], shares(sizes, np.max) * np.sign(ROWS) * g[:, None])
    tie = ROWS[:, 0] == ROWS[:, 1]
    for sign, (first, second) in zip((1, -1), (found[5:7], found[7:9]), strict=True):
        larger = sign * ROWS[:, 0] > sign * ROWS[:, 1]
        np.testing.assert_array_equal(first[~np.isnan(ROWS[:, 0])], np.where(tie, 0.5, larger)[~np.isnan(ROWS[:, 0])])
        np.testing.assert_array_equal(second, np.where(tie, 0.5, ~larger & ~np.isnan(ROWS[:, 0])))
    np.testing.assert_array_equal(found[9], np.argmax(ROWS, 1))
    np.testing.assert_array_equal(found[10], np.argmin(ROWS, 1))


@pytest.mark.parametrize("device", DEVICES)
def test_indices_that_occur_twice(device: str) -> None:
    """Reading an element twice adds its gradients; of values set in one place only the last is there to get one."""
    x, v = gc.placeholder("float32", (4, 2)), gc.placeholder("float32", (5, 2))
    index = np.array([1, 1, -1, 3, 1])
    g = whole_numbers((4, 2))
    outputs = [
        gradient((x[index] * v).sum(), x),
        *gc.gradients(x.at[index].set(v), [x, v], g),
        *gc.gradients(x.at[index].add(v), [x, v], g),
        gradient((gc.take_along_axis(x, np.array([[0, 1], [0, 0]]), 0) * 3).sum(), x),
    ]
    values = whole_numbers((5, 2))
    with opened(device) as session:
        found = session.run(outputs, {x: np.zeros((4, 2)), v: values})
    taken = np.zeros((4, 2), np.float32)
    np.add.at(taken, index, values)
    np.testing.assert_array_equal(found[0], taken)
    np.testing.assert_array_equal(found[1], g * [[1], [0], [1], [0]])
    last = np.zeros((5, 2), np.float32)
    last[[3, 4]] = g[[3, 1]]
    np.testing.assert_array_equal(found[2], last)
    np.testing.assert_array_equal(found[3], g)
    np.testing.assert_array_equal(found[4], g[index])
    np.testing.assert_array_equal(found[5], [[6, 3], [0, 3], [0, 0], [0, 0]])
