"""For every exact rule of simplify: a graph that it changes, and what it becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphcore.api.tensor import Builder, Tensor, wrap
from graphcore.base import dtypes
from graphcore.base.dtypes import as_dtype
from graphcore.base.shapes import Dim
from graphcore.ir.leaves import Constant
from graphcore.ir.node import make_node

__all__ = ["ELEMENTWISE", "SHAPED", "Elementwise", "Shaped", "constant_of"]

FLOATS = ("float32", "float16", "bfloat16", "float64")
INTEGERS = ("int32", "int8", "uint8", "int64")
BOOL = ("bool",)
SIGNED = ("int32", "int8", "int64")
NUMBERS = (*FLOATS, *INTEGERS)


def constant_of(values: Any, dtype: str = "float32") -> Tensor:
    """An array constant."""
    return wrap(make_node(Constant.of(np.asarray(values), as_dtype(dtype)), ()).output())


@dataclass(frozen=True)
class Elementwise:
    """``build(b, x, y, ...)`` over operands of each of ``types``; ``after`` is the result for the first type."""

    rule: str
    types: tuple[str, ...]
    operands: int
    build: Callable[..., Tensor]
    after: str

    def __str__(self) -> str:
        return f"{self.rule}-{self.after}"


@dataclass(frozen=True)
class Shaped:
    """``build(b, x)`` over an operand of a shape and type."""

    rule: str
    shape: tuple[Any, ...]
    build: Callable[..., Tensor]
    after: str
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.rule}-{self.after}"


def _full(b: Builder, x: Tensor, number: Any) -> Tensor:
    return b.full(x.shape, number, x.dtype)


def _zero(b: Builder, x: Tensor) -> Tensor:
    return _full(b, x, -0.0 if x.dtype.is_float else 0)


def _cast(*names: str) -> Callable[..., Tensor]:
    def build(b: Builder, x: Tensor) -> Tensor:
        for name in names:
            x = b.cast(x, dtype=as_dtype(name))
        return x

    return build


E = Elementwise
ELEMENTWISE = (
    E("add_zero", NUMBERS, 1, lambda b, x: b.add(x, _zero(b, x)), "x"),
    E("add_zero", NUMBERS, 1, lambda b, x: b.add(_zero(b, x), x), "x"),
    E("subtract_zero", NUMBERS, 1, lambda b, x: b.sub(x, 0), "x"),
    E("multiply_by_one", NUMBERS, 1, lambda b, x: b.mul(1, x), "x"),
    E("divide_by_one", FLOATS, 1, lambda b, x: b.div(x, 1), "x"),
    E("integer_divide_by_one", INTEGERS, 1, lambda b, x: b.floor_divide(x, 1), "x"),
    E("multiply_integer_by_zero", INTEGERS, 1, lambda b, x: b.mul(x, 0), "0"),
    E("multiply_by_minus_one", (*FLOATS, *SIGNED), 1, lambda b, x: b.mul(x, -1), "neg(x)"),
    E("divide_by_minus_one", FLOATS, 1, lambda b, x: b.div(x, -1), "neg(x)"),
    E("divide_by_power_of_two", FLOATS, 1, lambda b, x: b.div(x, 4), "mul(x, 0.25)"),
    E("divide_by_power_of_two", FLOATS, 1, lambda b, x: b.div(x, -0.125), "mul(x, -8.0)"),
    E("double_negation", NUMBERS, 1, lambda b, x: b.neg(b.neg(x)), "x"),
    E("add_negation", NUMBERS, 2, lambda b, x, y: b.add(x, b.neg(y)), "sub(x, y)"),
    E("add_negation", NUMBERS, 2, lambda b, x, y: b.add(b.neg(x), y), "sub(y, x)"),
    E("subtract_negation", NUMBERS, 2, lambda b, x, y: b.sub(x, b.neg(y)), "add(x, y)"),
    E("subtract_from_zero", NUMBERS, 1, lambda b, x: b.sub(_zero(b, x), x), "neg(x)"),
    E("negations_cancel", NUMBERS, 2, lambda b, x, y: b.mul(b.neg(x), b.neg(y)), "mul(x, y)"),
    E("negations_cancel", FLOATS, 2, lambda b, x, y: b.div(b.neg(x), b.neg(y)), "div(x, y)"),
    E("factor_absorbs_negation", FLOATS, 1, lambda b, x: b.mul(3, b.neg(x)), "mul(x, -3.0)"),
    E("absolute_of_signed", (*FLOATS, *SIGNED), 1, lambda b, x: b.abs(b.neg(x)), "abs(x)"),
    E("absolute_of_signed", (*FLOATS, *SIGNED), 1, lambda b, x: b.abs(b.abs(x)), "abs(x)"),
    E("absolute_of_signed", ("uint8", "uint32"), 1, lambda b, x: b.abs(b.neg(x)), "neg(x)"),
    E("square_of_absolute", (*FLOATS, *SIGNED), 1, lambda b, x: b.mul(b.abs(x), b.abs(x)), "mul(x, x)"),
    E("power_of_zero_exponent", NUMBERS, 1, lambda b, x: b.pow(x, 0), "1.0"),
    E("integer_power", INTEGERS, 1, lambda b, x: b.pow(x, 1), "x"),
    E("integer_power", INTEGERS, 1, lambda b, x: b.pow(x, 2), "mul(x, x)"),
    E("extreme_of_equals", NUMBERS, 1, lambda b, x: b.maximum(x, x), "x"),
    E("extreme_of_equals", NUMBERS, 1, lambda b, x: b.minimum(x, x), "x"),
    E("rounding_of_whole_number", FLOATS, 1, lambda b, x: b.floor(b.ceil(x)), "ceil(x)"),
    E("rounding_of_whole_number", FLOATS, 1, lambda b, x: b.round(b.trunc(x)), "trunc(x)"),
    E("relu_of_relu", FLOATS, 1, lambda b, x: b.relu(b.relu(x)), "relu(x)"),
    E("gaussian_in_parts", ("float32", "float64"), 1, lambda b, x: b.gaussian(x), "exp(neg(mul(x, x)))"),
    E("add_n_without_zeros", NUMBERS, 3, lambda b, x, y, z: b.add_n(x, _zero(b, x), y, z), "add_n(x, y, z)"),
    E("add_n_without_zeros", NUMBERS, 1, lambda b, x: b.add_n(_zero(b, x), _zero(b, x), _zero(b, x)), "-0.0"),
    E("add_n_of_few", NUMBERS, 1, lambda b, x: b.add_n(x), "x"),
    E("add_n_of_few", NUMBERS, 2, lambda b, x, y: b.add_n(x, y), "add(x, y)"),
    E("and_with_constant", BOOL, 1, lambda b, x: b.logical_and(x, True), "x"),
    E("and_with_constant", BOOL, 1, lambda b, x: b.logical_and(False, x), "False"),
    E("or_with_constant", BOOL, 1, lambda b, x: b.logical_or(False, x), "x"),
    E("or_with_constant", BOOL, 1, lambda b, x: b.logical_or(x, True), "True"),
    E("xor_with_constant", BOOL, 1, lambda b, x: b.logical_xor(x, False), "x"),
    E("xor_with_constant", BOOL, 1, lambda b, x: b.logical_xor(x, True), "logical_not(x)"),
    E("idempotent_pair", BOOL, 1, lambda b, x: b.logical_or(x, x), "x"),
    E("idempotent_pair", (*INTEGERS, "bool"), 1, lambda b, x: b.bitwise_and(x, x), "x"),
    E("exclusive_or_of_equals", BOOL, 1, lambda b, x: b.logical_xor(x, x), "False"),
    E("exclusive_or_of_equals", (*INTEGERS, "bool"), 1, lambda b, x: b.bitwise_xor(x, x), "0"),
    E("double_complement", BOOL, 1, lambda b, x: b.logical_not(b.logical_not(x)), "x"),
    E("double_complement", (*INTEGERS, "bool"), 1, lambda b, x: b.bitwise_invert(b.bitwise_invert(x)), "x"),
    E("complement_of_comparison", NUMBERS, 2, lambda b, x, y: b.logical_not(b.equal(x, y)), "not_equal(x, y)"),
    E("complement_of_comparison", INTEGERS, 2, lambda b, x, y: b.logical_not(b.less(x, y)), "greater_equal(x, y)"),
    E("comparison_with_itself", NUMBERS, 1, lambda b, x: b.less(x, x), "False"),
    E("comparison_with_itself", NUMBERS, 1, lambda b, x: b.greater(x, x), "False"),
    E("comparison_with_itself", INTEGERS, 1, lambda b, x: b.less_equal(x, x), "True"),
    E("comparison_with_itself", (*INTEGERS, "bool"), 1, lambda b, x: b.not_equal(x, x), "False"),
    E("bits_with_zero", INTEGERS, 1, lambda b, x: b.bitwise_xor(0, x), "x"),
    E("bits_with_zero", (*INTEGERS, "bool"), 1, lambda b, x: b.bitwise_or(x, 0), "x"),
    E("bits_with_zero", INTEGERS, 1, lambda b, x: b.bitwise_right_shift(x, 0), "x"),
    E("bits_and_constant", INTEGERS, 1, lambda b, x: b.bitwise_and(0, x), "0"),
    E("bits_and_constant", SIGNED, 1, lambda b, x: b.bitwise_and(x, -1), "x"),
    E("bits_and_constant", ("uint8",), 1, lambda b, x: b.bitwise_and(x, 255), "x"),
    E("where_decided", NUMBERS, 2, lambda b, x, y: b.where(b.full(x.shape, True, dtypes.bool_), x, y), "x"),
    E("where_decided", NUMBERS, 2, lambda b, x, y: b.where(b.full(x.shape, False, dtypes.bool_), x, y), "y"),
    E("where_decided", NUMBERS, 2, lambda b, x, y: b.where(b.less(x, y), y, y), "y"),
    E("where_not", BOOL, 3, lambda b, x, y, z: b.where(b.logical_not(x), y, z), "where(x, z, y)"),
    E("where_of_truths", BOOL, 1, lambda b, x: b.where(x, _full(b, x, True), _full(b, x, False)), "x"),
    E("where_of_truths", BOOL, 1, lambda b, x: b.where(x, _full(b, x, False), _full(b, x, True)), "logical_not(x)"),
    E("where_nested", BOOL, 4, lambda b, c, x, y, z: b.where(c, b.where(c, x, y), z), "where(x, y, w)"),
    E("where_nested", BOOL, 4, lambda b, c, x, y, z: b.where(c, x, b.where(c, y, z)), "where(x, y, w)"),
    E("cast_to_same_type", ("int32",), 1, _cast("int32"), "x"),
    E("cast_of_widening_cast", ("bfloat16", "float16"), 1, _cast("float32", "int8"), "cast(x, dtype=int8)"),
    E("cast_of_widening_cast", ("float32",), 1, _cast("float64", "float32"), "x"),
    E("cast_of_widening_cast", ("uint8",), 1, _cast("float16", "bool"), "cast(x, dtype=bool)"),
    E("stop_gradient_to_operand", (*NUMBERS, "bool"), 1, lambda b, x: b.stop_gradient(x), "x"),
)

S = Shaped
N = Dim("n")
SHAPED = (
    S("same_shape_to_operand", (2, 3), lambda b, x: b.reshape(x, shape=(2, 3)), "x"),
    S("same_shape_to_operand", (2, 3), lambda b, x: b.broadcast(x, shape=(2, 3)), "x"),
    S("same_shape_to_operand", (2, 3), lambda b, x: b.require_shape(x, shape=(2, 3)), "x"),
    S("same_shape_to_operand", (N, 3), lambda b, x: b.require_shape(x, shape=(N, 3)), "x"),
    S(
        "reshape_of_reshape",
        (2, 3),
        lambda b, x: b.reshape(b.reshape(x, shape=(6,)), shape=(3, 2)),
        "reshape(x, shape=(3, 2))",
    ),
    S(
        "view_of_uniform",
        (),
        lambda b, x: b.reshape(b.broadcast(x, shape=(2, 3)), shape=(6,)),
        "broadcast(x, shape=(6))",
    ),
    S(
        "view_of_uniform",
        (1, 1),
        lambda b, x: b.permute(b.broadcast(x, shape=(2, 3)), axes=(1, 0)),
        "broadcast(reshape(x, shape=()), shape=(3, 2))",
    ),
    S(
        "view_of_uniform",
        (),
        lambda b, x: b.slice(b.broadcast(x, shape=(9,)), starts=(1,), lengths=(2,), steps=(3,)),
        "broadcast(x, shape=(2))",
    ),
    S(
        "permute_of_permute",
        (2, 3, 4),
        lambda b, x: b.permute(b.permute(x, axes=(2, 0, 1)), axes=(0, 2, 1)),
        "permute(x, axes=(2, 1, 0))",
    ),
    S("permute_of_permute", (2, 3, 4), lambda b, x: b.permute(b.permute(x, axes=(2, 0, 1)), axes=(1, 2, 0)), "x"),
    S(
        "permute_in_order_to_reshape",
        (2, 1, 4),
        lambda b, x: b.permute(x, axes=(1, 0, 2)),
        "reshape(x, shape=(1, 2, 4))",
    ),
    S("permute_in_order_to_reshape", (2, 3), lambda b, x: b.permute(x, axes=(0, 1)), "x"),
    S("permute_in_order_to_reshape", (1, 1), lambda b, x: b.permute(x, axes=(1, 0)), "x"),
    S(
        "broadcast_of_broadcast",
        (3,),
        lambda b, x: b.broadcast(b.broadcast(x, shape=(2, 3)), shape=(4, 2, 3)),
        "broadcast(x, shape=(4, 2, 3))",
    ),
    S(
        "broadcast_of_added_axes",
        (3,),
        lambda b, x: b.broadcast(b.reshape(x, shape=(1, 1, 3)), shape=(4, 2, 3)),
        "broadcast(x, shape=(4, 2, 3))",
    ),
    S("broadcast_to_reshape", (3,), lambda b, x: b.broadcast(x, shape=(1, 1, 3)), "reshape(x, shape=(1, 1, 3))"),
    S("slice_of_all", (2, 3), lambda b, x: b.slice(x, starts=(0, 0), lengths=(2, 3), steps=(1, 1)), "x"),
    S(
        "slice_of_slice",
        (20,),
        lambda b, x: b.slice(b.slice(x, starts=(3,), lengths=(6,), steps=(2,)), starts=(1,), lengths=(2,), steps=(3,)),
        "slice(x, starts=(5), lengths=(2), steps=(6))",
    ),
    S(
        "slice_of_pad",
        (4,),
        lambda b, x: b.slice(b.pad(x, low=(2,), high=(3,), gaps=(0,)), starts=(3,), lengths=(2,), steps=(2,)),
        "slice(x, starts=(1), lengths=(2), steps=(2))",
    ),
    S(
        "slice_of_concat",
        (4, 2),
        lambda b, x: b.slice(b.concat(b.neg(x), x, axis=0), starts=(5, 0), lengths=(2, 2), steps=(2, 1)),
        "slice(x, starts=(1, 0), lengths=(2, 2), steps=(2, 1))",
    ),
    S("flip_of_nothing", (2, 3), lambda b, x: b.flip(x, axes=()), "x"),
    S("flip_of_nothing", (1, 3), lambda b, x: b.flip(x, axes=(0, 1)), "flip(x, axes=(1))"),
    S("flip_of_flip", (2, 3), lambda b, x: b.flip(b.flip(x, axes=(0, 1)), axes=(0,)), "flip(x, axes=(1))"),
    S("flip_of_flip", (2, 3), lambda b, x: b.flip(b.flip(x, axes=(0, 1)), axes=(0, 1)), "x"),
    S("concat_of_one", (2, 3), lambda b, x: b.concat(x, axis=0), "x"),
    S(
        "concat_of_one",
        (2, 3),
        lambda b, x: b.concat(x, b.slice(x, starts=(0, 0), lengths=(0, 3), steps=(1, 1)), b.neg(x), axis=0),
        "concat(x, neg(x), axis=0)",
    ),
    S("pad_with_nothing", (2, 3), lambda b, x: b.pad(x, low=(0, 0), high=(0, 0), gaps=(0, 0)), "x"),
    S(
        "pad_of_pad",
        (2,),
        lambda b, x: b.pad(b.pad(x, low=(1,), high=(2,), gaps=(0,)), low=(3,), high=(0,), gaps=(0,)),
        "pad(x, low=(4), high=(2), gaps=(0))",
    ),
    S("reduce_of_single_elements", (2, 1), lambda b, x: b.max(x, axes=(1,)), "reshape(x, shape=(2))"),
    S("reduce_of_single_elements", (2, 3), lambda b, x: b.prod(x, axes=()), "x"),
    S("reduce_of_single_elements", (1, 3), lambda b, x: b.sum(x, axes=(0,)), "reshape(x, shape=(3))", "int32"),
    S(
        "reduce_without_single_axes",
        (2, 1, 3),
        lambda b, x: b.sum(x, axes=(1, 2)),
        "sum(reshape(x, shape=(2, 3)), axes=(1))",
        "int32",
    ),
    S("reduce_of_reduce", (2, 3, 4), lambda b, x: b.sum(b.sum(x, axes=(1,)), axes=(1,)), "sum(x, axes=(1, 2))", "int8"),
    S("reduce_of_reduce", (2, 3, 4), lambda b, x: b.any(b.any(x, axes=(0,)), axes=(1,)), "any(x, axes=(0, 2))", "bool"),
    S("position_of_single_elements", (2, 1), lambda b, x: b.argmax(x, axes=(1,)), "0"),
    S(
        "map_below_broadcast",
        (3,),
        lambda b, x: b.tanh(b.broadcast(x, shape=(2, 3))),
        "broadcast(tanh(x), shape=(2, 3))",
    ),
    S(
        "map_below_broadcast",
        (3,),
        lambda b, x: b.add(b.broadcast(x, shape=(2, 3)), 2.5),
        "broadcast(add(x, 2.5), shape=(2, 3))",
    ),
    S(
        "map_below_broadcast",
        (3,),
        lambda b, x: b.mul(b.broadcast(x, shape=(N, 3)), b.broadcast(b.exp(x), shape=(N, 3))),
        "broadcast(mul(x, exp(x)), shape=(n, 3))",
    ),
    S(
        "map_below_broadcast",
        (3, 1),
        lambda b, x: b.mul(
            b.broadcast(x, shape=(2, 3, 4)),
            b.broadcast(b.slice(x, starts=(0, 0), lengths=(1, 1), steps=(1, 1)), shape=(2, 3, 4)),
        ),
        "broadcast(mul(x, broadcast(slice(x, starts=(0, 0), lengths=(1, 1), steps=(1, 1)), shape=(3, 1))),"
        " shape=(2, 3, 4))",
    ),
    S(
        "fold_constants",
        (3,),
        lambda b, x: b.add(x, b.mul(constant_of([1, 2, 3]), constant_of([2, 2, 5]))),
        "add(x, constant(<3>))",
    ),
    S("fold_constants", (2,), lambda b, x: b.add(x, b.max(b.full((2, 3), 1.5, x.dtype), axes=(1,))), "add(x, 1.5)"),
    S(
        "fold_constants",
        (2,),
        lambda b, x: b.mul(x, b.broadcast(b.sqrt(b.sub(constant_of(2.5), constant_of(1.5))), shape=(2,))),
        "x",
    ),
    S("uniform_constant_to_broadcast", (3,), lambda b, x: b.mul(x, constant_of([1, 1, 1])), "x"),
    S(
        "broadcast_of_one_element_constant",
        (3,),
        lambda b, x: b.add(x, b.broadcast(constant_of([7]), shape=(3,))),
        "add(x, 7.0)",
    ),
    S("fixed_dim_value_to_constant", (), lambda b, x: b.mul(x, b.dim_value(extent=7, dtype=x.dtype)), "mul(x, 7.0)"),
)
