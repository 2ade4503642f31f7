"""Comparisons, logic, bits, selection and conversion, elementwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from graphcore.base import dtypes
from graphcore.base.dtypes import DType
from graphcore.base.errors import DTypeError, ShapeError
from graphcore.base.shapes import format_shape
from graphcore.ir.op import ANY, BITS, BOOL, INTEGER, REAL, Example, Map, Mask, TensorType, one_type, primitive
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.ops._examples import booleans, floats, integers
from graphcore.ops._scalar import Scalar

__all__ = [
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Cast",
    "Equal",
    "Greater",
    "GreaterEqual",
    "Invert",
    "IsFinite",
    "IsInf",
    "IsNan",
    "Less",
    "LessEqual",
    "LogicalAnd",
    "LogicalNot",
    "LogicalOr",
    "LogicalXor",
    "NotEqual",
    "ShiftLeft",
    "ShiftRight",
    "StopGradient",
    "Where",
]


def _edges() -> tuple[Any, Any]:
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -2.5], np.float32)
    a, b = np.meshgrid(values, values)
    return a, b


class _Comparison(Scalar):
    """Two operands to bool. Comparisons with NaN are false, but for ``not_equal``."""

    smooth: ClassVar[bool] = False
    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = REAL
    result: ClassVar[DType | None] = dtypes.bool_
    differentiable: ClassVar[bool] = False

    def examples(self) -> Iterator[Example]:
        yield self, floats(3, 5), floats(3, 5, seed=1)
        yield self, *_edges()
        yield self, floats(), floats(seed=1)
        yield self, floats(0, 2), floats(0, 2)
        yield self, integers(40, low=-3, high=3), integers(40, low=-3, high=3, seed=1)
        yield self, integers(9, low=0, high=256, dtype="uint8"), integers(9, low=0, high=256, dtype="uint8", seed=1)
        yield self, floats(5, dtype="bfloat16"), floats(5, dtype="bfloat16", seed=1)


@primitive
class Less(_Comparison):
    """x < y, elementwise."""

    fn: ClassVar[str] = "lt"


@primitive
class LessEqual(_Comparison):
    """x <= y, elementwise."""

    fn: ClassVar[str] = "le"


@primitive
class Greater(_Comparison):
    """x > y, elementwise."""

    fn: ClassVar[str] = "gt"


@primitive
class GreaterEqual(_Comparison):
    """x >= y, elementwise."""

    fn: ClassVar[str] = "ge"


@primitive
class Equal(_Comparison):
    """x == y, elementwise; also for bool."""

    operands: ClassVar[str] = ANY
    commutative: ClassVar[bool] = True
    fn: ClassVar[str] = "eq"

    def examples(self) -> Iterator[Example]:
        yield from super().examples()
        yield self, booleans(9), booleans(9, seed=1)


@primitive
class NotEqual(_Comparison):
    """x != y, elementwise; also for bool. NaN differs from itself."""

    operands: ClassVar[str] = ANY
    commutative: ClassVar[bool] = True
    fn: ClassVar[str] = "ne"

    def examples(self) -> Iterator[Example]:
        yield from super().examples()
        yield self, booleans(9), booleans(9, seed=1)


class _Logic(_Comparison):
    """Bools to bool."""

    operands: ClassVar[str] = BOOL
    commutative: ClassVar[bool] = True

    def examples(self) -> Iterator[Example]:
        yield self, booleans(3, 5), booleans(3, 5, seed=1)
        yield self, booleans(), booleans(seed=1)
        yield self, booleans(0), booleans(0)


@primitive
class LogicalAnd(_Logic):
    """Whether both hold, elementwise."""

    fn: ClassVar[str] = "and"


@primitive
class LogicalOr(_Logic):
    """Whether one or both hold, elementwise."""

    fn: ClassVar[str] = "or"


@primitive
class LogicalXor(_Logic):
    """Whether exactly one holds, elementwise."""

    fn: ClassVar[str] = "xor"


@primitive
class LogicalNot(_Logic):
    """Whether x does not hold, elementwise."""

    arity: ClassVar[int | None] = 1
    commutative: ClassVar[bool] = False
    fn: ClassVar[str] = "not"

    def examples(self) -> Iterator[Example]:
        yield self, booleans(3, 5)
        yield self, booleans()


class _Test(_Comparison):
    """A property of one number; integers are finite."""

    arity: ClassVar[int | None] = 1
    integer_answer: ClassVar[bool] = False

    def scalar(self, *args: Expr) -> Expr:
        return expr.call(self.fn, *args) if args[0].dtype.is_float else expr.const(self.integer_answer, dtypes.bool_)

    def examples(self) -> Iterator[Example]:
        yield self, np.array([[np.nan, np.inf, -np.inf], [0.0, 1.5, -3e38]], np.float32)
        yield self, floats()
        yield self, floats(0, 2)
        yield self, integers(3)
        for half in ("float16", "bfloat16"):
            yield self, np.array([np.nan, np.inf, -np.inf, 1.5]).astype(floats(dtype=half).dtype)


@primitive
class IsNan(_Test):
    """Whether x is NaN, elementwise."""

    name: ClassVar[str] = "isnan"
    fn: ClassVar[str] = "isnan"


@primitive
class IsInf(_Test):
    """Whether x is an infinity of either sign, elementwise."""

    name: ClassVar[str] = "isinf"
    fn: ClassVar[str] = "isinf"


@primitive
class IsFinite(_Test):
    """Whether x is neither NaN nor infinite, elementwise."""

    name: ClassVar[str] = "isfinite"
    fn: ClassVar[str] = "isfinite"
    integer_answer: ClassVar[bool] = True


class _Bits(Scalar):
    """Integers bit by bit; bools by the logical function."""

    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = BITS
    commutative: ClassVar[bool] = True
    differentiable: ClassVar[bool] = False

    def function(self, dtype: DType) -> str:
        return self.fn if dtype.is_bool else f"bit_{self.fn}"

    def examples(self) -> Iterator[Example]:
        for dtype, low, high in (("int32", -99, 99), ("uint8", 0, 256), ("int64", -99, 99)):
            yield self, *(integers(3, 5, low=low, high=high, dtype=dtype, seed=s) for s in range(self.arity or 0))
        yield self, *(booleans(6, seed=s) for s in range(self.arity or 0))
        yield self, *(integers() for _ in range(self.arity or 0))


@primitive
class BitwiseAnd(_Bits):
    """x & y, elementwise."""

    fn: ClassVar[str] = "and"


@primitive
class BitwiseOr(_Bits):
    """x | y, elementwise."""

    fn: ClassVar[str] = "or"


@primitive
class BitwiseXor(_Bits):
    """x ^ y, elementwise."""

    fn: ClassVar[str] = "xor"


@primitive
class Invert(_Bits):
    """~x, elementwise."""

    name: ClassVar[str] = "bitwise_invert"
    arity: ClassVar[int | None] = 1
    commutative: ClassVar[bool] = False
    fn: ClassVar[str] = "not"


class _Shift(Map):
    """Shifts by an amount outside 0 .. bits-1 shift everything out."""

    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = INTEGER
    differentiable: ClassVar[bool] = False

    def shifted(self, fn: str, x: Expr, amount: Expr, beyond: Expr) -> Expr:
        """The C operator, which is undefined or wraps for large amounts, and ``beyond`` for those."""
        unsigned = dtypes.as_dtype(f"uint{x.dtype.itemsize * 8}")
        inside = expr.call("lt", expr.cast(amount, unsigned), expr.const(x.dtype.itemsize * 8, unsigned))
        return expr.select(inside, expr.call(fn, x, amount), beyond)

    def examples(self) -> Iterator[Example]:
        for dtype, low in (("int32", -99), ("uint32", 0), ("int8", -99), ("uint64", 0)):
            amounts = integers(3, 5, low=0, high=8, dtype=dtype, seed=1)
            yield self, integers(3, 5, low=low, high=99, dtype=dtype), amounts
        yield self, np.array([5, -5, 5, -5, 5], np.int32), np.array([31, 32, 40, 40, -1], np.int32)
        yield self, integers(0), integers(0)


@primitive
class ShiftLeft(_Shift):
    """x << y, elementwise."""

    name: ClassVar[str] = "bitwise_left_shift"

    def scalar(self, *args: Expr) -> Expr:
        x, amount = args
        return self.shifted("shift_left", x, amount, expr.const(0, x.dtype))

    def reference(self, *inputs: Any) -> Any:
        return np.asarray(np.left_shift(*inputs))


@primitive
class ShiftRight(_Shift):
    """x >> y, elementwise; signed integers keep their sign."""

    name: ClassVar[str] = "bitwise_right_shift"

    def scalar(self, *args: Expr) -> Expr:
        x, amount = args
        zero = expr.const(0, x.dtype)
        sign = zero if x.dtype.is_unsigned else expr.select(expr.call("lt", x, zero), expr.const(-1, x.dtype), zero)
        return self.shifted("shift_right", x, amount, sign)

    def reference(self, *inputs: Any) -> Any:
        return np.asarray(np.right_shift(*inputs))


@primitive
class Where(Map):
    """y where the condition holds, else z, elementwise. Gradients flow to the chosen branch only, NaN included."""

    arity: ClassVar[int | None] = 3

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        condition, yes, no = inputs
        if not condition.dtype.is_bool:
            raise DTypeError(f"where: the condition has dtype {condition.dtype}, not bool; compare it with 0")
        if yes.dtype != no.dtype:
            raise DTypeError(f"where: operands have dtypes {yes.dtype} and {no.dtype}; cast one with .astype(...)")
        if not condition.shape == yes.shape == no.shape:
            raise ShapeError(f"where: operands have shapes {', '.join(format_shape(t.shape) for t in inputs)}")
        return (yes,)

    def masks(self, call: Any) -> tuple[Mask | None, ...]:
        condition = call.inputs[0]
        return None, Mask(condition), Mask(condition, keeps=False)

    def scalar(self, *args: Expr) -> Expr:
        return expr.select(*args)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        g, condition = gradients[0], call.inputs[0]
        zero = call.b.zeros_like(g)
        return None, call.b.where(condition, g, zero), call.b.where(condition, zero, g)

    def reference(self, *inputs: Any) -> Any:
        return np.where(*inputs)

    def examples(self) -> Iterator[Example]:
        yield self, booleans(3, 5), floats(3, 5), floats(3, 5, seed=1)
        yield self, booleans(), floats(), floats(seed=1)
        yield self, booleans(0, 2), floats(0, 2), floats(0, 2)
        yield self, np.array([True, False]), np.array([1, np.nan], np.float32), np.array([np.inf, 2], np.float32)
        yield self, booleans(6), integers(6), integers(6, seed=1)
        yield self, booleans(6), booleans(6, seed=1), booleans(6, seed=2)
        yield self, booleans(6), floats(6, dtype="float16"), floats(6, dtype="float16", seed=1)


@primitive
class Cast(Map):
    """Conversion to another type, elementwise.

    Floats to integers truncate, out of range they saturate, and NaN gives 0. Integers to smaller integers wrap.
    Anything to bool is ``!= 0``. What becomes a half type becomes float32 first, as everything that computes one.
    """

    retypes: ClassVar[bool] = True
    dtype: DType

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return one_type(inputs[0].shape, self.dtype)

    def scalar(self, *args: Expr) -> Expr:
        return expr.cast(args[0], self.dtype)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        given = call.inputs[0].dtype
        return (call.b.cast(gradients[0], dtype=given) if given.is_float and self.dtype.is_float else None,)

    def reference(self, *inputs: Any) -> Any:
        x = np.asarray(inputs[0])
        with np.errstate(all="ignore"):
            if self.dtype.is_bool:
                return x != 0
            if dtypes.as_dtype(x.dtype).is_float and self.dtype.is_integer:
                return _saturated(x.astype(np.float64), self.dtype.storage)
            return x.astype(self.dtype.compute).astype(self.dtype.storage)

    def examples(self) -> Iterator[Example]:
        for dtype in (dtypes.float64, dtypes.float16, dtypes.bfloat16, dtypes.float32):
            yield Cast(dtype), floats(3, 5)
        yield Cast(dtypes.float32), floats(3, 5, dtype="float16")
        yield Cast(dtypes.float32), floats(3, 5, dtype="bfloat16")
        yield Cast(dtypes.float16), np.array([np.nan, np.inf, 1e6, 1e-9], np.float32)
        yield Cast(dtypes.int32), np.array([1.9, -1.9, 0.0, np.nan, np.inf, -np.inf, 3e9], np.float32)
        yield Cast(dtypes.uint8), np.array([1.9, -1.9, 300.0, 255.5], np.float32)
        yield Cast(dtypes.bool_), np.array([0.0, -0.0, 0.5, np.nan], np.float32)
        yield Cast(dtypes.float32), integers(3, 5)
        yield Cast(dtypes.uint8), integers(3, 5, low=-500, high=500)
        yield Cast(dtypes.int64), integers(3, dtype="int8")
        yield Cast(dtypes.float32), booleans(4)
        yield Cast(dtypes.int32), booleans()
        yield Cast(dtypes.float32), integers(0, 2)


def _saturated(x: Any, storage: Any) -> Any:
    """float64 values as integers: truncated, clipped to the type's range, NaN as 0."""
    info = np.iinfo(storage)
    over, under = x >= float(info.max), x <= float(info.min)
    safe = np.where(over | under | np.isnan(x), 0.0, x)
    inside = np.trunc(safe).astype(storage)
    return np.where(over, storage.type(info.max), np.where(under, storage.type(info.min), inside))


@primitive
class StopGradient(Map):
    """x, through which no gradient flows."""

    retypes: ClassVar[bool] = True
    smooth: ClassVar[bool] = False

    def scalar(self, *args: Expr) -> Expr:
        return args[0]

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (None,)

    def reference(self, *inputs: Any) -> Any:
        return inputs[0]

    def examples(self) -> Iterator[Example]:
        yield self, floats(3, 5)
        yield self, floats()
        yield self, integers(3)
        yield self, booleans(0)
