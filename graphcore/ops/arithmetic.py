"""Arithmetic, elementwise. Operands have equal types; broadcasting and promotion are the front end's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from graphcore.base import dtypes
from graphcore.base.errors import GraphError
from graphcore.ir.op import FLOAT, REAL, Example, Map, Mask, Precision, TensorType, primitive
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.ops._examples import floats, integers, positive
from graphcore.ops._scalar import Scalar, computed

__all__ = [
    "Abs",
    "Add",
    "AddN",
    "Atan2",
    "Copysign",
    "Div",
    "FloorDiv",
    "Maximum",
    "Minimum",
    "Mod",
    "Mul",
    "Neg",
    "Pow",
    "Reciprocal",
    "Sign",
    "Sub",
]


def _pairs(op: Map, second: Any = floats) -> Iterator[Example]:
    """Operand pairs: plain, rank 0, empty, one element."""
    yield op, floats(3, 5), second(3, 5, seed=9)
    yield op, floats(), second(seed=9)
    yield op, floats(2, 0), second(2, 0)
    yield op, floats(1, 1, 4), second(1, 1, 4, seed=9)


def _edges() -> tuple[Any, Any]:
    """All pairs of special values."""
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -2.5], np.float32)
    a, b = np.meshgrid(values, values)
    return a, b


@primitive
class Add(Scalar):
    """x + y, elementwise."""

    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = REAL
    commutative: ClassVar[bool] = True
    identity: ClassVar[float | None] = 0

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return gradients[0], gradients[0]

    def examples(self) -> Iterator[Example]:
        yield from _pairs(self)
        yield self, *_edges()
        yield self, integers(4, 3), integers(4, 3, seed=1)
        yield self, integers(7, low=0, high=256, dtype="uint8"), integers(7, low=0, high=256, dtype="uint8", seed=1)
        for half in ("float16", "bfloat16"):
            yield self, floats(3, 5, dtype=half), floats(3, 5, dtype=half, seed=1)


@primitive
class Sub(Scalar):
    """x - y, elementwise."""

    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = REAL

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return gradients[0], call.b.neg(gradients[0])

    def examples(self) -> Iterator[Example]:
        yield from _pairs(self)
        yield self, *_edges()
        yield self, integers(4, 3, dtype="int64"), integers(4, 3, dtype="int64", seed=1)


@primitive
class Mul(Scalar):
    """x * y, elementwise."""

    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = REAL
    commutative: ClassVar[bool] = True
    identity: ClassVar[float | None] = 1

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        x, y = call.inputs
        return call.b.mul(gradients[0], y), call.b.mul(gradients[0], x)

    def examples(self) -> Iterator[Example]:
        yield from _pairs(self)
        yield self, *_edges()
        yield self, integers(4, 3, dtype="int8"), integers(4, 3, dtype="int8", seed=1)
        for half in ("float16", "bfloat16"):
            yield self, floats(3, 5, dtype=half), floats(3, 5, dtype=half, seed=1)


@primitive
class Div(Scalar):
    """x / y, elementwise. Floating types; integers divide by ``floor_divide`` or after a cast."""

    steep: ClassVar[bool] = True
    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = FLOAT

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        part = call.b.div(gradients[0], call.inputs[1])
        return part, call.b.neg(call.b.mul(part, call.out))

    def examples(self) -> Iterator[Example]:
        yield from _pairs(self, positive)
        yield self, *_edges()
        yield self, floats(5, dtype="float16"), positive(5, dtype="float16")


@primitive
class FloorDiv(Scalar):
    """The largest whole number not above x / y, elementwise. An integer divided by zero gives 0."""

    smooth: ClassVar[bool] = False
    name: ClassVar[str] = "floor_divide"
    fn: ClassVar[str] = "floordiv"
    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = REAL

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return None, None

    def examples(self) -> Iterator[Example]:
        yield from _pairs(self, positive)
        yield self, integers(30), integers(30, low=1, high=7, seed=1)
        yield self, integers(30), integers(30, low=-7, high=0, seed=1)
        yield self, integers(9, low=0, high=99, dtype="uint32"), integers(9, low=1, high=7, dtype="uint32", seed=1)


@primitive
class Mod(Scalar):
    """x - floor(x / y) * y, elementwise: the remainder has the sign of y, as in Python. An integer modulo zero is 0."""

    steep: ClassVar[bool] = True
    smooth: ClassVar[bool] = False
    name: ClassVar[str] = "remainder"
    fn: ClassVar[str] = "mod"
    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = REAL

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        whole = call.b.floor_divide(*call.inputs)
        return gradients[0], call.b.neg(call.b.mul(gradients[0], whole))

    def examples(self) -> Iterator[Example]:
        yield from _pairs(self, positive)
        yield self, integers(30), integers(30, low=1, high=7, seed=1)
        yield self, integers(30), integers(30, low=-7, high=0, seed=1)


@primitive
class Neg(Scalar):
    """-x, elementwise; unsigned integers wrap."""

    operands: ClassVar[str] = REAL

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (call.b.neg(gradients[0]),)

    def examples(self) -> Iterator[Example]:
        yield self, floats(3, 5)
        yield self, floats()
        yield self, floats(0, 4)
        yield self, np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)
        yield self, integers(7)
        yield self, integers(7, low=0, high=256, dtype="uint8")


@primitive
class Abs(Scalar):
    """|x|, elementwise. The gradient at 0 is 0."""

    smooth: ClassVar[bool] = False
    operands: ClassVar[str] = REAL

    def scalar(self, *args: Expr) -> Expr:
        return args[0] if args[0].dtype.is_unsigned else expr.call("abs", *args)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        b, g, x = call.b, gradients[0], call.inputs[0]
        return (b.where(b.equal(x, 0), b.zeros_like(g), b.mul(g, b.sign(x))),)  # also of an infinite gradient

    def examples(self) -> Iterator[Example]:
        yield self, floats(3, 5)
        yield self, floats()
        yield self, floats(0, 4)
        yield self, np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)
        yield self, integers(7)
        yield self, integers(7, low=0, high=256, dtype="uint8")


@primitive
class Sign(Scalar):
    """-1, 0 or 1 with the sign of x, elementwise; NaN stays NaN."""

    smooth: ClassVar[bool] = False
    operands: ClassVar[str] = REAL

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (None,)

    def examples(self) -> Iterator[Example]:
        yield self, floats(3, 5)
        yield self, floats()
        yield self, np.array([np.nan, np.inf, -np.inf, 0.0, 2.0], np.float32)
        yield self, integers(7, low=-2, high=3)
        yield self, integers(7, low=0, high=3, dtype="uint16")


@primitive
class Pow(Scalar):
    """x ** y, elementwise. Integer powers of integers are for exponents of at least 0."""

    steep: ClassVar[bool] = True
    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = REAL
    cheap: ClassVar[bool] = False
    precision: ClassVar[Precision] = Precision.WIDE

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        """g y x^(y-1) and g x^y log x, where 0 times infinity is 0: the limits."""
        b, g, (x, y) = call.b, gradients[0], call.inputs
        constant = b.logical_and(b.equal(x, 0), b.equal(y, 0))
        slope = b.pow(x, b.where(constant, b.zeros_like(y), b.sub(y, 1)))
        growth = b.where(b.logical_or(constant, b.equal(call.out, 0)), b.zeros_like(y), b.mul(call.out, b.log(x)))
        return b.mul(g, b.mul(y, slope)), b.mul(g, growth)

    def examples(self) -> Iterator[Example]:
        yield self, positive(3, 5), floats(3, 5)
        yield self, positive(), floats()
        yield self, positive(0, 2), floats(0, 2)
        yield self, *_edges()
        yield self, integers(6, low=-5, high=5), integers(6, low=0, high=5, seed=1)
        yield self, integers(6, low=0, high=5, dtype="uint32"), integers(6, low=0, high=5, dtype="uint32", seed=1)


class _Extreme(Scalar):
    """The larger or smaller of two: NaN wins, ties share the gradient evenly."""

    smooth: ClassVar[bool] = False
    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = REAL
    commutative: ClassVar[bool] = True
    wins: ClassVar[str] = "greater"

    def masks(self, call: Any) -> tuple[Mask | None, ...]:
        x, y = call.inputs
        wins = getattr(call.b, self.wins)
        return Mask(wins(y, x), keeps=False), Mask(wins(x, y), keeps=False)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        b, g, (x, y) = call.b, gradients[0], call.inputs
        tie, half, zero = b.equal(x, y), b.mul(g, 0.5), b.zeros_like(g)
        first, second = getattr(b, self.wins)(x, y), getattr(b, self.wins)(y, x)
        return b.where(tie, half, b.where(first, g, zero)), b.where(tie, half, b.where(second, g, zero))

    def examples(self) -> Iterator[Example]:
        yield from _pairs(self)
        yield self, *_edges()
        yield self, integers(4, 3, low=-3, high=3), integers(4, 3, low=-3, high=3, seed=1)
        yield self, floats(5, dtype="bfloat16"), floats(5, dtype="bfloat16", seed=1)


@primitive
class Maximum(_Extreme):
    """The larger of x and y, elementwise; NaN if either is."""

    fn: ClassVar[str] = "max"


@primitive
class Minimum(_Extreme):
    """The smaller of x and y, elementwise; NaN if either is."""

    fn: ClassVar[str] = "min"
    wins: ClassVar[str] = "less"


@primitive
class Atan2(Scalar):
    """The angle of the point (second operand, first operand), in -pi .. pi, elementwise."""

    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = FLOAT
    cheap: ClassVar[bool] = False

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        """g x / r^2 and -g y / r^2, divided by r = hypot(x, y) twice so that nothing overflows; 0 at the origin."""
        b, g, (y, x) = call.b, gradients[0], call.inputs
        length = b.hypot(x, y)
        flat = b.logical_or(b.equal(length, 0), b.isinf(length))

        def part(along: Any) -> Any:
            return b.mul(g, b.where(flat, b.zeros_like(x), b.div(b.div(along, length), length)))

        return part(x), b.neg(part(y))

    def examples(self) -> Iterator[Example]:
        yield from _pairs(self)
        yield self, *_edges()


@primitive
class Copysign(Scalar):
    """The magnitude of the first operand with the sign of the second, elementwise."""

    smooth: ClassVar[bool] = False
    arity: ClassVar[int | None] = 2
    operands: ClassVar[str] = FLOAT

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        b, (x, y) = call.b, call.inputs
        return b.mul(gradients[0], b.mul(b.sign(x), b.copysign(1, y))), None

    def examples(self) -> Iterator[Example]:
        yield from _pairs(self)
        a, b = _edges()
        yield self, a, np.where(np.isnan(b), np.float32(3), b)  # a NaN's sign is unspecified


@primitive
class Reciprocal(Scalar):
    """1 / x, elementwise."""

    steep: ClassVar[bool] = True
    operands: ClassVar[str] = FLOAT

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (call.b.neg(call.b.mul(gradients[0], call.b.mul(call.out, call.out))),)

    def examples(self) -> Iterator[Example]:
        yield self, floats(3, 5)
        yield self, floats()
        yield self, floats(0)
        yield self, np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)
        yield self, positive(5, dtype="float16")


@primitive
class AddN(Map):
    """The sum of any number of operands, elementwise; half types add up in the compute type and round once."""

    arity: ClassVar[int | None] = None
    operands: ClassVar[str] = REAL
    commutative: ClassVar[bool] = True
    identity: ClassVar[float | None] = 0

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        if not inputs:
            raise GraphError("add_n: takes at least one operand")
        return super().infer(*inputs)

    def scalar(self, *args: Expr) -> Expr:
        stored = args[0].dtype
        total, *rest = (expr.cast(a, dtypes.as_dtype(stored.compute)) for a in args)
        for term in rest:
            total = expr.call("add", total, term)
        return expr.cast(total, stored)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (gradients[0],) * len(call.inputs)

    def reference(self, *inputs: Any) -> Any:
        return computed(lambda first, *rest: sum(rest, first), *inputs)

    def examples(self) -> Iterator[Example]:
        yield self, floats(3, 5)
        yield self, floats(3, 5), floats(3, 5, seed=1), floats(3, 5, seed=2), floats(3, 5, seed=3)
        yield self, floats(), floats(seed=1), floats(seed=2)
        yield self, floats(0), floats(0)
        yield self, *(floats(5, dtype="bfloat16", seed=s) for s in range(4))
        yield self, integers(3), integers(3, seed=1), integers(3, seed=2)
