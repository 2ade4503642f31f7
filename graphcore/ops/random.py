"""Random bits by counter: Philox4x32-10, so that any element can be computed alone, in any order, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from graphcore.base import dtypes
from graphcore.base.errors import DTypeError, GraphError, ShapeError
from graphcore.base.shapes import Shape, format_shape, is_static, product
from graphcore.ir.op import Draw, Example, Lowering, Opaque, Read, TensorType, one_type, primitive
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Index, flatten

__all__ = ["RandomBits", "philox"]

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF


def philox(counter: Any, key: Any) -> Any:
    """Philox4x32-10 by NumPy.

    Args:
        counter: (..., 4) words, the least significant first.
        key: (..., 2) words.

    Returns:
        (..., 4) words, uint32.
    """
    a, b, c, d = (np.asarray(counter)[..., i].astype(np.uint64) for i in range(4))
    k, m = (np.asarray(key)[..., i].astype(np.uint64) for i in range(2))
    low, high = np.uint64(_MASK), np.uint64(32)
    for turn in range(_ROUNDS):
        if turn:
            k, m = (k + np.uint64(_WEYL[0])) & low, (m + np.uint64(_WEYL[1])) & low
        first, second = a * np.uint64(_MULTIPLIERS[0]), c * np.uint64(_MULTIPLIERS[1])
        a, b, c, d = (second >> high) ^ b ^ k, second & low, (first >> high) ^ d ^ m, first & low
    return np.stack(np.broadcast_arrays(a, b, c, d), -1).astype(np.uint32)


def _word(value: int) -> Expr:
    return expr.const(value & _MASK, dtypes.uint32)


def _philox_expr(counter: tuple[Expr, ...], key: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The same as scalar expressions."""
    (a, b, c, d), (k, m) = counter, key
    for turn in range(_ROUNDS):
        if turn:
            k, m = expr.call("add", k, _word(_WEYL[0])), expr.call("add", m, _word(_WEYL[1]))
        (high0, low0), (high1, low1) = _multiplied(a, _MULTIPLIERS[0]), _multiplied(c, _MULTIPLIERS[1])
        a, b, c, d = _xor(high1, b, k), low1, _xor(high0, d, m), low0
    return a, b, c, d


def _multiplied(value: Expr, factor: int) -> tuple[Expr, Expr]:
    return expr.call("mulhi", value, _word(factor)), expr.call("mul", value, _word(factor))


def _xor(a: Expr, b: Expr, c: Expr) -> Expr:
    return expr.call("bit_xor", expr.call("bit_xor", a, b), c)


@primitive
class RandomBits(Opaque):
    """(seed uint32[2], step uint32[]) -> uniform uint32 of ``shape``.

    Element e in row-major order is word e % 4 of Philox4x32-10 with key ``seed`` and counter (low word of e // 4, high
    word of e // 4, step, stream).

    Attributes:
        stream: as it is built a ``Draw``, which has no value; the graph of a run has numbers of 32 bits.
        shape: the result's.
    """

    stream: int | Draw
    shape: Shape
    # Elements of symbolic shapes: up to there, and for the larger sizes that one program serves, the high word is 0.
    literal_beyond: ClassVar[int | None] = 2**28
    arity: ClassVar[int | None] = 2
    differentiable: ClassVar[bool] = False

    @property
    def draw(self) -> Draw | None:
        return self.stream if isinstance(self.stream, Draw) else None

    def numbered(self, stream: int) -> RandomBits:
        return replace(self, stream=stream)

    def _number(self) -> int:
        if isinstance(self.stream, Draw):
            raise GraphError(
                "random_bits: a draw has a value in the graph of a run only, where draws are numbered; take the graph "
                "from collect(...), or run the tensor in a session"
            )
        return self.stream & _MASK

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        for i, (given, shape) in enumerate(zip(inputs, ((2,), ()), strict=True)):
            if given.dtype != dtypes.uint32:
                raise DTypeError(f"{self.name}: operand {i + 1} has dtype {given.dtype}, not uint32")
            if given.shape != shape:
                raise ShapeError(
                    f"{self.name}: operand {i + 1} has the shape {format_shape(given.shape)}, not {format_shape(shape)}"
                )
        return one_type(self.shape, dtypes.uint32)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        flat = flatten(index, self.shape)
        lane, block = expr.index_value(flat % 4, dtypes.uint32), flat // 4
        low, high = block, Index(0)
        if is_static(self.shape):
            low, high = block % 2**32, block // 2**32
        words = expr.index_value(low, dtypes.uint32), expr.index_value(high, dtypes.uint32)
        seed = read(0, (Index(0),)), read(0, (Index(1),))
        result, *others = _philox_expr((*words, read(1, ()), _word(self._number())), seed)
        for i, word in enumerate(others, 1):
            result = expr.select(expr.call("eq", lane, _word(i)), word, result)
        return result

    def reference(self, *inputs: Any) -> Any:
        seed, step = inputs
        size = int(product(self.shape))
        blocks = np.arange((size + 3) // 4, dtype=np.uint64)
        rest = np.broadcast_to(np.array([step, self._number()], np.uint64), (len(blocks), 2))
        counter = np.column_stack([blocks & np.uint64(_MASK), blocks >> np.uint64(32), rest])
        return philox(counter, seed).ravel()[:size].reshape(self.shape)

    def examples(self) -> Iterator[Example]:
        seed, step = np.array([0xDEADBEEF, 7], np.uint32), np.array(3, np.uint32)
        yield RandomBits(0, (5, 7)), seed, step
        yield RandomBits(2**32 - 1, (64,)), seed, np.array(2**32 - 1, np.uint32)
        yield RandomBits(1, ()), seed, step
        yield RandomBits(1, (0, 3)), seed, step
        yield RandomBits(1, (2, 1, 3)), np.zeros(2, np.uint32), np.array(0, np.uint32)
