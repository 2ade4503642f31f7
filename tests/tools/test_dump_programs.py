"""Pictures of programs of every shape, at every stage and in every format; fused ones against what lowering reads."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.pictures import DEVICE, STAGES, diagram_of, written
from support.plan_models import transformer
from support.random_programs import seeded
from support.sessions import opened

import graphcore as gc
from benchmarks.models import STEPS
from graphcore import nn, optim
from graphcore.base.shapes import symbols_of
from graphcore.ir.graph import Graph, collect
from graphcore.kernel.parts import uncut
from graphcore.runtime.fetches import flatten_fetches
from graphcore.tools.pictures import SUFFIXES, dump
from graphcore.viz.adapters import Splats
from graphcore.viz.diagram import Diagram
from graphcore.viz.lowered import fused_diagram
from passes.fusion.fuse import Fuse
from passes.fusion.lower import Kernels
from passes.pipeline import DEFAULT, compile_graph
from passes.planning.plan_builder import scheduled

PROGRAMS: dict[str, Callable[[], Any]] = {}


def program(build: Callable[[], Any]) -> Callable[[], Any]:
    PROGRAMS[build.__name__] = build
    return build


def fed(*shape: Any, name: str = "x", dtype: str = "float32") -> gc.Tensor:
    return gc.placeholder(dtype, shape, name=name)


def state(*shape: int, name: str = "w") -> gc.Variable:
    return gc.Variable(np.ones(shape, np.float32), name=name)


@program
def views_stored_by_their_producer() -> Any:
    """Heads split off and merged again, which products read badly."""
    return transformer(1, 8, 2, 4, 2)[0]


@program
def scalars_stored_on_the_side() -> Any:
    n, x, w = gc.Variable(gc.zeros((), "int64"), trainable=False, name="n"), fed(None, 4), state(4, 3)
    loss = gc.softmax(x @ w).sum()
    return [loss, n.assign(n + 1), w.assign(w - gc.gradients(loss, [w])[0])]


@program
def scalars_computed_by_each_reader() -> Any:
    s, x = gc.Variable(1.0, name="s"), fed(None, 5)
    rate = gc.exp(s * 2 + 1) / (s + 3)
    return [x * rate, (x + rate).sum(0), s.assign(rate), rate + 1]


@program
def regions() -> Any:
    x = fed(3, 4)

    @gc.custom_gradient
    def scaled(u: gc.Tensor, v: gc.Tensor) -> Any:
        t = u * v
        return [t, t + 1], lambda g, h: [g * v * t + gc.softmax(h), None]

    inner = gc.checkpoint(lambda b: gc.sin(b) * b)
    p, q = scaled(*gc.checkpoint(lambda a: [gc.exp(a), inner(a)])(x))
    return [p, q, *gc.gradients((p * q).sum(), [x])]


@program
def symbolic_extents() -> Any:
    a, b = gc.Dim("a"), gc.Dim("b")
    x, y, z = fed(a, b), fed(b, name="y"), fed(None, None, 4, name="z")
    w = (x * y).reshape((-1,))
    return [w, w.sum(), x.T, gc.concat([x, x], 0), x.mean(axis=1), z.reshape((-1, 4)), gc.permute(z, (1, 0, 2)) * 2]


@program
def no_inputs() -> Any:
    return [gc.arange(5) * 2, gc.arange(4).reshape((2, 2)), gc.random.normal(shape=(3,))]


@program
def only_updates() -> Any:
    a, b, m, k = state(2, name="a"), state(2, name="b"), state(2, 2, name="m"), state(2, 2, name="k")
    return [a.assign(b), b.assign(a), m.assign(gc.transpose(k)), k.assign(gc.zeros((2, 2)))]


@program
def updates_that_share_or_change_nothing() -> Any:
    a, b, c, x = state(2, 2, name="a"), state(4, name="b"), state(3, name="c"), fed(4)
    y = gc.exp(x)
    return [a.assign(y.reshape((2, 2))), b.assign(y), y, c.assign(c), c]


@program
def constants_as_results() -> Any:
    table, nan = gc.constant([1.0, 2.0]), gc.constant(float("nan"))
    return [gc.constant(1.0), table, gc.zeros((2, 3)), gc.zeros((0, 3)), table * 2, gc.ones((5,)), nan]


@program
def arrays_without_elements() -> Any:
    x, y, a = fed(0, 3), fed(4, 0, name="y"), state(0, 2, name="a")
    joined = gc.concat([x, gc.ones((2, 3))], 0)
    return [x * 2, x.sum(0), x.sum(), joined, y @ x, x.T, gc.exp(x).reshape((3, 0)), x, a.assign(a * 2), a]


@program
def leaves_as_results() -> Any:
    x, v = fed(2, 3), state(2, 3, name="v")
    seen = [t for leaf in (x, v.read()) for t in (leaf, leaf.reshape((6,)), gc.transpose(leaf), leaf[0])]
    return [*seen, x, {"again": x}, gc.broadcast_to(v, (4, 2, 3))]


@program
def nothing() -> Any:
    return []


@program
def views_of_what_is_stored() -> Any:
    y = gc.exp(fed(4, 6))
    part = gc.flip(y, 0)[1:3]
    return [y, part, part @ gc.transpose(y), gc.transpose(y).reshape((4, 6)) + 1]


@program
def second_derivatives() -> Any:
    w, x = state(3, 3), fed(2, 3)
    return gc.hvp(lambda v: gc.softmax(x @ v).max(axis=1).sum(), [w], [gc.ones((3, 3))])


@program
def random_masks_and_norms() -> Any:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2))
    loss = gc.square(model(fed(None, 4))).mean()
    return [loss, optim.AdamW(1e-3).minimize(loss)]


@program
def windows_and_statistics() -> Any:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    loss = model(fed(2, 3, 8, 8)).mean()
    return [loss, optim.SGD(0.1, momentum=0.9).minimize(loss)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_at_every_stage_in_every_format(name: str, tmp_path: Path) -> None:
    fetches = PROGRAMS[name]()
    with gc.Session(DEVICE) as session:
        for stage in STAGES:
            for suffix in SUFFIXES:
                dump(fetches, tmp_path / f"a{suffix}", stage, session=session)
                written(tmp_path / f"a{suffix}")
        dump(fetches, tmp_path / "all.html", session=session)
        assert "</html>" in written(tmp_path / "all.html")


@pytest.mark.parametrize("name", [n for n in STEPS if n not in ("resnet18", "unet", "gru")])
def test_every_stage_of_known_steps(name: str, tmp_path: Path) -> None:
    fetches, feeds = STEPS[name]()
    for stage in STAGES:
        diagram = diagram_of(fetches, tmp_path, stage, feeds=feeds)
        assert len(diagram["nodes"]) > 10


@pytest.mark.slow
@pytest.mark.parametrize("device", ["opencl:intel", "opencl:pocl"])
@pytest.mark.parametrize("name", STEPS)
def test_pages_of_known_steps_on_devices(name: str, device: str, tmp_path: Path) -> None:
    fetches, feeds = STEPS[name]()
    with opened(device) as session:
        dump(fetches, tmp_path / "all.html", feeds=feeds, session=session)
        dump(fetches, tmp_path / "fused.dot", "fused", feeds=feeds, session=session)
        dump(fetches, tmp_path / "plan.svg", "plan", feeds=feeds, session=session)
    for path in tmp_path.iterdir():
        written(path)


# What a kernel reads


def graph_of(fetches: Any) -> Graph:
    """The graph of a run that feeds every placeholder."""
    tensors, updates, _ = flatten_fetches(fetches)
    graph = collect(tensors, updates)
    inputs = tuple(n.output() for n in graph.nodes() if n.op.name == "placeholder")
    return Graph(graph.outputs, graph.updates, inputs)


def fused(graph: Graph, session: gc.Session, allow: Any = None) -> tuple[Diagram, Kernels]:
    """A graph's fused picture, and the kernels in it; ``allow`` may refuse fusions."""
    target = session._backend.target
    sizes = dict.fromkeys(symbols_of(e for n in graph.nodes() for t in n.types for e in t.shape), 6)
    made = compile_graph(graph, target, sizes, pipeline=DEFAULT.replace(Fuse.name, Fuse(allow)))
    kernels = made.latest(Kernels)
    by_group = {k.group.number: k for k in kernels.listed}

    def pieces(group: Any) -> Any:
        found = by_group[group.number]
        parts = (found.parts or uncut(found.kernel)).parts if found.kernel.stores else ()
        return [p for part in parts for p in scheduled(part, target, sizes)]

    return fused_diagram(made.partition, pieces, sizes, "fused"), kernels


def reads(diagram: Diagram, kernels: Kernels) -> list[tuple[set[str], set[str]]]:
    """For every kernel that runs the nodes from which edges enter its frame, and those of the values that it loads."""
    graph, groups = kernels.graph, [k.group for k in kernels.listed]
    number = {n.serial: i for i, n in enumerate(dict.fromkeys((*(t.node for t in graph.inputs), *graph.nodes())))}
    stored = {t: f"k{g.number} %{number[t.node.serial]}" for g in groups for t in g.stored}
    frame = {n.id: n.group for n in diagram.nodes}
    ops = {n.id for n in diagram.nodes if n.style != "update"}
    splats = Splats()
    found = []
    for group, kernel, values, _ in kernels.listed:
        if not kernel.stores:
            continue
        own, mine = f"k{group.number}", set(group.stored)
        drawn = {e.source for e in diagram.edges if e.target in ops and frame[e.target] == own != frame[e.source]}
        loaded = [t for t in values if t not in mine and splats.text(t) is None]
        found.append((drawn, {stored.get(t, f"%{number[t.node.serial]}") for t in loaded}))
    return found


@pytest.mark.parametrize("name", [*(n for n in PROGRAMS if n != "nothing"), "gpt", "vit"])
def test_kernels_are_drawn_reading_what_they_load(name: str) -> None:
    fetches = PROGRAMS[name]() if name in PROGRAMS else STEPS[name]()[0]
    with gc.Session(DEVICE) as session:
        found = reads(*fused(graph_of(fetches), session))
    assert found
    for drawn, loaded in found:
        assert drawn == loaded


def test_random_programs_cut_at_random_are_drawn_reading_what_they_load() -> None:
    kernels = 0
    with gc.Session(DEVICE) as session:
        for seed in range(60):
            made = seeded(seed)
            draw = random.Random(seed)
            allow = None if seed % 2 else lambda node, group, draw=draw: draw.random() < 0.7
            for drawn, loaded in reads(*fused(graph_of([v.tensor for v in made.fetched]), session, allow)):
                assert loaded <= drawn, seed  # lowering drops what no element needs: a window's padding, an empty part
                kernels += 1
    assert kernels > 200


def test_a_view_that_its_producer_stores_is_read_from_there(tmp_path: Path) -> None:
    diagram = diagram_of(PROGRAMS["views_stored_by_their_producer"](), tmp_path, "fused")
    nodes = {n["id"]: n for n in diagram["nodes"]}
    kept = {n["id"] for n in nodes.values() if n["kind"] == "permute" and any("stored: " in x for x in n["lines"])}
    readers = [nodes[e["target"]] for e in diagram["edges"] if e["source"] in kept]
    assert kept and {"matmul"} <= {n["kind"] for n in readers}


def test_a_kernel_without_elements_says_that_nothing_runs(tmp_path: Path) -> None:
    x = fed(0, 3)
    diagram = diagram_of([x.T, gc.exp(fed(4, name="y"))], tmp_path, "fused")
    assert [g["label"] for g in diagram["groups"]] == ["permute: no elements", "exp"]
    assert "nothing runs" in diagram["groups"][0]["lines"]
    assert dict(diagram["facts"])["kernels"] == "1"
