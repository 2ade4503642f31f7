"""What scheduled kernels say that they do, against counts worked out by hand; for one size and for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphcore as gc
from backends.opencl.target import make_target
from benchmarks.golden import DEVICES
from graphcore import nn
from graphcore.base.shapes import Dim
from graphcore.ir.graph import Graph, collect
from graphcore.kernel import functions
from graphcore.plan.costs import Work
from graphcore.plan.plan import Plan
from graphcore.runtime.fetches import flatten_fetches
from passes.pipeline import compile_graph


def plan_of(fetches: Any, feeds: tuple[Any, ...], sizes: dict[str, int], device: str = "intel") -> Plan:
    tensors, updates, _ = flatten_fetches(fetches)
    graph = collect(tensors, updates, [t.value for t in feeds])
    graph = Graph(graph.outputs, graph.updates, feeds)
    return compile_graph(graph, make_target(DEVICES[device]), sizes).plan


def one(fetches: Any, *feeds: Any) -> Work:
    (step,) = plan_of(fetches, feeds, {}).steps
    return step.work


def test_an_elementwise_kernel() -> None:
    a, b = (gc.placeholder("float32", (1 << 12,)) for _ in range(2))
    vectors = (1 << 12) // 16
    work = one(a + b, a, b)
    assert work.traffic == 3 * 4 << 12 and not work.products and not work.turns and not work.scattered
    assert work.instructions == vectors * (2 + 1 + 1 + 4)  # loads, addition, store, the loop
    dear = one(gc.exp(a), a)
    assert dear.instructions == vectors * (1 + round(functions.cost("exp")) + 1 + 4)
    doubled = gc.placeholder("float64", (1 << 12,))
    assert one(doubled + doubled, doubled).instructions == 2 * vectors * (1 + 1 + 1 + 4)  # half the lanes


def test_rows_are_walked_once_a_phase() -> None:
    x = gc.placeholder("float32", (64, 256))
    total, soft = one(gc.sum(x, axis=1), x), one(gc.softmax(x, -1), x)
    assert total.turns == 64 * 256 // 16 and total.traffic == 4 * (64 * 256 + 64)
    assert soft.turns == 2 * total.turns  # maximum and sum
    columns = one(gc.sum(x, axis=0), x)
    assert columns.far == columns.turns == 64 * 256 // 16  # a step of a kilobyte each
    assert not total.far


def test_elements_that_indices_name_are_loaded_alone() -> None:
    x, i = gc.placeholder("float32", (1000,)), gc.placeholder("int32", (512,))
    assert one(gc.take(x, i, axis=0), x, i).scattered == 512


@pytest.mark.parametrize(("m", "n", "k"), [(128, 64, 256), (130, 64, 256), (128, 70, 256)])
def test_a_product_does_its_padding_too(m: int, n: int, k: int) -> None:
    a, b = gc.placeholder("float32", (m, k)), gc.placeholder("float32", (k, n))
    work = one(a @ b, a, b)
    useful = 2 * m * n * k
    assert useful <= int(work.products) <= 1.6 * useful  # type: ignore[arg-type]
    assert (work.products == useful) == (m % 8 == 0 and n % 32 == 0)
    assert work.rate == "float32" and work.traffic == 4 * (m * k + k * n + m * n)


def test_a_convolution_and_its_gradients() -> None:
    x = gc.placeholder("float32", (8, 32, 16, 16))
    layer = nn.Conv2d(32, 32, 3, padding=1, bias=False)
    y = layer(x)
    plan = plan_of([y, *gc.gradients((y * y).sum(), [x, layer.weight])], (x,), {})
    useful = 2 * 8 * 16 * 16 * 32 * 32 * 9
    heavy = [int(s.work.products) for s in plan.steps if s.work.products]  # type: ignore[arg-type]
    assert len(heavy) == 3 and all(useful <= p <= 1.6 * useful for p in heavy)
    assert all(s.work.traffic and s.work.instructions for s in plan.steps)


def _mlp(batch: Any) -> tuple[Any, Any]:
    x = gc.placeholder("float32", (batch, 48))
    hidden = gc.relu(x @ gc.Variable(np.ones((48, 64), np.float32)) + 1.0)
    return [gc.softmax(hidden, -1), hidden.sum(axis=0)], x


def _conv(batch: Any) -> tuple[Any, Any]:
    x = gc.placeholder("float32", (batch, 4, 12, 12))
    y = nn.Conv2d(4, 8, 3, bias=False)(x)
    return [y, nn.functional.max_pool2d(y, 2)], x


def _lookup(batch: Any) -> tuple[Any, Any]:
    x = gc.placeholder("int64", (batch, 8))
    table = gc.Variable(np.ones((300, 24), np.float32))
    taken = gc.take(table, x, axis=0)
    return [taken.mean(axis=1), *gc.gradients((taken * taken).sum(), [table])], x


@pytest.mark.parametrize("device", ["intel", "h100"])
@pytest.mark.parametrize("build", [_mlp, _conv, _lookup])
def test_one_piece_of_work_holds_for_every_batch(build: Callable[[Any], tuple[Any, Any]], device: str) -> None:
    """With a symbolic batch a step tells for each size about what a program of that size alone tells."""
    fetches, x = build(Dim("batch"))
    symbolic = plan_of(fetches, (x,), {"batch": 64}, device).steps
    fetches, x = build(64)
    static = plan_of(fetches, (x,), {}, device).steps
    assert [s.kernel.name for s in symbolic] == [s.kernel.name for s in static]
    for a, b in zip(symbolic, static, strict=True):
        bound = a.work.bound({"batch": 64})
        assert bound.products == b.work.products and bound.traffic == b.work.traffic
        for amount in ("instructions", "scattered", "far", "turns"):
            mine, other = (float(getattr(w, amount)) for w in (bound, b.work))
            assert mine == pytest.approx(other, rel=0.35), (a.kernel.name, amount)
        larger = a.work.bound({"batch": 640})
        assert float(larger.products) == 10 * float(bound.products) or not bound.products
        assert float(larger.traffic) > float(bound.traffic) or "weight" in a.kernel.name
