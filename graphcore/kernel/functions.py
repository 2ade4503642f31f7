"""The table of scalar functions: what a kernel can compute from numbers, each stated once.

A function is either *built in*, then every language spells it (``backends.codegen`` has the spelling), or it has a
*body*, an expression over simpler functions that every language and the oracle derive it from. ``expr.call`` applies
either. Another function is another entry, ``register(Function(...))``, from anywhere.

Contraction is off in generated code, so a body that wants a fused multiply-add says ``fma``, and all devices compute a
body made of exact functions bit for bit alike.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from graphcore.base.dtypes import ALL, DType, as_dtype, bool_
from graphcore.kernel import special
from graphcore.kernel.expr import Expr, Signature, argument, call, const, declare, select, walk

__all__ = ["Function", "cost", "expanded", "is_exact", "lookup", "register", "registered", "work"]


@dataclass(frozen=True)
class Function(Signature):
    """A scalar function.

    Attributes:
        numpy: for a function that is built in: it on arrays of the compute type.
        body: else: its value for operands of the compute type; rounding to a half type comes after it.
        exact: whether a built-in function of floats has one right answer, which every device gives: what is exact or
            correctly rounded, the signs of zeros included. Functions of integers and bools are exact all.
        price: of a built-in function: how many additions one evaluation is worth, on vectors of floats. The common
            ones are measured (``benchmarks.cost_kernels``), the others are put beside them.
    """

    numpy: Callable[..., Any] | None = None
    body: Callable[..., Expr] | None = None
    exact: bool = False
    price: float = 1.0

    def __post_init__(self) -> None:
        if (self.numpy is None) == (self.body is None):
            raise ValueError(f"scalar function {self.name}: give either its NumPy form or its body")


_TABLE: dict[str, Function] = {}


def register(function: Function) -> Function:
    """Add a function to the table.

    Raises:
        ValueError: the name is taken or no lower-case identifier; or the body uses functions that are not in the table
            yet, or gives a value of another type.
    """
    if function.body is not None:
        dtype = next(t for t in ALL if t.kind in function.operands and not t.rounds)
        value = function.body(*(argument(i, dtype) for i in range(function.arity)))
        wanted = bool_ if function.test else dtype
        if value.dtype != wanted:
            raise ValueError(f"scalar function {function.name}: its body gives {value.dtype}, not {wanted}")
    declare(function)
    _TABLE[function.name] = function
    return function


def lookup(name: str) -> Function:
    """The entry of a function.

    Raises:
        ValueError: there is none.
    """
    try:
        return _TABLE[name]
    except KeyError:
        raise ValueError(f"{name!r} is no scalar function of the kernel IR") from None


def registered() -> dict[str, Function]:
    """All entries by name."""
    return dict(_TABLE)


@functools.lru_cache(maxsize=1024)
def expanded(name: str, dtype: DType) -> tuple[tuple[Expr, ...], Expr]:
    """The arguments of a function with a body, and the body over them, for operands of a compute type."""
    function = lookup(name)
    assert function.body is not None, f"{name} is built in"
    arguments = tuple(argument(i, dtype) for i in range(function.arity))
    return arguments, function.body(*arguments)


def is_exact(value: Expr) -> bool:
    """Whether an expression has one right value, bit for bit, that every device and the oracle give it.

    So it is unless it calls a built-in function of floats that is not exact, or adds or multiplies floats up, whose
    order is the kernel's.
    """
    return all(_step_is_exact(e) for e in walk(value))


def _step_is_exact(e: Expr) -> bool:
    if e.fn == "reduce":
        return e.combine not in ("add", "mul") or not e.dtype.is_float
    return e.fn not in _TABLE or _function_is_exact(e.fn, e.args[0].dtype)


@functools.lru_cache(maxsize=1024)
def _function_is_exact(name: str, dtype: DType) -> bool:
    function = lookup(name)
    if function.body is None:
        return function.exact or not dtype.is_float
    return is_exact(expanded(name, as_dtype(dtype.compute))[1])


@functools.lru_cache(maxsize=1024)
def cost(name: str) -> float:
    """How many additions of floats one evaluation of a function is worth."""
    function = lookup(name)
    if function.body is None:
        return function.price
    dtype = next(t for t in ALL if t.kind in function.operands and not t.rounds)
    return sum(cost(e.fn) for e in walk(expanded(name, dtype)[1]) if e.fn in _TABLE)


def work(e: Expr) -> float:
    """How many additions an expression is worth, its operands apart: 0 for what is no function."""
    return cost(e.fn) if e.fn in _TABLE else 0.0


# --- NumPy forms that NumPy has not as they should be -----------------------------------------------------------------


def _is_float(x: Any) -> bool:
    return np.issubdtype(np.asarray(x).dtype, np.floating)


def _maximum(a: Any, b: Any) -> Any:
    """The larger; NaN if either is; 0 of 0 and -0, whichever comes first."""
    larger = np.maximum(a, b)
    return np.where((a == 0) & (b == 0), a + b, larger) if _is_float(larger) else larger


def _minimum(a: Any, b: Any) -> Any:
    """The smaller; NaN if either is; -0 of 0 and -0, whichever comes first."""
    smaller = np.minimum(a, b)
    return np.where((a == 0) & (b == 0), -(-a - b), smaller) if _is_float(smaller) else smaller


def _power(a: Any, b: Any) -> Any:
    """a ** b; for integers to negative powers what is left of the fraction without its fraction, and 0 of 1 / 0."""
    if _is_float(a):
        return np.power(a, b)
    power = np.power(a, np.maximum(b, 0))
    if np.issubdtype(power.dtype, np.unsignedinteger):
        return power
    of_unit = np.where((a == 1) | (a == -1), np.where((b & 1) != 0, a, 1), 0)
    return np.where(b < 0, of_unit, power).astype(power.dtype)


def _high_product(a: Any, b: Any) -> Any:
    """The upper half of the product of unsigned integers of up to 32 bits."""
    a = np.asarray(a)
    assert a.itemsize <= 4
    return ((a.astype(np.uint64) * b.astype(np.uint64)) >> np.uint64(8 * a.itemsize)).astype(a.dtype)


def _fma(a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once."""

    def one(x: float, y: float, z: float) -> float:
        plain = x * y + z
        if not np.isfinite([x, y, z]).all() or x * y == 0:
            return plain
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        return _nearest(exact, wide) if exact else plain

    wide = np.asarray(a).dtype.type
    return np.vectorize(one, otypes=[wide])(a, b, c)


def _nearest(exact: Fraction, wide: Any) -> Any:
    """The number of a floating type next to a fraction; of two equally near ones, the even one."""
    facts = np.finfo(wide)
    digits = facts.nmant + 1
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length()  # of the fraction, or one above it
    exponent -= abs(exact) < Fraction(2) ** exponent
    step = Fraction(2) ** max(exponent - digits + 1, facts.minexp - facts.nmant)
    whole = round(exact / step)  # to even
    with np.errstate(over="ignore"):
        return np.ldexp(wide(whole), step.numerator.bit_length() - step.denominator.bit_length())


# --- bodies -----------------------------------------------------------------------------------------------------------


def _one(x: Expr) -> Expr:
    return const(1, x.dtype)


def _zero(x: Expr) -> Expr:
    return const(0, x.dtype)


def _reciprocal(x: Expr) -> Expr:
    return call("div", _one(x), x)


def _rsqrt(x: Expr) -> Expr:
    return call("div", _one(x), call("sqrt", x))


def _sign(x: Expr) -> Expr:
    """1, -1, or |x|: of zeros and of NaN"""
    rest = call("abs", x) if x.dtype.is_float else x
    below = rest if x.dtype.is_unsigned else select(call("lt", x, _zero(x)), const(-1, x.dtype), rest)
    return select(call("gt", x, _zero(x)), _one(x), below)


def _sigmoid(x: Expr) -> Expr:
    """By e^-|x|, which never overflows."""
    small = call("exp", call("neg", call("abs", x)))
    return call("div", select(call("ge", x, _zero(x)), _one(x), small), call("add", _one(x), small))


def _excess(x: Expr, y: Expr) -> Expr:
    """x - y, and 0 of equal infinities"""
    return select(call("eq", x, y), _zero(x), call("sub", x, y))


def _weigh(x: Expr, y: Expr) -> Expr:
    """x y, and 0 of 0 and an infinity"""
    nothing = call("and", call("eq", x, _zero(x)), call("isinf", y))
    return select(nothing, _zero(x), call("mul", x, y))


def _gated(x: Expr, gate: Expr) -> Expr:
    """x times what is 0 at -inf, where the lowest finite number stands for x"""
    lowest = const(float(np.finfo(x.dtype.storage).min), x.dtype)
    return call("mul", call("max", x, lowest), gate)


def _silu(x: Expr) -> Expr:
    """x / (1 + e^-x)"""
    return _gated(x, call("sigmoid", x))


def _gelu(x: Expr) -> Expr:
    """x P(Z <= x) = x (1 + erf(x / sqrt 2)) / 2"""
    scaled = call("mul", x, const(math.sqrt(0.5), x.dtype))
    twice = call("add", _one(x), call("erf", scaled))
    return _gated(x, call("mul", const(0.5, x.dtype), twice))


def _mish(x: Expr) -> Expr:
    """x tanh(log(1 + e^x))"""
    return _gated(x, call("tanh", call("softplus", x)))


def _log1p_exp_minus(size: Expr) -> Expr:
    """log(1 + e^-size) for sizes of at least 0"""
    return call("log1p", call("exp", call("neg", size)))


def _softplus(x: Expr) -> Expr:
    """max(x, 0) + log(1 + e^-|x|)"""
    return call("add", call("max", x, _zero(x)), _log1p_exp_minus(call("abs", x)))


def _log_add_exp(x: Expr, y: Expr) -> Expr:
    """max(x, y) + log(1 + e^-|x - y|), where a difference of equal infinities is 0"""
    far = select(call("eq", x, y), _zero(x), call("abs", call("sub", x, y)))
    return call("add", call("max", x, y), _log1p_exp_minus(far))


def _hypot(x: Expr, y: Expr) -> Expr:
    """m sqrt(1 + (n / m)^2) with m the larger of the sizes and n the smaller; m where it is 0 or infinite"""
    sizes = call("abs", x), call("abs", y)
    large, small = call("max", *sizes), call("min", *sizes)
    ratio = call("div", small, large)
    length = call("mul", large, call("sqrt", call("add", _one(x), call("mul", ratio, ratio))))
    return select(call("or", call("eq", large, _zero(x)), call("isinf", large)), large, length)


def _gaussian(x: Expr) -> Expr:
    """e^-(x^2)"""
    return call("exp", call("neg", call("mul", x, x)))


def _one_minus_square(x: Expr) -> Expr:
    """(1 - x) (1 + x)"""
    return call("mul", call("sub", _one(x), x), call("add", _one(x), x))


_BUILT_IN = (
    # arithmetic
    Function("neg", 1, "fiu", numpy=np.negative, exact=True),
    Function("abs", 1, "fiu", numpy=np.abs, exact=True),
    Function("add", 2, "fiu", numpy=np.add, exact=True),
    Function("sub", 2, "fiu", numpy=np.subtract, exact=True),
    Function("mul", 2, "fiu", numpy=np.multiply, exact=True),
    Function("fma", 3, numpy=_fma, exact=True, price=2),
    Function("div", 2, numpy=np.divide, exact=True, price=6),
    Function("floordiv", 2, "fiu", numpy=np.floor_divide, exact=True, price=3),
    Function("mod", 2, "fiu", numpy=np.mod, exact=True, price=3),
    Function("max", 2, "fiu", numpy=_maximum, exact=True),
    Function("min", 2, "fiu", numpy=_minimum, exact=True),
    Function("copysign", 2, numpy=np.copysign, exact=True),
    Function("mulhi", 2, "u", numpy=_high_product, price=4),
    Function("sqrt", 1, numpy=np.sqrt, exact=True, price=13),
    # rounding
    Function("floor", 1, numpy=np.floor, exact=True),
    Function("ceil", 1, numpy=np.ceil, exact=True),
    Function("trunc", 1, numpy=np.trunc, exact=True),
    Function("round", 1, numpy=np.rint, exact=True),
    # bits
    Function("bit_and", 2, "iu", numpy=np.bitwise_and),
    Function("bit_or", 2, "iu", numpy=np.bitwise_or),
    Function("bit_xor", 2, "iu", numpy=np.bitwise_xor),
    Function("bit_not", 1, "iu", numpy=np.invert),
    Function("shift_left", 2, "iu", numpy=np.left_shift),
    Function("shift_right", 2, "iu", numpy=np.right_shift),
    # tests
    Function("lt", 2, "fiub", test=True, numpy=np.less, exact=True),
    Function("le", 2, "fiub", test=True, numpy=np.less_equal, exact=True),
    Function("gt", 2, "fiub", test=True, numpy=np.greater, exact=True),
    Function("ge", 2, "fiub", test=True, numpy=np.greater_equal, exact=True),
    Function("eq", 2, "fiub", test=True, numpy=np.equal, exact=True),
    Function("ne", 2, "fiub", test=True, numpy=np.not_equal, exact=True),
    Function("isnan", 1, test=True, numpy=np.isnan, exact=True),
    Function("isinf", 1, test=True, numpy=np.isinf, exact=True),
    Function("isfinite", 1, test=True, numpy=np.isfinite, exact=True),
    Function("and", 2, "b", test=True, numpy=np.logical_and),
    Function("or", 2, "b", test=True, numpy=np.logical_or),
    Function("xor", 2, "b", test=True, numpy=np.logical_xor),
    Function("not", 1, "b", test=True, numpy=np.logical_not),
    # powers and logarithms
    Function("pow", 2, "fiu", numpy=_power, price=80),
    Function("exp", numpy=np.exp, price=25),
    Function("exp2", numpy=np.exp2, price=25),
    Function("expm1", numpy=np.expm1, price=35),
    Function("log", numpy=np.log, price=25),
    Function("log2", numpy=np.log2, price=25),
    Function("log10", numpy=np.log10, price=25),
    Function("log1p", numpy=np.log1p, price=35),
    # angles
    Function("sin", numpy=np.sin, price=36),
    Function("cos", numpy=np.cos, price=36),
    Function("tan", numpy=np.tan, price=45),
    Function("asin", numpy=np.arcsin, price=36),
    Function("acos", numpy=np.arccos, price=36),
    Function("atan", numpy=np.arctan, price=36),
    Function("atan2", 2, numpy=np.arctan2, price=55),
    Function("sinh", numpy=np.sinh, price=45),
    Function("cosh", numpy=np.cosh, price=40),
    Function("tanh", numpy=np.tanh, price=50),
    Function("asinh", numpy=np.arcsinh, price=55),
    Function("acosh", numpy=np.arccosh, price=55),
    Function("atanh", numpy=np.arctanh, price=45),
    # special functions
    Function("erf", numpy=special.erf, price=58),
    Function("erfc", numpy=special.erfc, price=75),
    Function("erfinv", numpy=special.erfinv, price=75),
    Function("lgamma", numpy=special.lgamma, price=150),
    Function("digamma", numpy=special.digamma, price=250),
    Function("polygamma", 2, numpy=special.polygamma, price=1200),
)
_BODIES = (
    Function("reciprocal", body=_reciprocal),
    Function("rsqrt", body=_rsqrt),
    Function("sign", 1, "fiu", body=_sign),
    Function("sigmoid", body=_sigmoid),
    Function("excess", 2, body=_excess),
    Function("weigh", 2, body=_weigh),
    Function("softplus", body=_softplus),
    Function("silu", body=_silu),
    Function("gelu", body=_gelu),
    Function("mish", body=_mish),
    Function("log_add_exp", 2, body=_log_add_exp),
    Function("hypot", 2, body=_hypot),
    Function("gaussian", body=_gaussian),
    Function("one_minus_square", body=_one_minus_square),
)
for _entry in (*_BUILT_IN, *_BODIES):
    register(_entry)
