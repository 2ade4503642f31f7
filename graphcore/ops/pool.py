"""Pooling over the last two axes, with any axes before them, and the gradients, all in gather form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from graphcore.base import dtypes
from graphcore.base.dtypes import DType
from graphcore.base.shapes import Shape
from graphcore.ir.op import FLOAT, Example, Lowering, Read, TensorType, one_type, primitive
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Index
from graphcore.ops._examples import floats
from graphcore.ops._windows import Pair, Pool, Quad
from graphcore.ops.conv import fresh_axes

__all__ = ["AvgPool", "AvgPoolGrad", "MaxPool", "MaxPoolGather", "MaxPoolGrad", "MaxPoolIndex"]


def _wide(x: Any) -> Any:
    return x.astype(np.dtype(dtypes.as_dtype(x.dtype).compute))


_MAX: tuple[tuple[Pair, Pair, Quad, Pair, Shape], ...] = (
    ((2, 2), (2, 2), (0, 0, 0, 0), (1, 1), (2, 3, 4, 6)),
    ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), (2, 2, 7, 6)),  # overlapping, padded
    ((2, 3), (1, 2), (1, 0, 2, 1), (2, 1), (1, 2, 6, 7)),  # dilated
    ((1, 1), (2, 2), (0, 0, 0, 0), (1, 1), (1, 1, 4, 5)),
    ((2, 1), (1, 1), (0, 0, 0, 0), (1, 1), (3, 4)),  # no axes before
    ((2, 2), (2, 2), (0, 0, 0, 0), (1, 1), (0, 3, 4, 4)),
    ((3, 3), (1, 1), (0, 0, 0, 0), (1, 1), (2, 3, 3)),  # one window
)


class _Dilated(Pool):
    """Windows whose taps may lie apart."""

    dilation: Pair

    @property
    def gaps(self) -> Pair:
        return self.dilation


@primitive
class MaxPool(_Dilated):
    """The largest element of every window; NaN wins. ``padding`` is top, bottom, left, right, and never the largest.

    The gradient goes to the first largest element of a window.
    """

    smooth: ClassVar[bool] = False
    window: Pair
    stride: Pair
    padding: Quad
    dilation: Pair

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        self.check(0, inputs[0], FLOAT)
        return one_type(self.pooled(inputs[0]), inputs[0].dtype)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        x = call.inputs[0]
        axes, (p, q) = fresh_axes(call, *self.window)
        where, inside = self.tap(index, p, q, x.shape)
        value = expr.select(inside, read(0, where, inside), expr.const(-math.inf, x.dtype))
        return expr.reduce("max", axes, value) if axes else value

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        x = call.inputs[0]
        first = call.b.max_pool_index(x, **self.geometry())
        return (call.b.max_pool_grad(gradients[0], first, **self.geometry(), input_size=x.shape[-2:]),)

    def reference(self, *inputs: Any) -> Any:
        return self.taps(inputs[0], -math.inf).max(0)

    def examples(self) -> Iterator[Example]:
        for *geometry, shape in _MAX:
            yield MaxPool(*geometry), floats(*shape)  # type: ignore[arg-type]
        plain = MaxPool((2, 2), (2, 2), (0, 0, 0, 0), (1, 1))
        yield plain, np.array([[1, np.nan, -np.inf, -np.inf], [2, 3, -np.inf, -np.inf]], np.float32)
        yield plain, floats(2, 4, 4, dtype="float16")


@primitive
class MaxPoolIndex(_Dilated):
    """Which tap of every window holds its first largest element (or first NaN): row * window width + column, int32
    (int64 in windows of more than 2**31 taps).

    It never is one in the padding, unless there is nothing else in the window (which steps over the input then).
    """

    window: Pair
    stride: Pair
    padding: Quad
    dilation: Pair
    differentiable = False

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        self.check(0, inputs[0], FLOAT)
        return one_type(self.pooled(inputs[0]), self.tap_dtype)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        x, (kh, kw) = call.inputs[0], self.window
        axes, (k,) = fresh_axes(call, kh * kw)
        if not axes:
            return expr.const(0, self.tap_dtype)
        where, inside = self.tap(index, k // kw, k % kw, x.shape)
        value = expr.select(inside, read(0, where, inside), expr.const(-math.inf, x.dtype))
        found = expr.cast(expr.reduce("argmax", axes, value), self.tap_dtype)
        if not (self.padding[0] or self.padding[2]):
            return found
        first = expr.cast(self.first_inside(index, self.reach(x.shape)), self.tap_dtype)
        return expr.call("max", found, first)

    def first_inside(self, index: tuple[Index, ...], dtype: DType) -> Expr:
        """The first tap of a window outside of the padding. No element's tap comes before it, and the padding is only
        found to be the largest as the very first tap, in windows of nothing but -inf."""
        first = []
        for at, stride, low, gap in zip(index[-2:], self.stride, self.padding[::2], self.gaps, strict=True):
            missing = expr.index_value(at * -stride + (low + gap - 1), dtype)
            steps = missing if gap == 1 else expr.call("floordiv", missing, expr.const(gap, dtype))
            first.append(expr.call("max", steps, expr.const(0, dtype)))
        return expr.call("add", expr.call("mul", first[0], expr.const(self.window[1], dtype)), first[1])

    def reference(self, *inputs: Any) -> Any:
        found = _wide(self.taps(inputs[0], -math.inf)).argmax(0)
        rows, columns = (
            np.maximum((low + gap - 1 - np.arange(count) * stride) // gap, 0)
            for count, stride, low, gap in zip(found.shape[-2:], self.stride, self.padding[::2], self.gaps, strict=True)
        )
        return np.maximum(found, rows[:, None] * self.window[1] + columns).astype(self.tap_dtype.storage)

    def examples(self) -> Iterator[Example]:
        for *geometry, shape in _MAX:
            yield MaxPoolIndex(*geometry), floats(*shape)  # type: ignore[arg-type]
            if 0 not in shape:
                yield MaxPoolIndex(*geometry), np.full(shape, -np.inf, np.float32)  # type: ignore[arg-type]
        plain = MaxPoolIndex((2, 2), (2, 2), (0, 0, 0, 0), (1, 1))
        yield plain, np.array([[1, np.nan, 0, 1], [np.nan, 3, 1, 1]], np.float32)


@primitive
class MaxPoolGrad(_Dilated):
    """(g, index) -> dx: what every window has goes to the input element that ``index`` names."""

    window: Pair
    stride: Pair
    padding: Quad
    dilation: Pair
    input_size: Pair
    arity = 2

    def linear_in(self, count: int) -> tuple[int, ...]:
        return (0,)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        g, index = inputs
        self.check(0, g, FLOAT)
        self.require_same(g, g.shape, index)
        return one_type(self.spread(g, self.input_size), g.dtype)

    @property
    def loops(self) -> bool:  # type: ignore[override]
        return not self.disjoint

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        if self.disjoint:
            where, inside, position = self.only_window(index, call.inputs[0].shape)
            hit = expr.call("eq", read(1, where, inside), expr.index_value(position, self.tap_dtype))
            return expr.select(hit, read(0, where, inside), expr.const(0, call.outputs[0].dtype))
        c = self.covering(call, index, call.inputs[0].shape)
        hit = expr.both(c.held, expr.call("eq", read(1, c.window, c.real), expr.index_value(c.tap, self.tap_dtype)))
        return expr.total(c.axes, expr.select(hit, read(0, c.window, c.real), expr.const(0, call.outputs[0].dtype)))

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return call.b.max_pool_gather(gradients[0], call.inputs[1], **self.geometry()), None

    def reference(self, *inputs: Any) -> Any:
        g, index = inputs
        taps = np.arange(self.window[0] * self.window[1]).reshape(-1, *(1,) * g.ndim)
        return self.scatter(np.where(index == taps, _wide(g), 0), self.input_size).astype(g.dtype)

    def examples(self) -> Iterator[Example]:
        for window, stride, padding, dilation, shape in _MAX:
            op = MaxPoolGrad(window, stride, padding, dilation, shape[-2:])  # type: ignore[arg-type]
            yield op, floats(*_pooled(op, shape)), _positions(op, shape)


def _pooled(op: Pool, shape: Shape) -> tuple[int, ...]:
    return tuple(int(e) for e in (*shape[:-2], *op.counts(shape[-2:])))


def _positions(op: Pool, shape: Shape) -> Any:
    """Example indices as the pool of some data records them."""
    found = MaxPoolIndex(op.window, op.stride, op.padding, op.gaps)
    return found.reference(floats(*shape, seed=3))  # type: ignore[arg-type]


@primitive
class MaxPoolGather(_Dilated):
    """(v, index) -> the elements that ``index`` names of v, which has the input's shape: max_pool_grad's gradient."""

    window: Pair
    stride: Pair
    padding: Quad
    dilation: Pair
    arity = 2

    def linear_in(self, count: int) -> tuple[int, ...]:
        return (0,)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        v, index = inputs
        self.check(0, v, FLOAT)
        shape = self.pooled(v)
        self.require_same(v, shape, index)
        return one_type(shape, v.dtype)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        axes, (p, q) = fresh_axes(call, *self.window)
        where, inside = self.tap(index, p, q, call.inputs[0].shape)
        here = expr.index_value(p * self.window[1] + q, self.tap_dtype)
        return expr.total(axes, read(0, where, expr.both(inside, expr.call("eq", read(1, index), here))))

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        v, index = call.inputs
        return call.b.max_pool_grad(gradients[0], index, **self.geometry(), input_size=v.shape[-2:]), None

    def reference(self, *inputs: Any) -> Any:
        v, index = inputs
        taps = np.arange(self.window[0] * self.window[1]).reshape(-1, *(1,) * v.ndim)
        return np.where(index == taps, _wide(self.taps(v, 0)), 0).sum(0).astype(v.dtype)

    def examples(self) -> Iterator[Example]:
        for window, stride, padding, dilation, shape in _MAX:
            op = MaxPoolGather(window, stride, padding, dilation)
            yield op, floats(*shape), _positions(op, shape)  # type: ignore[arg-type]


_AVERAGE: tuple[tuple[Pair, Pair, Quad, bool, Shape], ...] = (
    ((2, 2), (2, 2), (0, 0, 0, 0), True, (2, 3, 4, 6)),
    ((3, 3), (2, 2), (1, 1, 1, 1), True, (2, 2, 7, 6)),
    ((3, 3), (2, 2), (1, 1, 1, 1), False, (2, 2, 7, 6)),
    ((2, 3), (1, 2), (1, 0, 2, 1), False, (1, 2, 6, 7)),
    ((1, 1), (2, 2), (0, 0, 0, 0), False, (1, 1, 4, 5)),
    ((2, 3), (2, 3), (0, 0, 0, 0), False, (2, 5, 7)),  # disjoint, with a rest
    ((2, 1), (1, 1), (0, 0, 0, 0), True, (3, 4)),
    ((2, 2), (2, 2), (0, 0, 0, 0), True, (0, 3, 4, 4)),
    ((3, 3), (1, 1), (1, 1, 1, 1), False, (2, 1, 1)),
)


class _Average(Pool):
    """Means of windows, and the transpose."""

    window: Pair
    stride: Pair
    padding: Quad
    count_include_pad: bool

    def divisor(self, i: Index, j: Index, size: Shape, wide: Any) -> Expr:
        """How many elements window (i, j) averages."""
        if self.count_include_pad or not any(self.padding):
            return expr.const(self.window[0] * self.window[1], wide)
        lengths, dtype = [], self.reach(size)
        starts = i * self.stride[0] - self.padding[0], j * self.stride[1] - self.padding[2]
        for start, taps, extent in zip(starts, self.window, size, strict=True):
            low = expr.index_value(start, dtype)
            end = expr.call("add", low, expr.const(taps, dtype))
            high = expr.call("min", end, expr.const(int(extent), dtype))
            lengths.append(expr.call("sub", high, expr.call("max", low, expr.const(0, dtype))))
        return expr.cast(expr.call("max", expr.call("mul", *lengths), expr.const(1, dtype)), wide)

    def divisors(self, size: Shape, dtype: Any) -> Any:
        """The same for all windows, by NumPy."""
        ones = np.ones((int(size[0]), int(size[1])), dtype)
        return np.asarray(self.taps(ones, float(self.count_include_pad)).sum(0))


@primitive
class AvgPool(_Average):
    """The mean of every window; the padding counts as zeros, or not at all without ``count_include_pad``."""

    window: Pair
    stride: Pair
    padding: Quad
    count_include_pad: bool

    def linear_in(self, count: int) -> tuple[int, ...]:
        return (0,)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        self.check(0, inputs[0], FLOAT)
        return one_type(self.pooled(inputs[0]), inputs[0].dtype)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        x = call.inputs[0]
        wide = dtypes.as_dtype(x.dtype.compute)
        axes, (p, q) = fresh_axes(call, *self.window)
        total = expr.total(axes, expr.cast(read(0, *self.tap(index, p, q, x.shape)), wide))
        return expr.cast(expr.call("div", total, self.divisor(index[-2], index[-1], x.shape[-2:], wide)), x.dtype)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (call.b.avg_pool_grad(gradients[0], **self.geometry(), input_size=call.inputs[0].shape[-2:]),)

    def reference(self, *inputs: Any) -> Any:
        x = _wide(inputs[0])
        return (self.taps(x, 0).sum(0) / self.divisors(x.shape[-2:], x.dtype)).astype(inputs[0].dtype)

    def examples(self) -> Iterator[Example]:
        for *geometry, shape in _AVERAGE:
            yield AvgPool(*geometry), floats(*shape)  # type: ignore[arg-type]
        yield AvgPool((2, 2), (2, 2), (0, 0, 0, 0), True), floats(2, 4, 4, dtype="bfloat16")


@primitive
class AvgPoolGrad(_Average):
    """g -> dx: every window shares what it has evenly among the elements that it averaged."""

    window: Pair
    stride: Pair
    padding: Quad
    count_include_pad: bool
    input_size: Pair

    def linear_in(self, count: int) -> tuple[int, ...]:
        return (0,)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        self.check(0, inputs[0], FLOAT)
        return one_type(self.spread(inputs[0], self.input_size), inputs[0].dtype)

    @property
    def loops(self) -> bool:  # type: ignore[override]
        return not self.disjoint

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        g = call.inputs[0]
        wide = dtypes.as_dtype(g.dtype.compute)
        if self.disjoint:
            where, inside, _ = self.only_window(index, g.shape)
            count = self.divisor(where[-2], where[-1], self.input_size, wide)
            return expr.cast(expr.call("div", expr.cast(read(0, where, inside), wide), count), g.dtype)
        c = self.covering(call, index, g.shape)
        count = self.divisor(c.window[-2], c.window[-1], self.input_size, wide)
        share = expr.call("div", expr.cast(read(0, c.window, c.real), wide), count)
        return expr.cast(expr.total(c.axes, expr.select(c.held, share, expr.const(0, wide))), g.dtype)

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        return (call.b.avg_pool(gradients[0], **self.geometry()),)

    def reference(self, *inputs: Any) -> Any:
        g = _wide(inputs[0])
        share = g / self.divisors(self.input_size, g.dtype)
        parts = np.broadcast_to(share, (self.window[0] * self.window[1], *share.shape))
        return self.scatter(parts, self.input_size).astype(inputs[0].dtype)

    def examples(self) -> Iterator[Example]:
        for *geometry, shape in _AVERAGE:
            op = AvgPoolGrad(*geometry, shape[-2:])  # type: ignore[arg-type, call-arg]
            yield op, floats(*_pooled(op, shape))
