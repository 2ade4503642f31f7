"""Extents and positions as values: sizes that stay symbolic, and ranges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from graphcore.base import dtypes
from graphcore.base.dtypes import DType
from graphcore.base.shapes import Dim, Extent, Shape
from graphcore.ir.op import Example, Lowering, Opaque, Read, TensorType, one_type, primitive
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Index

__all__ = ["DimValue", "Iota"]


@primitive
class DimValue(Opaque):
    """A symbolic extent as a rank-0 tensor. It stays symbolic in compiled code, so another batch size compiles
    nothing."""

    extent: Extent
    dtype: DType
    arity = 0
    inline: ClassVar[bool] = True

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return one_type((), self.dtype)

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
        return one_type(self.shape, self.dtype)

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
