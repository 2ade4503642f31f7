"""Special functions of one floating-point number, elementwise: erf and its kin, log Gamma and its derivatives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from graphcore.base.dtypes import float32
from graphcore.base.errors import UsageError
from graphcore.ir.op import Example, TensorType, primitive
from graphcore.kernel import expr, interpret
from graphcore.kernel.expr import Expr
from graphcore.ops._examples import positive, unit
from graphcore.ops._scalar import computed
from graphcore.ops.elementwise import Unary

__all__ = ["Digamma", "Erf", "Erfc", "Erfinv", "Lgamma", "Polygamma"]

_GAMMA = (math.nan, math.inf, 0.5, 1.0, 2.0, 2.5, 30.0, 1e-3, -0.5, -2.25, -7.75)


def _bell(b: Any, x: Any, factor: float) -> Any:
    """factor * exp(-x^2)"""
    return b.mul(b.gaussian(x), factor)


@primitive
class Erf(Unary):
    """The error function, elementwise."""

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, _bell(b, x, 2 / math.sqrt(math.pi)))


@primitive
class Erfc(Unary):
    """1 - erf(x), elementwise, accurate for large x."""

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, _bell(b, x, -2 / math.sqrt(math.pi)))


@primitive
class Erfinv(Unary):
    """The inverse of erf, elementwise; infinite at -1 and 1, NaN beyond."""

    steep: ClassVar[bool] = True
    domain: ClassVar[Any] = staticmethod(unit)

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.mul(b.exp(b.mul(out, out)), math.sqrt(math.pi) / 2))


@primitive
class Lgamma(Unary):
    """log |Gamma(x)|, elementwise; infinite at 0, -1, -2, ..."""

    steep: ClassVar[bool] = True
    domain: ClassVar[Any] = staticmethod(positive)
    special: ClassVar[tuple[float, ...]] = _GAMMA

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.digamma(x))


@primitive
class Digamma(Unary):
    """The derivative of lgamma, elementwise; infinite at 0, NaN at -1, -2, ..."""

    steep: ClassVar[bool] = True
    domain: ClassVar[Any] = staticmethod(positive)
    special: ClassVar[tuple[float, ...]] = _GAMMA

    def slope(self, b: Any, x: Any, out: Any, g: Any) -> Any:
        return b.mul(g, b.polygamma(x, order=1))


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
        return computed(lambda x: interpret.apply("polygamma", x, np.full(x.shape, self.order, x.dtype)), *inputs)

    def examples(self) -> Iterator[Example]:
        for order in (1, 2, 5):
            op = type(self)(order)
            yield op, self.domain(3, 5)
            yield op, np.array((*self.special, 1e4, -0.0, 0.0, -1.0, -1e-3, -30.5, -math.inf), np.float32)
        yield type(self)(3), self.domain()
        yield type(self)(4), self.domain(0, 2)
        yield type(self)(2), self.domain(7, dtype="float16")
