"""Reductions that combine nothing, and reductions of reductions where the order of combining cannot show."""

from __future__ import annotations

from graphcore.ops.reduce import All, Any_, Argmax, Argmin, Max, Min, Prod, Sum
from passes.graph.base import Call, Replacement, rule

__all__ = ["REDUCTIONS"]


@rule(Sum, Prod, Max, Min, All, Any_)
def reduce_of_single_elements(call: Call) -> Replacement:
    """reduce(x) -> reshape(x), where every reduced axis has extent 1; float sums excepted, since 0 + -0 is 0"""
    if any(call.arg(0).shape[a] != 1 for a in call.op.axes) or (call.is_op(Sum) and call.dtype.is_float):
        return None
    return call.arg(0) if not call.op.axes else call.b.reshape(call.inputs[0], shape=call.shape)


@rule(Sum, Prod, Max, Min, All, Any_)
def reduce_without_single_axes(call: Call) -> Replacement:
    """reduce(x, axes) -> reduce(reshape(x), axes longer than 1), for integers and bools"""
    source, axes = call.arg(0).shape, call.op.axes
    long = [a for a in axes if source[a] != 1]
    if call.dtype.is_float or not long or len(long) == len(axes):
        return None
    kept = [a for a in range(len(source)) if a not in axes or source[a] != 1]
    inner = call.b.reshape(call.inputs[0], shape=tuple(source[a] for a in kept))
    return call.b.apply(type(call.op)(tuple(kept.index(a) for a in long)), inner).output(0)


@rule(Sum, Prod, Max, Min, All, Any_)
def reduce_of_reduce(call: Call) -> Replacement:
    """reduce(reduce(x, p), q) -> reduce(x, p and q), for integers and bools"""
    return None if call.dtype.is_float else merged_reductions(call)


def merged_reductions(call: Call) -> Replacement:
    """One reduction for two of the same op."""
    inner = call.arg(0)
    if type(inner.op) is not type(call.op):
        return None
    kept = [a for a in range(len(inner.arg(0).shape)) if a not in inner.op.axes]
    axes = tuple(sorted({*inner.op.axes, *(kept[a] for a in call.op.axes)}))
    return call.b.apply(type(call.op)(axes), inner.inputs[0]).output(0)


@rule(Argmax, Argmin)
def position_of_single_elements(call: Call) -> Replacement:
    """argmax(x) -> 0, where the axis has extent 1"""
    return call.b.full(call.shape, 0, call.dtype) if call.arg(0).shape[call.op.axes[0]] == 1 else None


REDUCTIONS = (reduce_of_single_elements, reduce_without_single_axes, reduce_of_reduce, position_of_single_elements)
