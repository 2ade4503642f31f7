"""Binding symbolic extents.

Only leading extents of values in memory may stay symbolic: they enter no stride, so kernels take them as arguments and
another batch size needs no new program. Every other symbol is bound to its value, and the compiled code is valid for
that value only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from graphcore.base.errors import FeedError, VerifyError
from graphcore.base.shapes import Dim, Extent, bind, inner_extents, symbols_of
from graphcore.ir.graph import Graph
from graphcore.ir.leaves import Parameter, Placeholder, RequireShape
from graphcore.ir.node import Node, Tensor, make_node
from graphcore.ir.op import Kind
from passes.graph.base import Pass
from passes.stage import StageContext

__all__ = ["Specialize", "bind_everything", "check_constraints"]


@dataclasses.dataclass(frozen=True)
class Specialize(Pass):
    """Bind the extents that cannot stay symbolic, and drop the equalities between extents once they are known to hold.

    Requires: a graph without regions but those that keep their bodies, and a value for every symbol.
    Ensures: no recorded equality left; extents are symbolic only where they enter no stride. What was bound is noted in
    the context.
    """

    name: ClassVar[str] = "specialize"
    descends: ClassVar[str] = "every region, to bind the same extents in its bodies"

    def run(self, graph: Graph, ctx: StageContext, /) -> Graph:
        special, bound = specialize(graph, ctx.sizes)
        ctx.bind(bound)
        for name in sorted(bound & ctx.sizes.keys()):
            ctx.say(f"{name} is bound to {ctx.sizes[name]}: it enters a stride, or an op needs its number")
        return special

    def ensures(self, graph: Graph, /) -> None:
        for node in graph.nodes():
            if isinstance(node.op, RequireShape):
                raise VerifyError(f"an equality of extents is left: {node}\n  it was built at {node.origin.place}")


def specialize(graph: Graph, sizes: Mapping[str, int]) -> tuple[Graph, frozenset[str]]:
    """Bind what must be bound.

    Args:
        graph: without regions.
        sizes: the value of every symbol, from the feeds.

    Returns:
        The graph, and the names of the symbols that were bound.

    Raises:
        FeedError: two extents that must be equal are not.
    """
    nodes = graph.nodes()
    check_constraints(nodes, sizes)
    merged = _equalities(nodes)
    if not sizes:
        return _rebound(graph, nodes, {}) if any(isinstance(n.op, RequireShape) for n in nodes) else graph, frozenset()
    roots = {t.node.serial for t in graph.roots}
    fixed = {name for node in nodes for name in _needed_symbols(node, roots, sizes)}
    fixed |= {
        name
        for symbol, extent in merged.items()
        if symbols_of([extent]) & fixed or symbol in fixed
        for name in (symbol, *symbols_of([extent]))
    }
    mapping: dict[str, Extent] = {name: sizes[name] for name in fixed if name in sizes}
    for symbol, extent in merged.items():
        mapping.setdefault(symbol, bind(extent, {k: v for k, v in mapping.items() if isinstance(v, int)}))
    return _rebound(graph, nodes, mapping), frozenset(fixed)


def bind_everything(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """The graph for one set of sizes, with no symbol left; regions are kept."""
    nodes = graph.nodes()
    check_constraints(nodes, sizes)
    return _rebound(graph, nodes, sizes) if sizes else graph


def check_constraints(nodes: list[Node], sizes: Mapping[str, int]) -> None:
    """Raise FeedError unless every recorded equality between extents holds for these sizes."""
    for node in nodes:
        if not isinstance(node.op, RequireShape):
            continue
        operand = node.inputs[0]
        for axis, (have, want) in enumerate(zip(operand.shape, node.types[0].shape, strict=True)):
            a, b = bind(have, sizes), bind(want, sizes)
            if a != b:
                raise FeedError(
                    f"axis {axis} of {operand.name} is {a} in this feed, but the op built at {node.origin.place} "
                    f"needs it to be {b} "
                    f"({have} = {want})\n  {operand.name} was built at {operand.node.origin.place}"
                )


def _equalities(nodes: list[Node]) -> dict[str, Extent]:
    """Symbols that constraints make equal to other extents."""
    merged: dict[str, Extent] = {}
    for node in nodes:
        if isinstance(node.op, RequireShape):
            for have, want in zip(node.inputs[0].shape, node.types[0].shape, strict=True):
                have, want = bind_all(have, merged), bind_all(want, merged)
                if have != want and isinstance(have, Dim) and have.is_symbol:
                    (symbol,) = have.symbols()
                    merged = {k: bind_all(v, {symbol: want}) for k, v in merged.items()}
                    merged[symbol] = want
                elif have != want and isinstance(want, Dim) and want.is_symbol:
                    (symbol,) = want.symbols()
                    merged = {k: bind_all(v, {symbol: have}) for k, v in merged.items()}
                    merged[symbol] = have
    return merged


def bind_all(extent: Extent, mapping: Mapping[str, Extent]) -> Extent:
    """Substitute symbols by extents."""
    return bind(extent, mapping)  # type: ignore[arg-type]


def _needed_symbols(node: Node, roots: set[int], sizes: Mapping[str, int]) -> frozenset[str]:
    """Symbols in extents that would enter a stride of a value in memory, or that an op needs as a number."""
    needed = node.op.literal_extents(tuple(t.type for t in node.inputs), node.types)
    if node.op.kind is not Kind.VIEW or node.serial in roots:
        needed = (*needed, *(e for t in node.types for e in inner_extents(t.shape)))
    most = node.op.literal_beyond
    if most is not None and any(bind(t.size, sizes) > most for t in node.types):
        needed = (*needed, *(e for t in node.types for e in t.shape))
    return symbols_of(needed)


def _rebound(graph: Graph, nodes: list[Node], mapping: Mapping[str, Extent]) -> Graph:
    values: dict[tuple[int, int], Tensor] = {}
    for node in nodes:
        inputs = tuple(values[t.key] for t in node.inputs)
        if isinstance(node.op, RequireShape):
            values[node.serial, 0] = inputs[0]
            continue
        op = _bound_op(node.op, mapping)
        same = op is node.op and all(a.same(b) for a, b in zip(inputs, node.inputs, strict=True))
        fresh = node if same else make_node(op, inputs, node.origin, clone=node.clone, detached=node.detached)
        for i in range(len(node.types)):
            values[node.serial, i] = Tensor(fresh, i)
    result = graph.with_roots([values[t.key] for t in graph.roots])
    return Graph(result.outputs, result.updates, tuple(values.get(t.key, t) for t in graph.inputs))


def _bound_op(op: Any, mapping: Mapping[str, Extent]) -> Any:
    changed = {}
    for f in dataclasses.fields(op):
        value = getattr(op, f.name)
        new = _bound_value(value, mapping)
        if new is not value:
            changed[f.name] = new
    if not changed or (op.kind is Kind.LEAF and not isinstance(op, (Placeholder, Parameter))):
        return op
    return dataclasses.replace(op, **changed)


def _bound_value(value: Any, mapping: Mapping[str, Extent]) -> Any:
    if isinstance(value, Dim):
        new = bind_all(value, mapping)
        return new if new != value else value
    if isinstance(value, tuple) and any(isinstance(v, Graph) for v in value):
        bodies = tuple(bind_everything(v, {k: n for k, n in mapping.items() if isinstance(n, int)}) for v in value)
        return bodies if any(a is not b for a, b in zip(bodies, value, strict=True)) else value
    if isinstance(value, tuple) and any(isinstance(v, Dim) for v in value):
        bound = tuple(bind_all(v, mapping) if isinstance(v, Dim) else v for v in value)
        return bound if bound != value else value
    return value
