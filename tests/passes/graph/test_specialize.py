"""What a graph's equalities between extents leave symbolic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphcore as gc
from graphcore.api.tensor import Tensor
from graphcore.base.errors import FeedError
from graphcore.ir.graph import Graph
from passes.graph.specialize import specialize

N, M, K, L = (gc.Dim(name) for name in "nmkl")


def _placed(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Tensor, ...]:
    return tuple(gc.placeholder("float32", s, name=name) for s, name in ((a, "a"), (b, "b")))


def _flat(a: Tensor, b: Tensor) -> Tensor:
    return a.reshape(-1) + b.reshape(-1)


@pytest.mark.parametrize(
    ("shapes", "build", "sizes", "bound", "result"),
    [
        (((N, 2), (M, 2)), lambda a, b: a + b, {"n": 3, "m": 3}, "", (N, 2)),
        (((N, 2), (M, 2)), _flat, {"n": 3, "m": 3}, "", (2 * N,)),
        (((N, 2), (M, 4)), _flat, {"n": 6, "m": 3}, "", (4 * M,)),
        (((N, 4), (M, 6)), _flat, {"n": 3, "m": 2}, "nm", (12,)),
        (((N, K), (M, L)), _flat, {"n": 3, "k": 4, "m": 3, "l": 4}, "kl", (4 * N,)),
        (((N, K), (M, L)), _flat, {"n": 3, "k": 4, "m": 2, "l": 6}, "nkml", (12,)),
        (((N, K), (M, L)), lambda a, b: a @ b.T, {"n": 3, "k": 4, "m": 2, "l": 4}, "klm", (N, 2)),
        (((N,), (M,)), lambda a, b: a[1:] + b, {"n": 3, "m": 2}, "", (N - 1,)),
        (((N, 2), (3, 2)), lambda a, b: a * b, {"n": 3}, "", (3, 2)),
    ],
)
def test_what_stays_symbolic(
    shapes: tuple[Any, Any],
    build: Callable[[Tensor, Tensor], Tensor],
    sizes: dict[str, int],
    bound: str,
    result: tuple[Any, ...],
) -> None:
    inputs = _placed(*shapes)
    graph, fixed = specialize(Graph((build(*inputs),), (), inputs), sizes)
    assert fixed == set(bound)
    shape = graph.outputs[0].shape
    values = [e if isinstance(e, int) else e.bind(sizes) for e in shape]
    assert values == [e if isinstance(e, int) else e.bind(sizes) for e in result]
    assert [isinstance(e, int) for e in shape] == [isinstance(e, int) for e in result]
    assert not any(n.op.name == "require_shape" for n in graph.nodes())


def test_equalities_are_checked_before_they_are_solved() -> None:
    inputs = _placed((N, 2), (M, 2))
    graph = Graph((_flat(*inputs),), (), inputs)
    with pytest.raises(FeedError, match=r"2\*m must equal 2\*n"):
        specialize(graph, {"n": 3, "m": 4})
