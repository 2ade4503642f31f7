"""The rules of contractions: each field of a valid one, corrupted, is an error that names it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
from support.form_kernels import lowered, product_kernel

import graphcore as gc
from graphcore.api.operands import build
from graphcore.base.dtypes import as_dtype
from graphcore.base.errors import VerifyError
from graphcore.kernel import expr
from graphcore.kernel.contraction import Window, WindowResult
from graphcore.kernel.expr import Expr
from graphcore.kernel.forms import Computed, Contraction, ContractionTypes
from graphcore.kernel.index import REDUCE, Axis, as_index, flatten
from graphcore.kernel.ir import Kernel, verify_kernel


def with_form(kernel: Kernel, **changes: Any) -> Kernel:
    """A kernel whose form has other fields."""
    assert isinstance(kernel.form, Contraction)
    return replace(kernel, form=replace(kernel.form, **changes))


def shifted(value: Expr) -> Expr:
    """A value made of the elements beside its own."""

    def moved(e: Expr, args: tuple[Expr, ...]) -> Expr | None:
        return expr.load(e.param, e.index + 1, e.dtype, *args) if e.fn == "load" else None

    return expr.transform(value, moved)


def corrupted_products() -> Iterator[tuple[str, Kernel, str]]:
    """Every field of a product that is wrong, and what names it."""
    kernel = product_kernel("float16", "float32", "float16")
    form = kernel.form
    assert isinstance(form, Contraction)
    (b,), (i,), (j,) = form.batch, form.rows, form.columns
    left, right, half = form.left, form.right, as_dtype("float16")
    other, alike = expr.load(0, flatten((as_index(b), as_index(i)), (3, 4)), half), Axis("r7", 5, REDUCE)
    yield "rows that are columns", with_form(kernel, rows=(j,), columns=(i,)), "rows have"
    yield "rows that are in the batch", with_form(kernel, rows=(), batch=(b, i)), "batch have"
    yield "a batch that is rows", with_form(kernel, rows=(b, i), batch=()), "rows have"
    yield "columns that are in the batch", with_form(kernel, columns=(), batch=(b, j)), "batch have"
    yield "a batch that is columns", with_form(kernel, columns=(b, j), batch=()), "columns have"
    yield "two roles", with_form(kernel, rows=(i, j)), "give i2 two roles"
    yield "rows of others", with_form(kernel, rows=(Axis("i9", 4),)), "rows, columns and batch are"
    yield "no columns", with_form(kernel, columns=()), "rows, columns and batch are"
    yield "no batch", with_form(kernel, batch=()), "rows, columns and batch are"
    yield "terms of others", with_form(kernel, terms=(Axis("r5", 5, REDUCE),)), "terms are"
    yield "no terms", with_form(kernel, terms=()), "terms are"
    yield (
        "a window",
        with_form(kernel, window=Window(WindowResult.TAP, (1,), (1,), (0, 0), (1,), 1)),
        "rows, columns and batch are",
    )
    yield "operands that are swapped", with_form(kernel, left=right, right=left), "left operand is"
    yield (
        "another element",
        with_form(kernel, left=replace(left, value=expr.call("neg", left.value))),
        "left operand is",
    )
    lacking = Computed(other, (b, i), (3, 4))
    yield "an element of less", with_form(kernel, left=lacking), "left operand is"
    moved = replace(right, value=expr.load(1, right.value.index + 1, half))
    yield "an element beside it", with_form(kernel, right=moved), "right operand is"
    unknown = replace(left, value=expr.load(7, left.value.index, half))
    yield "an unknown parameter", with_form(kernel, left=unknown), "left operand is"
    yield "axes of less", with_form(kernel, left=replace(left, axes=left.axes[1:])), "left operand depends on axes"
    yield "axes of more", with_form(kernel, left=replace(left, axes=(*left.axes, alike))), "left operand of the shape"
    double = replace(right, axes=(*right.axes, Axis("u", 1)))
    yield "an axis of one", with_form(kernel, right=double), "right operand is walked over"
    yield "a shape", with_form(kernel, left=replace(left, shape=(2, 2, 2))), "left operand of the shape"
    yield "a shape of as many", with_form(kernel, right=replace(right, shape=(5, 3, 6))), "right operand of the shape"
    yield "the stores' value", with_form(kernel, result=kernel.stores[0].value), "result is no sum of products"
    yield "the sum for its conversion", with_form(kernel, result=form.total), "types say that result"
    for name, wrong in (("left", "float32"), ("right", "bfloat16"), ("accumulator", "float64"), ("result", "float32")):
        types = replace(form.types, **{name: as_dtype(wrong)})
        yield f"types: {name}", with_form(kernel, types=types), f"types say that {name} is {wrong}"
    (store,) = kernel.stores
    beside = replace(kernel, stores=(replace(store, index=store.index.without((j,))),))
    yield "an index without columns", beside, "lacks i2, rows, columns or batch"
    batch = replace(kernel, stores=(replace(store, index=store.index.without((b, i))),))
    yield "an index without rows and batch", batch, "lacks i0, i1, rows, columns or batch"


def corrupted_windows() -> Iterator[tuple[str, Kernel, str]]:
    """Every field of windows of all three results that is wrong, and what names it."""
    x, w = gc.placeholder("float32", (2, 4, 9, 8), name="x"), gc.placeholder("float32", (6, 2, 3, 2), name="w")
    y = build("conv2d", x, w, stride=(2, 1), padding=(2, 1, 0, 1), dilation=(1, 2), groups=2)
    kernels = lowered(y, *gc.gradients(gc.sum(y * y), [x, w]))
    assert {k.form.window.result for k in kernels if k.form is not None and k.form.window is not None} == {
        *WindowResult
    }
    for kernel in kernels:
        form = kernel.form
        assert isinstance(form, Contraction) and form.window is not None
        window, name = form.window, form.window.result.name
        changes: dict[str, list[tuple[Any, str]]] = {
            "taps": [((3, 3), "taps"), ((3, 2, 1), "do not fit a window of 3"), ((0, 2), "window")],
            "stride": [((1, 1), "stride"), ((2, 2), "stride"), ((2,), "stride"), ((0, 1), "stride")],
            "padding": [
                ((1, 2, 0, 1), "padding"),
                ((2, 1, 1, 0), "padding"),
                ((2, 1, 1, 1), "padding"),
                ((2, 1), "padding"),
            ],
            "dilation": [((1, 1), "dilation"), ((2, 2), "dilation"), ((1, 0), "dilation"), ((1,), "dilation")],
            "groups": [(1, "groups"), (4, "groups"), (0, "groups")],
            "result": [(other, "window|terms") for other in WindowResult if other is not window.result],
        }
        for field, wrong in changes.items():
            for value, words in wrong:
                made = with_form(kernel, window=replace(window, **{field: value}))
                yield f"{name} {field} {value}", made, words
        yield f"{name} without a window", with_form(kernel, window=None), "left operand"
        yield f"{name} terms", with_form(kernel, terms=form.terms[::-1]), "terms are"
        yield f"{name} columns", with_form(kernel, columns=()), "rows or columns are missing"
        turned = form.rows[::-1] if len(form.rows) > 1 else form.rows
        axes = with_form(kernel, rows=turned, columns=form.columns if turned != form.rows else form.columns[::-1])
        yield f"{name} rows", axes, "operand|window"
        yield f"{name} batch", with_form(kernel, rows=form.rows[:-1], batch=form.rows[-1:]), "rows|batch"
        for side in ("left", "right"):
            operand = form.left if side == "left" else form.right
            beside = replace(operand, value=shifted(operand.value))
            yield f"{name} {side} value", with_form(kernel, **{side: beside}), f"{side} operand"
            turned_axes = replace(operand, axes=(operand.axes[1], operand.axes[0], *operand.axes[2:]))
            yield f"{name} {side} axes", with_form(kernel, **{side: turned_axes}), f"{side} operand"
            less = replace(operand, shape=operand.shape[:-1])
            yield f"{name} {side} shape", with_form(kernel, **{side: less}), f"{side} operand of the shape"


CORRUPTED = [*corrupted_products(), *corrupted_windows()]


def test_every_field_is_corrupted() -> None:
    told = " ".join(what for what, _, _ in CORRUPTED) + " left right"
    for kind in (Window, ContractionTypes):
        assert all(f.name in told for f in fields(kind))


@pytest.mark.parametrize(("what", "kernel", "words"), CORRUPTED, ids=[c[0] for c in CORRUPTED])
def test_a_corrupted_field_is_named(what: str, kernel: Kernel, words: str) -> None:
    with pytest.raises(VerifyError, match=words):
        verify_kernel(kernel)
