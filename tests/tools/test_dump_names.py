"""What pictures call things: gradients marked as such, in boxes of their own, and titles that say what is drawn."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from support.pictures import DEVICE, STAGES, diagram_of, written
from support.values import node_of

import graphcore as gc
from graphcore import nn
from graphcore.api.tensor import wrap
from graphcore.base import source
from graphcore.ir.graph import Graph, collect
from graphcore.ir.leaves import Parameter
from graphcore.ops.region import Checkpoint
from graphcore.tools.pictures import dprint, dump


def kinds(diagram: dict[str, Any], *, derived: bool) -> set[str]:
    """The kinds of ops that are part of a gradient, or of those that are not."""
    leaves = ("placeholder", "variable", "constant", "output", "update")
    return {n["kind"] for n in diagram["nodes"] if n["derived"] == derived and n["style"] not in leaves}


def check_marks(diagram: dict[str, Any]) -> None:
    """Labels, boxes and the mark for search agree about what is part of a gradient."""
    for n in diagram["nodes"]:
        if n["style"] != "output":
            assert n["label"].startswith("∂ ") == n["derived"], n
        if n["scope"]:
            assert n["scope"][0].startswith("∂ ") == n["derived"], n


def custom() -> tuple[gc.Tensor, gc.Tensor]:
    """A loss through a function with a rule, and its gradient. Each op tells where it was built."""

    @gc.custom_gradient
    def bent(x: gc.Tensor) -> Any:
        e = gc.exp(x)  # the rule reads it, so autodiff copies it
        return gc.tanh(e), lambda g: gc.sin(g) * gc.softmax(gc.cos(e)) * gc.sigmoid(g)

    x = gc.placeholder("float32", (3, 4), name="x")
    with gc.name_scope("block"):
        y = bent(x)
    loss = (y * y).sum()
    return loss, gc.gradients(loss, [x])[0]


def test_a_rule_of_a_custom_gradient_is_drawn_as_gradient(tmp_path: Path) -> None:
    loss, gradient = custom()
    built = diagram_of([loss, gradient], tmp_path, "built")
    check_marks(built)
    assert kinds(built, derived=False) == {"exp", "tanh", "mul", "sum"}
    assert {"sin", "cos", "sigmoid", "max", "exp", "div"} <= kinds(built, derived=True)
    scopes = {n["scope"][0] for n in built["nodes"] if n["derived"] and n["scope"]}
    assert scopes == {"∂ block"}
    assert any("part of a gradient" in n["tooltip"] for n in built["nodes"] if n["kind"] == "cos")


@pytest.mark.parametrize("gradient_first", [False, True])
def test_what_a_rule_shares_with_the_forward_pass_stays_forward(gradient_first: bool, tmp_path: Path) -> None:
    loss, gradient = custom()
    diagram = diagram_of([gradient, loss] if gradient_first else [loss, gradient], tmp_path, "simplified")
    check_marks(diagram)
    assert "tanh" in kinds(diagram, derived=False) and "sin" in kinds(diagram, derived=True)
    # The function's own, which the rule reads, and the one of the rule's softmax.
    assert sorted(n["derived"] for n in diagram["nodes"] if n["kind"] == "exp") == [False, True]


def test_rules_of_the_package_are_drawn_as_gradients(tmp_path: Path) -> None:
    x, y = gc.placeholder("float32", (3, 4), name="x"), gc.placeholder("int64", (3,), name="y")
    with gc.name_scope("head"):
        loss = nn.functional.cross_entropy(gc.softmax(x), y)
    diagram = diagram_of([loss, gc.gradients(loss, [x])], tmp_path, "built")
    check_marks(diagram)
    inside = [n for n in diagram["nodes"] if "softmax" in n["scope"]]
    assert {n["derived"] for n in inside} == {False, True}
    assert {n["scope"][0] for n in inside if n["derived"]} == {"∂ head"}


def test_a_checkpoints_copies_are_drawn_as_gradient(tmp_path: Path) -> None:
    x = gc.placeholder("float32", (4,), name="x")
    with gc.name_scope("block"):
        y = gc.checkpoint(lambda a: gc.exp(gc.tanh(a)))(x)
    built = diagram_of([y, gc.gradients(y.sum(), [x])], tmp_path, "built")
    check_marks(built)
    again = [n for n in built["nodes"] if "recomputed" in n["lines"]]
    assert again and all(n["derived"] and n["scope"][0] == "∂ block" for n in again)
    assert {"exp", "tanh"} <= kinds(built, derived=False)


def test_bodies_of_regions_inside_a_gradient_are_part_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copied region shares its body with the forward one, whose nodes do not know of the copy."""
    x = gc.placeholder("float32", (4,), name="x")
    p = wrap(node_of(Parameter((4,), gc.float32, "p"), ()).output())
    forward = node_of(Checkpoint((Graph((gc.exp(p),), (), (p,)),)), (x,))
    copy = node_of(forward.op, forward.inputs, source.derived(forward.origin))
    diagram = diagram_of([wrap(forward.output()), wrap(copy.output())], tmp_path, "built")
    assert [(n["label"], n["derived"]) for n in diagram["nodes"] if n["kind"] == "exp"] == [
        ("exp", False),
        ("∂ exp", True),
    ]
    dprint(wrap(copy.output()))
    assert capsys.readouterr().out.count("[gradient]") == 2


def test_nodes_built_after_a_gradient_are_forward_again() -> None:
    _, gradient = custom()
    assert gradient.node.origin.derived
    assert not gc.exp(gradient).node.origin.derived
    rule_nodes = [n for n in collect([gradient]).nodes() if n.op.name in ("sin", "cos")]
    assert len(rule_nodes) == 2 and all(n.origin.function == "<lambda>" for n in rule_nodes)


# Titles


def titles(page: str) -> tuple[str, list[dict[str, Any]]]:
    """A page's title and its tabs."""
    data = re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)
    title = re.search(r"<title>(.*?)</title>", page)
    assert data is not None and title is not None
    return title[1], json.loads(data[1])["tabs"]


def long_run() -> list[Any]:
    """Fetches with long names, and updates."""
    x = gc.placeholder("float32", (4,), name="x")
    values = []
    for i in range(5):
        with gc.name_scope("encoder"), gc.name_scope(f"layer_number_{i}"), gc.name_scope("projection"):
            values.append(gc.exp(x + i))
    w = gc.Variable(np.ones(4, np.float32), name="w")
    return [*values, w.assign(w + x)]


NAMES = [f"encoder/layer_number_{i}/projection/exp" for i in range(3)]


@pytest.mark.parametrize("stage", STAGES)
def test_a_page_of_one_stage_says_which_and_of_what(stage: str, tmp_path: Path) -> None:
    dump(long_run(), tmp_path / "a.html", stage, device=DEVICE)
    title, tabs = titles(written(tmp_path / "a.html"))
    whole = f"{stage}: {', '.join(NAMES)} and 2 more + 1 update"
    assert title == whole
    assert [(t["name"], t["title"]) for t in tabs] == [
        (stage, whole),
        *([("plan: memory", f"{whole}, memory map")] if stage == "plan" else []),
    ]


def test_a_page_of_all_stages_is_called_by_its_program(tmp_path: Path) -> None:
    dump(long_run(), tmp_path / "a.html", device=DEVICE)
    title, tabs = titles(written(tmp_path / "a.html"))
    whole = f"{', '.join(NAMES)} and 2 more + 1 update"
    assert title == whole
    assert [t["title"] for t in tabs] == [*(f"{s}: {whole}" for s in STAGES), f"plan: {whole}, memory map"]


def test_a_drawing_breaks_a_long_title_and_keeps_all_of_it(tmp_path: Path) -> None:
    dump(long_run(), tmp_path / "a.svg", "fused", device=DEVICE)
    root = ElementTree.fromstring(written(tmp_path / "a.svg"))
    rows = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text") if e.get("class") == "title"]
    assert len(rows) == 3 and all(row is not None and len(row) <= 80 for row in rows)
    assert " ".join(map(str, rows)) == f"fused: {', '.join(NAMES)} and 2 more + 1 update"


def test_a_fetched_gradient_is_not_called_like_the_forward_value(tmp_path: Path) -> None:
    x = gc.placeholder("float32", (4,), name="x")
    with gc.name_scope("body"):
        y = gc.exp(x)
    (g,) = gc.gradients(y.sum(), [x])
    diagram = diagram_of([y, g], tmp_path, "built")
    assert diagram["title"] == "built: body/exp, ∂ body/mul" and diagram["name"] == "built"
    assert {"fetch body/exp", "fetch ∂ body/mul"} <= {n["label"] for n in diagram["nodes"]}


def test_a_simplified_graph_says_which_sizes_were_chosen(tmp_path: Path) -> None:
    x = gc.placeholder("float32", (2, gc.Dim("n")), name="x")
    diagram = diagram_of(gc.exp(x).reshape((-1,)), tmp_path, "simplified")
    assert any("float32(2, 32)" in n["lines"] for n in diagram["nodes"])
    assert dict(diagram["facts"])["chosen, not fed"] == "n = 32"
