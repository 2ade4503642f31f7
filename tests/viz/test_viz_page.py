"""The page: what its script decides about the camera, a search and keys, and the numbers that it decides by."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any
from xml.etree import ElementTree

import pytest
from test_viz import DIAGRAMS, SVG, laid_out, node, training_step

from graphcore.viz import Diagram, DiagramEdge, DiagramGroup, DiagramNode, theme, to_html, to_svg
from graphcore.viz import html as html_writer
from graphcore.viz.outline import fold_to, outline

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs a JavaScript engine")


def script(expression: str, given: Any) -> Any:
    """The value of an expression over ``input``, with what the page decides by at hand."""
    code = (
        html_writer.layout_script()
        + 'const input = JSON.parse(require("fs").readFileSync(0, "utf8"));'
        + f"console.log(JSON.stringify({expression}));"
    )
    run = subprocess.run(["node", "-e", code], input=json.dumps(given), capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def page_script() -> str:
    """The script that runs in the page."""
    found = re.findall(r"<script>(.*?)</script>", to_html(training_step(1)), re.DOTALL)
    assert len(found) == 1
    return str(found[0])


# What is drawn, and where


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=lambda d: f"{len(d.nodes)}")
def test_nothing_is_drawn_outside_the_layouts_size(diagram: Diagram) -> None:
    for folded in (frozenset[str](), fold_to(outline(diagram), 8)):
        shown, placed = laid_out(diagram, folded)
        corners: list[tuple[float, float]] = []
        for box in shown.boxes:
            rect = placed.boxes[box.id]
            over = max(box.side_height - rect.height, 0) / 2
            corners += [(rect.x - box.side, rect.y - over), (rect.x + rect.width, rect.y + rect.height + over)]
        for rect in placed.frames.values():
            corners += [(rect.x, rect.y), (rect.x + rect.width, rect.y + rect.height)]
        for wire, route in zip(shown.wires, placed.routes, strict=True):
            over = 7 if route.back else 0  # an edge upwards leaves and enters round the corner, where margins are
            corners += [(x, y + over if y < 0 else y - over if y > placed.height else y) for x, y in route.points]
            if route.label:
                x, y = route.label
                half = theme.text_width(wire.label, theme.LINE_SIZE) / 2 + 2
                corners += [(x - half, y - 7), (x + half, y + 7)]
        for x, y in corners:
            assert -1e-6 <= x <= placed.width + 1e-6
            assert -1e-6 <= y <= placed.height + 1e-6


@needs_node
def test_fit_shows_the_whole_drawing_between_what_lies_over_it() -> None:
    boxes = [{"width": w, "height": h} for w, h in ((1300, 850), (980, 667), (320, 240), (4000, 600))]
    drawings = [
        {"width": w, "height": h}
        for w, h in ((100, 100), (764, 640), (1500, 2600), (300, 9000), (90000, 400), (5000, 400000), (0, 0))
    ]
    insets = [{"side": 20, "top": 14, "bottom": 14}, {"side": 20, "top": 60, "bottom": 57}]
    cases = [{"box": b, "drawing": d, "inset": i} for b in boxes for d in drawings for i in insets]
    for whole in (True, False):
        asked = f"input.map(c => fitted(c.drawing, c.box, c.inset, {json.dumps(whole)}))"
        for case, camera in zip(cases, script(asked, cases), strict=True):
            box, drawing, inset = case["box"], case["drawing"], case["inset"]
            wide, tall = drawing["width"] * camera["scale"], drawing["height"] * camera["scale"]
            assert 0 < camera["scale"] <= 1.25
            assert camera["y"] >= inset["top"] - 1e-6
            assert camera["x"] * 2 + wide == pytest.approx(box["width"])
            if whole:
                assert camera["x"] >= inset["side"] - 1e-6
                assert camera["y"] + tall <= box["height"] - inset["bottom"] + 1e-6
            else:
                assert camera["scale"] >= 0.6


def test_the_camera_of_the_page_is_the_tested_one() -> None:
    text = page_script()
    assert "camera = fitted(shown, box, " in text
    # No zoom has a floor above the scale at which all is shown.
    assert "Math.min(0.01, camera.scale)" in text
    assert "camera.scale.toPrecision(" in text


# Search


def searchable() -> Diagram:
    """A forward pass, a gradient before it in the diagram's order, and kernels of both."""

    def op(name: str, label: str, kind: str, group: str, lines: tuple[str, ...] = (), derived: bool = False) -> Any:
        return DiagramNode(name, label, kind, lines, (), group, "", "map", derived)

    nodes = (
        op("%0", "∂ matmul", "matmul", "g0", derived=True),
        op("%1", "∂ exp", "exp", "g0", derived=True),
        op("%2", "add", "add", "g1", ("matmul.py:3",)),
        op("%3", "matmul axes=(1,)", "matmul", "g1"),
        op("%4", "matmul_t", "matmul_t", "g1"),
        op("%5", "exp", "exp", "g2"),
        op("%6", "∂ exp", "exp", "g2", derived=True),
    )
    edges = tuple(DiagramEdge(f"%{i}", f"%{i + 1}") for i in range(6))
    groups = (
        DiagramGroup("g0", "matmul_exp"),
        DiagramGroup("g1", "matmul"),
        DiagramGroup("g2", "exp", parent="g1"),
    )
    return Diagram("search", nodes, edges, groups)


def test_groups_know_whether_all_of_them_is_part_of_a_gradient() -> None:
    data: Any = html_writer.outline_data(outline(searchable()))
    assert {g["label"]: g["derived"] for g in data["groups"]} == {"matmul_exp": True, "matmul": False, "exp": False}
    assert [n["derived"] for n in data["nodes"]] == [True, True, False, False, False, False, True]


@needs_node
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Names that are just that, names that hold it, lines that hold it; gradients, in the same order.
        ("matmul", ["%3", "matmul", "%4", "%2", "%0", "matmul_exp"]),
        ("exp", ["%5", "exp", "%1", "%6", "matmul_exp"]),
        ("∂ exp", ["%1", "%6"]),
        ("∂", ["%0", "%1", "%6"]),
        ("%4", ["%4"]),
        ("nothing of that name", []),
    ],
)
def test_a_search_leads_to_forward_nodes_and_exact_names_first(text: str, expected: list[str]) -> None:
    diagram = searchable()
    data: Any = html_writer.outline_data(outline(diagram))
    name = {n["key"]: n["id"] for n in data["nodes"]} | {g["key"]: g["label"] for g in data["groups"]}
    found = script("searched(entriesOf(input.outline), input.text)", {"outline": data, "text": text})
    assert [name[key] for key in found] == expected


@needs_node
def test_a_search_keeps_the_graphs_order_in_every_diagram() -> None:
    for diagram in DIAGRAMS:
        data: Any = html_writer.outline_data(outline(diagram))
        found = script("searched(entriesOf(input), 'op')", data)
        nodes = [key for key in found if key in {n["key"] for n in data["nodes"] if n["kind"] == "op"}]
        assert nodes == sorted(nodes, key=lambda key: int(key[1:]))


# Keys


@needs_node
def test_a_focused_tab_or_button_leaves_the_pages_keys_to_the_page() -> None:
    keys = ["ArrowLeft", "ArrowUp", "+", "0", "f", "n", "/", "Escape", "Enter", " "]
    places = [("BUTTON", "tab"), ("BUTTON", None), ("SUMMARY", None), ("svg", "application"), ("BODY", None)]
    asked = "input.places.map(([tag, role]) => input.keys.filter(key => usesKey(tag, role, key)))"
    own = dict(zip(places, script(asked, {"keys": keys, "places": places}), strict=True))
    pressed = ["Enter", " "]
    assert own == {
        ("BUTTON", "tab"): ["ArrowLeft", *pressed], ("BUTTON", None): pressed, ("SUMMARY", None): pressed,
        ("svg", "application"): [], ("BODY", None): [],
    }  # fmt: skip
    assert all(script("input.map(k => usesKey('INPUT', null, k))", keys))


def test_a_click_on_a_tab_gives_the_keys_to_the_drawing() -> None:
    text = page_script()
    assert "open(index); if (event.detail) svg.focus(" in text
    assert text.index("usesKey(at.tagName") < text.index("keys[event.key]()")


# Titles


def test_tabs_have_short_names_and_whole_titles() -> None:
    program = ", ".join(f"encoder/layer_{i}/projection/exp" for i in range(3))
    diagram = Diagram(f"fused: {program}", (node("a"),), name="fused")
    text = to_html([diagram, diagram], title=program)
    assert f"<title>{program}</title>" in text
    tabs = json.loads(re.findall(r'type="application/json">(.*?)</script>', text)[0])["tabs"]
    assert {(tab["name"], tab["title"]) for tab in tabs} == {("fused", diagram.title)}
    assert "h1{" in text and "ellipsis" not in text


def test_long_titles_break_between_words() -> None:
    words = [f"word{i}" * (1 + i % 3) for i in range(12)]
    lines = theme.wrap(" ".join(words), 30, 9)
    assert " ".join(lines) == " ".join(words)
    assert all(theme.columns_of(line) <= 30 for line in lines)
    assert theme.wrap("ab " * 40, 10, 2) == ["ab ab ab", theme.clip("ab " * 37, 10)]
    assert theme.wrap("x" * 50, 10, 3) == [theme.clip("x" * 50, 10)]
    assert theme.wrap("", 10, 3) == [""]


def test_facts_and_title_stand_inside_the_drawing() -> None:
    facts = tuple((f"fact {i}", "value " * 6) for i in range(8))
    root = ElementTree.fromstring(to_svg(Diagram("a title of words " * 20, (node("a"),), facts=facts)))
    wide = float(root.get("width", "0"))
    body = [e for e in root.iter(SVG + "text") if e.get("class") in ("title", "dim")]
    texts = [e.text or "" for e in body]
    for element in body:
        size = 17 if element.get("class") == "title" else theme.LINE_SIZE
        if element.get("text-anchor") is None:
            assert float(element.get("x", "0")) + theme.text_width(element.text or "", size) <= wide
    assert all(any(f"fact {i}: value" in text for text in texts) for i in range(8))
