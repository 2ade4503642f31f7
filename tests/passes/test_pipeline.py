"""The pipeline: its stages as data, the driver, what stages tell, and the replay that names a guilty one."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import graphcore as gc
from graphcore.base.errors import CompileError, UsageError, VerifyError
from graphcore.ir.graph import Graph, rebuild
from graphcore.ir.node import Builder, Tensor
from graphcore.kernel import expr
from graphcore.plan.backend import open_backend
from graphcore.plan.plan import Placed, Plan
from graphcore.plan.target import Target
from graphcore.tools.guilty_pass import replay
from passes.driver import run_stages
from passes.fusion.fuse import Fuse
from passes.fusion.lower import Kernels, Lower
from passes.fusion.partition import Partition
from passes.fusion.recompute import Recompute
from passes.graph.base import Call, Pass, Rule, rule
from passes.graph.inline_regions import InlineRegions
from passes.graph.rewrite import rewrite
from passes.graph.simplify import Simplify
from passes.pipeline import DEFAULT, Pipeline, choose_pipeline, compile_graph, installed
from passes.planning.levels import Levels, Unordered
from passes.planning.placement import Memory
from passes.planning.plan_builder import Draft, Schedule, Updates
from passes.stage import Stage, StageContext

NAMES = (
    "inline-regions simplify specialize fuse recompute lower schedule updates levels memory"  # in order
).split()


def _program() -> tuple[Tensor, Tensor]:
    x = gc.placeholder("float32", (3, 4), name="x")
    return x, gc.exp(x * 1.0 + 2.0).sum(axis=1)


def _training() -> tuple[list[Any], dict[Tensor, Any]]:
    """A step with products, values that are computed again, and updates in place."""
    rng = np.random.default_rng(0)
    x = gc.placeholder("float32", (None, 4), name="x")
    w = gc.Variable(rng.normal(size=(4, 8)).astype(np.float32), name="w")
    b = gc.Variable(np.zeros(8, np.float32), name="b")
    v = gc.Variable(rng.normal(size=(8, 3)).astype(np.float32), name="v")
    loss = (gc.nn.functional.gelu(x @ w + b) @ v).var()
    updates = [p.assign(p - 0.1 * g) for p, g in zip((w, b, v), gc.gradients(loss, [w, b, v]), strict=True)]
    return [loss, *updates], {x: rng.normal(size=(40, 4)).astype(np.float32)}


def _target() -> Target:
    target: Target = open_backend("numpy:kernels").target
    return target


def _graph() -> Graph:
    x, y = _program()
    return Graph((y,), (), (x,))


# --- data -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Talks(Pass):
    """Changes nothing and says so."""

    name: ClassVar[str] = "talks"
    line: str = "nothing to do here"

    def run(self, graph: Graph, ctx: StageContext, /) -> Graph:
        ctx.say(self.line)
        return graph


def test_the_default_pipeline_goes_from_a_graph_to_memory() -> None:
    assert list(DEFAULT.names) == NAMES
    assert DEFAULT.stages[0].takes is Graph and DEFAULT.stages[-1].gives is Placed
    assert str(DEFAULT).splitlines()[3].startswith("fuse: Graph -> Partition")


def test_stages_are_inserted_replaced_and_removed() -> None:
    talks = _Talks()
    assert DEFAULT.insert_after("simplify", talks).names[:4] == ("inline-regions", "simplify", "talks", "specialize")
    assert DEFAULT.insert_before("simplify", talks, talks).names[:4] == ("inline-regions", "talks", "talks", "simplify")
    assert DEFAULT.replace("simplify", talks)["talks"] is talks
    assert DEFAULT.remove("recompute").names == tuple(n for n in NAMES if n != "recompute")
    assert list(DEFAULT.names) == NAMES  # they give new ones


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: DEFAULT.remove("fuse"), "the stage recompute takes a Partition, but specialize gives a Graph"),
        (lambda: DEFAULT.insert_after("lower", _Talks()), "the stage talks takes a Graph, but lower gives a Kernels"),
        (lambda: Pipeline((Lower(),)), "the stage lower takes a Partition, but the pipeline is given a Graph"),
        (lambda: DEFAULT.replace("simplify", "simplify"), "'simplify' is no stage"),
        (lambda: DEFAULT.remove("simplfy"), "no stage 'simplfy'; there are inline-regions, simplify"),
        (lambda: choose_pipeline("simplify"), "expected a list of passes or a pipeline, got str"),
        (lambda: choose_pipeline(["simplify"]), "'simplify' is no graphcore pass"),
        (lambda: choose_pipeline([Fuse()]), "is no graphcore pass"),
    ],
)
def test_what_does_not_fit_is_refused(change: Callable[[], Any], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        change()


def test_a_list_of_passes_replaces_those_before_specialize() -> None:
    assert choose_pipeline([InlineRegions(), _Talks()]).names == ("inline-regions", "talks", *NAMES[2:])
    assert choose_pipeline(()).names == tuple(NAMES[2:])
    assert choose_pipeline(DEFAULT) is DEFAULT


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


def test_a_pipeline_without_recompute_stores_more_and_computes_the_same() -> None:
    fetches, feeds = _training()
    with (
        gc.Session("numpy:kernels", passes=DEFAULT.remove("recompute"), verify=True) as plain,
        gc.Session("numpy:kernels", verify=True) as full,
    ):
        stored = [s.compile(fetches, feeds).compilation.partition.stored for s in (plain, full)]
        assert len(stored[0]) > len(stored[1])
        np.testing.assert_allclose(plain.run(fetches, feeds)[0], full.run(fetches, feeds)[0], rtol=1e-6)


@dataclass(frozen=True)
class _Renamed(Stage[Kernels, Kernels]):
    """Gives every kernel another name: a stage between two of the default ones, over another form than graphs."""

    name: ClassVar[str] = "rename"
    takes: ClassVar[type] = Kernels
    gives: ClassVar[type] = Kernels

    def run(self, kernels: Kernels, ctx: StageContext, /) -> Kernels:
        ctx.say(f"{len(kernels.listed)} kernels have another name")
        return replace(kernels, listed=tuple(k._replace(kernel=replace(k.kernel, name="mine")) for k in kernels.listed))


def test_a_stage_over_kernels_is_inserted_after_lowering() -> None:
    x, y = _program()
    with gc.Session("numpy:kernels", passes=DEFAULT.insert_after("lower", _Renamed()), verify=True) as sess:
        c = sess.compile(y, {x: (3, 4)})
        assert {k["name"] for k in c.cost_analysis()["kernels"]} == {"mine"}
        assert "1 kernels have another name" in c.explain()
        assert replay(y, {x: np.ones((3, 4), np.float32)}, passes=c.pipeline).guilty is None


# --- stages of installed packages -------------------------------------------------------------------------------------


def _install(folder: Path, source: str) -> None:
    """A package ``chatter`` with an entry point, as an installer leaves it on the path."""
    (folder / "chatter.py").write_text(source)
    info = folder / "chatter-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chatter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[graphcore.stages]\nchatter = chatter:add\n")


def test_installed_packages_add_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed() is DEFAULT
    _install(
        tmp_path,
        "from passes.graph.base import Pass\n"
        "class Chatter(Pass):\n"
        "    name = 'chatter'\n"
        "    def run(self, graph, ctx):\n"
        "        ctx.say(f'seen {len(graph.nodes())} nodes')\n"
        "        return graph\n"
        "def add(pipeline):\n"
        "    return pipeline.insert_after('simplify', Chatter())\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert installed().names[:3] == ("inline-regions", "simplify", "chatter")
    x, y = _program()
    with gc.Session("numpy") as sess, gc.Session("numpy", passes=DEFAULT) as plain:
        assert re.search(r"^chatter: .*\n  seen \d+ nodes$", sess.compile(y, {x: (3, 4)}).explain(), re.M)
        assert "chatter" not in plain.compile(y, {x: (3, 4)}).explain()


def test_an_entry_point_that_gives_no_pipeline_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "def add(pipeline):\n    pipeline.remove('simplify')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "chatter", raising=False)
    with pytest.raises(UsageError, match=re.escape("chatter of graphcore.stages (chatter:add) gave a NoneType")):
        gc.Session("numpy")


# --- the driver -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_it_stops_at_every_stage(name: str) -> None:
    made = compile_graph(_graph(), _target(), {}, upto=name)
    assert [r.name for r in made.records] == NAMES[: NAMES.index(name) + 1]
    assert isinstance(made.value, DEFAULT[name].gives)
    assert DEFAULT[name].show(made.value)
    assert made.records[-1].count > 0


def test_it_stops_with_the_last_result_of_a_class() -> None:
    graph = _graph()
    assert compile_graph(graph, None, {}, upto=Graph).records[-1].name == "specialize"
    assert compile_graph(graph, _target(), {}, upto=Partition).records[-1].name == "recompute"
    assert compile_graph(graph, _target(), {}, upto=Plan).records[-1].name == "levels"


def test_a_compilation_that_stopped_early_says_what_it_lacks() -> None:
    made = compile_graph(_graph(), None, {}, upto="simplify")
    assert made.simplified is made.value
    with pytest.raises(UsageError, match="ended before it made a Plan"):
        _ = made.plan
    assert "kernel 0" not in made.explain()
    with pytest.raises(UsageError, match="no stage 'tokens'; there are inline-regions"):
        compile_graph(_graph(), None, {}, upto="tokens")


def test_without_a_device_only_graphs_are_made() -> None:
    with pytest.raises(CompileError, match="needs a device") as caught:
        compile_graph(_graph(), None, {})
    assert caught.value.__notes__ == ["in the stage fuse"]


def test_every_stage_is_dumped() -> None:
    shown: dict[str, str] = {}
    made = compile_graph(_graph(), _target(), {}, dump=shown.__setitem__)
    assert list(shown) == NAMES
    assert shown["simplify"] == str(made.simplified) and shown["recompute"] == str(made.partition)
    assert shown["lower"].startswith("kernel ") and shown["levels"] == str(made.plan)
    assert shown["memory"].startswith(f"arena {made.placed.arena_bytes} bytes")


def test_fuel_limits_rewrites() -> None:
    none = compile_graph(_graph(), _target(), {}, fuel=0)
    full = compile_graph(_graph(), _target(), {})
    assert len(none.simplified.nodes()) > len(full.simplified.nodes())


def test_what_is_bound_makes_the_stages_before_run_again() -> None:
    """Only once ``n`` is known is the broadcast known to change nothing."""
    x = gc.placeholder("float32", (2, None), name="x")
    n = x.shape[1]
    (symbol,) = n.symbols()  # type: ignore[union-attr]
    graph = Graph((gc.exp(x).sum(axis=1),), (), (x,))
    made = compile_graph(graph, _target(), {symbol: 3}, pipeline=DEFAULT.insert_before("specialize", _Talks()))
    titles = [r.title for r in made.records]
    again = ["inline-regions, again", "simplify, again", "talks, again"]
    assert titles == [*NAMES[:2], "talks", "specialize", *again, *NAMES[3:]]
    assert made.bound == {symbol}
    assert f"{symbol} is bound to 3" in made.explain()
    assert made.simplified.outputs[0].node.inputs[0].shape == (2, 3)


@dataclass(frozen=True)
class _Fails(Stage[Any, Any]):
    """Fails in the place of another stage."""

    error: BaseException
    name: ClassVar[str] = "fails"

    def run(self, given: Any, ctx: StageContext, /) -> Any:
        raise self.error


def _failing(name: str, error: BaseException) -> Pipeline:
    stage = type("_Failing", (_Fails,), {"takes": DEFAULT[name].takes, "gives": DEFAULT[name].gives, "name": name})
    return DEFAULT.replace(name, stage(error))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [CompileError("no such"), ZeroDivisionError("a defect")], ids=["ours", "defect"])
def test_an_error_names_its_stage(name: str, error: Exception) -> None:
    x, y = _program()
    error = type(error)(*error.args)
    with pytest.raises(type(error)) as caught, gc.Session("numpy:kernels", passes=_failing(name, error)) as sess:
        sess.run(y, {x: np.ones((3, 4), np.float32)})
    assert caught.value is error and error.__notes__ == [f"in the stage {name}"]


def test_a_stage_that_gives_something_else_is_named() -> None:
    @dataclass(frozen=True)
    class Forgets(Pass):
        name: ClassVar[str] = "forgets"

        def run(self, graph: Graph, ctx: StageContext, /) -> Graph:
            graph.nodes()  # and no return
            return None  # type: ignore[return-value]

    with pytest.raises(UsageError, match="gave a NoneType, and must give a Graph") as caught:
        compile_graph(_graph(), None, {}, pipeline=DEFAULT.insert_after("simplify", Forgets()))
    assert caught.value.__notes__ == ["in the stage forgets"]


def test_a_stage_defines_run() -> None:
    with pytest.raises(TypeError, match="the stage Stage does not define run"):
        Stage[Any, Any]().run(None, StageContext())


def test_promises_are_checked_only_when_asked() -> None:
    @dataclass(frozen=True)
    class Promises(Pass):
        name: ClassVar[str] = "promises"

        def run(self, graph: Graph, ctx: StageContext, /) -> Graph:
            return graph

        def ensures(self, graph: Graph, /) -> None:
            raise VerifyError("it is as it was")

    pipeline = DEFAULT.insert_after("simplify", Promises())
    compile_graph(_graph(), _target(), {}, pipeline=pipeline)
    with pytest.raises(VerifyError, match="it is as it was") as caught:
        compile_graph(_graph(), _target(), {}, pipeline=pipeline, verify=True)
    assert caught.value.__notes__ == ["in the stage promises"]


def test_a_region_that_nothing_inlines_is_refused_before_fusion() -> None:
    x = gc.placeholder("float32", (3,), name="x")
    graph = Graph((gc.checkpoint(gc.tanh)(x),), (), (x,))
    with pytest.raises(VerifyError, match="a region cannot be cut") as caught:
        compile_graph(graph, _target(), {}, pipeline=DEFAULT.remove("inline-regions"), verify=True)
    assert caught.value.__notes__ == ["in the stage fuse"]


# --- what stages tell -------------------------------------------------------------------------------------------------


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
            ("simplify", "exp"),
            ("recompute", "group"),
            ("lower", "kernel"),
            ("updates", "level 0"),
            ("memory", "arena"),
        ]:
            assert word in c.as_text(stage)
        assert "simplify" in c.explain()
        with pytest.raises(UsageError, match="no stage"):
            c.as_text("nonsense")


def test_explain_groups_lines_by_stage() -> None:
    fetches, feeds = _training()
    pipeline = DEFAULT.insert_after("simplify", _Talks(line="I have seen it"))
    with gc.Session("numpy:kernels", passes=pipeline) as sess:
        text = sess.compile(fetches, feeds).explain()
    heads = re.findall(r"^([a-z-]+): [0-9.]+ ms, \d+ (\w+)(?:, \d+ rewrites)?$", text, re.M)
    units = ["nodes"] * 4 + ["groups"] * 2 + ["kernels"] + ["steps"] * 3 + ["buffers"]
    assert heads == list(zip([*NAMES[:2], "talks", *NAMES[2:]], units, strict=True))
    told = dict(re.findall(r"^([a-z-]+): .*\n((?:  .*\n)*)", text, re.M))
    assert told["talks"] == "  I have seen it\n"
    assert " not into kernel " in told["fuse"]
    assert "is computed again by its" in told["recompute"] and "is stored: " in told["recompute"]
    assert told["levels"].startswith("  steps run ")
    assert told["memory"].startswith("  the arena has ")
    assert re.search(r"^kernel 0 \w+: level 0, template nest", text, re.M)


def test_lines_of_rules_reach_the_explanation() -> None:
    @rule("neg")
    def neg_to_mul(call: Call) -> Any:
        """-x -> x * -1"""
        return call.b.mul(call.arg(0).tensor, -1.0)

    @rule("mul")
    def mul_to_neg(call: Call) -> Any:
        """x * -1 -> -x"""
        return call.b.neg(call.arg(0).tensor) if call.arg(1).is_number(-1) else None

    @dataclass(frozen=True)
    class Undecided(Pass):
        name: ClassVar[str] = "undecided"
        rules: tuple[Rule, ...] = (neg_to_mul, mul_to_neg)

        def run(self, graph: Graph, ctx: StageContext, /) -> Graph:
            return rewrite(graph, self.rules, ctx)

    x = gc.placeholder("float32", (), name="x")
    with gc.Session("numpy:kernels", passes=[Undecided()]) as sess:
        text = sess.compile(-x, {x: ()}).explain()
    assert re.search(r"^undecided: .* rewrites\n  .*rules undo each other here", text, re.M)


# --- replay -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wrong(Pass):
    """Replaces every exp by its negative: what a defect looks like."""

    name: ClassVar[str] = "wrong"

    def run(self, graph: Graph, ctx: StageContext, /) -> Graph:
        b = Builder()
        mapping = {(n.serial, 0): b.neg(b.exp(n.inputs[0])) for n in graph.nodes() if n.op.name == "exp"}
        return graph.with_roots(rebuild(graph, mapping))


def test_replay_of_a_correct_pipeline_blames_nobody() -> None:
    x, y = _program()
    found = replay(y, {x: np.ones((3, 4), np.float32)})
    assert found.guilty is None and found.reason == ""
    assert list(found.errors) == NAMES


def test_replay_follows_updates_and_bound_extents() -> None:
    fetches, feeds = _training()
    found = replay(fetches, feeds)
    assert found.guilty is None and list(found.errors) == NAMES
    x = gc.placeholder("float32", (2, None), name="x")
    found = replay(gc.exp(x).sum(axis=1), {x: np.ones((2, 3), np.float32)})
    assert found.guilty is None and "simplify, again" in found.errors


def test_replay_names_the_guilty_pass() -> None:
    x, y = _program()
    found = replay(y, {x: np.ones((3, 4), np.float32)}, passes=[InlineRegions(), Simplify(), _Wrong()])
    assert found.guilty == "wrong" and found.rewrite is None
    assert found.errors["simplify"] < 1e-4 < found.errors["wrong"]


def test_replay_finds_the_first_wrong_rewrite() -> None:
    @rule("exp")
    def exp_to_exp(call: Call) -> Any:
        """exp(x) -> exp2(x), which is wrong"""
        return call.b.exp2(call.arg(0).tensor)

    @rule("tanh")
    def tanh_to_sinh(call: Call) -> Any:
        """tanh(x) -> sinh(x) / cosh(x)"""
        x = call.arg(0).tensor
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
        draft.plan.steps.pop()
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
        for step in plan.steps:
            step.level = 0
        return plan


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
    fetches, feeds = _training()
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

    x, y = _program()
    found = replay(y, {x: np.ones((3, 4), np.float32)}, passes=DEFAULT.insert_after("simplify", Boxed(), Unboxed()))
    assert found.guilty is None and "boxed" not in found.errors and "unboxed" in found.errors


def test_a_stage_leaves_what_it_is_given_as_it_was() -> None:
    """All but those whose class says that it is used up."""
    fetches, feeds = _training()
    (x,) = feeds
    loss, *updates = fetches
    graph = Graph((loss,), tuple((u.variable, u.value) for u in updates), (x,))
    told = StageContext(_target(), dict.fromkeys(x.shape[0].symbols(), 40))  # type: ignore[union-attr]
    for name in ("fuse", "recompute", "lower"):
        *_, last = run_stages(DEFAULT.stages, graph, told, upto=name)
        text = str(last.before)
        reads = [list(g.reads) for g in last.before.groups] if isinstance(last.before, Partition) else []
        last.stage.run(last.before, replace(last.context, explain=[]))
        assert str(last.before) == text
        assert reads == ([list(g.reads) for g in last.before.groups] if isinstance(last.before, Partition) else [])


# --- launch modes -----------------------------------------------------------------------------------------------------


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
