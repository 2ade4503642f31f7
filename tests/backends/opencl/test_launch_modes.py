"""How plans are launched: which mode the model prefers, and the tables and launches of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.devices import backend
from support.plan_models import RUNTIMES

import graphcore as gc
from backends.codegen.device_costs import costs_of
from backends.opencl.launch_modes import LAUNCHES, Grid, Row, choose_mode, mode_seconds, plan_launches
from backends.opencl.measure import measure_steps
from graphcore.base.errors import UsageError
from graphcore.plan.costs import Work

CPU = costs_of("intel", "cpu", 2, 16)
GPU = costs_of("nvidia", "gpu", 28, 1)


def row(instructions: int, tasks: int = 8, function: int = 0) -> Row:
    return Row(function, tasks, (function,), Work(instructions=instructions))


def test_small_plans_run_in_one_launch_and_large_ones_by_level() -> None:
    small, large = ([[row(size)] * 3] * 5 for size in (100, 10**7))
    assert choose_mode(mode_seconds(small, CPU, 1e4, False)) == LAUNCHES["one"]
    assert choose_mode(mode_seconds(large, CPU, 1e4, False)) == LAUNCHES["level"]
    assert choose_mode(mode_seconds([[row(100, 1)]] * 20, GPU, 1e4, True)) == LAUNCHES["one"]
    assert choose_mode(mode_seconds([[row(10**9, 500)]], GPU, 1e4, True)) == LAUNCHES["level"]


def test_a_levels_steps_share_a_launch_on_cpus_and_functions_have_their_own_on_gpus() -> None:
    levels = [[row(1000, 1, f) for f in (0, 1, 0)], [row(1000, 0, 2)], [row(1000, 1, 2)]]
    cpu, gpu = mode_seconds(levels, CPU, 1e4, False), mode_seconds(levels, GPU, 1e4, True)
    for costs, seconds, launches in ((CPU, cpu, 2), (GPU, gpu, 3)):
        one = costs.seconds(levels[0][0].work, 1, 1e4)
        started = launches * costs.launch_seconds + 2 * costs.level_seconds  # the level with nothing to do is free
        assert started < seconds[LAUNCHES["level"]] <= started + 4 * one * 1.001
        assert seconds[LAUNCHES["step"]] == pytest.approx(4 * (one + costs.launch_seconds + costs.level_seconds))


def test_tables_and_launches() -> None:
    a, b, c, d = row(1, 3, 0), row(2, 2, 1), row(3, 4, 0), row(4, 0, 1)
    levels = [[a, b, c], [d], [b]]
    assert plan_launches(levels, LAUNCHES["level"], False) == (
        [(a, 0), (b, 3), (c, 5), (d, 0), (b, 0)],
        [Grid("run_plan", 9, 0, 3), Grid("run_plan", 2, 4, 5)],
    )
    assert plan_launches(levels, LAUNCHES["one"], False)[1] == [Grid("run_plan", 1, 0, 5)]
    order, launches = plan_launches(levels, LAUNCHES["step"], False)
    assert [r for r, _ in order] == [a, b, c, b] and {first for _, first in order} == {0}
    assert launches[2] == Grid("run_plan", 4, 2, 3)
    assert plan_launches(levels, LAUNCHES["level"], True) == (
        [(a, 0), (c, 3), (b, 0), (b, 0)],
        [Grid("step_0", 7, 0, 2), Grid("step_1", 2, 2, 3), Grid("step_1", 2, 3, 4)],
    )
    assert plan_launches(levels, LAUNCHES["one"], True)[1] == [Grid("run_whole", 1, 0, 4)]
    assert plan_launches([[d]], LAUNCHES["one"], True) == ([], [])


def _compiled(device: str) -> tuple[Any, list[Any], Any]:
    x = gc.placeholder("float32", (64, 32), name="x")
    w = gc.Variable(np.eye(32, dtype=np.float32), name="w")
    y = gc.softmax(x @ w, -1)
    feeds = {x: np.ones((64, 32), np.float32)}
    session = gc.Session(device)
    fetches = [y.sum(), w.assign(w * 1.5)]
    session.run(fetches, feeds)
    return session.compile(fetches, feeds), list(feeds.values()), (session, w)


@pytest.mark.parametrize("device", RUNTIMES)
@pytest.mark.parametrize("alone", [False, True])
def test_every_step_is_timed_in_every_pass(device: str, alone: bool) -> None:
    compiled, arrays, (session, w) = _compiled(device)
    placed = compiled.place(compiled.hints)
    found = measure_steps(
        compiled.backend, compiled.program, placed, compiled.slots, arrays, 0.0, passes=3, alone=alone
    )
    assert [m.step for m in found] == list(compiled.plan.steps)
    assert all(len(m.seconds) == 3 and 0 < m.best == min(m.seconds) < 10 for m in found)
    np.testing.assert_allclose(session.run(w), np.eye(32) * 1.5**4)  # one run and three passes: the steps did run
    assert session.run(compiled.plan and w.sum(), {}) == pytest.approx(32 * 1.5**4)


def test_no_gpu_runs_a_step_on_one_core() -> None:
    gpu = backend(f"{RUNTIMES[0]}:as-gpu")
    with pytest.raises(UsageError, match="CPU"):
        measure_steps(gpu, None, None, (), [], 0.0, alone=True)  # type: ignore[arg-type]
