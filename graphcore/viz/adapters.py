"""Diagrams of graphs: ops as boxes, scopes and region bodies as frames, scalar constants as text in readers' labels."""

from __future__ import annotations

import linecache
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphcore.api.variable import variable_of
from graphcore.base.dtypes import DType
from graphcore.ir.graph import Graph
from graphcore.ir.leaves import Constant, StateRead
from graphcore.ir.node import Node, Value
from graphcore.ir.op import Kind, Op
from graphcore.ir.state import StateSlot
from graphcore.viz.diagram import Diagram, DiagramEdge, DiagramNode, NodeStyle

__all__ = [
    "GRADIENT", "Splats", "edges_once", "fetch_node", "graph_diagram", "node_tooltip", "op_label", "style_of",
    "unbroadcast", "update_node", "update_owners", "value_name", "variable_tooltip",
]  # fmt: skip


GRADIENT = "∂"
_LABEL_COLUMNS = 30
_STATE_LIMIT = 4  # a value that serves more updates than a weight and its state is shared by all of them
_STYLES: dict[Kind, NodeStyle] = {
    Kind.MAP: "map", Kind.VIEW: "view", Kind.REDUCE: "reduce", Kind.CONTRACT: "contract", Kind.OPAQUE: "opaque",
    Kind.REGION: "region",
}  # fmt: skip
_LEAVES: dict[type[Op], NodeStyle] = {StateRead: "variable", Constant: "constant"}


def graph_diagram(graph: Graph, title: str, facts: Sequence[tuple[str, str]] = ()) -> Diagram:
    """A picture of a graph.

    Args:
        graph: a run's graph.
        title: the heading.
        facts: pairs (name, value) that come after the counts of ops.

    Returns:
        One node for each op, leaf, fetched value and update. Region bodies are scopes of their own. Broadcasts are left
        out, and constants that hold one number: the number stands among the operands in the label of each reader.
    """
    return _Drawing(graph).diagram(title, facts)


class Splats:
    """Which values are one number everywhere, seen through views; they are written as text instead of drawn."""

    def __init__(self) -> None:
        self._known: dict[int, str | None] = {}

    def give(self, t: Value, text: str | None) -> None:
        """Let a region's parameter have its operand's number."""
        self._known[t.node.serial] = text

    def text(self, t: Value) -> str | None:
        """The number, or None if the value is no constant of one value."""
        node = t.node
        while node.op.kind is Kind.VIEW and len(node.inputs) == 1:
            node = node.inputs[0].node
        if node.serial not in self._known:
            array = node.op.array if isinstance(node.op, Constant) else None
            self._known[node.serial] = (
                _number_text(array.reshape(-1)[0]) if array is not None and _is_splat(array) else None
            )
        return self._known[node.serial]


def _is_splat(array: Any) -> bool:
    if array.size <= 1:
        return bool(array.size)
    flat = array.reshape(-1)
    return bool(flat[0] == flat[-1]) and bool((flat == flat[0]).all())


def _number_text(value: Any) -> str:
    if isinstance(value, (np.bool_, np.integer)):
        return str(value.item())
    return f"{float(value):.6g}"


def style_of(node: Node) -> NodeStyle:
    """Which colour a node has."""
    return _STYLES[node.op.kind] if node.op.kind is not Kind.LEAF else _LEAVES.get(type(node.op), "placeholder")


def op_label(node: Node, splats: Splats, derived: bool) -> tuple[str, str]:
    """What a node's box says first, and the attributes where they did not fit into that.

    Attributes that the result's type shows anyway (a cast's type, a reshape's shape) are left out. What is ``derived``
    is marked as part of a gradient.
    """
    op: Any = node.op
    if op.kind is Kind.LEAF:
        return (op.slot.name if isinstance(op, StateRead) else op.given_name or op.name), ""
    numbers = [splats.text(t) for t in node.inputs]
    label = (f"{GRADIENT} " if derived else "") + op.name
    if any(n is not None for n in numbers):
        shown = ["·" if n is None else n for n in numbers]
        label += f"({', '.join(shown)})"
    attributes = ", ".join(f"{k}={_value_text(v)}" for k, v in _shown_attributes(node))
    if attributes and len(label) + 1 + len(attributes) <= _LABEL_COLUMNS:
        return f"{label} {attributes}", ""
    return label, attributes


def _shown_attributes(node: Node) -> list[tuple[str, Any]]:
    given = node.types[0] if node.types else None
    obvious = (None, given.shape, given.dtype) if given is not None else (None,)
    hidden = ("bodies", "rule", "array", "digest", "variable", "label")
    return [
        (k, v)
        for k, v in node.op.attributes().items()
        if k not in hidden and not any(v is o or v == o for o in obvious)
    ]


def _value_text(value: Any) -> str:
    if isinstance(value, DType):
        return value.name
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_value_text, value)) + ("," if len(value) == 1 else "") + ")"
    return str(value)


def node_tooltip(node: Node, splats: Splats, name: Mapping[Value, str]) -> str:
    """Everything about a node: the op with its operands' names, types, the user's line and its text.

    Args:
        node: the node.
        splats: the numbers among constants.
        name: what the values are called.
    """
    operands = [splats.text(t) or name.get(t, t.node.op.name) for t in node.inputs]
    attributes = [f"{k}={_value_text(v)}" for k, v in _shown_attributes(node)]
    lines = [
        f"{name.get(node.output(), '')} = {node.op.name}({', '.join([*operands, *attributes])})",
        *map(str, node.types),
    ]
    if node.origin.derived:
        lines.append("part of a gradient")
    lines.append(f"{node.origin.place} in {node.origin.function}")
    text = linecache.getline(node.origin.file, node.origin.line).strip()
    lines += [text] if text else []
    lines += ["recomputed: a copy of another op, to save memory"] if node.clone else []
    lines += ["no gradient flows through it"] if node.detached and node.op.kind is not Kind.LEAF else []
    return "\n".join(lines)


def variable_tooltip(node: Node) -> str:
    """Everything about a variable."""
    slot = node.op.slot  # type: ignore[attr-defined]
    trained = "trainable" if variable_of(slot).trainable else "not trainable"
    return f"variable {slot.name}, {trained}\n{slot.type}\nmade at {slot.place}"


def value_name(t: Value) -> str:
    """What a result is called: autodiff names what it builds like the forward value at whose line it stands."""
    return f"{GRADIENT} {t.name}" if t.node.origin.derived else t.name


def fetch_node(number: int, t: Value, *, more: Sequence[str] = ()) -> DiagramNode:
    """The box of a fetched value; ``more`` are further lines."""
    return DiagramNode(
        f"fetch {number}",
        f"fetch {value_name(t)}",
        "",
        (str(t.type), *more),
        (),
        None,
        f"fetched value {number} of the run",
        "output",
        t.node.origin.derived,
    )


def update_node(number: int, variable: StateSlot, *, more: Sequence[str] = (), group: str | None = None) -> DiagramNode:
    """The box of an update; ``more`` are further lines."""
    about = f"{variable.name} takes this value at the end of the run\nvariable made at {variable.place}"
    return DiagramNode(
        f"update {number}", f"{variable.name} ←", "", (str(variable.type), *more), (), group, about, "update"
    )


def unbroadcast(t: Value) -> Value:
    """The value that a broadcast repeats; broadcasts are not drawn, for the shapes in the boxes show them."""
    while t.node.op.only_repeats:
        t = t.node.inputs[0]
    return t


def update_owners(graph: Graph) -> dict[int, str]:
    """Nodes that serve only the updates of one variable and of the state that its optimizer keeps for it, and its name.

    Pictures draw the many copies of an optimizer's formula as one box for each variable. A second variable of the same
    name is marked with a number.
    """
    serves: dict[int, int] = {t.node.serial: 1 << len(graph.updates) for t in graph.outputs}  # a bit for each update
    for i, (_, t) in enumerate(graph.updates):
        serves[t.node.serial] = serves.get(t.node.serial, 0) | 1 << i
    for node in reversed(graph.nodes()):
        for t in node.inputs:
            serves[t.node.serial] = serves.get(t.node.serial, 0) | serves[node.serial]
    groups = _update_groups([serves[t.node.serial] for _, t in graph.updates])
    if len(set(groups)) < 2:
        return {}
    seen: Counter[str] = Counter()
    names: dict[int, str] = {}
    for group in dict.fromkeys(groups):
        name = min((v.name for (v, _), g in zip(graph.updates, groups, strict=True) if g == group), key=len)
        seen[name] += 1
        names[group] = name + (f" #{seen[name]}" if seen[name] > 1 else "")
    owner: dict[int, str] = {}
    for serial, mask in serves.items():
        lowest = (mask & -mask).bit_length() - 1
        if lowest < len(groups) and not mask & ~groups[lowest]:
            owner[serial] = names[groups[lowest]]
    return owner


def _update_groups(serves: Sequence[int]) -> list[int]:
    """For every update the bits of its group: a momentum's new value serves the momentum and the weight: one group."""
    groups = [1 << i for i in range(len(serves))]
    for mask in serves:
        members = [i for i in range(len(serves)) if mask >> i & 1] if mask.bit_count() <= _STATE_LIMIT else []
        joined = 0
        for i in members:
            joined |= groups[i]
        for i in range(joined.bit_length()):
            if joined >> i & 1:
                groups[i] = joined
    return groups


def edges_once(edges: Iterable[DiagramEdge]) -> tuple[DiagramEdge, ...]:
    """The edges without repetitions, in order."""
    return tuple(dict.fromkeys(edges))


class _Drawing:
    """One picture under construction; ``ids`` and ``names`` know the values of the graph or body being drawn."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.splats = Splats()
        self.nodes: list[DiagramNode] = []
        self.edges: list[DiagramEdge] = []
        self.ids: dict[Value, str] = {}  # the node that a value is drawn as
        self.names: dict[Value, str] = {}
        self.owners = update_owners(graph)
        self.in_gradient = False  # whether the body being drawn is that of a gradient's region

    def diagram(self, title: str, facts: Sequence[tuple[str, str]]) -> Diagram:
        self.body(self.graph, (), (), "")
        self.results()
        ops = [n for n in self.graph.nodes() if n.op.kind is not Kind.LEAF]
        derived = sum(map(self.is_derived, ops))
        counts = [("ops", str(len(ops)))]
        counts += [(f"{GRADIENT} built for gradients", str(derived))] if derived else []
        counts += [("updates", str(len(self.graph.updates)))] if self.graph.updates else []
        return Diagram(title, tuple(self.nodes), edges_once(self.edges), (), (*counts, *facts))

    def results(self) -> None:
        """Boxes for what the run fetches and updates."""
        for number, t in enumerate(self.graph.outputs):
            self.nodes.append(fetch_node(number, t))
            self.edges.append(DiagramEdge(self.ids[t], f"fetch {number}"))
        for number, (variable, value) in enumerate(self.graph.updates):
            self.nodes.append(replace(update_node(number, variable), scope=self.boxes(value.node)))
            self.edges.append(DiagramEdge(self.ids[value], f"update {number}", style="update"))

    def body(self, graph: Graph, outer: tuple[str, ...], base: tuple[str, ...], prefix: str) -> None:
        """Draw a graph or a region's body.

        Args:
            graph: what to draw.
            outer: the boxes around it.
            base: the name scope that ``outer`` stands for; only what a node's scope has beyond it adds boxes.
            prefix: of the names of its values.
        """
        order = list(dict.fromkeys((*(t.node for t in graph.inputs), *graph.nodes())))
        position = {node.serial: number for number, node in enumerate(order)}
        for number, node in enumerate(order):
            for index in range(len(node.types)):
                name = f"{prefix}%{number}" + (f".{index}" if len(node.types) > 1 else "")
                self.names.setdefault(Value(node, index), name)
        wanted = {t.node.serial for t in graph.roots}
        wanted.update(t.node.serial for t in graph.inputs if self.splats.text(t) is None)
        for node in reversed(order):  # all but broadcasts, and constants that appear only as text
            if node.serial in wanted:
                wanted.update(unbroadcast(t).node.serial for t in node.inputs if self.splats.text(t) is None)
        for node in order:
            if node.serial in wanted and node.output() not in self.ids:
                self.node(node, (*outer, *_beyond(self.boxes(node), base)), f"{prefix}%{position[node.serial]}")

    def boxes(self, node: Node) -> tuple[str, ...]:
        """The boxes around a node: name scopes, and inside them the variable whose update it computes. What autodiff
        built has boxes of its own, marked."""
        scope, owner = node.origin.scope, self.owners.get(node.serial)
        if self.is_derived(node):
            return (f"{GRADIENT} {scope[0]}", *scope[1:]) if scope else ()
        return (*scope, *((owner,) if owner is not None else ()))

    def is_derived(self, node: Node) -> bool:
        """Whether a node is part of a gradient: built for one, or in the body of a region that was."""
        return self.in_gradient or node.origin.derived

    def node(self, node: Node, scope: tuple[str, ...], name: str) -> None:
        if node.op.kind is Kind.REGION and self.region(node, scope, name):
            return
        derived = node.op.kind is not Kind.LEAF and self.is_derived(node)
        label, attributes = op_label(node, self.splats, derived)
        place = () if node.op.kind is Kind.LEAF else (str(node.origin),)
        marks = (*(("recomputed",) if node.clone else ()), *((f"on {node.device}",) if node.device else ()))
        lines = tuple(filter(None, (attributes, *map(str, node.types), *place, *marks)))
        tip = variable_tooltip(node) if isinstance(node.op, StateRead) else node_tooltip(node, self.splats, self.names)
        self.nodes.append(DiagramNode(name, label, node.op.name, lines, scope, None, tip, style_of(node), derived))
        for index in range(len(node.types)):
            self.ids[Value(node, index)] = name
        for t in map(unbroadcast, node.inputs):
            if t in self.ids and self.splats.text(t) is None:
                result = f"result {t.index}" if len(t.node.types) > 1 else ""
                self.edges.append(DiagramEdge(self.ids[t], name, result))

    def region(self, node: Node, scope: tuple[str, ...], name: str) -> bool:
        """Draw a region's bodies; False if the region needs a box of its own as well.

        A region that is one body over its operands is that body: operands flow to the readers of its parameters. Any
        other (a loop, a branch) keeps its box, to which the results of its bodies flow.
        """
        bodies: tuple[Graph, ...] = node.op.bodies  # type: ignore[attr-defined]
        transparent = len(bodies) == 1 and len(bodies[0].inputs) == len(node.inputs)
        ids, names, in_gradient = self.ids, self.names, self.in_gradient
        base, self.in_gradient = self.boxes(node), self.is_derived(node)
        results: list[str] = []
        for number, body in enumerate(bodies):
            self.ids, self.names = {}, {}
            for p, t in zip(body.inputs, node.inputs, strict=False) if transparent else ():
                self.names[p] = names[t]
                self.splats.give(p, self.splats.text(t))
                if unbroadcast(t) in ids:
                    self.ids[p] = ids[unbroadcast(t)]
            part = (f"{node.op.name} {name}", *((f"body {number}",) if len(bodies) > 1 else ()))
            self.body(body, (*scope, *part), base, f"{name}/{f'{number}/' if len(bodies) > 1 else ''}")
            results += [self.ids[t] for t in body.roots]
        self.ids, self.names, self.in_gradient = ids, names, in_gradient
        if transparent:
            ids.update(zip(node.outputs, results, strict=True))
        else:
            self.edges += [DiagramEdge(result, name, style="control") for result in results]
        return transparent


def _beyond(scope: tuple[str, ...], base: tuple[str, ...]) -> tuple[str, ...]:
    """What a scope has after its common start with another."""
    common = 0
    while common < min(len(scope), len(base)) and scope[common] == base[common]:
        common += 1
    return scope[common:]
