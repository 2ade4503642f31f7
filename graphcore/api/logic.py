"""Comparisons, logic, bits, tests of numbers and choices, elementwise. Operands broadcast and promote as in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphcore.api.elementwise import (
    BinaryFunction,
    UnaryFunction,
    abs,
    add,
    copysign,
    multiply,
    named,
    refuse_bool,
    subtract,
)
from graphcore.api.operands import align, aligned, build, fail, full, is_operand, promote, tensor
from graphcore.api.tensor import Tensor
from graphcore.base import dtypes
from graphcore.base.dtypes import DType
from graphcore.base.errors import DTypeError

# fmt: off
__all__ = [
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "clip",
    "equal",
    "greater",
    "greater_equal",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "nan_to_num",
    "not_equal",
    "signbit",
    "where",
]
# fmt: on


def _comparison(name: str, formula: str) -> BinaryFunction:
    def function(x1: Any, x2: Any) -> Tensor:
        return build(name, *aligned(name, x1, x2))

    return named(
        function,
        name,
        f"Whether {formula}, elementwise; bool. Shapes broadcast.\n\n"
        f"    Raises:\n        ShapeError: the shapes do not broadcast.\n\n"
        f"    >>> {name}([1, 2], 2).dtype\n    bool\n    ",
    )


def as_bool(x: Any) -> Tensor:
    """``x`` as bool: whether each element is not zero."""
    t = tensor("bool", x)
    return t if t.dtype.is_bool else not_equal(t, 0)


def _logical(name: str, formula: str) -> BinaryFunction:
    def function(x1: Any, x2: Any) -> Tensor:
        return build(name, *aligned(name, as_bool(x1), as_bool(x2)))

    return named(
        function,
        name,
        f"{formula}, elementwise; numbers are true where not zero. Shapes broadcast.\n\n"
        f"    Raises:\n        ShapeError: the shapes do not broadcast.\n\n"
        f"    >>> {name}([True, False], True).dtype\n    bool\n    ",
    )


def _bitwise(name: str, formula: str, shift: bool = False) -> BinaryFunction:
    def function(x1: Any, x2: Any) -> Tensor:
        tensors = aligned(name, x1, x2)
        if tensors[0].dtype.is_float or (shift and tensors[0].dtype.is_bool):
            raise fail(
                DTypeError,
                f"{name}: operands are {tensors[0].dtype}, but {name} takes integers{'' if shift else ' or bools'}; "
                f"cast with .astype('int32')",
                *tensors,
            )
        return build(name, *tensors)

    kinds = "integers" if shift else "integers or bools"
    return named(
        function,
        name,
        f"{formula}, elementwise; {kinds}. Shapes broadcast.\n\n"
        f"    Raises:\n        ShapeError: the shapes do not broadcast.\n        DTypeError: floating operands.\n\n"
        f"    >>> {name}([1, 2], 3).dtype\n    int64\n    ",
    )


less = _comparison("less", "x1 < x2")
less_equal = _comparison("less_equal", "x1 <= x2")
greater = _comparison("greater", "x1 > x2")
greater_equal = _comparison("greater_equal", "x1 >= x2")
equal = _comparison("equal", "x1 == x2")
not_equal = _comparison("not_equal", "x1 != x2")

logical_and = _logical("logical_and", "x1 and x2")
logical_or = _logical("logical_or", "x1 or x2")
logical_xor = _logical("logical_xor", "Exactly one of x1, x2")

bitwise_and = _bitwise("bitwise_and", "x1 & x2")
bitwise_or = _bitwise("bitwise_or", "x1 | x2")
bitwise_xor = _bitwise("bitwise_xor", "x1 ^ x2")
bitwise_left_shift = _bitwise("bitwise_left_shift", "x1 << x2", True)
bitwise_right_shift = _bitwise("bitwise_right_shift", "x1 >> x2", True)


def logical_not(x: Any) -> Tensor:
    """not x, elementwise; numbers count as true where not zero.

    >>> logical_not([True, False]).shape
    (2,)
    """
    return build("logical_not", as_bool(x))


def bitwise_invert(x: Any) -> Tensor:
    """~x, elementwise; integers or bools.

    >>> bitwise_invert([1, 2]).dtype
    int64
    """
    t = tensor("bitwise_invert", x)
    if t.dtype.is_float:
        raise fail(
            DTypeError,
            f"bitwise_invert: the operand is {t.dtype}, but bitwise_invert takes integers or bools; cast with "
            f".astype('int32')",
            t,
        )
    return build("bitwise_invert", t)


def _classify(name: str, value_for_integers: bool, formula: str) -> UnaryFunction:
    def function(x: Any) -> Tensor:
        t = tensor(name, x)
        return build(name, t) if t.dtype.is_float else full(t.shape, value_for_integers, dtypes.bool_)

    return named(
        function, name, f"Whether x is {formula}, elementwise; bool.\n\n    >>> {name}([1.0]).dtype\n    bool\n    "
    )


isnan = _classify("isnan", False, "not a number")
isinf = _classify("isinf", False, "infinite")
isfinite = _classify("isfinite", True, "neither infinite nor NaN")


def signbit(x: Any) -> Tensor:
    """Whether x is negative, also -0.0, elementwise.

    >>> signbit([-0.0]).dtype
    bool
    """
    t = tensor("signbit", x)
    return less(copysign(1.0, t), 0) if t.dtype.is_float else less(t, 0)


def isclose(x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether |x1 - x2| <= atol + rtol |x2|, elementwise; equal infinities are close.

    >>> isclose([1.0], [1.0]).dtype
    bool
    """
    a, b = aligned("isclose", x1, x2, floating=True)
    near = less_equal(abs(subtract(a, b)), add(atol, multiply(rtol, abs(b))))
    result = logical_or(equal(a, b), logical_and(near, isfinite(b)))
    return logical_or(result, logical_and(isnan(a), isnan(b))) if equal_nan else result


def where(condition: Any, x1: Any, x2: Any) -> Tensor:
    """x1 where the condition holds, else x2. All three broadcast; x1 and x2 promote.

    Gradients flow into the chosen element only: a NaN in the other does not leak.

    Raises:
        ShapeError: the shapes do not broadcast.
        DTypeError: the condition is not bool.

    >>> where([True, False], 1.0, [2.0, 3.0]).shape
    (2,)
    """
    if not is_operand(x1) or not is_operand(x2):
        promote("where", x1, x2)
    c = tensor("where", condition)
    if not c.dtype.is_bool:
        raise fail(DTypeError, f"where: the condition is {c.dtype}, but must be bool; compare it, e.g. x != 0", c)
    return build("where", *align("where", c, *promote("where", x1, x2)))


def clip(x: Any, min: Any = None, max: Any = None) -> Tensor:
    """x limited to ``min`` .. ``max`` (numbers, tensors or None), elementwise. Gradients flow where nothing was cut.

    >>> clip([1.0, 5.0], 0.0, 2.0).shape
    (2,)
    """
    t = tensor("clip", x)
    if min is not None:
        low, t = _limits("clip", min, t)
        t = build("where", build("less", t, low), low, t)
    if max is not None:
        high, t = _limits("clip", max, t)
        t = build("where", build("greater", t, high), high, t)
    return t


def _limits(op: str, limit: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    pair = aligned(op, limit, x)
    refuse_bool(op, pair)
    return pair[0], pair[1]


def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """x with NaN, inf and -inf replaced (infinities by the type's largest finite numbers unless given).

    >>> nan_to_num([float("nan")]).shape
    (1,)
    """
    t = tensor("nan_to_num", x)
    if not t.dtype.is_float:
        return t
    most = largest(t.dtype)
    infinite = isinf(t)
    cut = where(logical_and(infinite, greater(t, 0)), most if posinf is None else posinf, t)
    cut = where(logical_and(infinite, less(t, 0)), -most if neginf is None else neginf, cut)
    return where(isnan(t), nan, cut)


def largest(dtype: DType) -> float:
    """The largest finite number of a floating type."""
    return 3.3895313892515355e38 if dtype == dtypes.bfloat16 else float(np.finfo(dtype.storage).max)
