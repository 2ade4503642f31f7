"""Special functions of one floating-point number, elementwise: erf and its kin, log Gamma and its derivatives."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from graphcore.base.dtypes import float32
from graphcore.base.errors import UsageError
from graphcore.ir.op import Example, TensorType, primitive
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.ops._examples import positive, unit
from graphcore.ops.arithmetic import computed
from graphcore.ops.elementwise import Unary

__all__ = ["Digamma", "Erf", "Erfc", "Erfinv", "Lgamma", "Polygamma"]

_GAMMA = (math.nan, math.inf, 0.5, 1.0, 2.0, 2.5, 30.0, 1e-3, -0.5, -2.25, -7.75)


def _each(function: Callable[[float], float]) -> Any:
    """A function of a Python float over an array; poles and overflows give infinity."""

    def guarded(x: float) -> float:
        try:
            return function(x)
        except (ValueError, OverflowError):
            return math.inf

    return np.vectorize(guarded, otypes=[np.float64])


def _bell(b: Any, x: Any, factor: float) -> Any:
    """factor * exp(-x^2)"""
    return b.mul(b.gaussian(x), factor)


@primitive
class Erf(Unary):
    """The error function, elementwise."""

    function: ClassVar[Any] = _each(math.erf)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, _bell(b, x, 2 / math.sqrt(math.pi)))


@primitive
class Erfc(Unary):
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
class Erfinv(Unary):
    """The inverse of erf, elementwise; infinite at -1 and 1, NaN beyond."""

    steep: ClassVar[bool] = True
    function: ClassVar[Any] = _each(_erfinv)
    domain: ClassVar[Any] = staticmethod(unit)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.mul(b.exp(b.mul(out, out)), math.sqrt(math.pi) / 2))


@primitive
class Lgamma(Unary):
    """log |Gamma(x)|, elementwise; infinite at 0, -1, -2, ..."""

    steep: ClassVar[bool] = True
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
class Digamma(Unary):
    """The derivative of lgamma, elementwise; infinite at 0, NaN at -1, -2, ..."""

    steep: ClassVar[bool] = True
    function: ClassVar[Any] = _each(_digamma)
    domain: ClassVar[Any] = staticmethod(positive)
    special: ClassVar[tuple[float, ...]] = _GAMMA

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.polygamma(x, order=1))


# B(2 j) / (2 j)! for j = 1, 2, ... with Bernoulli's numbers B: the coefficients of the Euler-Maclaurin formula.
_BERNOULLI = (
    1 / 12,
    -1 / 720,
    1 / 30240,
    -1 / 1209600,
    1 / 47900160,
    -691 / 1307674368000,
    1 / 74724249600,
    -3617 / 10670622842880000,
    43867 / 5109094217170944000,
    -174611 / 802857662698291200000,
)


def _scaled_zeta(order: int, x: float) -> float:
    """order! zeta(order + 1, x) for x > 0: its terms up to ``order + 8``, then the Euler-Maclaurin formula.

    The terms are taken relative to the first, x^-(order + 1), which is multiplied in last, a factor at a time: so the
    result overflows only if it is too large itself.
    """
    total, y, s = 0.0, x, order + 1.0
    while y < order + 8:
        total += (x / y) ** s
        y += 1
    rest, term = y / order + 0.5, s / y
    for coefficient in _BERNOULLI:
        rest += coefficient * term
        term *= (s + 1) * (s + 2) / (y * y)
        s += 2
    total = (total + (x / y) ** (order + 1) * rest) / x
    low, high = 1, order
    while low <= high:
        factor = high if total < 1 else low
        low, high = (low, high - 1) if total < 1 else (low + 1, high)
        total *= factor / x
    return total


def _polygamma(order: int, x: float) -> float:
    """The derivative of digamma of an order of at least 1."""
    sign = 1.0 if order % 2 else -1.0
    if x == 0:
        return math.inf if sign > 0 else math.copysign(math.inf, -x)
    if x > 0:
        return 0.0 if math.isinf(x) else sign * _scaled_zeta(order, x)
    if not math.isfinite(x):
        return math.nan
    part = x - round(x)
    if part == 0:
        return math.inf if sign > 0 else math.nan
    # (x + k)^-s is summed over all whole k, in both directions from the pole next to x; less those with k < 0.
    near, far = _scaled_zeta(order, abs(part)), _scaled_zeta(order, 1 - abs(part))
    return (sign * near + far if part > 0 else near + sign * far) - _scaled_zeta(order, 1 - x)


@primitive
class Polygamma(Unary):
    """A derivative of digamma, elementwise. At 0, -1, ... odd orders are infinite, even ones NaN (at 0 infinite)."""

    steep: ClassVar[bool] = True
    domain: ClassVar[Any] = staticmethod(positive)
    special: ClassVar[tuple[float, ...]] = _GAMMA

    order: int = 1

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        if self.order < 1:
            raise UsageError(f"{self.name}: the order is {self.order}, but must be at least 1")
        return super().infer(*inputs)

    def scalar(self, *args: Expr) -> Expr:
        (x,) = args
        wide = float32 if x.dtype.rounds else x.dtype  # half types do not hold every order
        return expr.cast(expr.call("polygamma", expr.cast(x, wide), expr.const(self.order, wide)), x.dtype)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.polygamma(x, order=self.order + 1))

    def reference(self, *inputs: Any) -> Any:
        return computed(_each(functools.partial(_polygamma, self.order)), *inputs)

    def examples(self) -> Iterator[Example]:
        for order in (1, 2, 5):
            op = type(self)(order)
            yield op, self.domain(3, 5)
            yield op, np.array((*self.special, 1e4, -0.0, 0.0, -1.0, -1e-3, -30.5, -math.inf), np.float32)
        yield type(self)(3), self.domain()
        yield type(self)(4), self.domain(0, 2)
        yield type(self)(2), self.domain(7, dtype="float16")
