"""Sums over a product's elements, gathered by blocks or apart, are what the whole kernel computes, on the kernel
oracle; and which of the two is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product as combinations
from typing import Any

import numpy as np
import pytest
from support.kernels import compared, kernels_of, whole_numbers
from support.stages import oracle_target

import graphcore as gc
from backends.opencl.target import make_target
from benchmarks.golden import DEVICES
from graphcore.ir.graph import Graph
from graphcore.kernel.expr import dynamic_values
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel, KernelKind
from graphcore.kernel.parts import Parts
from graphcore.plan.target import Reject, Target
from passes.fusion.lower import Kernels, Lower
from passes.kernels.product_sums import gathered_by_blocks, product_sums, summed_apart
from passes.pipeline import compile_graph

Build = Callable[..., list[Any]]

# A name, what is built, the operands' shapes, and sizes of symbolic extents.
GRID: dict[str, tuple[Build, tuple[tuple[Any, ...], ...], dict[str, int]]] = {
    "a sum of columns": (lambda a, b: [a @ b, gc.sum(a @ b, axis=0)], ((13, 7), (7, 5)), {}),
    "the sum alone": (lambda a, b: [gc.sum(a @ b, axis=0)], ((13, 7), (7, 5)), {}),
    "of an epilogue": (
        lambda a, b, m: [gc.relu(a @ b), gc.sum(gc.relu(a @ b) * m, axis=0)],
        ((13, 7), (7, 5), (13, 5)),
        {},
    ),
    "two sums and work on them": (
        lambda a, b: [a @ b, gc.sum(a @ b, axis=0) * 2 + 1, gc.sum(gc.square(a @ b), axis=0)],
        ((8, 6), (6, 9)),
        {},
    ),
    "one row": (lambda a, b: [a @ b, gc.sum(a @ b, axis=0)], (("n", 7), (7, 5)), {"n": 1}),
    "no row": (lambda a, b: [a @ b, gc.sum(a @ b, axis=0)], (("n", 7), (7, 5)), {"n": 0}),
    "rows of a batch": (lambda a, b: [a @ b, gc.sum(a @ b, axis=0)], (("n", 7), (7, 5)), {"n": 11}),
    "a batch, summed whole": (lambda a, b: [a @ b, gc.sum(a @ b, axis=(0, 1))], ((3, 4, 6), (3, 6, 5)), {}),
    "a turned result": (lambda a, b: [(a @ b).T, gc.sum(a @ b, axis=0)], ((6, 3), (3, 8)), {}),
    "a channel's pixels": (
        lambda x, f: [gc.functional.conv.conv2d(x, f), gc.sum(gc.functional.conv.conv2d(x, f), axis=(0, 2, 3))],
        ((3, 2, 6, 7), (4, 2, 3, 3)),
        {},
    ),
}


def one_product(name: str) -> tuple[Kernel, dict[str, int]]:
    """The kernel of a case that makes its product and the sums."""
    build, shapes, sizes = GRID[name]
    dims = {n: gc.Dim(n) for n in sizes}
    fed = [gc.placeholder("float32", tuple(dims.get(e, e) for e in shape)) for shape in shapes]
    made = [k for k in kernels_of(build(*fed), fed, sizes) if k.kind is KernelKind.CONTRACT]
    assert len(made) == 1 and sums_of(made[0]), f"{name}: the sums are not gathered"
    return made[0], sizes


def sums_of(kernel: Kernel) -> list[Any]:
    return [v for v in kernel.values() if v.fn == "reduce" and set(v.reduce_axes) & set(kernel.axes)]


def ways(kernel: Kernel) -> Iterator[dict[Axis, int | None]]:
    """Blocks of one element, some and all, over some of the axes that all sums take: the second kernel sums over the
    others."""
    shared = set.intersection(*(set(r.reduce_axes) for r in sums_of(kernel)))
    axes = [a for a in kernel.axes if a in shared]
    for extents in combinations((1, 2, 5, None, 0), repeat=len(axes)):
        yield {a: e for a, e in zip(axes, extents, strict=True) if e != 0}


@pytest.mark.parametrize("name", GRID)
def test_blocks_of_any_extent_add_up_to_the_sums(name: str) -> None:
    kernel, sizes = one_product(name)
    arrays = whole_numbers(kernel, sizes)
    count = 0
    for blocks in ways(kernel):
        made = gathered_by_blocks(kernel, blocks)
        assert gathers(made.parts[0].kernel)
        compared(made, arrays, sizes).exactly()
        count += 1
    assert count in (5, 25, 125)


@pytest.mark.parametrize("name", GRID)
def test_sums_apart_are_the_sums(name: str) -> None:
    kernel, sizes = one_product(name)
    made = summed_apart(kernel)
    assert not sums_of(made.parts[0].kernel), "the product still sums its elements"
    compared(made, whole_numbers(kernel, sizes), sizes).exactly()


def test_a_program_compiled_for_one_batch_is_right_for_another() -> None:
    kernel, _ = one_product("rows of a batch")
    (row,) = sums_of(kernel)[0].reduce_axes
    for made in (gathered_by_blocks(kernel, {row: 4}), summed_apart(kernel)):
        for n in (11, 0, 1, 3, 4, 5, 40):
            compared(made, whole_numbers(kernel, {"n": n}), {"n": n}).exactly()


def test_what_indices_name_is_read_from_the_parameters_of_the_part() -> None:
    """The second kernel has fewer parameters than the whole one: the indices' has another position."""
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    shapes = (("float32", (50, 64)), ("int32", (512,)), ("float32", (64, 96)), ("float32", (96,)), ("int32", (96,)))
    table, rows, b, c, at = fed = [gc.placeholder(*one) for one in shapes]
    y = gc.take(table, rows, axis=0) @ b
    graph = Graph((y, gc.take(c, at, axis=0) * gc.sum(y, axis=0)), (), tuple(fed))
    made = compile_graph(graph, make_target(DEVICES["intel"]), {}, upto=Lower.name)
    (kernel,) = [k.kernel for k in made.latest(Kernels).listed if k.kernel.kind is KernelKind.CONTRACT]
    (row,) = sums_of(kernel)[0].reduce_axes
    gathered = [v for v in kernel.values() if v.fn == "load" and any(True for _ in dynamic_values(v.index))]
    assert len(gathered) == 2
    for parts in (gathered_by_blocks(kernel, {row: 64}), summed_apart(kernel)):
        compared(parts, whole_numbers(kernel, {}), {}).exactly()


def test_sums_of_any_numbers_are_as_near_as_sums_in_order() -> None:
    """The error bound of a sum of so many terms holds for the blocks' sums and their sum."""
    kernel, sizes = one_product("a sum of columns")
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(a.size).astype(np.float32) for a in whole_numbers(kernel, sizes)]
    (row,) = sums_of(kernel)[0].reduce_axes
    compared(gathered_by_blocks(kernel, {row: 4}), arrays, sizes).within(13 * 7 * 2.0**-22)


def test_a_kernel_without_such_sums_is_refused() -> None:
    x = gc.placeholder("float32", (6, 5))
    (kernel,) = kernels_of([gc.sum(x, axis=0)], [x])
    for cut in (summed_apart, lambda k: gathered_by_blocks(k, {})):
        with pytest.raises(ValueError, match="it makes no product"):
            cut(kernel)


# --- which ------------------------------------------------------------------------------------------------------------


def asked(blocks: Callable[[Kernel], Mapping[Axis, int | None] | None]) -> Target:
    return replace(oracle_target(), blocks=lambda kernel, sizes: blocks(kernel))


def gathers(kernel: Kernel) -> bool:
    return any(s.mode == "add" for s in kernel.stores)


def test_an_epilogue_gathers_where_it_can() -> None:
    kernel, sizes = one_product("two sums and work on them")
    (row,) = sums_of(kernel)[0].reduce_axes
    made = product_sums(kernel, asked(lambda k: {row: 2}), sizes)
    assert isinstance(made, Parts) and gathers(made.parts[0].kernel)
    assert [p.helper for p in made.parts] == [False, False] and all(p.counted is p.kernel for p in made.parts)
    assert "in its epilogue" in made.reasons[0]
    other = next(a for a in kernel.axes if a != row)
    refusals: dict[str, Callable[[Kernel], Mapping[Axis, int | None] | None]] = {
        "gathers nothing": lambda k: None,
        "more than a sum takes": lambda k: {row: 2, other: None},
        "would have other blocks": lambda k: {row: 4 if gathers(k) else 2},
    }
    for reason, answer in refusals.items():
        made = product_sums(kernel, asked(answer), sizes)
        assert isinstance(made, Parts) and not gathers(made.parts[0].kernel) and reason in made.reasons[0]


def test_sums_of_another_type_are_apart() -> None:
    a, b = gc.placeholder("float32", (9, 4)), gc.placeholder("float32", (4, 5))
    kernels = kernels_of([a @ b, gc.sum((a @ b).astype("float64"), axis=0)], [a, b])
    kernel = next(k for k in kernels if k.kind is KernelKind.CONTRACT and sums_of(k))
    (row,) = sums_of(kernel)[0].reduce_axes
    made = product_sums(kernel, asked(lambda k: {row: 2}), {})
    assert isinstance(made, Parts) and not gathers(made.parts[0].kernel) and "another type" in made.reasons[0]
    compared(made, whole_numbers(kernel, {}), {}).exactly()


def test_devices_that_cut_nothing_and_loops_of_64_bits_keep_the_kernel() -> None:
    kernel, sizes = one_product("rows of a batch")
    assert isinstance(product_sums(kernel, oracle_target(), sizes), Reject)
    (row,) = sums_of(kernel)[0].reduce_axes
    target = asked(lambda k: {row: 2})
    assert isinstance(product_sums(kernel, target, sizes), Parts)
    assert isinstance(product_sums(kernel, target, {"n": 2**31}), Reject)
