"""Shapes: tuples of extents, which are integers or symbolic ``Dim`` expressions; broadcasting, and which agree."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from graphcore.base.dims import (
    Count,
    Dim,
    Extent,
    bind,
    defined_by,
    dim_max,
    dim_min,
    may_equal,
    product,
    reach,
    symbols_of,
    typical,
)
from graphcore.base.errors import ShapeError

__all__ = [
    "Count",
    "Dim",
    "Extent",
    "Shape",
    "agree",
    "as_shape",
    "bind",
    "broadcast_shapes",
    "broadcasts",
    "common_extent",
    "common_shape",
    "defined_by",
    "dim_max",
    "dim_min",
    "inner_extents",
    "is_static",
    "may_equal",
    "normalize_axes",
    "normalize_axis",
    "product",
    "reach",
    "row_major_strides",
    "symbols_of",
    "typical",
    "widths_around",
]

Shape = tuple[Extent, ...]


def as_shape(shape: Any) -> Shape:
    """A shape from an int, ``None``, ``Dim`` or a sequence of them; ``None`` becomes a new unique ``Dim``.

    Raises:
        ShapeError: a negative extent or something that is no extent.
    """
    if shape is None or isinstance(shape, (int, Dim)) or not isinstance(shape, Iterable):
        shape = (shape,)
    return tuple(_as_extent(e, shape) for e in shape)


def _as_extent(extent: Any, shape: Any) -> Extent:
    if extent is None:
        return Dim()
    if isinstance(extent, Dim):
        return extent
    try:
        value = extent.__index__() if not isinstance(extent, bool) else -1
    except (AttributeError, TypeError):
        raise ShapeError(
            f"{extent!r} in the shape {shape!r} is no extent; use non-negative integers, None or gc.Dim"
        ) from None
    if value < 0 or value >= 2**62:
        raise ShapeError(f"{extent!r} in the shape {tuple(shape)!r} is not an extent between 0 and 2**62")
    return int(value)


def is_static(shape: Sequence[Extent]) -> bool:
    """Whether no extent is symbolic."""
    return not any(isinstance(e, Dim) for e in shape)


def inner_extents(shape: Shape) -> Shape:
    """Extents that enter a stride of row-major memory: all behind the first that is not 1."""
    lead = next((i for i, e in enumerate(shape) if e != 1), len(shape))
    return shape[lead + 1 :]


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape that shapes broadcast to, by NumPy's rule.

    An unknown extent never broadcasts. Against another that it may equal it is taken to be equal; the caller records
    that, and it is checked when feeds bind.

    Raises:
        ShapeError: the shapes do not broadcast.
    """
    rank = max((len(s) for s in shapes), default=0)
    columns = ([s[i] for s in shapes if len(s) >= -i and s[i] != 1] for i in range(-rank, 0))
    return tuple(common_extent(column, "do not broadcast", shapes) if column else 1 for column in columns)


def common_shape(*shapes: Shape) -> Shape:
    """What shapes of one rank that are taken to be equal have in common; nothing broadcasts.

    Raises:
        ShapeError: two of them differ for all sizes.
    """
    return tuple(common_extent(column, "differ", shapes) for column in zip(*shapes, strict=True))


def common_extent(extents: Sequence[Extent], why: str = "differ", shapes: Iterable[Shape] = ()) -> Extent:
    """The one of some extents, all taken to be equal, that says most: a number, else the first.

    Raises:
        ShapeError: two of them differ for all sizes; the message says so of the shapes by ``why``.
    """
    different = list(dict.fromkeys(extents))
    for a, b in itertools.combinations(different, 2):
        if not may_equal(a, b):
            raise ShapeError(f"shapes {' and '.join(map(format_shape, shapes))} {why}: {a} against {b}")
    return next((e for e in different if isinstance(e, int)), different[0])


def agree(a: Shape, b: Shape) -> bool:
    """Whether two shapes are equal for some sizes; nothing broadcasts."""
    return len(a) == len(b) and all(map(may_equal, a, b))


def broadcasts(given: Shape, shape: Shape) -> bool:
    """Whether a shape broadcasts to another one, as far as is known."""
    lead = len(shape) - len(given)
    return lead >= 0 and all(e == 1 or may_equal(e, shape[lead + i]) for i, e in enumerate(given))


def format_shape(shape: Shape) -> str:
    """A shape as text, e.g. ``(batch, 10)``."""
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def normalize_axis(axis: Any, rank: int, op: str = "axis") -> int:
    """A non-negative axis.

    Raises:
        ShapeError: out of range or no integer.
    """
    try:
        value = axis.__index__()
    except (AttributeError, TypeError):
        raise ShapeError(f"{op}: axis {axis!r} is not an integer") from None
    if not -rank <= value < rank:
        raise ShapeError(
            f"{op}: axis {axis} is out of range for a tensor of rank {rank}; use {-rank} to {rank - 1}"
            if rank
            else f"{op}: axis {axis} is out of range for a tensor of rank 0, which has no axes"
        )
    return int(value % rank)


def normalize_axes(axes: Any, rank: int, op: str = "axis") -> tuple[int, ...]:
    """Sorted non-negative axes; ``None`` means all.

    Raises:
        ShapeError: out of range or repeated.
    """
    if axes is None:
        return tuple(range(rank))
    if not isinstance(axes, Iterable):
        axes = (axes,)
    result = sorted(normalize_axis(a, rank, op) for a in axes)
    if len(set(result)) != len(result):
        raise ShapeError(f"{op}: axes {tuple(axes)} name an axis twice")
    return tuple(result)


def widths_around(shape: Shape, starts: Shape, lengths: Shape, steps: Sequence[int]) -> tuple[Shape, Shape, Shape]:
    """The widths before, behind and between the elements of a slice in the shape that it was cut from.

    The last is negative for a slice without elements that starts behind the end.
    """
    axes = zip(shape, starts, lengths, steps, strict=True)
    high = tuple(extent - start - reach(n, step) for extent, start, n, step in axes)
    return starts, high, tuple(step - 1 for step in steps)


def row_major_strides(shape: Shape) -> Shape:
    """Element strides of a contiguous tensor."""
    strides: list[Extent] = []
    step: Extent = 1
    for extent in reversed(shape):
        strides.append(step)
        step = step * extent
    return tuple(reversed(strides))
