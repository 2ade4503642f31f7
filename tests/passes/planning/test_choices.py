"""What a plan takes in place of first guesses: less text for little time, within a bound, and never other bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from support.device_names import CPUS

import graphcore as gc
from backends.codegen.device_costs import costs_of
from backends.codegen.registry import BY_NAME
from graphcore.kernel.ir import Kernel
from graphcore.plan.backend import Piece
from graphcore.plan.costs import Work
from graphcore.plan.target import Target
from passes.planning.choices import LEAST_SECONDS, MOST_SLOWER, RUNS, choose_for_plan

COSTS = costs_of("intel", "cpu", 2, 16)


@dataclass(frozen=True)
class Way:
    """A choice with a function of its own."""

    function: str
    build: float

    def describe(self) -> str:
        return self.function


def piece(function: str, build: float, milliseconds: float) -> list[Piece]:
    """One kernel's only piece, of so much time."""
    instructions = round(milliseconds * 1e-3 / COSTS.instruction_seconds)
    return [Piece(Kernel("k", (), (), ()), "f", Way(function, build), (), work=Work(instructions=instructions))]


def written(one):
    return one.choices.function, one.choices.build


def choose(firsts, menus):
    """The functions that were chosen, and what was said."""
    target = Target("t", COSTS, function=written)
    said: list[str] = []
    asked: list[int] = []

    def others(number):
        asked.append(number)
        first = firsts[number][-1].choices.build
        return [(pieces, pieces[-1].choices.build / first) for pieces in menus.get(number, [])]

    made = choose_for_plan(firsts, others, target, {}, said.append)
    return [pieces[-1].choices.function for pieces in made], said, asked


BIG = piece("big", 1.0, 100.0)


def test_less_text_is_taken_where_it_compiles_faster_than_it_will_run_slower() -> None:
    menu = {1: [piece("worth", 0.1, 1.2)]}
    found, said, _ = choose([BIG, piece("first", 0.5, 1.0)], menu)
    assert found == ["big", "worth"]
    assert len(said) == 1 and "k: worth in place of first" in said[0] and "compiles 0.40 s faster" in said[0]
    slower = 1.0 + 0.4 / RUNS * 1e3 + 0.01  # a little more than the seconds are worth
    assert choose([BIG, piece("first", 0.5, 1.0)], {1: [piece("worth", 0.1, slower)]})[0] == ["big", "first"]


def test_the_best_of_a_menu_is_taken() -> None:
    menu = {1: [piece("some", 0.3, 1.0), piece("best", 0.1, 1.05), piece("least", 0.09, 1.3)]}
    assert choose([BIG, piece("first", 0.5, 1.0)], menu)[0] == ["big", "best"]


def test_more_text_is_never_taken() -> None:
    assert choose([BIG, piece("first", 0.5, 1.0)], {1: [piece("more", 0.6, 0.5)]})[0] == ["big", "first"]


def test_all_that_is_given_up_stays_below_a_part_of_the_run() -> None:
    firsts = [BIG, *(piece(f"first{i}", 0.9, 1.0) for i in range(10))]
    menus = {i: [piece(f"other{i}", 0.1, 1.3)] for i in range(1, 11)}
    found, said, _ = choose(firsts, menus)
    run = 110.0
    taken = sum(name.startswith("other") for name in found)
    assert taken == len(said) == int(MOST_SLOWER * run / 0.3)  # each for itself would be worth it
    assert 0 < taken < 10


def test_kernels_of_one_function_are_chosen_for_together() -> None:
    firsts = [BIG, piece("same", 0.5, 0.1), piece("same", 0.5, 0.1), piece("other", 0.01, 0.1)]
    found, said, asked = choose(firsts, {1: [piece("less", 0.1, 0.1)], 2: [piece("less", 0.1, 0.1)]})
    assert found == ["big", "less", "less", "other"]
    assert len(said) == 1 and "k, 2 times: less in place of same" in said[0]
    assert 3 not in asked and LEAST_SECONDS > 0.01  # too little to be gained


def test_kernels_whose_other_functions_differ_stay_as_they_are() -> None:
    firsts = [BIG, piece("same", 0.5, 0.1), piece("same", 0.5, 0.1)]
    assert choose(firsts, {1: [piece("a", 0.1, 0.1)], 2: [piece("b", 0.1, 0.1)]})[0] == ["big", "same", "same"]


def test_a_function_that_is_there_already_costs_nothing() -> None:
    firsts = [BIG, piece("there", 0.3, 5.0), piece("first", 0.4, 0.1)]
    for other, saved in (("there", "0.40"), ("new", "0.10")):
        found, said, _ = choose(firsts, {2: [piece(other, 0.3, 0.15)]})
        assert found == ["big", "there", other]
        assert f"compiles {saved} s faster" in said[0]


def test_a_plan_of_many_kernels_asks_once_for_each_function() -> None:
    for count in (10, 1000):
        firsts = [BIG, *(piece(f"f{i % 5}", 0.5, 0.1) for i in range(count))]
        _, _, asked = choose(firsts, {})
        assert len(asked) == 6


def network():
    """A convolution over many channels, whose tiles leave a rest, and small work beside a large product."""
    rng = np.random.default_rng(3)
    x = gc.placeholder("float32", (2, 3, 18, 18), name="x")
    y = gc.placeholder("float32", (1200, 700), name="y")
    w = gc.Variable(rng.standard_normal((40, 3, 3, 3)).astype(np.float32), name="w")
    v = gc.Variable(rng.standard_normal((700, 900)).astype(np.float32), name="v")
    h = gc.relu(gc.nn.functional.conv2d(x, w, padding=1) + 1)
    (grad,) = gc.gradients((h * h).sum(), [x])
    feeds = {x: rng.standard_normal(x.shape).astype(np.float32), y: rng.standard_normal(y.shape).astype(np.float32)}
    return [h.mean(axis=(0, 2, 3)), grad, (y @ v).sum(axis=1)], feeds


@pytest.mark.parametrize("device", CPUS)
def test_what_is_chosen_keeps_every_bit_and_is_explained(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fetches, feeds = network()
    with gc.Session(device) as session:
        chosen = session.run(fetches, feeds)
        compiled = session.compile(fetches, feeds)
        lines = [line for line in compiled.explain().splitlines() if " in place of " in line]
        length = compiled.program.length
        plan = compiled.plan
    assert any("tiles" in line for line in lines), lines
    monkeypatch.setattr("passes.planning.choices.LEAST_SECONDS", float("inf"))
    with gc.Session(device) as session:
        first = session.run(fetches, feeds)
        compiled = session.compile(fetches, feeds)
        assert " in place of " not in compiled.explain()
        assert compiled.program.length > length
        differing = [(a, b) for a, b in zip(plan.steps, compiled.plan.steps, strict=True) if a.choices != b.choices]
    for a, b in zip(chosen, first, strict=True):
        np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))
    assert differing
    for a, b in differing:
        one, other = (BY_NAME[s.family].order_of_sums(s.kernel, s.choices) for s in (a, b))
        assert one == other
