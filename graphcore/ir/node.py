"""Nodes and values of the graph IR, and the builder through which all nodes are made.

Nodes are immutable, compared by identity and reachable only through what holds them: there is no global graph. Nothing
here refers back to what holds it, so a graph that is dropped is freed at once.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from graphcore.base import source
from graphcore.base.dtypes import DType
from graphcore.base.errors import DeviceError, DTypeError, GraphcoreError, GraphError, ShapeError
from graphcore.base.shapes import Count, Extent, Shape, format_shape
from graphcore.base.source import Origin
from graphcore.ir.op import Map, Op, TensorType, lookup

if TYPE_CHECKING:
    from graphcore.ir.state import StateSlot

__all__ = [
    "Builder",
    "Named",
    "Node",
    "Value",
    "device",
    "enable_grad",
    "grad_enabled",
    "make_node",
    "no_grad",
    "set_grad_enabled",
]

_serials = itertools.count()
_grad_mode: contextvars.ContextVar[bool] = contextvars.ContextVar("graphcore_grad", default=True)
_device: contextvars.ContextVar[str | None] = contextvars.ContextVar("graphcore_device", default=None)


class Node:
    """An op applied to values.

    Attributes:
        op: the primitive.
        inputs: operands.
        types: the results' types.
        origin: the user's line and name scope.
        serial: build order; a node's inputs have smaller serials.
        updates: side updates ``(slot, value)`` that happen in every run that computes this node.
        detached: built under ``no_grad``: gradients stop here.
        clone: non-zero for a recomputation, which must not be merged with the original.
        device: the device asked for, or None.
        face: a weak reference to what the user holds for the first result, or None; nothing here looks at it.
    """

    __slots__ = (
        "__weakref__", "clone", "detached", "device", "face", "inputs", "op", "origin", "serial", "types", "updates",
    )  # fmt: skip

    def __init__(
        self,
        op: Op,
        inputs: tuple[Value, ...],
        types: tuple[TensorType, ...],
        origin: Origin,
        *,
        detached: bool = False,
        clone: int = 0,
        updates: SideUpdates = (),
        device: str | None = None,
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.types = types
        self.origin = origin
        self.serial = next(_serials)
        self.updates = updates
        self.detached = detached
        self.clone = clone
        self.device = device
        self.face: Callable[[], Any] | None = None

    def output(self, index: int = 0) -> Value:
        """Result ``index``."""
        return _new_value(Value, (self, index))

    @property
    def outputs(self) -> tuple[Value, ...]:
        return tuple([_new_value(Value, (self, i)) for i in range(len(self.types))])

    def __repr__(self) -> str:
        return f"<{self.op.name} #{self.serial} at {self.origin}>"


class Value(NamedTuple):
    """Result ``index`` of ``node``.

    Values are made on demand: two are equal if they are the same result of the same node. Their hashes follow
    addresses, so nothing may depend on the order of a set of them.

    Attributes:
        node: what computes it.
        index: which of its results.
        shape: extents, ints or ``Dim``.
        dtype: element type.
        ndim: number of axes.
        name: the name given, or one made from op and scope.
    """

    node: Node
    index: int = 0  # type: ignore[assignment]  # a tuple's method, which nobody asks a value

    @property
    def type(self) -> TensorType:
        return self.node.types[self.index]

    @property
    def shape(self) -> Shape:
        return self.node.types[self.index].shape

    @property
    def dtype(self) -> DType:
        return self.node.types[self.index].dtype

    @property
    def ndim(self) -> int:
        return len(self.node.types[self.index].shape)

    @property
    def size(self) -> Extent:
        """Number of elements."""
        count = self.node.types[self.index].size
        return Count(count) if isinstance(count, int) else count

    @property
    def device(self) -> str | None:
        return self.node.device

    @property
    def name(self) -> str:
        path = [*self.node.origin.scope, self.node.op.given_name or self.node.op.name]
        return "/".join(path) + (f":{self.index}" if self.index else "")

    def __repr__(self) -> str:
        return f"Value({self.name}, {self.type}, {self.node.origin})"


# What happens in every run that computes a node: slots and their new values; None and a value for all that happens with
# what the value is computed from.
SideUpdates = tuple[tuple["StateSlot | None", Value], ...]
_new_value: Callable[[type[Value], tuple[Node, int]], Value] = tuple.__new__  # past the arguments' defaults


class Named(Protocol):
    """What messages can describe: a value, or what the user has in hand for one."""

    @property
    def name(self) -> str: ...
    @property
    def node(self) -> Node: ...
    @property
    def type(self) -> TensorType: ...
    @property
    def shape(self) -> Shape: ...


def describe(value: Named) -> str:
    """A value in an error message: its name, type and the line that built it."""
    return f"{value.name}: {value.type}, built at {value.node.origin.place}"


def make_node(
    op: Op,
    inputs: Sequence[Value],
    origin: Origin | None = None,
    *,
    clone: int = 0,
    updates: SideUpdates = (),
    detached: bool | None = None,
) -> Node:
    """Build a node; shape and dtype errors name the operands' lines.

    Raises:
        ShapeError, DTypeError: the operands do not fit the op.
    """
    if op.arity is not None and len(inputs) != op.arity:
        raise GraphError(f"{op.name} takes {op.arity} operands, got {len(inputs)}")
    try:
        types = op.infer(*[node.types[index] for node, index in inputs])
    except (ShapeError, DTypeError) as error:
        raise with_operands(error, inputs) from None
    if inputs and types == inputs[0].node.types:
        types = inputs[0].node.types  # along a chain all nodes share one tuple, which keeps large graphs small
    stopped = not _grad_mode.get() if detached is None else detached
    return Node(
        op,
        tuple(inputs),
        types,
        origin or source.capture(),
        detached=stopped,
        clone=clone,
        updates=updates,
        device=_device.get(),
    )


def with_operands(error: GraphcoreError, inputs: Sequence[Named]) -> GraphcoreError:
    """The same error with the operands and their lines added to its message."""
    listed = "".join(f"\n  operand {i + 1} is {describe(t)}" for i, t in enumerate(inputs))
    return type(error)(f"{error}{listed}")


class Builder:
    """Builds nodes of any registered op by name: ``builder.mul(x, y)``, ``builder.permute(x, axes=(1, 0))``.

    Gradient rules and rewrite rules build through one of these, so op families need not import each other. Python
    numbers among the operands of a MAP become constants of the first value's type and shape.
    """

    def __init__(
        self,
        origin: Origin | None = None,
        clone: int = 0,
        detached: bool | None = None,
        make: Callable[[Op, tuple[Value, ...]], Node] | None = None,
    ) -> None:
        self._origin = origin
        self._clone = clone
        self._detached = detached
        self._make = make

    def apply(self, op: Op, *inputs: Value) -> Node:
        """A node of an op instance."""
        if self._make is not None:
            return self._make(op, inputs)
        return make_node(op, inputs, self._origin, clone=self._clone, detached=self._detached)

    def __getattr__(self, name: str) -> Callable[..., Value]:
        cls = lookup(name)

        def build(*operands: Any, **attributes: Any) -> Value:
            if issubclass(cls, Map):
                like = next((o for o in operands if isinstance(o, Value)), None)
                operands = tuple(
                    o if isinstance(o, Value) else self.full(like.shape, o, like.dtype)
                    for o in operands
                    if like is not None
                )
            return self.apply(cls(**attributes), *operands).output(0)

        return build

    def full(self, shape: Shape, value: bool | int | float, dtype: DType) -> Value:
        """A constant scalar, broadcast to a shape."""
        scalar = self.apply(lookup("constant").of(value, dtype)).output(0)
        return self.broadcast_to(scalar, shape)

    def broadcast_to(self, x: Value, shape: Shape) -> Value:
        """``x`` broadcast by NumPy's rule to ``shape`` (which it must fit)."""
        if x.shape == shape:
            return x
        return self.apply(lookup("broadcast")(shape=shape), x).output(0)

    def unbroadcast(self, x: Value, shape: Shape) -> Value:
        """Sum ``x`` over the axes that a broadcast from ``shape`` added or stretched."""
        if x.shape == shape:
            return x
        lead = x.ndim - len(shape)
        axes = (*range(lead), *(lead + i for i, e in enumerate(shape) if e == 1 and x.shape[lead + i] != 1))
        if axes:
            x = self.apply(lookup("sum")(axes=axes), x).output(0)
        return x if x.shape == shape else self.apply(lookup("reshape")(shape=shape), x).output(0)

    def zeros_like(self, x: Value) -> Value:
        return self.full(x.shape, 0, x.dtype)


def grad_enabled() -> bool:
    """Whether gradients flow through what is built now."""
    return _grad_mode.get()


class set_grad_enabled:
    """Let gradients flow, or not, through what is built from here on; as a context manager, up to its end only.

    >>> with set_grad_enabled(False):
    ...     grad_enabled()
    False
    """

    def __init__(self, flag: bool) -> None:
        self._flag = bool(flag)
        self._before = [_grad_mode.get()]  # what to go back to
        _grad_mode.set(self._flag)

    def __enter__(self) -> None:
        if not self._before:  # entered again
            self._before.append(_grad_mode.get())
            _grad_mode.set(self._flag)

    def __exit__(self, *exc: object) -> None:
        _grad_mode.set(self._before.pop())

    def __call__(self, function: Any) -> Any:
        """Decorate: the mode holds while the function runs, and no longer here."""
        if self._before:
            _grad_mode.set(self._before.pop())
        return _GradMode(self._flag)(function)


class _GradMode(contextlib.ContextDecorator):
    """A gradient mode for a block or a function, which may nest."""

    def __init__(self, flag: bool) -> None:
        self._flag = flag
        self._tokens: list[contextvars.Token[bool]] = []

    def __enter__(self) -> None:
        self._tokens.append(_grad_mode.set(self._flag))

    def __exit__(self, *exc: object) -> None:
        _grad_mode.reset(self._tokens.pop())


def no_grad() -> _GradMode:
    """No gradients through what is built inside (context manager and decorator)."""
    return _GradMode(False)


def enable_grad() -> _GradMode:
    """Gradients through what is built inside, also within ``no_grad``."""
    return _GradMode(True)


@contextlib.contextmanager
def device(name: str | None) -> Iterator[None]:
    """Ask for a device, e.g. ``"opencl:0"``, for what is built inside: a session on another one refuses to run it.

    Raises:
        DeviceError: no device string.
    """
    if name is not None and not isinstance(name, str):
        raise DeviceError(f"device: a device is named by a string such as 'opencl:0', got {type(name).__name__}")
    token = _device.set(name)
    try:
        yield
    finally:
        _device.reset(token)


def mismatch(op: str, a: Named, b: Named, why: str) -> ShapeError:
    """A shape error between two operands with both lines."""
    return ShapeError(
        f"{op}: {why}: {format_shape(a.shape)} and {format_shape(b.shape)}\n  operand 1 is {describe(a)}"
        f"\n  operand 2 is {describe(b)}"
    )
