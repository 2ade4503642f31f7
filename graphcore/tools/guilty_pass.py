"""Replay: run every stage of a compilation on the oracles and name the one that changed the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphcore.ir.graph import Graph, collect
from graphcore.ir.node import Tensor
from graphcore.plan.backend import open_backend
from graphcore.runtime.fetches import flatten_fetches
from passes.graph.base import PassContext
from passes.graph.specialize import bind_everything
from passes.pipeline import choose_passes, compile_graph
from passes.planning.placement import place

__all__ = ["Replay", "replay"]


@dataclass(frozen=True)
class Replay:
    """What a replay found.

    Attributes:
        guilty: the first stage whose results differ from the graph as built; None if all agree.
        rewrite: for a rewriting pass, the number of the first rewrite that breaks it, from 1.
        errors: the largest difference after every stage, relative to the largest magnitude.
    """

    guilty: str | None
    rewrite: int | None
    errors: Mapping[str, float]


def replay(
    fetches: Any,
    feeds: Mapping[Tensor, Any],
    variables: Mapping[Any, Any] | None = None,
    *,
    passes: Sequence[Any] | None = None,
    tolerance: float = 1e-4,
) -> Replay:
    """Compare every stage with the graph as built.

    Args:
        fetches: as in ``Session.run``.
        feeds: arrays for the placeholders.
        variables: values of variables; missing ones take their initial array.
        passes: graph passes instead of the default ones.
        tolerance: differences above it, relative to the largest magnitude, count.

    >>> import graphcore as gc
    >>> x = gc.placeholder("float32", (2,))
    >>> replay(x * 1.0, {x: [1.0, 2.0]}).guilty is None
    True
    """

    tensors, updates, _ = flatten_fetches(fetches)
    graph = collect(tensors, updates, tuple(feeds))
    graph = Graph(graph.outputs, graph.updates, tuple(feeds))
    arrays = [np.asarray(a, t.dtype.storage) for t, a in feeds.items()]
    sizes = {
        name: int(n)
        for t, a in zip(feeds, arrays, strict=True)
        for e, n in zip(t.shape, a.shape, strict=True)
        if hasattr(e, "symbols")
        for name in e.symbols()
    }
    state = _State(arrays, dict(variables or {}), sizes)
    expected = state.interpret(graph)
    errors: dict[str, float] = {}
    current = graph
    for p in choose_passes(passes):
        following = p.run(current, PassContext())
        errors[p.name] = _difference(expected, state.interpret(following))
        if errors[p.name] > tolerance:
            return Replay(p.name, _first_bad_rewrite(p, current, expected, state, tolerance), errors)
        current = following
    errors["kernels"] = _difference(expected, state.run_kernels(current))
    return Replay("kernels" if errors["kernels"] > tolerance else None, None, errors)


def _first_bad_rewrite(p: Any, graph: Graph, expected: Sequence[Any], state: _State, tolerance: float) -> int | None:
    """Bisect the pass's fuel."""

    def bad(fuel: int) -> bool:
        return _difference(expected, state.interpret(p.run(graph, PassContext(fuel=fuel)))) > tolerance

    low, high = 0, 1
    while not bad(high):
        low, high = high, high * 2
        if high > 10**7:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bad(middle) else (middle, high)
    return high


class _State:
    """Values of feeds and variables, and how a graph is evaluated with them."""

    def __init__(self, feeds: Sequence[Any], variables: dict[Any, Any], sizes: dict[str, int]) -> None:
        self.feeds, self.variables, self.sizes = feeds, variables, sizes

    def value(self, variable: Any) -> Any:
        if variable in self.variables:
            return np.asarray(self.variables[variable], variable.dtype.storage)
        initial = variable.initial
        made = initial.sample(np.random.default_rng(0)) if hasattr(initial, "sample") else initial
        self.variables[variable] = np.asarray(made, variable.dtype.storage)
        return self.variables[variable]

    def _backend(self, kind: str, graph: Graph) -> Any:

        backend = open_backend(kind)
        for node in graph.nodes():
            if node.op.name == "variable":
                backend.write(node.op.variable, self.value(node.op.variable))  # type: ignore[attr-defined]
        for variable, _ in graph.updates:
            backend.write(variable, self.value(variable))
        return backend

    def interpret(self, graph: Graph) -> list[Any]:
        return self._run("numpy", graph)

    def run_kernels(self, graph: Graph) -> list[Any]:
        return self._run("numpy:kernels", graph)

    def _run(self, kind: str, graph: Graph) -> list[Any]:

        backend = self._backend(kind, graph)
        stages = compile_graph(graph, backend.target, self.sizes, passes=())
        bound = backend.bind(
            backend.compile(stages.plan), place(stages.plan, self.sizes), bind_everything(graph, self.sizes)
        )
        outputs = bound.run(self.feeds)
        return [*outputs, *(backend.read(variable) for variable, _ in graph.updates)]


def _difference(expected: Sequence[Any], found: Sequence[Any]) -> float:
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.size == 0:
            continue
        with np.errstate(invalid="ignore"):
            apart = np.abs(a - b)
        apart = np.where((np.isnan(a) & np.isnan(b)) | (a == b), 0.0, apart)
        scale = max(float(np.max(np.abs(a), where=np.isfinite(a), initial=0.0)), 1e-30)
        worst = max(worst, float(np.max(np.nan_to_num(apart, nan=np.inf))) / scale)
    return worst
