"""Matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from graphcore.base import dtypes
from graphcore.base.errors import DTypeError, ShapeError
from graphcore.base.shapes import format_shape
from graphcore.ir.op import REAL, Contract, Example, Lowering, Read, TensorType, one_type, primitive
from graphcore.kernel import expr
from graphcore.kernel.contraction import ContractionRoles, Role
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Index, as_index
from graphcore.ops._examples import floats, integers
from graphcore.ops.view import Permute

__all__ = ["Matmul"]


@primitive
class Matmul(Contract):
    """y[..., i, j] = sum_k a[..., i, k] * b[..., k, j]; equal batch axes. Accumulates in the compute type.

    Transposed operands are permutes of the operands; they cost nothing, since kernels read through views.
    """

    def contraction_roles(self, *inputs: TensorType) -> ContractionRoles | None:
        batch = (Role.BATCH,) * (inputs[0].rank - 2)
        return ContractionRoles(
            (*batch, Role.ROW, Role.TERM), (*batch, Role.TERM, Role.COLUMN), (*batch, Role.ROW, Role.COLUMN)
        )

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        a, b = inputs
        self.check(0, a, REAL)
        if a.dtype != b.dtype:
            raise DTypeError(f"matmul: operands have dtypes {a.dtype} and {b.dtype}; cast one with .astype(...)")
        if a.rank < 2 or a.rank != b.rank or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
            raise ShapeError(
                f"matmul: {format_shape(a.shape)} @ {format_shape(b.shape)}: the last axis of the first "
                f"({a.shape[-1] if a.shape else '-'}) "
                f"must equal the second-last of the second ({b.shape[-2] if b.rank > 1 else '-'}); transpose one "
                f"with .T"
            )
        return one_type((*a.shape[:-1], b.shape[-1]), a.dtype)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        *batch, i, j = index
        axis = call.axis(call.inputs[0].shape[-1], -1)
        k = as_index(axis) if axis is not None else Index(0)
        stored = call.outputs[0].dtype
        wide = dtypes.as_dtype(stored.compute)  # half types multiply and add up in the compute type and round once
        product = expr.call("mul", expr.cast(read(0, (*batch, i, k)), wide), expr.cast(read(1, (*batch, k, j)), wide))
        return expr.cast(expr.total((axis,) if axis is not None else (), product), stored)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        """g b^T and a^T g. The gradient of a transposed operand is computed transposed: the two permutes vanish, and it
        is stored as its source is."""
        a, b = call.inputs
        swap = (*range(a.ndim - 2), a.ndim - 1, a.ndim - 2)
        g, build = gradients[0], call.b

        def turned(x: Any) -> Any:
            return build.permute(x, axes=swap)

        def is_turned(x: Any) -> bool:
            return isinstance(x.node.op, Permute) and x.node.op.axes == swap

        left = turned(build.matmul(b, turned(g))) if is_turned(a) else build.matmul(g, turned(b))
        right = turned(build.matmul(turned(g), a)) if is_turned(b) else build.matmul(turned(a), g)
        return left, right

    def reference(self, *inputs: Any) -> Any:
        dtype = dtypes.as_dtype(inputs[0].dtype)
        wide = np.dtype(dtype.compute)
        return np.matmul(inputs[0].astype(wide), inputs[1].astype(wide)).astype(inputs[0].dtype)

    def examples(self) -> Iterator[Example]:
        yield Matmul(), floats(3, 4), floats(4, 5, seed=1)
        yield Matmul(), floats(1, 1), floats(1, 3, seed=1)
        yield Matmul(), floats(17, 33), floats(33, 19, seed=1)
        yield Matmul(), floats(2, 3, 4), floats(2, 4, 2, seed=1)
        yield Matmul(), floats(3, 0), floats(0, 2)
        yield Matmul(), integers(3, 4), integers(4, 2, seed=1)
        for half in ("float16", "bfloat16"):
            yield Matmul(), floats(3, 4, dtype=half), floats(4, 5, dtype=half, seed=1)
