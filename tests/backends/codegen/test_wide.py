"""Loops that count in 64 bits: chosen where 32 may not hold a position, and right in everything that they compute."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.device_names import CPUS, RUNTIMES_AND_GPU
from support.devices import RUNTIMES, backend, computed_ops, examples_of, judge, run_on, run_plan

import graphcore as gc
from backends.codegen.registry import BY_NAME
from graphcore.api.tensor import Builder, wrap
from graphcore.base import dtypes
from graphcore.ir.graph import Graph
from graphcore.ir.op import Map
from graphcore.kernel import expr, widths
from graphcore.kernel.index import Axis, Index, as_index
from graphcore.kernel.ir import Kernel, Param, Store
from graphcore.ops.random import RandomBits, philox
from passes.pipeline import compile_graph

# Elementwise ops differ in nothing that counts, so one stands for all.
OPS = {name: op for name, op in computed_ops().items() if name == "add" or not issubclass(op, Map)}
PAST = 2**31 + 70000


@pytest.fixture
def all_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kernel counts in 64 bits, however small it is."""
    monkeypatch.setattr(widths, "NARROW", -1)


@pytest.mark.usefixtures("all_wide")
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("device", RUNTIMES)
def test_wide_loops_compute_every_op(device: str, name: str) -> None:
    cases = examples_of(OPS[name])
    b, outputs, feeds, counts = Builder(), [], {}, []
    for op, *arrays in cases:
        operands = [gc.placeholder(dtypes.as_dtype(np.asarray(a).dtype), np.shape(a)) for a in arrays]
        feeds.update(zip(operands, arrays, strict=True))
        node = b.apply(op, *operands)
        outputs += [node.output(i) for i in range(len(node.types))]
        counts.append(len(node.types))
    bound = run_plan(device, outputs, feeds)
    assert all(s.kernel.wide and s.family == "nest" for s in bound.plan.steps)
    found, wrong = bound.run(feeds), []
    for (op, *arrays), count in zip(cases, counts, strict=True):
        problem = judge(op, arrays, found[:count])
        wrong += [f"{op}: {problem}"] if problem is not None else []
        del found[:count]
    assert not wrong, "\n".join(wrong)


def texts(device: str, output: Any, feeds: tuple[Any, ...], sizes: dict[str, int]) -> list[str]:
    """The functions of a graph that is only compiled."""
    opened = backend(device)
    plan = compile_graph(Graph((output,), (), feeds), opened.target, sizes).plan
    return [BY_NAME[s.family].emit(s.kernel, s.choices, opened.model) for s in plan.steps]


@pytest.mark.parametrize("device", RUNTIMES)
def test_a_kernel_counts_in_64_bits_only_where_its_sizes_ask_for_it(device: str) -> None:
    def longs(extent: Any, sizes: dict[str, int]) -> list[bool]:
        x = gc.placeholder("uint8", (extent,))
        made = texts(device, x + 1, (x,), sizes)
        counters = [set(re.findall(r"const (int|long) (?:units|begin|[mni]\d\w*)\b", text)) for text in made]
        assert all(len(kinds) == 1 for kinds in counters), "all that counts has one type, the parameters included"
        return [kinds == {"long"} for kinds in counters]

    rows = gc.Dim("rows")
    assert longs(2**20, {}) == [False]
    assert longs(PAST, {}) == [True]
    assert longs(rows, {"rows": 2**20}) == [False]
    assert longs(rows, {"rows": PAST}) == [True]


def narrow(kernel: Kernel, **sizes: int) -> bool:
    return widths.is_narrow(kernel, sizes)


def test_what_a_kernel_counts() -> None:
    i, j = Axis("i", 50_000), Axis("j", 50_000)
    n = gc.Dim("n")
    one = expr.const(1, dtypes.float32)

    def kernel(axes: tuple[Axis, ...], value: Any, at: Index | int = 0, size: Any = 1) -> Kernel:
        return Kernel("k", (Param("p0", value.dtype, (size,)),), axes, (Store(0, as_index(at), value),))

    assert narrow(kernel((i,), one))
    assert not narrow(kernel((i, j), one)), "points of the loops"
    assert not narrow(kernel((), one, size=PAST)), "elements of a parameter"
    assert not narrow(kernel((i,), one, at=as_index(i) * 50_000)), "an address"
    assert not narrow(kernel((i,), one, at=(as_index(i) * 70_001 + 3) // 50_021)), "what is divided"
    assert not narrow(kernel((i,), expr.index_value(as_index(i) * 50_000, dtypes.int64))), "a position as a value"
    body = expr.index_value(as_index(i) + as_index(j), dtypes.float32)
    assert narrow(kernel((), expr.reduce("max", (i, j), body))), "loops by themselves are short"
    assert not narrow(kernel((), expr.reduce("argmax", (i, j), body))), "a position over several loops"
    dynamic = kernel((Axis("n", n),), expr.size_value(n, dtypes.float32))
    assert narrow(dynamic, n=1000)
    assert not narrow(dynamic, n=PAST)


@pytest.mark.parametrize("device", RUNTIMES)
def test_positions_in_grids_that_are_not_stored(device: str) -> None:
    """Fused into a reduction, a grid of more than 2**31 points takes no memory."""
    rows, columns = 46_500, 46_501
    r, c = gc.placeholder("int32", (rows, 1)), gc.placeholder("int32", (1, columns))
    grid = gc.broadcast_to(r, (rows, columns)) + gc.broadcast_to(c, (rows, columns))
    feeds = {r: np.arange(rows, dtype=np.int32)[:, None], c: np.arange(columns, dtype=np.int32)[None]}
    (found,) = run_on(device, [grid.reshape((rows * columns,)).argmax(0)], feeds)
    assert found == rows * columns - 1


@pytest.mark.parametrize("device", RUNTIMES)
def test_a_dynamic_extent_that_grows_past_32_bits_is_compiled_again(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes near those that a program was compiled for use it, unless it would count wrong."""
    monkeypatch.setattr(widths, "NARROW", 1000)
    backend(device)
    x = gc.placeholder("float32", (None, 10))
    y = (x * 2.0).sum(axis=1)
    with gc.Session(device=device) as session:
        compiled = [session.compile(y, {x: (rows, 10)}) for rows in (40, 60, 100, 101, 150)]
        longs = ["const long units" in c.as_text("source") for c in compiled]
        assert longs == [False, False, False, True, True]
        for rows in (100, 150):
            array = np.arange(rows * 10, dtype=np.float32).reshape(rows, 10)
            np.testing.assert_allclose(session.run(y, {x: array}), (array * 2).sum(1))


@pytest.mark.parametrize("device", RUNTIMES)
def test_draws_past_one_word_of_the_counter(device: str) -> None:
    """Only the elements that are asked for are computed."""
    first = 2**35 + 3
    key, step = gc.placeholder("uint32", (2,)), gc.placeholder("uint32", ())
    bits = wrap(Builder().apply(RandomBits(9, (2**36,)), key, step).output(0))
    seed = np.array([3, 4], np.uint32)
    (found,) = run_on(device, [bits[first : first + 40]], {key: seed, step: np.array(5, np.uint32)})
    places = [divmod(e, 4) for e in range(first, first + 40)]
    wanted = [philox([b % 2**32, b // 2**32, 5, 9], seed)[word] for b, word in places]
    np.testing.assert_array_equal(found, np.array(wanted, np.uint32))


def test_the_extents_of_large_draws_are_bound() -> None:
    """A program for symbolic sizes knows only one word."""
    key, step, x = gc.placeholder("uint32", (2,)), gc.placeholder("uint32", ()), gc.placeholder("uint8", (gc.Dim("n"),))
    bits = wrap(Builder().apply(RandomBits(9, x.shape), key, step).output(0))
    graph = Graph(((bits + x).max(),), (), (key, step, x))
    for size, bound in ((2**20, frozenset()), (2**34, frozenset({"n"}))):
        assert compile_graph(graph, None, {"n": size}, upto="specialize").bound == bound


def test_what_loops_count_that_walk_one_axis_after_another() -> None:
    i, j = Axis("i", 50_000), Axis("j", 50_000)
    one = expr.const(1, dtypes.float32)
    params = tuple(Param(f"p{n}", dtypes.float32, (50_000,)) for n in range(2))
    kernel = Kernel("k", params, (i, j), (Store(0, as_index(i), one), Store(1, as_index(j), one)))
    assert widths.is_narrow(kernel, {}, flat=False) and not widths.is_narrow(kernel, {})


@pytest.mark.parametrize("device", CPUS)
def test_many_rows_and_many_indices_are_sorted(device: str) -> None:
    """Their product is more than 32 bits hold, but the sort walks one after the other."""
    table, g, at = (
        gc.placeholder(d, s) for d, s in (("float32", (50_000, 8)), ("float32", (65_536, 8)), ("int64", (65_536,)))
    )
    graph = Graph((gc.index_add(table, 0, at, g),), (), (table, g, at))
    plan = compile_graph(graph, backend(device).target, {}).plan
    assert [s.family for s in plan.steps] == ["scatter-sort", "scatter"] and not any(s.kernel.wide for s in plan.steps)


def scattered(rows: int, width: int, points: int) -> tuple[list[Any], dict[Any, Any]]:
    """Sums by index, the gradient of a lookup with work fused to it, and what they are fed."""
    table, g = gc.placeholder("float32", (rows, width)), gc.placeholder("float32", (points, width))
    at = gc.placeholder("int64", (points,))
    looked_up = gc.tanh(gc.take(table, at, axis=0))
    (slope,) = gc.gradients((looked_up * g).sum(), [table])
    return [gc.index_add(table, 0, at, g), slope], {table: (rows, width), g: (points, width), at: (points,)}


@pytest.mark.parametrize("device", RUNTIMES_AND_GPU)
def test_sums_by_index_sort_their_indices_where_only_the_results_are_many(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, width, points = 300, 40, 200
    outputs, shapes = scattered(rows, width, points)
    rng = np.random.default_rng(4)
    table, g, at = shapes
    feeds = {t: rng.standard_normal(shapes[t], np.float32) for t in (table, g)}
    feeds[at] = rng.integers(0, rows, points) * 2 // 3
    usual = run_on(device, outputs, feeds)
    monkeypatch.setattr(widths, "NARROW", 9000)  # holds rows and indices, but not the elements of the table
    bound = run_plan(device, outputs, feeds)
    wide = [s for s in bound.plan.steps if s.family == "scatter"]
    assert len(wide) == 2 and all(s.kernel.wide for s in wide)
    for found, wanted in zip(bound.run(feeds), usual, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("device", RUNTIMES)
def test_tables_past_32_bits_and_rows_past_them(device: str) -> None:
    def families(rows: int, width: int) -> set[str]:
        outputs, shapes = scattered(rows, width, 4096)
        opened = backend(device)
        plan = compile_graph(
            Graph(tuple(outputs), (), tuple(shapes)), replace(opened.target, max_alloc=2**50, memory=2**50), {}
        ).plan
        sums = [s for s in plan.steps if any(p.shape == (rows, width) for p in s.kernel.params) and not s.helper]
        written = [BY_NAME[s.family].emit(s.kernel, s.choices, opened.model) for s in sums if s.family == "scatter"]
        place = re.compile(r"const int (v\d+) = p\d+\[q\d+\];.*convert_long\(\1\)\*1024L", re.S)
        assert all(place.search(text) for text in written)
        return {s.family for s in sums}

    assert "scatter" in families(2**21, 1024)
    assert families(2**31 + 7, 1) == {"nest"}, "the rows themselves are counted by what sorts"
