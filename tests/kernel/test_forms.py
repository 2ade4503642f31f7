"""Forms beside the loops that they stand for: equal numbers on the kernel oracle, and rules that broken ones break."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.form_kernels import lowered, product_kernel, window_kernel

import graphcore as gc
from graphcore.api.operands import build
from graphcore.base.dtypes import as_dtype
from graphcore.kernel.contraction import Window, WindowResult
from graphcore.kernel.interpret import run_kernel
from graphcore.kernel.ir import Kernel, verify_kernel

# --- kernels by hand --------------------------------------------------------------------------------------------------


def filled(kernel: Kernel, seed: int = 0) -> list[Any]:
    """Numbers in every parameter; those that are written start at zero."""
    rng, buffers = np.random.default_rng(seed), []
    for number, p in enumerate(kernel.params):
        size = int(np.prod([int(e) for e in p.shape]))
        given = rng.integers(-100, 100, size) if p.dtype.is_integer else rng.standard_normal(size)
        buffers.append((np.zeros(size) if number in kernel.written() else given).astype(p.dtype.storage))
    return buffers


def both_ways(kernel: Kernel) -> Iterator[tuple[Any, Any]]:
    """What a kernel writes by its loops, and by its form."""
    verify_kernel(kernel)
    loops, form = filled(kernel), filled(kernel)
    run_kernel(kernel, loops)
    run_kernel(kernel, form, by_form=True)
    for number in sorted(kernel.written()):
        assert not np.array_equal(np.asarray(loops[number], np.float64), np.zeros_like(loops[number], np.float64))
        yield loops[number], form[number]


def agree(kernel: Kernel) -> None:
    dtype = kernel.form.types.result if kernel.form is not None else as_dtype("float32")
    loose = {"float64": 1e-12, "float32": 2e-5}.get(dtype.name, 1e-2)
    for loops, form in both_ways(kernel):
        if dtype.is_integer:
            assert np.array_equal(loops, form)
        else:
            np.testing.assert_allclose(np.asarray(form, np.float64), np.asarray(loops, np.float64), loose, loose)


TYPES = [
    ("float32", "float32", "float32"),
    ("float64", "float64", "float64"),
    ("float16", "float32", "float16"),
    ("bfloat16", "float32", "float32"),
    ("int8", "int32", "int32"),
    ("int32", "int64", "int64"),
]


@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize("turned", [False, True])
def test_a_product_means_what_its_loops_do(types: tuple[str, str, str], turned: bool) -> None:
    kernel = product_kernel(*types, turned=turned)
    form = kernel.form
    assert form is not None and (len(form.rows), len(form.columns), len(form.terms), len(form.batch)) == (1, 1, 1, 1)
    assert tuple(t.name for t in (form.types.left, form.types.accumulator, form.types.result)) == types
    agree(kernel)


def test_int8_products_are_exact_sums_of_32_bits() -> None:
    kernel = product_kernel("int8", "int32", "int32")
    buffers = filled(kernel)
    run_kernel(kernel, buffers, by_form=True)
    a, b = (buffers[i].astype(np.int64).reshape(kernel.params[i].shape) for i in (0, 1))  # type: ignore[arg-type]
    assert np.array_equal(buffers[2].reshape(3, 4, 6), a @ b + 1) and np.abs(buffers[2]).max() > 127


GEOMETRIES = [
    pytest.param(Window(WindowResult.POSITION, taps, stride, padding, dilation, groups), places, id=f"{len(taps)}d-{n}")
    for n, (places, taps, stride, padding, dilation, groups) in enumerate([
        ((9,), (3,), (1,), (1, 1), (1,), 1),
        ((9,), (3,), (2,), (0, 2), (2,), 2),
        ((6, 7), (3, 2), (1, 1), (0, 0, 0, 0), (1, 1), 1),
        ((8, 9), (3, 2), (2, 3), (2, 0, 1, 2), (2, 1), 2),
        ((5, 5), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1), 1),
        ((4, 5, 6), (2, 3, 2), (1, 2, 1), (1, 0, 1, 1, 0, 2), (1, 1, 2), 2),
    ])
]  # fmt: skip


@pytest.mark.parametrize("types", [TYPES[0], TYPES[3], TYPES[4]], ids="-".join)
@pytest.mark.parametrize(("window", "places"), GEOMETRIES)
def test_a_window_over_any_number_of_axes_means_what_its_loops_do(
    window: Window, places: tuple[int, ...], types: tuple[str, str, str]
) -> None:
    agree(window_kernel(window, places, *types))


# --- kernels that lowering makes ---


LAYERS = list(itertools.product([(1, 1), (2, 1)], [(0, 0, 0, 0), (1, 2, 0, 1)], [(1, 1), (1, 2)], [1, 2]))


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), LAYERS)
def test_convolutions_and_their_gradients_carry_their_form(
    stride: tuple[int, int], padding: tuple[int, ...], dilation: tuple[int, int], groups: int
) -> None:
    x, w = (
        gc.placeholder("float32", (2, 4, 7, 8), name="x"),
        gc.placeholder("float32", (6, 4 // groups, 3, 2), name="w"),
    )
    y = build("conv2d", x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    kernels = lowered(gc.tanh(y), *gc.gradients(gc.sum(y * y), [x, w]))
    seen = {k.form.window.result for k in kernels if k.form is not None and k.form.window is not None}
    assert seen == set(WindowResult)
    for kernel in kernels:
        agree(kernel)


def test_products_carry_their_form_through_views_prologues_and_epilogues() -> None:
    a, b = gc.placeholder("float32", (3, 4, 5), name="a"), gc.placeholder("float32", (3, 6, 5), name="b")
    v = gc.placeholder("float16", (5, 7), name="v")
    c = gc.placeholder("float32", (4, 5), name="c")
    for fetch in (gc.tanh(a @ b.transpose((0, 2, 1))) + 1, c @ v.astype("float32"), (c * 2) @ c.T):
        (kernel,) = lowered(fetch)
        agree(kernel)
    assert kernel.form is not None and kernel.form.window is None


def test_a_kernel_without_a_form_has_one_meaning() -> None:
    kernel = replace(product_kernel("float32", "float32", "float32"), form=None)
    with pytest.raises(ValueError, match="has no form"):
        run_kernel(kernel, filled(kernel), by_form=True)


# --- text -------------------------------------------------------------------------------------------------------------


def test_a_kernel_says_what_it_is() -> None:
    text = str(product_kernel("float16", "float32", "float16", turned=True))
    line = "contraction rows i1, columns i2, terms r0, batch i0: float16[i0,i1,r0] in p0 x float16[i0,i2,r0] in p1"
    assert f"\n  {line} -> float32 -> float16\n" in text
    window = Window(WindowResult.POSITION, (3, 2), (2, 1), (1, 0, 0, 2), (1, 3), 2)
    line = (
        "contraction rows i0 i2 i3, columns i1, terms r0 r1 r2, batch -, window forward 3x2 stride 2x1 padding 1,0,0,2"
    )
    operands = "float32[o0,o1,o2,o3] in p0 x float32[o0,o1,o2,o3] in p1"
    made = str(window_kernel(window, (6, 7), "float32", "float32", "float32"))
    assert f"\n  {line} dilation 1x3 groups 2: {operands} -> float32 -> float32\n" in made
    (computed,) = lowered(
        (gc.placeholder("float32", (4, 5), name="a") * 2) @ gc.placeholder("float32", (5, 3), name="b")
    )
    assert "float32[i0,r0] of p0 x float32[i1,r0] of p1" in str(computed)
