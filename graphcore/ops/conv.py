"""Convolutions over two spatial axes and their two gradients. Each is differentiated by the other two, to any order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from graphcore.base import dtypes
from graphcore.base.errors import DTypeError, ShapeError
from graphcore.base.shapes import Dim, Extent, Shape, format_shape
from graphcore.ir.op import REAL, Contract, Example, Lowering, Read, TensorType, one_type, primitive
from graphcore.kernel import expr
from graphcore.kernel.contraction import ContractionRoles, Role, Window, WindowResult
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import Axis, Index, as_index
from graphcore.ops._examples import floats, integers

__all__ = ["Conv2d", "Conv2dInputGrad", "Conv2dWeightGrad", "fresh_axes", "landing", "tap", "window_extents"]

_ROW, _COLUMN, _TERM, _WALKED = Role.ROW, Role.COLUMN, Role.TERM, Role.WALKED


def window_extents(
    name: str, size: Shape, window: Shape, stride: tuple[int, int], padding: tuple[int, ...], dilation: tuple[int, int]
) -> tuple[int, int]:
    """How many windows fit along the two spatial axes.

    Args:
        name: the op, for messages.
        size: input height and width.
        window: window height and width.
        stride, dilation: steps between windows, and between the taps of one window.
        padding: rows and columns added: top, bottom, left, right.

    Raises:
        ShapeError: a spatial extent is symbolic, an attribute is out of range, or no window fits.
    """
    if any(isinstance(e, Dim) for e in (*size, *window)):
        raise ShapeError(
            f"{name}: spatial extents must be fixed, got {format_shape(size)} and the window {format_shape(window)}"
        )
    if (len(stride), len(padding), len(dilation)) != (2, 4, 2) or min(*stride, *dilation) < 1 or min(padding) < 0:
        raise ShapeError(
            f"{name}: stride {stride} and dilation {dilation} must be two positive numbers, "
            f"padding {padding} four that are not negative"
        )
    if min(window) < 1:
        raise ShapeError(f"{name}: the window {format_shape(window)} is empty")
    counts = []
    for axis, (extent, taps, step, gap) in enumerate(zip(size, window, stride, dilation, strict=True)):
        room = int(extent) + padding[2 * axis] + padding[2 * axis + 1] - gap * (int(taps) - 1) - 1
        if room < 0:
            raise ShapeError(
                f"{name}: the window {format_shape(window)} with dilation {dilation} does not fit into "
                f"the input {format_shape(size)} with padding {padding}"
            )
        counts.append(room // step + 1)
    return counts[0], counts[1]


def fresh_axes(call: Lowering, *extents: Extent) -> tuple[tuple[Axis, ...], tuple[Index, ...]]:
    """Reduction axes of an op's own (those of extent 1 left out) and the index along each."""
    axes = tuple(call.axis(extent, -1 - i) for i, extent in enumerate(extents))
    return tuple(a for a in axes if a is not None), tuple(as_index(a) if a is not None else Index(0) for a in axes)


def summed_products(axes: tuple[Axis, ...], a: Expr, b: Expr) -> Expr:
    """The sum of products; half types multiply and add up in the compute type and round once."""
    wide = dtypes.as_dtype(a.dtype.compute)
    return expr.cast(expr.total(axes, expr.call("mul", expr.cast(a, wide), expr.cast(b, wide))), a.dtype)


def tap(window: Index, offset: Index, stride: int, dilation: int, low: int, extent: Extent) -> tuple[Index, Expr]:
    """Where tap ``offset`` of a window lies in the input along one axis, and whether that is inside."""
    position = window * stride + offset * dilation - low
    return position, expr.in_range(position, 0, extent)


def landing(position: Index, offset: Index, stride: int, dilation: int, low: int, count: int) -> tuple[Index, Expr]:
    """The window whose tap ``offset`` lies at an input position along one axis, and whether there is one."""
    moved = position + low - offset * dilation
    window = moved // stride
    inside = expr.in_range(window, 0, count)
    return window, inside if stride == 1 else expr.both(expr.in_range(moved % stride, 0, 1), inside)


class _Convolution(Contract):
    """What the three share: geometry, types, and loops over the taps of the window for the references."""

    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int

    def typed(self, x: TensorType, y: TensorType) -> None:
        """Check ranks, dtypes and groups."""
        self.check(0, x, REAL)
        if x.dtype != y.dtype:
            raise DTypeError(f"{self.name}: operands have dtypes {x.dtype} and {y.dtype}; cast one with .astype(...)")
        if x.rank != 4 or y.rank != 4:
            shapes = f"{format_shape(x.shape)} and {format_shape(y.shape)}"
            raise ShapeError(f"{self.name}: operands need 4 axes, got {shapes}")
        if self.groups < 1:
            raise ShapeError(f"{self.name}: groups must be positive, got {self.groups}")

    def grouped(self, channels: Extent, what: str, shape: Shape) -> int:
        """Channels in each group."""
        if isinstance(channels, Dim) or channels % self.groups:
            raise ShapeError(
                f"{self.name}: the {channels} {what} channels of {format_shape(shape)} "
                f"do not split into {self.groups} groups"
            )
        return channels // self.groups

    def windows(self, size: Shape, window: Shape) -> tuple[int, int]:
        return window_extents(self.name, size, window, self.stride, self.padding, self.dilation)

    def geometry(self) -> dict[str, Any]:
        """The attributes that all three have."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def walked(self, result: WindowResult, taps: Shape) -> Window:
        """The window, for what an element of the result is for."""
        return Window(result, tuple(map(int, taps)), self.stride, self.padding, self.dilation, self.groups)

    def taps(self, padded: Any, window: Shape, counts: tuple[int, int]) -> Iterator[tuple[int, int, Any]]:
        """For every tap the view of a padded input that all windows read through it."""
        (sy, sx), (dy, dx), (rows, columns) = self.stride, self.dilation, counts
        for ky in range(int(window[0])):
            for kx in range(int(window[1])):
                y, x = ky * dy, kx * dx
                yield ky, kx, padded[..., y : y + (rows - 1) * sy + 1 : sy, x : x + (columns - 1) * sx + 1 : sx]

    def padded_shape(self, size: Shape) -> tuple[int, int]:
        top, bottom, left, right = self.padding
        return int(size[0]) + top + bottom, int(size[1]) + left + right

    def pad(self, x: Any) -> Any:
        top, bottom, left, right = self.padding
        return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))

    def split(self, x: Any, axis: int) -> Any:
        """An axis of channels as (groups, channels of a group)."""
        return x.reshape(*x.shape[:axis], self.groups, x.shape[axis] // self.groups, *x.shape[axis + 1 :])


def _wide(*arrays: Any) -> list[Any]:
    return [a.astype(np.dtype(dtypes.as_dtype(a.dtype).compute)) for a in arrays]


_GEOMETRIES: tuple[tuple[tuple[int, int], tuple[int, int, int, int], tuple[int, int], int, Shape, Shape], ...] = (
    ((1, 1), (0, 0, 0, 0), (1, 1), 1, (2, 3, 5, 6), (4, 3, 3, 2)),
    ((1, 1), (1, 1, 1, 1), (1, 1), 1, (1, 2, 4, 4), (3, 2, 3, 3)),
    ((2, 2), (1, 1, 1, 1), (1, 1), 1, (2, 3, 7, 6), (2, 3, 3, 3)),  # the last input column is in no window
    ((2, 3), (2, 0, 1, 2), (2, 1), 2, (2, 4, 8, 9), (6, 2, 3, 2)),
    ((1, 1), (1, 1, 1, 1), (1, 1), 4, (2, 4, 5, 5), (4, 1, 3, 3)),  # depthwise
    ((1, 1), (0, 0, 0, 0), (1, 1), 1, (2, 5, 3, 3), (4, 5, 1, 1)),  # a matrix product
    ((3, 3), (0, 0, 0, 0), (1, 1), 1, (1, 1, 7, 7), (1, 1, 1, 1)),  # stride beyond the window
    ((1, 1), (0, 0, 0, 0), (1, 1), 1, (1, 1, 3, 3), (2, 1, 3, 3)),  # one window
    ((1, 1), (0, 0, 0, 0), (1, 1), 1, (0, 2, 4, 4), (3, 2, 3, 3)),  # an empty batch
)


@primitive
class Conv2d(_Convolution):
    """y[n, o, i, j] = sum over c, p, q of x[n, c, i*stride + p*dilation - top, ...] * w[o, c, p, q]; x is 0 outside.

    x is (N, C, H, W), w is (O, C / groups, kh, kw), y is (N, O, rows, columns). ``padding``: top, bottom, left, right.
    """

    name: ClassVar[str] = "conv2d"
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, w = inputs
        self.typed(x, w)
        self.grouped(w.shape[0], "output", w.shape)
        if self.grouped(x.shape[1], "input", x.shape) != w.shape[1]:
            raise ShapeError(
                f"{self.name}: the input {format_shape(x.shape)} has {x.shape[1]} channels, the weights "
                f"{format_shape(w.shape)} take {w.shape[1]} in each of {self.groups} groups"
            )
        return one_type((x.shape[0], w.shape[0], *self.windows(x.shape[2:], w.shape[2:])), x.dtype)

    def contraction_roles(self, *inputs: TensorType) -> ContractionRoles | None:
        images, weights = (_ROW, _TERM, _WALKED, _WALKED), (_COLUMN, _TERM, _TERM, _TERM)
        window = self.walked(WindowResult.POSITION, inputs[1].shape[2:])
        return ContractionRoles(images, weights, (_ROW, _COLUMN, _ROW, _ROW), window)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        (n, o, i, j), (x, w) = index, (t.shape for t in call.inputs)
        axes, (c, p, q) = fresh_axes(call, w[1], w[2], w[3])
        group = o // max(int(w[0]) // self.groups, 1)
        y, in_y = tap(i, p, self.stride[0], self.dilation[0], self.padding[0], x[2])
        z, in_z = tap(j, q, self.stride[1], self.dilation[1], self.padding[2], x[3])
        value = read(0, (n, group * int(w[1]) + c, y, z), expr.both(in_y, in_z))
        return summed_products(axes, value, read(1, (o, c, p, q)))

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        (x, w), g = call.inputs, gradients[0]
        return (
            call.b.conv2d_input_grad(g, w, **self.geometry(), input_size=x.shape[2:]),
            call.b.conv2d_weight_grad(x, g, **self.geometry(), kernel_size=w.shape[2:]),
        )

    def reference(self, *inputs: Any) -> Any:
        x, w = _wide(*inputs)
        counts = self.windows(x.shape[2:], w.shape[2:])
        padded, weights = self.split(self.pad(x), 1), self.split(w, 0)
        out = np.zeros((x.shape[0], self.groups, w.shape[0] // self.groups, *counts), x.dtype)
        for p, q, view in self.taps(padded, w.shape[2:], counts):
            out += np.einsum("ngchw,goc->ngohw", view, weights[..., p, q])
        return out.reshape(x.shape[0], w.shape[0], *counts).astype(inputs[0].dtype)

    def examples(self) -> Iterator[Example]:
        for stride, padding, dilation, groups, x, w in _GEOMETRIES:
            yield Conv2d(stride, padding, dilation, groups), floats(*x), floats(*w, seed=1)  # type: ignore[arg-type]
        plain = Conv2d((1, 1), (1, 0, 0, 1), (1, 1), 1)
        yield plain, integers(1, 2, 4, 4), integers(3, 2, 2, 2, seed=1)
        yield plain, floats(1, 2, 4, 4, dtype="float16"), floats(3, 2, 2, 2, dtype="float16", seed=1)


@primitive
class Conv2dInputGrad(_Convolution):
    """The gradient of ``conv2d`` for its input: (g, w) -> dx. Every input element sums the windows that read it.

    g is (N, O, rows, columns), w is (O, C / groups, kh, kw), dx is (N, C, *input_size): a transposed convolution.
    """

    name: ClassVar[str] = "conv2d_input_grad"
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    input_size: tuple[int, int]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        g, w = inputs
        self.typed(g, w)
        self.grouped(w.shape[0], "output", w.shape)
        expected = (w.shape[0], *self.windows(self.input_size, w.shape[2:]))
        if g.shape[1:] != expected:
            raise ShapeError(
                f"{self.name}: the gradient {format_shape(g.shape)} is not N of {format_shape(expected)}, "
                f"which the weights {format_shape(w.shape)} and the input size {self.input_size} give"
            )
        return one_type((g.shape[0], w.shape[1] * self.groups, *self.input_size), g.dtype)

    def contraction_roles(self, *inputs: TensorType) -> ContractionRoles | None:
        gradient, weights = (_ROW, _TERM, _TERM, _TERM), (_TERM, _COLUMN, _TERM, _TERM)
        window = self.walked(WindowResult.PLACE, inputs[1].shape[2:])
        return ContractionRoles(gradient, weights, (_ROW, _COLUMN, _WALKED, _WALKED), window)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        (n, c, y, z), (g, w) = index, (t.shape for t in call.inputs)
        each, channels = int(w[0]) // self.groups, max(int(w[1]), 1)
        axes, (m, p, q) = fresh_axes(call, each, w[2], w[3])
        o = c // channels * each + m
        i, in_i = landing(y, p, self.stride[0], self.dilation[0], self.padding[0], int(g[2]))
        j, in_j = landing(z, q, self.stride[1], self.dilation[1], self.padding[2], int(g[3]))
        value = read(0, (n, o, i, j), expr.both(in_i, in_j))
        return summed_products(axes, value, read(1, (o, c % channels, p, q)))

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        (g, w), v = call.inputs, gradients[0]
        return (
            call.b.conv2d(v, w, **self.geometry()),
            call.b.conv2d_weight_grad(v, g, **self.geometry(), kernel_size=w.shape[2:]),
        )

    def reference(self, *inputs: Any) -> Any:
        g, w = _wide(*inputs)
        padded = np.zeros((g.shape[0], self.groups, w.shape[1], *self.padded_shape(self.input_size)), g.dtype)
        split, weights = self.split(g, 1), self.split(w, 0)
        for p, q, view in self.taps(padded, w.shape[2:], g.shape[2:]):
            view += np.einsum("ngohw,goc->ngchw", split, weights[..., p, q])
        (top, _, left, _), (h, width) = self.padding, self.input_size
        dx = padded[..., top : top + h, left : left + width]
        return dx.reshape(g.shape[0], self.groups * w.shape[1], h, width).astype(inputs[0].dtype)

    def examples(self) -> Iterator[Example]:
        for stride, padding, dilation, groups, x, w in _GEOMETRIES:
            counts = window_extents(self.name, x[2:], w[2:], stride, padding, dilation)
            op = Conv2dInputGrad(stride, padding, dilation, groups, x[2:])  # type: ignore[arg-type]
            yield op, floats(x[0], w[0], *counts), floats(*w, seed=1)  # type: ignore[arg-type]


@primitive
class Conv2dWeightGrad(_Convolution):
    """The gradient of ``conv2d`` for its weights: (x, g) -> dw.

    x is (N, C, H, W), g is (N, O, rows, columns), dw is (O, C / groups, *kernel_size).
    """

    name: ClassVar[str] = "conv2d_weight_grad"
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    kernel_size: tuple[int, int]

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        x, g = inputs
        self.typed(x, g)
        self.grouped(g.shape[1], "output", g.shape)
        channels = self.grouped(x.shape[1], "input", x.shape)
        counts = self.windows(x.shape[2:], self.kernel_size)
        if g.shape[2:] != counts or g.shape[0] != x.shape[0]:
            raise ShapeError(
                f"{self.name}: the gradient {format_shape(g.shape)} does not fit "
                f"the input {format_shape(x.shape)}: the batches must agree, and "
                f"{counts[0]} x {counts[1]} windows of {self.kernel_size} fit"
            )
        return one_type((g.shape[1], channels, *self.kernel_size), x.dtype)

    def contraction_roles(self, *inputs: TensorType) -> ContractionRoles | None:
        images, gradient = (_TERM, _COLUMN, _WALKED, _WALKED), (_TERM, _ROW, _TERM, _TERM)
        window = self.walked(WindowResult.TAP, self.kernel_size)
        return ContractionRoles(images, gradient, (_ROW, _COLUMN, _COLUMN, _COLUMN), window)

    def lower(self, call: Lowering, index: tuple[Index, ...], read: Read) -> Expr:
        (o, c, p, q), (x, g) = index, (t.shape for t in call.inputs)
        axes, (n, i, j) = fresh_axes(call, g[0], g[2], g[3])
        group = o // max(int(g[1]) // self.groups, 1)
        y, in_y = tap(i, p, self.stride[0], self.dilation[0], self.padding[0], x[2])
        z, in_z = tap(j, q, self.stride[1], self.dilation[1], self.padding[2], x[3])
        value = read(0, (n, group * (int(x[1]) // self.groups) + c, y, z), expr.both(in_y, in_z))
        return summed_products(axes, value, read(1, (n, o, i, j)))

    def vjp(self, call: Any, *gradients: Any) -> tuple[Any, ...]:
        (x, g), v = call.inputs, gradients[0]
        return (
            call.b.conv2d_input_grad(g, v, **self.geometry(), input_size=x.shape[2:]),
            call.b.conv2d(x, v, **self.geometry()),
        )

    def reference(self, *inputs: Any) -> Any:
        x, g = _wide(*inputs)
        padded, split = self.split(self.pad(x), 1), self.split(g, 1)
        dw = np.zeros((self.groups, g.shape[1] // self.groups, x.shape[1] // self.groups, *self.kernel_size), x.dtype)
        for p, q, view in self.taps(padded, self.kernel_size, g.shape[2:]):
            dw[..., p, q] = np.einsum("ngchw,ngohw->goc", view, split)
        return dw.reshape(g.shape[1], x.shape[1] // self.groups, *self.kernel_size).astype(inputs[0].dtype)

    def examples(self) -> Iterator[Example]:
        for stride, padding, dilation, groups, x, w in _GEOMETRIES:
            counts = window_extents(self.name, x[2:], w[2:], stride, padding, dilation)
            op = Conv2dWeightGrad(stride, padding, dilation, groups, w[2:])  # type: ignore[arg-type]
            yield op, floats(*x), floats(x[0], w[0], *counts, seed=1)  # type: ignore[arg-type]
