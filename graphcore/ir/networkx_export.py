"""Graphs for other tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphcore.base.lazy import networkx
from graphcore.ir.printer import attribute_text

if TYPE_CHECKING:
    from graphcore.ir.graph import Graph
    from graphcore.ir.node import Value

__all__ = ["to_networkx"]


def to_networkx(graph: Graph) -> Any:
    """The graph as a ``networkx.MultiDiGraph``.

    Args:
        graph: a graph; bodies of regions are not entered.

    Returns:
        Nodes are the ops' serial numbers with the attributes ``op``, ``name``, ``kind``, ``attributes``, ``shape`` and
        ``dtype`` (of the first result), ``types`` (of all), ``origin`` (``file:line``) and ``derived``. Edges run from
        operand to user with ``operand`` (its position) and ``result`` (which of the producer's). The graph has
        ``outputs`` as pairs (serial, result) and ``updates`` as a dict from variable name to such a pair.

    """
    made = networkx.MultiDiGraph(
        outputs=[_place(t) for t in graph.outputs], updates={v.name: _place(t) for v, t in graph.updates}
    )
    for node in dict.fromkeys((*(t.node for t in graph.inputs), *graph.nodes())):
        first = node.types[0]
        made.add_node(
            node.serial, op=node.op.name, name=node.output().name, kind=node.op.kind.value,
            attributes=attribute_text(node), shape=first.shape, dtype=first.dtype.name,
            types=tuple(map(str, node.types)), origin=node.origin.place, derived=node.origin.derived,
        )  # fmt: skip
        for position, t in enumerate(node.inputs):
            made.add_edge(t.node.serial, node.serial, operand=position, result=t.index)
    return made


def _place(t: Value) -> tuple[int, int]:
    return t.node.serial, t.index
