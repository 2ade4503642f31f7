"""Kernels with forms: products and windows by hand, and those that lowering makes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from backends.numpy.runtime import open_numpy
from graphcore.base.dtypes import DType, as_dtype
from graphcore.ir.graph import collect
from graphcore.kernel import expr
from graphcore.kernel.contraction import Window
from graphcore.kernel.expr import Expr
from graphcore.kernel.forms import Computed, Contraction, ContractionTypes, find_product
from graphcore.kernel.index import REDUCE, Axis, as_index, flatten
from graphcore.kernel.ir import Kernel, KernelKind, Param, Store
from passes.fusion.lower import Kernels
from passes.pipeline import compile_graph

__all__ = ["lowered", "product_kernel", "window_kernel"]


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


def lowered(*fetches: Any) -> list[Kernel]:
    """The kernels of some values that have a form."""
    graph = collect(tuple(fetches), (), ())
    made = compile_graph(graph, open_numpy("numpy:kernels").target, {}, upto=Kernels, verify=True)
    return [g.kernel for g in made.latest(Kernels).listed if g.kernel.form is not None]
