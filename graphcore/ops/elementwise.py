"""Functions of one floating-point number, elementwise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from graphcore.base.errors import GradientError
from graphcore.ir.op import FLOAT, Example, Mask, Precision, primitive
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.ops._examples import floats, positive, unit
from graphcore.ops._scalar import Scalar, computed

__all__ = [
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Ceil",
    "Cos",
    "Cosh",
    "Exp",
    "Exp2",
    "Expm1",
    "Floor",
    "Log",
    "Log1p",
    "Log2",
    "Log10",
    "Relu",
    "Round",
    "Rsqrt",
    "Sigmoid",
    "Sin",
    "Sinh",
    "Sqrt",
    "Tan",
    "Tanh",
    "Trunc",
    "Unary",
]

_SPECIAL = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 0.5, -0.5, 1.5, 30.0, -30.0)


def _acosh_domain(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    return (positive(*shape, seed=seed) + 1).astype(dtype)


class Unary(Scalar):
    """A function of one floating-point number, with operand arrays from its ``domain``."""

    operands: ClassVar[str] = FLOAT
    cheap: ClassVar[bool] = False
    precision: ClassVar[Precision] = Precision.WIDE
    domain: ClassVar[Any] = staticmethod(floats)
    special: ClassVar[tuple[float, ...]] = _SPECIAL
    halves: ClassVar[tuple[str, ...]] = ()

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        """The gradient of x."""
        raise GradientError(f"{self.name} has no gradient")

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (self.slope(call.b, call.inputs[0], call.out, gradients[0]),)

    def examples(self) -> Iterator[Example]:
        yield self, self.domain(3, 5)
        yield self, self.domain()
        yield self, self.domain(0, 2)
        yield self, np.array(self.special, np.float32)
        for half in self.halves:
            yield self, self.domain(7, dtype=half)


@primitive
class Exp(Unary):
    """e ** x, elementwise."""

    halves: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, out)


@primitive
class Exp2(Unary):
    """2 ** x, elementwise."""

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.mul(out, math.log(2)))


@primitive
class Expm1(Unary):
    """e ** x - 1, elementwise, accurate near 0."""

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.add(out, 1))


class _Logarithm(Unary):
    """A logarithm; ``scale`` is that of its base."""

    steep: ClassVar[bool] = True
    domain: ClassVar[Any] = staticmethod(positive)
    scale: ClassVar[float] = 1.0

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.div(g, x if self.scale == 1 else b.mul(x, self.scale))


@primitive
class Log(_Logarithm):
    """The natural logarithm, elementwise."""

    halves: ClassVar[tuple[str, ...]] = ("float16",)


@primitive
class Log2(_Logarithm):
    """The logarithm to base 2, elementwise."""

    scale: ClassVar[float] = math.log(2)


@primitive
class Log10(_Logarithm):
    """The logarithm to base 10, elementwise."""

    scale: ClassVar[float] = math.log(10)


@primitive
class Log1p(Unary):
    """log(1 + x), elementwise, accurate near 0."""

    steep: ClassVar[bool] = True
    domain: ClassVar[Any] = staticmethod(unit)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.div(g, b.add(x, 1))


@primitive
class Sqrt(Unary):
    """The square root, elementwise."""

    steep: ClassVar[bool] = True
    cheap: ClassVar[bool] = True
    precision: ClassVar[Precision] = Precision.FOLLOWS
    domain: ClassVar[Any] = staticmethod(positive)
    halves: ClassVar[tuple[str, ...]] = ("bfloat16",)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.div(b.mul(g, 0.5), out)


@primitive
class Rsqrt(Unary):
    """1 / sqrt(x), elementwise."""

    steep: ClassVar[bool] = True
    cheap: ClassVar[bool] = True
    domain: ClassVar[Any] = staticmethod(positive)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(b.mul(g, -0.5), b.mul(out, b.mul(out, out)))


@primitive
class Sin(Unary):
    """The sine of an angle in radians, elementwise."""

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.cos(x))


@primitive
class Cos(Unary):
    """The cosine of an angle in radians, elementwise."""

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.neg(b.mul(g, b.sin(x)))


@primitive
class Tan(Unary):
    """The tangent of an angle in radians, elementwise."""

    domain: ClassVar[Any] = staticmethod(unit)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.add(b.mul(out, out), 1))


@primitive
class Asin(Unary):
    """The angle in -pi/2 .. pi/2 with sine x, elementwise."""

    steep: ClassVar[bool] = True
    domain: ClassVar[Any] = staticmethod(unit)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.rsqrt(b.one_minus_square(x)))


@primitive
class Acos(Unary):
    """The angle in 0 .. pi with cosine x, elementwise."""

    steep: ClassVar[bool] = True
    domain: ClassVar[Any] = staticmethod(unit)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.neg(b.mul(g, b.rsqrt(b.one_minus_square(x))))


@primitive
class Atan(Unary):
    """The angle in -pi/2 .. pi/2 with tangent x, elementwise."""

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        length = b.hypot(x, 1)
        return b.div(b.div(g, length), length)


@primitive
class Sinh(Unary):
    """The hyperbolic sine, elementwise."""

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.cosh(x))


@primitive
class Cosh(Unary):
    """The hyperbolic cosine, elementwise."""

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.sinh(x))


@primitive
class Tanh(Unary):
    """The hyperbolic tangent, elementwise."""

    halves: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.sub(1, b.mul(out, out)))


@primitive
class Asinh(Unary):
    """The inverse hyperbolic sine, elementwise."""

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.div(g, b.hypot(x, 1))


@primitive
class Acosh(Unary):
    """The inverse hyperbolic cosine, elementwise; NaN below 1."""

    steep: ClassVar[bool] = True
    domain: ClassVar[Any] = staticmethod(_acosh_domain)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.mul(b.rsqrt(b.sub(x, 1)), b.rsqrt(b.add(x, 1))))


@primitive
class Atanh(Unary):
    """The inverse hyperbolic tangent, elementwise; NaN outside -1 .. 1."""

    steep: ClassVar[bool] = True
    domain: ClassVar[Any] = staticmethod(unit)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.div(g, b.one_minus_square(x))


class _Rounding(Unary):
    """Rounding to whole numbers: zero gradient."""

    smooth: ClassVar[bool] = False
    cheap: ClassVar[bool] = True
    precision: ClassVar[Precision] = Precision.FOLLOWS

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (None,)


@primitive
class Floor(_Rounding):
    """The largest whole number not above x, elementwise."""


@primitive
class Ceil(_Rounding):
    """The smallest whole number not below x, elementwise."""


@primitive
class Trunc(_Rounding):
    """x without its fraction, elementwise."""


@primitive
class Round(_Rounding):
    """The nearest whole number, elementwise; halves go to the even one."""


@primitive
class Sigmoid(Unary):
    """1 / (1 + e ** -x), elementwise, without overflow."""

    halves: ClassVar[tuple[str, ...]] = ("float16",)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.mul(out, b.sub(1, out)))


@primitive
class Relu(Unary):
    """max(x, 0), elementwise; NaN stays NaN. The gradient at 0 is 0."""

    smooth: ClassVar[bool] = False
    cheap: ClassVar[bool] = True
    precision: ClassVar[Precision] = Precision.FOLLOWS
    halves: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")

    def scalar(self, *args: Expr) -> Expr:
        return expr.call("max", args[0], expr.const(0, args[0].dtype))

    def masks(self, call: Any) -> tuple[Mask | None, ...]:
        return (Mask(call.b.greater(call.out, 0), light=True),)

    def reference(self, *inputs: Any) -> Any:
        return computed(lambda x: np.where(x > 0, x, np.where(x <= 0, 0, x)), *inputs)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.where(b.greater(out, 0), g, b.zeros_like(g))
