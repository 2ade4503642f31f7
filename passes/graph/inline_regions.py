"""Regions that only group nodes are replaced by what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphcore.base.errors import VerifyError
from graphcore.ir.graph import Graph, inline
from graphcore.ir.node import Node, Value
from graphcore.ir.op import Kind
from passes.graph.base import Pass
from passes.stage import StageContext

__all__ = ["InlineRegions"]


@dataclass(frozen=True)
class InlineRegions(Pass):
    """Replace every region of one body by its body over the operands, nested regions too.

    A region op that runs its body another number of times than once says so with the fact ``runs_once = False`` and is
    kept.

    Requires: a verified graph whose gradients have been taken.
    Ensures: the same outputs; no region left but those kept. Bodies keep their origins; those of a region that
    is recomputed, or built for a gradient, its mark.
    """

    name: ClassVar[str] = "inline-regions"
    descends: ClassVar[str] = "regions of one body, nested ones too"

    def run(self, graph: Graph, ctx: StageContext, /) -> Graph:
        while any(_inlines(node) for node in graph.nodes()):  # once for every level of nesting
            if ctx.exhausted:
                break
            graph = _inlined(graph, ctx)
        return graph

    def ensures(self, graph: Graph, /) -> None:
        left = next((node for node in graph.nodes() if _inlines(node)), None)
        if left is not None:
            raise VerifyError(f"a region is left: {left}\n  it was built at {left.origin.place}")


def _inlines(node: Node) -> bool:
    op = node.op
    return op.kind is Kind.REGION and len(op.bodies) == 1 and op.runs_once  # type: ignore[attr-defined]


def _inlined(graph: Graph, ctx: StageContext) -> Graph:
    """The graph with its present regions inlined; regions inside their bodies come to the surface."""
    values: dict[Value, Value] = {}
    for node in graph.nodes():
        ctx.visits += 1
        inputs = tuple(values[t] for t in node.inputs)
        if _inlines(node) and not ctx.exhausted:
            ctx.hit("inline-regions")
            results = inline(node.op.bodies[0], inputs, node.clone, node.origin.derived)  # type: ignore[attr-defined]
        elif inputs == node.inputs:
            results = node.outputs
        else:
            results = Node(
                node.op, inputs, node.types, node.origin, detached=node.detached, clone=node.clone, device=node.device
            ).outputs
        for i, t in enumerate(results):
            values[Value(node, i)] = t
    return graph.with_roots([values[t] for t in graph.roots])
