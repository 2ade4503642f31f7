"""Elementwise arithmetic and functions of numbers. Operands broadcast and promote as in NumPy.

Python numbers take the tensors' type; a function of real numbers turns integers into float32; integer / integer is
float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from graphcore.api.operands import aligned, apply, build, cast, fail, promote, tensor
from graphcore.api.tensor import Tensor
from graphcore.base import dtypes
from graphcore.base.errors import DTypeError
from graphcore.ir.op import lookup

UnaryFunction = Callable[[Any], Tensor]
BinaryFunction = Callable[[Any, Any], Tensor]
_F = TypeVar("_F", bound=Callable[..., Tensor])


def named(function: _F, name: str, doc: str) -> _F:
    """A generated function with its public name and docstring."""
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


def refuse_bool(name: str, tensors: list[Tensor]) -> None:
    """Raise DTypeError for bool operands of a function of numbers."""
    if tensors[0].dtype.is_bool:
        raise fail(
            DTypeError,
            f"{name}: operands are bool, but {name} takes numbers; cast with .astype('int32'), or use logical_and, "
            f"logical_or (&, |)",
            *tensors,
        )


def real(name: str, formula: str, example: float = 0.5) -> UnaryFunction:
    """A function of real numbers: integers become float32."""

    def function(x: Any) -> Tensor:
        return build(name, *promote(name, x, floating=True))

    return named(
        function,
        name,
        f"{formula}, elementwise. Any shape; integers are taken as float32.\n\n"
        f"    Raises:\n        UsageError: ``x`` is no tensor, number or array.\n\n"
        f"    >>> {name}([{example}]).shape\n    (1,)\n    ",
    )


def _number(name: str, formula: str, keeps_integers: bool = False) -> UnaryFunction:
    """A function of any numbers, of their own type; with ``keeps_integers`` it is the identity on integers."""

    def function(x: Any) -> Tensor:
        tensors = promote(name, x)
        refuse_bool(name, tensors)
        return tensors[0] if keeps_integers and tensors[0].dtype.is_integer else build(name, *tensors)

    return named(
        function,
        name,
        f"{formula}, elementwise. Any shape; numbers of any type, which stays.\n\n"
        f"    Raises:\n        DTypeError: a bool operand.\n\n"
        f"    >>> {name}([1.5, -2.0]).dtype\n    float32\n    ",
    )


def _arithmetic(name: str, formula: str, floating: bool = False, op: str | None = None) -> BinaryFunction:
    """A function of two numbers."""
    op = op or name

    def function(x1: Any, x2: Any) -> Tensor:
        tensors = aligned(name, x1, x2, floating=floating)
        refuse_bool(name, tensors)
        return build(op, *tensors)

    kinds = "integers become float32" if floating else "of the promoted type"
    return named(
        function,
        name,
        f"{formula}, elementwise; {kinds}. Shapes broadcast.\n\n"
        f"    Raises:\n        ShapeError: the shapes do not broadcast.\n        DTypeError: bool operands or no "
        f"common type.\n\n"
        f"    >>> {name}([1.0, 2.0], 3.0).shape\n    (2,)\n    ",
    )


exp = real("exp", "e ** x")
exp2 = real("exp2", "2 ** x")
expm1 = real("expm1", "e ** x - 1, exact near 0")
log = real("log", "The natural logarithm")
log2 = real("log2", "The logarithm to base 2")
log10 = real("log10", "The logarithm to base 10")
log1p = real("log1p", "log(1 + x), exact near 0")
sqrt = real("sqrt", "The square root")
rsqrt = real("rsqrt", "1 / sqrt(x)")
reciprocal = real("reciprocal", "1 / x")
sin = real("sin", "The sine")
cos = real("cos", "The cosine")
tan = real("tan", "The tangent")
asin = real("asin", "The inverse sine")
acos = real("acos", "The inverse cosine")
atan = real("atan", "The inverse tangent")
sinh = real("sinh", "The hyperbolic sine")
cosh = real("cosh", "The hyperbolic cosine")
tanh = real("tanh", "The hyperbolic tangent")
asinh = real("asinh", "The inverse hyperbolic sine")
acosh = real("acosh", "The inverse hyperbolic cosine", 1.5)
atanh = real("atanh", "The inverse hyperbolic tangent")
sigmoid = real("sigmoid", "1 / (1 + e ** -x)")

negative: UnaryFunction = named(
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
    refuse_bool("pow", tensors)
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
    refuse_bool("positive", tensors)
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


def add_n(tensors: Any) -> Tensor:
    """The sum of a list of tensors, which broadcast and promote; one op.

    >>> add_n([[1.0], [2.0], [3.0]]).shape
    (1,)
    """
    operands = aligned("add_n", *tensors)
    refuse_bool("add_n", operands)
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
    "ceil",
    "copysign",
    "cos",
    "cosh",
    "divide",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "floor_divide",
    "log",
    "log1p",
    "log2",
    "log10",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "positive",
    "pow",
    "reciprocal",
    "relu",
    "remainder",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "stop_gradient",
    "subtract",
    "tan",
    "tanh",
    "trunc",
]
# fmt: on
