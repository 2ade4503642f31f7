"""What a graph knows of a variable."""

from __future__ import annotations

import itertools
import threading
from typing import Any
from weakref import ref

from graphcore.base.dtypes import DType
from graphcore.base.shapes import Extent, Shape
from graphcore.base.source import Origin
from graphcore.ir.leaves import StateRead
from graphcore.ir.node import Node, Value, make_node
from graphcore.ir.op import TensorType

__all__ = ["StateSlot"]

_serials = itertools.count()
_reading = threading.Lock()  # of the node that reads a slot, while it is made


class StateSlot:
    """A place for a value that a session keeps between runs; which one it is, is the object itself.

    Attributes:
        type: the value's.
        origin: the user's line.
        initializer: what the value is when a session uses it first; the interface may replace it.
        name: what printed graphs and messages call it; the interface may replace it.
        label: the name of the node that reads it.
        notes: what the interface keeps of it, to make what the user holds again (``notes.face(slot)``).
        serial: how many slots were made before it.
    """

    __slots__ = ("__weakref__", "_device", "_node", "initializer", "label", "name", "notes", "origin", "serial", "type")

    def __init__(self, kind: TensorType, initializer: Any, origin: Origin, notes: Any = None) -> None:
        self.type = kind
        self.initializer = initializer
        self.origin = origin
        self.notes = notes
        self.serial = next(_serials)
        self.name = self.label = f"variable_{self.serial}"
        self._device: str | None = None
        self._node: ref[Node] | None = None

    def read(self) -> Value:
        """The value before the run. Nothing here keeps the node that gives it, which is the only one at a time."""
        node = None if self._node is None else self._node()
        if node is None:
            with _reading:
                node = None if self._node is None else self._node()
                if node is None:
                    node = self._made()
        return node.output()

    def _made(self) -> Node:
        node = make_node(StateRead(self, self.label), (), self.origin, detached=False)
        if self._node is None:
            self._device = node.device
        node.device = self._device  # and not the one that is asked for where the node is made again
        self._node = ref(node)
        return node

    def retype(self, kind: TensorType) -> None:
        """Change the type, before anything is built on the slot: another node reads it from now on."""
        with _reading:
            self.type = kind
            self._node = None

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def size(self) -> Extent:
        """Number of elements."""
        count: Extent = self.type.size
        return count

    @property
    def place(self) -> str:
        """The user's line, for messages."""
        return self.origin.place

    def __repr__(self) -> str:
        return f"StateSlot({self.name}, {self.type})"
