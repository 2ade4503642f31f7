"""What flows where: hazards of the list, of state and of values written over others; lifetimes and peaks; and programs
whose updates depend on it."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from support.devices import backend

import graphcore as gc
from graphcore.base.errors import VerifyError
from graphcore.ir.graph import Graph, collect
from graphcore.plan.plan import Plan
from graphcore.runtime.fetches import flatten_fetches
from passes.pipeline import compile_graph
from passes.planning.flow import Access, Flow, accesses, arena_sizes, lifetimes


def needs(flow: Flow, number: int) -> set[int]:
    return set(flow.before[number])


def test_readers_of_state_see_the_old_value_wherever_they_stand() -> None:
    steps = [Access((0,), (1,)), Access((1,), (0,)), Access((0,), (2,)), Access((0, 2), (0,))]
    flow = Flow(steps[:3], state={0})
    assert needs(flow, 1) == {0, 2} and not needs(flow, 2)
    assert flow.levels() == [0, 1, 0]
    assert Flow(steps[:3]).levels() == [0, 1, 2]  # in a plain list the third step reads what the second wrote
    assert needs(Flow([steps[3]], state={0}), 0) == set()  # its own read is no other step's


def test_a_value_written_over_another_waits_for_that_ones_readers() -> None:
    """Value 5 is to live where 0 was: its writer waits for readers of 0, its own readers follow the writer."""
    steps = [Access((0,), (1,)), Access((0, 1), (5,)), Access((0,), (2,)), Access((5,), (3,)), Access((0, 3), (4,))]
    flow = Flow(steps, state={0}, over={5: 0})
    assert needs(flow, 1) == {0, 2, 4} and needs(flow, 3) == {1}
    assert flow.circular() == {1, 3, 4}  # the last step needs the old value and what is made of the new one
    with pytest.raises(VerifyError, match="circle"):
        flow.levels()
    assert Flow(steps[:4], state={0}, over={5: 0}).levels() == [0, 1, 0, 2]
    made = [Access((), (0,)), Access((), (5,)), Access((0,), (1,))]  # no state: what makes the old value comes before
    assert needs(Flow(made, over={5: 0}), 1) == {0, 2}


def test_follows_finds_the_earliest_that_depends() -> None:
    steps = [Access((), (0,)), Access((0,), (1,)), Access((), (2,)), Access((1, 2), (3,)), Access((3,), (4,))]
    flow = Flow(steps)
    assert flow.follows(0, [4, 3]) == 3
    assert flow.follows(0, [2]) is None
    assert flow.follows(2, []) is None
    assert flow.follows(2, [1, 4]) == 4


def test_lifetimes_cover_whole_times() -> None:
    steps = [Access((0,), (1,), 3), Access((1,), (2,), 4), Access((2, 0), (3,)), Access((2,), (2,), 5)]
    flow = Flow(steps)
    times = [0, 1, 1, 2]
    assert flow.lifetimes(times, keep={3, 9}, initial={8}) == {
        8: (-1, -1),
        0: (-1, 1),
        1: (0, 1),
        2: (1, 2),
        3: (1, 3),
    }
    sizes = {0: 100, 1: 10, 2: 1, 3: 1000, 8: 9999}
    assert flow.peak(times, sizes, keep={3}) == 100 + 10 + 1 + 1000 + 4
    assert flow.peak(times, sizes, keep={3}, initial={8}) == 9999 + 100
    assert flow.peak([0, 1, 2, 3], {1: 10, 2: 1}) == 10 + 1 + 4  # values without a size cost nothing


def _plan(fetches: Any, feeds: tuple[Any, ...]) -> Plan:
    tensors, updates, _ = flatten_fetches(fetches)
    graph = collect(tensors, updates, [t.value for t in feeds])
    graph = Graph(graph.outputs, graph.updates, feeds)
    return compile_graph(graph, backend("numpy:kernels").target, {}).plan


def test_a_plans_buffers_are_fed_kept_and_never_read_before_they_are_written() -> None:
    x = gc.placeholder("float32", (8, 8), name="x")
    w = gc.Variable(np.eye(8, dtype=np.float32), name="w")
    y = gc.exp(x @ w)
    plan = _plan([y.max(axis=0), w.assign(w + y)], (x,))
    flow = Flow(accesses(plan))
    fed, fetched = set(plan.feeds), {f.buffer for f in plan.fetches}
    variables = set(plan.variables)
    assert flow.initial == fed | variables
    lives, sizes = lifetimes(plan), arena_sizes(plan, {})
    assert not variables & (lives.keys() | sizes.keys())
    assert lives.keys() <= sizes.keys()
    end = plan.steps[-1].level + 1
    assert all(lives[n][1] == end for n in fetched) and all(lives[n][0] == -1 for n in fed)
    for step in plan.steps:
        for n in {*step.reads, *step.writes} & lives.keys():
            assert lives[n][0] <= step.level <= lives[n][1]


# Programs


def test_two_variables_may_take_one_value() -> None:
    """The second one's copy reads the value where it was written: over the first variable."""
    x = gc.placeholder("float32", (4,), name="x")
    a, b, c = (gc.Variable(np.full(4, i, np.float32), name=n) for i, n in enumerate("abc"))
    value = x * 2 + a
    feed = np.arange(4, dtype=np.float32)
    for order in permutations((a, b, c)):
        with gc.Session("numpy:kernels") as s:
            s.run([v.assign(value) for v in order], {x: feed})
            for v in order:
                np.testing.assert_array_equal(s.run(v), feed * 2)
    with gc.Session("numpy:kernels") as s:
        fetched, _ = s.run([value, [b.assign(value), a.assign(value)]], {x: feed})
        np.testing.assert_array_equal(fetched, feed * 2)
        np.testing.assert_array_equal(s.run(b), s.run(a))


def test_updates_that_need_each_others_old_values() -> None:
    """All three want the others' old values, and two take the same new one."""
    x = gc.placeholder("float32", (4,), name="x")
    a, b, c = (gc.Variable(np.full(4, i + 1, np.float32), name=n) for i, n in enumerate("abc"))
    new_a, new_b = gc.exp(b * x).sum() * a, gc.exp(a * x).sum() * b
    updates = {a: new_a, c: new_a, b: new_b}
    feed = np.arange(4, dtype=np.float32) / 4
    for order in permutations(updates):
        found = []
        for device in ("numpy", "numpy:kernels"):
            with gc.Session(device) as s:
                s.run([v.assign(updates[v]) for v in order], {x: feed})
                found.append([s.run(v) for v in (a, b, c)])
        np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_a_memory_limit_with_late_readers_of_an_updated_variable() -> None:
    """Steps that stand behind an update in place and read the old value run before it in every order."""
    x = gc.placeholder("float32", (64, 64), name="x")
    w = gc.Variable(np.full((64, 64), 0.01, np.float32), name="w")
    late = [gc.exp((gc.exp(x @ x) * float(i)) @ w).max(axis=0) for i in range(1, 9)]
    fetches = [sum(late[1:], late[0]).sum(), w.assign(gc.exp(x) + w)]
    feed = {x: np.eye(64, dtype=np.float32)}
    with gc.Session("numpy:kernels") as plain:
        wide = plain.compile(fetches, {x: (64, 64)}).memory_analysis()["arena_bytes"]
        expected, _ = plain.run(fetches, feed)
        updated = plain.run(w)
    with gc.Session("numpy:kernels", memory_limit=wide // 2 + w.size * 4) as tight:
        compiled = tight.compile(fetches, {x: (64, 64)})
        found, _ = tight.run(fetches, feed)
        assert compiled.fewest_bytes and compiled.memory_analysis()["arena_bytes"] <= wide // 2
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        np.testing.assert_array_equal(tight.run(w), updated)
