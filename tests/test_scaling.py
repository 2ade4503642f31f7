"""Compiling large graphs costs near-linear work, counted and not timed; another batch size builds nothing."""

from __future__ import annotations

import cProfile
import gc as collector
from typing import Any

import numpy as np
import pytest
from support.devices import backend
from support.plan_models import RUNTIMES, mlp, session, train

import graphcore as gc
from backends.opencl.compiler.build import build_count
from benchmarks.graphs import GRAPHS, Make, collected
from graphcore.api.tensor import Tensor
from passes.driver import run_stages
from passes.pipeline import DEFAULT
from passes.stage import StageContext

GROWTH = 13  # for ten times the nodes


def counted(make: Make, nodes: int, profiled: bool) -> dict[str, int]:
    """Visits and attempts of every stage; with ``profiled`` also all Python calls, which leave no loop uncounted but
    take long."""
    graph = collected(make, nodes)
    assert 0.9 * nodes <= len(graph.nodes()) <= 1.1 * nodes
    work: dict[str, int] = {}
    running = run_stages(DEFAULT.stages, graph, StageContext(backend(RUNTIMES[0]).target))
    profile = cProfile.Profile()
    while True:
        if profiled:
            profile.enable()
        try:
            done = next(running, None)
        finally:
            profile.disable()
        if done is None:
            return work
        name = done.stage.name
        if profiled:
            work[f"{name} calls"] = sum(entry.callcount for entry in profile.getstats())
            profile.clear()
        work[f"{name} visits"], work[f"{name} attempts"] = done.record.visits, done.record.attempts


@pytest.mark.parametrize(("nodes", "profiled"), [(1_000, False), pytest.param(10_000, True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", GRAPHS.values())
def test_ten_times_the_nodes_are_at_most_13_times_the_work(make: Make, nodes: int, profiled: bool) -> None:
    small, large = counted(make, nodes, profiled), counted(make, 10 * nodes, profiled)
    assert {k for k, v in small.items() if v} >= {
        "simplify visits",
        "simplify attempts",
        "fuse visits",
        "fuse attempts",
    }
    grown = {k: f"{small[k]:,} -> {large[k]:,}" for k in small if large[k] > GROWTH * max(small[k], 10)}
    assert not grown, grown


def chained(ops: int) -> tuple[Tensor, Tensor]:
    """A scalar made by so many operations, one after the other, and what it is made of."""
    x = gc.placeholder("float32", (64,))
    t = x
    for _ in range(ops // 2):
        t = gc.tanh(t + 1.0)
    return t.sum(), x


def test_nodes_cost_the_garbage_collector_little() -> None:
    # A full collection walks every object of every graph; what nodes of one line and type can share, they share. A
    # node, its value as an operand, its tuple of operands, its op, and the weak reference to the tensor that it had.
    chained(10)
    collector.collect()
    before = len(collector.get_objects())
    kept = chained(2000)
    collector.collect()
    assert len(collector.get_objects()) - before <= 8.6 * 2000
    runs: list[Any] = []
    collector.callbacks.append(lambda phase, info: runs.append(info["generation"]))
    try:
        kept = gc.gradients(*kept)
    finally:
        collector.callbacks.pop()
    assert len(runs) <= 2 * 2 and 2 not in runs, "before and after only: differentiating makes no garbage"
    assert collector.isenabled()


@pytest.mark.parametrize("device", RUNTIMES)
def test_a_last_smaller_batch_builds_nothing(device: str) -> None:
    sess = session(device)
    fetches, feeds = train(mlp([16, 24, 10]), (16,), 32)
    step = sess.make_callable(fetches, list(feeds))
    features, labels = feeds.values()
    step(features, labels)
    built = build_count()
    loss, _ = step(features[:7], labels[:7])
    assert np.isfinite(loss)
    step(features, labels)
    step(features[:1], labels[:1])
    assert build_count() == built
