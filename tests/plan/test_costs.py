"""The cost model: what must hold whatever its numbers are, and that the fit finds numbers again."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.codegen.device_costs import costs_of
from benchmarks.costs import Timed, fitted
from graphcore.base.shapes import Dim, bind
from graphcore.plan.costs import CostModel, Work

CLASSES = [("intel", "cpu", 4, 16), ("pocl", "cpu", 4, 8), ("nvidia", "gpu", 28, 1), ("oracle", "oracle", 1, 16)]
SOME = Work(products=10**7, instructions=10**6, scattered=10**5, far=10**4, turns=10**5, traffic=10**7, rate="float64")


@pytest.fixture(params=CLASSES, ids=lambda c: f"{c[0]} {c[1]}")
def costs(request: pytest.FixtureRequest) -> CostModel:
    return costs_of(*request.param)


def test_amounts_are_extents() -> None:
    batch = Dim("batch")
    work = Work(products=batch * 6, instructions=batch * 2 + 1, traffic=7)
    assert work.bound({"batch": 5}) == Work(products=30, instructions=11, traffic=7)


@pytest.mark.parametrize("amount", ["products", "instructions", "scattered", "far", "turns", "traffic"])
def test_more_work_takes_no_less(costs: CostModel, amount: str) -> None:
    more = replace(SOME, **{amount: 3 * getattr(SOME, amount)})
    for tasks in (1, 3, 40):
        for footprint in (1e4, 1e7, 1e9):
            assert costs.seconds(more, tasks, footprint) >= costs.seconds(SOME, tasks, footprint)
    alone = Work(**{amount: 10**9}, rate="float64")
    if getattr(costs, f"{amount}_seconds", None) != (0.0, 0.0, 0.0):  # GPUs hide how far apart vectors are
        assert costs.seconds(alone, 1, 1e9) > 2 * costs.seconds(Work(), 1, 1e9)


def test_cores_share_tasks(costs: CostModel) -> None:
    for footprint in (1e4, 1e9):
        alone = costs.seconds(SOME, 64 * costs.cores, footprint, alone=True)
        together = costs.seconds(SOME, 64 * costs.cores, footprint)
        assert alone / costs.cores * 0.99 <= together <= alone
        # A task more than there are cores is a second round, in which most cores wait.
        even, uneven = (costs.seconds(SOME, costs.cores + more, footprint) for more in (0, 1))
        assert uneven >= even
    assert costs.seconds(SOME, 0, 1e9) == costs.row_seconds


def test_places_are_parts_and_change_without_jumps(costs: CostModel) -> None:
    footprints = np.geomspace(1e3, 1e11, 2000)
    places = np.array([costs.places(f) for f in footprints])
    assert (places >= 0).all() and np.allclose(places.sum(1), 1)
    assert costs.places(costs.cache_bytes[0]) == (1.0, 0.0, 0.0) and places[-1, 2] > 0.99
    assert np.abs(np.diff(places, axis=0)).max() < 0.02
    seconds = [costs.byte_seconds(f) for f in footprints]
    assert np.diff(seconds).min() >= -1e-20  # farther away is never faster


def test_what_is_not_scheduled_costs_what_all_cores_take(costs: CostModel) -> None:
    more = replace(costs, cores=2 * costs.cores)
    assert more.elementwise_seconds(1e9) == pytest.approx(costs.elementwise_seconds(1e9) / 2)
    assert more.traffic_seconds(1e9) <= costs.traffic_seconds(1e9)
    assert costs.kernel_seconds > 0 and replace(costs, launch_seconds=1.0).kernel_seconds > costs.kernel_seconds
    assert costs.product_seconds(costs.product_operations(2.0)) == pytest.approx(2.0)
    assert costs.build_seconds(2048) == pytest.approx(costs.compile_seconds[0] + 2 * costs.compile_seconds[1])
    assert costs.tasks_worth(0.0) == 1
    assert costs.tasks_worth(7.5 * costs.least_task_seconds) == 7


def test_a_class_scales_with_its_cores() -> None:
    one, eight = costs_of("intel", "cpu", 1, 16), costs_of("intel", "cpu", 8, 16)
    assert replace(one, cores=8, memory_cores=eight.memory_cores) == eight
    assert hash(one) != hash(eight)  # frozen, and fit for keys


def test_the_fit_finds_numbers_again() -> None:
    """Times that a model with other numbers gives lead to that model's predictions."""
    start = costs_of("intel", "cpu", 2, 16)
    true = replace(
        start,
        instruction_seconds=start.instruction_seconds * 3,
        row_seconds=start.row_seconds * 2,
        product_rates=tuple((t, r / 2) for t, r in start.product_rates),
        bytes_per_second=(1e11, 4e10, 1e10),
    )
    draw = np.random.default_rng(0)
    timed = []
    for number in range(60):
        scale = [int(10 ** draw.uniform(3, 7)) * int(draw.random() < 0.5) for _ in range(6)]
        kind = ("float32", "float64")[number % 2]
        work = Work(scale[0] * 50, kind, scale[1], scale[2] // 9, scale[3] // 99, scale[4] // 9, scale[5] * 4)
        step: Any = SimpleNamespace(row=SimpleNamespace(work=work, tasks=8), best=0.0)
        step.best = true.seconds(work, 8, 10.0 ** (4 + number % 5), alone=True)
        timed.append(Timed(f"p{number}", step, 10 ** (4 + number % 5)))
    before = np.median([abs(t.error(start, True)) for t in timed])
    after = np.median([abs(t.error(fitted(start, timed, True), True)) for t in timed])
    assert before > 0.3 and after < 0.05


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_tasks_of_symbolic_work_are_those_of_its_numbers(kind: str) -> None:
    n, m = Dim("n"), Dim("m")
    costs = costs_of("intel", kind, 4, 16)
    pieces = [
        Work(instructions=n * 7 + 3, traffic=n * 8),
        Work(instructions=n * m + 40, scattered=(n + 3) // 4, traffic=n * m * 4 + m * 4),
        Work(instructions=n * 2, turns=n * 5, traffic=n * 4096),
        Work(instructions=m * 16, far=n * 12, traffic=m * 64),
        Work(products=n * m * 512, instructions=n, traffic=n * 4 + m * 4),
    ]
    found = set()
    for work in pieces:
        tasks = costs.tasks_worth_starting(work)
        for sizes in ({"n": a, "m": b} for a in (0, 1, 9, 400, 20000) for b in (0, 5, 64)):
            wanted = costs.tasks_worth_starting(work.bound(sizes))
            got = bind(tasks, sizes)
            if work.bound(sizes).traffic <= costs.cache_bytes[0]:
                assert abs(got - wanted) <= 1 + wanted / 500, (work, sizes)  # whole femtoseconds
            found.add(got)
    assert 1 in found and max(found) > 50
