"""``Tensor``: what the user has in hand for a value of the graph. Operators and methods stand in ``operators``.

Graphs know nothing of tensors: a tensor has a value, and a value that is asked for its tensor has one, always the same
while anybody holds it. So two tensors are the same object exactly if they are the same value.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary, ref

from graphcore.base.dtypes import DType
from graphcore.base.shapes import Extent, Shape
from graphcore.ir import node as ir
from graphcore.ir.graph import carry_updates
from graphcore.ir.leaves import StateRead
from graphcore.ir.node import Node, Value, make_node
from graphcore.ir.op import Op, TensorType

if TYPE_CHECKING:
    from graphcore.api.operators import Operators
else:
    Operators = object  # made of this class: ``operators.install`` puts its members on ``Tensor``

__all__ = ["Builder", "Tensor", "carrying", "known_tensor", "node_over", "result", "value_of", "wrap", "wrap_new"]


class Tensor(Operators):
    """A symbolic value; ``a is b`` tells whether two tensors are the same one (``==`` builds a comparison).

    Attributes:
        value: what it is in the graph.
        shape: extents, ints or ``Dim``.
        dtype: element type.
        ndim: number of axes.
        name: the name given, or one made from op and scope.
    """

    # A gradient is held for variables, and for tensors that were asked to.
    __slots__ = ("__weakref__", "grad", "value")
    __array_priority__ = 1000
    value: Value
    grad: Tensor | None

    def __init__(self, value: Value) -> None:
        self.value = value

    @property
    def node(self) -> Node:
        """What computes it."""
        return self.value.node

    @property
    def type(self) -> TensorType:
        node, index = self.value
        return node.types[index]

    @property
    def shape(self) -> Shape:
        node, index = self.value
        return node.types[index].shape

    @property
    def dtype(self) -> DType:
        node, index = self.value
        return node.types[index].dtype

    @property
    def ndim(self) -> int:
        node, index = self.value
        return len(node.types[index].shape)

    @property
    def size(self) -> Extent:
        """Number of elements."""
        return self.value.size

    @property
    def device(self) -> str | None:
        return self.value.device

    @property
    def name(self) -> str:
        return self.value.name

    def same(self, other: Any) -> bool:
        """Whether ``other`` is this very value (``==`` builds a comparison)."""
        return isinstance(other, Tensor) and self.value == other.value

    def __copy__(self) -> Tensor:
        return self  # it is immutable

    def __repr__(self) -> str:
        return f"Tensor({self.name}, {self.type}, {self.node.origin})"


# Of results but the first, by serial and result, which are never used again: a table that held values would keep alive
# what they lead to. Nearly all results are first ones; of these the node knows the tensor.
_others: WeakValueDictionary[tuple[int, int], Tensor] = WeakValueDictionary()
_making = threading.Lock()  # of a tensor for a value that others know, too


def known_tensor(value: Value) -> Tensor | None:
    """The tensor of a value, if anybody holds it."""
    node, index = value
    if index:
        return _others.get((node.serial, index))
    found: Tensor | None = None if node.face is None else node.face()
    return found


def wrap(value: Value) -> Tensor:
    """The tensor of a value; the variable, of one that reads a variable."""
    found = known_tensor(value)
    if found is None:
        with _making:
            found = known_tensor(value)
            if found is None:
                op = value.node.op
                found = op.slot.notes.face(op.slot) if isinstance(op, StateRead) else wrap_new(value)
    return found


def wrap_new(value: Value) -> Tensor:
    """The tensor of a value that was built just now, so that it has none yet."""
    made = Tensor(value)
    node, index = value
    if index:
        _others[node.serial, index] = made
    else:
        node.face = ref(made)
    return made


def result(node: Node) -> Tensor:
    """The tensor of the first result of a node that was built just now."""
    made = Tensor(node.output())
    node.face = ref(made)
    return made


def adopt(tensor: Tensor) -> None:
    """Let an object be the tensor of its value, the first result of a node that was built just now."""
    tensor.value.node.face = ref(tensor)


def value_of(operand: Any) -> Any:
    """The value of a tensor; anything else as it is."""
    return operand.value if isinstance(operand, Tensor) else operand


def node_over(op: Op, operands: Iterable[Tensor], updates: Iterable[tuple[Any, Tensor]] = ()) -> Node:
    """A node over tensors, with the side updates ``(variable, new value)``.

    Raises:
        ShapeError, DTypeError: the operands do not fit the op.
    """
    side = tuple([(variable.slot, new.value) for variable, new in updates])
    return make_node(op, tuple([t.value for t in operands]), updates=side)


def carrying(y: Tensor, updates: Iterable[tuple[Any, Tensor]]) -> Tensor:
    """``y``, with which a run also performs the side updates ``(variable, new value)``."""
    return wrap(carry_updates(y.value, tuple([(variable.slot, new.value) for variable, new in updates])))


class Builder:
    """Builds tensors by the names of registered ops, as ``graphcore.ir.node.Builder`` builds values.

    >>> from graphcore.api.variable import placeholder
    >>> Builder().exp(placeholder("float32", (3,))).shape
    (3,)
    """

    def __init__(self, *marks: Any, **named: Any) -> None:
        self._values = ir.Builder(*marks, **named)

    def apply(self, op: Op, *operands: Any) -> Node:
        """A node of an op instance."""
        return self._values.apply(op, *map(value_of, operands))

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        build = getattr(self._values, name)

        def over_tensors(*operands: Any, **attributes: Any) -> Tensor:
            return wrap(build(*map(value_of, operands), **attributes))

        return over_tensors
