"""The graph oracle: every op by its NumPy reference, in graph order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphcore.base.errors import CompileError
from graphcore.ir.graph import Graph
from graphcore.ir.leaves import Constant
from graphcore.ir.node import Node
from graphcore.ir.op import Kind

__all__ = ["interpret"]


def interpret(graph: Graph, values: Mapping[tuple[int, int], Any]) -> list[Any]:
    """The graph's roots as arrays.

    Args:
        graph: with every extent bound.
        values: arrays of the leaves and fed tensors by ``Tensor.key``.

    Raises:
        CompileError: an op without a reference.
    """
    known: dict[tuple[int, int], Any] = dict(values)
    for node in graph.nodes():
        if all((node.serial, i) in known for i in range(len(node.types))):
            continue
        for i, result in enumerate(_evaluate(node, [known[t.key] for t in node.inputs])):
            known.setdefault((node.serial, i), result)
    return [known[t.key] for t in graph.roots]


def _evaluate(node: Node, operands: list[Any]) -> tuple[Any, ...]:
    if isinstance(node.op, Constant):
        return (node.op.array,)
    if node.op.kind is Kind.REGION:
        body = node.op.bodies[0]  # type: ignore[attr-defined]
        return tuple(interpret(body, {p.key: a for p, a in zip(body.inputs, operands, strict=True)}))
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
