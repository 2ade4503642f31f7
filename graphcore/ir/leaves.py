"""Values that nothing computes: placeholders, variables, constants, parameters of regions; and what is required of
shapes and of integers that name positions. These are the ops that passes, tools and the front end may know by their
classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graphcore.base.arrays import beyond, shown
from graphcore.base.dtypes import DType, bfloat16
from graphcore.base.errors import DTypeError, ShapeError
from graphcore.base.shapes import Extent, Shape, agree, format_shape
from graphcore.ir.op import INTEGER, Condition, Example, Leaf, Lowering, TensorType, View, one_type, primitive
from graphcore.kernel.index import Index

if TYPE_CHECKING:
    from graphcore.ir.state import StateSlot

__all__ = ["Constant", "Parameter", "Placeholder", "RequireRange", "RequireShape", "StateRead"]


class _Labelled(Leaf):
    """Leaves that a user may name."""

    label: str | None

    @property
    def given_name(self) -> str | None:
        return self.label


@dataclass(frozen=True, eq=False)
class _Identity(_Labelled):
    """Leaves that are equal only to themselves."""


@primitive
class Placeholder(_Identity):
    """A value fed at every run."""

    shape: Shape
    dtype: DType
    label: str | None = None
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return one_type(self.shape, self.dtype)


@primitive
class Parameter(_Identity):
    """An input of a region's body."""

    shape: Shape
    dtype: DType
    label: str | None = None
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return one_type(self.shape, self.dtype)


@primitive
class StateRead(_Labelled):
    """The value in a ``StateSlot`` before the run. All reads of one slot are the same value."""

    name = "variable"
    slot: StateSlot
    label: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StateRead) and self.slot is other.slot

    def __hash__(self) -> int:
        return id(self.slot)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return (self.slot.type,)


@primitive
class Constant(_Labelled):
    """A fixed array; equal constants (type, shape and bytes) are one. float16/bfloat16 keep their stored bits."""

    array: np.ndarray = field(compare=False)
    dtype: DType
    digest: str = ""
    label: str | None = field(default=None, compare=False)
    name: ClassVar[str] = "constant"

    @classmethod
    def of(cls, value: Any, dtype: DType) -> Constant:
        """A constant from an array or number, converted to ``dtype`` and frozen. Numbers beyond a floating type are
        infinite there, as rounding makes them.

        Raises:
            DTypeError: an integer type that cannot hold a number.
        """
        wrong = beyond(np.asarray(value), dtype.storage)
        with np.errstate(over="ignore", invalid="ignore"):
            if wrong is None:
                try:
                    array = np.array(value, dtype=dtype.storage, order="C")
                except OverflowError:  # Python integers, one beyond the largest float
                    wrong = max(np.asarray(value).flat, key=abs)
        if wrong is not None:
            raise DTypeError(f"the number {shown(wrong)} does not fit {dtype}{_range(dtype)}")
        array.setflags(write=False)
        text = f"{dtype.name}{array.shape}".encode()
        return cls(array, dtype, hashlib.blake2b(text + array.tobytes(), digest_size=16).hexdigest())

    @property
    def scalar(self) -> Any:
        """The Python number of a one-element constant of any rank."""
        return self.array.item() if self.dtype != bfloat16 else float(self.array.reshape(()))

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return one_type(tuple(self.array.shape), self.dtype)


def _range(dtype: DType) -> str:
    if not dtype.is_integer:
        return ""
    info = np.iinfo(dtype.storage)
    return f" ({info.min} to {info.max})"


@primitive
class RequireShape(View):
    """The operand, known to have ``shape``: an equality between extents that is checked when feeds bind.

    ``label``: the function that needs it; ``against``: what says that the extents are these, for messages. It stands
    here because verifier, builder and passes need it.
    """

    is_alias: ClassVar[bool] = True
    inverts_index: ClassVar[bool] = True
    cosmetic: ClassVar[frozenset[str]] = Leaf.cosmetic | {"against"}
    shape: Shape
    label: str | None = field(default=None, compare=False, repr=False)
    against: str | None = field(default=None, compare=False, repr=False)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        given = inputs[0].shape
        if not agree(given, self.shape):
            raise ShapeError(f"require_shape: {format_shape(given)} cannot be {format_shape(self.shape)}")
        return one_type(self.shape, inputs[0].dtype)

    def conditions(self, inputs: tuple[TensorType, ...], outputs: tuple[TensorType, ...]) -> tuple[Condition, ...]:
        pairs = enumerate(zip(inputs[0].shape, self.shape, strict=True))
        return tuple(Condition(axis, a, b, self.label, self.against) for axis, (a, b) in pairs if a != b)

    def source_index(self, call: Lowering, index: tuple[Index, ...]) -> tuple[Index, ...]:
        return index

    def result_index(self, source: Shape, index: tuple[Index, ...]) -> tuple[Index, ...]:
        return index

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (call.b.require_shape(gradients[0], shape=call.inputs[0].shape),)

    def reference(self, *inputs: Any) -> Any:
        if inputs[0].shape != self.shape:
            raise ValueError(f"shape {inputs[0].shape} is not {self.shape}")
        return inputs[0]

    def examples(self) -> Iterator[Example]:
        yield RequireShape((2, 3)), np.linspace(-1.5, 2.0, 6, dtype=np.float32).reshape(2, 3)
        yield RequireShape((4,)), np.arange(4, dtype=np.int32)


@primitive
class RequireRange(View):
    """The operand, whose elements name positions along an axis of ``extent``: what is fed is checked when it is fed.

    ``negative``: whether negative elements count from the end; ``allowed``: a number that is borne besides; ``label``:
    the function that reads the elements. It stands here because the front end needs it.
    """

    is_alias: ClassVar[bool] = True
    inverts_index: ClassVar[bool] = True
    extent: Extent
    negative: bool
    allowed: int | None = None
    label: str | None = None

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        self.check(0, inputs[0], INTEGER)
        return (inputs[0],)

    def source_index(self, call: Lowering, index: tuple[Index, ...]) -> tuple[Index, ...]:
        return index

    def result_index(self, source: Shape, index: tuple[Index, ...]) -> tuple[Index, ...]:
        return index

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (None,)

    def reference(self, *inputs: Any) -> Any:
        return inputs[0]

    def examples(self) -> Iterator[Example]:
        yield RequireRange(4, True), np.array([[0, 3, -4], [1, 1, -1]], np.int32)
        yield RequireRange(4, False, -100, "cross_entropy"), np.array([0, 3, -100, 4])
