"""Finding where a NaN comes from: ``detect_anomaly``."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphcore.base.errors import SessionError
from graphcore.ir.graph import Graph
from graphcore.ir.interpret import interpret
from graphcore.ir.node import Node, describe
from passes.graph.specialize import bind_everything

__all__ = ["anomaly_error", "detect_anomaly", "holds_nan", "watching"]

_watching: contextvars.ContextVar[bool] = contextvars.ContextVar("graphcore_anomaly", default=False)


@contextlib.contextmanager
def detect_anomaly() -> Iterator[None]:
    """Inside, a run that fetches or stores a NaN raises and names the op that made the first one, with the line that
    built it.

    Runs become slow: variables are read before and after each, and a run with a NaN is repeated op by op with NumPy.

    >>> with detect_anomaly():
    ...     pass
    """
    token = _watching.set(True)
    try:
        yield
    finally:
        _watching.reset(token)


def watching() -> bool:
    """Whether ``detect_anomaly`` is open here."""
    return _watching.get()


def holds_nan(value: Any) -> bool:
    """Whether an array has a NaN."""
    array = np.asarray(value)
    return array.dtype.kind not in "iub" and bool(np.isnan(array.astype(np.float64)).any())


def anomaly_error(
    graph: Graph, sizes: Mapping[str, int], feeds: Sequence[Any], variables: Mapping[int, Any]
) -> SessionError:
    """The error for a run that gave a NaN.

    Args:
        graph: the run's graph.
        sizes: its symbolic extents.
        feeds: arrays for ``graph.inputs``.
        variables: values before the run by ``Variable.uid``.
    """

    bound = bind_everything(graph, sizes)
    nodes = bound.nodes()
    known = {t.key: np.asarray(a).astype(t.dtype.storage) for t, a in zip(bound.inputs, feeds, strict=True)}
    known |= {(n.serial, 0): variables[n.op.variable.uid] for n in nodes if n.op.name == "variable"}  # type: ignore[attr-defined]
    results = [t for n in nodes for t in n.outputs]
    values = dict(zip((t.key for t in results), interpret(Graph(tuple(results)), known), strict=True))
    for node in nodes:
        if any(holds_nan(values[t.key]) for t in node.outputs) and not any(
            holds_nan(values[t.key]) for t in node.inputs
        ):
            return SessionError(_explained(node, values))
    return SessionError(
        "detect_anomaly: the device gave a NaN where the NumPy oracle gives none: compare them with gc.Session('numpy')"
    )


def _explained(node: Node, values: Mapping[tuple[int, int], Any]) -> str:
    name = node.output().name
    if not node.inputs:
        return (
            f"detect_anomaly: {node.op.name} {name!r} holds NaN before anything is computed"
            f"\n  {describe(node.output())}"
        )
    what = "a gradient op" if node.origin.derived else "the op"
    lines = []
    for i, t in enumerate(node.inputs):
        a = np.asarray(values[t.key])
        extent = f", from {a.min()} to {a.max()}" if a.size and a.dtype.kind != "b" else ""
        lines.append(f"\n  operand {i + 1} is {describe(t)}{extent}")
    return (
        f"detect_anomaly: {what} {node.op.name} made the first NaN, from operands without one; it was built at "
        f"{node.origin.place}{''.join(lines)}"
    )
