"""Comparisons, logic, bits, selection and conversion; all exact."""

from __future__ import annotations

from graphcore.base.dtypes import DType, as_dtype, bfloat16, float16, float32, float64
from graphcore.ir.op import Op
from graphcore.ops.compare import (
    BitwiseAnd,
    BitwiseOr,
    BitwiseXor,
    Cast,
    Equal,
    Greater,
    GreaterEqual,
    Invert,
    Less,
    LessEqual,
    LogicalAnd,
    LogicalNot,
    LogicalOr,
    LogicalXor,
    NotEqual,
    ShiftLeft,
    ShiftRight,
    StopGradient,
    Where,
)
from passes.graph.base import Call, Replacement, rule
from passes.graph.simplify.algebra import beside

__all__ = ["LOGIC", "holds_all_of"]

_OPPOSITE: dict[type[Op], type[Op]] = {
    Less: GreaterEqual,
    GreaterEqual: Less,
    Greater: LessEqual,
    LessEqual: Greater,
    Equal: NotEqual,
    NotEqual: Equal,
}
_SIGNIFICANT_BITS = {float16: 11, bfloat16: 8, float32: 24, float64: 53}


@rule(LogicalAnd)
def and_with_constant(call: Call) -> Replacement:
    """x and true -> x, x and false -> false"""
    return beside(call, True) or _the_constant(call, False)


@rule(LogicalOr)
def or_with_constant(call: Call) -> Replacement:
    """x or false -> x, x or true -> true"""
    return beside(call, False) or _the_constant(call, True)


@rule(LogicalXor)
def xor_with_constant(call: Call) -> Replacement:
    """x xor false -> x, x xor true -> not x"""
    other = beside(call, True)
    return beside(call, False) if other is None else call.b.logical_not(other.value)


def _the_constant(call: Call, number: int) -> Replacement:
    """The operand that is ``number`` everywhere."""
    return next((arg for arg in call.args if arg.is_number(number)), None)


@rule(LogicalAnd, LogicalOr, BitwiseAnd, BitwiseOr)
def idempotent_pair(call: Call) -> Replacement:
    """x and x -> x, x or x -> x, x & x -> x, x | x -> x"""
    return call.arg(0) if call.arg(0) == call.arg(1) else None


@rule(LogicalXor, BitwiseXor)
def exclusive_or_of_equals(call: Call) -> Replacement:
    """x xor x -> false, x ^ x -> 0"""
    return call.b.full(call.shape, 0, call.dtype) if call.arg(0) == call.arg(1) else None


@rule(LogicalNot, Invert)
def double_complement(call: Call) -> Replacement:
    """not not x -> x, ~~x -> x"""
    inner = call.arg(0)
    return inner.arg(0) if inner.is_op(type(call.op)) else None


@rule(LogicalNot)
def complement_of_comparison(call: Call) -> Replacement:
    """not (a == b) -> a != b; for integers also not (a < b) -> a >= b"""
    inner = call.arg(0)
    opposite = _OPPOSITE.get(type(inner.op))
    if opposite is None or (inner.arg(0).dtype.is_float and not inner.is_op(Equal, NotEqual)):
        return None
    return call.b.apply(opposite(), *inner.inputs).output(0)


@rule(Less, LessEqual, Greater, GreaterEqual, Equal, NotEqual)
def comparison_with_itself(call: Call) -> Replacement:
    """x < x -> false, x > x -> false; for integers also x <= x, x >= x, x == x -> true and x != x -> false"""
    if call.arg(0) != call.arg(1) or (call.arg(0).dtype.is_float and not call.is_op(Less, Greater)):
        return None
    return call.b.full(call.shape, call.is_op(LessEqual, GreaterEqual, Equal), call.dtype)


@rule(BitwiseOr, BitwiseXor, ShiftLeft, ShiftRight)
def bits_with_zero(call: Call) -> Replacement:
    """x | 0 -> x, x ^ 0 -> x, x << 0 -> x, x >> 0 -> x"""
    if call.arg(1).is_number(0):
        return call.arg(0)
    return call.arg(1) if call.op.commutative and call.arg(0).is_number(0) else None


@rule(BitwiseAnd)
def bits_and_constant(call: Call) -> Replacement:
    """x & 0 -> 0, x & all ones -> x"""
    ones = True if call.dtype.is_bool else -1 if call.dtype.is_signed else 2 ** (8 * call.dtype.itemsize) - 1
    return _the_constant(call, 0) or beside(call, ones)


@rule(Where)
def where_decided(call: Call) -> Replacement:
    """where(true, a, b) -> a, where(false, a, b) -> b, where(c, a, a) -> a"""
    condition, yes, no = call.args
    if yes == no:
        return yes
    decided = condition.splat
    return None if decided is None else yes if decided else no


@rule(Where)
def where_not(call: Call) -> Replacement:
    """where(not c, a, b) -> where(c, b, a)"""
    condition, yes, no = call.args
    return call.b.where(condition.inputs[0], no.value, yes.value) if condition.is_op(LogicalNot) else None


@rule(Where)
def where_of_truths(call: Call) -> Replacement:
    """where(c, true, false) -> c, where(c, false, true) -> not c"""
    condition, yes, no = call.args
    if not call.dtype.is_bool:
        return None
    if yes.is_number(True) and no.is_number(False):
        return condition
    return call.b.logical_not(condition.value) if yes.is_number(False) and no.is_number(True) else None


@rule(Where)
def where_nested(call: Call) -> Replacement:
    """where(c, where(c, a, b), d) -> where(c, a, d), where(c, a, where(c, b, d)) -> where(c, a, d)"""
    condition, yes, no = call.args
    if yes.is_op(Where) and yes.arg(0) == condition:
        return call.b.where(condition.value, yes.inputs[1], no.value)
    if no.is_op(Where) and no.arg(0) == condition:
        return call.b.where(condition.value, yes.value, no.inputs[2])
    return None


@rule(Cast)
def cast_to_same_type(call: Call) -> Replacement:
    """cast(x) -> x, where x has the type"""
    return call.arg(0) if call.arg(0).dtype == call.dtype else None


@rule(Cast)
def cast_of_widening_cast(call: Call) -> Replacement:
    """cast(cast(x)) -> cast(x), where the inner cast keeps every value and the outer one does the same to both"""
    inner = call.arg(0)
    if not inner.is_op(Cast):
        return None
    source, middle, target = inner.arg(0).dtype, inner.dtype, call.dtype
    if not holds_all_of(middle, source) or not _same_conversion(source, middle, target):
        return None
    return call.b.cast(inner.inputs[0], dtype=target)


def holds_all_of(wide: DType, narrow: DType) -> bool:
    """Whether every value of ``narrow``, infinities and NaN included, is one of ``wide``."""
    if narrow == wide or narrow.is_bool:
        return True
    if wide.is_bool or (narrow.is_float and not wide.is_float):
        return False
    if narrow.is_float:
        return wide in (float32, float64) and wide.itemsize > narrow.itemsize
    bits = 8 * narrow.itemsize - narrow.is_signed
    if wide.is_float:
        return bits <= _SIGNIFICANT_BITS[wide]
    return bits <= 8 * wide.itemsize - wide.is_signed and (narrow.is_unsigned or wide.is_signed)


def _same_conversion(source: DType, middle: DType, target: DType) -> bool:
    """Whether equal values of ``source`` and ``middle`` become equal values of ``target``."""
    if target.is_integer and middle.is_float != source.is_float:
        return holds_all_of(target, source)  # integers wrap and floats saturate, so all must fit
    if target.rounds and not source.is_float:
        return holds_all_of(_compute(target), source)  # conversion goes through the compute type and could round twice
    return True


def _compute(dtype: DType) -> DType:
    return as_dtype(dtype.compute)


@rule(StopGradient)
def stop_gradient_to_operand(call: Call) -> Replacement:
    """stop_gradient(x) -> x: gradients have been taken"""
    return call.arg(0)


LOGIC = (
    and_with_constant,
    or_with_constant,
    xor_with_constant,
    idempotent_pair,
    exclusive_or_of_equals,
    double_complement,
    complement_of_comparison,
    comparison_with_itself,
    bits_with_zero,
    bits_and_constant,
    where_decided,
    where_not,
    where_of_truths,
    where_nested,
    cast_to_same_type,
    cast_of_widening_cast,
    stop_gradient_to_operand,
)
