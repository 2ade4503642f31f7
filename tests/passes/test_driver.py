"""The driver of stages: where it stops, what it checks and notes, and what stages tell."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from support.stages import NAMES, Talks, oracle_target, small_graph, small_program, training_step

import graphcore as gc
from graphcore.base.errors import CompileError, UsageError, VerifyError
from graphcore.ir.graph import Graph
from graphcore.plan.plan import Plan
from passes.fusion.partition import Partition
from passes.graph.base import Call, Pass, Rule, rule
from passes.graph.rewrite import rewrite
from passes.pipeline import DEFAULT, Pipeline, compile_graph
from passes.stage import Stage, StageContext

# --- the driver -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_it_stops_at_every_stage(name: str) -> None:
    made = compile_graph(small_graph(), oracle_target(), {}, upto=name)
    assert [r.name for r in made.records] == NAMES[: NAMES.index(name) + 1]
    assert isinstance(made.value, DEFAULT[name].gives)
    assert DEFAULT[name].show(made.value)
    assert made.records[-1].count > 0


def test_it_stops_with_the_last_result_of_a_class() -> None:
    graph = small_graph()
    assert compile_graph(graph, None, {}, upto=Graph).records[-1].name == "specialize"
    assert compile_graph(graph, oracle_target(), {}, upto=Partition).records[-1].name == "recompute"
    assert compile_graph(graph, oracle_target(), {}, upto=Plan).records[-1].name == "levels"


def test_a_compilation_that_stopped_early_says_what_it_lacks() -> None:
    made = compile_graph(small_graph(), None, {}, upto="simplify")
    assert made.simplified is made.value
    with pytest.raises(UsageError, match="ended before it made a Plan"):
        _ = made.plan
    assert "kernel 0" not in made.explain()
    with pytest.raises(UsageError, match="no stage 'tokens'; there are inline-regions"):
        compile_graph(small_graph(), None, {}, upto="tokens")


def test_without_a_device_only_graphs_are_made() -> None:
    with pytest.raises(CompileError, match="needs a device") as caught:
        compile_graph(small_graph(), None, {})
    assert caught.value.__notes__ == ["in the stage fuse"]


def test_every_stage_is_dumped() -> None:
    shown: dict[str, str] = {}
    made = compile_graph(small_graph(), oracle_target(), {}, dump=shown.__setitem__)
    assert list(shown) == NAMES
    assert shown["simplify"] == str(made.simplified) and shown["recompute"] == str(made.partition)
    assert shown["lower"].startswith("kernel ") and shown["levels"] == str(made.plan)
    assert shown["memory"].startswith(f"arena {made.placed.arena_bytes} bytes")


def test_fuel_limits_rewrites() -> None:
    none = compile_graph(small_graph(), oracle_target(), {}, fuel=0)
    full = compile_graph(small_graph(), oracle_target(), {})
    assert len(none.simplified.nodes()) > len(full.simplified.nodes())


def test_what_is_bound_makes_the_stages_before_run_again() -> None:
    """Only once ``n`` is known is the broadcast known to change nothing."""
    x = gc.placeholder("float32", (2, None), name="x")
    n = x.shape[1]
    (symbol,) = n.symbols()  # type: ignore[union-attr]
    graph = Graph((gc.exp(x).sum(axis=1),), (), (x,))
    made = compile_graph(graph, oracle_target(), {symbol: 3}, pipeline=DEFAULT.insert_before("specialize", Talks()))
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
    x, y = small_program()
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
        compile_graph(small_graph(), None, {}, pipeline=DEFAULT.insert_after("simplify", Forgets()))
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
    compile_graph(small_graph(), oracle_target(), {}, pipeline=pipeline)
    with pytest.raises(VerifyError, match="it is as it was") as caught:
        compile_graph(small_graph(), oracle_target(), {}, pipeline=pipeline, verify=True)
    assert caught.value.__notes__ == ["in the stage promises"]


def test_a_region_that_nothing_inlines_is_refused_before_fusion() -> None:
    x = gc.placeholder("float32", (3,), name="x")
    graph = Graph((gc.checkpoint(gc.tanh)(x),), (), (x,))
    with pytest.raises(VerifyError, match="a region cannot be cut") as caught:
        compile_graph(graph, oracle_target(), {}, pipeline=DEFAULT.remove("inline-regions"), verify=True)
    assert caught.value.__notes__ == ["in the stage fuse"]


# --- what stages tell -------------------------------------------------------------------------------------------------


def test_every_stage_is_text() -> None:
    x, y = small_program()
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
    fetches, feeds = training_step()
    pipeline = DEFAULT.insert_after("simplify", Talks(line="I have seen it"))
    with gc.Session("numpy:kernels", passes=pipeline) as sess:
        text = sess.compile(fetches, feeds).explain()
    heads = re.findall(r"^([a-z-]+): [0-9.]+ ms, \d+ (\w+)(?:, \d+ rewrites)?$", text, re.M)
    units = ["nodes"] * 4 + ["groups"] * 2 + ["kernels"] * 2 + ["steps"] * 3 + ["buffers"]
    assert heads == list(zip([*NAMES[:2], "talks", *NAMES[2:]], units, strict=True))
    told = dict(re.findall(r"^([a-z-]+): .*\n((?:  .*\n)*)", text, re.M))
    assert told["talks"] == "  I have seen it\n"
    assert " not into kernel " in told["fuse"]
    assert "is computed again by its" in told["recompute"] and "is stored: " in told["recompute"]
    assert told["levels"].startswith("  steps run ")
    assert told["memory"].startswith("  the arena has ")
    assert re.search(r"^kernel 0 \w+: level 0, family nest", text, re.M)


def test_lines_of_rules_reach_the_explanation() -> None:
    @rule("neg")
    def neg_to_mul(call: Call) -> Any:
        """-x -> x * -1"""
        return call.b.mul(call.arg(0).value, -1.0)

    @rule("mul")
    def mul_to_neg(call: Call) -> Any:
        """x * -1 -> -x"""
        return call.b.neg(call.arg(0).value) if call.arg(1).is_number(-1) else None

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
