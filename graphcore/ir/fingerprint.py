"""Fingerprints of graphs: equal for graphs that compile to the same program, whoever built them, and when.

What counts: ops with their attributes, how they are connected, types, constants by their bytes, which values are fed,
fetched and updated. What does not: serial numbers, names, lines, which variables are read, and the names of symbolic
extents; variables' slots and symbolic extents are numbered in the order in which they appear.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from graphcore.base.dtypes import DType
from graphcore.base.shapes import Dim
from graphcore.ir.graph import Graph, slots_of
from graphcore.ir.leaves import Constant, Parameter, Placeholder, StateRead
from graphcore.ir.node import Node, Value
from graphcore.ir.op import TensorType
from graphcore.ir.state import StateSlot

__all__ = ["Fingerprint", "fingerprint"]


@dataclass(frozen=True)
class Fingerprint:
    """A digest, and what belongs to it.

    Attributes:
        digest: equal for graphs that compile to the same program.
        lines: equal for graphs that were also built by the same lines, under the same names.
        symbols: the names of the symbolic extents, in canonical order.
        slots: what is read or updated, in canonical order: that of ``slots_of``.
        pinned: host objects that the digest names by their addresses: keep them as long as the digest.
    """

    digest: bytes
    lines: bytes
    symbols: tuple[str, ...]
    slots: tuple[StateSlot, ...]
    pinned: tuple[Any, ...]


def fingerprint(graph: Graph) -> Fingerprint:
    """The fingerprint of a run's graph; near-linear in its size."""
    slots = slots_of(graph)
    writer = _Writer({slot: number for number, slot in enumerate(slots)})
    writer.graph(graph)
    return Fingerprint(
        writer.hasher.digest(),
        writer.cosmetics.digest(),
        tuple(writer.symbols),
        slots,
        tuple(writer.pinned),
    )


@dataclass
class _Writer:
    slots: dict[StateSlot, int]
    hasher: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=20))
    cosmetics: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=20))
    symbols: dict[str, int] = field(default_factory=dict)
    clones: dict[int, int] = field(default_factory=lambda: {0: 0})
    pinned: list[Any] = field(default_factory=list)

    def add(self, *parts: Any) -> None:
        self.hasher.update(repr(parts).encode("utf-8", "surrogatepass"))

    def graph(self, graph: Graph) -> None:
        position: dict[int, int] = {}
        self.add("graph", len(graph.inputs), len(graph.outputs), len(graph.updates))
        for t in graph.inputs:  # first, so that symbols are numbered by the feeds
            position.setdefault(t.node.serial, len(position))
            self.add(position[t.node.serial], t.index, self.types(t.node.types))
        for node in graph.nodes():
            if node.serial not in position:
                position[node.serial] = len(position)
            self.node(node, position)
        self.add("roots", *self.places(graph.roots, position))
        self.add(*[self.slot(slot) for slot, _ in graph.updates])

    def node(self, node: Node, position: dict[int, int]) -> None:
        op: Any = node.op
        self.add(
            op.name,
            op.version,
            *self.places(node.inputs, position),
            self.types(node.types),
            node.device,
            self.clones.setdefault(node.clone, len(self.clones)),
        )
        self.cosmetics.update(
            f"{node.origin.place} {op.given_name or ''} {node.origin.scope}\n".encode("utf-8", "surrogatepass")
        )
        if isinstance(op, StateRead):
            self.add(self.slot(op.slot))
        elif isinstance(op, Constant):
            self.add(op.digest)
        elif not isinstance(op, (Placeholder, Parameter)):
            self.add(type(op).__qualname__)
            for name in op.attribute_names():
                if name not in op.cosmetic:
                    self.value(getattr(op, name))

    def slot(self, slot: StateSlot) -> int:
        self.cosmetics.update(f"{slot.name} {slot.place}\n".encode("utf-8", "surrogatepass"))
        return self.slots[slot]

    def places(self, tensors: Iterable[Value], position: dict[int, int]) -> list[tuple[int, int]]:
        return [(position[t.node.serial], t.index) for t in tensors]

    def types(self, types: tuple[TensorType, ...]) -> list[Any]:
        return [(self.extents(t.shape), t.dtype.name) for t in types]

    def extents(self, shape: Iterable[Any]) -> list[Any]:
        return [self.dim(e) if isinstance(e, Dim) else int(e) for e in shape]

    def dim(self, dim: Dim) -> str:
        """A symbolic extent with its symbols numbered; its terms are sorted anew, since names sorted them before."""
        return (
            "["
            + " + ".join(
                sorted("*".join([str(c), *sorted(self.atom(a) for a in monomial)]) for monomial, c in dim._terms)
            )
            + "]"
        )

    def atom(self, atom: tuple[Any, ...]) -> str:
        if atom[0] == "sym":
            return f"s{self.symbols.setdefault(atom[1], len(self.symbols))}"
        return f"({atom[0]} " + " ".join(self.dim(e) if isinstance(e, Dim) else str(e) for e in atom[1:]) + ")"

    def value(self, value: Any) -> None:
        """An attribute."""
        if isinstance(value, Graph):
            self.graph(value)
        elif isinstance(value, (tuple, list)):
            self.add("(", len(value))
            for v in value:
                self.value(v)
        elif isinstance(value, Dim):
            self.add(self.dim(value))
        elif isinstance(value, DType):
            self.add(value.name)
        elif value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            self.add(type(value).__name__, value)
        elif isinstance(value, np.generic):
            self.add(str(value.dtype), value.item() if value.dtype.kind in "biuf" else value.tobytes())
        elif isinstance(value, np.ndarray):
            self.add(
                str(value.dtype),
                value.shape,
                hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=20).digest(),
            )
        elif isinstance(value, Enum):
            self.add(type(value).__qualname__, value.name)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type) and not callable(value):
            self.add(type(value).__qualname__)
            for f in dataclasses.fields(value):
                self.value(getattr(value, f.name))
        else:  # a function, or something else that only its identity tells apart
            self.pinned.append(value)
            self.add(type(value).__qualname__, id(value))
