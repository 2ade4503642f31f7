"""Sums over what indices name, in buckets: the same numbers on the kernel oracle, and when kernels are rewritten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.kernels import compared, kernels_of
from support.stages import oracle_target
from support.values import computed

import graphcore as gc
from graphcore.base.dtypes import float32, int32
from graphcore.base.shapes import bind
from graphcore.kernel.buckets import find_bucket_sums, find_order, in_bucket
from graphcore.kernel.expr import Expr, call, cast, const, index_value, load, reduce
from graphcore.kernel.index import REDUCE, Axis, Index, as_index
from graphcore.kernel.indexed_sums import find_indexed_sums
from graphcore.kernel.interpret import run_kernel
from graphcore.kernel.ir import Kernel, Param, Store
from graphcore.kernel.parts import Parts
from graphcore.plan.target import Reject, Target
from passes.kernels.bucket_sums import bucket_sums, summed_by_row

Build = Callable[..., Any]
ROWS = 7


def slope(table: Any, *looked_up: Any) -> Any:
    """The gradient of a table by the sum of some values."""
    return gc.gradients(sum((v.sum() for v in looked_up[1:]), looked_up[0].sum()), [table])[0]


# A name, what is built of placeholders, their types and shapes, and sizes of symbolic extents.
GRID: dict[str, tuple[Build, tuple[tuple[str, tuple[Any, ...]], ...], dict[str, int]]] = {
    "rows": (
        lambda x, k, w: gc.index_add(x, 0, computed(k), w),
        (("float32", (ROWS, 3)), ("int64", (11,)), ("float32", (11, 3))),
        {},
    ),
    "numbers": (
        lambda x, k, w: gc.index_add(x, 0, computed(k), w),
        (("int32", (ROWS,)), ("int32", (30,)), ("int32", (30,))),
        {},
    ),
    "halves": (
        lambda x, k, w: gc.index_add(x, 0, computed(k), w),
        (("float16", (ROWS, 2)), ("int8", (13,)), ("float16", (13, 2))),
        {},
    ),
    "columns": (
        lambda x, k, w: gc.index_add(x, 1, computed(k), w),
        (("float32", (4, ROWS)), ("uint8", (9,)), ("float32", (4, 9))),
        {},
    ),
    "the middle": (
        lambda x, k, w: gc.index_add(x, 1, computed(k), w) * 2.0,
        (("float64", (2, ROWS, 3)), ("uint64", (6,)), ("float64", (2, 6, 3))),
        {},
    ),
    "a gradient": (
        lambda x, k, w: slope(x, gc.take(x, computed(k), axis=0) * w),
        (("float32", (ROWS, 3)), ("int64", (2, 8)), ("float32", (2, 8, 3))),
        {},
    ),
    "how often": (
        lambda x, k: slope(x, gc.take(x, computed(k), axis=0)),
        (("float32", (ROWS, 3)), ("int64", (12,))),
        {},
    ),
    "chosen by others": (
        lambda x, k, j, w: slope(x, gc.take(x, gc.take(computed(k), computed(j)), axis=0) * w),
        (("float32", (ROWS, 3)), ("int64", (5,)), ("int32", (9,)), ("float32", (9, 3))),
        {},
    ),
    "a batch": (
        lambda x, k, w: slope(x, gc.take(x, computed(k), axis=0) * w),
        (("float32", (ROWS, 3)), ("int64", ("n", 4)), ("float32", ("n", 4, 3))),
        {"n": 5},
    ),
    "no batch": (
        lambda x, k, w: gc.index_add(x, 0, computed(k), w),
        (("float32", (ROWS, 3)), ("int64", ("n",)), ("float32", ("n", 3))),
        {"n": 0},
    ),
    "a table of a batch": (
        lambda x, k, w: gc.index_add(x, 0, computed(k), w),
        (("float32", ("n", 3)), ("int64", (9,)), ("float32", (9, 3))),
        {"n": ROWS},
    ),
}


def kernel_of(name: str) -> tuple[Kernel, dict[str, int]]:
    """The kernel with a grid's sums, as it was lowered."""
    build, operands, sizes = GRID[name]
    dims = {name: gc.Dim(name) for name in sizes}
    fed = [gc.placeholder(dtype, tuple(dims.get(e, e) for e in shape)) for dtype, shape in operands]
    made = build(*fed)
    kernels = kernels_of(list(made) if isinstance(made, tuple) else [made], fed, sizes)
    (kernel,) = [k for k in kernels if not isinstance(find_indexed_sums(k), str)]
    return kernel, sizes


def drawn(kernel: Kernel, sizes: dict[str, int], seed: int = 0) -> list[Any]:
    """Small whole numbers for every parameter: their sums are exact. Of those that are indices some name no row."""
    rng = np.random.default_rng(seed)
    arrays = []
    for p in kernel.params:
        low = 0 if p.dtype.is_unsigned else -ROWS - 2
        arrays.append(rng.integers(low, ROWS + 3, int(bind(p.size, sizes))).astype(p.dtype.storage))
    return arrays


def by_hand(other: int) -> Kernel:
    """A product of two sums by row, whose rows are the numbers in the first parameter and in another one."""
    row, inner, point = Axis("i0", ROWS), Axis("i1", 3), Axis("r0", 11, REDUCE)
    types = (int32, int32, float32, float32, float32)
    shapes: tuple[Any, ...] = ((11,), (11,), (11, 3), (11, 3), (ROWS, 3))
    params = tuple(Param(f"p{n}", dtype, shape) for n, (dtype, shape) in enumerate(zip(types, shapes, strict=True)))

    def total(index: int, value: int) -> Expr:
        named = load(index, as_index(point), int32)
        inside = call("and", call("ge", named, const(0, int32)), call("lt", named, const(ROWS, int32)))
        guard = call("and", inside, call("eq", named, index_value(as_index(row), int32)))
        return reduce("add", (point,), load(value, as_index(point) * 3 + as_index(inner), float32, guard))

    both = call("mul", total(0, 2), total(other, 3))
    return Kernel("by_hand", params, (row, inner), (Store(4, as_index(row) * 3 + as_index(inner), both),))


@pytest.mark.parametrize("name", GRID)
def test_buckets_add_up_what_guarded_sums_do(name: str) -> None:
    kernel, sizes = kernel_of(name)
    made = summed_by_row(kernel)
    assert isinstance(find_indexed_sums(made.parts[-1].kernel), str) and len(made.parts) == 2
    for seed in range(3):
        compared(made, drawn(kernel, sizes, seed), sizes).exactly()


@pytest.mark.parametrize("other", [0, 1])
def test_sums_over_the_same_indices_share_an_order(other: int) -> None:
    kernel = by_hand(other)
    made = summed_by_row(kernel)
    sums = find_bucket_sums(made.parts[-1].kernel)
    assert not isinstance(sums, str) and len(sums) == 2
    assert len({s.starts for s in sums}) == len(made.parts) - 1 == len(made.workspaces) // 2 == 1 + other
    for seed in range(3):
        compared(made, drawn(kernel, {}, seed), {}).exactly()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 40])
@pytest.mark.parametrize("name", ["a batch", "a table of a batch"])
def test_a_program_compiled_for_one_size_is_right_for_another(name: str, size: int) -> None:
    kernel, _ = kernel_of(name)
    compared(summed_by_row(kernel), drawn(kernel, {"n": size}), {"n": size}).exactly()


def test_points_are_put_in_order_by_row_and_equal_ones_as_they_come() -> None:
    kernel, _ = kernel_of("rows")
    sort = summed_by_row(kernel).parts[0].kernel
    found = find_order(sort)
    assert not isinstance(found, str) and found.rows == ROWS
    named = np.array([3, 0, -1, ROWS, 3, 0, 6, -ROWS - 1, 2, 3, -ROWS])
    arrays: list[Any] = [named, np.full(ROWS + 1, -1, np.int32), np.full(11, -1, np.int32)]
    run_kernel(sort, arrays)
    rows = np.where(named < 0, named + ROWS, named)
    rows[(rows < 0) | (rows >= ROWS)] = ROWS
    np.testing.assert_array_equal(arrays[found.order], np.argsort(rows, kind="stable"))
    np.testing.assert_array_equal(arrays[found.starts], [(rows < v).sum() for v in range(ROWS + 1)])


def test_nan_and_infinity_stay_in_their_rows() -> None:
    kernel, sizes = kernel_of("rows")
    arrays = drawn(kernel, sizes)
    (keys,) = (a for a in arrays if a.dtype == np.int64)
    keys[:] = [0, 1, 1, 2, -ROWS - 1, ROWS, 3, 3, 4, 4, 4]
    for array in arrays:
        if array.size == 33:
            array.reshape(11, 3)[[0, 4, 5, 8]] = [[np.nan], [np.nan], [np.inf], [-np.inf]]
    wanted = compared(summed_by_row(kernel), arrays, sizes)
    wanted.exactly()
    (found,) = wanted.found.values()
    np.testing.assert_array_equal(np.isfinite(found.reshape(ROWS, 3)).all(axis=1), [0, 1, 1, 1, 0, 1, 1])


def test_an_optimizer_step_stays_one_kernel() -> None:
    table = gc.Variable(np.ones((ROWS, 3), np.float32))
    k, w = gc.placeholder("int64", (9,)), gc.placeholder("float32", (9, 3))
    (gradient,) = gc.gradients((gc.take(table, computed(k), axis=0) * w).sum(), [table])
    kernels = kernels_of([gc.sqrt(gradient * gradient), table - 0.5 * gradient], [k, w])
    (kernel,) = [k for k in kernels if not isinstance(find_indexed_sums(k), str)]
    made = summed_by_row(kernel)
    assert [p.helper for p in made.parts] == [True, False] and len(made.parts[-1].kernel.stores) == len(kernel.stores)
    compared(made, drawn(kernel, {}), {}).within(1e-6)


# --- when -------------------------------------------------------------------------------------------------------------


def asked(answer: bool, seen: list[tuple[Kernel, int]] | None = None) -> Target:
    """The oracle, as if it put points in order where ``answer`` says so."""

    def orders(kernel: Kernel, results: int, sizes: Any) -> bool:
        if seen is not None:
            seen.append((kernel, results))
        return answer

    return replace(oracle_target(), orders=orders)


def test_the_device_is_asked_about_every_order() -> None:
    kernel, sizes = by_hand(1), {}
    seen: list[tuple[Kernel, int]] = []
    made = bucket_sums(kernel, asked(True, seen), sizes)
    assert isinstance(made, Parts) and {r for _, r in seen} == {ROWS * 3}
    assert {id(k) for k, _ in seen} == {id(p.kernel) for p in made.parts[:-1]}
    assert made.reasons == (f"{kernel.name} sums every row's own points, which {kernel.name}_sort puts in order",)


def test_what_stays_whole_says_why() -> None:
    kernel, sizes = kernel_of("rows")
    one = gc.placeholder("float32", (ROWS, 3))
    (plain,) = kernels_of([gc.sum(one, axis=0)], [one])
    row, inner = kernel.axes
    (store,) = kernel.stores
    over = reduce("add", (inner,), store.value)
    columns = replace(kernel, stores=(store, replace(store, index=as_index(row), value=over)))
    for given, target, reason in (
        (kernel, oracle_target(), "the device puts nothing in order"),
        (kernel, asked(False), f"11 indices into {ROWS} rows are too few to be worth sorting"),
        (plain, asked(True), "it has no sum over one axis of its own"),
        (columns, asked(True), "it reduces over its results too"),
    ):
        answer = bucket_sums(given, target, sizes)
        assert isinstance(answer, Reject) and answer.reason == reason, answer
    with pytest.raises(ValueError, match=f"kernel {plain.name}: it has no sum"):
        summed_by_row(plain)


# --- what families recognise ------------------------------------------------------------------------------------------


def test_an_order_is_known_by_what_it_stores() -> None:
    kernel, _ = kernel_of("rows")
    sort = summed_by_row(kernel).parts[0].kernel
    order, starts = sort.stores
    form: Any = sort.form
    key = form.operands[0].value
    free = replace(form.operands[0], value=key.args[1])
    broken = {
        "it sorts nothing": replace(sort, form=None),
        "the points of one axis": replace(sort, form=replace(form, descending=True)),
        "in order by row": replace(sort, stores=(order,)),
        "where the rows' points start": replace(sort, stores=(order, replace(starts, value=const(0, int32)))),
        "does not store where": replace(sort, stores=(replace(order, index=order.index * 2), starts)),
        "not known to be rows": replace(
            sort,
            form=replace(form, operands=(free,)),
            stores=(order, replace(starts, value=_counted(starts.value, key, free.value))),
        ),
    }
    for words, made in broken.items():
        answer = find_order(made)
        assert isinstance(answer, str) and words in answer, (words, answer)


def _counted(value: Expr, key: Expr, other: Expr) -> Expr:
    """A count of the points below a row with another row of a point."""
    (axis,) = value.reduce_axes
    below = value.args[0].args[0]
    (point,) = key.axes
    return reduce("add", (axis,), cast(call("lt", other.substitute({point: as_index(axis)}), below.args[1]), int32))


def test_a_bucket_is_from_a_rows_start_to_the_next_ones() -> None:
    row, place = Axis("i0", ROWS), Axis("r0", 12, REDUCE)
    params = tuple(Param(f"p{n}", int32, (extent,)) for n, extent in enumerate((12, ROWS + 1, ROWS)))
    guard, value = in_bucket(place, 1, as_index(row)), load(0, as_index(place), int32)

    def kernel(condition: Expr, combine: str = "add", axes: tuple[Axis, ...] = (place,)) -> Kernel:
        body = load(0, as_index(place), int32, condition)
        return Kernel("k", params, (row,), (Store(2, as_index(row), reduce(combine, axes, body)),))

    (found,) = find_bucket_sums(kernel(guard))
    assert not isinstance(found, str) and found.term is value and (found.starts, found.position) == (1, as_index(row))
    more = call("and", guard, call("lt", load(0, Index(0), int32), const(3, int32)))
    (found,) = find_bucket_sums(kernel(more))
    assert not isinstance(found, str) and found.term is load(0, as_index(place), int32, more.args[1])
    first, last = guard.args
    beyond = call("lt", last.args[0], load(1, as_index(row) + 2, int32))
    for other in (
        kernel(first),
        kernel(call("and", first, beyond)),
        kernel(guard, "max"),
        kernel(guard, axes=(place, Axis("r1", 2, REDUCE))),
    ):
        assert find_bucket_sums(other) == "it sums no points of a row"
