"""Random programs: fused kernels against the graph interpreter, on every device, for any legal partition."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.devices import KERNELS, RUNTIMES, run_on
from support.random_programs import Program, Value, seeded

from graphcore.api.tensor import Builder, Tensor
from graphcore.api.variable import constant, placeholder
from graphcore.base import dtypes
from graphcore.ir.graph import Graph
from graphcore.ir.interpret import interpret
from passes.pipeline import DEFAULT

# -- judging


def wrong(value: Value, got: Any, expected: Any) -> str | None:
    """How a result differs from the interpreter's."""
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return f"{got.dtype}{got.shape} instead of {expected.dtype}{expected.shape}"
    if value.dtype.is_float:
        got, expected = got.astype(np.float64), expected.astype(np.float64)
    if value.rough:
        good = np.isclose(got, expected, rtol=1e-4, atol=1e-4 * max(value.bound, 1.0), equal_nan=True)
    else:
        good = (got == expected) | (np.isnan(got) & np.isnan(expected)) if value.dtype.is_float else got == expected
    if np.all(good):
        return None
    shown = f"{np.asarray(got)[~good][:3]} instead of {np.asarray(expected)[~good][:3]}"
    return f"{value.tensor}: {int(np.sum(~good))} of {good.size} differ, e.g. {shown}"


def check(device: str, programs: Sequence[Program], **options: Any) -> None:
    """Run programs as one plan and compare with the interpreter."""
    values = [v for p in programs for v in p.fetched]
    feeds = {t: a for p in programs for t, a in p.feeds.items()}
    outputs = [v.tensor for v in values]
    graph = Graph(tuple(outputs), (), tuple(feeds))
    expected = interpret(graph, {t.value: a for t, a in feeds.items()})
    found = run_on(device, outputs, feeds, **options)
    problems = [w for v, g, e in zip(values, found, expected, strict=True) if (w := wrong(v, g, e)) is not None]
    assert not problems, "\n".join(problems[:5])


def check_graph(device: str, outputs: Sequence[Tensor], feeds: dict[Tensor, Any], bound: float = 0.0) -> None:
    """Run a graph that was written by hand; results must be equal, or within 1e-4 of ``bound``."""
    program = object.__new__(Program)
    program.feeds, program.fetched = feeds, [Value(t, bound, bound > 0) for t in outputs]
    check(device, [program])


def coin(seed: int, chance: float) -> Callable[[Any, Any], bool]:
    """A condition on fusions that holds at random: any answer is a legal partition."""
    rng = random.Random(seed)
    return lambda node, group: rng.random() < chance


@given(st.data())
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_fused_kernels_equal_the_interpreter(data: st.DataObject) -> None:
    """Shrinks to a small program that fails."""
    check(KERNELS, [Program(lambda n: data.draw(st.integers(0, n - 1)), data.draw(st.integers(5, 30)))])


@pytest.mark.parametrize("seed", range(40))
def test_partitions_and_passes_change_nothing(seed: int) -> None:
    program = seeded(seed)
    check(KERNELS, [program], allow=coin(seed, (0.0, 0.3, 0.7, 0.95)[seed % 4]))
    check(KERNELS, [program], passes=DEFAULT)


@pytest.mark.parametrize("device", RUNTIMES)
def test_devices_equal_the_interpreter(device: str) -> None:
    check(device, [seeded(1000 + seed, 25) for seed in range(5)])


def test_partitions_are_equal_on_a_device() -> None:
    check(RUNTIMES[0], [seeded(1100 + seed, 25) for seed in range(4)], allow=coin(1, 0.5))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 2000, 100))
def test_many_programs_in_kernels(first: int) -> None:
    for seed in range(first, first + 100):
        program = seeded(10_000 + seed)
        try:
            check(KERNELS, [program], allow=None if seed % 2 else coin(seed, 0.6))
            if seed % 4 == 0:
                check(KERNELS, [program], passes=DEFAULT)
        except Exception as error:
            error.add_note(f"seed {10_000 + seed}")
            raise


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 300, 10))
@pytest.mark.parametrize("device", RUNTIMES)
def test_many_programs_on_devices(device: str, first: int) -> None:
    programs = [seeded(20_000 + first + i, 30) for i in range(10)]
    check(device, programs, allow=None if first % 20 else coin(first, 0.6))


# -- what random programs found


def test_a_fetched_view_is_read_where_it_is_stored() -> None:
    """Not through to its operand, which nothing stores."""
    b, x = Builder(), placeholder("float32", (17, 5))
    turned = b.permute(b.abs(x), axes=(1, 0))
    check_graph(
        KERNELS, [turned, b.sum(turned, axes=(0, 1))], {x: np.arange(85.0, dtype=np.float32).reshape(17, 5) - 40}
    )


@pytest.mark.parametrize("padding", [(0, 0, 1, 0), (0, 0, 0, 0)])
@pytest.mark.parametrize("name", ["max_pool", "max_pool_index"])
def test_a_window_is_no_neighbour_of_what_it_reads(name: str, padding: tuple[int, ...]) -> None:
    """Its taps lie at other elements, and outside of the operand where it is padded."""
    b, x = Builder(), placeholder("int64", (4, 19))
    cast = b.cast(x, dtype=dtypes.float32)
    pooled = getattr(b, name)(cast, window=(1, 2), stride=(1, 1), padding=padding, dilation=(1, 1))
    check_graph(KERNELS, [cast, pooled], {x: np.random.default_rng(0).integers(-9, 9, (4, 19))})


def test_a_one_element_constant_of_any_rank_and_type() -> None:
    b, x = Builder(), placeholder("bfloat16", (3, 4))
    one = constant(np.full((1, 1), 1.5), "bfloat16")
    check_graph(KERNELS, [b.add(x, b.broadcast_to(one, (3, 4)))], {x: np.ones((3, 4)).astype(dtypes.bfloat16.storage)})


@pytest.mark.parametrize("device", [KERNELS, RUNTIMES[0]])
def test_half_products_round_once(device: str) -> None:
    """Products are added up in float32, not rounded one by one."""
    b, rng = Builder(), np.random.default_rng(1)
    x, y = placeholder("bfloat16", (9, 40)), placeholder("bfloat16", (40, 17))
    image, weights = placeholder("bfloat16", (1, 4, 6, 7)), placeholder("bfloat16", (3, 4, 3, 3))
    conv = b.conv2d(image, weights, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1)
    feeds = {t: rng.integers(-99, 99, t.shape).astype(dtypes.bfloat16.storage) for t in (x, y, image, weights)}
    check_graph(device, [b.matmul(x, y), conv], feeds)


@pytest.mark.parametrize("device", [KERNELS, *RUNTIMES])
def test_a_scalar_beside_empty_rows_and_sums_over_nothing(device: str) -> None:
    """Loops that never run must not lose what does not depend on them."""
    b = Builder()
    empty, wide, step = placeholder("float32", (0, 5)), placeholder("float32", (7, 0)), placeholder("int64", ())
    ones = b.full((5, 3), 1, dtypes.float32)
    outputs = [
        b.abs(empty),
        b.add(step, 1),
        b.sum(empty, axes=(0,)),
        b.prod(wide, axes=(1,)),
        b.sum(empty, axes=(1,)),
        b.matmul(wide, empty),
        b.matmul(empty, ones),
        b.add(b.sum(wide, axes=(1,)), 2),
        ones,
    ]
    check_graph(
        device, outputs, {empty: np.zeros((0, 5), np.float32), wide: np.zeros((7, 0), np.float32), step: np.array(41)}
    )


@pytest.mark.parametrize("device", [KERNELS, *RUNTIMES])
def test_reductions_that_depend_on_no_row(device: str) -> None:
    """Every row reduces the same elements: what is made of the result still belongs behind the reduction."""
    b, x, table = Builder(), placeholder("float32", (37,)), placeholder("float32", (40,))
    spread = b.broadcast_to(x, (5, 37))
    top, where = b.max(spread, axes=(1,)), b.argmax(spread, axes=(1,))
    moved = b.sub(spread, b.broadcast_to(b.reshape(top, shape=(5, 1)), (5, 37)))
    total = b.sum(moved, axes=(1,))
    outputs = [
        b.mul(moved, b.broadcast_to(b.reshape(total, shape=(5, 1)), (5, 37))),
        b.take(table, b.add(where, 1), axis=0),
        b.abs(total),
    ]
    rng = np.random.default_rng(3)
    check_graph(
        device,
        outputs,
        {x: rng.integers(-9, 9, 37).astype(np.float32), table: rng.integers(-9, 9, 40).astype(np.float32)},
    )
