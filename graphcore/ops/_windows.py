"""Windows over the last two axes: what pooling and its gradients share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np

from graphcore.base import dtypes
from graphcore.base.dtypes import DType
from graphcore.base.errors import DTypeError, ShapeError
from graphcore.base.shapes import Shape, format_shape
from graphcore.ir.op import Lowering, Opaque, TensorType
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Index
from graphcore.ops.conv import fresh_axes, landing, tap, window_extents

__all__ = ["Covering", "Pair", "Pool", "Quad"]

Pair = tuple[int, int]
Quad = tuple[int, int, int, int]


class Covering(NamedTuple):
    """A loop over windows: its axes, a window, whether that is one, whether it holds the position, and the position's
    tap in it.

    Loads are guarded by ``real`` alone, which is the same for neighbouring positions but at the edges.
    """

    axes: tuple[Any, ...]
    window: tuple[Index, ...]
    real: Expr
    held: Expr
    tap: Index


class Pool(Opaque):
    """Windows over the last two axes."""

    window: Pair
    stride: Pair
    padding: Quad
    loops: ClassVar[bool] = True

    @property
    def disjoint(self) -> bool:
        """Whether windows tile the input, so that an element belongs to one window at most."""
        return self.stride == self.window and not any(self.padding) and self.gaps == (1, 1)

    def only_window(self, index: tuple[Index, ...], counts: Shape) -> tuple[tuple[Index, ...], Expr, Index]:
        """For disjoint windows: the window of an input position, whether there is one, and the position's tap in it."""
        (kh, kw), (y, x) = self.window, index[-2:]
        inside = expr.both(expr.in_range(y // kh, 0, int(counts[-2])), expr.in_range(x // kw, 0, int(counts[-1])))
        return (*index[:-2], y // kh, x // kw), inside, (y % kh) * kw + x % kw

    @property
    def gaps(self) -> Pair:
        """Steps between the taps of a window."""
        return (1, 1)

    def geometry(self) -> dict[str, Any]:
        """The attributes that an op and its gradients share."""
        return {name: value for name, value in self.attributes().items() if name != "input_size"}

    def counts(self, size: Shape) -> Pair:
        """Windows along the two axes; every window has a tap position inside of, or surrounding, the input."""
        counts = window_extents(self.name, size, self.window, self.stride, self.padding, self.gaps)
        for taps, gap, pads in zip(self.window, self.gaps, (self.padding[:2], self.padding[2:]), strict=True):
            if max(pads) > gap * (taps - 1):
                raise ShapeError(
                    f"{self.name}: padding {self.padding} is not smaller than the window {self.window}, "
                    "so windows would hold padding only"
                )
        return counts

    def pooled(self, given: TensorType) -> Shape:
        """The shape of one value a window."""
        if given.rank < 2:
            raise ShapeError(f"{self.name}: takes at least 2 axes, got {format_shape(given.shape)}")
        return (*given.shape[:-2], *self.counts(given.shape[-2:]))

    def spread(self, given: TensorType, size: Pair) -> Shape:
        """The input's shape for one value a window."""
        if given.rank < 2 or given.shape[-2:] != self.counts(size):
            raise ShapeError(
                f"{self.name}: {format_shape(given.shape)} does not fit: "
                f"{self.counts(size)} windows of {self.window} lie in {size}"
            )
        return (*given.shape[:-2], *size)

    @property
    def tap_dtype(self) -> DType:
        """The type of a tap's number in a window."""
        return dtypes.position_dtype(self.window[0] * self.window[1])

    def reach(self, size: Shape) -> DType:
        """The type of positions along the two axes with their padding, from before the first to behind the last."""
        most = (int(e) + p + q for e, p, q in zip(size[-2:], self.padding[::2], self.padding[1::2], strict=True))
        return dtypes.position_dtype(*most, self.window[0] * self.window[1])

    def require_same(self, given: TensorType, shape: Shape, index: TensorType) -> None:
        """Check a recorded index against the shape of one value a window."""
        if index.dtype != self.tap_dtype:
            raise DTypeError(f"{self.name}: the index has dtype {index.dtype}, not {self.tap_dtype}")
        if index.shape != shape:
            raise ShapeError(
                f"{self.name}: operands of shapes {format_shape(given.shape)} and "
                f"{format_shape(index.shape)} do not fit: the index should be {format_shape(shape)}"
            )

    def tap(self, index: tuple[Index, ...], p: Index, q: Index, size: Shape) -> tuple[tuple[Index, ...], Expr]:
        """The input position of a window's tap, and whether it is inside."""
        y, in_y = tap(index[-2], p, self.stride[0], self.gaps[0], self.padding[0], size[-2])
        x, in_x = tap(index[-1], q, self.stride[1], self.gaps[1], self.padding[2], size[-1])
        return (*index[:-2], y, x), expr.both(in_y, in_x)

    def landing(self, index: tuple[Index, ...], p: Index, q: Index, counts: Shape) -> tuple[tuple[Index, ...], Expr]:
        """The window whose tap (p, q) is at an input position, and whether there is one."""
        i, in_i = landing(index[-2], p, self.stride[0], self.gaps[0], self.padding[0], int(counts[-2]))
        j, in_j = landing(index[-1], q, self.stride[1], self.gaps[1], self.padding[2], int(counts[-1]))
        return (*index[:-2], i, j), expr.both(in_i, in_j)

    def covering(self, call: Lowering, index: tuple[Index, ...], counts: Shape) -> Covering:
        """A loop over the windows that may hold an input position, in the order of their taps."""
        if self.gaps != (1, 1):
            axes, (p, q) = fresh_axes(call, *self.window)
            where, inside = self.landing(index, p, q, counts)
            return Covering(axes, where, inside, inside, p * self.window[1] + q)
        axes, steps = fresh_axes(call, *(-(-k // s) for k, s in zip(self.window, self.stride, strict=True)))
        windows, taps, real, held = [], [], [], []
        for at, step, pad, k, s, count in zip(
            index[-2:], steps, (self.padding[0], self.padding[2]), self.window, self.stride, counts[-2:], strict=True
        ):
            windows.append((at + pad) // s - step)
            taps.append((at + pad) % s + step * s)
            real.append(expr.in_range(windows[-1], 0, int(count)))
            held.append(expr.in_range(taps[-1], 0, k))
        return Covering(
            axes, (*index[:-2], *windows), expr.both(*real), expr.both(*held), taps[0] * self.window[1] + taps[1]
        )

    def taps(self, x: Any, fill: float) -> Any:
        """(kh * kw, ..., rows, columns): for every tap what all windows read through it."""
        top, bottom, left, right = self.padding
        padded = np.pad(x, (*((0, 0),) * (x.ndim - 2), (top, bottom), (left, right)), constant_values=fill)
        return np.stack([padded[where] for where in self.slices(x.shape[-2:])])

    def slices(self, size: Shape) -> Iterator[Any]:
        """For every tap the padded input's elements that it meets."""
        rows, columns = self.counts(size)
        (sy, sx), (dy, dx) = self.stride, self.gaps
        for p in range(self.window[0]):
            for q in range(self.window[1]):
                y, x = p * dy, q * dx
                yield ..., slice(y, y + (rows - 1) * sy + 1, sy), slice(x, x + (columns - 1) * sx + 1, sx)

    def scatter(self, parts: Any, size: Shape) -> Any:
        """The transpose of ``taps``: what each tap contributes, added up in the input's shape."""
        top, bottom, left, right = self.padding
        h, w = int(size[0]), int(size[1])
        padded = np.zeros((*parts.shape[1:-2], h + top + bottom, w + left + right), parts.dtype)
        for where, part in zip(self.slices(size), parts, strict=True):
            padded[where] += part
        return padded[..., top : top + h, left : left + w]
