"""The pipeline: verification, fuel, dumps of every stage, and the replay that names a guilty pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import graphcore as gc
from graphcore.base.errors import UsageError
from graphcore.ir.graph import Graph, rebuild
from graphcore.ir.node import Builder
from graphcore.tools.guilty_pass import replay
from passes.graph.base import Pass
from passes.graph.inline_regions import InlineRegions
from passes.graph.simplify import Simplify
from passes.pipeline import DEFAULT, compile_graph


def _program() -> tuple[gc.Tensor, gc.Tensor]:
    x = gc.placeholder("float32", (3, 4), name="x")
    return x, gc.exp(x * 1.0 + 2.0).sum(axis=1)


@dataclass(frozen=True)
class _Wrong(Pass):
    """Replaces every exp by its negative: what a defect looks like."""

    name = "wrong"

    def run(self, graph: Graph, ctx: object) -> Graph:
        b = Builder()
        mapping = {(n.serial, 0): b.neg(b.exp(n.inputs[0])) for n in graph.nodes() if n.op.name == "exp"}
        return graph.with_roots(rebuild(graph, mapping))


def test_replay_of_a_correct_pipeline_blames_nobody() -> None:
    x, y = _program()
    found = replay(y, {x: np.ones((3, 4), np.float32)})
    assert found.guilty is None
    assert set(found.errors) == {"inline-regions", "simplify", "kernels"}


def test_replay_names_the_guilty_pass() -> None:
    x, y = _program()
    found = replay(y, {x: np.ones((3, 4), np.float32)}, passes=[InlineRegions(), Simplify(), _Wrong()])
    assert found.guilty == "wrong"
    assert found.errors["simplify"] < 1e-4 < found.errors["wrong"]


def test_fuel_limits_rewrites() -> None:
    x, y = _program()
    graph = Graph((y,), (), (x,))
    from backends.numpy.runtime import open_numpy

    target = open_numpy("numpy:kernels").target
    none = compile_graph(graph, target, {}, fuel=0)
    full = compile_graph(graph, target, {})
    assert len(none.simplified.nodes()) > len(full.simplified.nodes())


def test_every_stage_is_text() -> None:
    x, y = _program()
    with gc.Session("numpy:kernels", verify=True) as sess:
        c = sess.compile(y, {x: np.ones((3, 4), np.float32)})
        for stage, word in [
            ("built", "exp"),
            ("simplified", "exp"),
            ("fused", "group"),
            ("kernels", "kernel"),
            ("plan", "level 0"),
        ]:
            assert word in c.as_text(stage)
        assert "simplify" in c.explain()
        with pytest.raises(UsageError, match="no stage"):
            c.as_text("nonsense")


def test_passes_can_be_replaced() -> None:
    x, y = _program()
    feed = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    with (
        gc.Session("numpy:kernels", passes=[InlineRegions()]) as plain,
        gc.Session("numpy:kernels", passes=DEFAULT) as full,
    ):
        np.testing.assert_allclose(plain.run(y, {x: feed}), full.run(y, {x: feed}), rtol=1e-6)
    with pytest.raises(UsageError, match="no graphcore pass"):
        gc.Session("numpy", passes=["simplify"]).run(y, {x: feed})


@pytest.mark.parametrize("launch", ["step", "level", "one"])
def test_launch_modes_give_the_same_bits(launch: str) -> None:
    x, y = _program()
    feed = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    try:
        session = gc.Session("opencl", launch=launch)
    except gc.DeviceError as error:
        pytest.skip(str(error))
    with session, gc.Session("opencl") as auto:
        assert session.run(y, {x: feed}).tobytes() == auto.run(y, {x: feed}).tobytes()
        assert launch in session.compile(y, {x: feed}).explain()


def test_an_unknown_launch_mode_is_refused() -> None:
    try:
        gc.Session("opencl", launch="sometimes")
    except UsageError as error:
        assert "sometimes" in str(error)
    except gc.DeviceError as error:
        pytest.skip(str(error))
    else:
        pytest.fail("no error")
