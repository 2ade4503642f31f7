"""Scatter-add along an axis, a row a task: chosen where it pays, the same to the bit as the guarded sum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from support.device_names import CPUS
from support.devices import Bound, backend, run_nested, run_plan
from support.sessions import opened
from support.values import computed

import graphcore as gc

RNG = np.random.default_rng(14)


@pytest.fixture(params=CPUS)
def spec(request: pytest.FixtureRequest) -> str:
    backend(request.param)  # skips where the runtime is missing
    return str(request.param)


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Runs outputs with the guarded sum."""
    return partial(run_nested, monkeypatch)


def by_numpy(outputs: list[Any], feeds: dict[Any, Any]) -> list[Any]:
    with gc.Session("numpy") as oracle:
        return list(oracle.run(outputs, feeds))


def templates(bound: Bound) -> list[str]:
    return [s.family for s in bound.plan.steps]


def indices(shape: tuple[int, ...], extent: int, dtype: str = "int64") -> Any:
    """Duplicates, negative ones, and ones out of range on both sides."""
    return RNG.integers(-extent - 3, extent + 3, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize(
    "shape, axis, count",
    [((6, 33), 1, 20), ((33, 6), 0, 20), ((3, 40, 5), 1, 11), ((2, 3, 70), 2, 9), ((16, 16), 1, 16)],
)
def test_it_is_the_guarded_sum_to_the_bit(
    spec: str, shape: tuple[int, ...], axis: int, count: int, dtype: str, guarded: Callable[..., Any]
) -> None:
    narrow = tuple(count if a == axis else e for a, e in enumerate(shape))
    base, where, updates = gc.placeholder(dtype, shape), gc.placeholder("int64", narrow), gc.placeholder(dtype, narrow)
    feeds = {
        base: (RNG.standard_normal(shape) * 9).astype(dtype),
        where: indices(narrow, shape[axis]),
        updates: (RNG.standard_normal(narrow) * 9).astype(dtype),
    }
    at = computed(where)
    outputs = [gc.scatter_add(base, axis, at, updates), gc.scatter_add(base, axis, at, updates * 2) * base]
    bound = run_plan(spec, outputs, feeds)
    assert "scatter-rows" in templates(bound)
    found = bound.run(feeds)
    for a, b in zip(found, guarded(spec, outputs, feeds), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(found, by_numpy(outputs, feeds), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("index", ["int8", "uint8", "int32", "uint32"])
def test_index_types(spec: str, index: str, guarded: Callable[..., Any]) -> None:
    where, updates = gc.placeholder(index, (5, 60)), gc.placeholder("float32", (5, 60))
    low = 0 if index.startswith("u") else -70
    feeds = {
        where: RNG.integers(low, 70, (5, 60)).astype(index),
        updates: RNG.standard_normal((5, 60)).astype(np.float32),
    }
    outputs = [gc.scatter_add(gc.zeros((5, 50)), 1, where, updates)]
    for a, b in zip(run_plan(spec, outputs, feeds).run(feeds), guarded(spec, outputs, feeds), strict=True):
        np.testing.assert_array_equal(a, b)


def test_indices_that_other_indices_choose(spec: str, guarded: Callable[..., Any]) -> None:
    where, chosen = gc.placeholder("int64", (9, 60)), gc.placeholder("int32", (5,))
    updates = gc.placeholder("float32", (5, 60))
    feeds = {
        where: RNG.integers(-50, 50, (9, 60)),
        chosen: RNG.integers(0, 9, 5).astype(np.int32),
        updates: RNG.standard_normal((5, 60)).astype(np.float32),
    }
    outputs = [gc.scatter_add(gc.zeros((5, 50)), 1, gc.take(where, computed(chosen), axis=0), updates)]
    bound = run_plan(spec, outputs, feeds)
    assert "scatter-rows" in templates(bound)
    (found,), (wanted,) = bound.run(feeds), guarded(spec, outputs, feeds)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(found, by_numpy(outputs, feeds)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", CPUS)
def test_the_gradient_of_taking_along_an_axis(device: str) -> None:
    """With a symbolic batch: another one compiles nothing, and updates are right."""
    x, where = gc.placeholder("float32", (None, 90)), gc.placeholder("int64", (None, 12))
    taken = gc.take_along_axis(x, where, axis=1)
    (gradient,) = gc.gradients(gc.sum(gc.square(taken)), [x])
    with opened(device) as session:
        for rows in (17, 3, 64):
            a, k = RNG.standard_normal((rows, 90)).astype(np.float32), RNG.integers(0, 90, (rows, 12))
            expected = np.zeros((rows, 90))
            np.add.at(expected, (np.arange(rows)[:, None], k), 2.0 * np.take_along_axis(a, k, 1))
            np.testing.assert_allclose(session.run(gradient, {x: a, where: k}), expected, atol=1e-5)


def test_what_it_leaves_to_the_loop_nest(spec: str) -> None:
    """Few indices, half types, terms that depend on the place."""
    where, half = gc.placeholder("int64", (4, 3)), gc.placeholder("float16", (4, 200))
    at = computed(where)
    cases = [
        (gc.scatter_add(gc.zeros((4, 5)), 1, at, gc.ones((4, 3))), {where: indices((4, 3), 5)}),
        (
            gc.scatter_add(half, 1, at, gc.ones((4, 3), "float16")),
            {half: np.zeros((4, 200), np.float16), where: indices((4, 3), 200)},
        ),
    ]
    for output, feeds in cases:
        bound = run_plan(spec, [output], feeds)
        assert "scatter-rows" not in templates(bound)
        np.testing.assert_array_equal(bound.run(feeds)[0], by_numpy([output], feeds)[0])
