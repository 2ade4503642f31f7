"""Smooth functions whose formulas branch, as ops of their own: their slopes are smooth as well.

Composed of max, abs and selections they would inherit the corners of those: log(1 + e^x) as max(x, 0) + log1p(e^-|x|)
has the slope 0 at 0 then, not 1/2. So the branches are in the bodies of the scalar functions only, and slopes are
written on what is smooth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from graphcore.ir.op import FLOAT, Example, Mask, primitive
from graphcore.ops._examples import floats, unit
from graphcore.ops._scalar import Scalar
from graphcore.ops.elementwise import Unary

__all__ = ["Excess", "Gaussian", "Gelu", "Hypot", "LogAddExp", "Mish", "OneMinusSquare", "Silu", "Softplus", "Weigh"]


@primitive
class Softplus(Unary):
    """log(1 + e ** x), elementwise, without overflow."""

    halves: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.sigmoid(x))


def _factor(b: Any, x: Any) -> Any:
    """x as a factor of what is 0 at infinity."""
    return b.where(b.isinf(x), b.zeros_like(x), x)


@primitive
class Silu(Unary):
    """x / (1 + e ** -x), elementwise."""

    halves: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        """g s (1 + x (1 - s)) with s the sigmoid"""
        s = b.sigmoid(x)
        return b.mul(g, b.mul(s, b.add(b.mul(_factor(b, x), b.sub(1, s)), 1)))


@primitive
class Gelu(Unary):
    """x (1 + erf(x / sqrt 2)) / 2, elementwise (Hendrycks and Gimpel, 2016): x P(Z <= x) of a standard normal Z."""

    halves: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        """g (P(Z <= x) + x p(x)) with the normal density p(x) = e^(-x^2 / 2) / sqrt(2 pi)"""
        scaled = b.mul(x, math.sqrt(0.5))
        below = b.mul(b.add(b.erf(scaled), 1), 0.5)
        density = b.mul(b.gaussian(scaled), 1 / math.sqrt(2 * math.pi))
        return b.mul(g, b.add(below, b.mul(_factor(b, x), density)))


@primitive
class Mish(Unary):
    """x tanh(log(1 + e ** x)), elementwise."""

    halves: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        """g (tanh s + x s' / cosh^2 s) with s the softplus; 1 / cosh^2 s as a product of sigmoids, which go to 0."""
        s = b.softplus(x)
        double = b.mul(s, 2)
        flat = b.mul(b.mul(b.sigmoid(double), b.sigmoid(b.neg(double))), 4)
        return b.mul(g, b.add(b.tanh(s), b.mul(_factor(b, x), b.mul(flat, b.sigmoid(x)))))


class _Pair(Scalar):
    """A function of two numbers."""

    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = FLOAT

    def examples(self) -> Iterator[Example]:
        yield self, floats(3, 5), floats(3, 5, seed=9)
        yield self, floats(), floats(seed=9)
        yield self, floats(2, 0), floats(2, 0)
        values = np.array([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -2.5, 3e-30, 1e30, 100.0], np.float32)
        yield self, *np.meshgrid(values, values)
        for half in ("float16", "bfloat16"):
            yield self, floats(5, dtype=half), floats(5, dtype=half, seed=9)


@primitive
class Excess(_Pair):
    """x - y, elementwise, and 0 where both are the same infinity: how much larger x is."""

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return gradients[0], call.b.neg(gradients[0])


@primitive
class Weigh(_Pair):
    """x * y, elementwise, and 0 where x is 0 and y infinite: what has no weight adds nothing."""

    def masks(self, call: Any) -> tuple[Mask | None, ...]:
        return None, Mask(_weightless(call), keeps=False, light=True)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        b, g, (x, y) = call.b, gradients[0], call.inputs
        return b.where(_weightless(call), b.zeros_like(g), b.mul(g, y)), b.mul(g, x)


def _weightless(call: Any) -> Any:
    return call.b.logical_and(call.b.equal(call.inputs[0], 0), call.b.isinf(call.inputs[1]))


@primitive
class LogAddExp(_Pair):
    """log(e ** x + e ** y), elementwise, without overflow."""

    commutative: ClassVar[bool] = True
    cheap: ClassVar[bool] = False

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        """g sigmoid(x - y) and g sigmoid(y - x): equals share the gradient, infinities as well."""
        b, g, (x, y) = call.b, gradients[0], call.inputs
        return b.mul(g, b.sigmoid(b.excess(x, y))), b.mul(g, b.sigmoid(b.excess(y, x)))


@primitive
class Hypot(_Pair):
    """sqrt(x ** 2 + y ** 2), elementwise, without overflow; NaN if either is. The gradient at the origin is 0."""

    smooth: ClassVar[bool] = False
    commutative: ClassVar[bool] = True

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        """g x / out and g y / out; those of infinite operands are their signs."""
        b, origin = call.b, call.b.equal(call.out, 0)

        def share(x: Any) -> Any:
            part = b.where(b.isinf(x), b.sign(x), b.div(x, call.out))
            return b.mul(gradients[0], b.where(origin, b.zeros_like(x), part))

        return share(call.inputs[0]), share(call.inputs[1])


@primitive
class Gaussian(Unary):
    """e ** -(x ** 2), elementwise: the slope of erf but for a factor. Simplification takes it apart."""

    halves: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        """-2 g x e^-(x^2), with a finite number in place of an infinite x: it is multiplied by 0."""
        return b.mul(g, b.mul(b.where(b.isinf(x), b.zeros_like(x), b.mul(x, -2)), out))


@primitive
class OneMinusSquare(Unary):
    """1 - x ** 2, elementwise, exact near 1 and -1; in slopes of inverse functions."""

    cheap: ClassVar[bool] = True
    domain: ClassVar[Any] = staticmethod(unit)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        """Not by the rule of products, whose 0 times infinity at 1 would be NaN."""
        return b.mul(g, b.mul(x, -2))
