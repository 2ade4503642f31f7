"""What forms compute, in NumPy: a second meaning beside the loops of their kernels, which the oracle compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphcore.base.shapes import bind
from graphcore.kernel.contraction import Window, WindowResult
from graphcore.kernel.forms import Contraction
from graphcore.kernel.whole_forms import Factor, Factorisation, Scan, Sort, Transform, TransformKind, WholeForm

__all__ = ["contracted", "whole"]


def contracted(form: Contraction, left: Any, right: Any, sizes: Mapping[str, int]) -> Any:
    """A contraction's sums, in the accumulator's compute type.

    Args:
        form: the contraction.
        left, right: its operands, each of its operand's shape.
        sizes: extents by name.

    Returns:
        Without a window an array over those of ``result_axes`` that an operand has, in their order; else over all.
    """
    wide = np.dtype(form.types.accumulator.compute)
    left, right = (np.asarray(x).astype(wide) for x in (left, right))
    if form.window is not None:
        return _windowed(form, form.window, left, right, sizes)
    number = {axis: i for i, axis in enumerate((*form.result_axes, *form.terms))}
    labels = [[number[a] for a in operand.axes] for operand in form.operands]
    kept = [number[a] for a in form.result_axes if number[a] in (*labels[0], *labels[1])]
    missing = [a for a in form.terms if number[a] not in (*labels[0], *labels[1])]
    repeats = int(np.prod([int(bind(a.extent, sizes)) for a in missing], initial=1))
    return np.einsum(left, labels[0], right, labels[1], kept) * wide.type(repeats)


def _windowed(form: Contraction, window: Window, left: Any, right: Any, sizes: Mapping[str, int]) -> Any:
    images, weights, made = (tuple(int(bind(e, sizes)) for e in shape) for shape in form.parts())
    groups, rank = window.groups, len(window.taps)
    before, after = window.padding[0::2], window.padding[1::2]
    padded_places = tuple(b + e + a for b, e, a in zip(before, images[2:], after, strict=True))

    def split(x: Any, axis: int) -> Any:
        return x.reshape(*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :])

    def padded(x: Any) -> Any:
        return np.pad(x, ((0, 0), (0, 0), *zip(before, after, strict=True)))

    if window.result is WindowResult.POSITION:
        source, filters = split(padded(left), 1), split(right, 0)
        total: Any = np.zeros((made[0], groups, made[1] // groups, *made[2:]), left.dtype)
        for tap, at in _taps(window, made[2:]):
            total += np.einsum("ngc...,goc->ngo...", source[(..., *at)], filters[(..., *tap)])
        return total.reshape(made)
    if window.result is WindowResult.PLACE:
        gradient, filters = split(left, 1), split(right, 0)
        total = np.zeros((images[0], groups, weights[1], *padded_places), left.dtype)
        for tap, at in _taps(window, made[2:]):
            total[(..., *at)] += np.einsum("ngo...,goc->ngc...", gradient, filters[(..., *tap)])
        inside = tuple(slice(b, b + e) for b, e in zip(before, images[2:], strict=True))
        return total[(..., *inside)].reshape(images)
    source, gradient = split(padded(left), 1), split(right, 1)
    total = np.zeros((groups, weights[0] // groups, weights[1], *window.taps), left.dtype)
    walked = tuple(range(3, 3 + rank))
    for tap, at in _taps(window, made[2:]):
        total[(..., *tap)] = np.einsum(
            source[(..., *at)], [0, 1, 2, *walked], gradient, [0, 1, 3 + rank, *walked], [1, 3 + rank, 2]
        )
    return total.reshape(weights)


def _taps(window: Window, positions: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Every tap, and the padded places that it meets at the window's positions."""
    for tap in np.ndindex(*window.taps):
        starts = [t * d for t, d in zip(tap, window.dilation, strict=True)]
        yield (
            tap,
            tuple(
                slice(start, start + (count - 1) * step + 1 if count else start, step)
                for start, count, step in zip(starts, positions, window.stride, strict=True)
            ),
        )


def whole(form: WholeForm, operands: Sequence[Any], sizes: Mapping[str, int]) -> list[Any]:
    """Every result of a form that loops cannot say, over the axes that it is over.

    Args:
        form: the form.
        operands: arrays over the axes of its operands.
        sizes: extents by name.

    Raises:
        NotImplementedError: a form without a NumPy meaning.
    """
    axes = form.operands[0].axes
    if isinstance(form, Scan):
        return [_scanned(form, operands[0], axes.index(form.axis))]
    if isinstance(form, Sort):
        return _sorted(form, operands[0], axes.index(form.axis))
    if isinstance(form, Transform):
        return [_transformed(form, operands[0], [axes.index(a) for a in form.along], sizes)]
    if isinstance(form, Factor):
        return _factors(form.kind, operands[0])
    raise NotImplementedError(f"{type(form).__name__} has no meaning in NumPy")


_SCANS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scanned(form: Scan, x: Any, axis: int) -> Any:
    x = np.flip(x, axis) if form.reverse else x
    made = _SCANS[form.combine].accumulate(x, axis=axis, dtype=x.dtype)
    if form.exclusive:
        first = np.full_like(np.take(made, [0], axis) if x.shape[axis] else made, 0 if form.combine == "add" else 1)
        made = np.concatenate([first, np.delete(made, -1, axis)], axis) if x.shape[axis] else made
    return np.flip(made, axis) if form.reverse else made


def _transformed(form: Transform, x: Any, axes: list[int], sizes: Mapping[str, int]) -> Any:
    """NumPy divides by the number of elements in its inverses. Conjugating what is complex turns the sign of the
    exponent; ``irfftn`` is an inverse and ``rfftn`` a forward transform."""
    if form.kind is not TransformKind.FROM_REAL:
        x = x[..., 0] + 1j * x[..., 1]
    count = np.prod([x.shape[a] for a in axes])
    if form.kind is TransformKind.COMPLEX:
        made = np.fft.ifftn(x, axes=axes) * count if form.inverse else np.fft.fftn(x, axes=axes)
    elif form.kind is TransformKind.FROM_REAL:
        made = np.fft.rfftn(x, axes=axes)
        made = np.conj(made) if form.inverse else made
    else:
        assert form.half is not None
        extents = [x.shape[a] for a in axes[:-1]] + [int(bind(form.half.extent, sizes))]
        count = np.prod(extents)
        made = np.fft.irfftn(x if form.inverse else np.conj(x), extents, axes) * count
    made = made / count if form.normalised else made
    return made if form.kind is TransformKind.TO_REAL else np.stack([made.real, made.imag], -1)


def _sorted(form: Sort, keys: Any, axis: int) -> list[Any]:
    if form.descending:  # ranks turn around, equal keys do not
        ranks = np.unique(keys, return_inverse=True, equal_nan=True)[1].reshape(keys.shape)
        ranks = np.where(np.isnan(keys), 1, -ranks) if np.issubdtype(keys.dtype, np.floating) else -ranks
        where = np.argsort(ranks, axis=axis, kind="stable")
    else:
        where = np.argsort(keys, axis=axis, kind="stable")
    return [np.take_along_axis(keys, where, axis), where]


def _factors(kind: Factorisation, x: Any) -> list[Any]:
    if kind is Factorisation.CHOLESKY:
        return [np.linalg.cholesky(x)]
    if kind is Factorisation.QR:
        return [*np.linalg.qr(x)]
    packed, order = x.copy(), np.broadcast_to(np.arange(x.shape[-1]), x.shape[:-1]).copy()
    for matrix, rows in zip(packed.reshape(-1, *x.shape[-2:]), order.reshape(-1, x.shape[-1]), strict=True):
        for k in range(len(matrix)):
            pivot = k + int(np.argmax(np.abs(matrix[k:, k])))
            matrix[[k, pivot]], rows[[k, pivot]] = matrix[[pivot, k]], rows[[pivot, k]]
            matrix[k + 1 :, k] /= matrix[k, k]
            matrix[k + 1 :, k + 1 :] -= np.outer(matrix[k + 1 :, k], matrix[k, k + 1 :])
    return [packed, order]
