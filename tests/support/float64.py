"""A session in miniature for tests: variables in a dictionary, graphs through the NumPy interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable, variable_of
from graphcore.ir.graph import Graph, Update, collect
from graphcore.ir.interpret import interpret


class Oracle:
    """Runs fetches on static shapes; all updates of a run land together at its end."""

    def __init__(self, seed: int = 0) -> None:
        self.values: dict[int, Any] = {}
        self.rng = np.random.default_rng(seed)

    def get(self, variable: Variable) -> Any:
        """A variable's value, initialised at first use."""
        if variable.uid not in self.values:
            initial = variable.initial
            if isinstance(initial, Tensor):
                value = self.run([initial])[0]
            else:
                value = initial.sample(self.rng) if hasattr(initial, "sample") else initial
            self.values[variable.uid] = np.asarray(value).astype(variable.dtype.storage)
        return self.values[variable.uid]

    def run(self, fetches: Any, feeds: Mapping[Tensor, Any] | None = None) -> list[Any]:
        """Arrays for tensors, None for updates and training steps."""
        tensors = [f for f in fetches if isinstance(f, Tensor)]
        updates: list[Update] = []
        for f in fetches:
            if not isinstance(f, Tensor):
                updates.extend(f.updates if hasattr(f, "updates") else [f])
        graph: Graph = collect(tensors, updates)
        known = {t.value: np.asarray(a, t.dtype.storage) for t, a in (feeds or {}).items()}
        for node in graph.nodes():
            if node.op.name == "variable":
                known[node.output()] = self.get(variable_of(node.op.slot))  # type: ignore[attr-defined]
        results = interpret(graph, known)
        for (slot, _), value in zip(graph.updates, results[len(tensors) :], strict=True):
            self.values[slot.serial] = np.asarray(value)
        found = iter(results[: len(tensors)])
        return [next(found) if isinstance(f, Tensor) else None for f in fetches]
