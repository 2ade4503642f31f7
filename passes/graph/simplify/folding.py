"""Constants: what can be computed now is; what is uniform stays one number and its broadcast.

Only what every device would compute to the same bits is computed now: exact and correctly rounded functions, moves,
integers, and what is made of these. The kernel IR's oracle does it, on the ops' own lowering. Other functions, and sums
and products of floats, whose order is the kernel's, are left to the device.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphcore.base.shapes import Dim, broadcast_shapes, is_static, product
from graphcore.ir.leaves import Constant
from graphcore.ir.lowering import kernel_of
from graphcore.ir.op import Kind, Map, Op
from graphcore.kernel import expr, functions, interpret
from graphcore.ops.positions import DimValue
from graphcore.ops.view import Broadcast
from passes.graph.base import Call, Match, Replacement, rule

__all__ = ["FOLDING"]

BUDGET = 4096  # elements a computed constant may have if its operands have fewer
MOST_POINTS = 1 << 20  # of the loops that compute it


@rule(Map)
def map_below_broadcast(call: Call) -> Replacement:
    """f(broadcast(a), broadcast(b)) -> broadcast(f(a, b)), computed over the axes that a or b have"""
    if len(call.node.types) != 1 or not call.inputs:
        return None
    shape = call.shape
    if not call.arg(0).is_op(Broadcast) or not all(arg.is_op(Broadcast) and arg.shape == shape for arg in call.args):
        return None
    small = broadcast_shapes(*(arg.arg(0).shape for arg in call.args))
    if small == shape or (is_static(shape) and product(small) >= product(shape)):
        return None
    inner = call.b.apply(call.op, *(call.b.broadcast_to(arg.inputs[0], small) for arg in call.args)).output(0)
    return call.b.broadcast_to(inner, shape) if inner.shape == small else None


@rule(Op)
def fold_constants(call: Call) -> Replacement:
    """f(constants) -> constant, where f is exact, unless the result is large or a broadcast"""
    op = call.op
    if op.kind in (Kind.LEAF, Kind.REGION) or not call.inputs or isinstance(op, Broadcast):
        return None
    if not all(_is_constant(arg, views=op.kind is not Kind.VIEW) for arg in call.args):
        return None
    if not all(is_static(t.shape) for t in (*(i.type for i in call.inputs), *call.node.types)):
        return None
    known = [_array(arg) for arg in call.args]
    # Strides of 0 show a broadcast of little. Views are free where they are used, so only small ones are copied.
    stored = max(a.size if all(a.strides) else 1 for a in known)
    limit = BUDGET if op.kind is Kind.VIEW else max(BUDGET, stored)
    if any(size > limit for size in (*(a.size for a in known), *(product(t.shape) for t in call.node.types))):
        return None
    return _computed(call, known)


def _is_constant(value: Match, views: bool) -> bool:
    return value.is_op(Constant) or (views and value.is_op(Broadcast) and value.arg(0).is_op(Constant))


def _array(value: Match) -> np.ndarray[Any, Any]:
    if value.is_op(Constant):
        return value.op.array  # type: ignore[no-any-return]
    return np.broadcast_to(value.arg(0).op.array, value.shape)  # type: ignore[arg-type]


def _computed(call: Call, arrays: list[np.ndarray[Any, Any]]) -> Replacement:
    """The op's results of arrays, as constants; None where devices may give other bits, or much would be computed."""
    results = _mapped(call, arrays) if isinstance(call.op, Map) and len(call.node.types) == 1 else _run(call, arrays)
    if results is None:
        return None
    made = zip(results, call.node.types, strict=True)
    return [call.b.apply(Constant.of(r, t.dtype)).output(0) for r, t in made]


def _mapped(call: Call, arrays: list[np.ndarray[Any, Any]]) -> list[Any] | None:
    """An elementwise op of arrays."""
    inputs, made = [i.type for i in call.inputs], call.node.types[0]
    value = call.op.scalar(*(expr.argument(i, t.dtype) for i, t in enumerate(inputs)))
    if not functions.is_exact(value):
        return None
    with np.errstate(all="ignore"):
        result = interpret.evaluate(value, [a.astype(t.dtype.compute) for a, t in zip(arrays, inputs, strict=True)])
        return [np.broadcast_to(result.astype(made.dtype.storage), arrays[0].shape)]


def _run(call: Call, arrays: list[np.ndarray[Any, Any]]) -> list[Any] | None:
    """Any other op of arrays, by its kernel."""
    try:
        kernel = kernel_of(call.op, tuple(i.type for i in call.inputs), call.node.types)
    except NotImplementedError:  # it runs on the host
        return None
    axes = {a for v in kernel.values() for a in (*v.axes, *(v.reduce_axes if v.fn == "reduce" else ()))}
    if not all(functions.is_exact(s.value) for s in kernel.stores) or math.prod(a.extent for a in axes) > MOST_POINTS:
        return None
    results = [np.empty(t.shape, t.dtype.storage) for t in call.node.types]
    interpret.run_kernel(kernel, [a.reshape(-1) for a in (*arrays, *results)])
    return results


@rule(Constant)
def uniform_constant_to_broadcast(call: Call) -> Replacement:
    """constant of equal elements -> broadcast(constant of one)"""
    array = call.op.array
    if array.size < 2:
        return None
    flat = array.reshape(-1).view(f"u{array.itemsize}")
    if flat[0] != flat[-1] or not (flat == flat[0]).all():
        return None
    return call.b.broadcast_to(call.b.apply(Constant.of(array.reshape(-1)[0], call.dtype)).output(0), call.shape)


@rule(Broadcast)
def broadcast_of_one_element_constant(call: Call) -> Replacement:
    """broadcast(constant of shape (1, ..., 1)) -> broadcast(constant of shape ())"""
    inner = call.arg(0)
    if not inner.is_op(Constant) or not inner.shape or inner.op.array.size != 1:
        return None
    return call.b.broadcast_to(call.b.apply(Constant.of(inner.op.array.reshape(()), inner.dtype)).output(0), call.shape)


@rule(DimValue)
def fixed_dim_value_to_constant(call: Call) -> Replacement:
    """dim_value(n) -> constant n"""
    extent = call.op.extent
    return None if isinstance(extent, Dim) else call.b.apply(Constant.of(extent, call.dtype)).output(0)


FOLDING = (
    uniform_constant_to_broadcast,
    fixed_dim_value_to_constant,
    broadcast_of_one_element_constant,
    map_below_broadcast,
    fold_constants,
)
