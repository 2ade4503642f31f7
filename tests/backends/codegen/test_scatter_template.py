"""Scatter-add by sorted indices: chosen where it pays, the same to the bit as the guarded sum, on CPU and GPU
schedules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from support.device_names import RUNTIMES, RUNTIMES_AND_GPU
from support.devices import Bound, backend, run_nested, run_on, run_plan
from support.kernels import kernels_of
from support.sessions import opened
from support.values import computed

import graphcore as gc
from backends.opencl.target import make_target
from benchmarks.golden import DEVICES as GOLDEN
from graphcore import nn, optim
from graphcore.base import dtypes
from graphcore.kernel.indexed_sums import find_indexed_sums
from graphcore.kernel.parts import Parts
from graphcore.nn import functional as F
from passes.kernels.bucket_sums import bucket_sums

ROWS, POINTS, INNER = 300, 150, 37


@pytest.fixture(params=RUNTIMES_AND_GPU)
def spec(request: pytest.FixtureRequest) -> str:
    backend(request.param)  # skips where the runtime is missing
    return str(request.param)


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Runs outputs with the guarded sum."""
    return partial(run_nested, monkeypatch)


def templates(bound: Bound) -> list[str]:
    return [s.family for s in bound.plan.steps]


def drawn(rng: Any, dtype: str, shape: tuple[int, ...]) -> Any:
    """Normal numbers, or integers of both signs."""
    storage = dtypes.as_dtype(dtype).storage
    if dtypes.as_dtype(dtype).is_float:
        return rng.standard_normal(shape).astype(storage)
    return rng.integers(0 if dtype.startswith("u") else -90, 90, shape).astype(storage)


def hard_indices(rng: Any, rows: int, count: int, dtype: str) -> Any:
    """Duplicates, and where the type allows it negative ones and ones out of range on both sides."""
    info = np.iinfo(dtype)
    picked = rng.integers(max(-rows - 40, int(info.min)), min(rows + 40, int(info.max)), count)
    picked[: count // 3] = rng.integers(0, 4, count // 3)
    return rng.permutation(picked).astype(dtype)


def summed(values: Any, indices: Any, rows: int) -> Any:
    """By NumPy, one term after the other, half types in float32."""
    compute = np.dtype(dtypes.as_dtype(values.dtype).compute)
    wide = indices.astype(object)
    counted = np.array([int(i) + rows if i < 0 else int(i) for i in wide], dtype=object)
    inside = np.array([0 <= c < rows for c in counted], bool)
    out = np.zeros((rows, *values.shape[1:]), compute)
    np.add.at(out, counted[inside].astype(np.int64), values[inside].astype(compute))
    return out.astype(values.dtype)


def same(found: Any, wanted: Any) -> None:
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert found.tobytes() == wanted.tobytes(), f"{np.count_nonzero(found != wanted)} elements differ"


def like_guarded(spec: str, found: Any, wanted: Any) -> None:
    """The same to the bit, except that Intel's compiler makes vectors of the loop nest's scalar sums, in another
    order."""
    if "intel" in spec and found.dtype.itemsize > 2 and found.dtype.kind == "f":
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    else:
        same(found, wanted)


def by_numpy(outputs: list[Any], feeds: dict[Any, Any]) -> list[Any]:
    with gc.Session("numpy") as oracle:
        return list(oracle.run(outputs, feeds))


def gradient(rows: Any, indices: Any, weights: Any, inner: tuple[int, ...] = (INNER,)) -> Any:
    """The placeholder of a table, and its gradient: the weights added up by index."""
    table = gc.placeholder(weights.dtype, (rows, *inner))
    (g,) = gc.gradients((gc.take(table, computed(indices), axis=0) * weights).sum(), [table])
    return table, g


@pytest.mark.parametrize("device", RUNTIMES_AND_GPU)
def test_the_gradient_of_an_embedding_is_one_kernel_of_the_template(device: str) -> None:
    vocabulary, width, tokens = 5000, 64, 512
    rng = np.random.default_rng(0)
    with opened(device) as session:
        embedding = nn.Embedding(vocabulary, width)
        k, w = gc.placeholder("int64", (8, tokens // 8)), gc.placeholder("float32", (8, tokens // 8, width))
        g = gc.gradients((embedding(k) * w).sum(), [embedding.weight])
        feeds = {
            k: rng.integers(0, vocabulary, (8, tokens // 8)),
            w: rng.standard_normal((8, tokens // 8, width)).astype(np.float32),
        }
        cost = session.compile(g, feeds).cost_analysis()
        (kernel,) = [s for s in cost["kernels"] if s["family"] == "scatter"]
        assert [s["family"] for s in cost["helpers"]] == ["gpu-sort" if "gpu" in device else "scatter-sort"]
        # Every weight is added once, every result is written once: nothing near rows x tokens x width operations.
        assert tokens * width <= kernel["flops"] <= 2 * (tokens + vocabulary) * width
        assert 4 * (tokens + vocabulary) * width <= kernel["bytes"] <= 6 * (tokens + vocabulary) * width
        (found,) = session.run(g, feeds)
        same(found, summed(feeds[w].reshape(tokens, width), feeds[k].reshape(-1), vocabulary))


@pytest.mark.parametrize("indices", ["int64", "int32", "int16", "int8", "uint8", "uint64"])
def test_index_types_duplicates_negatives_and_indices_out_of_range(
    spec: str, indices: str, guarded: Callable[..., Any]
) -> None:
    rng = np.random.default_rng(1)
    rows = 100 if indices == "int8" else ROWS
    k, w = gc.placeholder(indices, (POINTS,)), gc.placeholder("float32", (POINTS, INNER))
    table, g = gradient(rows, k, w)
    feeds = {
        k: hard_indices(rng, rows, POINTS, indices),
        w: drawn(rng, "float32", (POINTS, INNER)),
        table: np.zeros((rows, INNER), np.float32),
    }
    bound = run_plan(spec, [g], feeds)
    assert "scatter" in templates(bound)
    (found,) = bound.run(feeds)
    same(found, summed(feeds[w], feeds[k], rows))
    like_guarded(spec, found, guarded(spec, [g], feeds)[0])
    same(found, by_numpy([g], feeds)[0])


@pytest.mark.parametrize("inner", [(16,), (4, 32)])
def test_it_is_the_guarded_sum_to_the_bit(spec: str, inner: tuple[int, ...], guarded: Callable[..., Any]) -> None:
    rng = np.random.default_rng(11)
    k, w = gc.placeholder("int64", (2000,)), gc.placeholder("float32", (2000, *inner))
    table, g = gradient(ROWS, k, w, inner)
    feeds = {
        k: hard_indices(rng, ROWS, 2000, "int64"),
        w: drawn(rng, "float32", (2000, *inner)),
        table: np.zeros((ROWS, *inner), np.float32),
    }
    found = run_on(spec, [g], feeds)[0]
    same(found, guarded(spec, [g], feeds)[0])
    same(found, summed(feeds[w], feeds[k], ROWS))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int8", "int32", "int64", "uint16"])
def test_value_types(spec: str, dtype: str, guarded: Callable[..., Any]) -> None:
    rng = np.random.default_rng(2)
    x, k, s = gc.placeholder(dtype, (ROWS, 21)), gc.placeholder("int32", (POINTS,)), gc.placeholder(dtype, (POINTS, 21))
    y = gc.index_add(x, 0, k, s)
    feeds = {
        x: drawn(rng, dtype, (ROWS, 21)),
        k: hard_indices(rng, ROWS, POINTS, "int32"),
        s: drawn(rng, dtype, (POINTS, 21)),
    }
    bound = run_plan(spec, [y], feeds)
    assert "scatter" in templates(bound)
    (found,) = bound.run(feeds)
    like_guarded(spec, found, guarded(spec, [y], feeds)[0])
    same(found, feeds[x] + summed(feeds[s], feeds[k], ROWS))


def test_other_batches_take_the_same_program(spec: str) -> None:
    rng = np.random.default_rng(3)
    batch = gc.Dim("batch")
    k, w = gc.placeholder("int64", (batch, 4)), gc.placeholder("float32", (batch, 4, INNER))
    table, g = gradient(ROWS, k, w)

    def feeds(count: int) -> dict[Any, Any]:
        picked = hard_indices(rng, ROWS, 4 * count, "int64").reshape(count, 4)
        return {k: picked, w: drawn(rng, "float32", (count, 4, INNER)), table: np.zeros((ROWS, INNER), np.float32)}

    first = feeds(40)
    bound = run_plan(spec, [g], first)
    assert "scatter" in templates(bound)
    for given in (first, feeds(7), feeds(1000), feeds(1), feeds(0)):
        (found,) = bound.at(given).run(given)  # binds the program that is there
        same(found, summed(given[w].reshape(-1, INNER), given[k].reshape(-1), ROWS))


def test_a_session_builds_once_for_two_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.opencl import runtime

    with opened(RUNTIMES[0]) as session:
        built = []
        compile_plan = runtime.OpenCLBackend.compile
        monkeypatch.setattr(
            runtime.OpenCLBackend, "compile", lambda self, plan: (built.append(plan), compile_plan(self, plan))[1]
        )
        k, w = gc.placeholder("int64", (None,)), gc.placeholder("float32", (None, INNER))
        table, g = gradient(ROWS, k, w)
        for count in (90, 33):
            given = {
                k: np.arange(count) % 7,
                w: np.ones((count, INNER), np.float32),
                table: np.zeros((ROWS, INNER), np.float32),
            }
            same(session.run(g, given), summed(given[w], given[k], ROWS))
        assert len(built) == 1 and "scatter" in [s.family for s in built[0].steps]


def test_rows_that_are_numbers_and_symbolic_rows(spec: str, guarded: Callable[..., Any]) -> None:
    rng, points = np.random.default_rng(4), ROWS  # enough that sorting them is worth it for numbers, too
    rows = gc.Dim("rows")
    k, w, wide = (
        gc.placeholder("int64", (points,)),
        gc.placeholder("float32", (points,)),
        gc.placeholder("float32", (points, 20)),
    )
    flat, g = gradient(rows, k, w, ())
    table, h = gradient(rows, k, wide, (20,))
    bound = None
    for count in (ROWS, 77, 1000):
        given = {
            k: hard_indices(rng, count, points, "int64"),
            w: drawn(rng, "float32", (points,)),
            wide: drawn(rng, "float32", (points, 20)),
            flat: np.zeros(count, np.float32),
            table: np.zeros((count, 20), np.float32),
        }
        bound = run_plan(spec, [g, h], given) if bound is None else bound.at(given)
        assert templates(bound).count("scatter") == 2
        for a, b, values in zip(bound.run(given), guarded(spec, [g, h], given), (given[w], given[wide]), strict=True):
            like_guarded(spec, a, b)
            same(a, summed(values, given[k], count))


@pytest.mark.parametrize("axis", [1, 2])
def test_other_axes(spec: str, axis: int, guarded: Callable[..., Any]) -> None:
    rng = np.random.default_rng(5)
    shape, picked = ((6, ROWS, 19) if axis == 1 else (6, 19, ROWS)), POINTS
    x, k = gc.placeholder("float32", shape), gc.placeholder("int32", (picked,))
    w = gc.placeholder("float32", (*shape[:axis], picked, *shape[axis + 1 :]))
    (g,) = gc.gradients((gc.take(x, computed(k), axis=axis) * w).sum(), [x])
    y = x - gc.sin(g) * 0.5
    feeds = {
        x: drawn(rng, "float32", shape),
        k: hard_indices(rng, shape[axis], picked, "int32"),
        w: drawn(rng, "float32", w.shape),
    }
    bound = run_plan(spec, [g, y], feeds)
    assert "scatter" in templates(bound)
    found = bound.run(feeds)
    moved = np.moveaxis(summed(np.ascontiguousarray(np.moveaxis(feeds[w], axis, 0)), feeds[k], shape[axis]), 0, axis)
    same(found[0], np.ascontiguousarray(moved))
    wanted = guarded(spec, [g, y], feeds)
    like_guarded(spec, found[0], wanted[0])
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5, atol=1e-5)  # a sine may depend on the vectors' width


def test_two_lookups_in_one_table_and_values_that_are_computed(spec: str, guarded: Callable[..., Any]) -> None:
    rng = np.random.default_rng(6)
    table, w = gc.placeholder("float32", (ROWS, INNER)), gc.placeholder("float32", (POINTS, INNER))
    k, j, m = (
        gc.placeholder("int64", (POINTS,)),
        gc.placeholder("int32", (POINTS,)),
        gc.placeholder("bool", (POINTS, 1)),
    )
    loss = (gc.where(m, gc.take(table, k, axis=0), 0.0) * w * 3.0).sum() + gc.exp(gc.take(table, j, axis=0) * w).sum()
    g = gc.gradients(loss, [table])[0]
    count = gc.gradients(gc.take(table, k, axis=0).sum(), [table])[0]  # every term is 1
    norm = gc.sqrt((g * g).sum())
    feeds = {
        table: drawn(rng, "float32", (ROWS, INNER)),
        w: drawn(rng, "float32", (POINTS, INNER)),
        m: rng.random((POINTS, 1)) > 0.5,
        k: rng.integers(-ROWS, ROWS, POINTS),
        j: rng.integers(0, ROWS, POINTS).astype(np.int32),
    }
    bound = run_plan(spec, [g, count, norm], feeds)
    assert "scatter" in templates(bound)
    found = bound.run(feeds)
    for a, b in zip(found, guarded(spec, [g, count, norm], feeds), strict=True):
        like_guarded(spec, a, b)
    for a, b in zip(found, by_numpy([g, count, norm], feeds), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: optim.SGD(lr=0.5), lambda: optim.Adam(lr=0.01)], ids=["sgd", "adam"])
@pytest.mark.parametrize("device", RUNTIMES_AND_GPU)
def test_an_optimizer_step_is_fused_to_it(device: str, make: Callable[[], Any]) -> None:
    rng = np.random.default_rng(7)
    start = rng.standard_normal((ROWS, INNER)).astype(np.float32)
    results = []
    given = [
        (hard_indices(rng, ROWS, n, "int32"), rng.standard_normal((n, INNER)).astype(np.float32))
        for n in (POINTS, 60, 0)
    ]
    for name in (device, "numpy"):
        with opened(name) as session:
            table = gc.Variable(start)
            k, w = gc.placeholder("int32", (None,)), gc.placeholder("float32", (None, INNER))
            rows = F.embedding(computed(k), table)
            loss = gc.where(gc.isnan(rows), 0.0, rows * w).sum()
            step = make().minimize(loss, [table])
            if name == device:
                kernels = session.compile([loss, step], {k: given[0][0], w: given[0][1]}).cost_analysis()["kernels"]
                (kernel,) = [s for s in kernels if s["family"] == "scatter"]
                assert "sub" in kernel["name"] or "mul" in kernel["name"], kernel["name"]
            losses = [session.run([loss, step], {k: a, w: b})[0] for a, b in given]
            results.append((losses, session.run(table)))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)


def test_results_do_not_depend_on_how_steps_are_launched(spec: str) -> None:
    rng = np.random.default_rng(8)
    device = backend(spec)
    k, w = gc.placeholder("int64", (POINTS,)), gc.placeholder("float32", (POINTS, INNER))
    table, g = gradient(ROWS, k, w)
    feeds = {
        k: hard_indices(rng, ROWS, POINTS, "int64"),
        w: drawn(rng, "float32", (POINTS, INNER)),
        table: np.zeros((ROWS, INNER), np.float32),
    }
    wanted = summed(feeds[w], feeds[k], ROWS)
    before = device.launch
    try:
        for device.launch in ("one", "level", "step"):
            same(run_on(spec, [g], feeds)[0], wanted)
    finally:
        device.launch = before


@pytest.mark.parametrize(("rows", "points"), [(20, 30), (1, 9000), (9000, 3)])
def test_small_ones_stay_with_the_loop_nest(rows: int, points: int) -> None:
    rng = np.random.default_rng(9)
    k, w = gc.placeholder("int64", (points,)), gc.placeholder("float32", (points, 5))
    table, g = gradient(rows, k, w, (5,))
    feeds = {
        k: rng.integers(0, rows, points),
        w: drawn(rng, "float32", (points, 5)),
        table: np.zeros((rows, 5), np.float32),
    }
    bound = run_plan(RUNTIMES[0], [g], feeds)
    assert "scatter" not in templates(bound)
    np.testing.assert_allclose(bound.run(feeds)[0], summed(feeds[w], feeds[k], rows), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("device", "rows", "points", "width", "wanted"),
    [
        ("intel", 5000, 512, 64, True),
        ("intel", 20, 30, 5, False),
        ("intel", 9000, 7, 64, False),
        ("intel", 20, 9000, 1, False),
        ("intel", 200, 9000, 1, True),
        ("h100", 5000, 512, 64, True),
        ("h100", 300, 150, 37, True),
        ("h100", 20, 30, 5, False),
        ("h100", 9000, 7, 64, False),
        ("h100", 200, 9000, 1, False),  # more indices than results, which it would compare with each other
    ],
)
def test_what_is_worth_an_order(device: str, rows: int, points: int, width: int, wanted: bool) -> None:
    table, k, w = (
        gc.placeholder(d, s)
        for d, s in (("float32", (rows, width)), ("int64", (points,)), ("float32", (points, width)))
    )
    kernels = kernels_of([gc.index_add(table, 0, computed(k), w)], [table, k, w])
    (kernel,) = (one for one in kernels if not isinstance(find_indexed_sums(one), str))
    assert isinstance(bucket_sums(kernel, make_target(GOLDEN[device]), {}), Parts) == wanted


def test_indices_that_other_indices_choose(spec: str) -> None:
    rng = np.random.default_rng(10)
    k, p, w = (
        gc.placeholder("int64", (POINTS,)),
        gc.placeholder("int64", (POINTS,)),
        gc.placeholder("float32", (POINTS, INNER)),
    )
    table, g = gradient(ROWS, gc.take(k, p, axis=0) + 1, w)
    feeds = {
        k: rng.integers(0, ROWS - 1, POINTS),
        p: rng.permutation(POINTS),
        w: drawn(rng, "float32", (POINTS, INNER)),
        table: np.zeros((ROWS, INNER), np.float32),
    }
    bound = run_plan(spec, [g], feeds)
    assert "scatter" in templates(bound)
    same(bound.run(feeds)[0], summed(feeds[w], feeds[k][feeds[p]] + 1, ROWS))
