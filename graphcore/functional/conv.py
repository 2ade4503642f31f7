"""Convolution and pooling, NCHW, with PyTorch's signatures; also without the batch axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphcore.api import shaping
from graphcore.api.agreement import taken
from graphcore.api.elementwise import add
from graphcore.api.operands import build, cast, fail, promote, tensor
from graphcore.api.padding import pad as pad_axes
from graphcore.api.shaping import reshape
from graphcore.api.tensor import Tensor
from graphcore.base.errors import ShapeError, UsageError
from graphcore.base.shapes import Dim, Extent, agree, format_shape, may_equal
from graphcore.ir.node import mismatch

# fmt: off
__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
    "max_pool1d",
    "max_pool2d",
    "pad",
]
# fmt: on

Pair = tuple[int, int]


def _numbers(name: str, what: str, value: Any, count: int, least: int) -> tuple[int, ...]:
    """One integer for all spatial axes, or one for each."""
    given = tuple(value) if isinstance(value, (tuple, list)) else (value,) * count
    if len(given) == 1:
        given *= count
    if (
        len(given) != count
        or not all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in given)
        or min(given) < least
    ):
        raise ShapeError(
            f"{name}: {what} is {value!r}, but must be "
            f"{'an integer' if count == 1 else f'an integer or {count} of them'}, at least {least}"
        )
    return tuple(int(v) for v in given)


def _padding(
    name: str, padding: Any, window: Any, stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[int, ...]:
    """Before and after each spatial axis; "same" puts an odd element after."""
    if padding == "valid":
        return (0, 0) * len(stride)
    if padding == "same":
        if any(s != 1 for s in stride):
            raise UsageError(f"{name}: padding='same' needs stride 1, got {stride}")
        totals = [d * (int(k) - 1) for d, k in zip(dilation, window, strict=True)]
        return tuple(v for t in totals for v in (t // 2, t - t // 2))
    if isinstance(padding, str):
        raise UsageError(f"{name}: padding is {padding!r}; use an integer, one per axis, 'same' or 'valid'")
    return tuple(v for p in _numbers(name, "padding", padding, len(stride), 0) for v in (p, p))


def _batched(name: str, x: Tensor, spatial: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Call a function of (N, C, ...) also for (C, ...)."""
    if x.ndim == spatial + 2:
        return function(x)
    if x.ndim != spatial + 1:
        axes = "N, C, H, W" if spatial == 2 else "N, C, L"
        raise fail(ShapeError, f"{name}: the input must be ({axes}) or without N, got {format_shape(x.shape)}", x)
    y = function(reshape(x, (1, *x.shape)))
    return reshape(y, y.shape[1:])


def _with_channels(name: str, x: Tensor, count: Extent, spatial: int, w: Tensor) -> Tensor:
    """``x`` known to have as many channels as the weight takes; other inputs are refused where axes are counted."""
    if x.ndim not in (spatial + 1, spatial + 2):
        return x
    return taken(x, (*x.shape[: -spatial - 1], count, *x.shape[x.ndim - spatial :]), name, w)


def _fed_to(name: str, x: Tensor, w: Tensor, groups: int, spatial: int) -> Tensor:
    """The input of a weight."""
    channels = x.shape[-spatial - 1] if x.ndim > spatial else None
    if w.ndim != spatial + 2:
        raise mismatch(
            name, x, w, f"the weight must have {spatial + 2} axes, (out channels, in channels / groups, window)"
        )
    if channels is not None and not may_equal(channels, w.shape[1] * groups):
        hint = (
            "; the layout is (N, C, H, W): x.permute(0, 3, 1, 2) turns (N, H, W, C) into it"
            if x.shape[-1] == w.shape[1] * groups
            else ""
        )
        raise mismatch(
            name,
            x,
            w,
            f"the input has {channels} channels, the weight takes {w.shape[1]} in each of {groups} groups{hint}",
        )
    return _with_channels(name, x, w.shape[1] * groups, spatial, w)


def _with_bias(name: str, y: Tensor, bias: Any, spatial: int) -> Tensor:
    if bias is None:
        return y
    b = cast(tensor(name, bias), y.dtype)
    if not agree(b.shape, (y.shape[1],)):
        raise mismatch(name, y, b, f"the bias must have one element per output channel, ({y.shape[1]},)")
    b = taken(b, (y.shape[1],), name, y)
    return add(y, build("reshape", b, shape=(1, *b.shape, *(1,) * spatial)))


def conv2d(
    x: Any, w: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """The cross-correlation of images with a window, as deep learning calls convolution.

    Args:
        x: (N, C, H, W) or (C, H, W).
        w: (O, C / groups, kh, kw).
        bias: (O,) or None.
        stride, dilation: a number, or (vertical, horizontal).
        padding: zeros around: a number, (vertical, horizontal), "same" or "valid".
        groups: C and O split into groups that do not mix.

    Returns:
        (N, O, rows, columns).

    Raises:
        ShapeError: channels or windows do not fit.

    >>> conv2d([[[[1.0, 2.0, 3.0]]]], [[[[1.0, 1.0]]]]).shape
    (1, 1, 1, 2)
    """
    t, k = promote("conv2d", x, w, floating=True)
    t = _fed_to("conv2d", t, k, groups, 2)
    step, gap = _numbers("conv2d", "stride", stride, 2, 1), _numbers("conv2d", "dilation", dilation, 2, 1)
    quad = _padding("conv2d", padding, k.shape[2:], step, gap)

    def run(images: Tensor) -> Tensor:
        return _with_bias(
            "conv2d", build("conv2d", images, k, stride=step, padding=quad, dilation=gap, groups=groups), bias, 2
        )

    return _batched("conv2d", t, 2, run)


def conv1d(
    x: Any, w: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    """``conv2d`` along one axis: x (N, C, L) or (C, L), w (O, C / groups, k).

    >>> conv1d([[[1.0, 2.0, 3.0]]], [[[1.0, 1.0]]]).shape
    (1, 1, 2)
    """
    t, k = promote("conv1d", x, w, floating=True)
    t = _fed_to("conv1d", t, k, groups, 1)
    step, gap = _numbers("conv1d", "stride", stride, 1, 1), _numbers("conv1d", "dilation", dilation, 1, 1)
    sides = _padding("conv1d", padding, k.shape[2:], step, gap)
    row = reshape(k, (*k.shape[:2], 1, k.shape[2]))

    def run(signals: Tensor) -> Tensor:
        image = reshape(signals, (*signals.shape[:2], 1, signals.shape[2]))
        y = build("conv2d", image, row, stride=(1, *step), padding=(0, 0, *sides), dilation=(1, *gap), groups=groups)
        return _with_bias("conv1d", reshape(y, (*y.shape[:2], y.shape[3])), bias, 1)

    return _batched("conv1d", t, 1, run)


def conv_transpose2d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The transpose of ``conv2d``: x (N, C, H, W), w (C, O / groups, kh, kw) give (N, O, rows, columns).

    >>> conv_transpose2d([[[[1.0, 2.0]]]], [[[[1.0, 1.0]]]]).shape
    (1, 1, 1, 3)
    """
    t, k = promote("conv_transpose2d", x, w, floating=True)
    step, gap = (
        _numbers("conv_transpose2d", "stride", stride, 2, 1),
        _numbers("conv_transpose2d", "dilation", dilation, 2, 1),
    )
    side, extra = (
        _numbers("conv_transpose2d", "padding", padding, 2, 0),
        _numbers("conv_transpose2d", "output_padding", output_padding, 2, 0),
    )
    if k.ndim != 4 or (t.ndim in (3, 4) and not may_equal(t.shape[-3], k.shape[0])):
        raise mismatch("conv_transpose2d", t, k, "the weight must be (in channels, out channels / groups, kh, kw)")
    t = _with_channels("conv_transpose2d", t, k.shape[0], 2, k)
    if any(e >= max(s, d) for e, s, d in zip(extra, step, gap, strict=True)):
        raise ShapeError(
            f"conv_transpose2d: output_padding {extra} must be smaller than the stride {step} or the dilation {gap}"
        )

    def run(images: Tensor) -> Tensor:
        if any(isinstance(e, Dim) for e in images.shape[2:]):
            raise fail(
                ShapeError, f"conv_transpose2d: spatial extents must be fixed, got {format_shape(images.shape)}", images
            )
        size = tuple(
            (int(e) - 1) * s - 2 * p + d * (int(m) - 1) + o + 1
            for e, s, p, d, m, o in zip(images.shape[2:], step, side, gap, k.shape[2:], extra, strict=True)
        )
        quad = (side[0], side[0], side[1], side[1])
        y = build(
            "conv2d_input_grad", images, k, stride=step, padding=quad, dilation=gap, groups=groups, input_size=size
        )
        return _with_bias("conv_transpose2d", y, bias, 2)

    return _batched("conv_transpose2d", t, 2, run)


def _ceil_padding(size: int, window: int, stride: int, dilation: int, pad: int) -> int:
    """Padding after an axis so that a last, partial window counts: it must start inside the input or the padding before
    it."""
    room = size + 2 * pad - dilation * (window - 1) - 1
    count = -(-room // stride) + 1
    if (count - 1) * stride >= size + pad:
        count -= 1
    return max(pad, (count - 1) * stride + dilation * (window - 1) + 1 - size - pad)


def _pool_sides(
    name: str,
    t: Tensor,
    window: tuple[int, ...],
    step: tuple[int, ...],
    gap: tuple[int, ...],
    padding: Any,
    ceil_mode: bool,
) -> tuple[int, ...]:
    pads = _numbers(name, "padding", padding, len(window), 0)
    if any(p > k // 2 for p, k in zip(pads, window, strict=True)):
        raise ShapeError(f"{name}: padding {pads} must be at most half of the window {window}")
    spatial = t.shape[-len(window) :]
    if not ceil_mode or any(isinstance(e, Dim) for e in spatial):
        return tuple(v for p in pads for v in (p, p))
    afters = [_ceil_padding(int(e), k, s, d, p) for e, k, s, d, p in zip(spatial, window, step, gap, pads, strict=True)]
    return tuple(v for p, after in zip(pads, afters, strict=True) for v in (p, after))


def max_pool2d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Tensor:
    """The largest element of every window: (N, C, H, W) -> (N, C, rows, columns). Ties: the first gets the gradient.

    Args:
        kernel_size, stride, padding, dilation: a number, or (vertical, horizontal); the stride is the window's size by
            default.
        ceil_mode: partial windows at the end count.

    Raises:
        ShapeError: no window fits.

    >>> max_pool2d([[[[1.0, 2.0], [3.0, 4.0]]]], 2).shape
    (1, 1, 1, 1)
    """
    (t,) = promote("max_pool2d", x, floating=True)
    window, gap = (
        _numbers("max_pool2d", "kernel_size", kernel_size, 2, 1),
        _numbers("max_pool2d", "dilation", dilation, 2, 1),
    )
    step = window if stride is None else _numbers("max_pool2d", "stride", stride, 2, 1)
    quad = _pool_sides("max_pool2d", t, window, step, gap, padding, ceil_mode)
    return _batched(
        "max_pool2d", t, 2, lambda u: build("max_pool", u, window=window, stride=step, padding=quad, dilation=gap)
    )


def avg_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of every window: (N, C, H, W) -> (N, C, rows, columns).

    Args:
        kernel_size, stride, padding: a number, or (vertical, horizontal); the stride is the window's size by default.
        ceil_mode: partial windows at the end count; only with ``count_include_pad=False``.
        count_include_pad: whether the padding counts as zeros.

    >>> avg_pool2d([[[[1.0, 2.0], [3.0, 4.0]]]], 2).shape
    (1, 1, 1, 1)
    """
    (t,) = promote("avg_pool2d", x, floating=True)
    if ceil_mode and count_include_pad:
        raise UsageError(
            "avg_pool2d: ceil_mode=True needs count_include_pad=False (a partial window has no padding to count)"
        )
    window = _numbers("avg_pool2d", "kernel_size", kernel_size, 2, 1)
    step = window if stride is None else _numbers("avg_pool2d", "stride", stride, 2, 1)
    quad = _pool_sides("avg_pool2d", t, window, step, (1, 1), padding, ceil_mode)
    return _batched(
        "avg_pool2d",
        t,
        2,
        lambda u: build("avg_pool", u, window=window, stride=step, padding=quad, count_include_pad=count_include_pad),
    )


def _as_image(name: str, x: Any, pool: Callable[[Tensor], Tensor]) -> Tensor:
    """A pool of (N, C, L) through one of (N, C, 1, L)."""
    (t,) = promote(name, x, floating=True)
    if t.ndim not in (2, 3):
        raise fail(ShapeError, f"{name}: the input must be (N, C, L) or (C, L), got {format_shape(t.shape)}", t)
    y = pool(reshape(t, (*t.shape[:-1], 1, t.shape[-1])))
    return reshape(y, (*y.shape[:-2], y.shape[-1]))


def max_pool1d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Tensor:
    """``max_pool2d`` along one axis: (N, C, L) -> (N, C, windows).

    >>> max_pool1d([[[1.0, 2.0, 3.0, 4.0]]], 2).shape
    (1, 1, 2)
    """
    k, p, d = (
        _numbers("max_pool1d", n, v, 1, low)[0]
        for n, v, low in (("kernel_size", kernel_size, 1), ("padding", padding, 0), ("dilation", dilation, 1))
    )
    s = k if stride is None else _numbers("max_pool1d", "stride", stride, 1, 1)[0]
    return _as_image("max_pool1d", x, lambda t: max_pool2d(t, (1, k), (1, s), (0, p), (1, d), ceil_mode))


def avg_pool1d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """``avg_pool2d`` along one axis: (N, C, L) -> (N, C, windows).

    >>> avg_pool1d([[[1.0, 2.0, 3.0, 4.0]]], 2).shape
    (1, 1, 2)
    """
    k, p = (
        _numbers("avg_pool1d", n, v, 1, low)[0]
        for n, v, low in (("kernel_size", kernel_size, 1), ("padding", padding, 0))
    )
    s = k if stride is None else _numbers("avg_pool1d", "stride", stride, 1, 1)[0]
    return _as_image("avg_pool1d", x, lambda t: avg_pool2d(t, (1, k), (1, s), (0, p), ceil_mode, count_include_pad))


def _bounds(size: int, count: int) -> list[Pair]:
    """Where each of ``count`` adaptive windows starts and stops."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _adaptive(name: str, x: Any, output_size: Any, reduce: str) -> Tensor:
    (t,) = promote(name, x, floating=True)
    if t.ndim not in (3, 4):
        raise fail(ShapeError, f"{name}: the input must be (N, C, H, W) or (C, H, W), got {format_shape(t.shape)}", t)
    given = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    wanted = _numbers(
        name, "output_size", tuple(e if o is None else o for o, e in zip(given, t.shape[-2:], strict=True)), 2, 1
    )
    for axis, count in zip((-2, -1), wanted, strict=True):
        size = t.shape[axis]
        if isinstance(size, Dim):
            if count != 1:
                raise fail(ShapeError, f"{name}: spatial extents must be fixed, got {format_shape(t.shape)}", t)
            t = getattr(t, reduce)(axis, keepdims=True)
        elif size % count == 0:
            place = axis % t.ndim
            apart = reshape(t, (*t.shape[:place], count, size // count, *t.shape[place + 1 :]))
            t = getattr(apart, reduce)(place + 1)
        else:
            place = axis % t.ndim
            t = shaping.concat(
                [
                    getattr(shaping.cut(t, place, a, b - a), reduce)(place, keepdims=True)
                    for a, b in _bounds(size, count)
                ],
                place,
            )
    return t


def adaptive_avg_pool2d(x: Any, output_size: Any) -> Tensor:
    """Means of as many windows as ``output_size`` asks for, a number or (rows, columns), None for as many as there are.

    >>> adaptive_avg_pool2d([[[[1.0, 2.0], [3.0, 4.0]]]], 1).shape
    (1, 1, 1, 1)
    """
    return _adaptive("adaptive_avg_pool2d", x, output_size, "mean")


def adaptive_max_pool2d(x: Any, output_size: Any) -> Tensor:
    """Largest elements of as many windows as ``output_size`` asks for.

    >>> adaptive_max_pool2d([[[[1.0, 2.0], [3.0, 4.0]]]], 1).shape
    (1, 1, 1, 1)
    """
    return _adaptive("adaptive_max_pool2d", x, output_size, "max")


def adaptive_avg_pool1d(x: Any, output_size: int) -> Tensor:
    """``adaptive_avg_pool2d`` along one axis: (N, C, L) -> (N, C, output_size).

    >>> adaptive_avg_pool1d([[[1.0, 2.0, 3.0]]], 2).shape
    (1, 1, 2)
    """
    return _as_image("adaptive_avg_pool1d", x, lambda t: adaptive_avg_pool2d(t, (1, output_size)))


def pad(x: Any, pad: Any, mode: str = "constant", value: float = 0.0) -> Tensor:
    """PyTorch's pad: ``(left, right, top, bottom, ...)`` from the last axis backwards; negative widths cut.

    Args:
        mode: "constant", "reflect", "replicate" or "circular".

    >>> pad([[1.0, 2.0]], (1, 2)).shape
    (1, 5)
    """
    t = tensor("pad", x)
    if len(pad) % 2 or len(pad) > 2 * t.ndim:
        raise fail(
            ShapeError, f"pad: {tuple(pad)} must be pairs, at most one for each axis of {format_shape(t.shape)}", t
        )
    names = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    if mode not in names:
        raise UsageError(f"pad: mode is {mode!r}; use one of {', '.join(names)}")
    pairs = [(int(pad[2 * i]), int(pad[2 * i + 1])) for i in range(len(pad) // 2)]
    widths = [(0, 0)] * (t.ndim - len(pairs)) + pairs[::-1]
    for axis, (before, after) in enumerate(widths):
        if before < 0 or after < 0:
            start = max(-before, 0)
            t = shaping.cut(t, axis, start, t.shape[axis] - start - max(-after, 0))
    return pad_axes(t, [(max(a, 0), max(b, 0)) for a, b in widths], names[mode], value)
