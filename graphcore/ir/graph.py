"""Graphs: outputs and variable updates as one pure function of feeds and variables."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from graphcore.base import source
from graphcore.base.errors import GraphError, VerifyError
from graphcore.ir.leaves import Parameter, RequireShape, VariableRead
from graphcore.ir.networkx_export import to_networkx
from graphcore.ir.node import Builder, Node, Tensor, make_node
from graphcore.ir.op import Draw, Effect, Kind, Op, lookup
from graphcore.ir.printer import print_graph

__all__ = ["Graph", "Update", "collect", "inline", "read_variables", "slots_of", "toposort", "verify_graph"]


@dataclass(frozen=True)
class Update:
    """``variable`` takes the value ``value`` at the end of a run. Fetching one performs it and gives None."""

    variable: Any
    value: Tensor
    place: str = ""
    compose: Callable[[Tensor], Tensor] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Graph:
    """A function from (feeds, variables) to (outputs, new variables). Region bodies also have ``inputs``, their
    parameters."""

    outputs: tuple[Tensor, ...]
    updates: tuple[tuple[Any, Tensor], ...] = ()
    inputs: tuple[Tensor, ...] = ()

    @property
    def roots(self) -> tuple[Tensor, ...]:
        """Everything that must be computed."""
        return (*self.outputs, *(value for _, value in self.updates))

    def nodes(self) -> list[Node]:
        """All reachable nodes, operands first, in a stable order."""
        return toposort(self.roots)

    def with_roots(self, roots: Sequence[Tensor]) -> Graph:
        """The same graph over other root tensors (as many)."""
        n = len(self.outputs)
        updates = tuple((variable, value) for (variable, _), value in zip(self.updates, roots[n:], strict=True))
        return Graph(tuple(roots[:n]), updates, self.inputs)

    def __str__(self) -> str:
        return print_graph(self)

    def to_networkx(self) -> Any:
        """The graph as a ``networkx.MultiDiGraph``; see ``networkx_export.to_networkx`` for its attributes."""
        return to_networkx(self)


def toposort(roots: Iterable[Tensor], stop: Callable[[Node], bool] | None = None) -> list[Node]:
    """Reachable nodes with operands first; iterative, so any depth works. Operands of nodes where ``stop`` holds are
    not entered."""
    order: list[Node] = []
    done: set[int] = set()
    for root in roots:
        if root.node.serial in done:
            continue
        stack: list[tuple[Node, Iterator[Tensor]]] = [(root.node, _operands(root.node, stop))]
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


def _operands(node: Node, stop: Callable[[Node], bool] | None) -> Iterator[Tensor]:
    return iter(()) if stop is not None and stop(node) else iter(node.inputs)


def rebuild(
    graph: Graph,
    mapping: Mapping[tuple[int, int], Tensor],
    clone: int = 0,
    derived: bool = False,
    ops: Mapping[int, Op] | None = None,
    updating: bool = True,
) -> tuple[Tensor, ...]:
    """The graph's roots with some values replaced, and the ops of some nodes, by serial; untouched nodes are shared
    unless ``clone`` marks copies. Copies are marked as a gradient's where they are ``derived``, and carry side updates
    where they are ``updating``."""
    others = ops or {}
    values: dict[tuple[int, int], Tensor] = dict(mapping)
    for node in graph.nodes():
        if all((node.serial, i) in values for i in range(len(node.types))):
            continue
        inputs = tuple(values[t.key] for t in node.inputs)
        op = others.get(node.serial, node.op)
        same = op is node.op and all(a.same(b) for a, b in zip(inputs, node.inputs, strict=True))
        kept = same and not (clone and node.inputs)
        updates = node.updates if updating else ()
        fresh = node if kept else copy_node(node, inputs, clone or node.clone, derived, op, updates)
        for i in range(len(node.types)):
            values.setdefault((node.serial, i), Tensor(fresh, i))
    return tuple(values[t.key] for t in graph.roots)


def copy_node(
    node: Node,
    inputs: tuple[Tensor, ...],
    clone: int,
    derived: bool = False,
    op: Op | None = None,
    updates: tuple[tuple[Any, Tensor], ...] = (),
) -> Node:
    """The node over other operands, of another op or with other side updates, keeping its origin and marks."""
    origin = source.derived(node.origin) if derived else node.origin
    copy = make_node(op or node.op, inputs, origin, clone=clone, updates=updates, detached=node.detached)
    copy.device = node.device  # and not the one that is asked for where it happens to be copied
    return copy


def inline(body: Graph, arguments: Sequence[Tensor], clone: int = 0, derived: bool = False) -> tuple[Tensor, ...]:
    """A region body's outputs with its parameters replaced by ``arguments``; ``derived`` where that is for a
    gradient. The region carries its body's side updates, so the copies carry none."""
    if len(arguments) != len(body.inputs):
        raise GraphError(f"a body with {len(body.inputs)} inputs was given {len(arguments)} arguments")
    return rebuild(
        body, {p.key: a for p, a in zip(body.inputs, arguments, strict=True)}, clone, derived, updating=False
    )


def close_over(outputs: Sequence[Tensor], parameters: Sequence[Tensor]) -> tuple[Graph, tuple[Tensor, ...]]:
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
    captured: dict[tuple[int, int], Tensor] = {}
    for node in order:
        if node.serial in inside:
            for t in node.inputs:
                if t.node.serial not in inside:
                    captured.setdefault(t.key, t)
    for t in outputs:
        if t.node.serial not in inside:
            captured.setdefault(t.key, t)
    parameter = lookup("parameter")
    fresh = [make_node(parameter(t.shape, t.dtype), (), t.node.origin).output() for t in captured.values()]
    mapping = dict(zip(captured, fresh, strict=True))
    body = Graph(rebuild(Graph(tuple(outputs)), mapping), (), (*parameters, *fresh))
    return body, tuple(captured.values())


def collect(outputs: Sequence[Tensor], updates: Sequence[Update] = (), fed: Iterable[Tensor] = ()) -> Graph:
    """The graph of a run: fetched values, explicit updates, and the side updates of every unfed node that is computed.
    Its draws are numbered, so what depends on one is a copy of what was built; fed tensors are themselves.

    Raises:
        GraphError: two different explicit updates of one variable; the message shows both lines.
    """
    explicit: dict[int, Update] = {}
    for update in updates:
        other = explicit.setdefault(id(update.variable), update)
        if other is not update and not other.value.same(update.value):
            raise GraphError(
                f"variable {update.variable.name!r} is updated twice in one run, with different values:\n"
                f"  at {other.place or other.value.node.origin.place}"
                f"\n  at {update.place or update.value.node.origin.place}\n"
                f"  run them one after the other, or combine them into one assign"
            )
    fed = tuple(fed)
    fed_keys = {t.key for t in fed}

    def stopped(node: Node) -> bool:
        return bool(fed_keys) and all((node.serial, i) in fed_keys for i in range(len(node.types)))

    roots = [*outputs, *(u.value for u in explicit.values())]
    side = side_updates(roots, stopped, explicit.keys())
    graph = Graph(tuple(outputs), (*((u.variable, u.value) for u in explicit.values()), *side))
    streams = _streams(_draws(graph))
    return _streamed(graph, streams, {t.key: t for t in fed}) if streams else graph


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


def _streamed(graph: Graph, streams: Mapping[Draw, int], kept: Mapping[tuple[int, int], Tensor]) -> Graph:
    """The graph with its draws numbered, those in bodies too; the values ``kept`` stay as they are."""
    ops: dict[int, Op] = {}
    for node in graph.nodes():
        if node.op.draw is not None:
            ops[node.serial] = node.op.numbered(streams[node.op.draw])
        elif node.op.kind is Kind.REGION:
            bodies: tuple[Graph, ...] = node.op.bodies  # type: ignore[attr-defined]
            numbered = tuple(_streamed(body, streams, {}) for body in bodies)
            if any(a is not b for a, b in zip(numbered, bodies, strict=True)):
                ops[node.serial] = replace(node.op, bodies=numbered)  # type: ignore[call-arg]
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
    for variable, value in graph.updates:
        if value.shape != variable.shape or value.dtype != variable.dtype:
            raise VerifyError(f"the update of {variable.name} has type {value.type}, the variable {variable.type}")


def side_updates(
    roots: Sequence[Tensor], stop: Callable[[Node], bool] | None = None, explicit: Container[int] = ()
) -> tuple[tuple[Any, Tensor], ...]:
    """The side updates of all that some values are computed from, as those of batch normalisations: one a variable,
    made of those of several calls in the order in which these were built.

    Args:
        roots: the values.
        stop: nodes whose values are given, which perform none.
        explicit: the ``id`` of variables whose side updates do not happen.
    """
    found: dict[int, tuple[Any, dict[tuple[int, int], Tensor]]] = {}
    seen: set[tuple[int, tuple[int, int]]] = set()
    pending = list(roots)
    while pending:
        given = [u for node in toposort(pending, stop) if stop is None or not stop(node) for u in node.updates]
        pending = []
        for variable, value in given:
            if (id(variable), value.key) not in seen and id(variable) not in explicit:
                seen.add((id(variable), value.key))
                pending.append(value)
                if variable is not None:
                    found.setdefault(id(variable), (variable, {}))[1][value.key] = value
    return tuple((variable, _composed(variable, list(values.values()))) for variable, values in found.values())


def _composed(variable: Any, values: list[Tensor]) -> Tensor:
    """Several side updates of a variable as one: a later one reads what an earlier one leaves, in build order."""
    first, *later = sorted(values, key=lambda value: value.key)
    read = variable.read().key
    return reduce(lambda before, value: rebuild(Graph((value,)), {read: before})[0], later, first)


def carry_updates(y: Tensor, updates: tuple[tuple[Any, Tensor], ...]) -> Tensor:
    """``y`` computed by a node that also performs side updates in every run that computes it.

    An update of None by a tensor stands for all side updates of what the tensor is computed from: a gradient performs
    those of its loss, without computing it.
    """
    if not updates:
        return y
    if y.node.op.kind in (Kind.LEAF, Kind.REGION):  # which must stay the only one of its kind
        alias = make_node(RequireShape(y.shape), (y,), y.node.origin, updates=updates, detached=False)
        alias.device = y.node.device
        return alias.output()
    return copy_node(y.node, y.node.inputs, y.node.clone, updates=(*y.node.updates, *updates)).output(y.index)


def read_variables(nodes: Iterable[Node]) -> list[Any]:
    """The variables that nodes read, in the nodes' order."""
    return [node.op.variable for node in nodes if isinstance(node.op, VariableRead)]


def slots_of(graph: Graph) -> tuple[Any, ...]:
    """The variables that a graph reads or updates, each once, in the order of their first appearance: what positions of
    variables in its plans mean."""
    return tuple(dict.fromkeys((*_read_within(graph), *(variable for variable, _ in graph.updates))))


def _read_within(graph: Graph) -> Iterator[Any]:
    for node in graph.nodes():
        if isinstance(node.op, VariableRead):
            yield node.op.variable
        elif node.op.kind is Kind.REGION:
            for body in node.op.bodies:  # type: ignore[attr-defined]
                yield from _read_within(body)


def builder_for(node: Node, derived: bool = True) -> Builder:
    """A builder whose nodes carry the origin of ``node``."""
    origin = source.derived(node.origin) if derived else node.origin
    return Builder(origin, clone=node.clone, detached=False)
