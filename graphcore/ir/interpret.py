"""The graph oracle: every op by its NumPy reference, in graph order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphcore.base.errors import CompileError
from graphcore.ir.graph import Graph
from graphcore.ir.leaves import Constant
from graphcore.ir.node import Node, Value
from graphcore.ir.op import Kind

__all__ = ["interpret"]


def interpret(graph: Graph, values: Mapping[Value, Any]) -> list[Any]:
    """The graph's roots as arrays.

    Args:
        graph: with every extent bound.
        values: arrays of the leaves and of what is fed.

    Raises:
        CompileError: an op without a reference.
    """
    known: dict[Value, Any] = dict(values)
    for node in graph.nodes():
        results = node.outputs
        if all(t in known for t in results):
            continue
        for t, result in zip(results, _evaluate(node, [known[t] for t in node.inputs]), strict=True):
            known.setdefault(t, result)
    return [known[t] for t in graph.roots]


def _evaluate(node: Node, operands: list[Any]) -> tuple[Any, ...]:
    if isinstance(node.op, Constant):
        return (node.op.array,)
    if node.op.kind is Kind.REGION:
        body = node.op.bodies[0]  # type: ignore[attr-defined]
        return tuple(interpret(body, dict(zip(body.inputs, operands, strict=True))))
    if node.op.kind is Kind.LEAF:
        raise CompileError(f"{node.op.name} has no value: {node} was neither fed nor initialised")
    with np.errstate(all="ignore"):
        try:
            result = node.op.reference(*operands)
        except NotImplementedError:
            raise CompileError(
                f"{node.op.name} has no NumPy reference\n  it was built at {node.origin.place}"
            ) from None
    results = result if isinstance(result, tuple) else (result,)
    return tuple(np.asarray(r, dtype=t.dtype.storage) for r, t in zip(results, node.types, strict=True))
