"""Binding symbolic extents.

Only leading extents of values in memory may stay symbolic: they enter no stride, so kernels take them as arguments and
another batch size needs no new program. Every other symbol is bound to its value, and the compiled code is valid for
that value only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from graphcore.base.errors import VerifyError
from graphcore.base.shapes import Dim, Extent, bind, defined_by, inner_extents, symbols_of
from graphcore.ir.constraints import check_constraints
from graphcore.ir.graph import Graph, copy_node
from graphcore.ir.leaves import Parameter, Placeholder, RequireShape
from graphcore.ir.node import Node, Value
from graphcore.ir.op import Kind
from passes.graph.base import Pass
from passes.stage import StageContext

__all__ = ["Specialize", "bind_everything"]


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
    pairs = [
        pair
        for node in nodes
        if isinstance(node.op, RequireShape)
        for pair in zip(node.inputs[0].shape, node.types[0].shape, strict=True)
    ]
    if not sizes:
        return _rebound(graph, nodes, {}) if pairs else graph, frozenset()
    roots = {t.node.serial for t in graph.roots}
    needed = frozenset(name for node in nodes for name in _needed_symbols(node, roots, sizes))
    mapping, fixed = _solved(pairs, needed, sizes)
    return _rebound(graph, nodes, mapping), fixed


def bind_everything(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """The graph for one set of sizes, with no symbol left; regions are kept."""
    nodes = graph.nodes()
    check_constraints(nodes, sizes)
    return _rebound(graph, nodes, sizes) if sizes else graph


def _solved(
    pairs: Sequence[tuple[Extent, Extent]], fixed: frozenset[str], sizes: Mapping[str, int]
) -> tuple[dict[str, Extent], frozenset[str]]:
    """What makes equal extents the same.

    Args:
        pairs: the extents that must be equal, and are for these sizes.
        fixed: the symbols that are bound anyhow.
        sizes: the values of the symbols.

    Returns:
        An extent for every symbol that is bound or that an equality defines by others; and the symbols that are bound:
        besides ``fixed`` those of equalities that define no symbol, as ``2*a == 3*b``, and those that follow.
    """
    while True:
        values: dict[str, Extent] = {name: sizes[name] for name in fixed if name in sizes}
        defined: dict[str, Extent] = {}
        more: frozenset[str] = frozenset()
        for pair in pairs:
            a, b = (bind_all(bind_all(e, values), defined) for e in pair)
            found = None if a == b else defined_by(a, b)
            if found is not None:
                symbol, extent = found
                defined = {k: bind_all(v, {symbol: extent}) for k, v in defined.items()} | {symbol: extent}
            elif a != b:
                more |= symbols_of((a, b))
        if not more:
            followers = _closed(pairs, fixed)
            return {**values, **defined}, fixed | (followers & {k for k, v in defined.items() if isinstance(v, int)})
        fixed |= more


def _closed(pairs: Sequence[tuple[Extent, Extent]], fixed: frozenset[str]) -> frozenset[str]:
    """The symbols in equalities with fixed ones, in equalities with those, and so on."""
    groups = [symbols_of(pair) for pair in pairs]
    while True:
        more = frozenset().union(*(g for g in groups if g & fixed)) - fixed
        if not more:
            return fixed
        fixed |= more


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
    values: dict[Value, Value] = {}
    for node in nodes:
        inputs = tuple(values[t] for t in node.inputs)
        if isinstance(node.op, RequireShape):
            values[node.output()] = inputs[0]
            continue
        op = _bound_op(node.op, mapping)
        same = op is node.op and inputs == node.inputs
        fresh = node if same else copy_node(node, inputs, node.clone, op=op)
        for i in range(len(node.types)):
            values[Value(node, i)] = Value(fresh, i)
    result = graph.with_roots([values[t] for t in graph.roots])
    return Graph(result.outputs, result.updates, tuple(values.get(t, t) for t in graph.inputs))


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
