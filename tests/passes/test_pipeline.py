"""The pipeline as data: its stages, changing them, stages of installed packages."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from support.stages import NAMES, Talks, small_program, training_step

import graphcore as gc
from graphcore.base.errors import UsageError
from graphcore.ir.graph import Graph
from graphcore.plan.plan import Placed
from graphcore.tools.guilty_pass import replay
from passes.fusion.fuse import Fuse
from passes.fusion.lower import Kernels, Lower
from passes.graph.inline_regions import InlineRegions
from passes.pipeline import DEFAULT, Pipeline, choose_pipeline, installed
from passes.stage import Stage, StageContext

# --- data -------------------------------------------------------------------------------------------------------------


def test_the_default_pipeline_goes_from_a_graph_to_memory() -> None:
    assert list(DEFAULT.names) == NAMES
    assert DEFAULT.stages[0].takes is Graph and DEFAULT.stages[-1].gives is Placed
    assert str(DEFAULT).splitlines()[3].startswith("fuse: Graph -> Partition")


def test_stages_are_inserted_replaced_and_removed() -> None:
    talks = Talks()
    assert DEFAULT.insert_after("simplify", talks).names[:4] == ("inline-regions", "simplify", "talks", "specialize")
    assert DEFAULT.insert_before("simplify", talks, talks).names[:4] == ("inline-regions", "talks", "talks", "simplify")
    assert DEFAULT.replace("simplify", talks)["talks"] is talks
    assert DEFAULT.remove("recompute").names == tuple(n for n in NAMES if n != "recompute")
    assert list(DEFAULT.names) == NAMES  # they give new ones


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: DEFAULT.remove("fuse"), "the stage recompute takes a Partition, but specialize gives a Graph"),
        (lambda: DEFAULT.insert_after("lower", Talks()), "the stage talks takes a Graph, but lower gives a Kernels"),
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
    assert choose_pipeline([InlineRegions(), Talks()]).names == ("inline-regions", "talks", *NAMES[2:])
    assert choose_pipeline(()).names == tuple(NAMES[2:])
    assert choose_pipeline(DEFAULT) is DEFAULT


def test_passes_can_be_replaced() -> None:
    x, y = small_program()
    feed = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    with (
        gc.Session("numpy:kernels", passes=[InlineRegions()]) as plain,
        gc.Session("numpy:kernels", passes=DEFAULT) as full,
    ):
        np.testing.assert_allclose(plain.run(y, {x: feed}), full.run(y, {x: feed}), rtol=1e-6)
    with pytest.raises(UsageError, match="no graphcore pass"):
        gc.Session("numpy", passes=["simplify"]).run(y, {x: feed})


def test_a_pipeline_without_recompute_stores_more_and_computes_the_same() -> None:
    fetches, feeds = training_step()
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
    x, y = small_program()
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
    x, y = small_program()
    with gc.Session("numpy") as sess, gc.Session("numpy", passes=DEFAULT) as plain:
        assert re.search(r"^chatter: .*\n  seen \d+ nodes$", sess.compile(y, {x: (3, 4)}).explain(), re.M)
        assert "chatter" not in plain.compile(y, {x: (3, 4)}).explain()


def test_an_entry_point_that_gives_no_pipeline_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "def add(pipeline):\n    pipeline.remove('simplify')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "chatter", raising=False)
    with pytest.raises(UsageError, match=re.escape("chatter of graphcore.stages (chatter:add) gave a NoneType")):
        gc.Session("numpy")


# --- launch modes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("launch", ["step", "level", "one"])
def test_launch_modes_give_the_same_bits(launch: str) -> None:
    x, y = small_program()
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
