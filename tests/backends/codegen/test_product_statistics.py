"""Sums over a product's rows are gathered in its epilogue: bias gradients, columns' means, updates made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.device_names import CPUS, RUNTIMES_AND_GPU
from support.sessions import exactly, launching_freely, opened

import graphcore as gc
from graphcore.api.tensor import Tensor

RNG = np.random.default_rng(11)


def values(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def both(y: Tensor, s: Tensor) -> list[Tensor]:
    return [y, s]


# A name, operands, and results: the product's own and what is made of its sums.
CASES: dict[str, tuple[list[Any], Callable[..., list[Tensor]]]] = {
    "a sum of columns": ([values(130, 70), values(70, 50)], lambda a, b: both(a @ b, gc.sum(a @ b, axis=0))),
    "the sum alone": ([values(130, 70), values(70, 50)], lambda a, b: [gc.sum(a @ b, axis=0)]),
    "of an epilogue": (
        [values(130, 70), values(70, 50), values(130, 50)],
        lambda a, b, m: both(gc.relu(a @ b), gc.sum(gc.relu(a @ b) * m, axis=0)),
    ),
    "means and squares": (
        [values(64, 32), values(32, 96)],
        lambda a, b: [a @ b, gc.mean(a @ b, axis=0), gc.mean(gc.square(a @ b), axis=0)],
    ),
    "work on the sum": (
        [values(200, 40), values(40, 33), values(33)],
        lambda a, b, c: both(a @ b, c - 0.1 * gc.sum(a @ b, axis=0)),
    ),
    "keeping the axis": (
        [values(64, 32), values(32, 20)],
        lambda a, b: both(a @ b, gc.sum(a @ b, axis=0, keepdims=True)),
    ),
    "a batch, summed whole": (
        [values(3, 40, 30), values(3, 30, 20)],
        lambda a, b: both(a @ b, gc.sum(a @ b, axis=(0, 1))),
    ),
    "a batch, each summed": ([values(3, 40, 30), values(3, 30, 20)], lambda a, b: both(a @ b, gc.sum(a @ b, axis=1))),
    "turned": ([values(60, 130), values(60, 50)], lambda a, b: both(a.T @ b, gc.sum(a.T @ b, axis=0))),
    "a turned result": ([values(64, 32), values(32, 48)], lambda a, b: both((a @ b).T, gc.sum(a @ b, axis=0))),
    "few rows": ([values(3, 300), values(300, 64)], lambda a, b: both(a @ b, gc.sum(a @ b, axis=0))),
    "a small product": ([values(5, 4), values(4, 3)], lambda a, b: both(a @ b, gc.sum(a @ b, axis=0))),
    "many columns": ([values(20, 16), values(16, 5000)], lambda a, b: both(a @ b, gc.sum(a @ b, axis=0))),
    "half types": (
        [values(64, 32).astype(np.float16), values(32, 48).astype(np.float16)],
        lambda a, b: both(a @ b, gc.sum(a @ b, axis=0)),
    ),
    "how many are positive": ([values(64, 32), values(32, 48)], lambda a, b: both(a @ b, gc.sum(a @ b > 0, axis=0))),
    "sums in double": (
        [values(64, 32), values(32, 48)],
        lambda a, b: both(a @ b, gc.sum((a @ b).astype("float64"), axis=0)),
    ),
    "double": (
        [values(64, 32).astype(np.float64), values(32, 48).astype(np.float64)],
        lambda a, b: both(a @ b, gc.sum(a @ b, axis=0)),
    ),
    "what needs the finished sum": ([values(64, 32), values(32, 48)], lambda a, b: [(a @ b) - gc.mean(a @ b, axis=0)]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("device", RUNTIMES_AND_GPU)
def test_values(device: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, build = CASES[name]
    feeds = {gc.placeholder(str(a.dtype), a.shape): a for a in arrays}
    results = build(*feeds)
    with launching_freely(opened(device), monkeypatch) as session:
        found = session.run(results, feeds)
    half = arrays[0].dtype == np.float16
    for a, b in zip(found, exactly(build, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=(1e-2 if half else 3e-6) * np.abs(b).max())


@pytest.mark.parametrize("device", CPUS)
def test_a_biass_gradient_is_gathered_where_the_rows_are_made(device: str) -> None:
    """No kernel reads the rows again: the second one reads one sum a task."""
    rows, inner, columns = 512, 128, 256
    x, w, m = (gc.placeholder("float32", s) for s in ((rows, inner), (inner, columns), (rows, columns)))
    b = gc.Variable(np.zeros(columns, np.float32))
    y = x @ w * m
    feeds = {x: values(rows, inner), w: values(inner, columns), m: values(rows, columns)}
    with opened(device) as session:
        compiled = session.compile([y, b.assign(b - 0.1 * gc.sum(y, axis=0))], feeds)
        cost = compiled.cost_analysis()
        assert len(cost["kernels"]) == 2, compiled.explain()
        assert cost["kernels"][1]["bytes"] < 0.2 * 4 * rows * columns, compiled.explain()
        session.run([b.assign(b - 0.1 * gc.sum(y, axis=0))], feeds)
        exact = -0.1 * ((feeds[x].astype(np.float64) @ feeds[w]) * feeds[m]).sum(0)
        np.testing.assert_allclose(session.get_value(b), exact, atol=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize("device", CPUS)
def test_other_batch_sizes(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of tasks, and so of sums, follows the batch; nothing is compiled again."""
    x, w = gc.placeholder("float32", (None, 40)), gc.Variable(values(40, 30))
    y = gc.relu(x @ w)
    with launching_freely(opened(device), monkeypatch) as session:
        for rows in (300, 7, 1, 64, 1000):
            a = values(rows, 40)
            exact = np.maximum(a.astype(np.float64) @ session.get_value(w), 0)
            found = session.run([y, gc.sum(y, axis=0)], {x: a})
            np.testing.assert_allclose(found[1], exact.sum(0), atol=1e-5 * max(exact.sum(0).max(), 1.0))


@pytest.mark.parametrize("device", CPUS)
def test_the_same_bits_every_time(device: str) -> None:
    x, w = gc.placeholder("float32", (777, 64)), gc.placeholder("float32", (64, 100))
    feeds = {x: values(777, 64), w: values(64, 100)}
    with opened(device) as session:
        total = gc.sum(x @ w, axis=0)
        first = session.run([x @ w, total], feeds)[1]
        for _ in range(20):
            np.testing.assert_array_equal(session.run([x @ w, total], feeds)[1], first)


@pytest.mark.parametrize("device", CPUS)
def test_few_rows_are_rather_read_again(device: str) -> None:
    """Another kernel costs more than reading a few kilobytes."""
    x, w = gc.placeholder("float32", (32, 64)), gc.placeholder("float32", (64, 64))
    with opened(device) as session:
        compiled = session.compile([x @ w, gc.sum(x @ w, axis=0)], {x: values(32, 64), w: values(64, 64)})
    assert "costs less than another kernel" in compiled.explain()
