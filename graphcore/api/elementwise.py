"""Elementwise functions: the array API's list and what deep learning adds. Operands broadcast and promote as in NumPy.

Python numbers take the tensors' type; a function of real numbers turns integers into float32; integer / integer is
float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from graphcore.api.operands import align, aligned, apply, build, cast, fail, full, is_operand, promote, tensor
from graphcore.base import dtypes
from graphcore.base.dtypes import DType
from graphcore.base.errors import DTypeError, UsageError
from graphcore.ir.node import Tensor
from graphcore.ir.op import lookup

_Unary = Callable[[Any], Tensor]
_Binary = Callable[[Any, Any], Tensor]
_F = TypeVar("_F", bound=Callable[..., Tensor])


def _named(function: _F, name: str, doc: str) -> _F:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def _refuse_bool(name: str, tensors: list[Tensor]) -> None:
    if tensors[0].dtype.is_bool:
        raise fail(
            DTypeError,
            f"{name}: operands are bool, but {name} takes numbers; cast with .astype('int32'), or use logical_and, "
            f"logical_or (&, |)",
            *tensors,
        )


def _real(name: str, formula: str, example: float = 0.5) -> _Unary:
    """A function of real numbers: integers become float32."""

    def function(x: Any) -> Tensor:
        return build(name, *promote(name, x, floating=True))

    return _named(
        function,
        name,
        f"{formula}, elementwise. Any shape; integers are taken as float32.\n\n"
        f"    Raises:\n        UsageError: ``x`` is no tensor, number or array.\n\n"
        f"    >>> {name}([{example}]).shape\n    (1,)\n    ",
    )


def _number(name: str, formula: str, keeps_integers: bool = False) -> _Unary:
    """A function of any numbers, of their own type; with ``keeps_integers`` it is the identity on integers."""

    def function(x: Any) -> Tensor:
        tensors = promote(name, x)
        _refuse_bool(name, tensors)
        return tensors[0] if keeps_integers and tensors[0].dtype.is_integer else build(name, *tensors)

    return _named(
        function,
        name,
        f"{formula}, elementwise. Any shape; numbers of any type, which stays.\n\n"
        f"    Raises:\n        DTypeError: a bool operand.\n\n"
        f"    >>> {name}([1.5, -2.0]).dtype\n    float32\n    ",
    )


def _arithmetic(name: str, formula: str, floating: bool = False, op: str | None = None) -> _Binary:
    """A function of two numbers."""
    op = op or name

    def function(x1: Any, x2: Any) -> Tensor:
        tensors = aligned(name, x1, x2, floating=floating)
        _refuse_bool(name, tensors)
        return build(op, *tensors)

    kinds = "integers become float32" if floating else "of the promoted type"
    return _named(
        function,
        name,
        f"{formula}, elementwise; {kinds}. Shapes broadcast.\n\n"
        f"    Raises:\n        ShapeError: the shapes do not broadcast.\n        DTypeError: bool operands or no "
        f"common type.\n\n"
        f"    >>> {name}([1.0, 2.0], 3.0).shape\n    (2,)\n    ",
    )


def _comparison(name: str, formula: str) -> _Binary:
    def function(x1: Any, x2: Any) -> Tensor:
        return build(name, *aligned(name, x1, x2))

    return _named(
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


def _logical(name: str, formula: str) -> _Binary:
    def function(x1: Any, x2: Any) -> Tensor:
        return build(name, *aligned(name, as_bool(x1), as_bool(x2)))

    return _named(
        function,
        name,
        f"{formula}, elementwise; numbers are true where not zero. Shapes broadcast.\n\n"
        f"    Raises:\n        ShapeError: the shapes do not broadcast.\n\n"
        f"    >>> {name}([True, False], True).dtype\n    bool\n    ",
    )


def _bitwise(name: str, formula: str, shift: bool = False) -> _Binary:
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
    return _named(
        function,
        name,
        f"{formula}, elementwise; {kinds}. Shapes broadcast.\n\n"
        f"    Raises:\n        ShapeError: the shapes do not broadcast.\n        DTypeError: floating operands.\n\n"
        f"    >>> {name}([1, 2], 3).dtype\n    int64\n    ",
    )


exp = _real("exp", "e ** x")
exp2 = _real("exp2", "2 ** x")
expm1 = _real("expm1", "e ** x - 1, exact near 0")
log = _real("log", "The natural logarithm")
log2 = _real("log2", "The logarithm to base 2")
log10 = _real("log10", "The logarithm to base 10")
log1p = _real("log1p", "log(1 + x), exact near 0")
sqrt = _real("sqrt", "The square root")
rsqrt = _real("rsqrt", "1 / sqrt(x)")
reciprocal = _real("reciprocal", "1 / x")
sin = _real("sin", "The sine")
cos = _real("cos", "The cosine")
tan = _real("tan", "The tangent")
asin = _real("asin", "The inverse sine")
acos = _real("acos", "The inverse cosine")
atan = _real("atan", "The inverse tangent")
sinh = _real("sinh", "The hyperbolic sine")
cosh = _real("cosh", "The hyperbolic cosine")
tanh = _real("tanh", "The hyperbolic tangent")
asinh = _real("asinh", "The inverse hyperbolic sine")
acosh = _real("acosh", "The inverse hyperbolic cosine", 1.5)
atanh = _real("atanh", "The inverse hyperbolic tangent")
sigmoid = _real("sigmoid", "1 / (1 + e ** -x)")
erf = _real("erf", "The error function")
erfc = _real("erfc", "1 - erf(x)")
erfinv = _real("erfinv", "The inverse of erf")
lgamma = _real("lgamma", "The logarithm of the absolute gamma function")
digamma = _real("digamma", "The derivative of lgamma")

negative: _Unary = _named(
    _number("neg", "-x"),
    "negative",
    "-x, elementwise. Any shape; numbers of any type.\n\n    >>> negative([1.5]).shape\n    (1,)\n    ",
)
abs = _number("abs", "The absolute value")
sign = _number("sign", "-1, 0 or 1")
relu = _number("relu", "max(x, 0)")
floor = _number("floor", "The largest whole number not above x", True)
ceil = _number("ceil", "The smallest whole number not below x", True)
trunc = _number("trunc", "x without its fraction", True)
round = _number("round", "The nearest whole number, halves to even", True)

add = _arithmetic("add", "x1 + x2")
subtract = _arithmetic("subtract", "x1 - x2", op="sub")
multiply = _arithmetic("multiply", "x1 * x2", op="mul")
divide = _arithmetic("divide", "x1 / x2", True, op="div")
floor_divide = _arithmetic("floor_divide", "The largest whole number not above x1 / x2")
remainder = _arithmetic("remainder", "x1 - floor(x1 / x2) * x2, with the sign of x2")
maximum = _arithmetic("maximum", "The larger of two; NaN wins")
minimum = _arithmetic("minimum", "The smaller of two; NaN wins")
atan2 = _arithmetic("atan2", "The angle of the point (x2, x1)", True)
copysign = _arithmetic("copysign", "The size of x1 with the sign of x2", True)

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


def pow(x1: Any, x2: Any) -> Tensor:
    """x1 ** x2, elementwise. Shapes broadcast; integers need exponents of at least 0.

    Raises:
        ShapeError: the shapes do not broadcast.
        DTypeError: bools, or an integer to a negative number.

    >>> pow([1.0, 2.0], 2).shape
    (2,)
    """
    if isinstance(x1, Tensor) and isinstance(x2, (int, float)) and not isinstance(x2, bool) and not x1.dtype.is_bool:
        quick = _power_of_number(x1, x2)
        if quick is not None:
            return quick
    tensors = aligned("pow", x1, x2)
    _refuse_bool("pow", tensors)
    return build("pow", *tensors)


def _power_of_number(x: Tensor, exponent: int | float) -> Tensor | None:
    """The exponents that have an op of their own, as in NumPy."""
    if x.dtype.is_integer and exponent < 0 and isinstance(exponent, int):
        raise fail(
            DTypeError, f"pow: integers to the negative power {exponent}; cast the base with .astype('float32')", x
        )
    if exponent == 2:
        return square(x if x.dtype.is_float or isinstance(exponent, int) else cast(x, dtypes.float32))
    if exponent == 1 and (x.dtype.is_float or isinstance(exponent, int)):
        return x
    if x.dtype.is_float and exponent in (0.5, -0.5, -1):
        return build({0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}[exponent], x)
    return None


def positive(x: Any) -> Tensor:
    """x itself, as a tensor of numbers.

    >>> positive([1.0]).shape
    (1,)
    """
    tensors = promote("positive", x)
    _refuse_bool("positive", tensors)
    return tensors[0]


def square(x: Any) -> Tensor:
    """x * x, elementwise.

    >>> square([2.0]).dtype
    float32
    """
    t = tensor("square", x)
    return multiply(t, t)


def astype(x: Any, dtype: Any) -> Tensor:
    """``x`` converted to ``dtype`` (a name, a NumPy or Python type). Floats turn to integers towards zero.

    Raises:
        DTypeError: no such type.

    >>> astype([1.5], "int32").dtype
    int32
    """
    return cast(tensor("astype", x), dtypes.as_dtype(dtype))


def stop_gradient(x: Any) -> Tensor:
    """``x``, through which no gradient flows.

    >>> stop_gradient([1.0]).shape
    (1,)
    """
    return build("stop_gradient", tensor("stop_gradient", x))


def _classify(name: str, value_for_integers: bool, formula: str) -> _Unary:
    def function(x: Any) -> Tensor:
        t = tensor(name, x)
        return build(name, t) if t.dtype.is_float else full(t.shape, value_for_integers, dtypes.bool_)

    return _named(
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
    _refuse_bool(op, pair)
    return pair[0], pair[1]


def polygamma(n: int, x: Any) -> Tensor:
    """The n-th derivative of digamma (n = 0: digamma itself), elementwise. Any shape; integers are taken as float32.

    Raises:
        UsageError: ``n`` is no integer of at least 0, or ``x`` no tensor, number or array.

    >>> polygamma(1, [0.5]).shape
    (1,)
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
        raise UsageError(f"polygamma: n is {n!r}, but must be an integer of at least 0")
    return build("polygamma", *promote("polygamma", x, floating=True), order=int(n)) if n else digamma(x)


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + e ** (beta x)) / beta, elementwise and without overflow (``threshold`` is accepted for PyTorch's sake;
    nothing needs it).

    >>> softplus([0.0]).shape
    (1,)
    """
    (t,) = promote("softplus", x, floating=True)
    scaled = t if beta == 1 else multiply(t, beta)
    value = add(relu(scaled), log1p(exp(negative(abs(scaled)))))
    return value if beta == 1 else divide(value, beta)


def logaddexp(x1: Any, x2: Any) -> Tensor:
    """log(e ** x1 + e ** x2), elementwise and without overflow. Shapes broadcast.

    >>> logaddexp([0.0], 1.0).shape
    (1,)
    """
    a, b = aligned("logaddexp", x1, x2, floating=True)
    distance = where(equal(a, b), 0.0, subtract(a, b))
    return add(maximum(a, b), log1p(exp(negative(abs(distance)))))


def hypot(x1: Any, x2: Any) -> Tensor:
    """sqrt(x1 ** 2 + x2 ** 2), elementwise, without overflow; the gradient at the origin is 0.

    >>> hypot([3.0], [4.0]).shape
    (1,)
    """
    a, b = aligned("hypot", x1, x2, floating=True)
    size = stop_gradient(maximum(abs(a), abs(b)))
    scale = where(logical_and(greater(size, 0), isfinite(size)), size, 1.0)
    u, v = divide(a, scale), divide(b, scale)
    return multiply(safe_sqrt(add(multiply(u, u), multiply(v, v))), scale)


def safe_sqrt(x: Tensor) -> Tensor:
    """The square root with gradient 0, not infinity, at 0."""
    zero = equal(x, 0)
    return where(zero, x, sqrt(where(zero, 1.0, x)))


def isclose(x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether |x1 - x2| <= atol + rtol |x2|, elementwise; equal infinities are close.

    >>> isclose([1.0], [1.0]).dtype
    bool
    """
    a, b = aligned("isclose", x1, x2, floating=True)
    near = less_equal(abs(subtract(a, b)), add(atol, multiply(rtol, abs(b))))
    result = logical_or(equal(a, b), logical_and(near, isfinite(b)))
    return logical_or(result, logical_and(isnan(a), isnan(b))) if equal_nan else result


def nan_to_num(x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """x with NaN, inf and -inf replaced (infinities by the type's largest finite numbers unless given).

    >>> nan_to_num([float("nan")]).shape
    (1,)
    """
    t = tensor("nan_to_num", x)
    if not t.dtype.is_float:
        return t
    largest = _largest(t.dtype)
    infinite = isinf(t)
    cut = where(logical_and(infinite, greater(t, 0)), largest if posinf is None else posinf, t)
    cut = where(logical_and(infinite, less(t, 0)), -largest if neginf is None else neginf, cut)
    return where(isnan(t), nan, cut)


def _largest(dtype: DType) -> float:
    return 3.3895313892515355e38 if dtype.name == "bfloat16" else float(np.finfo(dtype.storage).max)


def add_n(tensors: Any) -> Tensor:
    """The sum of a list of tensors, which broadcast and promote; one op.

    >>> add_n([[1.0], [2.0], [3.0]]).shape
    (1,)
    """
    operands = aligned("add_n", *tensors)
    _refuse_bool("add_n", operands)
    return operands[0] if len(operands) == 1 else apply(lookup("add_n")(), *operands)


# fmt: off
__all__ = [
    "abs",
    "acos",
    "acosh",
    "add",
    "add_n",
    "asin",
    "asinh",
    "astype",
    "atan",
    "atan2",
    "atanh",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "ceil",
    "clip",
    "copysign",
    "cos",
    "cosh",
    "digamma",
    "divide",
    "equal",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "floor_divide",
    "greater",
    "greater_equal",
    "hypot",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "lgamma",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "multiply",
    "nan_to_num",
    "negative",
    "not_equal",
    "polygamma",
    "positive",
    "pow",
    "reciprocal",
    "relu",
    "remainder",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "signbit",
    "sin",
    "sinh",
    "softplus",
    "sqrt",
    "square",
    "stop_gradient",
    "subtract",
    "tan",
    "tanh",
    "trunc",
    "where",
]
# fmt: on
