"""First and second derivatives of every elementwise op, written by hand for NumPy in float64.

``ONE`` and ``TWO`` hold, for every differentiable op of one and of two numbers, what its gradient must be at any point
of its domain: also at zero, at ties, where it saturates and at infinity. At a corner that is the subgradient of choice.
Nothing here knows how the package computes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ONE", "TWO", "One", "Two"]

Function = Callable[..., Any]
_EDGES = (0.0, -0.0, 1e-30, -1e-30, 1e-3, -1e-3, 0.5, -0.5, 1.0, -1.0, 2.5, -2.5, 20.0, -20.0, 80.0, -80.0)
LINE = (*_EDGES, 1e4, -1e4, 1e30, -1e30, math.inf, -math.inf)
TURNS = tuple(x for x in LINE if math.isfinite(x))  # an angle of infinity has no sine
UNIT = tuple(x for x in LINE if abs(x) <= 1)
RIGHT = tuple(x for x in LINE if x >= 0)
POSITIVE = tuple(x for x in LINE if x > 1e-9)


@dataclass(frozen=True)
class One:
    """A function of one number.

    Attributes:
        first, second: its derivatives.
        points: where they are compared.
        scale: what errors are relative to besides the value: 1 for what saturates.
        attributes: of the op.
    """

    first: Function
    second: Function
    points: tuple[float, ...] = LINE
    scale: float = 0.0
    attributes: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Two:
    """A function of two numbers: ``first`` gives its two slopes, ``second`` those of them (xx, xy, yy).

    ``scale`` gives what errors are relative to besides the value: the terms of a difference.
    """

    first: Function
    second: Function
    points: tuple[tuple[float, float], ...]
    scale: Function = lambda x, y: 0.0


def zero(x: Any) -> Any:
    return np.zeros_like(x)


def one(x: Any) -> Any:
    return np.ones_like(x)


def sigmoid(x: Any) -> Any:
    return np.where(x >= 0, 1, np.exp(-np.abs(x))) / (1 + np.exp(-np.abs(x)))


def bell(x: Any) -> Any:
    """The derivative of sigmoid."""
    return sigmoid(x) * sigmoid(-x)


def decaying(x: Any, power: int, rate: Any) -> Any:
    """x^power e^rate, 0 where the exponential is."""
    e = np.exp(rate)
    return np.where(e == 0, 0, np.where(e == 0, 0, x) ** power * e)


def lorentz(x: Any, power: float) -> Any:
    """(1 + x^2) ^ power for negative powers, without overflow."""
    large = np.abs(x) > 1e8
    return np.where(large, np.abs(np.where(large, x, 1)) ** (2 * power), (1 + np.where(large, 0, x) ** 2) ** power)


def inside(x: Any, power: float) -> Any:
    """(1 - x^2) ^ power"""
    return ((1 - x) * (1 + x)) ** power


def outside(x: Any, power: float) -> Any:
    """(x^2 - 1) ^ power"""
    return (x - 1) ** power * (x + 1) ** power


def polygamma(order: int, x: Any) -> Any:
    """Moved up to 40 by recurrence, then the asymptotic series."""

    def at(x: float) -> float:
        if math.isinf(x):
            return x if order == 0 else 0.0
        total, sign, x = 0.0, 1.0 if order % 2 else -1.0, np.float64(x)
        while x < 40:
            total += sign * math.factorial(order) / x ** (order + 1)
            x += 1
        if order == 0:
            return total + math.log(x) - 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - 1 / (252 * x**6)
        numbers = ((2, 1 / 6), (4, -1 / 30), (6, 1 / 42), (8, -1 / 30))
        tail = math.factorial(order - 1) / x**order + math.factorial(order) / (2 * x ** (order + 1))
        for k, bernoulli in numbers:
            tail += bernoulli * math.factorial(k + order - 1) / (math.factorial(k) * x ** (k + order))
        return total + sign * tail

    return np.vectorize(at, otypes=[np.float64])(x)


def times(x: Any, y: Any) -> Any:
    """x y, and 0 where y is."""
    return np.where(y == 0, 0, np.where(y == 0, 0, x) * y)


def phi(x: Any) -> Any:
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def normal(x: Any) -> Any:
    return 0.5 * np.vectorize(lambda t: math.erfc(-t / math.sqrt(2)), otypes=[float])(x)


def tanh_gate(x: Any) -> tuple[Any, Any, Any]:
    """tanh(softplus(x)) and its derivatives: (u^2 + 2 u) / (u^2 + 2 u + 2) with u = e^x, without overflow."""
    u, right = np.exp(-np.abs(x)), x > 0
    below = np.where(right, 1 + 2 * u + 2 * u**2, u**2 + 2 * u + 2)
    gate = np.where(right, 1 + 2 * u, u**2 + 2 * u) / below
    first = np.where(right, 2 * u**2, 2) / below * (1 + gate) * sigmoid(x)
    return gate, first, first * (sigmoid(-x) - 2 * gate * sigmoid(x))


def inverse_erf(x: Any) -> Any:
    """By bisection."""

    def at(x: float) -> float:
        if abs(x) in (0, 1):
            return math.copysign(math.inf, x) if x else x
        low, high = 0.0, 6.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if math.erf(middle) < abs(x) else (low, middle)
        return math.copysign((low + high) / 2, x)

    return np.vectorize(at, otypes=[np.float64])(x)


LN2, LN10, ROOT = math.log(2), math.log(10), math.sqrt(math.pi)

ONE: dict[str, One] = {
    "neg": One(lambda x: -one(x), zero),
    "exp": One(np.exp, np.exp),
    "exp2": One(lambda x: LN2 * np.exp2(x), lambda x: LN2**2 * np.exp2(x)),
    "expm1": One(np.exp, np.exp, scale=1.0),
    "log": One(lambda x: 1 / x, lambda x: -1 / x**2, RIGHT),
    "log2": One(lambda x: 1 / x / LN2, lambda x: -1 / x**2 / LN2, RIGHT),
    "log10": One(lambda x: 1 / x / LN10, lambda x: -1 / x**2 / LN10, RIGHT),
    "log1p": One(lambda x: 1 / (1 + x), lambda x: -1 / (1 + x) ** 2, tuple(x for x in LINE if x >= -1)),
    "sqrt": One(lambda x: 0.5 * x**-0.5, lambda x: -0.25 * x**-1.5, RIGHT),
    "rsqrt": One(lambda x: -0.5 * x**-1.5, lambda x: 0.75 * x**-2.5, RIGHT),
    "reciprocal": One(lambda x: -1 / x**2, lambda x: 2 / x**3),
    "sin": One(np.cos, lambda x: -np.sin(x), TURNS),
    "cos": One(lambda x: -np.sin(x), lambda x: -np.cos(x), TURNS),
    "tan": One(lambda x: 1 + np.tan(x) ** 2, lambda x: 2 * np.tan(x) * (1 + np.tan(x) ** 2), TURNS),
    "asin": One(lambda x: inside(x, -0.5), lambda x: np.where(x == 0, 0, x * inside(x, -1.5)), UNIT),
    "acos": One(lambda x: -inside(x, -0.5), lambda x: np.where(x == 0, 0, -x * inside(x, -1.5)), UNIT),
    "atan": One(lambda x: lorentz(x, -1.0), lambda x: np.where(np.isinf(x), 0, -2 * x * lorentz(x, -2.0))),
    "sinh": One(np.cosh, np.sinh),
    "cosh": One(np.sinh, np.cosh),
    "tanh": One(lambda x: np.cosh(x) ** -2.0, lambda x: -2 * np.tanh(x) * np.cosh(x) ** -2.0, scale=1.0),
    "asinh": One(lambda x: lorentz(x, -0.5), lambda x: np.where(np.isinf(x), 0, -x * lorentz(x, -1.5))),
    "acosh": One(
        lambda x: outside(x, -0.5),
        lambda x: np.where(np.isinf(x), 0, -x * outside(x, -1.5)),
        tuple(x for x in LINE if x >= 1),
    ),
    "atanh": One(lambda x: inside(x, -1.0), lambda x: 2 * x * inside(x, -2.0), UNIT),
    "sigmoid": One(bell, lambda x: bell(x) * (sigmoid(-x) - sigmoid(x)), scale=1.0),
    "softplus": One(sigmoid, bell, scale=1.0),
    "silu": One(
        lambda x: sigmoid(x) + times(x, bell(x)),
        lambda x: 2 * bell(x) + times(x, bell(x) * (sigmoid(-x) - sigmoid(x))),
        scale=1.0,
    ),
    "gelu": One(
        lambda x: normal(x) + times(x, phi(x)),
        lambda x: (2 - np.minimum(x * x, 1e9)) * phi(x),
        scale=1.0,
    ),
    "mish": One(
        lambda x: tanh_gate(x)[0] + times(x, tanh_gate(x)[1]),
        lambda x: 2 * tanh_gate(x)[1] + times(x, tanh_gate(x)[2]),
        scale=1.0,
    ),
    "one_minus_square": One(lambda x: -2 * x, lambda x: -2 * one(x)),
    "gaussian": One(
        lambda x: -2 * decaying(x, 1, -x * x),
        lambda x: np.where(np.isinf(x), 0, 4 * decaying(x, 2, -x * x) - 2 * np.exp(-x * x)),
        scale=1.0,
    ),
    "erf": One(lambda x: 2 / ROOT * np.exp(-x * x), lambda x: -4 / ROOT * decaying(x, 1, -x * x)),
    "erfc": One(lambda x: -2 / ROOT * np.exp(-x * x), lambda x: 4 / ROOT * decaying(x, 1, -x * x)),
    "erfinv": One(
        lambda x: ROOT / 2 * np.exp(inverse_erf(x) ** 2),
        lambda x: math.pi / 2 * inverse_erf(x) * np.exp(2 * inverse_erf(x) ** 2),
        UNIT,
    ),
    "lgamma": One(lambda x: polygamma(0, x), lambda x: polygamma(1, x), POSITIVE, scale=1.0),
    "digamma": One(lambda x: polygamma(1, x), lambda x: polygamma(2, x), POSITIVE),
    "polygamma": One(lambda x: polygamma(3, x), lambda x: polygamma(4, x), POSITIVE, attributes=(("order", 2),)),
    # corners, and what has no slope
    "abs": One(np.sign, zero),
    "relu": One(lambda x: 1.0 * (x > 0), zero),
    "sign": One(zero, zero),
    "floor": One(zero, zero),
    "ceil": One(zero, zero),
    "trunc": One(zero, zero),
    "round": One(zero, zero),
    "stop_gradient": One(zero, zero),
}

_PAIRS = (0.0, 1.0, -1.0, 2.5, -2.5, 1e-3, 80.0, -80.0)
PLANE = tuple((x, y) for x in _PAIRS for y in _PAIRS)
FAR = tuple((s * x, y) for x in (1e30, math.inf) for s in (1, -1) for y in (0.0, 1.0, -2.5)) + (
    (1.0, math.inf),
    (-2.5, -math.inf),
)
SAME = ((math.inf, math.inf), (-math.inf, -math.inf), (math.inf, -math.inf))
TINY = ((1e-23, 1e-23), (3e-23, -1e-23), (1e25, 3e25))  # their squares are 0 or infinite in float32


def closeness(x: Any, y: Any) -> Any:
    """1 / r and, where that is larger, its square: the terms of the second slopes of distances and angles."""
    r = np.hypot(x, y)
    return np.where(r == 0, 0, 1 / r + 1 / r**2)


def ahead(x: Any, y: Any) -> Any:
    """x - y, 0 for equals."""
    return np.where(x == y, 0, x - y)


def half(x: Any, y: Any) -> Any:
    """Whether x is larger than y, 1/2 for a tie."""
    return np.where(x == y, 0.5, 1.0 * (x > y))


def along(x: Any, y: Any) -> Any:
    """x / r, 0 at the origin; a sign where it is infinite."""
    r = np.hypot(x, y)
    return np.where(r == 0, 0, np.where(np.isinf(x), np.sign(x), x / r))


def turning(y: Any, x: Any) -> Any:
    """The slopes of the angle of (x, y) along y and x."""
    r = np.hypot(x, y)
    flat = (r == 0) | np.isinf(r)
    return np.where(flat, 0, x / r / r), np.where(flat, 0, -y / r / r)


def bending(y: Any, x: Any) -> Any:
    r = np.hypot(x, y)
    flat = (r == 0) | np.isinf(r)
    mixed = np.where(flat, 0, (y / r - x / r) * (y / r + x / r) / r / r)
    own = np.where(flat, 0, -2 * (x / r) * (y / r) / r / r)
    return own, mixed, -own


def power_slopes(x: Any, y: Any) -> Any:
    """x^y log x is 0 where x^y is, and at 0^0 the power counts as constant 1 for both operands."""
    out = x**y
    constant = (x == 0) & (y == 0)
    return np.where(constant, 0, y * x ** np.where(constant, 0, y - 1)), np.where(
        constant | (out == 0), 0, out * np.log(x)
    )


def power_bends(x: Any, y: Any) -> Any:
    out, log = x**y, np.log(x)
    flat = (x == 0) & ((y == 0) | (y == 1))
    xx = np.where(flat, 0, y * (y - 1) * x ** np.where(flat, 0, y - 2))
    below = x ** np.where(flat, 1, y - 1)
    xy = np.where(below == 0, 0, below * (1 + y * log))
    return xx, xy, np.where(out == 0, 0, out * log * log)


def nothing(x: Any, y: Any) -> Any:
    return zero(x), zero(x)


def flat(x: Any, y: Any) -> Any:
    return zero(x), zero(x), zero(x)


RATES = tuple((x, y) for x, y in PLANE if y != 0) + ((1.0, math.inf), (-2.5, -math.inf), (0.0, math.inf))
# Bases at and below 0 take whole exponents; the slope along the exponent is NaN below 0. At (0, 1) the mixed slope is.
POWERS = (
    *((x, y) for x in (1e-3, 1.0, 2.5, 80.0) for y in (0.0, 1.0, 2.0, -1.0, 0.5, -2.5, 3.0)),
    *((0.0, y) for y in (2.0, 3.0, 4.0, 2.5)),
    *((x, y) for x in (-1.0, -2.5) for y in (0.0, 1.0, 2.0, 3.0, -1.0, -2.0)),
)

TWO: dict[str, Two] = {
    "add": Two(lambda x, y: (one(x), one(x)), flat, (*PLANE, *FAR, *SAME)),
    "add_n": Two(lambda x, y: (one(x), one(x)), flat, (*PLANE, *FAR, *SAME)),
    "sub": Two(lambda x, y: (one(x), -one(x)), flat, (*PLANE, *FAR, *SAME)),
    "mul": Two(lambda x, y: (y, x), lambda x, y: (zero(x), one(x), zero(x)), (*PLANE, *FAR, *SAME)),
    "div": Two(
        lambda x, y: (1 / y, -x / y / y),
        lambda x, y: (zero(x), -1 / y / y, 2 * x / y / y / y),
        RATES,
    ),
    "pow": Two(power_slopes, power_bends, POWERS),
    "excess": Two(lambda x, y: (one(x), -one(x)), flat, (*PLANE, *FAR, *SAME)),
    "weigh": Two(
        lambda x, y: (np.where((x == 0) & np.isinf(y), 0, y), x),
        lambda x, y: (zero(x), np.where((x == 0) & np.isinf(y), 0, 1), zero(x)),
        (*PLANE, *FAR, *SAME, (0.0, math.inf), (-0.0, -math.inf)),
    ),
    "log_add_exp": Two(
        lambda x, y: (sigmoid(ahead(x, y)), sigmoid(ahead(y, x))),
        lambda x, y: (bell(ahead(x, y)), -bell(ahead(x, y)), bell(ahead(x, y))),
        (*PLANE, *FAR, *SAME),
        lambda x, y: 1.0,
    ),
    "atan2": Two(turning, bending, (*PLANE, *FAR, *SAME[:2], *TINY), closeness),
    # corners and steps
    "hypot": Two(
        lambda x, y: (along(x, y), along(y, x)),
        lambda x, y: tuple(
            np.where((np.hypot(x, y) == 0) | np.isinf(np.hypot(x, y)), 0, a * b / np.hypot(x, y))
            for a, b in ((along(y, x), along(y, x)), (-along(x, y), along(y, x)), (along(x, y), along(x, y)))
        ),
        (*PLANE, *FAR, *TINY),
        closeness,
    ),
    "maximum": Two(lambda x, y: (half(x, y), half(y, x)), flat, (*PLANE, *FAR, *SAME)),
    "minimum": Two(lambda x, y: (half(y, x), half(x, y)), flat, (*PLANE, *FAR, *SAME)),
    "copysign": Two(lambda x, y: (np.sign(x) * np.copysign(1, y), zero(x)), flat, (*PLANE, *FAR, *SAME)),
    "floor_divide": Two(nothing, flat, RATES),
    "remainder": Two(
        lambda x, y: (one(x), -np.floor_divide(x, y)), flat, tuple(p for p in RATES if math.isfinite(p[1]))
    ),
}
