"""Values, first and second derivatives of elementwise functions and losses, written by hand for NumPy in float64.

A curve is a function of one number, by whatever the package makes it of. Where it has a corner, the derivatives are the
ones of choice there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphcore as gc
from graphcore import functional as F
from support.slopes import LINE, ONE, bell, normal, one, sigmoid, tanh_gate, times, zero

__all__ = ["CURVES", "Curve"]

Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Curve:
    """What ``build`` makes of a number, and what that must be.

    Attributes:
        build: of a tensor; it works on every element alone.
        value, first, second: of an array in float64.
        points: where they are compared.
        scale: what errors are relative to besides the value.
    """

    build: Function
    value: Function
    first: Function
    second: Function
    points: tuple[float, ...] = LINE
    scale: float = 1.0


FINITE = tuple(x for x in LINE if math.isfinite(x))
NOT_HUGE = tuple(x for x in LINE if abs(x) < 1e30)


def soft(x: Any) -> Any:
    """log(1 + e^x)"""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def cubic(x: Any) -> tuple[Any, Any, Any]:
    """The argument of the tanh in gelu's approximation where that is not 1 anyway, and its derivatives."""
    t, c = np.clip(x, -10, 10), math.sqrt(2 / math.pi)
    return c * (t + 0.044715 * t**3), c * (1 + 0.134145 * t**2), c * 0.26829 * t


def approximate(x: Any) -> tuple[Any, Any, Any]:
    """gelu by tanh, and its derivatives."""
    inner, slope, bend = cubic(x)
    far = np.abs(x) >= 10
    sech = np.where(far, 0, np.cosh(inner) ** -2.0)
    gate = np.where(far, x > 0, (1 + np.tanh(inner)) / 2)
    near = np.where(far, 0, x)
    first = gate + 0.5 * near * sech * slope
    second = sech * slope + 0.5 * near * sech * (bend - 2 * np.tanh(inner) * slope**2)
    return np.where(gate == 0, 0, x * gate), first, second


def exponential(alpha: float, scale: float = 1.0, rate: float = 1.0) -> tuple[Function, Function, Function]:
    """scale (x above 0, else alpha (e^(rate x) - 1)) and its derivatives; at 0 those of the exponential."""
    return (
        lambda x: scale * np.where(x > 0, x, alpha * np.expm1(rate * np.minimum(x, 0))),
        lambda x: scale * np.where(x > 0, 1, alpha * rate * np.exp(rate * np.minimum(x, 0))),
        lambda x: scale * np.where(x > 0, 0, alpha * rate**2 * np.exp(rate * np.minimum(x, 0))),
    )


def huber(delta: float, scale: float = 1.0) -> tuple[Function, Function, Function]:
    return (
        lambda d: scale * np.where(np.abs(d) < delta, d * d / 2, delta * (np.abs(d) - delta / 2)),
        lambda d: scale * np.clip(d, -delta, delta),
        lambda d: scale * (np.abs(d) <= delta),
    )


def hinges(low: float, high: float, below: float, above: float, middle: float = 1.0) -> Function:
    """Slopes left of, between and right of two corners, with those at the corners."""
    return lambda x: np.where(
        x < low, 0, np.where(x == low, below, np.where(x < high, middle, np.where(x == high, above, 0)))
    )


def logits(target: float, pos_weight: float = 1.0) -> tuple[Function, Function, Function]:
    """The cross entropy of sigmoid(x), exactly: what has no weight counts 0."""
    yes, no = target * pos_weight, 1 - target
    return (
        lambda x: times(soft(-x), np.full_like(x, yes)) + times(soft(x), np.full_like(x, no)),
        lambda x: no * sigmoid(x) - yes * sigmoid(-x),
        lambda x: (yes + no) * bell(x),
    )


def entropy(target: float) -> tuple[Function, Function, Function]:
    """The cross entropy of a probability, with logarithms of at least -100, flat where they are cut."""

    def slope(p: Any, power: int) -> Any:
        return np.where(p == 0, 0, np.where(p == 0, 1, p) ** -power)

    return (
        lambda p: -(target * np.maximum(np.log(p), -100) + (1 - target) * np.maximum(np.log1p(-p), -100)),
        lambda p: -target * slope(p, 1) + (1 - target) * slope(1 - p, 1),
        lambda p: target * slope(p, 2) + (1 - target) * slope(1 - p, 2),
    )


_SELU = (1.6732632423543772, 1.0507009873554805)
_CHANCES = (0.0, 1e-30, 1e-3, 0.5, 0.75, 1.0)

ACTIVATIONS = {
    "relu": Curve(F.relu, lambda x: np.maximum(x, 0), lambda x: 1.0 * (x > 0), zero),
    "relu6": Curve(F.relu6, lambda x: np.clip(x, 0, 6), hinges(0, 6, 0, 0.5), zero, (*LINE, 6.0)),
    "leaky_relu": Curve(F.leaky_relu, lambda x: np.where(x > 0, x, 0.01 * x), lambda x: np.where(x > 0, 1, 0.01), zero),
    "prelu": Curve(
        lambda x: F.prelu(x, 0.25), lambda x: np.where(x > 0, x, x / 4), lambda x: np.where(x > 0, 1, 0.25), zero
    ),
    "elu": Curve(F.elu, *exponential(1.0)),
    "elu of 2": Curve(lambda x: F.elu(x, 2.0), *exponential(2.0)),
    "selu": Curve(F.selu, *exponential(*_SELU)),
    "celu": Curve(F.celu, *exponential(1.0)),
    "celu of 2": Curve(lambda x: F.celu(x, 2.0), *exponential(2.0, rate=0.5)),
    "gelu": Curve(F.gelu, lambda x: times(x, normal(x)), ONE["gelu"].first, ONE["gelu"].second),
    "gelu by tanh": Curve(lambda x: F.gelu(x, "tanh"), *(lambda x, i=i: approximate(x)[i] for i in range(3))),
    "silu": Curve(F.silu, lambda x: times(x, sigmoid(x)), ONE["silu"].first, ONE["silu"].second),
    "mish": Curve(F.mish, lambda x: times(x, tanh_gate(x)[0]), ONE["mish"].first, ONE["mish"].second),
    "hardtanh": Curve(F.hardtanh, lambda x: np.clip(x, -1, 1), hinges(-1, 1, 0.5, 0.5), zero),
    "hardsigmoid": Curve(
        F.hardsigmoid, lambda x: np.clip(x / 6 + 0.5, 0, 1), hinges(-3, 3, 0, 1 / 12, 1 / 6), zero, (*LINE, 3.0, -3.0)
    ),
    "hardswish": Curve(
        F.hardswish,
        lambda x: times(x, np.clip(x / 6 + 0.5, 0, 1)),
        lambda x: np.where(x <= -3, 0, np.where(x < 3, x / 3 + 0.5, np.where(x == 3, 1.25, 1))),
        lambda x: np.where((x > -3) & (x < 3), 1 / 3, 0),
        (*LINE, -3.0),
    ),
    "softsign": Curve(
        F.softsign,
        lambda x: np.where(np.isinf(x), np.sign(x), x / (1 + np.abs(x))),
        lambda x: (1 + np.abs(x)) ** -2.0,
        lambda x: -2 * np.sign(x) * (1 + np.abs(x)) ** -3.0,
    ),
    "tanhshrink": Curve(
        F.tanhshrink, lambda x: x - np.tanh(x), lambda x: np.tanh(x) ** 2, lambda x: 2 * np.tanh(x) * np.cosh(x) ** -2.0
    ),
    "softplus": Curve(F.softplus, soft, sigmoid, bell),
    "softplus of 4": Curve(
        lambda x: F.softplus(x, 4.0), lambda x: soft(4 * x) / 4, lambda x: sigmoid(4 * x), lambda x: 4 * bell(4 * x)
    ),
    "logsigmoid": Curve(F.logsigmoid, lambda x: -soft(-x), lambda x: sigmoid(-x), lambda x: -bell(x)),
    "sigmoid": Curve(F.sigmoid, sigmoid, bell, lambda x: bell(x) * (sigmoid(-x) - sigmoid(x))),
    "tanh": Curve(F.tanh, np.tanh, lambda x: np.cosh(x) ** -2.0, lambda x: -2 * np.tanh(x) * np.cosh(x) ** -2.0),
    "threshold": Curve(
        lambda x: F.threshold(x, 0.5, -1.0), lambda x: np.where(x > 0.5, x, -1), lambda x: 1.0 * (x > 0.5), zero
    ),
}

ELEMENTWISE = {
    "square": Curve(gc.square, lambda x: x * x, lambda x: 2 * x, lambda x: 2 * one(x)),
    "x ** 0": Curve(lambda x: x**0, one, zero, zero, tuple(x for x in LINE if abs(x) != 1e-30)),  # x ** -2 overflows
    "x ** 1": Curve(lambda x: x**1, lambda x: x, one, zero),
    "x ** 3": Curve(lambda x: x**3, lambda x: x**3, lambda x: 3 * x**2, lambda x: 6 * x),
    "x ** 2 as a tensor": Curve(
        lambda x: gc.pow(x, 2.0 + 0 * gc.stop_gradient(gc.where(gc.isfinite(x), x, 0.0))),
        lambda x: x * x,
        lambda x: 2 * x,
        lambda x: 2 * one(x),
    ),
    "logaddexp of itself": Curve(lambda x: gc.logaddexp(x, x), lambda x: x + math.log(2), one, zero),
    "logaddexp of 0": Curve(lambda x: gc.logaddexp(0.0, x), soft, sigmoid, bell),
    "logaddexp of the opposite": Curve(
        lambda x: gc.logaddexp(x, -x),
        lambda x: np.abs(x) + np.log1p(np.exp(-2 * np.abs(x))),
        np.tanh,
        lambda x: np.cosh(x) ** -2.0,
    ),
    "hypot of 1": Curve(
        lambda x: gc.hypot(x, 1.0),
        lambda x: np.hypot(x, 1),
        lambda x: np.where(np.isinf(x), np.sign(x), x / np.hypot(x, 1)),
        lambda x: np.hypot(x, 1) ** -3.0,
    ),
    "atan2 of 1": Curve(
        lambda x: gc.atan2(x, 1.0),
        np.arctan,
        lambda x: np.hypot(x, 1) ** -2.0,
        lambda x: np.where(np.isinf(x), 0, -2 * x / np.hypot(x, 1) / np.hypot(x, 1) ** 3),
    ),
    "clip": Curve(lambda x: gc.clip(x, -1.0, 1.0), lambda x: np.clip(x, -1, 1), lambda x: 1.0 * (np.abs(x) <= 1), zero),
    "nan_to_num": Curve(
        lambda x: gc.nan_to_num(gc.log(x), nan=7.0, neginf=-5.0),
        lambda x: np.where(x == 0, -5, np.where(x < 0, 7, np.log(x))),
        lambda x: np.where(x <= 0, 0, 1 / x),
        lambda x: np.where(x <= 0, 0, -1 / x**2),
        tuple(x for x in FINITE if abs(x) < 1e4),
        0.0,
    ),
    "sqrt where positive": Curve(
        lambda x: gc.where(x > 0, gc.sqrt(x), 0.0),
        lambda x: np.where(x > 0, np.sqrt(x), 0),
        lambda x: np.where(x > 0, 0.5 * np.abs(x) ** -0.5, 0),
        lambda x: np.where(x > 0, -0.25 * np.abs(x) ** -1.5, 0),
        scale=0.0,
    ),
    "x log x where positive": Curve(
        lambda x: gc.where(x > 0, x * gc.log(x), 0.0),
        lambda x: np.where(x > 0, x * np.log(x), 0),
        lambda x: np.where(x > 0, np.log(x) + 1, 0),
        lambda x: np.where(x > 0, 1 / x, 0),
        FINITE,
    ),
    "sin x / x where not 0": Curve(
        lambda x: gc.where(x != 0, gc.sin(x) / x, 1.0),
        lambda x: np.where(x == 0, 1, np.sin(x) / x),
        lambda x: np.where(x == 0, 0, np.cos(x) / x - np.sin(x) / x**2),
        lambda x: np.where(x == 0, 0, -np.sin(x) / x - 2 * np.cos(x) / x**2 + 2 * np.sin(x) / x**3),
        tuple(x for x in FINITE if x == 0 or 0.4 < abs(x) < 100),
    ),
}

LOSSES = {
    "mse": Curve(
        lambda x: F.mse_loss(x, 0.0 * gc.ones(x.shape, x.dtype), "none"),
        lambda x: x * x,
        lambda x: 2 * x,
        lambda x: 2 * one(x),
    ),
    "l1": Curve(lambda x: F.l1_loss(x, 0.0, "none"), np.abs, np.sign, zero),
    "huber": Curve(lambda x: F.huber_loss(x, 0.0, "none"), *huber(1.0)),
    "huber of 2": Curve(lambda x: F.huber_loss(x, 0.0, "none", delta=2.0), *huber(2.0)),
    "smooth l1": Curve(lambda x: F.smooth_l1_loss(x, 0.0, "none", beta=0.5), *huber(0.5, 2.0)),
    "soft margin": Curve(lambda x: F.soft_margin_loss(x, -1.0, "none"), soft, sigmoid, bell),
    "hinge": Curve(
        lambda x: F.hinge_embedding_loss(x, -1.0, reduction="none"),
        lambda x: np.maximum(1 - x, 0),
        lambda x: -1.0 * (x < 1),
        zero,
    ),
    "ranking": Curve(
        lambda x: F.margin_ranking_loss(x, 0.0, -1.0, reduction="none"),
        lambda x: np.maximum(x, 0),
        lambda x: 1.0 * (x > 0),
        zero,
    ),
    **{
        f"logits of {t}": Curve(lambda x, t=t: F.binary_cross_entropy_with_logits(x, t, reduction="none"), *logits(t))
        for t in (0.0, 0.3, 1.0)
    },
    **{
        f"weighted logits of {t}": Curve(
            lambda x, t=t: F.binary_cross_entropy_with_logits(x, t, reduction="none", pos_weight=3.0), *logits(t, 3.0)
        )
        for t in (0.0, 0.3, 1.0)
    },
    **{
        f"probability of {t}": Curve(
            lambda x, t=t: F.binary_cross_entropy(x, t, reduction="none"), *entropy(t), _CHANCES, 0.0
        )
        for t in (0.0, 0.3, 1.0)
    },
    **{
        f"poisson of {t}": Curve(
            lambda x, t=t: F.poisson_nll_loss(x, t, reduction="none"),
            lambda x, t=t: np.exp(x) - times(x, np.full_like(x, t)),
            lambda x, t=t: np.exp(x) - t,
            np.exp,
            tuple(x for x in LINE if x < 1e9),
        )
        for t in (0.0, 2.0)
    },
    "poisson of rate 0": Curve(
        lambda x: F.poisson_nll_loss(x, 0.0, log_input=False, eps=0.0, reduction="none"),
        lambda x: x,
        one,
        zero,
        (0.0, 1.0),
    ),
    "kl of input": Curve(
        lambda x: F.kl_div(x, 0.5, "none"), lambda x: 0.5 * (math.log(0.5) - x), lambda x: -0.5 * one(x), zero
    ),
    "kl of input to nothing": Curve(lambda x: F.kl_div(x, 0.0, "none"), zero, zero, zero),
    "kl of target": Curve(
        lambda x: F.kl_div(-1.0, x, "none"),
        lambda t: np.where(t == 0, 0, t * (np.log(t) + 1)),
        lambda t: np.where(t == 0, 0, np.log(t) + 2),
        lambda t: np.where(t == 0, 0, 1 / t),
        (0.0, 1e-3, 0.5, 1.0, 20.0),
    ),
    "kl of log target": Curve(
        lambda x: F.kl_div(-1.0, x, "none", log_target=True),
        lambda b: times(b + 1, np.exp(b)),
        lambda b: times(b + 2, np.exp(b)),
        lambda b: times(b + 3, np.exp(b)),
        tuple(x for x in LINE if x < 100),
        0.0,
    ),
    "gaussian": Curve(
        lambda x: F.gaussian_nll_loss(x, 0.0, 0.5, reduction="none"),
        lambda x: (math.log(0.5) + 2 * x * x) / 2,
        lambda x: 2 * x,
        lambda x: 2 * one(x),
    ),
    "gaussian of variance": Curve(
        lambda x: F.gaussian_nll_loss(1.0, 0.0, x, reduction="none"),
        lambda v: (np.log(np.maximum(v, 1e-6)) + 1 / np.maximum(v, 1e-6)) / 2,
        lambda v: np.where(v < 1e-6, 0, (1 / v - 1 / v**2) / 2),
        lambda v: np.where(v < 1e-6, 0, (-1 / v**2 + 2 / v**3) / 2),
        (0.0, 1e-30, 1e-3, 1.0, 20.0, 1e4),
        0.0,
    ),
}

CURVES: dict[str, Curve] = {**ACTIVATIONS, **ELEMENTWISE, **LOSSES}
