"""Special functions in NumPy, one number at a time in double precision: what built-in functions are judged against."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["digamma", "erf", "erfc", "erfinv", "lgamma", "polygamma"]


def _each(function: Callable[..., float]) -> Callable[..., Any]:
    """A function of Python floats over arrays; poles and overflows give infinity."""

    def guarded(*args: float) -> float:
        try:
            return function(*args)
        except (ValueError, OverflowError):
            return math.inf

    return np.vectorize(guarded, otypes=[np.float64])


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


def _digamma(x: float) -> float:
    """The logarithmic derivative of Gamma: reflection below 0, recurrence up to 10, then the asymptotic series."""
    if x == 0:
        return math.copysign(math.inf, -x)
    if x < 0:
        if math.isinf(x) or x == math.floor(x):
            return math.nan  # no limit, or a pole
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


def _polygamma(x: float, n: float) -> float:
    """The derivative of digamma of an order of at least 1."""
    order = int(n)
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


erf = _each(math.erf)
erfc = _each(math.erfc)
erfinv = _each(_erfinv)
lgamma = _each(math.lgamma)
digamma = _each(_digamma)
polygamma = _each(_polygamma)
