"""Nodes and tensors of the graph IR, and the builder through which all nodes are made.

Nodes are immutable, compared by identity and reachable only through what holds them: there is no global graph.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from graphcore.base import source
from graphcore.base.dtypes import DType
from graphcore.base.errors import DeviceError, DTypeError, GraphcoreError, GraphError, ShapeError
from graphcore.base.shapes import Count, Extent, Shape, format_shape
from graphcore.base.source import Origin
from graphcore.ir.op import Map, Op, TensorType, lookup

if TYPE_CHECKING:
    from graphcore.api.operators import Operators
else:
    Operators = (
        object  # made of the layers above: ``operators.install`` puts its members on ``Tensor`` when they are there
    )

__all__ = [
    "Builder",
    "Node",
    "Tensor",
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
    """An op applied to tensors.

    Attributes:
        op: the primitive.
        inputs: operand tensors.
        types: the results' types.
        origin: the user's line and name scope.
        serial: build order; a node's inputs have smaller serials.
        updates: side updates ``(variable, tensor)`` that happen in every run that computes this node.
        detached: built under ``no_grad``: gradients stop here.
        clone: non-zero for a recomputation, which must not be merged with the original.
        device: the device asked for, or None.
    """

    __slots__ = ("__weakref__", "clone", "detached", "device", "inputs", "op", "origin", "serial", "types", "updates")

    def __init__(
        self,
        op: Op,
        inputs: tuple[Tensor, ...],
        types: tuple[TensorType, ...],
        origin: Origin,
        *,
        detached: bool = False,
        clone: int = 0,
        updates: tuple[tuple[Any, Tensor], ...] = (),
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

    def output(self, index: int = 0) -> Tensor:
        """Result ``index`` as a tensor."""
        return Tensor(self, index)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return tuple(Tensor(self, i) for i in range(len(self.types)))

    def __repr__(self) -> str:
        return f"<{self.op.name} #{self.serial} at {self.origin}>"


class Tensor(Operators):
    """A symbolic value: result ``index`` of ``node``. Two tensors are the same value if both agree.

    Attributes:
        shape: extents, ints or ``Dim``.
        dtype: element type.
        ndim: number of axes.
        name: the name given, or one made from op and scope.
    """

    # A gradient is held for variables, and for tensors that were asked to.
    __slots__ = ("__weakref__", "grad", "index", "node")
    __array_priority__ = 1000
    grad: Tensor | None

    def __init__(self, node: Node, index: int = 0) -> None:
        self.node = node
        self.index = index

    @property
    def type(self) -> TensorType:
        return self.node.types[self.index]

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def ndim(self) -> int:
        return len(self.type.shape)

    @property
    def size(self) -> Extent:
        """Number of elements."""
        count = self.type.size
        return Count(count) if isinstance(count, int) else count

    @property
    def device(self) -> str | None:
        return self.node.device

    @property
    def name(self) -> str:
        path = [*self.node.origin.scope, self.node.op.given_name or self.node.op.name]
        return "/".join(path) + (f":{self.index}" if self.index else "")

    @property
    def key(self) -> tuple[int, int]:
        """Identity of the value, usable as a dictionary key."""
        return self.node.serial, self.index

    def __hash__(self) -> int:
        return hash((self.node.serial, self.index))

    def same(self, other: Any) -> bool:
        """Whether ``other`` is this very value (``==`` builds a comparison)."""
        return isinstance(other, Tensor) and self.node is other.node and self.index == other.index

    def __repr__(self) -> str:
        return f"Tensor({self.name}, {self.type}, {self.node.origin})"


def describe(tensor: Tensor) -> str:
    """A tensor in an error message: its name, type and the line that built it."""
    return f"{tensor.name}: {tensor.type}, built at {tensor.node.origin.place}"


def make_node(
    op: Op,
    inputs: Sequence[Tensor],
    origin: Origin | None = None,
    *,
    clone: int = 0,
    updates: tuple[tuple[Any, Tensor], ...] = (),
    detached: bool | None = None,
) -> Node:
    """Build a node; shape and dtype errors name the operands' lines.

    Raises:
        ShapeError, DTypeError: the operands do not fit the op.
    """
    if op.arity is not None and len(inputs) != op.arity:
        raise GraphError(f"{op.name} takes {op.arity} operands, got {len(inputs)}")
    try:
        types = op.infer(*(t.type for t in inputs))
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


def with_operands(error: GraphcoreError, inputs: Sequence[Tensor]) -> GraphcoreError:
    """The same error with the operands and their lines added to its message."""
    listed = "".join(f"\n  operand {i + 1} is {describe(t)}" for i, t in enumerate(inputs))
    return type(error)(f"{error}{listed}")


class Builder:
    """Builds nodes of any registered op by name: ``builder.mul(x, y)``, ``builder.permute(x, axes=(1, 0))``.

    Gradient rules and rewrite rules build through one of these, so op families need not import each other. Python
    numbers among the operands of a MAP become constants of the first tensor's type and shape.
    """

    def __init__(
        self,
        origin: Origin | None = None,
        clone: int = 0,
        detached: bool | None = None,
        make: Callable[[Op, tuple[Tensor, ...]], Node] | None = None,
    ) -> None:
        self._origin = origin
        self._clone = clone
        self._detached = detached
        self._make = make

    def apply(self, op: Op, *inputs: Tensor) -> Node:
        """A node of an op instance."""
        if self._make is not None:
            return self._make(op, inputs)
        return make_node(op, inputs, self._origin, clone=self._clone, detached=self._detached)

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        cls = lookup(name)

        def build(*operands: Any, **attributes: Any) -> Tensor:
            if issubclass(cls, Map):
                like = next((o for o in operands if isinstance(o, Tensor)), None)
                operands = tuple(
                    o if isinstance(o, Tensor) else self.full(like.shape, o, like.dtype)
                    for o in operands
                    if like is not None
                )
            return self.apply(cls(**attributes), *operands).output(0)

        return build

    def full(self, shape: Shape, value: bool | int | float, dtype: DType) -> Tensor:
        """A constant scalar, broadcast to a shape."""
        scalar = self.apply(lookup("constant").of(value, dtype)).output(0)
        return self.broadcast_to(scalar, shape)

    def broadcast_to(self, x: Tensor, shape: Shape) -> Tensor:
        """``x`` broadcast by NumPy's rule to ``shape`` (which it must fit)."""
        if x.shape == shape:
            return x
        return self.apply(lookup("broadcast")(shape=shape), x).output(0)

    def unbroadcast(self, x: Tensor, shape: Shape) -> Tensor:
        """Sum ``x`` over the axes that a broadcast from ``shape`` added or stretched."""
        if x.shape == shape:
            return x
        lead = x.ndim - len(shape)
        axes = (*range(lead), *(lead + i for i, e in enumerate(shape) if e == 1 and x.shape[lead + i] != 1))
        if axes:
            x = self.apply(lookup("sum")(axes=axes), x).output(0)
        return x if x.shape == shape else self.apply(lookup("reshape")(shape=shape), x).output(0)

    def zeros_like(self, x: Tensor) -> Tensor:
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


def mismatch(op: str, a: Tensor, b: Tensor, why: str) -> ShapeError:
    """A shape error between two operands with both lines."""
    return ShapeError(
        f"{op}: {why}: {format_shape(a.shape)} and {format_shape(b.shape)}\n  operand 1 is {describe(a)}"
        f"\n  operand 2 is {describe(b)}"
    )
