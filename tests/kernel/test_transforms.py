"""Fourier transforms as a form: what they mean against NumPy in float64, and the rules that they keep."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graphcore.base.dtypes import as_dtype
from graphcore.base.errors import VerifyError
from graphcore.kernel import expr
from graphcore.kernel.expr import load
from graphcore.kernel.forms import Computed
from graphcore.kernel.index import Axis, as_index, flatten
from graphcore.kernel.interpret import run_kernel
from graphcore.kernel.ir import Kernel, Param, Store, verify_kernel
from graphcore.kernel.whole_forms import Transform, TransformKind

EXTENTS = 3, 4, 5
AXES = tuple(Axis(f"i{n}", e) for n, e in enumerate(EXTENTS))
PAIR = Axis("c", 2)
ALONG = [(2,), (1,), (0,), (1, 2), (2, 0), (0, 1, 2), (2, 1, 0)]


def made_kernel(kind: TransformKind, along: tuple[int, ...], dtype: str = "float64", **options: Any) -> Kernel:
    """A transform of a parameter into another one; both sides are laid out as the form says."""
    own, axes, half, last = as_dtype(dtype), AXES, None, AXES[along[-1]]
    if kind is TransformKind.FROM_REAL:
        half = Axis("h", EXTENTS[along[-1]] // 2 + 1)
    if kind is TransformKind.TO_REAL:
        half, last = last, Axis("h", EXTENTS[along[-1]] // 2 + 1)
    given = tuple(last if n == along[-1] else a for n, a in enumerate(axes))
    made = tuple(half if n == along[-1] and half is not None else a for n, a in enumerate(axes))
    given = given if kind is TransformKind.FROM_REAL else (*given, PAIR)
    made = made if kind is TransformKind.TO_REAL else (*made, PAIR)
    shapes = [tuple(int(a.extent) for a in side) for side in (given, made)]  # type: ignore[call-overload]
    reads, writes = (flatten(tuple(map(as_index, side)), s) for side, s in zip((given, made), shapes, strict=True))
    operand, leaf = Computed(load(0, reads, own), given, shapes[0]), expr.leaf("result", own, made)
    form = Transform((operand,), (leaf,), tuple(given[n] for n in along), PAIR, kind, half, **options)
    params = Param("p0", own, shapes[0]), Param("p1", own, shapes[1])
    return Kernel("fourier", params, tuple(dict.fromkeys((*given, *made))), (Store(1, writes, leaf),), form=form)


def run(kernel: Kernel, x: Any) -> Any:
    """Complex arrays go in and come out as they lie in memory."""
    verify_kernel(kernel)
    form = kernel.form
    assert isinstance(form, Transform)
    parts = np.ascontiguousarray(x).view(np.float64).ravel()
    buffers = [parts.astype(kernel.params[0].dtype.storage), np.zeros(kernel.params[1].shape).ravel()]  # type: ignore[arg-type]
    run_kernel(kernel, buffers)
    made = buffers[1].astype(np.float64)
    made = made if form.kind is TransformKind.TO_REAL else made.view(np.complex128)
    extents = [int(a.extent) for a in form.result_axes()[0] if a != PAIR]  # type: ignore[call-overload]
    return made.reshape(extents)


def numbers(*shape: int) -> Any:
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


GRID = list(itertools.product(ALONG, [False, True], [False, True]))


@pytest.mark.parametrize(("along", "inverse", "normalised"), GRID)
def test_complex_transforms(along: tuple[int, ...], inverse: bool, normalised: bool) -> None:
    x = numbers(*EXTENTS)
    got = run(made_kernel(TransformKind.COMPLEX, along, inverse=inverse, normalised=normalised), x)
    norm = "backward" if inverse == normalised else "forward"
    wanted = (np.fft.ifftn if inverse else np.fft.fftn)(x, axes=along, norm=norm)
    np.testing.assert_allclose(got, wanted, atol=1e-12)


@pytest.mark.parametrize(("along", "inverse", "normalised"), GRID)
def test_transforms_of_real_numbers(along: tuple[int, ...], inverse: bool, normalised: bool) -> None:
    x = numbers(*EXTENTS).real
    got = run(made_kernel(TransformKind.FROM_REAL, along, inverse=inverse, normalised=normalised), x)
    norm = "backward" if inverse == normalised else "forward"
    whole = (np.fft.ifftn if inverse else np.fft.fftn)(x, axes=along, norm=norm)
    wanted = np.take(whole, range(EXTENTS[along[-1]] // 2 + 1), along[-1])
    np.testing.assert_allclose(got, wanted, atol=1e-12)


@pytest.mark.parametrize(("along", "inverse", "normalised"), GRID)
def test_transforms_into_real_numbers(along: tuple[int, ...], inverse: bool, normalised: bool) -> None:
    """What a real array becomes, halved, comes back."""
    wanted = numbers(*EXTENTS).real
    norm = "backward" if inverse == normalised else "forward"
    whole = (np.fft.fftn if inverse else np.fft.ifftn)(wanted, axes=along, norm=norm)
    half = np.take(whole, range(EXTENTS[along[-1]] // 2 + 1), along[-1])
    kernel = made_kernel(TransformKind.TO_REAL, along, inverse=inverse, normalised=normalised)
    np.testing.assert_allclose(run(kernel, half), wanted, atol=1e-12)


def test_parts_lie_beside_each_other() -> None:
    kernel = made_kernel(TransformKind.COMPLEX, (2,), normalised=True)
    assert kernel.params[0].shape == (*EXTENTS, 2)
    buffers = [np.zeros(120), np.zeros(120)]
    buffers[0][1] = 5.0  # the imaginary part of the first element
    run_kernel(kernel, buffers)
    assert np.array_equal(buffers[1][:10], [0, 1] * 5) and not buffers[1][10:].any()


def test_broken_transforms_are_refused() -> None:
    kernels = {kind: made_kernel(kind, (1, 2)) for kind in TransformKind}
    whole, to_half, from_half = (kernels[kind].form for kind in TransformKind)
    assert isinstance(whole, Transform) and isinstance(to_half, Transform) and isinstance(from_half, Transform)
    integers = replace(whole.operands[0], value=expr.cast(whole.operands[0].value, as_dtype("int32")))
    wrong = Axis("h", 6)
    broken = [
        (whole, {"operands": ()}, "has no operands"),
        (whole, {"operands": whole.operands * 2}, "takes one operand of float32 or float64"),
        (whole, {"operands": (integers,)}, "takes one operand of float32 or float64"),
        (whole, {"results": whole.results * 2}, "has 1 results, not 2"),
        (whole, {"along": ()}, "is along"),
        (whole, {"along": (AXES[1], AXES[1])}, "is along"),
        (whole, {"along": (AXES[1], PAIR)}, "is along"),
        (whole, {"along": (Axis("i7", 4),)}, "is along"),
        (whole, {"pair": AXES[0]}, "has pairs of 3 parts"),
        (whole, {"pair": Axis("d", 2)}, "whose last axis is the pair d"),
        (whole, {"kind": TransformKind.FROM_REAL}, "without the pair c"),
        (whole, {"kind": TransformKind.TO_REAL}, "has the half axis None"),
        (whole, {"half": wrong}, "has the half axis h"),
        (to_half, {"half": wrong}, "makes 6 elements of 5"),
        (to_half, {"half": None}, "has the half axis None"),
        (to_half, {"kind": TransformKind.COMPLEX}, "whose last axis is the pair c"),
        (from_half, {"half": wrong}, "makes 6 elements of 3"),
        (from_half, {"along": (AXES[1],)}, "makes 5 elements of 4"),
        (from_half, {"kind": TransformKind.FROM_REAL}, "without the pair c"),
    ]
    for form, change, words in broken:
        with pytest.raises(VerifyError, match=f"its Transform.*{words}"):
            verify_kernel(replace(kernels[form.kind], form=replace(form, **change)))
