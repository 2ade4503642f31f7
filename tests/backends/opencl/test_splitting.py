"""Plans of several programs: how functions are divided, and that results do not tell."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from support.plan_models import RUNTIMES

import graphcore as gc
from backends.codegen.device_costs import costs_of
from backends.opencl.launch_modes import LAUNCHES, Grid, Row, mode_seconds, plan_launches
from backends.opencl.runtime import BoundPlan
from backends.opencl.splitting import Split, Splitting, split_functions
from graphcore import nn, optim
from graphcore.plan.costs import Work

COSTS = costs_of("intel", "cpu", 4, 16)
FREE = Splitting(COSTS, 4, worker_seconds=0.0)


def cuts(split: Split, levels: list[list[int]]) -> int:
    programs = iter(split.of_step)
    return sum(len({next(programs) for _ in level}) - 1 for level in levels)


def check(split: Split, sizes: list[int], levels: list[list[int]]) -> None:
    """Every step's program has its function, and no program has one that nothing of it calls."""
    steps = [f for level in levels for f in level]
    assert all(f in split.members[p] for f, p in zip(steps, split.of_step, strict=True))
    called = set(zip(steps, split.of_step, strict=True))
    assert all((f, p) in called for p, members in enumerate(split.members) for f in members)


def test_functions_are_divided_evenly_and_a_chain_is_cut_nowhere() -> None:
    sizes, levels = [20_000] * 12, [[f] for f in range(12)]
    split = split_functions(sizes, levels, FREE)
    assert [len(m) for m in split.members] == [3, 3, 3, 3] and cuts(split, levels) == 0
    assert split.of_step == (0,) * 3 + (1,) * 3 + (2,) * 3 + (3,) * 3
    check(split, sizes, levels)


def test_levels_stay_together() -> None:
    levels = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]] * 3
    split = split_functions([20_000] * 12, levels, FREE)
    assert len(split.members) == 4 and cuts(split, levels) == 0
    assert {tuple(sorted(m)) for m in split.members} == {tuple(sorted(level)) for level in levels}


def test_a_small_function_of_many_levels_is_copied() -> None:
    big, small = 40_000, 300
    levels = [[0, 2], [1, 2]] * 10
    split = split_functions([big, big, small], levels, dataclasses.replace(FREE, most=2))
    assert sorted(split.members) == [(0, 2), (1, 2)] and cuts(split, levels) == 0
    check(split, [big, big, small], levels)


@pytest.mark.parametrize("splitting", [dataclasses.replace(FREE, most=1), Splitting(COSTS, 4)])
def test_small_texts_and_single_cores_have_one_program(splitting: Splitting) -> None:
    split = split_functions([1000] * 12, [[f] for f in range(12)], splitting)
    assert split == Split((tuple(range(12)),), (0,) * 12)
    assert split_functions([], [], splitting).of_step == ()


def test_a_cut_that_costs_more_than_it_saves_is_not_made() -> None:
    levels = [[0, 1]] * 1000
    assert len(split_functions([5000, 5000], levels, FREE).members) == 1


@pytest.mark.parametrize("seed", range(8))
def test_random_plans(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 40))
    sizes = [int(n) for n in rng.integers(100, 60_000, count)]
    levels = [[int(f) for f in rng.integers(0, count, rng.integers(1, 6))] for _ in range(30)]
    levels += [[f] for f in range(count)]
    split = split_functions(sizes, levels, FREE)
    check(split, sizes, levels)
    assert split == split_functions(sizes, levels, FREE)
    longest = max(sum(sizes[f] for f in m) for m in split.members)
    assert longest <= sum(sizes)


# --- launches --------------------------------------------------------------------------------------------------------


def row(function: int, program: int, tasks: int = 2) -> Row:
    return Row(function, tasks, (function,), Work(instructions=1000), program)


def test_a_cut_level_has_a_launch_for_each_program() -> None:
    a, b, c, idle = row(0, 0), row(1, 1), row(2, 0, 3), row(3, 1, 0)
    levels = [[a, b, c], [b], [b, a], [idle, c]]
    order, launches = plan_launches(levels, LAUNCHES["level"], False)
    assert order[:3] == [(a, 0), (c, 2), (b, 0)]
    assert [(g.groups, g.program) for g in launches] == [(5, 0), (2, 1), (2, 1), (2, 0), (2, 1), (3, 0)]
    assert all(r.program == g.program for g in launches for r, _ in order[g.first : g.last])


def test_one_work_item_runs_every_stretch_of_a_program() -> None:
    a, b = row(0, 0), row(1, 1)
    order, launches = plan_launches([[a, b], [a, b], [b]], LAUNCHES["one"], False)
    assert [r for r, _ in order] == [a, b, b, a, b]  # a level goes on with the program that ran last
    assert launches == [
        Grid("run_plan", 1, 0, 1),
        Grid("run_plan", 1, 1, 3, 1),
        Grid("run_plan", 1, 3, 4),
        Grid("run_plan", 1, 4, 5, 1),
    ]


def test_cut_levels_and_stretches_cost_their_launches() -> None:
    whole, cut = ([[row(0, 0), row(1, p)]] * 3 for p in (0, 1))
    started = COSTS.launch_seconds + COSTS.level_seconds
    one, several = (mode_seconds(levels, COSTS, 1e4, False) for levels in (whole, cut))
    assert several[LAUNCHES["one"]] - one[LAUNCHES["one"]] == pytest.approx(3 * started)  # 0 1, 1 0, 0 1
    assert several[LAUNCHES["level"]] - one[LAUNCHES["level"]] >= 3 * started * 0.999
    assert several[LAUNCHES["step"]] == pytest.approx(one[LAUNCHES["step"]])


# --- results ---------------------------------------------------------------------------------------------------------


def _trained(device: str, launch: str, splitting: Splitting | None) -> tuple[int, int, list[Any]]:
    """Programs and launches of a small network's training step, and what three of them leave."""
    x, y = gc.placeholder("float32", (None, 1, 8, 8), name="x"), gc.placeholder("int64", (None,), name="y")
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5)
    )
    loss = nn.functional.cross_entropy(model(x), y)
    step = optim.Adam(1e-2).minimize(loss)
    rng = np.random.default_rng(0)
    feeds = {x: rng.standard_normal((6, 1, 8, 8), dtype=np.float32), y: rng.integers(0, 5, 6)}
    with gc.Session(device, seed=1, launch=launch) as session:
        session._backend.splitting = splitting
        losses = [session.run([loss, step], feeds)[0] for _ in range(3)]
        compiled = session.compile([loss, step], feeds)
        values = [session.run(p) for p in model.parameters()]
        return len(compiled.program.built), compiled.launches, [*losses, *values]


@pytest.mark.parametrize("device", RUNTIMES)
def test_results_are_equal_bit_for_bit_however_many_programs_there_are(device: str) -> None:
    _, _, expected = _trained(device, "level", None)
    for launch in ("step", "level", "auto"):
        programs, launches, found = _trained(device, launch, FREE)
        assert programs > 1 and launches > 1
        assert all(a.tobytes() == b.tobytes() for a, b in zip(found, expected, strict=True))
    programs, launches, found = _trained(device, "one", FREE)
    assert programs == launches == 1  # who asks for one launch gets one program
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("device", RUNTIMES)
def test_one_work_item_runs_several_programs(device: str) -> None:
    """A plan that was divided may still be cheapest in as few launches as there are stretches."""
    quick = dataclasses.replace(COSTS, launch_seconds=1e-7, level_seconds=1e-7)
    x = gc.placeholder("float32", (4, 8), name="x")
    y = gc.softmax(gc.tanh(gc.softmax(x, -1)), 0).sum(axis=1)
    feed = np.random.default_rng(0).standard_normal((4, 8), dtype=np.float32)
    with gc.Session(device) as session:
        expected = session.run(y, {x: feed})
    with gc.Session(device) as session:
        session._backend.splitting = Splitting(quick, 4, worker_seconds=0.0)
        compiled = session.compile(y, {x: (4, 8)})
        bound = BoundPlan(
            session._backend, compiled.program, compiled.place(compiled.hints), compiled.slots, LAUNCHES["one"]
        )
        assert bound.launches == len(compiled.program.built) > 1
        assert bound.run([feed])[0].tobytes() == expected.tobytes()
