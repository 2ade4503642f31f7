"""Forms beside the loops that they stand for: equal numbers on the kernel oracle, and rules that broken ones break."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphcore as gc
from backends.numpy.runtime import open_numpy
from graphcore.api.operands import build
from graphcore.base.dtypes import DType, as_dtype
from graphcore.base.errors import VerifyError
from graphcore.ir.graph import collect
from graphcore.kernel import expr
from graphcore.kernel.contraction import Window, WindowResult
from graphcore.kernel.expr import Expr
from graphcore.kernel.forms import Computed, Contraction, ContractionTypes, find_product
from graphcore.kernel.index import REDUCE, Axis, Index, as_index, flatten
from graphcore.kernel.interpret import run_kernel
from graphcore.kernel.ir import Kernel, KernelKind, Param, Store, verify_kernel
from passes.fusion.lower import Kernels
from passes.pipeline import compile_graph

# --- kernels by hand --------------------------------------------------------------------------------------------------


def wide(left: Expr, right: Expr, accumulator: DType) -> Expr:
    return expr.call("mul", expr.cast(left, accumulator), expr.cast(right, accumulator))


def product_kernel(operand: str, accumulator: str, result: str, turned: bool = False, batch: int = 3) -> Kernel:
    """A batch of (4, 5) by (5, 6), with an epilogue that adds one."""
    own, adds, made = map(as_dtype, (operand, accumulator, result))
    b, i, j, k = Axis("i0", batch), Axis("i1", 4), Axis("i2", 6), Axis("r0", 5, REDUCE)
    at_b, at_i, at_j, at_k = map(as_index, (b, i, j, k))
    right = (at_b, at_j, at_k) if turned else (at_b, at_k, at_j)
    shape = (batch, 6, 5) if turned else (batch, 5, 6)
    loads = (
        expr.load(0, flatten((at_b, at_i, at_k), (batch, 4, 5)), own),
        expr.load(1, flatten(right, shape), own),
    )
    total = expr.cast(expr.total((k,), wide(*loads, adds)), made)
    store = Store(2, flatten((at_b, at_i, at_j), (batch, 4, 6)), expr.call("add", total, expr.const(1, made)))
    params = Param("p0", own, (batch, 4, 5)), Param("p1", own, shape), Param("p2", made, (batch, 4, 6))
    kernel = Kernel("product", params, (b, i, j), (store,), KernelKind.CONTRACT)
    return replace(kernel, form=find_product(kernel.axes, kernel.values()))


def window_kernel(window: Window, places: tuple[int, ...], operand: str, accumulator: str, result: str) -> Kernel:
    """Two images of four channels under a window over as many axes as there are places, into six channels."""
    own, adds, made = map(as_dtype, (operand, accumulator, result))
    rank, each, outputs = len(places), 4 // window.groups, 6
    counts = tuple(int(window.positions(axis, e)) for axis, e in enumerate(places))  # type: ignore[call-overload]
    images, weights, results = (2, 4, *places), (outputs, each, *window.taps), (2, outputs, *counts)
    row, column, *positions = axes = tuple(Axis(f"i{n}", e) for n, e in enumerate(results))
    channel, *taps = terms = tuple(Axis(f"r{n}", e, REDUCE) for n, e in enumerate(weights[1:]))
    at = [
        as_index(position) * stride + as_index(tap) * dilation - low
        for position, tap, stride, dilation, low in zip(
            positions, taps, window.stride, window.dilation, window.padding[0::2], strict=True
        )
    ]
    guard: Expr | None = None
    for index, extent in zip(at, places, strict=True):
        inside = expr.in_range(index, 0, extent)
        guard = inside if guard is None else expr.both(guard, inside)
    group = as_index(column) // (outputs // window.groups)
    source = (as_index(row), group * each + as_index(channel), *at)
    loads = (
        expr.load(0, flatten(source, images), own, guard),
        expr.load(1, flatten((as_index(column), *map(as_index, terms)), weights), own),
    )
    total = expr.cast(expr.total(terms, wide(*loads, adds)), made)

    def whole(param: int, shape: tuple[int, ...]) -> Computed:
        walk = tuple(Axis(f"o{n}", e) for n, e in enumerate(shape))
        return Computed(expr.load(param, flatten(tuple(map(as_index, walk)), shape), own), walk, shape)

    form = Contraction(
        (row, *positions), (column,), terms, (), whole(0, images), whole(1, weights), total,
        ContractionTypes(own, own, adds, made), window,
    )  # fmt: skip
    params = Param("p0", own, images), Param("p1", own, weights), Param("p2", made, results)
    store = Store(2, flatten(tuple(map(as_index, axes)), results), expr.call("mul", total, expr.const(2, made)))
    assert rank == len(window.taps)
    return Kernel("window", params, axes, (store,), KernelKind.CONTRACT, form=form)


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


def lowered(*fetches: Any) -> list[Kernel]:
    graph = collect(tuple(fetches), (), ())
    made = compile_graph(graph, open_numpy("numpy:kernels").target, {}, upto=Kernels, verify=True)
    return [g.kernel for g in made.latest(Kernels).listed if g.kernel.form is not None]


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


# --- rules ------------------------------------------------------------------------------------------------------------


def test_broken_forms_are_refused() -> None:
    kernel = product_kernel("float32", "float32", "float32")
    form = kernel.form
    assert form is not None
    other = Axis("i9", 4)
    conv = window_kernel(GEOMETRIES[2].values[0], (6, 7), "float32", "float32", "float32")  # type: ignore[arg-type]
    window = conv.form.window if conv.form is not None else None
    assert conv.form is not None and window is not None
    stray = Computed(expr.load(7, Index(0), as_dtype("float32")), form.left.axes, form.left.shape)
    broken = {
        "two roles": (kernel, replace(form, rows=form.columns)),
        "is over": (kernel, replace(form, rows=(other,))),
        "sums over": (kernel, replace(form, terms=(Axis("r5", 5, REDUCE),))),
        "it has": (kernel, replace(form, types=replace(form.types, accumulator=as_dtype("float64")))),
        "no sum of products": (kernel, replace(form, result=kernel.stores[0].value)),
        "not its own": (kernel, replace(form, left=replace(form.left, axes=form.left.axes[1:]))),
        "do not walk": (kernel, replace(form, left=replace(form.left, shape=(2, 2, 2)))),
        "axes of the other one": (kernel, replace(form, left=form.right, right=form.left)),
        "which no parameter is": (kernel, replace(form, left=stray)),
        "do not fit Window": (conv, replace(conv.form, window=replace(window, stride=(2, 1)))),
        "do not fit a window of": (conv, replace(conv.form, window=replace(window, taps=(3, 2, 1)))),
    }
    for words, (made, form_of) in broken.items():
        with pytest.raises(VerifyError, match=words):
            verify_kernel(replace(made, form=form_of))


def test_a_kernel_without_a_form_has_one_meaning() -> None:
    kernel = replace(product_kernel("float32", "float32", "float32"), form=None)
    with pytest.raises(ValueError, match="has no form"):
        run_kernel(kernel, filled(kernel), by_form=True)
