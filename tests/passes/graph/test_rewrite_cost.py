"""The cost of rewriting grows with the graph: rules tried and nodes visited are counted, not timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from graphcore.api.tensor import Builder, Tensor
from graphcore.api.variable import placeholder
from graphcore.ir.graph import Graph
from passes.graph.base import PassContext
from passes.graph.rewrite import rewrite
from passes.graph.simplify import EXACT


def _x(shape: Any = (2,), name: str = "x") -> Tensor:
    return placeholder("float32", shape, name=name)


Shape = Callable[[int], Graph]


def _chain(n: int) -> Graph:
    b = Builder()
    t = _x()
    for _ in range(n // 3):
        t = b.tanh(b.neg(b.neg(t)))
    return Graph((t,))


def _wide(n: int) -> Graph:
    b = Builder()
    t = b.neg(b.neg(_x((n + 1,))))
    return Graph(tuple(b.slice(t, starts=(i,), lengths=(1,), steps=(1,)) for i in range(n)))


def _fibonacci(n: int) -> Graph:
    b = Builder()
    before, last = _x(), _x(name="y")
    for _ in range(n // 3):
        before, last = last, b.add(b.neg(before), b.neg(last))
    return Graph((last,))


def _diamonds(n: int) -> Graph:
    b = Builder()
    t = _x()
    for _ in range(n // 4):
        t = b.mul(b.tanh(t), b.sub(t, b.neg(t)))
    return Graph((t,))


def _below_broadcast(n: int) -> Graph:
    b = Builder()
    t = b.broadcast(_x(), shape=(3, 2))
    for i in range(n // 2):
        t = b.reshape(b.tanh(t), shape=(2, 3) if i % 2 else (3, 2))
    return Graph((t,))


def _permutes(n: int) -> Graph:
    b = Builder()
    t = _x((2, 3, 4))
    for _ in range(n):
        t = b.permute(t, axes=(1, 2, 0))
    return Graph((t,))


SCALES = [(1_000, 10_000), pytest.param((10_000, 100_000), marks=pytest.mark.slow)]


@pytest.mark.parametrize("sizes", SCALES, ids=lambda s: f"{s[1]}")
@pytest.mark.parametrize(
    "shape", [_chain, _wide, _fibonacci, _diamonds, _below_broadcast, _permutes], ids=lambda f: f.__name__
)
def test_cost_is_linear(shape: Shape, sizes: tuple[int, int]) -> None:
    counts = []
    for n in sizes:
        ctx = PassContext()
        graph = shape(n)
        result = rewrite(graph, EXACT, ctx)
        assert ctx.hits
        assert ctx.visits <= 4 * n + 16
        assert result is not graph
        counts.append((ctx.visits, ctx.attempts))
    (visits, attempts), (more_visits, more_attempts) = counts
    assert more_visits <= 13 * visits
    assert more_attempts <= 13 * attempts
