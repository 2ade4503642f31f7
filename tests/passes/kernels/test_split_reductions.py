"""Long reductions cut into parts compute what they did before, on the kernel oracle; when they are cut, and into how
many parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.kernels import compared, kernels_of, whole_numbers
from support.stages import oracle_target

import graphcore as gc
from graphcore.api.tensor import Tensor
from graphcore.base.dtypes import as_dtype, float16, float32, int32
from graphcore.kernel.expr import call, const, load, reduce
from graphcore.kernel.index import REDUCE, Axis, Dynamic, Index, as_index
from graphcore.kernel.ir import Kernel, Param, Store, verify_kernel
from graphcore.kernel.parts import Parts
from graphcore.kernel.rows import row_reductions
from graphcore.plan.target import Reject, Sharing, Target
from passes.kernels.split_reductions import cut_reductions, split_reductions

Build = Callable[..., Any]
PARTS = (1, 2, 3, 16, 64)


def one_kernel(build: Build, *operands: tuple[Any, ...], dtype: str = "float32", **sizes: int) -> Kernel:
    """The only kernel of some outputs; the operands' shapes may name symbolic extents."""
    dims = {name: gc.Dim(name) for name in sizes}
    fed = [gc.placeholder(dtype, tuple(dims.get(e, e) for e in shape)) for shape in operands]
    made = build(*fed)
    outputs: list[Tensor] = list(made) if isinstance(made, tuple) else [made]
    (kernel,) = kernels_of(outputs, fed, sizes)
    return kernel


# A name, what is built, the operands' shapes, and sizes of symbolic extents.
GRID: dict[str, tuple[Build, tuple[tuple[Any, ...], ...], dict[str, int]]] = {
    "everything": (gc.sum, ((600,),), {}),
    "a prime": (gc.sum, ((607,),), {}),
    "fewer than parts": (gc.sum, ((7,),), {}),
    "columns": (lambda x: gc.sum(x, axis=0), ((77, 12),), {}),
    "rows": (lambda x: gc.sum(x, axis=1), ((12, 77),), {}),
    "many rows": (lambda x: gc.sum(x, axis=1), ((1100, 70),), {}),
    "the middle": (lambda x: gc.sum(x, axis=1), ((3, 70, 5),), {}),
    "both ends": (lambda x: gc.sum(x, axis=(0, 2)), ((9, 4, 70),), {}),
    "with work before and after": (lambda x: gc.mean(gc.square(x) - 1.0, axis=0) * 2.0 + 1.0, ((128, 6),), {}),
    "two sums": (lambda x: (gc.sum(x), gc.sum(x * x)), ((300,),), {}),
    "a sum and an extreme": (lambda x: (gc.sum(x, axis=0), gc.max(x, axis=0)), ((90, 4),), {}),
    "elements that need no sum": (lambda x: (gc.sum(x * x), x * 2), ((301,),), {}),
    "elements that need the sum": (lambda x: (gc.sum(x), x - gc.sum(x)), ((16, 20),), {}),
    "elements of both sorts": (lambda x: (gc.sum(x), x - gc.sum(x), x * 2), ((16, 19),), {}),
    "elements of rows that need their sums": (lambda x: x - gc.sum(x, axis=1, keepdims=True), ((5, 64),), {}),
    "a product": (lambda x, y: gc.relu(gc.matmul(x, y)), ((5, 61), (61, 4)), {}),
    "a product of a vector": (lambda x, y: gc.matmul(x, y), ((5, 61), (61,)), {}),
    "a batch": (gc.sum, (("n", 6),), {"n": 50}),
    "columns of a batch": (lambda x: gc.max(x, axis=0) + 1, (("n", 8),), {"n": 61}),
    "a batch of one": (lambda x: gc.sum(x, axis=0), (("n", 3),), {"n": 1}),
    "no batch": (lambda x: gc.sum(x, axis=0), (("n", 3),), {"n": 0}),
    "rows of a batch": (lambda x: gc.sum(x, axis=1), (("n", 64),), {"n": 9}),
    "rows of no batch": (lambda x: gc.sum(x, axis=1), (("n", 64),), {"n": 0}),
    "a batch with its sum": (lambda x: (gc.sum(x), x - gc.sum(x)), (("n", 6),), {"n": 30}),
}


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("name", GRID)
def test_parts_of_sums_are_exact_where_sums_are(name: str, parts: int) -> None:
    build, shapes, sizes = GRID[name]
    kernel = one_kernel(build, *shapes, **sizes)
    made = cut_reductions(kernel, parts, sizes)
    assert len(made.workspaces) >= len(row_reductions(kernel)), "nothing was cut"
    compared(made, whole_numbers(kernel, sizes), sizes).exactly()


@pytest.mark.parametrize("parts", (2, 5))
@pytest.mark.parametrize(
    ("reducer", "dtype", "among"),
    [
        (gc.sum, "int64", (-9, 3, 2**40)),
        (gc.sum, "int8", (-9, 3, 120)),  # wraps around
        (gc.prod, "float32", (1, -1, 2)),
        (gc.prod, "int32", (1, -1, 3)),
        (gc.max, "float32", (-7, -5, -1)),  # a padding zero would win
        (gc.min, "float32", (7, 5, 1)),
        (gc.max, "int32", (-7, -5, -1)),
        (gc.min, "uint8", (7, 5, 200)),
        (gc.all, "bool", (0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)),
        (gc.any, "bool", (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)),
    ],
)
@pytest.mark.parametrize(("shape", "sizes"), [((41, 3), {}), (("n", 3), {"n": 41}), (("n", 3), {"n": 2})])
def test_every_monoid(
    reducer: Build, dtype: str, among: tuple[int, ...], shape: tuple[Any, ...], sizes: dict[str, int], parts: int
) -> None:
    kernel = one_kernel(lambda x: reducer(x, axis=0), shape, dtype=dtype, **sizes)
    compared(cut_reductions(kernel, parts, sizes), whole_numbers(kernel, sizes, among=among), sizes).exactly()


def test_nan_and_infinity_come_through() -> None:
    kernel = one_kernel(lambda x: (gc.sum(x, axis=0), gc.max(x, axis=0), gc.min(x, axis=0)), (43, 4))
    arrays = whole_numbers(kernel, {})
    (x,) = (a for a in arrays if a.size == 43 * 4)
    x[[4 * 7, 4 * 40 + 1, 4 * 42 + 2]] = np.nan, np.inf, -np.inf
    compared(cut_reductions(kernel, 6, {}), arrays, {}).exactly()


@pytest.mark.parametrize("parts", (2, 7, 64))
def test_sums_of_any_numbers_are_as_near_as_sums_in_order(parts: int) -> None:
    """Each term passes two sums instead of one: the error bound of n terms holds for parts and their combination."""
    length = 5000
    kernel = one_kernel(gc.sum, (length,))
    x = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    arrays = [x if p.size == length else np.zeros(1, np.float32) for p in kernel.params]
    made = compared(cut_reductions(kernel, parts, {}), arrays, {})
    (found,) = made.found.values()
    assert abs(found[0] - x.astype(np.float64).sum()) <= length * 2.0**-24 * np.abs(x.astype(np.float64)).sum()


def test_a_program_compiled_for_one_batch_is_right_for_another() -> None:
    kernel = one_kernel(lambda x: (gc.sum(x, axis=0), gc.prod(x, axis=0)), ("n", 4), n=500)
    parts = cut_reductions(kernel, 8, {"n": 500})
    for n in (500, 0, 1, 7, 8, 9, 1000):
        compared(parts, whole_numbers(kernel, {"n": n}, among=(-1, 1)), {"n": n}).exactly()


def test_the_order_of_sums_follows_from_extents_and_parts_alone() -> None:
    first, second = (cut_reductions(one_kernel(lambda x: gc.sum(x, axis=0), (999, 12)), 16, {}) for _ in range(2))
    assert str(first) == str(second)
    blocks = [p.kernel.axes[0].extent for p in first.parts[:1]]
    assert blocks == [9], "999 terms in at most 16 blocks: the most that divide them"


# --- when -------------------------------------------------------------------------------------------------------------


def asked(sharing: Sharing | None) -> Target:
    return replace(oracle_target(), shares=lambda kernel, sizes: sharing)


def blocks(made: Parts | Reject) -> int:
    assert isinstance(made, Parts), made
    return int(made.parts[0].kernel.axes[0].extent)


def test_the_number_of_parts_is_what_helps_within_what_is_worth_it() -> None:
    kernel = one_kernel(gc.sum, (2**14,))
    assert blocks(split_reductions(kernel, asked(Sharing(8, 256, 1.0)), {})) == 8
    assert blocks(split_reductions(kernel, asked(Sharing(64, 2**11, 1.0)), {})) == 8  # 2^14 / 2^11
    assert blocks(split_reductions(kernel, asked(Sharing(10**6, 1, 1.0)), {})) == 256
    few = asked(Sharing(8, 2**14, 1.0))
    busy = asked(Sharing(1, 256, 1.0))
    costs = oracle_target().costs
    least = costs.launch_seconds + costs.level_seconds
    assert isinstance(split_reductions(kernel, asked(Sharing(8, 256, 1.01 * least)), {}), Parts)
    cheap = asked(Sharing(8, 256, 0.99 * least))
    for target in (few, busy, cheap, asked(None), oracle_target()):
        assert isinstance(split_reductions(kernel, target, {}), Reject)


R, Q = Axis("r0", 600, REDUCE), Axis("r1", 600, REDUCE)
PLACE = as_index(Dynamic(load(1, as_index(R), int32), 600))
ADDED = reduce("add", (R,), load(0, as_index(R), float32))
REFUSED: dict[str, tuple[Store, ...]] = {
    "it has no reductions": (Store(2, Index(0), const(1, float32)),),
    "not sums": (Store(3, Index(0), reduce("argmax", (R,), load(0, as_index(R), float32))),),
    "over different axes": (
        Store(2, Index(0), call("mul", ADDED, reduce("add", (Q,), load(0, as_index(Q), float32)))),
    ),
    "a reduction needs another one": (
        Store(2, Index(0), reduce("add", (R,), call("sub", load(0, as_index(R), float32), ADDED))),
    ),
    "it gathers": (Store(2, Index(0), reduce("add", (R,), load(0, PLACE, float32))),),
    "it scatters": (Store(2, Index(0), ADDED, "add"),),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_cut_says_why(reason: str) -> None:
    params = (("float32", 600), ("int32", 600), ("float32", 600), ("int64", 1))
    kernel = Kernel(
        "by_hand",
        tuple(Param(f"p{i}", as_dtype(dtype), (extent,)) for i, (dtype, extent) in enumerate(params)),
        (),
        REFUSED[reason],
    )
    verify_kernel(kernel)
    answer = split_reductions(kernel, asked(Sharing(8, 1, 1.0)), {})
    assert isinstance(answer, Reject) and reason in answer.reason, answer


def test_sums_in_half_types_are_not_cut() -> None:
    """Where every addition is rounded, another order is another result far outside of the sum's own error."""
    total = reduce("add", (R,), load(0, as_index(R), float16))
    params = (Param("p0", float16, (600,)), Param("p1", float16, ()))
    kernel = Kernel("halves", params, (), (Store(1, Index(0), total),))
    assert isinstance(split_reductions(kernel, asked(Sharing(8, 1, 1.0)), {}), Reject)


def test_reports_count_the_whole_kernel_once() -> None:
    made = split_reductions(one_kernel(gc.sum, (2**14,)), asked(Sharing(8, 256, 1.0)), {})
    assert isinstance(made, Parts)
    assert [p.helper for p in made.parts] == [True, False]
    assert [p.counted for p in made.parts] == [None, made.whole]
    assert made.reasons and "16384 terms" in made.reasons[0]
