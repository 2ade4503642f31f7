"""The replay that names a guilty stage: a wrong one in every place of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from support.stages import NAMES, oracle_target, small_program, training_step

import graphcore as gc
from graphcore.ir.graph import Graph, rebuild
from graphcore.ir.node import Builder
from graphcore.kernel import expr
from graphcore.plan.plan import Placed, Plan
from graphcore.tools.guilty_pass import replay
from passes.driver import run_stages
from passes.fusion.fuse import Fuse
from passes.fusion.lower import Kernels, Lower
from passes.fusion.partition import Partition
from passes.fusion.recompute import Recompute
from passes.graph.base import Call, Pass, rule
from passes.graph.inline_regions import InlineRegions
from passes.graph.rewrite import rewrite
from passes.graph.simplify import Simplify
from passes.pipeline import DEFAULT
from passes.planning.levels import Levels, Unordered
from passes.planning.placement import Memory
from passes.planning.plan_builder import Draft, Schedule, Updates
from passes.stage import Stage, StageContext

# --- replay -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wrong(Pass):
    """Replaces every exp by its negative: what a defect looks like."""

    name: ClassVar[str] = "wrong"

    def run(self, graph: Graph, ctx: StageContext, /) -> Graph:
        b = Builder()
        mapping = {n.output(): b.neg(b.exp(n.inputs[0])) for n in graph.nodes() if n.op.name == "exp"}
        return graph.with_roots(rebuild(graph, mapping))


def test_replay_of_a_correct_pipeline_blames_nobody() -> None:
    x, y = small_program()
    found = replay(y, {x: np.ones((3, 4), np.float32)})
    assert found.guilty is None and found.reason == ""
    assert list(found.errors) == NAMES


def test_replay_follows_updates_and_bound_extents() -> None:
    fetches, feeds = training_step()
    found = replay(fetches, feeds)
    assert found.guilty is None and list(found.errors) == NAMES
    x = gc.placeholder("float32", (2, None), name="x")
    found = replay(gc.exp(x).sum(axis=1), {x: np.ones((2, 3), np.float32)})
    assert found.guilty is None and "simplify, again" in found.errors


def test_replay_names_the_guilty_pass() -> None:
    x, y = small_program()
    found = replay(y, {x: np.ones((3, 4), np.float32)}, passes=[InlineRegions(), Simplify(), _Wrong()])
    assert found.guilty == "wrong" and found.rewrite is None
    assert found.errors["simplify"] < 1e-4 < found.errors["wrong"]


def test_replay_finds_the_first_wrong_rewrite() -> None:
    @rule("exp")
    def exp_to_exp(call: Call) -> Any:
        """exp(x) -> exp2(x), which is wrong"""
        return call.b.exp2(call.arg(0).value)

    @rule("tanh")
    def tanh_to_sinh(call: Call) -> Any:
        """tanh(x) -> sinh(x) / cosh(x)"""
        x = call.arg(0).value
        return call.b.div(call.b.sinh(x), call.b.cosh(x))

    @dataclass(frozen=True)
    class Some(Pass):
        name: ClassVar[str] = "some"

        def run(self, graph: Graph, ctx: StageContext, /) -> Graph:
            return rewrite(graph, (exp_to_exp, tanh_to_sinh), ctx)

    x = gc.placeholder("float32", (3,), name="x")
    y = gc.exp(gc.tanh(gc.tanh(x)))
    found = replay(y, {x: np.ones(3, np.float32)}, passes=[Some()])
    assert (found.guilty, found.rewrite) == ("some", 3)


def _drop_a_stored_value(partition: Partition) -> Partition:
    first = next(g for g in partition.groups if len(g.stored) > 1 or g is partition.groups[-1])
    return replace(
        partition, groups=tuple(replace(g, stored=g.stored[1:]) if g is first else g for g in partition.groups)
    )


class WrongFuse(Fuse):
    def run(self, graph: Graph, ctx: StageContext, /) -> Partition:
        return _drop_a_stored_value(super().run(graph, ctx))


class WrongRecompute(Recompute):
    def run(self, partition: Partition, ctx: StageContext, /) -> Partition:
        return _drop_a_stored_value(super().run(partition, ctx))


class WrongLower(Lower):
    """Stores the negative of what the first kernel makes."""

    def run(self, partition: Partition, ctx: StageContext, /) -> Kernels:
        made = super().run(partition, ctx)
        first = made.listed[0]
        stores = tuple(replace(s, value=expr.call("neg", s.value)) for s in first.kernel.stores)
        wrong = first._replace(kernel=replace(first.kernel, stores=stores))
        return replace(made, listed=(wrong, *made.listed[1:]))


class WrongSchedule(Schedule):
    """Leaves the last step out."""

    def run(self, kernels: Kernels, ctx: StageContext, /) -> Draft:
        draft = super().run(kernels, ctx)
        draft.steps.pop()
        return draft


class WrongUpdates(Updates):
    """Lets a step wait for nothing."""

    def run(self, draft: Draft, ctx: StageContext, /) -> Unordered:
        made = super().run(draft, ctx)
        made.flow.before = [[] for _ in made.flow.before]
        return made


class WrongLevels(Levels):
    def run(self, unordered: Unordered, ctx: StageContext, /) -> Plan:
        plan = super().run(unordered, ctx)
        return replace(plan, steps=tuple(replace(step, level=0) for step in plan.steps))


class WrongMemory(Memory):
    def run(self, plan: Plan, ctx: StageContext, /) -> Placed:
        made = super().run(plan, ctx)
        return replace(made, offsets=dict.fromkeys(made.offsets, 0))


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (WrongFuse(), "which no kernel of a lower level stores"),
        (WrongRecompute(), "which no kernel of a lower level stores"),
        (WrongLower(), ""),
        (WrongSchedule(), ""),
        (WrongUpdates(), ""),
        (WrongLevels(), "which its own level writes"),
        (WrongMemory(), ""),
    ],
    ids=lambda s: getattr(s, "name", ""),
)
def test_replay_names_every_guilty_stage(stage: Stage[Any, Any], reason: str) -> None:
    fetches, feeds = training_step()
    found = replay(fetches, feeds, passes=DEFAULT.replace(stage.name, stage))
    assert found.guilty == stage.name and reason in found.reason
    assert list(found.errors) == NAMES[: NAMES.index(stage.name) + 1]
    assert all(e < 1e-4 for e in list(found.errors.values())[:-1]) and found.errors[stage.name] > 1e-4


def test_forms_without_an_oracle_are_passed_over() -> None:
    @dataclass(frozen=True)
    class Boxed(Stage[Graph, list]):  # type: ignore[type-arg]
        name: ClassVar[str] = "boxed"
        takes: ClassVar[type] = Graph
        gives: ClassVar[type] = list

        def run(self, graph: Graph, ctx: StageContext, /) -> list[Graph]:
            return [graph]

    @dataclass(frozen=True)
    class Unboxed(Stage[list, Graph]):  # type: ignore[type-arg]
        name: ClassVar[str] = "unboxed"
        takes: ClassVar[type] = list
        gives: ClassVar[type] = Graph

        def run(self, box: list[Graph], ctx: StageContext, /) -> Graph:
            return box[0]

    x, y = small_program()
    found = replay(y, {x: np.ones((3, 4), np.float32)}, passes=DEFAULT.insert_after("simplify", Boxed(), Unboxed()))
    assert found.guilty is None and "boxed" not in found.errors and "unboxed" in found.errors


def test_a_stage_leaves_what_it_is_given_as_it_was() -> None:
    """All but those whose class says that it is used up."""
    fetches, feeds = training_step()
    (x,) = feeds
    loss, *updates = fetches
    graph = Graph((loss,), tuple((u.variable, u.value) for u in updates), (x,))
    told = StageContext(oracle_target(), dict.fromkeys(x.shape[0].symbols(), 40))  # type: ignore[union-attr]
    for name in ("fuse", "recompute", "lower"):
        *_, last = run_stages(DEFAULT.stages, graph, told, upto=name)
        text = str(last.before)
        reads = [list(g.reads) for g in last.before.groups] if isinstance(last.before, Partition) else []
        last.stage.run(last.before, replace(last.context, explain=[]))
        assert str(last.before) == text
        assert reads == ([list(g.reads) for g in last.before.groups] if isinstance(last.before, Partition) else [])


def test_values_without_elements_are_compared_too() -> None:
    x = gc.placeholder("float32", (0, 3), name="x")
    y = gc.exp(x)
    assert replay([y * 2, y.sum(axis=0)], {x: np.zeros((0, 3), np.float32)}).guilty is None
