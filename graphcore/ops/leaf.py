"""Values that nothing computes: placeholders, variables, constants, region parameters, sizes and ranges."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from graphcore import dtypes
from graphcore.dtypes import DType
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Index
from graphcore.op import Example, Leaf, Lowering, Opaque, Read, TensorType, primitive
from graphcore.shapes import Dim, Extent, Shape

__all__ = ["Constant", "DimValue", "Iota", "Parameter", "Placeholder", "VariableRead"]


@dataclass(frozen=True, eq=False)
class _Identity(Leaf):
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
        return (TensorType(self.shape, self.dtype),)


@primitive
class Parameter(_Identity):
    """An input of a region's body."""

    shape: Shape
    dtype: DType
    label: str | None = None
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(self.shape, self.dtype),)


@primitive
class VariableRead(Leaf):
    """The value of a variable before the run. All reads of one variable are the same value."""

    name = "variable"
    variable: Any
    label: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VariableRead) and self.variable is other.variable

    def __hash__(self) -> int:
        return id(self.variable)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(self.variable.shape, self.variable.dtype),)


@primitive
class Constant(Leaf):
    """A fixed array; equal constants (type, shape and bytes) are one. float16/bfloat16 keep their stored bits."""

    array: np.ndarray = field(compare=False)
    dtype: DType
    digest: str = ""
    label: str | None = field(default=None, compare=False)
    name: ClassVar[str] = "constant"

    @classmethod
    def of(cls, value: Any, dtype: DType) -> Constant:
        """A constant from an array or number, converted to ``dtype`` and frozen."""
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.array(value, dtype=dtype.storage, order="C")
        array.setflags(write=False)
        text = f"{dtype.name}{array.shape}".encode()
        return cls(array, dtype, hashlib.blake2b(text + array.tobytes(), digest_size=16).hexdigest())

    @property
    def scalar(self) -> Any:
        """The Python number of a one-element constant of any rank."""
        return self.array.item() if self.dtype.name != "bfloat16" else float(self.array.reshape(()))

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(tuple(self.array.shape), self.dtype),)


@primitive
class DimValue(Opaque):
    """A symbolic extent as a rank-0 tensor. It stays symbolic in compiled code, so another batch size compiles
    nothing."""

    extent: Extent
    dtype: DType
    arity = 0
    inline: ClassVar[bool] = True

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return (TensorType((), self.dtype),)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        return expr.size_value(self.extent, self.dtype)

    def reference(self, *inputs: Any) -> Any:
        if isinstance(self.extent, Dim):
            raise ValueError(f"the extent {self.extent} is not bound")
        return np.array(self.extent, self.dtype.storage)

    def examples(self) -> Iterator[Example]:
        yield (DimValue(7, dtypes.float32),)


@primitive
class Iota(Opaque):
    """y[i_0, ..., i_n] = i_axis: positions along an axis."""

    shape: Shape
    axis: int
    dtype: DType
    arity = 0
    inline: ClassVar[bool] = True

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(self.shape, self.dtype),)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        return expr.index_value(index[self.axis], self.dtype)

    def reference(self, *inputs: Any) -> Any:
        shape = [1] * len(self.shape)
        shape[self.axis] = -1
        positions = np.arange(int(self.shape[self.axis])).reshape(shape)
        return np.broadcast_to(positions, [int(e) for e in self.shape]).astype(self.dtype.storage)

    def examples(self) -> Iterator[Example]:
        yield (Iota((3, 4), 1, dtypes.int32),)
        yield (Iota((3, 1, 2), 0, dtypes.float32),)
        yield (Iota((0,), 0, dtypes.int64),)
