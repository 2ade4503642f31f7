"""Elements added around a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphcore.api.logic import where
from graphcore.api.operands import build, cast, fail, full, tensor
from graphcore.api.shaping import concat, cut, flip, repeat, whole
from graphcore.api.tensor import Tensor
from graphcore.base import dtypes
from graphcore.base.errors import ShapeError, UsageError
from graphcore.base.shapes import Dim, format_shape

__all__ = ["pad"]


def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: float = 0) -> Tensor:
    """Elements added around ``x``: NumPy's pad.

    Args:
        pad_width: ``(before, after)`` per axis, one pair or one number for all axes.
        mode: ``"constant"``, ``"edge"``, ``"reflect"`` or ``"wrap"`` (these three need fixed extents).
        constant_values: the number that ``"constant"`` adds.

    Raises:
        ShapeError: negative widths, or wider than ``"reflect"`` and ``"wrap"`` can fill.

    >>> pad([1, 2], (1, 2)).shape
    (5,)
    """
    t = tensor("pad", x)
    widths = _widths(t, pad_width)
    if mode == "constant":
        low, high, gaps = tuple(a for a, _ in widths), tuple(b for _, b in widths), (0,) * t.ndim
        if all(a == b == 0 for a, b in widths):
            return t
        padded = build("pad", t, low=low, high=high, gaps=gaps)
        if constant_values == 0:
            return padded
        inside = build("pad", full(t.shape, True, dtypes.bool_), low=low, high=high, gaps=gaps)
        return where(inside, padded, cast(tensor("pad", constant_values, t.dtype), t.dtype))
    if mode not in ("edge", "reflect", "wrap"):
        raise UsageError(f"pad: mode {mode!r} is unknown; use 'constant', 'edge', 'reflect' or 'wrap'")
    for axis, (before, after) in enumerate(widths):
        if before or after:
            t = _pad_axis(t, axis, before, after, mode)
    return t


def _widths(t: Tensor, pad_width: Any) -> list[tuple[int, int]]:
    try:
        pairs = np.broadcast_to(np.asarray(pad_width), (t.ndim, 2)).tolist()
    except ValueError:
        raise fail(
            ShapeError, f"pad: pad_width {pad_width!r} is not one (before, after) pair for each of the {t.ndim} axes", t
        ) from None
    widths = [(whole("pad", a, t), whole("pad", b, t)) for a, b in pairs]
    if any(a < 0 or b < 0 for a, b in widths):
        raise fail(ShapeError, f"pad: widths {pad_width!r} must not be negative; cut with x[1:-1] instead", t)
    return widths


def _pad_axis(t: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """Pad one axis by joining slices: edges repeated, mirrored without the edge, or from the other end."""
    extent = t.shape[axis]
    room = (
        0 if isinstance(extent, Dim) else {"edge": 2**62 if extent else 0, "reflect": extent - 1, "wrap": extent}[mode]
    )
    if max(before, after) > room:
        raise fail(
            ShapeError,
            f"pad: mode {mode!r} cannot add {max(before, after)} elements to axis {axis} of {format_shape(t.shape)}",
            t,
        )
    n = int(extent)
    if mode == "edge":
        parts = [repeat(cut(t, axis, 0, 1), before, axis), t, repeat(cut(t, axis, n - 1, 1), after, axis)]
    elif mode == "reflect":
        parts = [flip(cut(t, axis, 1, before), axis), t, flip(cut(t, axis, n - 1 - after, after), axis)]
    else:
        parts = [cut(t, axis, n - before, before), t, cut(t, axis, 0, after)]
    return concat([p for p, width in zip(parts, (before, 1, after), strict=True) if width], axis)
