"""Functions of one floating-point number, elementwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from graphcore.errors import GradientError
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.op import FLOAT, Example, Map, primitive
from graphcore.ops._examples import floats, positive, unit
from graphcore.ops.arithmetic import computed

__all__ = ["Exp", "Exp2", "Expm1", "Log", "Log2", "Log10", "Log1p", "Sqrt", "Rsqrt", "Sin", "Cos", "Tan", "Asin",
           "Acos", "Atan", "Sinh", "Cosh", "Tanh", "Asinh", "Acosh", "Atanh", "Erf", "Erfc", "Erfinv", "Lgamma",
           "Digamma", "Floor", "Ceil", "Trunc", "Round", "Sigmoid", "Relu"]

_SPECIAL = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 0.5, -0.5, 1.5, 30.0, -30.0)
_GAMMA = (math.nan, math.inf, 0.5, 1.0, 2.0, 2.5, 30.0, 1e-3, -0.5, -2.25, -7.75)


def _acosh_domain(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    return (positive(*shape, seed=seed) + 1).astype(dtype)


class _Unary(Map):
    """A scalar function ``fn`` of the kernel IR with its NumPy ``function`` and operand arrays from its ``domain``."""

    operands: ClassVar[str] = FLOAT
    cheap: ClassVar[bool] = False
    fn: ClassVar[str] = ""
    function: ClassVar[Any] = None
    domain: ClassVar[Any] = staticmethod(floats)
    special: ClassVar[tuple[float, ...]] = _SPECIAL
    halves: ClassVar[tuple[str, ...]] = ()

    def scalar(self, *args: Expr) -> Expr:
        return expr.call(self.fn or self.name, *args)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        """The gradient of x."""
        raise GradientError(f"{self.name} has no gradient")

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (self.slope(call.b, call.inputs[0], call.out, gradients[0]),)

    def reference(self, *inputs: Any) -> Any:
        return computed(self.function, *inputs)

    def examples(self) -> Iterator[Example]:
        yield self, self.domain(3, 5)
        yield self, self.domain()
        yield self, self.domain(0, 2)
        yield self, np.array(self.special, np.float32)
        for half in self.halves:
            yield self, self.domain(7, dtype=half)


def _each(function: Callable[[float], float]) -> Any:
    """A function of a Python float over an array; poles and overflows give infinity."""
    def guarded(x: float) -> float:
        try:
            return function(x)
        except (ValueError, OverflowError):
            return math.inf

    return np.vectorize(guarded, otypes=[np.float64])


@primitive
class Exp(_Unary):
    """e ** x, elementwise."""

    function: ClassVar[Any] = np.exp
    halves: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, out)


@primitive
class Exp2(_Unary):
    """2 ** x, elementwise."""

    function: ClassVar[Any] = np.exp2

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.mul(out, math.log(2)))


@primitive
class Expm1(_Unary):
    """e ** x - 1, elementwise, accurate near 0."""

    function: ClassVar[Any] = np.expm1

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.add(out, 1))


class _Logarithm(_Unary):
    """A logarithm; ``scale`` is that of its base."""

    domain: ClassVar[Any] = staticmethod(positive)
    scale: ClassVar[float] = 1.0

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.div(g, x if self.scale == 1 else b.mul(x, self.scale))


@primitive
class Log(_Logarithm):
    """The natural logarithm, elementwise."""

    function: ClassVar[Any] = np.log
    halves: ClassVar[tuple[str, ...]] = ("float16",)


@primitive
class Log2(_Logarithm):
    """The logarithm to base 2, elementwise."""

    function: ClassVar[Any] = np.log2
    scale: ClassVar[float] = math.log(2)


@primitive
class Log10(_Logarithm):
    """The logarithm to base 10, elementwise."""

    function: ClassVar[Any] = np.log10
    scale: ClassVar[float] = math.log(10)


@primitive
class Log1p(_Unary):
    """log(1 + x), elementwise, accurate near 0."""

    function: ClassVar[Any] = np.log1p
    domain: ClassVar[Any] = staticmethod(unit)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.div(g, b.add(x, 1))


@primitive
class Sqrt(_Unary):
    """The square root, elementwise."""

    cheap: ClassVar[bool] = True
    function: ClassVar[Any] = np.sqrt
    domain: ClassVar[Any] = staticmethod(positive)
    halves: ClassVar[tuple[str, ...]] = ("bfloat16",)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.div(b.mul(g, 0.5), out)


@primitive
class Rsqrt(_Unary):
    """1 / sqrt(x), elementwise."""

    cheap: ClassVar[bool] = True
    function: ClassVar[Any] = staticmethod(lambda x: 1 / np.sqrt(x))
    domain: ClassVar[Any] = staticmethod(positive)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(b.mul(g, -0.5), b.mul(out, b.mul(out, out)))


@primitive
class Sin(_Unary):
    """The sine of an angle in radians, elementwise."""

    function: ClassVar[Any] = np.sin

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.cos(x))


@primitive
class Cos(_Unary):
    """The cosine of an angle in radians, elementwise."""

    function: ClassVar[Any] = np.cos

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.neg(b.mul(g, b.sin(x)))


@primitive
class Tan(_Unary):
    """The tangent of an angle in radians, elementwise."""

    function: ClassVar[Any] = np.tan
    domain: ClassVar[Any] = staticmethod(unit)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.add(b.mul(out, out), 1))


def _one_minus_square(b: Any, x: Any) -> Any:
    """1 - x^2 without cancellation near 1."""
    return b.mul(b.sub(1, x), b.add(x, 1))


@primitive
class Asin(_Unary):
    """The angle in -pi/2 .. pi/2 with sine x, elementwise."""

    function: ClassVar[Any] = np.arcsin
    domain: ClassVar[Any] = staticmethod(unit)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.rsqrt(_one_minus_square(b, x)))


@primitive
class Acos(_Unary):
    """The angle in 0 .. pi with cosine x, elementwise."""

    function: ClassVar[Any] = np.arccos
    domain: ClassVar[Any] = staticmethod(unit)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.neg(b.mul(g, b.rsqrt(_one_minus_square(b, x))))


@primitive
class Atan(_Unary):
    """The angle in -pi/2 .. pi/2 with tangent x, elementwise."""

    function: ClassVar[Any] = np.arctan

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.div(g, b.add(b.mul(x, x), 1))


@primitive
class Sinh(_Unary):
    """The hyperbolic sine, elementwise."""

    function: ClassVar[Any] = np.sinh

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.cosh(x))


@primitive
class Cosh(_Unary):
    """The hyperbolic cosine, elementwise."""

    function: ClassVar[Any] = np.cosh

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.sinh(x))


@primitive
class Tanh(_Unary):
    """The hyperbolic tangent, elementwise."""

    function: ClassVar[Any] = np.tanh
    halves: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.sub(1, b.mul(out, out)))


@primitive
class Asinh(_Unary):
    """The inverse hyperbolic sine, elementwise."""

    function: ClassVar[Any] = np.arcsinh

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.rsqrt(b.add(b.mul(x, x), 1)))


@primitive
class Acosh(_Unary):
    """The inverse hyperbolic cosine, elementwise; NaN below 1."""

    function: ClassVar[Any] = np.arccosh
    domain: ClassVar[Any] = staticmethod(_acosh_domain)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.rsqrt(b.mul(b.sub(x, 1), b.add(x, 1))))


@primitive
class Atanh(_Unary):
    """The inverse hyperbolic tangent, elementwise; NaN outside -1 .. 1."""

    function: ClassVar[Any] = np.arctanh
    domain: ClassVar[Any] = staticmethod(unit)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.div(g, _one_minus_square(b, x))


def _bell(b: Any, x: Any, factor: float) -> Any:
    """factor * exp(-x^2)"""
    return b.mul(b.exp(b.neg(b.mul(x, x))), factor)


@primitive
class Erf(_Unary):
    """The error function, elementwise."""

    function: ClassVar[Any] = _each(math.erf)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, _bell(b, x, 2 / math.sqrt(math.pi)))


@primitive
class Erfc(_Unary):
    """1 - erf(x), elementwise, accurate for large x."""

    function: ClassVar[Any] = _each(math.erfc)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, _bell(b, x, -2 / math.sqrt(math.pi)))


def _erfinv(x: float) -> float:
    """The inverse of erf: a rough formula refined by Halley's method, from erfc where erf is close to 1."""
    y = abs(x)
    if not y < 1:
        return math.copysign(math.inf, x) if y == 1 else math.nan
    tail = math.log1p(-y * y)
    t = 2 / (math.pi * 0.147) + tail / 2
    z = math.sqrt(max(math.sqrt(t * t - tail / 0.147) - t, 0.0))
    for _ in range(4):
        miss = math.erf(z) - y if y < 0.5 else (1 - y) - math.erfc(z)
        step = miss / (2 / math.sqrt(math.pi) * math.exp(-z * z))
        z -= step / (1 + z * step)
    return math.copysign(z, x)


@primitive
class Erfinv(_Unary):
    """The inverse of erf, elementwise; infinite at -1 and 1, NaN beyond."""

    function: ClassVar[Any] = _each(_erfinv)
    domain: ClassVar[Any] = staticmethod(unit)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.mul(b.exp(b.mul(out, out)), math.sqrt(math.pi) / 2))


@primitive
class Lgamma(_Unary):
    """log |Gamma(x)|, elementwise; infinite at 0, -1, -2, ..."""

    function: ClassVar[Any] = _each(math.lgamma)
    domain: ClassVar[Any] = staticmethod(positive)
    special: ClassVar[tuple[float, ...]] = _GAMMA

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.digamma(x))


def _digamma(x: float) -> float:
    """The logarithmic derivative of Gamma: reflection below 0, recurrence up to 10, then the asymptotic series."""
    if x == 0:
        return math.copysign(math.inf, -x)
    if x < 0:
        if x == math.floor(x):
            return math.nan
        return _digamma(1 - x) - math.pi / math.tan(math.pi * (x - round(x)))
    if math.isinf(x):
        return x
    total = 0.0
    while x < 10:
        total -= 1 / x
        x += 1
    z = 1 / (x * x)
    series = 0.0
    for coefficient in (1 / 12, 691 / 32760, 1 / 132, 1 / 240, 1 / 252, 1 / 120, 1 / 12):
        series = z * (coefficient - series)
    return total + math.log(x) - 0.5 / x - series


@primitive
class Digamma(_Unary):
    """The derivative of lgamma, elementwise; infinite at 0, NaN at -1, -2, ... It has no gradient: its derivative is no op."""

    differentiable: ClassVar[bool] = False
    function: ClassVar[Any] = _each(_digamma)
    domain: ClassVar[Any] = staticmethod(positive)
    special: ClassVar[tuple[float, ...]] = _GAMMA

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        raise GradientError("digamma has no gradient: its derivative, trigamma, is no op; lgamma has a first one only")


class _Rounding(_Unary):
    """Rounding to whole numbers: zero gradient."""

    cheap: ClassVar[bool] = True

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (None,)


@primitive
class Floor(_Rounding):
    """The largest whole number not above x, elementwise."""

    function: ClassVar[Any] = np.floor


@primitive
class Ceil(_Rounding):
    """The smallest whole number not below x, elementwise."""

    function: ClassVar[Any] = np.ceil


@primitive
class Trunc(_Rounding):
    """x without its fraction, elementwise."""

    function: ClassVar[Any] = np.trunc


@primitive
class Round(_Rounding):
    """The nearest whole number, elementwise; halves go to the even one."""

    function: ClassVar[Any] = np.rint


def _sigmoid(x: Any) -> Any:
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


@primitive
class Sigmoid(_Unary):
    """1 / (1 + e ** -x), elementwise, without overflow."""

    function: ClassVar[Any] = staticmethod(_sigmoid)
    halves: ClassVar[tuple[str, ...]] = ("float16",)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.mul(out, b.sub(1, out)))


@primitive
class Relu(_Unary):
    """max(x, 0), elementwise; NaN stays NaN. The gradient at 0 is 0."""

    cheap: ClassVar[bool] = True
    function: ClassVar[Any] = staticmethod(lambda x: np.maximum(x, 0))
    halves: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")

    def scalar(self, *args: Expr) -> Expr:
        return expr.call("max", args[0], expr.const(0, args[0].dtype))

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.where(b.greater(out, 0), g, b.zeros_like(g))
