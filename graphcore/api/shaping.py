"""Functions that only move elements: reshape, permute, broadcast, join, split, repeat, pad. Names and arguments follow
NumPy; where PyTorch users write ``dim``, it is accepted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphcore.api.agreement import taken
from graphcore.api.operands import align, axes_of, axis_of, build, fail, fit, promote, tensor
from graphcore.api.tensor import Tensor
from graphcore.base import dtypes
from graphcore.base.errors import ShapeError, UsageError
from graphcore.base.shapes import Dim, Extent, Shape, agree, broadcasts, common_shape, dim_max, format_shape, product
from graphcore.ir.node import describe, mismatch

# fmt: off
__all__ = [
    "broadcast_arrays",
    "broadcast_to",
    "concat",
    "concatenate",
    "dim_value",
    "expand_dims",
    "flatten",
    "flip",
    "matrix_transpose",
    "moveaxis",
    "permute",
    "permute_dims",
    "repeat",
    "reshape",
    "roll",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "tile",
    "transpose",
    "unsqueeze",
    "unstack",
]
# fmt: on


def dim_value(extent: Extent, dtype: Any = "int64") -> Tensor:
    """An extent as a rank-0 tensor; a symbolic one takes its value from the feeds.

    >>> dim_value(3).dtype
    int64
    """
    return build("dim_value", extent=extent, dtype=dtypes.as_dtype(dtype))


def reshape(x: Any, shape: Any) -> Tensor:
    """The same elements, in row-major order, under another shape. One extent may be -1: it is inferred, also when
    symbolic.

    Raises:
        ShapeError: the element counts differ, or -1 cannot be inferred.

    >>> reshape([[1, 2], [3, 4]], (-1,)).shape
    (4,)
    """
    t = tensor("reshape", x)
    wanted = _resolve_shape(t, tuple(shape) if isinstance(shape, (tuple, list)) else (shape,))
    return t if wanted == t.shape else build("reshape", t, shape=wanted)


def _resolve_shape(t: Tensor, shape: Shape) -> Shape:
    extents: list[Any] = [e if isinstance(e, Dim) else whole("reshape", e, t) for e in shape]
    unknown = [i for i, e in enumerate(extents) if isinstance(e, int) and e == -1]
    bad = [e for e in extents if isinstance(e, int) and e < -1]
    if len(unknown) > 1 or bad:
        why = "more than one extent is -1" if not bad else f"the extent {bad[0]} is negative"
        raise fail(ShapeError, f"reshape: {format_shape(t.shape)} to {format_shape(shape)}: {why}", t)
    rest = product(e for i, e in enumerate(extents) if i not in unknown)
    if not unknown:
        if rest != t.size:
            raise fail(
                ShapeError,
                f"reshape: {format_shape(t.shape)} has {t.size} elements, {format_shape(shape)} has {rest}"
                f"{_reshape_hint(t, tuple(extents))}",
                t,
            )
        return tuple(extents)
    size: Any = t.size
    exact = rest != 0 and not (isinstance(rest, Dim) and isinstance(size, int)) and size % rest == 0
    if not exact:
        raise fail(
            ShapeError,
            f"reshape: {format_shape(t.shape)} to {format_shape(shape)}: {t.size} elements are not divisible by "
            f"{rest}, "
            "so -1 cannot be inferred",
            t,
        )
    extents[unknown[0]] = t.size // rest
    return tuple(extents)


def _reshape_hint(t: Tensor, extents: Shape) -> str:
    symbolic = [e for e in t.shape if isinstance(e, Dim)]
    if symbolic and not any(isinstance(e, Dim) for e in extents):
        axis = t.shape.index(symbolic[0])
        return f"; {symbolic[0]} is not known until it is fed: use -1 or x.shape[{axis}] for one extent"
    for i, e in enumerate(extents):
        others = product(o for j, o in enumerate(extents) if j != i)
        if isinstance(others, int) and isinstance(t.size, int) and others and t.size % others == 0 and e != 1:
            return f"; extent {i} would have to be {t.size // others} (or write -1)"
    return ""


def whole(op: str, value: Any, *operands: Tensor) -> int:
    try:
        return int(value.__index__())
    except (AttributeError, TypeError):
        hint = "; use -1 for the extent to infer" if value is None else ""
        raise fail(ShapeError, f"{op}: {value!r} is no integer{hint}", *operands) from None


def permute_dims(x: Any, axes: Any) -> Tensor:
    """The axes in another order: result axis i is axis ``axes[i]``.

    Raises:
        ShapeError: ``axes`` is no permutation of the axes.

    >>> permute_dims([[1, 2, 3]], (1, 0)).shape
    (3, 1)
    """
    t = tensor("permute_dims", x)
    order = tuple(axis_of("permute_dims", t, a) for a in axes)
    if sorted(order) != list(range(t.ndim)):
        raise fail(
            ShapeError,
            f"permute_dims: {tuple(axes)} is no permutation of the {t.ndim} axes of {format_shape(t.shape)}",
            t,
        )
    return t if order == tuple(range(t.ndim)) else build("permute", t, axes=order)


permute = permute_dims


def transpose(x: Any, axes: Any = None) -> Tensor:
    """The axes reversed, or in the order ``axes``.

    >>> transpose([[1, 2, 3]]).shape
    (3, 1)
    """
    t = tensor("transpose", x)
    return permute_dims(t, tuple(reversed(range(t.ndim))) if axes is None else axes)


def matrix_transpose(x: Any) -> Tensor:
    """The last two axes swapped.

    >>> matrix_transpose([[1, 2, 3]]).shape
    (3, 1)
    """
    t = tensor("matrix_transpose", x)
    if t.ndim < 2:
        raise fail(ShapeError, f"matrix_transpose: needs at least 2 axes, got {format_shape(t.shape)}", t)
    return swapaxes(t, -1, -2)


def moveaxis(x: Any, source: Any, destination: Any) -> Tensor:
    """Axes moved to new positions; the others keep their order.

    >>> moveaxis([[1, 2, 3]], 0, 1).shape
    (3, 1)
    """
    t = tensor("moveaxis", x)
    taken = [axis_of("moveaxis", t, a) for a in (source if isinstance(source, (tuple, list)) else (source,))]
    put = [
        axis_of("moveaxis", t, a) for a in (destination if isinstance(destination, (tuple, list)) else (destination,))
    ]
    if len(taken) != len(put) or len(set(taken)) != len(taken) or len(set(put)) != len(put):
        raise fail(
            ShapeError, f"moveaxis: source {source} and destination {destination} must be as many distinct axes", t
        )
    order = [a for a in range(t.ndim) if a not in taken]
    for to, a in sorted(zip(put, taken, strict=True)):
        order.insert(to, a)
    return permute_dims(t, order)


def swapaxes(x: Any, axis1: int, axis2: int) -> Tensor:
    """Two axes swapped.

    >>> swapaxes([[1, 2, 3]], 0, 1).shape
    (3, 1)
    """
    t = tensor("swapaxes", x)
    order = list(range(t.ndim))
    a, b = axis_of("swapaxes", t, axis1), axis_of("swapaxes", t, axis2)
    order[a], order[b] = order[b], order[a]
    return permute_dims(t, order)


def expand_dims(x: Any, axis: Any = 0) -> Tensor:
    """New axes of extent 1 at the positions ``axis`` of the result.

    >>> expand_dims([1, 2], 1).shape
    (2, 1)
    """
    t = tensor("expand_dims", x)
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    rank = t.ndim + len(given)
    places = {axis_of("expand_dims", t, a, rank) for a in given}
    if len(places) != len(given):
        raise fail(ShapeError, f"expand_dims: axes {tuple(given)} name an axis twice", t)
    rest = iter(t.shape)
    return reshape(t, tuple(1 if i in places else next(rest) for i in range(rank)))


unsqueeze = expand_dims


def squeeze(x: Any, axis: Any = None, *, dim: Any = None) -> Tensor:
    """Axes of extent 1 removed: those named, or all of them.

    Raises:
        ShapeError: a named axis is not of extent 1.

    >>> squeeze([[1, 2]], 0).shape
    (2,)
    """
    axis = axis if dim is None else dim
    t = tensor("squeeze", x)
    drop = {i for i, e in enumerate(t.shape) if e == 1} if axis is None else set(axes_of("squeeze", t, axis))
    wrong = [i for i in drop if t.shape[i] != 1]
    if wrong:
        raise fail(
            ShapeError,
            f"squeeze: axis {wrong[0]} of {format_shape(t.shape)} has the extent {t.shape[wrong[0]]}, not 1",
            t,
        )
    return reshape(t, tuple(e for i, e in enumerate(t.shape) if i not in drop))


def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes ``start_dim`` to ``end_dim`` joined into one.

    >>> flatten([[1, 2], [3, 4]]).shape
    (4,)
    """
    t = tensor("flatten", x)
    if t.ndim == 0:
        return reshape(t, (1,))
    first, last = axis_of("flatten", t, start_dim), axis_of("flatten", t, end_dim)
    if first > last:
        raise fail(
            ShapeError, f"flatten: start_dim {start_dim} is after end_dim {end_dim} in {format_shape(t.shape)}", t
        )
    return reshape(t, (*t.shape[:first], product(t.shape[first : last + 1]), *t.shape[last + 1 :]))


def broadcast_to(x: Any, shape: Any) -> Tensor:
    """``x`` repeated to ``shape`` by NumPy's rule; nothing is copied.

    Raises:
        ShapeError: an extent that is neither 1 nor the wanted one.

    >>> broadcast_to([1, 2], (3, 2)).shape
    (3, 2)
    """
    t = tensor("broadcast_to", x)
    wanted = tuple(
        e if isinstance(e, Dim) else whole("broadcast_to", e, t)
        for e in (shape if isinstance(shape, (tuple, list)) else (shape,))
    )
    if not broadcasts(t.shape, wanted):
        raise fail(
            ShapeError,
            f"broadcast_to: {format_shape(t.shape)} does not broadcast to {format_shape(wanted)}; "
            "extents must be equal or 1, aligned at the last axis",
            t,
        )
    return fit(t, wanted, "broadcast_to")


def broadcast_arrays(*xs: Any) -> list[Tensor]:
    """All operands broadcast to their common shape, each of its own type.

    >>> [t.shape for t in broadcast_arrays([1, 2], 3)]
    [(2,), (2,)]
    """
    return align("broadcast_arrays", *(tensor("broadcast_arrays", x) for x in xs))


def _sequence(op: str, xs: Any) -> list[Tensor]:
    if isinstance(xs, Tensor) or not isinstance(xs, Sequence):
        raise UsageError(
            f"{op}: takes a list of tensors, got {describe(xs) if isinstance(xs, Tensor) else type(xs).__name__}; "
            f"write {op}([a, b])"
        )
    if not xs:
        raise UsageError(f"{op}: the list of tensors is empty")
    return promote(op, *xs)


def concat(xs: Any, axis: int | None = 0, *, dim: int | None = None) -> Tensor:
    """Tensors joined along an existing axis (None: flattened first); they promote to one type.

    Raises:
        ShapeError: extents differ outside the axis.

    >>> concat([[1, 2], [3]]).shape
    (3,)
    """
    axis = axis if dim is None else dim
    tensors = _sequence("concat", xs)
    if axis is None:
        tensors, axis = [reshape(t, (-1,)) for t in tensors], 0
    first = tensors[0]
    if first.ndim == 0:
        raise fail(ShapeError, "concat: rank-0 tensors have no axis to join; use gc.stack", *tensors)
    place = axis_of("concat", first, axis)
    return first if len(tensors) == 1 else build("concat", *_alike("concat", tensors, place), axis=place)


def _alike(op: str, tensors: Sequence[Tensor], axis: int | None = None) -> list[Tensor]:
    """Tensors known to have one shape, but along ``axis``."""
    shapes = [tuple(e for i, e in enumerate(t.shape) if i != axis) for t in tensors]
    owner: dict[Shape, Tensor] = {}
    for t, shape in zip(tensors, shapes, strict=True):
        if t.ndim != tensors[0].ndim:
            raise mismatch(op, tensors[0], t, "ranks differ")
        owner.setdefault(shape, t)
    for one, other in itertools.combinations(owner, 2):
        if not agree(one, other):
            why = "shapes differ" if axis is None else f"extents differ outside axis {axis}"
            raise mismatch(op, owner[one], owner[other], why)
    common = common_shape(*owner)
    against = {shape: next((t for s, t in owner.items() if s != shape), None) for shape in owner}
    result = []
    for t, shape in zip(tensors, shapes, strict=True):
        extents = iter(common)
        wanted = tuple(e if i == axis else next(extents) for i, e in enumerate(t.shape))
        result.append(taken(t, wanted, op, against[shape]))
    return result


concatenate = concat


def stack(xs: Any, axis: int = 0, *, dim: int | None = None) -> Tensor:
    """Tensors of one shape joined along a new axis.

    Raises:
        ShapeError: the shapes differ.

    >>> stack([[1, 2], [3, 4]], 1).shape
    (2, 2)
    """
    axis = axis if dim is None else dim
    tensors = _sequence("stack", xs)
    place = axis_of("stack", tensors[0], axis, tensors[0].ndim + 1)
    return concat([expand_dims(t, place) for t in _alike("stack", tensors)], place)


def split(x: Any, indices_or_sections: Any, axis: int = 0, *, dim: int | None = None) -> list[Tensor]:
    """``x`` cut along an axis: into a number of equal parts, or before the given positions.

    Raises:
        ShapeError: the extent is not divisible. A symbolic one that the positions leave is a FeedError.

    >>> [t.shape for t in split([1, 2, 3, 4], 2)]
    [(2,), (2,)]
    """
    axis = axis if dim is None else dim
    t = tensor("split", x)
    place = axis_of("split", t, axis)
    extent = t.shape[place]
    if isinstance(indices_or_sections, (list, tuple, np.ndarray)):
        bounds: list[Any] = [0, *(int(i) for i in indices_or_sections), extent]
    else:
        parts = whole("split", indices_or_sections, t)
        if parts < 1 or extent % parts != 0:
            raise fail(
                ShapeError,
                f"split: the extent {extent} of axis {place} of {format_shape(t.shape)} does not divide into {parts} "
                f"equal parts; "
                "pass the positions to cut at as a list",
                t,
            )
        bounds = [i * (extent // parts) for i in range(parts + 1)]
    bounds = [b + extent if isinstance(b, int) and b < 0 else b for b in bounds]
    if isinstance(extent, int):
        bounds = [max(0, min(extent, b)) for b in bounds]
    return [cut(t, place, a, dim_max(b - a, 0)) for a, b in itertools.pairwise(bounds)]


def cut(x: Tensor, axis: int, start: Extent, length: Extent) -> Tensor:
    """``length`` elements along an axis from ``start``."""
    if start == 0 and length == x.shape[axis]:
        return x
    starts = tuple(start if a == axis else 0 for a in range(x.ndim))
    return build(
        "slice",
        x,
        starts=starts,
        lengths=tuple(length if a == axis else e for a, e in enumerate(x.shape)),
        steps=(1,) * x.ndim,
    )


def unstack(x: Any, axis: int = 0) -> list[Tensor]:
    """The slices along an axis of fixed extent, without that axis.

    >>> len(unstack([[1, 2], [3, 4], [5, 6]]))
    3
    """
    t = tensor("unstack", x)
    place = axis_of("unstack", t, axis)
    extent = t.shape[place]
    if isinstance(extent, Dim):
        raise fail(ShapeError, f"unstack: axis {place} of {format_shape(t.shape)} is symbolic; it must be fixed", t)
    rest = tuple(e for a, e in enumerate(t.shape) if a != place)
    return [reshape(cut(t, place, i, 1), rest) for i in range(extent)]


def tile(x: Any, repetitions: Any) -> Tensor:
    """Copies of ``x`` side by side, ``repetitions`` along each axis.

    >>> tile([1, 2], 3).shape
    (6,)
    """
    t = tensor("tile", x)
    given = tuple(repetitions) if isinstance(repetitions, (tuple, list)) else (repetitions,)
    counts: list[Extent] = [whole("tile", r, t) if not isinstance(r, Dim) else r for r in given]
    counts = [*[1] * (t.ndim - len(counts)), *counts]
    shape: Shape = (1,) * (len(counts) - t.ndim) + t.shape
    if all(r == 1 for r in counts):
        return reshape(t, shape)
    apart = reshape(t, tuple(e for extent in shape for e in (1, extent)))
    wide = fit(apart, tuple(e for r, extent in zip(counts, shape, strict=True) for e in (r, extent)))
    return reshape(wide, tuple(r * e for r, e in zip(counts, shape, strict=True)))


def repeat(x: Any, repeats: int, axis: int | None = None) -> Tensor:
    """Every element ``repeats`` times in a row along an axis (None: flattened first).

    >>> repeat([1, 2], 3).shape
    (6,)
    """
    t = tensor("repeat", x)
    if axis is None:
        t, axis = reshape(t, (-1,)), 0
    place, count = axis_of("repeat", t, axis), whole("repeat", repeats, t)
    lead, extent, rest = t.shape[:place], t.shape[place], t.shape[place + 1 :]
    return reshape(
        fit(reshape(t, (*lead, extent, 1, *rest)), (*lead, extent, count, *rest)), (*lead, extent * count, *rest)
    )


def roll(x: Any, shift: Any, axis: Any = None) -> Tensor:
    """Elements moved by ``shift`` places along axes of fixed extents, around the end (axis None: of the flattened
    tensor).

    >>> roll([1, 2, 3], 1).shape
    (3,)
    """
    t = tensor("roll", x)
    if axis is None:
        return reshape(roll(reshape(t, (-1,)), shift, 0), t.shape)
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    shifts = shift if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    for a, s in zip(axes, shifts, strict=True):
        place = axis_of("roll", t, a)
        extent = t.shape[place]
        if isinstance(extent, Dim):
            raise fail(ShapeError, f"roll: axis {place} of {format_shape(t.shape)} is symbolic", t)
        by = whole("roll", s, t) % extent if extent else 0
        if by:
            t = concat([cut(t, place, extent - by, by), cut(t, place, 0, extent - by)], place)
    return t


def flip(x: Any, axis: Any = None) -> Tensor:
    """The order of elements reversed along axes (None: all).

    >>> flip([1, 2, 3]).shape
    (3,)
    """
    t = tensor("flip", x)
    axes = tuple(a for a in axes_of("flip", t, axis) if t.shape[a] != 1)
    return build("flip", t, axes=axes) if axes else t
