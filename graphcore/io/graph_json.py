"""Graphs as lossless JSON: nodes by position, ops by name and version, variables as slots, arrays by digest.

Nodes stand in the order in which they were built, so operands come before what is made of them; what reads a variable
names its slot. Symbolic extents are numbered by their first appearance where they have no name, and are new ones after
reading; so are the marks of recomputed nodes. Lines are kept, in a table. Side updates are those that ``collect``
found: the graph's own updates. What only a running program can hold, such as a user's function, is refused.
"""

from __future__ import annotations

import dataclasses
import itertools
import typing
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from numpy.typing import NDArray

import graphcore.ops  # noqa: F401 - registers the ops
from graphcore.base.dtypes import DType, int32
from graphcore.base.errors import UsageError
from graphcore.base.shapes import Dim, Extent, Shape
from graphcore.base.source import Origin
from graphcore.io.fields import At, Codec, parse, render
from graphcore.ir.graph import Graph, slots_of
from graphcore.ir.leaves import Constant, StateRead
from graphcore.ir.node import Node, Value, make_node
from graphcore.ir.op import Kind, Op, registered
from graphcore.ir.state import StateSlot

__all__ = ["GROUP", "SavedSlot", "graph_from_json", "graph_to_json"]

GROUP = "graphcore.ops"  # of entry points: an op's name, and a module that registers it
_FORMAT, _VERSION = "graphcore.graph", 1
_NODE = ("op", "version", "attributes", "inputs", "origin", "clone", "detached", "device")

Store = MutableMapping[str, NDArray[Any]]


@dataclass(frozen=True)
class SavedSlot:
    """What a document says of a variable.

    Attributes:
        key: its checkpoint key, by which values are found.
        shape, dtype: its type.
        origin: the line that made it.
    """

    key: str
    shape: Shape
    dtype: DType
    origin: Origin


def graph_to_json(graph: Graph, store: Store | None = None) -> str:
    """The canonical text of a graph.

    Args:
        graph: a run's graph, as ``collect`` gives it.
        store: is given the arrays of constants, by digest.

    Raises:
        UsageError: something that no text can hold, such as the gradient function of a ``custom_gradient``, a random
            draw that ``collect`` has not numbered, or constants without a store; the message names the op and its line.
    """
    writer = _Writer(store, graph)
    body = writer.graph(graph)
    slots = [writer.encode(SavedSlot(s.name, s.shape, s.dtype, s.origin), SavedSlot) for s in writer.slots]
    origins = [writer.encode(origin, Origin) for origin in writer.origins]
    return render({"format": _FORMAT, "version": _VERSION, "graph": body, "slots": slots, "origins": origins})


def graph_from_json(text: str, make: Callable[[SavedSlot], StateSlot], store: Store | None = None) -> Graph:
    """The graph that a text of ``graph_to_json`` stands for, of new nodes.

    Args:
        text: the text.
        make: gives the slot that stands for a saved one.
        store: the arrays that the text names by their digests.

    Raises:
        FormatError: the text is damaged or of another version, names an array that is not there, or an op that no
            installed package registers; the message names the field.
    """
    given = parse(text, _FORMAT, _VERSION).fields("format", "version", "graph", "slots", "origins")
    reader = _Reader(store)
    for item in given["slots"].items():
        saved: SavedSlot = reader.decode(item, SavedSlot)
        slot = make(saved)
        if slot.shape != saved.shape or slot.dtype != saved.dtype:
            raise item.fault(
                f"the variable {saved.key!r} is {saved.dtype}{saved.shape}, the one that was given for it {slot.type}"
            )
        reader.slots.append(slot)
    reader.origins = [reader.decode(item, Origin) for item in given["origins"].items()]
    graph = reader.graph(given["graph"])
    if reader.used_origins < len(reader.origins):
        raise given["origins"].fault(f"nothing is built at the origin {reader.used_origins}")
    if len(reader.used_slots) < len(reader.slots):
        raise given["slots"].fault(f"nothing names all of the {len(reader.slots)} slots")
    return graph


class _GraphCodec(Codec):
    """Beside plain data: all fields of ops, symbolic extents by number, and graphs inside of regions."""

    def hints(self, cls: type) -> dict[str, Any]:
        found = typing.get_type_hints(cls)
        return {f.name: found[f.name] for f in dataclasses.fields(cls)}


class _Writer(_GraphCodec):
    def __init__(self, store: Store | None, graph: Graph) -> None:
        super().__init__(store)
        self.slots = slots_of(graph)
        self.slot_position = {slot: position for position, slot in enumerate(self.slots)}
        self.origins: dict[Origin, int] = {}
        self.symbols: dict[str, Dim] = {}
        self.clones: dict[int, int] = {0: 0}

    def graph(self, graph: Graph) -> dict[str, Any]:
        nodes = _all_nodes(graph)
        position = {node.serial: i for i, node in enumerate(nodes)}

        def place(value: Value) -> Any:
            if isinstance(value.node.op, StateRead):
                return {"slot": self.slot_position[value.node.op.slot]}
            return [position[value.node.serial], value.index]

        def updates(pairs: Iterable[tuple[StateSlot, Value]]) -> list[Any]:
            return [[self.slot_position[slot], place(value)] for slot, value in pairs]

        inputs = [place(t) for t in graph.inputs]
        written = []
        for node in nodes:
            written.append(
                {
                    "op": node.op.name,
                    "version": node.op.version,
                    "attributes": self.attributes(node),
                    "inputs": [place(t) for t in node.inputs],
                    "origin": self.origins.setdefault(node.origin, len(self.origins)),
                    "clone": self.clones.setdefault(node.clone, len(self.clones)),
                    "detached": node.detached,
                    "device": node.device,
                }
            )
        outputs = [place(t) for t in graph.outputs]
        return {"nodes": written, "inputs": inputs, "outputs": outputs, "updates": updates(graph.updates)}

    def attributes(self, node: Node) -> dict[str, Any]:
        op: Any = node.op
        if isinstance(op, Constant):
            return {"array": self.encode_array(op.array), "dtype": op.dtype.name, "label": op.label}
        where = f"{op.name} at {node.origin.place}"
        if op.draw is not None:
            raise UsageError(f"JSON: {where} is a random draw without a number: write the graph that collect gives")
        found = {}
        try:
            hints = self.hints(type(op))
        except NameError as error:
            raise UsageError(f"JSON: {where} declares a type that is not known where its class is: {error}") from None
        for name, hint in hints.items():
            try:
                found[name] = self.encode(getattr(op, name), hint)
            except UsageError as error:
                raise UsageError(
                    f"JSON: {where} cannot be written: its attribute {name!r} is no plain data ({error})"
                ) from None
        return found

    def encode_arm(self, value: Any, hint: Any, tagged: bool) -> Any:
        if hint is Graph:
            return self.graph(value)
        if hint is Dim:
            for name in _symbols(value):
                if name not in self.symbols:
                    number = sum(s.startswith("?") for s in self.symbols)
                    self.symbols[name] = Dim(f"?{number}" if name.startswith("?") else name)
            return super().encode_arm(_renamed(value, self.symbols), hint, tagged)
        return super().encode_arm(value, hint, tagged)


class _Reader(_GraphCodec):
    def __init__(self, store: Store | None) -> None:
        super().__init__(store)
        self.slots: list[StateSlot] = []
        self.used_slots: set[int] = set()
        self.origins: list[Origin] = []
        self.used_origins = 0
        self.symbols: dict[str, Dim] = {}
        self.clones: dict[int, int] = {0: 0}

    def graph(self, at: At) -> Graph:
        given = at.fields("nodes", "inputs", "outputs", "updates")
        nodes: list[Node] = []
        for item in given["nodes"].items():
            nodes.append(self.node(item, nodes))
        inputs = self.values(given["inputs"], nodes)
        for item, value in zip(given["inputs"].items(), inputs, strict=True):
            if value.node.op.kind is not Kind.LEAF:
                raise item.fault(f"the input is made by {value.node.op.name}")
        return Graph(self.values(given["outputs"], nodes), self.updates(given["updates"], nodes), inputs)

    def node(self, at: At, nodes: list[Node]) -> Node:
        given = at.fields(*_NODE)
        cls, attributes = self.op_class(given)
        inputs = self.values(given["inputs"], nodes)
        clone = self.clone(given["clone"].integer(0, len(self.clones) + 1))
        detached, device = given["detached"].expect(bool), self.decode(given["device"], str | None)
        if cls is StateRead:
            raise given["op"].fault("values of variables are named by their slots")
        origin = self.origin(given["origin"])
        op = self.op(attributes, cls)
        node: Node = at.guarded(make_node, op, inputs, origin, clone=clone, detached=detached)
        node.device = device
        return node

    def op_class(self, given: dict[str, At]) -> tuple[Any, At]:
        """The class of an op, and its attributes as this version of it writes them."""
        name = given["op"].expect(str)
        cls = _registered_op(name)
        if cls is None:
            raise given["op"].fault(
                f"no op named {name!r} is registered; the package that has it brings it by an entry point of the group "
                f"{GROUP} with the name {name!r}, or import the module that defines it"
            )
        version = given["version"].integer(1)
        if version > cls.version:
            raise given["version"].fault(f"version {version} of {name}, of which this graphcore has {cls.version}")
        attributes = given["attributes"]
        if version < cls.version:
            moved = attributes.guarded(cls.migrate, version, dict(attributes.expect(dict)))
            attributes = At(moved, attributes.path)
        return cls, attributes

    def op(self, at: At, cls: Any) -> Op:
        if cls is Constant:
            given = at.fields("array", "dtype", "label")
            made = Constant.of(self.decode_array(given["array"]), self.decode(given["dtype"], DType))
            if made.array.dtype != self.decode_array(given["array"]).dtype:
                raise given["dtype"].fault(f"the constant's array is not of {made.dtype}")
            return dataclasses.replace(made, label=self.decode(given["label"], str | None))
        found: Op = self.decode_fields(at, cls)
        return found

    def values(self, at: At, nodes: list[Node]) -> tuple[Value, ...]:
        return tuple(self.value(item, nodes) for item in at.items())

    def value(self, at: At, nodes: list[Node]) -> Value:
        if isinstance(at.value, dict):
            return self.slot(at.fields("slot")["slot"]).read()
        parts = at.items()
        if len(parts) != 2:
            raise at.fault("is no node with the number of a result")
        node = nodes[parts[0].integer(0, len(nodes))]
        return node.output(parts[1].integer(0, len(node.types)))

    def updates(self, at: At, nodes: list[Node]) -> tuple[tuple[StateSlot, Value], ...]:
        found = []
        for item in at.items():
            parts = item.items()
            if len(parts) != 2:
                raise item.fault("is no slot with its value")
            slot, value = self.slot(parts[0]), self.value(parts[1], nodes)
            if value.type != slot.type:
                raise item.fault(f"the variable {slot.name} is {slot.type}, not {value.type}")
            found.append((slot, value))
        if len({slot for slot, _ in found}) < len(found):
            raise at.fault("a variable is updated twice")
        return tuple(found)

    def slot(self, at: At) -> StateSlot:
        position = at.integer(0, len(self.slots))
        self.used_slots.add(position)
        return self.slots[position]

    def origin(self, at: At) -> Origin:
        """A line of the table, whose lines stand in the order in which nodes first name them."""
        position = at.integer(0, min(self.used_origins + 1, len(self.origins)))
        self.used_origins = max(self.used_origins, position + 1)
        return self.origins[position]

    def clone(self, number: int) -> int:
        """A mark that no other graph has: no node has the serial of one that is made here and dropped."""
        if number not in self.clones:
            self.clones[number] = -1 - make_node(Constant.of(0, int32), (), _NOWHERE, detached=True).serial
        return self.clones[number]

    def decode_arm(self, at: At, hint: Any) -> Any:
        if hint is Graph:
            return self.graph(at)
        if hint is Dim:
            found: Dim = super().decode_arm(at, hint)
            for name in _symbols(found):
                self.symbols.setdefault(name, Dim() if name.startswith("?") else Dim(name))
            return _renamed(found, self.symbols)
        return super().decode_arm(at, hint)


_NOWHERE = Origin("", 0, "")


def _renamed(dim: Dim, symbols: dict[str, Dim]) -> Dim:
    renamed = dim.bind(symbols)  # type: ignore[arg-type]  # binding puts any extent in a symbol's place
    assert isinstance(renamed, Dim)
    return renamed


def _symbols(extent: Extent) -> Iterator[str]:
    """The symbols of an extent in the order of its terms."""
    for monomial, _ in extent._terms if isinstance(extent, Dim) else ():
        for atom in monomial:
            if atom[0] == "sym":
                yield atom[1]
            else:
                yield from itertools.chain(*map(_symbols, atom[1:]))


def _registered_op(name: str) -> Any:
    """The class of an op, after the entry points of that name have been loaded if none was registered."""
    if name not in registered():
        for entry in metadata.entry_points(group=GROUP, name=name):
            entry.load()
    return registered().get(name)


def _all_nodes(graph: Graph) -> list[Node]:
    """Every node of a graph, but for reads of variables, in the order in which they were built."""
    found: dict[int, Node] = {}
    stack = [value.node for value in (*graph.inputs, *graph.roots)]
    while stack:
        node = stack.pop()
        if node.serial not in found and not isinstance(node.op, StateRead):
            found[node.serial] = node
            stack.extend(t.node for t in node.inputs)
    return [found[serial] for serial in sorted(found)]
