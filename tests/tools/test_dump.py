"""Pictures of graphs at every stage, trees as text, graphs for networkx."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.pictures import DEVICE, STAGES, diagram_of, written
from support.values import node_of

import graphcore as gc
from graphcore.api.tensor import wrap
from graphcore.base.errors import DeviceError, FeedError, UsageError
from graphcore.ir.graph import Graph, collect
from graphcore.ir.leaves import Parameter
from graphcore.ir.op import Kind, Op, TensorType
from graphcore.plan.plan import Placed
from graphcore.runtime.fetches import flatten_fetches
from graphcore.tools.pictures import dump
from graphcore.viz.adapters import graph_diagram, update_owners
from graphcore.viz.lowered import flop_text, predecessors


def training_step() -> tuple[gc.Tensor, gc.Tensor, gc.Tensor, Any]:
    """Two layers, a loss and plain gradient descent with momentum, of placeholders with an open batch."""
    x = gc.placeholder("float32", (None, 6), name="x")
    y = gc.placeholder("float32", (None, 2), name="y")
    with gc.name_scope("hidden"):
        w = gc.Variable(np.ones((6, 4), np.float32), name="w")
        h = gc.tanh(x @ w * 0.5)
    with gc.name_scope("head"):
        v = gc.Variable(np.ones((4, 2), np.float32), name="v")
        out = h @ v
    loss = ((out - y) ** 2).sum()
    step = []
    for variable, gradient in zip((w, v), gc.gradients(loss, [w, v]), strict=True):
        m = gc.Variable(np.zeros(variable.shape, np.float32), trainable=False, name=f"{variable.name}/m")
        moved = m * 0.9 + gradient
        step += [m.assign(moved), variable.assign(variable - moved * 0.1)]
    return x, y, loss, step


def facts(diagram: dict[str, Any]) -> dict[str, str]:
    return dict(diagram["facts"])


def labels(diagram: dict[str, Any]) -> list[str]:
    return [n["label"] for n in diagram["nodes"]]


def linked(diagram: dict[str, Any]) -> set[tuple[str, str]]:
    """Edges by the labels of their ends."""
    label = {n["id"]: n["label"] for n in diagram["nodes"]}
    return {(label[e["source"]], label[e["target"]]) for e in diagram["edges"]}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("suffix", [".svg", ".html", ".dot", ".json"])
def test_every_stage_in_every_format(stage, suffix, tmp_path):
    _, _, loss, step = training_step()
    path = tmp_path / f"graph{suffix}"
    dump([loss, {"train": step}], path, stage, device=DEVICE if stage in ("fused", "plan") else None)
    assert f"{stage}: {loss.name} + 4 updates" in written(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_a_page_has_all_stages_by_default(tmp_path):
    _, _, loss, step = training_step()
    dump([loss, step], tmp_path / "default.HTML", device=DEVICE)
    dump([loss, step], tmp_path / "all.html", "all", device=DEVICE)
    text = written(tmp_path / "all.html")
    assert text == written(tmp_path / "default.HTML")
    start = text.index('type="application/json">') + len('type="application/json">')
    tabs = json.loads(text[start : text.index("</script>", start)])["tabs"]
    assert [t["name"] for t in tabs] == [*STAGES, "plan: memory"]


def test_a_picture_is_of_the_built_graph_by_default(tmp_path):
    _, _, loss, _ = training_step()
    dump(loss, tmp_path / "a.svg")
    assert f"built: {loss.name}" in written(tmp_path / "a.svg")


def test_without_a_device_a_page_says_what_is_missing(tmp_path, monkeypatch):
    def refuse(*_: Any) -> Any:
        raise DeviceError("no OpenCL runtime here\nmore about it")

    monkeypatch.setattr("graphcore.runtime.session.open_backend", refuse)
    monkeypatch.setattr("graphcore.runtime.session._default", {})
    _, _, loss, step = training_step()
    dump([loss, step], tmp_path / "a.html")
    text = written(tmp_path / "a.html")
    assert "not drawn, no OpenCL runtime here" in text and "more about it" not in text and '"simplified"' in text
    for stage in ("all", "plan", "fused"):
        with pytest.raises(DeviceError, match="no OpenCL runtime"):
            dump([loss, step], tmp_path / "b.html", stage)
    for stage in ("built", "simplified"):
        dump([loss, step], tmp_path / "c.svg", stage)


def test_two_stages_need_no_opencl_package(tmp_path):
    code = """
import sys
sys.modules["pyopencl"] = None
import graphcore as gc
from graphcore.tools.pictures import dump
x = gc.placeholder("float32", (None, 3), name="x")
for stage in ("built", "simplified"):
    dump((x * 1).sum(), sys.argv[1] + "/" + stage + ".svg", stage)
dump((x * 1).sum(), sys.argv[1] + "/page.html")
"""
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"built.svg", "simplified.svg", "page.html"}
    assert "not drawn" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_built_shows_what_was_written(tmp_path):
    _, _, loss, step = training_step()
    diagram = diagram_of([loss, step], tmp_path, "built")
    nodes = {n["label"]: n for n in diagram["nodes"]}
    assert nodes["tanh"]["scope"] == ["hidden"]
    assert any(line.startswith("test_dump.py:") for line in nodes["tanh"]["lines"])
    assert "h = gc.tanh(x @ w * 0.5)" in nodes["tanh"]["tooltip"]
    assert nodes["x"]["style"] == "placeholder" and nodes["hidden/w"]["style"] == "variable"
    assert nodes["hidden/w ←"]["style"] == "update" and nodes[f"fetch {loss.name}"]["style"] == "output"
    assert "mul(·, 0.5)" in nodes, "a scalar constant stands in its reader's label"
    assert "broadcast" not in {n["kind"] for n in diagram["nodes"]}
    assert {"∂ hidden", "∂ head"} <= {n["scope"][0] for n in diagram["nodes"] if n["scope"]}
    assert all(n["label"].startswith("∂ ") for n in diagram["nodes"] if n["scope"] and n["scope"][0].startswith("∂"))
    assert ("tanh", "matmul") in linked(diagram) and ("x", "matmul") in linked(diagram)
    assert facts(diagram)["updates"] == "4"


def test_update_formulas_have_a_box_for_each_variable():
    _, _, loss, step = training_step()
    tensors, updates, _ = flatten_fetches([loss, step])
    graph = collect(tensors, updates)
    owners = update_owners(graph)
    values = {v.name: owners.get(t.node.serial) for v, t in graph.updates}
    assert values == {"hidden/w": "hidden/w", "hidden/w/m": "hidden/w", "head/v": "head/v", "head/v/m": "head/v"}
    assert loss.node.serial not in owners
    assert update_owners(Graph(graph.outputs, graph.updates[:1])) == {}, (
        "with one variable there is nothing to tell apart"
    )


def test_variables_of_one_name_have_boxes_of_their_own():
    loss = gc.placeholder("float32", (), name="x") * 2.0
    same = [gc.Variable([float(i)], name="w") for i in range(3)]
    shared = loss * 3.0
    graph = collect([loss], [v.assign(v * shared) for v in same])
    owners = update_owners(graph)
    assert [owners[t.node.serial] for _, t in graph.updates] == ["w", "w #2", "w #3"]
    assert shared.node.serial not in owners


def test_constants_that_are_results_or_tables_are_drawn(tmp_path):
    table = gc.constant([1.0, 2.0, 3.0], name="table")
    zero = gc.zeros((3,))
    nan = gc.constant(float("nan"))
    diagram = diagram_of([table + zero, zero, gc.constant(np.full((2, 2), 7)) * 2, table + nan], tmp_path, "built")
    found = labels(diagram)
    assert "table" in found and "add(·, 0)" in found and "mul(7, 2)" in found and "add(·, nan)" in found
    fetched = [e["source"] for e in diagram["edges"] if e["target"] == "fetch 1"]
    assert len(fetched) == 1


def test_a_checkpoint_is_a_box_around_its_body(tmp_path):
    x = gc.placeholder("float32", (4,), name="x")
    y = gc.checkpoint(lambda a: gc.exp(a * 3.0) + 1.0)(x)
    diagram = diagram_of(y * 2.0, tmp_path, "built")
    nodes = {n["label"]: n for n in diagram["nodes"]}
    assert nodes["exp"]["scope"][0].startswith("checkpoint %")
    assert {("x", "mul(·, 3)"), ("add(·, 1)", "mul(·, 2)")} <= linked(diagram)
    assert not {"parameter", "checkpoint"} & {n["kind"] for n in diagram["nodes"]}
    simple = diagram_of(y * 2.0, tmp_path, "simplified")
    assert all(not n["scope"] for n in simple["nodes"])


class _Branch(Op):
    """A region of two bodies that is not inlined: a box that the results of both flow to."""

    name = "test_branch"
    kind = Kind.REGION
    arity = None

    def __init__(self, bodies: tuple[Graph, ...]) -> None:
        object.__setattr__(self, "bodies", bodies)

    def infer(self, *inputs: TensorType) -> tuple[TensorType, ...]:
        return tuple(t.type for t in self.bodies[0].outputs)  # type: ignore[attr-defined]

    def attributes(self) -> dict[str, Any]:
        return {}


def test_a_region_with_several_bodies_keeps_its_box():
    x = gc.placeholder("float32", (4,), name="x")
    bodies = []
    for build in (gc.sin, gc.cos):
        p = wrap(node_of(Parameter((4,), gc.float32, "p"), ()).output())
        bodies.append(Graph((build(p),), (), (p,)))
    shared = bodies[0]
    y = wrap(node_of(_Branch((*bodies, shared)), (x,)).output())  # the same body twice: drawn twice
    diagram = graph_diagram(Graph((y,)), "branch")
    nodes = {n.id: n for n in diagram.nodes}
    box = next(n for n in diagram.nodes if n.label == "test_branch")
    assert {n.scope[-1] for n in diagram.nodes if n.label in ("sin", "cos")} == {"body 0", "body 1", "body 2"}
    into = sorted(nodes[e.source].label for e in diagram.edges if e.target == box.id)
    assert into == ["cos", "sin", "sin", "x"]
    assert sum(n.label == "p" for n in diagram.nodes) == 3


def test_fused_puts_ops_into_kernels(tmp_path):
    _, _, loss, step = training_step()
    diagram = diagram_of([loss, step], tmp_path, "fused")
    groups = {g["id"]: g for g in diagram["groups"]}
    assert facts(diagram)["kernels"] == str(len(groups))
    assert all(g["style"] == "kernel" and any("family nest" in line for line in g["lines"]) for g in groups.values())
    ops = [n for n in diagram["nodes"] if n["style"] not in ("placeholder", "variable", "constant", "output")]
    assert {n["group"] for n in ops} == set(groups)
    product = next(n for n in ops if n["kind"] == "matmul")
    activation = next(n for n in ops if n["kind"] == "tanh")
    assert product["group"] == activation["group"], "an activation runs in its product's kernel"
    stored = [line for n in ops for line in n["lines"] if line.startswith("stored: ")]
    assert "stored: 512 B" in stored, "a (32, 4) float32 value of a batch of 32"
    assert facts(diagram)["chosen, not fed"].endswith("= 32")
    # No value flows between kernels unless it is stored.
    inside = {n["id"]: n for n in ops}
    for edge in diagram["edges"]:
        source, target = inside.get(edge["source"]), inside.get(edge["target"])
        if source and target and source["group"] != target["group"]:
            assert any(line.startswith("stored: ") for line in source["lines"])


def test_fused_reads_through_views_and_names_them(tmp_path):
    x = gc.placeholder("float32", (3, 5), name="x")
    w = gc.Variable(np.ones((4, 5), np.float32), name="w")
    diagram = diagram_of([x @ w.T, gc.reshape(gc.exp(x), (15,)), gc.transpose(x)], tmp_path, "fused")
    assert "permute" in {e["label"] for e in diagram["edges"]}
    permutes = [n for n in diagram["nodes"] if n["kind"] == "permute"]
    assert len(permutes) == 1, "only the fetched transpose is a value of its own"
    assert not [n for n in diagram["nodes"] if n["kind"] == "reshape"]
    assert ("exp", "fetch reshape") in linked(diagram)


def test_leaves_as_results_at_every_stage(tmp_path):
    x = gc.placeholder("float32", (2,), name="x")
    a, b = gc.Variable([1.0, 2.0], name="a"), gc.Variable([3.0, 4.0], name="b")
    for stage in STAGES:
        diagram = diagram_of([x, a, gc.constant([5.0, 6.0]), a.assign(b), b.assign(a)], tmp_path, stage)
        assert ("x", "fetch x") in linked(diagram)
        # The plan keeps the old value of a fetched variable that is updated in a buffer of its own.
        assert ("#1 workspace" if stage == "plan" else "a", "fetch a") in linked(diagram)
        assert {"a ←", "b ←"} <= set(labels(diagram))


def test_plan_shows_buffers_and_memory(tmp_path):
    _, _, loss, step = training_step()
    with gc.Session(DEVICE) as session:
        diagram = diagram_of([loss, step], tmp_path, "plan", session=session)
        x, y = _placeholders(loss)
        compiled = session.compile([loss, step], {x: (32, 6), y: (32, 2)})
        memory, plan = compiled.memory_analysis(), compiled.plan
    steps = [n for n in diagram["nodes"] if n["style"] == "kernel"]
    assert len(steps) == len(plan.steps)
    assert [n["group"] for n in steps] == [f"level {s.level}" for s in plan.steps]
    assert [g["label"] for g in diagram["groups"]] == [f"level {n}" for n in sorted({s.level for s in plan.steps})]
    rows = diagram["memory"]["rows"]
    assert max(r["offset"] + r["bytes"] for r in rows) <= memory["arena_bytes"]
    assert len(rows) == len(compiled.bound.placed.offsets)
    assert rows[0]["start_step"] == 0 and len(diagram["memory"]["steps"]) == max(s.level for s in plan.steps) + 3
    updates = [n for n in diagram["nodes"] if n["style"] == "update"]
    assert sorted(n["label"] for n in updates) == ["head/v ←", "head/v/m ←", "hidden/w ←", "hidden/w/m ←"]
    in_place = {compiled.slots[plan.slot(number)].name for number, _ in plan.in_place}
    assert {n["label"][:-2] for n in updates if "in place" in n["lines"]} == in_place
    offsets = {f"buffer {n}": o for n, o in compiled.bound.placed.offsets.items()}
    for n in diagram["nodes"]:
        if n["style"] == "buffer" and n["id"] in offsets:
            assert any(line.endswith(f"@ {offsets[n['id']]}") for line in n["lines"])
    assert any("kernel " in n["tooltip"] for n in steps)


def _placeholders(loss: gc.Tensor) -> list[gc.Tensor]:
    found = {n.op.label: wrap(n.output()) for n in collect([loss]).nodes() if n.op.name == "placeholder"}  # type: ignore[attr-defined]
    return [found["x"], found["y"]]


def test_dumping_leaves_the_session_as_it_was(tmp_path):
    x, y, loss, step = training_step()
    feeds = {x: np.ones((5, 6), np.float32), y: np.ones((5, 2), np.float32)}
    with gc.Session("numpy", seed=3) as one, gc.Session("numpy", seed=3) as two:
        for stage in STAGES:
            dump([loss, step], tmp_path / "a.svg", stage, session=one)
        assert one.state_dict() == {}
        for session in (one, two):
            session.run(step, feeds)
        assert {k: v.tolist() for k, v in one.state_dict().items()} == {
            k: v.tolist() for k, v in two.state_dict().items()
        }
        one.close()
        with pytest.raises(gc.SessionError):
            dump(loss, tmp_path / "a.svg", "plan", session=one)


def test_the_same_dump_gives_the_same_text(tmp_path):
    _, _, loss, step = training_step()
    texts = set()
    for stage in STAGES:
        for i in range(2):
            dump([loss, step], tmp_path / f"{i}.json", stage, device=DEVICE)
            texts.add((tmp_path / f"{i}.json").read_text())
    assert len(texts) == len(STAGES)


def test_sizes_come_from_feeds(tmp_path):
    x, y, loss, step = training_step()
    named = gc.placeholder("float32", (gc.Dim("batch"),), name="n")
    for feeds in ({x: (7, 6), y: np.zeros((7, 2))}, {x: np.zeros((7, 6))}):  # y's rows must equal x's
        given = facts(diagram_of([loss, step], tmp_path, "plan", feeds=feeds))
        assert given["sizes"].endswith(" = 7") and "chosen, not fed" not in given
    mixed = facts(diagram_of([loss, named.sum()], tmp_path, "plan", feeds={x: (7, 6)}))
    assert mixed["chosen, not fed"] == "batch = 32" and mixed["sizes"].endswith(" = 7")
    wide = gc.placeholder("float32", (None, 3), name="wide")
    fixed = gc.constant(np.ones((5, 3), np.float32))
    assert "chosen, not fed" not in facts(diagram_of(wide + fixed, tmp_path, "plan")), (
        "an equation with 5 leaves nothing to choose"
    )


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": (7, 6)}, "rank|tensors"),
        ({0: (7,)}, "rank"),
        ({0: (7, 5)}, "axis 1 must be 6"),
        ({0: (7, 6), 1: (8, 2)}, "8|7"),
    ],
)
def test_wrong_feeds(feeds, message, tmp_path):
    x, y, loss, _ = training_step()
    given = {(x, y)[k] if isinstance(k, int) else k: v for k, v in feeds.items()}
    with pytest.raises(FeedError, match=message):
        dump(loss, tmp_path / "a.svg", "plan", feeds=given, device=DEVICE)
    assert not list(tmp_path.iterdir())


def test_feeding_an_inner_tensor_cuts_the_graph(tmp_path):
    x = gc.placeholder("float32", (4,), name="x")
    inner = gc.exp(x)
    diagram = diagram_of(gc.sin(inner), tmp_path, "plan", feeds={inner: (4,)})
    assert "x" not in labels(diagram) and any("sin" in label for label in labels(diagram))
    w = gc.Variable([1.0, 2.0], name="w")
    with pytest.raises(FeedError, match="variable"):
        dump(w * 2, tmp_path / "a.svg", feeds={w: (2,)})


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("graph.png", {}, r"\.dot, \.svg, \.html or \.json"),
        ("graph", {}, r"\.dot"),
        ("graph.svg", {"stage": "optimised"}, "'built', 'simplified', 'fused', 'plan'"),
        ("graph.svg", {"stage": "all"}, "only an .html page"),
        ("graph.svg", {"device": "numpy", "session": object()}, "not both"),
    ],
)
def test_wrong_arguments(path, options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        dump(gc.constant(1.0), tmp_path / path, **options)
    assert not list(tmp_path.iterdir())


def test_folders_are_made_and_files_replaced_whole(tmp_path, monkeypatch):
    target = tmp_path / "a" / "b" / "graph.dot"
    dump(gc.constant([1.0, 2.0]), target)
    before = written(target)

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        dump(gc.constant([3.0, 4.0]) * 2, target)
    assert target.read_text() == before and [p.name for p in target.parent.iterdir()] == ["graph.dot"]


def test_hostile_names_do_not_break_pictures(tmp_path):
    name = '"><script>alert(1)</script>&\n\\"'
    x = gc.placeholder("float32", (2,), name=name)
    with gc.name_scope(name):
        y = gc.exp(x) + gc.sin(x)
    for suffix in (".svg", ".html", ".json", ".dot"):
        dump([y, gc.Variable([1.0, 2.0], name=name).assign(y)], tmp_path / f"a{suffix}", device=DEVICE)
        text = written(tmp_path / f"a{suffix}")
        if suffix in (".svg", ".html"):
            assert "<script>alert" not in text


def test_predecessors_are_the_last_owners_of_the_bytes():
    offsets = {0: 0, 1: 100, 2: 0, 3: 50, 4: 0, 5: 300, 6: 10}
    sizes = {0: 100, 1: 100, 2: 40, 3: 100, 4: 200, 5: 10, 6: 0}
    lifetimes = {0: (0, 1), 1: (0, 1), 2: (2, 3), 3: (2, 3), 4: (4, 5), 5: (0, 5), 6: (3, 3)}
    found = predecessors(Placed({}, offsets, 310, 0, lifetimes), sizes)
    assert found == {0: (), 1: (), 5: (), 2: (0,), 3: (0, 1), 4: (2, 0, 3, 1)}


def test_predecessors_against_a_map_of_bytes():
    rng = np.random.default_rng(5)
    for _ in range(20):
        offsets, sizes, lifetimes = {}, {}, {}
        owner: list[int | None] = [None] * 64
        expected = {}
        for n in range(25):
            start = int(rng.integers(0, 60))
            offsets[n], sizes[n], lifetimes[n] = start, int(rng.integers(1, 64 - start + 1)), (n, n)
            span = owner[start : start + sizes[n]]
            expected[n] = tuple(dict.fromkeys(o for o in span if o is not None))
            owner[start : start + sizes[n]] = [n] * sizes[n]
        assert predecessors(Placed({}, offsets, 64, 0, lifetimes), sizes) == expected


def test_flop_text():
    assert [flop_text(n) for n in (0, 96, 999.7, 1.25e6, 3e12, 5e15)] == [
        "0 flop",
        "96 flop",
        "1 kflop",
        "1.25 Mflop",
        "3 Tflop",
        "5e+03 Tflop",
    ]
