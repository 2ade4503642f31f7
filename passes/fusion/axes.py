"""Indices over a group's axes: fresh axes, the axes that a reduction binds, and views followed forward and back."""

from __future__ import annotations

from graphcore.base.shapes import Extent, Shape
from graphcore.ir.node import Node, Value
from graphcore.ir.op import Kind, View
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import PARALLEL, REDUCE, Axis, Index, as_index, flatten
from passes.fusion.lower import lower_node

__all__ = ["Indices", "awkward_views", "bind_axes", "fresh_axes", "viewed"]

Indices = tuple[Index, ...]


def fresh_axes(shape: Shape) -> tuple[tuple[Axis, ...], Indices]:
    """One axis for every extent but 1, and the index made of them."""
    axes = [Axis(f"i{n}", e, PARALLEL) for n, e in enumerate(shape)]
    return tuple(a for a in axes if a.extent != 1), tuple(as_index(a) for a in axes)


def bind_axes(full: Indices, shape: Shape, axes: tuple[int, ...]) -> dict[int, Axis | None] | None:
    """The domain axis at every reduced position (None for extent 1); None if some position is no bare axis of its
    extent."""
    bound: dict[int, Axis | None] = {}
    for position in axes:
        if shape[position] == 1:
            bound[position] = None
            continue
        terms = full[position].terms
        if full[position].constant or len(terms) != 1 or terms[0][1] != 1 or not isinstance(terms[0][0], Axis):
            return None
        axis = terms[0][0]
        if axis.extent != shape[position] or axis in bound.values():
            return None
        bound[position] = axis
    return bound


def viewed(index: Indices, view: Node) -> Indices:
    """The index of an invertible view's output element for its operand's element."""
    assert isinstance(view.op, View)
    return view.op.result_index(view.inputs[0].shape, index)


def awkward_views(nodes: list[Node]) -> set[Node]:
    """Views that products read and whose index is no linear function of the product's axes: heads split off and merged
    again.

    A product's tiles walk memory in steps, so such an operand is better stored in the order of the view.
    """
    found: set[Node] = set()
    for node in nodes:
        if node.op.kind is not Kind.CONTRACT:
            continue
        views = [t for t in node.inputs if t.node.op.kind is Kind.VIEW and t.node.inputs[0].node.op.kind is Kind.VIEW]
        if not views:
            continue
        read_at: dict[Value, Indices] = {}
        terms: dict[int, Axis] = {}

        def note(t: Value, at: Indices, guard: Expr | None = None, seen: dict[Value, Indices] = read_at) -> Expr:
            seen[t] = at
            return expr.let_ref("operand", expr.const(0, t.dtype))

        def axis(n: Node, extent: Extent, position: int, made: dict[int, Axis] = terms) -> Axis | None:
            return made.setdefault(position, Axis(f"r{position}", extent, REDUCE)) if extent != 1 else None

        axes, index = fresh_axes(node.types[0].shape)
        lower_node(node, 0, index, note, axis)
        walked = (*axes, *terms.values())
        for t in views:
            *chain, source = views_below(t, read_at[t])
            if not _linear(*source, walked):
                good = [view for view, at in chain if _linear(view, at, walked)]
                found.add(good[-1].node)  # the one next to the source: other views of it are read through
    return found


def _linear(t: Value, at: Indices, axes: tuple[Axis, ...]) -> bool:
    flat = flatten(at, t.shape)
    return all(flat.stride(a) is not None for a in axes)


def views_below(t: Value, at: Indices) -> list[tuple[Value, Indices]]:
    """A chain of invertible views down to what it reads, each with the index that is read of it."""
    chain = [(t, at)]

    def note(x: Value, index: Indices, guard: Expr | None = None) -> Expr:
        chain.append((x, index))
        return expr.let_ref("operand", expr.const(0, x.dtype))

    while chain[-1][0].node.op.inverts_index:
        view, index = chain[-1]
        lower_node(view.node, view.index, index, note, lambda n, e, p: None)
    return chain
