"""Graphs: outputs and variable updates as one pure function of feeds and variables."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

from graphcore.base import source
from graphcore.base.errors import GraphError, VerifyError
from graphcore.ir.leaves import Parameter, RequireShape, StateRead
from graphcore.ir.networkx_export import to_networkx
from graphcore.ir.node import Builder, Node, SideUpdates, Value, make_node
from graphcore.ir.op import Draw, Effect, Kind, Op, lookup
from graphcore.ir.printer import print_graph
from graphcore.ir.state import StateSlot

__all__ = ["Graph", "Update", "collect", "inline", "read_slots", "slots_of", "toposort", "verify_graph"]


@dataclass(frozen=True)
class Update:
    """``slot`` takes the value ``value`` at the end of a run. Fetching one performs it and gives None."""

    slot: StateSlot
    value: Value
    place: str = ""

    def __iter__(self) -> Iterator[Any]:
        """The slot and the value, as graphs have them."""
        return iter((self.slot, self.value))


@dataclass(frozen=True)
class Graph:
    """A function from (feeds, state) to (outputs, new state). Region bodies also have ``inputs``, their parameters.
    Whoever makes one may give what has a ``value``, a tensor, for each value, and what has a ``slot``, a variable, for
    each slot."""

    outputs: tuple[Value, ...]
    updates: tuple[tuple[StateSlot, Value], ...] = ()
    inputs: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.updates, tuple) or any(isinstance(u, Update) for u in self.updates):
            object.__setattr__(self, "updates", tuple((slot, value) for slot, value in self.updates))
        given = (*self.outputs, *self.inputs, *(value for _, value in self.updates))
        if not all(isinstance(t, Value) for t in given) or not all(isinstance(s, StateSlot) for s, _ in self.updates):
            object.__setattr__(self, "outputs", tuple(map(_value_of, self.outputs)))
            object.__setattr__(self, "updates", tuple((_slot_of(s), _value_of(t)) for s, t in self.updates))
            object.__setattr__(self, "inputs", tuple(map(_value_of, self.inputs)))

    @property
    def roots(self) -> tuple[Value, ...]:
        """Everything that must be computed."""
        return (*self.outputs, *(value for _, value in self.updates))

    def nodes(self) -> list[Node]:
        """All reachable nodes, operands first, in a stable order."""
        return list(self._nodes)

    @cached_property
    def _nodes(self) -> tuple[Node, ...]:
        """Sorted once: every stage asks for them several times."""
        return tuple(toposort(self.roots))

    def with_roots(self, roots: Sequence[Value]) -> Graph:
        """The same graph over other root tensors (as many)."""
        n = len(self.outputs)
        updates = tuple((slot, value) for (slot, _), value in zip(self.updates, roots[n:], strict=True))
        return Graph(tuple(roots[:n]), updates, self.inputs)

    def __str__(self) -> str:
        return print_graph(self)

    def to_networkx(self) -> Any:
        """The graph as a ``networkx.MultiDiGraph``; see ``networkx_export.to_networkx`` for its attributes."""
        return to_networkx(self)


def _value_of(given: Any) -> Value:
    value: Value = given if isinstance(given, Value) else given.value
    return value


def _slot_of(given: Any) -> StateSlot:
    slot: StateSlot = given if isinstance(given, StateSlot) else given.slot
    return slot


def toposort(roots: Iterable[Value], stop: Callable[[Node], bool] | None = None) -> list[Node]:
    """Reachable nodes with operands first; iterative, so any depth works. Operands of nodes where ``stop`` holds are
    not entered."""
    order: list[Node] = []
    done: set[int] = set()
    for root in roots:
        if root.node.serial in done:
            continue
        stack: list[tuple[Node, Iterator[Value]]] = [(root.node, _operands(root.node, stop))]
        done.add(root.node.serial)
        while stack:
            node, operands = stack[-1]
            for operand in operands:
                if operand.node.serial not in done:
                    done.add(operand.node.serial)
                    stack.append((operand.node, _operands(operand.node, stop)))
                    break
            else:
                order.append(node)
                stack.pop()
    return order


def _operands(node: Node, stop: Callable[[Node], bool] | None) -> Iterator[Value]:
    return iter(()) if stop is not None and stop(node) else iter(node.inputs)


def rebuild(
    graph: Graph,
    mapping: Mapping[Value, Value],
    clone: int = 0,
    derived: bool = False,
    ops: Mapping[Node, Op] | None = None,
    updating: bool = True,
) -> tuple[Value, ...]:
    """The graph's roots with some values replaced, and the ops of some nodes; untouched nodes are shared unless
    ``clone`` marks copies. Copies are marked as a gradient's where they are ``derived``, and carry side updates where
    they are ``updating``."""
    others = ops or {}
    values: dict[Value, Value] = dict(mapping)
    for node in graph.nodes():
        results = node.outputs
        if all(t in values for t in results):
            continue
        inputs = tuple([values[t] for t in node.inputs])
        op = others.get(node, node.op)
        kept = op is node.op and inputs == node.inputs and not (clone and node.inputs)
        updates = node.updates if updating else ()
        fresh = node if kept else copy_node(node, inputs, clone or node.clone, derived, op, updates)
        for t in results:
            values.setdefault(t, Value(fresh, t.index))
    return tuple(values[t] for t in graph.roots)


def copy_node(
    node: Node,
    inputs: tuple[Value, ...],
    clone: int,
    derived: bool = False,
    op: Op | None = None,
    updates: SideUpdates = (),
) -> Node:
    """The node over other operands, of another op or with other side updates, keeping its origin and marks."""
    origin = source.derived(node.origin) if derived else node.origin
    copy = make_node(op or node.op, inputs, origin, clone=clone, updates=updates, detached=node.detached)
    copy.device = node.device  # and not the one that is asked for where it happens to be copied
    return copy


def inline(body: Graph, arguments: Sequence[Value], clone: int = 0, derived: bool = False) -> tuple[Value, ...]:
    """A region body's outputs with its parameters replaced by ``arguments``; ``derived`` where that is for a
    gradient. The region carries its body's side updates, so the copies carry none."""
    if len(arguments) != len(body.inputs):
        raise GraphError(f"a body with {len(body.inputs)} inputs was given {len(arguments)} arguments")
    return rebuild(body, dict(zip(body.inputs, arguments, strict=True)), clone, derived, updating=False)


def close_over(outputs: Sequence[Value], parameters: Sequence[Value]) -> tuple[Graph, tuple[Value, ...]]:
    """A closed body: everything that ``outputs`` use and that does not depend on ``parameters`` becomes a captured
    input.

    Returns:
        The body, whose inputs are ``parameters`` and then one parameter per captured tensor, and the captured tensors.
    """
    order = toposort(outputs)
    inside = {p.node.serial for p in parameters}
    for node in order:
        if any(t.node.serial in inside for t in node.inputs):
            inside.add(node.serial)
    captured: dict[Value, None] = {}
    for node in order:
        if node.serial in inside:
            for t in node.inputs:
                if t.node.serial not in inside:
                    captured.setdefault(t)
    for t in outputs:
        if t.node.serial not in inside:
            captured.setdefault(t)
    parameter = lookup("parameter")
    fresh = [make_node(parameter(t.shape, t.dtype), (), t.node.origin).output() for t in captured]
    mapping = dict(zip(captured, fresh, strict=True))
    body = Graph(rebuild(Graph(tuple(outputs)), mapping), (), (*parameters, *fresh))
    return body, tuple(captured)


def collect(outputs: Sequence[Value], updates: Sequence[Update] = (), fed: Iterable[Value] = ()) -> Graph:
    """The graph of a run: fetched values, explicit updates, and the side updates of every unfed node that is computed.
    Its draws are numbered, so what depends on one is a copy of what was built; fed tensors are themselves.

    Raises:
        GraphError: two different explicit updates of one variable; the message shows both lines.
    """
    explicit: dict[StateSlot, Update] = {}
    for update in updates:
        other = explicit.setdefault(update.slot, update)
        if other is not update and not other.value == update.value:
            raise GraphError(
                f"variable {update.slot.name!r} is updated twice in one run, with different values:\n"
                f"  at {other.place or other.value.node.origin.place}"
                f"\n  at {update.place or update.value.node.origin.place}\n"
                f"  run them one after the other, or combine them into one assign"
            )
    given = frozenset(fed)

    def stopped(node: Node) -> bool:
        return bool(given) and given.issuperset(node.outputs)

    roots = [*outputs, *(u.value for u in explicit.values())]
    side = side_updates(roots, stopped, explicit)
    graph = Graph(tuple(outputs), (*((u.slot, u.value) for u in explicit.values()), *side))
    streams = _streams(_draws(graph))
    return _streamed(graph, streams, {t: t for t in given}) if streams else graph


def _draws(graph: Graph) -> Iterator[Draw]:
    for node in graph.nodes():
        if node.op.draw is not None:
            yield node.op.draw
        if node.op.kind is Kind.REGION:
            for body in node.op.bodies:  # type: ignore[attr-defined]
                yield from _draws(body)


def _streams(draws: Iterable[Draw]) -> dict[Draw, int]:
    """A stream for each draw of a graph: a hash of its scope and of its place among the draws of that scope, moved on
    if it is taken. What else the process built does not change it, nor what a scope holds that of another one."""
    streams: dict[Draw, int] = {}
    counts: dict[tuple[str, ...], int] = {}
    used: set[int] = set()
    for draw in sorted(set(draws), key=lambda draw: draw.order):
        place = counts.get(draw.scope, 0)
        counts[draw.scope] = place + 1
        digest = hashlib.blake2b("\0".join((*draw.scope, str(place))).encode(), digest_size=4).digest()
        stream = int.from_bytes(digest, "little")
        while stream in used:
            stream = (stream + 1) & 0xFFFFFFFF
        used.add(stream)
        streams[draw] = stream
    return streams


def _streamed(graph: Graph, streams: Mapping[Draw, int], kept: Mapping[Value, Value]) -> Graph:
    """The graph with its draws numbered, those in bodies too; the values ``kept`` stay as they are."""
    ops: dict[Node, Op] = {}
    for node in graph.nodes():
        if node.op.draw is not None:
            ops[node] = node.op.numbered(streams[node.op.draw])
        elif node.op.kind is Kind.REGION:
            bodies: tuple[Graph, ...] = node.op.bodies  # type: ignore[attr-defined]
            numbered = tuple(_streamed(body, streams, {}) for body in bodies)
            if any(a is not b for a, b in zip(numbered, bodies, strict=True)):
                ops[node] = replace(node.op, bodies=numbered)  # type: ignore[call-arg]
    return graph.with_roots(rebuild(graph, kept, ops=ops)) if ops else graph


def verify_graph(graph: Graph) -> None:
    """Check a graph: operand order, types, closed regions, updates that fit their variables.

    Raises:
        VerifyError: naming the node and its line.
    """
    parameters = {p.node.serial for p in graph.inputs}
    position: dict[int, int] = {}
    for place, node in enumerate(graph.nodes()):
        position[node.serial] = place
        for t in node.inputs:
            if position.get(t.node.serial, place) >= place:
                raise VerifyError(f"{node} uses {t.node} before it is computed")
            if not 0 <= t.index < len(t.node.types):
                raise VerifyError(f"{node} uses result {t.index} of {t.node}, which has {len(t.node.types)}")
        inferred = node.op.infer(*(t.type for t in node.inputs))
        if inferred != node.types:
            raise VerifyError(
                f"{node} has types {', '.join(map(str, node.types))}, inference says {', '.join(map(str, inferred))}"
            )
        if node.op.kind is Kind.REGION:
            for body in node.op.bodies:  # type: ignore[attr-defined]
                verify_graph(body)
        if isinstance(node.op, Parameter) and node.serial not in parameters:
            raise VerifyError(f"{node} is a region's parameter outside its region")
        if node.op.effect is not Effect.PURE and node.clone:
            raise VerifyError(f"{node} has an effect and was cloned")
    for slot, value in graph.updates:
        if value.type != slot.type:
            raise VerifyError(f"the update of {slot.name} has type {value.type}, the variable {slot.type}")


def side_updates(
    roots: Sequence[Value], stop: Callable[[Node], bool] | None = None, explicit: Container[StateSlot] = ()
) -> tuple[tuple[StateSlot, Value], ...]:
    """The side updates of all that some values are computed from, as those of batch normalisations: one a slot, made
    of those of several calls in the order in which these were built.

    Args:
        roots: the values.
        stop: nodes whose values are given, which perform none.
        explicit: slots whose side updates do not happen.
    """
    found: dict[StateSlot, dict[Value, None]] = {}
    seen: set[tuple[StateSlot | None, Value]] = set()
    pending = list(roots)
    while pending:
        given = [u for node in toposort(pending, stop) if stop is None or not stop(node) for u in node.updates]
        pending = []
        for slot, value in given:
            if (slot, value) not in seen and (slot is None or slot not in explicit):
                seen.add((slot, value))
                pending.append(value)
                if slot is not None:
                    found.setdefault(slot, {})[value] = None
    return tuple((slot, _composed(slot, list(values))) for slot, values in found.items())


def _composed(slot: StateSlot, values: list[Value]) -> Value:
    """Several side updates of a slot as one: a later one reads what an earlier one leaves, in build order."""
    first, *later = sorted(values, key=lambda value: (value.node.serial, value.index))
    read = slot.read()
    return reduce(lambda before, value: rebuild(Graph((value,)), {read: before})[0], later, first)


def carry_updates(y: Value, updates: SideUpdates) -> Value:
    """``y`` computed by a node that also performs side updates in every run that computes it.

    An update of None by a value stands for all side updates of what the value is computed from: a gradient performs
    those of its loss, without computing it.
    """
    if not updates:
        return y
    if y.node.op.kind in (Kind.LEAF, Kind.REGION):  # which must stay the only one of its kind
        alias = make_node(RequireShape(y.shape), (y,), y.node.origin, updates=updates, detached=False)
        alias.device = y.node.device
        return alias.output()
    return copy_node(y.node, y.node.inputs, y.node.clone, updates=(*y.node.updates, *updates)).output(y.index)


def read_slots(nodes: Iterable[Node]) -> list[StateSlot]:
    """The slots of the variables that nodes read, in the nodes' order."""
    return [node.op.slot for node in nodes if isinstance(node.op, StateRead)]


def slots_of(graph: Graph) -> tuple[StateSlot, ...]:
    """The slots that a graph reads or updates, each once, in the order of their first appearance: what positions of
    variables in its plans mean."""
    return tuple(dict.fromkeys(_slots_within(graph)))


def _slots_within(graph: Graph) -> Iterator[StateSlot]:
    for node in graph.nodes():
        if isinstance(node.op, StateRead):
            yield node.op.slot
        elif node.op.kind is Kind.REGION:
            for body in node.op.bodies:  # type: ignore[attr-defined]
                yield from _slots_within(body)
    yield from (slot for slot, _ in graph.updates)


def builder_for(node: Node, derived: bool = True) -> Builder:
    """A builder whose nodes carry the origin of ``node``."""
    origin = source.derived(node.origin) if derived else node.origin
    return Builder(origin, clone=node.clone, detached=False)
