"""Large graphs that strain a compiler, each of about as many nodes as one asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import graphcore as gc
from graphcore import optim
from graphcore.api.tensor import Tensor
from graphcore.ir.graph import Graph, collect
from graphcore.runtime.fetches import flatten_fetches

Make = Callable[[int], tuple[Any, Tensor]]  # from a number of nodes to fetches and what is fed


def chain(nodes: int) -> tuple[Any, Tensor]:
    """One operation after the other."""
    x = gc.placeholder("float32", (64,))
    t = x
    for _ in range(nodes // 4):
        t = gc.tanh(t + 1.0)
    return t, x


def wide_optimizer(nodes: int) -> tuple[Any, Tensor]:
    """Adam over many small variables."""
    variables = [gc.Variable(np.zeros(8, np.float32)) for _ in range(max(nodes // 32, 1))]
    x = gc.placeholder("float32", (8,))
    loss = added([(v * x).sum() for v in variables])
    return [loss, optim.Adam(1e-3).minimize(loss, variables)], x


def many_users(nodes: int) -> tuple[Any, Tensor]:
    """One value that thousands of others read."""
    x = gc.placeholder("float32", (8,))
    y = gc.exp(x)
    return added([y * float(i) for i in range(nodes // 4)]), x


def fibonacci(nodes: int) -> tuple[Any, Tensor]:
    """Every value reads the two before it: as many paths as a Fibonacci number."""
    x = gc.placeholder("float32", (8,))
    a, b = x, gc.tanh(x)
    for _ in range(nodes - 2):
        a, b = b, a + b
    return b, x


def diamonds(nodes: int) -> tuple[Any, Tensor]:
    """Fork and join, again and again: 2^n paths."""
    x = gc.placeholder("float32", (8,))
    t = x
    for _ in range(nodes // 3):
        t = gc.sin(t) + gc.cos(t)
    return t, x


def added(values: list[Any]) -> Any:
    """The sum by a balanced tree."""
    while len(values) > 1:
        values = [a + b for a, b in zip(values[::2], values[1::2], strict=False)] + values[len(values) // 2 * 2 :]
    return values[0]


GRAPHS: dict[str, Make] = {g.__name__: g for g in (chain, wide_optimizer, many_users, fibonacci, diamonds)}


def collected(make: Make, nodes: int) -> Graph:
    """The graph that a run of the fetches would compile."""
    fetches, fed = make(nodes)
    tensors, updates, _ = flatten_fetches(fetches)
    graph = collect(tensors, updates, (fed.value,))
    return Graph(graph.outputs, graph.updates, (fed,))
