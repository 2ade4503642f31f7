"""Rules that may change a rounding, the sign of a zero, or what becomes of NaN and infinities. Off unless asked for."""

from __future__ import annotations

import math

from graphcore.base.shapes import Dim
from graphcore.ops.arithmetic import Add, AddN, Div, Mul, Pow, Sub
from graphcore.ops.elementwise import Exp, Log, Sqrt
from graphcore.ops.reduce import Max, Min, Prod, Sum
from graphcore.ops.view import Broadcast
from passes.graph.base import Call, Replacement, rule
from passes.graph.simplify.algebra import beside
from passes.graph.simplify.reductions import merged_reductions

__all__ = ["INEXACT"]

_ADDENDS = 64  # sums are flattened up to this many operands, so that chains of sums stay linear


@rule(Add, contract="ignores-sign-of-zero")
def add_positive_zero(call: Call) -> Replacement:
    """x + 0.0 -> x, which is 0.0 for x = -0.0"""
    return beside(call, 0)


@rule(Sum, contract="ignores-sign-of-zero")
def sum_of_single_elements(call: Call) -> Replacement:
    """sum(x) -> reshape(x), where every summed axis has extent 1"""
    if any(call.arg(0).shape[a] != 1 for a in call.op.axes):
        return None
    return call.arg(0) if not call.op.axes else call.b.reshape(call.inputs[0], shape=call.shape)


@rule(Sub, contract="ignores-nan")
def subtract_itself(call: Call) -> Replacement:
    """x - x -> 0, which is NaN for infinite x"""
    return call.b.zeros_like(call.value) if call.arg(0) == call.arg(1) else None


@rule(Div, contract="ignores-nan")
def divide_by_itself(call: Call) -> Replacement:
    """x / x -> 1, which is NaN for zero and infinite x"""
    return call.b.full(call.shape, 1, call.dtype) if call.arg(0) == call.arg(1) else None


@rule(Mul, contract="ignores-nan")
def multiply_by_zero(call: Call) -> Replacement:
    """x * 0 -> 0, which is NaN for infinite x and -0.0 for negative x"""
    return call.b.zeros_like(call.value) if beside(call, 0) or beside(call, -0.0) else None


@rule(Log, contract="ignores-nan")
def log_of_exp(call: Call) -> Replacement:
    """log(exp(x)) -> x, which overflows for large x"""
    return call.arg(0).arg(0) if call.arg(0).is_op(Exp) else None


@rule(Sqrt, contract="ignores-nan")
def root_of_square(call: Call) -> Replacement:
    """sqrt(x * x) -> |x|, which overflows for large x"""
    inner = call.arg(0)
    return call.b.abs(inner.inputs[0]) if inner.is_op(Mul) and inner.arg(0) == inner.arg(1) else None


@rule(Mul, contract="ignores-nan")
def product_of_exponentials(call: Call) -> Replacement:
    """exp(a) * exp(b) -> exp(a + b), which is NaN for one infinite and one zero factor"""
    first, second = call.args
    return call.b.exp(call.b.add(first.inputs[0], second.inputs[0])) if first.is_op(Exp) and second.is_op(Exp) else None


@rule(Pow, contract="reassociates")
def float_power(call: Call) -> Replacement:
    """x ** 1 -> x, x ** 2 -> x * x, x ** -1 -> 1 / x: more accurate than a power, so the last bit may differ"""
    exponent = call.arg(1).splat
    if exponent == 1:
        return call.arg(0)
    if exponent == 2:
        return call.b.mul(call.inputs[0], call.inputs[0])
    return call.b.reciprocal(call.inputs[0]) if exponent == -1 and call.dtype.is_float else None


@rule(AddN, contract="reassociates")
def add_n_of_sums(call: Call) -> Replacement:
    """add_n(add_n(a, b), c) -> add_n(a, b, c)"""
    parts = [arg.inputs if arg.is_op(AddN, Add) else (arg.value,) for arg in call.args]
    flat = [t for part in parts for t in part]
    return call.b.add_n(*flat) if len(call.inputs) < len(flat) <= _ADDENDS else None


@rule(Mul, contract="reassociates")
def factors_combine(call: Call) -> Replacement:
    """(x * c) * d -> x * (c * d)"""
    for i in (1, 0):
        outer, inner = call.arg(i).splat, call.arg(1 - i)
        if outer is None or not inner.is_op(Mul):
            continue
        for j in (1, 0):
            factor = inner.arg(j).splat
            if factor is not None and call.dtype.is_float and math.isfinite(outer * factor):
                return call.b.mul(inner.inputs[1 - j], outer * factor)
    return None


@rule(Sum, Prod, Max, Min, contract="reassociates")
def float_reduce_of_reduce(call: Call) -> Replacement:
    """sum(sum(x, p), q) -> sum(x, p and q), and so for prod, max and min"""
    return merged_reductions(call)


@rule(Sum, contract="reassociates")
def sum_over_broadcast(call: Call) -> Replacement:
    """sum(broadcast(x)) -> n * sum(x), for the n copies that the sum adds up"""
    inner = call.arg(0)
    if not inner.is_op(Broadcast) or not call.dtype.is_float:
        return None
    source = inner.arg(0).shape
    lead = len(inner.shape) - len(source)
    copies, rest = 1, []
    for a in call.op.axes:
        extent = inner.shape[a]
        if a >= lead and source[a - lead] == extent:
            rest.append(a)
        elif isinstance(extent, Dim):
            return None
        else:
            copies *= extent
    if len(rest) == len(call.op.axes):
        return None
    gone = set(call.op.axes) - set(rest)
    kept = [a for a in range(len(inner.shape)) if a not in gone]
    squeezed = call.b.reshape(inner.inputs[0], shape=tuple(e for a, e in enumerate(source) if a + lead not in gone))
    spread = call.b.broadcast_to(squeezed, tuple(inner.shape[a] for a in kept))
    total = call.b.apply(Sum(tuple(kept.index(a) for a in rest)), spread).output(0) if rest else spread
    return call.b.mul(total, copies)


INEXACT = (
    add_positive_zero,
    sum_of_single_elements,
    subtract_itself,
    divide_by_itself,
    multiply_by_zero,
    log_of_exp,
    root_of_square,
    product_of_exponentials,
    float_power,
    add_n_of_sums,
    factors_combine,
    float_reduce_of_reduce,
    sum_over_broadcast,
)
