"""Values that nothing computes: placeholders, variables, constants, parameters of regions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from graphcore.base.dtypes import DType
from graphcore.base.shapes import Shape
from graphcore.ir.op import Leaf, TensorType, one_type, primitive

__all__ = ["Constant", "Parameter", "Placeholder", "VariableRead"]


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
        return one_type(self.variable.shape, self.variable.dtype)


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
        return one_type(tuple(self.array.shape), self.dtype)
