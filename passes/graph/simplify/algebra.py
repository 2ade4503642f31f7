"""Arithmetic. Every rule gives the same bits for all operands: signed zeros, infinities, NaN and denormals included."""

from __future__ import annotations

import math

import ml_dtypes

from graphcore.base.dtypes import DType
from graphcore.ops.arithmetic import Abs, Add, AddN, Div, FloorDiv, Maximum, Minimum, Mul, Neg, Pow, Sub
from graphcore.ops.elementwise import Ceil, Floor, Relu, Round, Trunc
from graphcore.ops.smooth import Gaussian
from passes.graph.base import Call, Match, Replacement, rule

__all__ = ["ALGEBRA", "beside", "neutral_zero"]


def beside(call: Call, number: float) -> Match | None:
    """The other operand of a binary op of which one operand is ``number`` everywhere."""
    first, second = call.args
    if second.is_number(number):
        return first
    return second if first.is_number(number) else None


def neutral_zero(dtype: DType) -> int | float:
    """The zero that adds nothing: -0.0 for floats, since -0 + 0 is 0."""
    return -0.0 if dtype.is_float else 0


@rule(Add)
def add_zero(call: Call) -> Replacement:
    """x + -0.0 -> x, for integers x + 0 -> x"""
    return beside(call, neutral_zero(call.dtype))


@rule(Sub)
def subtract_zero(call: Call) -> Replacement:
    """x - 0 -> x"""
    return call.arg(0) if call.arg(1).is_number(0) else None


@rule(Mul)
def multiply_by_one(call: Call) -> Replacement:
    """x * 1 -> x"""
    return beside(call, 1)


@rule(Div)
def divide_by_one(call: Call) -> Replacement:
    """x / 1 -> x"""
    return call.arg(0) if call.arg(1).is_number(1) else None


@rule(FloorDiv)
def integer_divide_by_one(call: Call) -> Replacement:
    """x // 1 -> x, for integers"""
    return call.arg(0) if call.dtype.is_integer and call.arg(1).is_number(1) else None


@rule(Mul)
def multiply_integer_by_zero(call: Call) -> Replacement:
    """x * 0 -> 0, for integers"""
    if not call.dtype.is_integer:
        return None
    first, second = call.args
    return second if second.is_number(0) else first if first.is_number(0) else None


@rule(Mul)
def multiply_by_minus_one(call: Call) -> Replacement:
    """x * -1 -> -x"""
    other = beside(call, -1)
    return None if other is None else call.b.neg(other.value)


@rule(Div)
def divide_by_minus_one(call: Call) -> Replacement:
    """x / -1 -> -x"""
    return call.b.neg(call.inputs[0]) if call.arg(1).is_number(-1) else None


@rule(Div)
def divide_by_power_of_two(call: Call) -> Replacement:
    """x / 2^k -> x * 2^-k, where both are normal numbers"""
    number = call.arg(1).splat
    if not isinstance(number, float) or not math.isfinite(number) or abs(math.frexp(number)[0]) != 0.5:
        return None
    info = ml_dtypes.finfo(call.dtype.storage)  # type: ignore[no-untyped-call]
    low, high = float(info.smallest_normal), float(info.max)
    if not (low <= abs(number) <= high and low <= abs(1 / number) <= high):
        return None
    return call.b.mul(call.inputs[0], 1 / number)


@rule(Neg)
def double_negation(call: Call) -> Replacement:
    """-(-x) -> x"""
    inner = call.arg(0)
    return inner.arg(0) if inner.is_op(Neg) else None


@rule(Add)
def add_negation(call: Call) -> Replacement:
    """a + -b -> a - b"""
    first, second = call.args
    if second.is_op(Neg):
        return call.b.sub(first.value, second.inputs[0])
    return call.b.sub(second.value, first.inputs[0]) if first.is_op(Neg) else None


@rule(Sub)
def subtract_negation(call: Call) -> Replacement:
    """a - -b -> a + b"""
    second = call.arg(1)
    return call.b.add(call.inputs[0], second.inputs[0]) if second.is_op(Neg) else None


@rule(Sub)
def subtract_from_zero(call: Call) -> Replacement:
    """-0.0 - x -> -x, for integers 0 - x -> -x"""
    return call.b.neg(call.inputs[1]) if call.arg(0).is_number(neutral_zero(call.dtype)) else None


@rule(Mul, Div)
def negations_cancel(call: Call) -> Replacement:
    """-a * -b -> a * b, -a / -b -> a / b"""
    first, second = call.args
    return (
        call.b.apply(call.op, first.inputs[0], second.inputs[0]).output(0)
        if first.is_op(Neg) and second.is_op(Neg)
        else None
    )


@rule(Mul)
def factor_absorbs_negation(call: Call) -> Replacement:
    """-x * c -> x * -c, for floats"""
    if not call.dtype.is_float:
        return None
    for i in (1, 0):
        number, other = call.arg(i).splat, call.arg(1 - i)
        if number is not None and other.is_op(Neg):
            return call.b.mul(other.inputs[0], -number)
    return None


@rule(Abs)
def absolute_of_signed(call: Call) -> Replacement:
    """|-x| -> |x|, ||x|| -> |x|; |x| -> x for unsigned integers"""
    inner = call.arg(0)
    if call.dtype.is_unsigned or inner.is_op(Abs):
        return inner
    return call.b.abs(inner.inputs[0]) if inner.is_op(Neg) else None


@rule(Mul)
def square_of_absolute(call: Call) -> Replacement:
    """|x| * |x| -> x * x"""
    first, second = call.args
    return call.b.mul(first.inputs[0], first.inputs[0]) if first.is_op(Abs) and first == second else None


@rule(Pow)
def power_of_zero_exponent(call: Call) -> Replacement:
    """x ** 0 -> 1, also for NaN"""
    exponent = call.arg(1).splat
    return call.b.full(call.shape, 1, call.dtype) if exponent is not None and exponent == 0 else None


@rule(Pow)
def integer_power(call: Call) -> Replacement:
    """x ** 1 -> x, x ** 2 -> x * x, for integers"""
    if not call.dtype.is_integer:
        return None
    x, exponent = call.args
    if exponent.is_number(1):
        return x
    return call.b.mul(x.value, x.value) if exponent.is_number(2) else None


@rule(Maximum, Minimum)
def extreme_of_equals(call: Call) -> Replacement:
    """max(x, x) -> x, min(x, x) -> x"""
    return call.arg(0) if call.arg(0) == call.arg(1) else None


@rule(Floor, Ceil, Trunc, Round)
def rounding_of_whole_number(call: Call) -> Replacement:
    """floor(ceil(x)) -> ceil(x), and so for all pairs of floor, ceil, trunc and round"""
    return call.arg(0) if call.arg(0).is_op(Floor, Ceil, Trunc, Round) else None


@rule(Relu)
def relu_of_relu(call: Call) -> Replacement:
    """relu(relu(x)) -> relu(x)"""
    return call.arg(0) if call.arg(0).is_op(Relu) else None


@rule(Gaussian)
def gaussian_in_parts(call: Call) -> Replacement:
    """gaussian(x) -> exp(-(x * x)), whose parts others may share, but for half types, which round once"""
    if call.dtype.rounds:
        return None
    return call.b.exp(call.b.neg(call.b.mul(call.inputs[0], call.inputs[0])))


@rule(AddN)
def add_n_without_zeros(call: Call) -> Replacement:
    """a + -0.0 + b -> a + b in a sum of many, for integers with 0"""
    zero = neutral_zero(call.dtype)
    kept = [arg for arg in call.args if not arg.is_number(zero)]
    if len(kept) == len(call.inputs):
        return None
    return call.b.add_n(*(arg.value for arg in kept)) if kept else call.arg(0)


@rule(AddN)
def add_n_of_few(call: Call) -> Replacement:
    """add_n(x) -> x, add_n(x, y) -> x + y"""
    if len(call.inputs) == 1:
        return call.arg(0)
    return call.b.add(*call.inputs) if len(call.inputs) == 2 else None


ALGEBRA = (
    add_zero,
    subtract_zero,
    multiply_by_one,
    divide_by_one,
    integer_divide_by_one,
    multiply_integer_by_zero,
    multiply_by_minus_one,
    divide_by_minus_one,
    divide_by_power_of_two,
    double_negation,
    add_negation,
    subtract_negation,
    subtract_from_zero,
    negations_cancel,
    factor_absorbs_negation,
    absolute_of_signed,
    square_of_absolute,
    power_of_zero_exponent,
    integer_power,
    extreme_of_equals,
    rounding_of_whole_number,
    relu_of_relu,
    gaussian_in_parts,
    add_n_without_zeros,
    add_n_of_few,
)
