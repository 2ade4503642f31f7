"""Graph diagrams: layout invariants, escaping, stable and well-formed output, and the page's script against Python."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from graphcore.viz import (
    Diagram,
    DiagramEdge,
    DiagramGroup,
    DiagramNode,
    MemoryMap,
    MemoryRow,
    to_dot,
    to_html,
    to_json,
    to_svg,
)
from graphcore.viz import html as html_writer
from graphcore.viz.layout import Placement, Rect, place
from graphcore.viz.outline import View, fold_to, outline, view

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    '"); system("rm -rf /"); //',
    "<script>alert(1)</script>",
    "]]><b>",
    "</style></svg></script><img src=x onerror=alert(1)>",
    "a\nb\r\nc\td",
    "quote\" and ' back\\slash \\N \\",
    "nul\0 escape\x1b lone\ud800 line\u2028 end",
    "<!-- -->",
    "&amp; ${x} {{y}}",
    "__proto__",
)


def node(name: str, *, style: str = "map", scope: tuple[str, ...] = (), group: str | None = None) -> DiagramNode:
    return DiagramNode(name, name, "op", ("f32[32,256]", "32 KiB"), scope, group, f"tip of {name}", style)  # type: ignore[arg-type]


def training_step(layers: int) -> Diagram:
    """Forward, loss, backward and update of a small network, as name scopes."""
    nodes: list[DiagramNode] = [node("x", style="placeholder"), node("y", style="placeholder")]
    edges: list[DiagramEdge] = []

    def add(name: str, scope: tuple[str, ...], *inputs: str, style: str = "map") -> str:
        nodes.append(node(name, style=style, scope=scope))
        edges.extend(DiagramEdge(source, name) for source in inputs)
        return name

    hidden = ["x"]
    for i in range(layers):
        scope = (f"layer{i}",)
        add(f"w{i}", scope, style="variable")
        product = add(f"matmul{i}", scope, hidden[-1], f"w{i}", style="contract")
        hidden.append(add(f"relu{i}", scope, product))
    loss = add("loss", ("loss",), hidden[-1], "y", style="reduce")
    flow = add("dloss", ("loss",), loss, "y")
    add("fetch", (), loss, style="output")
    for i in reversed(range(layers)):
        scope = (f"layer{i}",)
        mask = add(f"drelu{i}", scope, flow, hidden[i + 1])
        gradient = add(f"dw{i}", scope, mask, hidden[i], style="contract")
        flow = add(f"dx{i}", scope, mask, f"w{i}", style="contract")
        moment = add(f"m{i}", ("adam", f"w{i}"), gradient)
        add(f"update{i}", ("adam", f"w{i}"), moment, gradient, f"w{i}", style="update")
    return Diagram(f"step of {layers} layers", tuple(nodes), tuple(edges), facts=(("ops", str(len(nodes))),))


def fused(layers: int = 3, size: int = 4) -> Diagram:
    """The same step with runs of ops as kernels."""
    step = training_step(layers)
    flow = [n.id for n in step.nodes if n.style not in ("variable", "placeholder")]
    kernel = {name: f"k{index // size}" for index, name in enumerate(flow)}
    groups = tuple(DiagramGroup(name, f"kernel {name}", ("96 KiB",)) for name in dict.fromkeys(kernel.values()))
    return replace(step, nodes=tuple(replace(n, group=kernel.get(n.id)) for n in step.nodes), groups=groups)


def plan() -> Diagram:
    """Steps in order, with a memory map."""
    rows = tuple(MemoryRow(f"buffer {i}", i, i + 2, 4096 * (i % 3), 4096) for i in range(8))
    nodes = tuple(node(f"launch {i}", style="kernel") for i in range(10))
    edges = tuple(DiagramEdge(f"launch {i}", f"launch {i + 1}", f"buffer {i}") for i in range(9))
    steps = tuple(n.label for n in nodes)
    return Diagram("plan", nodes, edges, memory=MemoryMap(rows, steps))


def random_diagram(seed: int, count: int = 40) -> Diagram:
    """Any graph at all: cycles, self loops, repeated and labelled edges, nested scopes."""
    draw = random.Random(seed)
    styles = ("map", "variable", "reduce")
    nodes = tuple(
        node(
            f"v{i}", style=draw.choice(styles), scope=tuple(f"s{draw.randint(0, 2)}" for _ in range(draw.randint(0, 2)))
        )
        for i in range(count)
    )
    edges = tuple(
        DiagramEdge(f"v{draw.randrange(count)}", f"v{draw.randrange(count)}", draw.choice(("", "", "label")))
        for _ in range(2 * count)
    )
    return Diagram(f"random {seed}", nodes, edges)


def hostile() -> Diagram:
    """Every text of a diagram is hostile, ids and groups too."""
    nodes = tuple(
        DiagramNode(text, text, text, (text, text), (text,), text, text, "map" if i else "variable")
        for i, text in enumerate(HOSTILE)
    )
    edges = tuple(DiagramEdge(a, b, a) for a, b in pairwise(HOSTILE))
    groups = tuple(
        DiagramGroup(text, text, (text,), HOSTILE[i - 1] if i % 3 else None) for i, text in enumerate(HOSTILE)
    )
    rows = tuple(MemoryRow(text, i, i + 1, 64 * i, 64) for i, text in enumerate(HOSTILE))
    return Diagram(HOSTILE[1], nodes, edges, groups, ((HOSTILE[0], HOSTILE[3]),), MemoryMap(rows, HOSTILE))


DIAGRAMS = [
    training_step(1),
    training_step(6),
    fused(),
    plan(),
    hostile(),
    *(random_diagram(seed) for seed in range(6)),
]


def laid_out(diagram: Diagram, folded: frozenset[str] = frozenset()) -> tuple[View, Placement]:
    shown = view(outline(diagram), folded)
    return shown, place(shown.boxes, shown.frames, shown.wires)


def overlap(a: Rect, b: Rect, slack: float = 0.01) -> bool:
    return (
        a.x + a.width > b.x + slack
        and b.x + b.width > a.x + slack
        and a.y + a.height > b.y + slack
        and b.y + b.height > a.y + slack
    )


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=lambda d: f"{len(d.nodes)}")
def test_boxes_and_their_pins_do_not_overlap(diagram: Diagram) -> None:
    shown, placed = laid_out(diagram)
    whole = []
    for box in shown.boxes:
        rect = placed.boxes[box.id]
        tall = max(rect.height, box.side_height)
        whole.append(Rect(rect.x - box.side, rect.y - (tall - rect.height) / 2, rect.width + box.side, tall))
    assert len(whole) == len(placed.boxes)
    assert not [pair for pair in combinations(whole, 2) if overlap(*pair)]


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=lambda d: f"{len(d.nodes)}")
def test_frames_hold_their_own_and_nothing_else(diagram: Diagram) -> None:
    shown, placed = laid_out(diagram)
    parent = {frame.id: frame.parent for frame in shown.frames}
    for box in shown.boxes:
        around = set()
        above = box.parent
        while above is not None:
            around.add(above)
            above = parent[above]
        rect = placed.boxes[box.id]
        for frame in shown.frames:
            outer = placed.frames[frame.id]
            if frame.id in around:
                assert outer.x <= rect.x - box.side
                assert outer.x + outer.width >= rect.x + rect.width
                assert outer.y <= rect.y
                assert outer.y + outer.height >= rect.y + rect.height
            else:
                assert not overlap(rect, outer)


@pytest.mark.parametrize("diagram", [training_step(6), fused(), plan()], ids=["scopes", "kernels", "plan"])
def test_edges_run_down_and_round_boxes(diagram: Diagram) -> None:
    shown, placed = laid_out(diagram)
    for wire, route in zip(shown.wires, placed.routes, strict=True):
        source, target = placed.boxes[wire.source], placed.boxes[wire.target]
        assert not route.back
        assert route.points[0] == pytest.approx((source.x + source.width / 2, source.y + source.height))
        assert target.x < route.points[-1][0] < target.x + target.width
        assert route.points[-1][1] == pytest.approx(target.y)
        for (x0, y0), (x1, y1) in pairwise(route.points):
            assert y1 >= y0 - 1e-9
            swept = Rect(min(x0, x1), y0, abs(x1 - x0), y1 - y0)
            for name, rect in placed.boxes.items():
                if name not in (wire.source, wire.target):
                    assert not overlap(swept, rect, 0.5), (wire, name)


def test_scopes_that_the_flow_enters_twice_become_two_boxes() -> None:
    shape = outline(training_step(3))
    labels = [group.id for group in shape.groups.values()]
    assert {"layer1", "layer1 (2)", "loss", "adam", "w1"} <= set(labels)
    assert "loss (2)" not in labels
    home = {shape.nodes[key].id: shape.groups[group].id for key, group in shape.home.items() if group is not None}
    assert home["relu1"] == "layer1"
    assert home["dw1"] == "layer1 (2)"
    assert home["update1"] == "w1"


def test_an_edge_backwards_is_marked_and_drawn() -> None:
    loop = Diagram("loop", (node("a"), node("b"), node("c")), tuple(DiagramEdge(*ends) for ends in ("ab", "bc", "ca")))
    _, placed = laid_out(loop)
    assert [route.back for route in placed.routes] == [False, False, True]
    assert to_svg(loop).count('class="edge data back"') == 1


def test_inputs_are_pins_beside_each_user() -> None:
    step = training_step(2)
    text = to_svg(step)
    pins = re.findall(r'<g class="pin (\w+)"><title>(\w+)</title>', text)
    assert sorted(pins) == sorted(
        [("placeholder", "x")] * 2 + [("placeholder", "y")] * 2 + [("variable", "w0")] * 3 + [("variable", "w1")] * 3
    )
    assert '<g class="box variable"><title>' not in text


def test_many_pins_are_cut_and_counted() -> None:
    leaves = tuple(node(f"w{i}", style="variable") for i in range(12))
    update = Diagram("wide", (*leaves, node("sum")), tuple(DiagramEdge(leaf.id, "sum") for leaf in leaves))
    text = to_svg(update)
    assert text.count('<g class="pin variable">') == 5
    assert "+7 more" in text


def test_values_from_far_above_are_named_not_drawn() -> None:
    names = [f"v{i}" for i in range(150)]
    edges = tuple(DiagramEdge(a, b) for a, b in pairwise(names))
    shown, placed = laid_out(Diagram("long", tuple(node(n) for n in names), (*edges, DiagramEdge("v0", "v149"))))
    assert len(placed.routes) == len(edges)
    assert [pin.text for pins in shown.pins.values() for pin in pins] == ["↑ v0"]


def test_folding_hides_members_and_joins_edges() -> None:
    step = training_step(3)
    shape = outline(step)
    everything = view(shape, fold_to(shape, 0))
    assert not everything.frames
    labels = {shape.groups[box.id].id if box.id in shape.groups else shape.nodes[box.id].id for box in everything.boxes}
    assert labels == {"layer0", "layer1", "layer2", "loss", "fetch", "layer2 (2)", "layer1 (2)", "layer0 (2)", "adam"}
    ends = [(wire.source, wire.target) for wire in everything.wires]
    assert len(ends) == len(set(ends))
    assert all(source != target for source, target in ends)
    assert fold_to(shape, 1000) == frozenset()
    for limit in (9, 12, 20, 30):
        assert len(view(shape, fold_to(shape, limit)).boxes) <= limit


def test_large_diagrams_fold_by_themselves() -> None:
    step = training_step(40)
    text = to_svg(step, limit=100)
    assert "folded groups" in text
    assert text.count('<g class="box') < 100
    flat = replace(step, nodes=tuple(replace(n, scope=()) for n in step.nodes))
    assert "boxes 0 to 99" in to_svg(flat, limit=100)
    assert "folded groups" not in to_svg(step)


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=lambda d: f"{len(d.nodes)}")
def test_svg_is_xml_without_scripts_or_references(diagram: Diagram) -> None:
    text = to_svg(diagram)
    text.encode("utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == SVG + "svg"
    allowed = {"svg", "g", "rect", "path", "text", "title", "style", "defs", "marker"}
    for element in root.iter():
        assert element.tag.removeprefix(SVG) in allowed
        for name in element.attrib:
            assert not name.lower().startswith("on")
            assert "href" not in name
    assert sum(e.get("class", "").startswith("edge") for e in root.iter(SVG + "g")) == len(laid_out(diagram)[0].wires)


class Page(HTMLParser):
    """What a browser would make of the page: elements, attributes and script texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data


def test_page_is_self_contained_and_escaped() -> None:
    text = to_html([hostile(), training_step(2), plan()])
    text.encode("utf-8")
    page = Page(text)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 2
    assert not {"img", "link", "iframe", "object", "embed", "b", "base"} & set(tags)
    for _, attributes in page.elements:
        assert not {"src", "href", "xlink:href", "srcset", "action", "formaction"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert not re.findall(r"url\((?!#)", text)
    assert "<script>alert(1)" not in text
    data, script = page.scripts
    policy = next(a["content"] for t, a in page.elements if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "innerHTML" not in script
    assert not set("<>&") & set(data)
    tabs = json.loads(data)["tabs"]
    assert [tab.get("memory") for tab in tabs] == [None, "memory-0", None, None, "memory-1"]
    assert tabs[0]["outline"]["nodes"][1]["label"] == HOSTILE[1]
    assert tags.count("template") == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dot_parses_and_keeps_hostile_text_inside_labels() -> None:
    pydot = pytest.importorskip("pydot")
    for diagram in DIAGRAMS:
        text = to_dot(diagram)
        graphs = pydot.graph_from_dot_data(text)
        assert graphs is not None
        assert len(graphs) == 1
        # Outside quoted strings only the writer's own words remain.
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text, flags=re.DOTALL)
        words = set(re.findall(r"[A-Za-z_]+", bare))
        own = "digraph graphcore label labelloc rankdir fontname ranksep nodesep node shape style "
        own += "fontsize edge color arrowsize n g tooltip fillcolor subgraph cluster_g labeljust"
        assert words <= set(own.split())
        assert len(re.findall(r"^ *n\d+ \[", text, flags=re.MULTILINE)) == len(diagram.nodes)
        assert len(re.findall(r"^ *n\d+ -> n\d+", text, flags=re.MULTILINE)) == len(diagram.edges)


def test_json_holds_everything() -> None:
    for diagram in DIAGRAMS:
        data = json.loads(to_json(diagram))
        assert data["format"] == "graphcore-diagram"
        assert [n["id"] for n in data["nodes"]] == [n.id for n in diagram.nodes]
        assert [(e["source"], e["target"], e["label"]) for e in data["edges"]] == [
            (e.source, e.target, e.label) for e in diagram.edges
        ]
        assert [tuple(g["lines"]) for g in data["groups"]] == [g.lines for g in diagram.groups]
        assert (data["memory"] is None) == (diagram.memory is None)


def test_text_is_stable() -> None:
    """Writers depend on the diagram alone: not on hash seeds, not on what was written before."""
    program = (
        "import sys; sys.path[:0] = ['tests', 'tests/viz']; import test_viz as t; from hashlib import sha256\n"
        "print([sha256(w(d).encode('utf-8', 'surrogatepass')).hexdigest() for d in t.DIAGRAMS for w in "
        "(t.to_dot, t.to_json, t.to_svg, t.to_html)])"
    )
    root = Path(__file__).resolve().parents[2]
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            cwd=root, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert runs[0] == runs[1]
    assert len(runs[0]) > 1000


def test_memory_map_is_to_scale() -> None:
    memory = MemoryMap((MemoryRow("a", 0, 1, 0, 100), MemoryRow("b", 1, 3, 100, 300), MemoryRow("c", 2, 3, 0, 100)))
    assert memory.arena_bytes == 400
    assert memory.step_count == 4
    assert memory.live_bytes() == [100, 400, 400, 400]
    root = ElementTree.fromstring(to_svg(Diagram("plan", (), memory=memory)))
    slabs = [g.find(SVG + "rect") for g in root.iter(SVG + "g") if g.get("class") == "slab"]
    assert len(slabs) == 3
    a, b, c = ({k: float(s.get(k, "")) for k in ("x", "y", "width", "height")} for s in slabs if s is not None)
    assert b["height"] == pytest.approx(3 * a["height"], abs=0.2)
    assert b["width"] == pytest.approx(1.5 * a["width"], abs=0.2)
    assert b["y"] + b["height"] == pytest.approx(a["y"], abs=0.2)
    assert c["x"] == pytest.approx(a["x"] + a["width"], abs=0.2)
    assert c["y"] == a["y"]


def test_empty_diagrams_can_be_written() -> None:
    empty = Diagram("empty", ())
    ElementTree.fromstring(to_svg(empty))
    assert json.loads(to_json(empty))["nodes"] == []
    assert to_dot(empty).endswith("}\n")
    assert Page(to_html(empty)).scripts
    ElementTree.fromstring(to_svg(Diagram("no buffers", (), memory=MemoryMap(()))))
    with pytest.raises(ValueError, match="at least one diagram"):
        to_html([])


def test_wrong_diagrams_are_refused() -> None:
    a, b = node("a"), node("b")
    with pytest.raises(ValueError, match="unique"):
        Diagram("d", (a, a))
    with pytest.raises(ValueError, match="no node 'c'"):
        Diagram("d", (a, b), (DiagramEdge("a", "c"),))
    with pytest.raises(ValueError, match="unknown group"):
        Diagram("d", (replace(a, group="g"),))
    with pytest.raises(ValueError, match="inside itself"):
        Diagram("d", (a,), groups=(DiagramGroup("g", "g", parent="h"), DiagramGroup("h", "h", parent="g")))
    with pytest.raises(ValueError, match="style"):
        Diagram("d", (node("a", style="purple"),))
    with pytest.raises(ValueError, match="from step 3 to 2"):
        MemoryMap((MemoryRow("a", 3, 2, 0, 4),))


@pytest.mark.skipif(shutil.which("node") is None, reason="needs a JavaScript engine")
def test_script_lays_out_exactly_as_python_does() -> None:
    cases: list[dict[str, Any]] = []
    wanted: list[dict[str, Any]] = []
    for diagram in DIAGRAMS:
        shape = outline(diagram)
        for folded in (frozenset[str](), fold_to(shape, 8)):
            _, placed = laid_out(diagram, folded)
            cases.append({"outline": html_writer.outline_data(shape), "folded": sorted(folded)})
            wanted.append(
                {
                    "boxes": {key: [r.x, r.y, r.width, r.height] for key, r in placed.boxes.items()},
                    "frames": {key: [r.x, r.y, r.width, r.height] for key, r in placed.frames.items()},
                    "routes": [[list(point) for point in route.points] for route in placed.routes],
                    "fold": sorted(fold_to(shape, 8)),
                }
            )
    script = (
        html_writer.layout_script()
        + """
        const input = JSON.parse(require("fs").readFileSync(0, "utf8"));
        const rects = map => Object.fromEntries([...map].map(([k, r]) => [k, [r.x, r.y, r.width, r.height]]));
        console.log(JSON.stringify(input.cases.map(({outline, folded}) => {
          const v = visibleParts(outline, new Set(folded), input.size);
          const p = place(v.boxes, v.frames, v.wires, input.size);
          return {boxes: rects(p.boxes), frames: rects(p.frames), routes: p.routes.map(r => r.points),
                  fold: [...foldTo(outline, 8)].sort()};
        })));"""
    )
    given = json.dumps({"cases": cases, "size": html_writer._sizes()})
    run = subprocess.run(["node", "-e", script], input=given, capture_output=True, text=True, check=True)
    for ours, theirs in zip(wanted, json.loads(run.stdout), strict=True):
        assert theirs["fold"] == ours["fold"]
        for part in ("boxes", "frames"):
            assert theirs[part].keys() == ours[part].keys()
            for key, rect in ours[part].items():
                assert theirs[part][key] == pytest.approx(rect, abs=1e-6)
        assert [len(points) for points in theirs["routes"]] == [len(points) for points in ours["routes"]]
        for mine, other in zip(ours["routes"], theirs["routes"], strict=True):
            for point, there in zip(mine, other, strict=True):
                assert there == pytest.approx(point, abs=1e-6)
