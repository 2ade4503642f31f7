"""Smooth functions whose formulas branch, as ops of their own: their slopes are smooth as well.

Composed of max, abs and selections they would inherit the corners of those: log(1 + e^x) as max(x, 0) + log1p(e^-|x|)
has the slope 0 at 0 then, not 1/2. So the branches are in the scalar functions only, and slopes are written on what is
smooth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from graphcore.base.dtypes import DType, float32
from graphcore.ir.op import FLOAT, Example, Map, Mask, primitive
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.ops._examples import floats, unit
from graphcore.ops.arithmetic import computed
from graphcore.ops.elementwise import Sigmoid, Unary

__all__ = ["Excess", "Gaussian", "Hypot", "LogAddExp", "Mish", "OneMinusSquare", "Silu", "Softplus", "Weigh"]


def _wide(args: tuple[Expr, ...]) -> tuple[DType, list[Expr]]:
    """The type of the result, and the operands in the type to compute in: half types are rounded once, at the end."""
    stored = args[0].dtype
    return stored, [expr.cast(a, float32 if stored.rounds else stored) for a in args]


def _log1p_exp_minus(size: Expr) -> Expr:
    """log(1 + e^-size) for sizes of at least 0"""
    return expr.call("log1p", expr.call("exp", expr.call("neg", size)))


def _softplus(x: Expr) -> Expr:
    """max(x, 0) + log(1 + e^-|x|)"""
    top = expr.call("max", x, expr.const(0, x.dtype))
    return expr.call("add", top, _log1p_exp_minus(expr.call("abs", x)))


@primitive
class Softplus(Unary):
    """log(1 + e ** x), elementwise, without overflow."""

    function: ClassVar[Any] = staticmethod(lambda x: np.logaddexp(x, 0))
    halves: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")

    def scalar(self, *args: Expr) -> Expr:
        stored, (x,) = _wide(args)
        return expr.cast(_softplus(x), stored)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.sigmoid(x))


class _Gated(Unary):
    """x times a function that goes from 0 to 1: 0 at -inf, and with slopes that are limits at both infinities."""

    halves: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")

    def gate(self, x: Expr) -> Expr:
        """The factor."""
        raise NotImplementedError(self.name)  # pragma: no cover - both have one

    def scalar(self, *args: Expr) -> Expr:
        stored, (x,) = _wide(args)
        lowest = expr.const(float(np.finfo(x.dtype.storage).min), x.dtype)  # times 0 it is 0
        return expr.cast(expr.call("mul", expr.call("max", x, lowest), self.gate(x)), stored)

    def reference(self, *inputs: Any) -> Any:
        return computed(lambda x: np.maximum(x, np.finfo(x.dtype).min) * self.function(x), *inputs)


def _factor(b: Any, x: Any) -> Any:
    """x as a factor of what is 0 at infinity."""
    return b.where(b.isinf(x), b.zeros_like(x), x)


@primitive
class Silu(_Gated):
    """x / (1 + e ** -x), elementwise."""

    function: ClassVar[Any] = staticmethod(Sigmoid.function)

    def gate(self, x: Expr) -> Expr:
        return expr.call("sigmoid", x)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        """g s (1 + x (1 - s)) with s the sigmoid"""
        s = b.sigmoid(x)
        return b.mul(g, b.mul(s, b.add(b.mul(_factor(b, x), b.sub(1, s)), 1)))


@primitive
class Mish(_Gated):
    """x tanh(log(1 + e ** x)), elementwise."""

    function: ClassVar[Any] = staticmethod(lambda x: np.tanh(np.logaddexp(x, 0)))

    def gate(self, x: Expr) -> Expr:
        return expr.call("tanh", _softplus(x))

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        """g (tanh s + x s' / cosh^2 s) with s the softplus; 1 / cosh^2 s as a product of sigmoids, which go to 0."""
        s = b.softplus(x)
        double = b.mul(s, 2)
        flat = b.mul(b.mul(b.sigmoid(double), b.sigmoid(b.neg(double))), 4)
        return b.mul(g, b.add(b.tanh(s), b.mul(_factor(b, x), b.mul(flat, b.sigmoid(x)))))


class _Pair(Map):
    """A function of two numbers."""

    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = FLOAT
    function: ClassVar[Any] = None

    def reference(self, *inputs: Any) -> Any:
        return computed(self.function, *inputs)

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

    function: ClassVar[Any] = staticmethod(lambda x, y: np.where(x == y, 0, x - y))

    def scalar(self, *args: Expr) -> Expr:
        x, y = args
        return expr.select(expr.call("eq", x, y), expr.const(0, x.dtype), expr.call("sub", x, y))

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return gradients[0], call.b.neg(gradients[0])


@primitive
class Weigh(_Pair):
    """x * y, elementwise, and 0 where x is 0 and y infinite: what has no weight adds nothing."""

    function: ClassVar[Any] = staticmethod(lambda x, y: np.where((x == 0) & np.isinf(y), 0, x * y))

    def masks(self, call: Any) -> tuple[Mask | None, ...]:
        return None, Mask(_weightless(call), keeps=False, light=True)

    def scalar(self, *args: Expr) -> Expr:
        x, y = args
        zero = expr.const(0, x.dtype)
        nothing = expr.both(expr.call("eq", x, zero), expr.call("isinf", y))
        return expr.select(nothing, zero, expr.call("mul", x, y))

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
    function: ClassVar[Any] = np.logaddexp

    def scalar(self, *args: Expr) -> Expr:
        """max(x, y) + log(1 + e^-|x - y|), where a difference of equal infinities is 0"""
        stored, (x, y) = _wide(args)
        far = expr.call("abs", expr.call("sub", x, y))
        far = expr.select(expr.call("eq", x, y), expr.const(0, x.dtype), far)
        return expr.cast(expr.call("add", expr.call("max", x, y), _log1p_exp_minus(far)), stored)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        """g sigmoid(x - y) and g sigmoid(y - x): equals share the gradient, infinities as well."""
        b, g, (x, y) = call.b, gradients[0], call.inputs
        return b.mul(g, b.sigmoid(b.excess(x, y))), b.mul(g, b.sigmoid(b.excess(y, x)))


def _hypot(x: Any, y: Any) -> Any:
    return np.where(np.isnan(x) | np.isnan(y), math.nan, np.hypot(x, y))


@primitive
class Hypot(_Pair):
    """sqrt(x ** 2 + y ** 2), elementwise, without overflow; NaN if either is. The gradient at the origin is 0."""

    smooth: ClassVar[bool] = False
    commutative: ClassVar[bool] = True
    function: ClassVar[Any] = staticmethod(_hypot)

    def scalar(self, *args: Expr) -> Expr:
        """m sqrt(1 + (n / m)^2) with m the larger of the sizes and n the smaller; m where it is 0 or infinite"""
        stored, (x, y) = _wide(args)
        sizes = expr.call("abs", x), expr.call("abs", y)
        large, small = expr.call("max", *sizes), expr.call("min", *sizes)
        ratio, one = expr.call("div", small, large), expr.const(1, x.dtype)
        length = expr.call("mul", large, expr.call("sqrt", expr.call("add", one, expr.call("mul", ratio, ratio))))
        itself = expr.call("or", expr.call("eq", large, expr.const(0, x.dtype)), expr.call("isinf", large))
        return expr.cast(expr.select(itself, large, length), stored)

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

    function: ClassVar[Any] = staticmethod(lambda x: np.exp(-(x * x)))
    halves: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")

    def scalar(self, *args: Expr) -> Expr:
        stored, (x,) = _wide(args)
        return expr.cast(expr.call("exp", expr.call("neg", expr.call("mul", x, x))), stored)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        """-2 g x e^-(x^2), with a finite number in place of an infinite x: it is multiplied by 0."""
        return b.mul(g, b.mul(b.where(b.isinf(x), b.zeros_like(x), b.mul(x, -2)), out))


@primitive
class OneMinusSquare(Unary):
    """1 - x ** 2, elementwise, exact near 1 and -1; in slopes of inverse functions."""

    cheap: ClassVar[bool] = True
    function: ClassVar[Any] = staticmethod(lambda x: (1 - x) * (1 + x))
    domain: ClassVar[Any] = staticmethod(unit)

    def scalar(self, *args: Expr) -> Expr:
        """(1 - x) (1 + x)"""
        stored, (x,) = _wide(args)
        one = expr.const(1, x.dtype)
        return expr.cast(expr.call("mul", expr.call("sub", one, x), expr.call("add", one, x)), stored)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        """Not by the rule of products, whose 0 times infinity at 1 would be NaN."""
        return b.mul(g, b.mul(x, -2))
