"""Finding where a NaN comes from: ``detect_anomaly``."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphcore.base.arrays import outside, wrong_position
from graphcore.base.errors import SessionError
from graphcore.ir.graph import Graph, toposort
from graphcore.ir.interpret import interpret
from graphcore.ir.leaves import Constant, RequireRange, StateRead
from graphcore.ir.node import Node, Value, describe
from graphcore.ir.op import Kind
from graphcore.ir.state import StateSlot
from passes.graph.base import PassContext
from passes.graph.inline_regions import InlineRegions
from passes.graph.specialize import bind_everything

__all__ = ["anomaly_error", "detect_anomaly", "holds_nan", "positions_out_of_range", "watching"]

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
    graph: Graph, sizes: Mapping[str, int], feeds: Sequence[Any], variables: Mapping[StateSlot, Any]
) -> SessionError:
    """The error for a run that gave a NaN.

    Args:
        graph: the run's graph.
        sizes: its symbolic extents.
        feeds: arrays for ``graph.inputs``.
        variables: values before the run by slot.
    """

    bound = InlineRegions().run(bind_everything(graph, sizes), PassContext())
    nodes = bound.nodes()
    known = _fed(bound, feeds)
    known |= {n.output(): variables[n.op.slot] for n in nodes if isinstance(n.op, StateRead)}
    results = [t for n in nodes for t in n.outputs]
    values = dict(zip(results, interpret(Graph(tuple(results)), known), strict=True))
    node = _first_nan(nodes, {key for key, value in values.items() if holds_nan(value)})
    if node is not None:
        return SessionError(_explained(node, values))
    return SessionError(
        "detect_anomaly: the device gave a NaN where the NumPy oracle gives none: compare them with gc.Session('numpy')"
    )


def _fed(graph: Graph, feeds: Sequence[Any]) -> dict[Value, Any]:
    return {t: np.asarray(a).astype(t.dtype.storage) for t, a in zip(graph.inputs, feeds, strict=True)}


def _first_nan(nodes: Sequence[Node], with_nan: set[Value]) -> Node | None:
    """The first node that gives a NaN and was computed from none but those of constants.

    A constant NaN is no anomaly until something takes it in: where a label is no class, a loss does.
    """
    given: set[int] = set()  # constants, and views of them
    constant: Node | None = None
    for node in nodes:
        fixed = isinstance(node.op, Constant) or (
            node.op.kind is Kind.VIEW and all(t.node.serial in given for t in node.inputs)
        )
        if fixed:
            given.add(node.serial)
        if with_nan.isdisjoint(node.outputs):
            continue
        if fixed:
            constant = constant or node
        elif not any(t in with_nan and t.node.serial not in given for t in node.inputs):
            return node
    return constant


def _explained(node: Node, values: Mapping[Value, Any]) -> str:
    if not node.inputs:
        return (
            f"detect_anomaly: {node.op.name} {node.output().name!r} holds NaN before anything is computed"
            f"\n  {describe(node.output())}"
        )
    place = _out_of_range([t for t in node.inputs if not t.dtype.is_float], values)
    if place is not None:
        return f"detect_anomaly: the first NaN comes from an index out of range\n  {place}"
    what = "a gradient op" if node.origin.derived else "the op"
    scope = f" in {'/'.join(node.origin.scope)}" if node.origin.scope else ""
    lines = []
    source = "from operands without one"
    for i, t in enumerate(node.inputs):
        a = np.asarray(values[t])
        source = "out of a constant's" if holds_nan(a) else source
        extent = f", from {a.min()} to {a.max()}" if a.size and a.dtype.kind != "b" else ""
        lines.append(f"\n  operand {i + 1} is {describe(t)}{extent}")
    return (
        f"detect_anomaly: {what} {node.op.name}{scope} made the first NaN, {source}; it was built at "
        f"{node.origin.place}{''.join(lines)}"
    )


def _out_of_range(roots: Sequence[Value], values: Mapping[Value, Any]) -> str | None:
    """What to say of the first label or index out of range that some values are computed from."""
    for node in toposort(roots):
        op: Any = node.op
        if not isinstance(node.op, RequireRange) or node.inputs[0] not in values:
            continue
        array = np.asarray(values[node.inputs[0]])
        wrong = outside(array, op.extent, op.negative, op.allowed)
        if wrong is not None:
            text = wrong_position(array, wrong, op.extent, op.negative, op.allowed)
            t = node.inputs[0]
            return f"{op.label}, built at {node.origin.place}: {text}\n  {describe(t)}"
    return None


def positions_out_of_range(graph: Graph, sizes: Mapping[str, int], feeds: Sequence[Any]) -> str | None:
    """What to say of a label or an index that a run computed from its feeds alone, and that is out of range.

    Args:
        graph: the run's graph.
        sizes: its symbolic extents.
        feeds: arrays for ``graph.inputs``.
    """
    bound = InlineRegions().run(bind_everything(graph, sizes), PassContext())
    free: set[int] = set()  # what needs no variable, which the run may have changed
    read = []
    for node in bound.nodes():
        if not isinstance(node.op, StateRead) and all(t.node.serial in free for t in node.inputs):
            free.add(node.serial)
            if isinstance(node.op, RequireRange):
                read.append(node.output())
    indices = tuple(t.node.inputs[0] for t in read)
    found = interpret(Graph(indices), _fed(bound, feeds))
    return _out_of_range(read, dict(zip(indices, found, strict=True)))
