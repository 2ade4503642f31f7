"""The kernel of one op alone, outside any graph."""

from __future__ import annotations

from collections.abc import Sequence

from graphcore.base.shapes import Extent
from graphcore.ir.op import Lowering, Op, TensorType
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import PARALLEL, REDUCE, Axis, Index, as_index, flatten
from graphcore.kernel.ir import Kernel, Param, Store

__all__ = ["kernel_of"]


def kernel_of(op: Op, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Kernel:
    """The kernel that computes an op's results from its operands: its parameters are these, then those.

    Raises:
        NotImplementedError: the op has no lowering.
    """
    params = tuple(Param(f"p{i}", t.dtype, t.shape) for i, t in enumerate((*inputs, *outputs)))
    reduced: dict[tuple[int, int], Axis] = {}
    axes: list[Axis] = []
    stores = []
    for number, made in enumerate(outputs):
        own = tuple(Axis(f"i{len(axes) + i}", e, PARALLEL) for i, e in enumerate(made.shape))
        axes.extend(own)

        def axis(extent: Extent, position: int, number: int = number) -> Axis | None:
            if extent == 1:
                return None
            return reduced.setdefault((number, position), Axis(f"r{len(reduced)}", extent, REDUCE))

        def read(operand: int, at: tuple[Index, ...], guard: Expr | None = None) -> Expr:
            t = inputs[operand]
            return expr.load(operand, flatten(at, t.shape), t.dtype, guard)

        at = tuple(as_index(a) for a in own)
        value = op.lower(Lowering(tuple(inputs), tuple(outputs), number, axis), at, read)
        stores.append(Store(len(inputs) + number, flatten(at, made.shape), value))
    return Kernel("alone", params, tuple(axes), tuple(stores))
