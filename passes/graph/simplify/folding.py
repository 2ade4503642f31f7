"""Constants: what can be computed now is; what is uniform stays one number and its broadcast."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphcore.base.shapes import Dim, broadcast_shapes, is_static, product
from graphcore.ir.leaves import Constant
from graphcore.ir.op import Kind, Map, Op
from graphcore.ops.positions import DimValue
from graphcore.ops.view import Broadcast
from passes.graph.base import Call, Replacement, Value, rule

__all__ = ["FOLDING"]

BUDGET = 4096  # elements a computed constant may have if its operands have fewer


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
    """f(constants) -> constant, unless the result is large or a broadcast"""
    op = call.op
    if (
        op.kind in (Kind.LEAF, Kind.REGION)
        or not call.inputs
        or isinstance(op, Broadcast)
        or type(op).reference is Op.reference
    ):
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


def _is_constant(value: Value, views: bool) -> bool:
    return value.is_op(Constant) or (views and value.is_op(Broadcast) and value.arg(0).is_op(Constant))


def _array(value: Value) -> np.ndarray[Any, Any]:
    if value.is_op(Constant):
        return value.op.array  # type: ignore[no-any-return]
    return np.broadcast_to(value.arg(0).op.array, value.shape)  # type: ignore[arg-type]


def _computed(call: Call, arrays: list[np.ndarray[Any, Any]]) -> Replacement:
    """The op's reference over arrays, as constants; None where it has no answer (an integer to a negative power)."""
    try:
        with np.errstate(all="ignore"):
            answer = call.op.reference(*arrays)
    except (ArithmeticError, ValueError):
        return None
    results = answer if isinstance(answer, tuple) else (answer,)
    if any(np.shape(r) != t.shape for r, t in zip(results, call.node.types, strict=True)):
        return None
    return [call.b.apply(Constant.of(r, t.dtype)).output(0) for r, t in zip(results, call.node.types, strict=True)]


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
