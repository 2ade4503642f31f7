"""Write diagrams as one page that needs no network: pan, zoom, search, fold, details."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files

from graphcore.viz import layered, outline, theme
from graphcore.viz.diagram import Diagram, MemoryMap
from graphcore.viz.memory import chart, chart_size
from graphcore.viz.outline import Outline, Pin
from graphcore.viz.svg import ARROW, NODE_LIMIT
from graphcore.viz.theme import xml

OPEN_LIMIT = 260
LAYOUT_SCRIPTS = ("layered.js", "layout.js", "view.js")


def to_html(diagrams: Diagram | Sequence[Diagram], *, title: str = "", open_limit: int = OPEN_LIMIT) -> str:
    """Return one HTML document that shows the diagrams as tabs, a memory map as a tab of its own.

    The page refers to nothing outside itself, and its content security policy lets only its own script run.

    Args:
        diagrams: One diagram or several, for example the stages of one graph.
        title: The document's title; that of the first diagram by default.
        open_limit: Groups start folded so that about so many boxes are visible.

    Returns:
        HTML text; the same diagrams always give the same text.

    Raises:
        ValueError: Without any diagram.
    """
    stages = [diagrams] if isinstance(diagrams, Diagram) else list(diagrams)
    if not stages:
        raise ValueError("a page needs at least one diagram")
    tabs: list[dict[str, object]] = []
    templates: list[str] = []
    for diagram in stages:
        if diagram.nodes or diagram.memory is None:
            tabs.append(_graph_tab(diagram, open_limit))
        if diagram.memory is not None:
            name = f"memory-{len(templates)}"
            templates.append(_template(name, diagram.memory))
            tabs.append(_memory_tab(diagram, diagram.memory, name))
    data = {"tabs": tabs, "size": _sizes(), "limit": NODE_LIMIT}
    used: set[str] = {node.style for diagram in stages for node in diagram.nodes}
    return _page(title or stages[0].title, script_json(data), "\n".join(templates), _legend(used))


def script_json(data: object) -> str:
    """Return JSON that is safe inside a script element: no character of it can end the element or start a comment."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def layout_script() -> str:
    """Return the part of the page's script that lays out and decides, which runs without a page too."""
    return "".join(_resource(name) for name in LAYOUT_SCRIPTS)


def _resource(name: str) -> str:
    return files("graphcore.viz").joinpath(name).read_text(encoding="utf-8")


def _sizes() -> dict[str, object]:
    """The layout's numbers, so that the script has none of its own."""
    more = {len(f"+{n} more"): _more_width(n) for n in (2, 10, 100, 1000, 10000, 100000)}
    return {
        "box_gap": layered.BOX_GAP,
        "lane_gap": layered.LANE_GAP,
        "rank_gap": layered.RANK_GAP,
        "padding": layered.PADDING,
        "row_width": layered.ROW_WIDTH,
        "order_sweeps": layered.ORDER_SWEEPS,
        "place_sweeps": layered.PLACE_SWEEPS,
        "straight_sweeps": layered.STRAIGHT_SWEEPS,
        "full_effort": layered.FULL_EFFORT,
        "pin_limit": outline.PIN_LIMIT,
        "pin_height": outline.PIN_HEIGHT,
        "pin_pitch": outline.PIN_PITCH,
        "pin_tie": outline.PIN_TIE,
        "more_width": more,
    }


def _more_width(count: int) -> float:
    return theme.text_width(f"+{count} more", theme.LINE_SIZE) + 10


def outline_data(shape: Outline) -> dict[str, object]:
    """Return what the page's script needs of an outline, sizes included: it never measures text."""

    def pin(item: Pin) -> dict[str, object]:
        return {"key": item.key, "style": item.style, "text": item.text, "width": item.width, "far": item.far}

    nodes = []
    for key, node in shape.nodes.items():
        part = shape.parts[key]
        nodes.append(
            {
                "key": key, "id": theme.clean(node.id), "label": theme.clean(node.label),
                "kind": theme.clean(node.kind),
                "lines": [theme.clean(line) for line in node.lines],
                "scope": [theme.clean(name) for name in node.scope],
                "tooltip": theme.clean(node.tooltip), "style": node.style, "meaning": theme.PALETTE[node.style][0],
                "rows": part.rows, "width": part.width, "height": part.height, "home": shape.home[key],
                "derived": node.derived,
            }
        )  # fmt: skip
    groups = []
    for key, group in shape.groups.items():
        folded = {"style": "folded", "rows": group.part.rows, "width": group.part.width, "height": group.part.height}
        groups.append(
            {
                "key": key, "label": theme.clean(group.id), "style": group.style, "parent": group.parent,
                "rows": group.rows, "lines": group.rows[1:], "width": group.width, "height": group.height,
                "count": group.count, "folded": folded, "derived": group.derived,
            }
        )  # fmt: skip
    arcs = [
        {
            "source": arc.source, "target": arc.target, "label": arc.label, "style": arc.style, "far": arc.far,
            "label_width": theme.text_width(arc.label, theme.LINE_SIZE) + 6 if arc.label else 0.0,
        }
        for arc in shape.arcs
    ]  # fmt: skip
    return {
        "nodes": nodes,
        "groups": groups,
        "arcs": arcs,
        "pinned": list(shape.pinned.items()),
        "hidden": list(shape.pin_of),
        "pins": {key: pin(item) for key, item in shape.pin_of.items()},
        "far_pins": {key: pin(item) for key, item in shape.far_of.items()},
    }


def _graph_tab(diagram: Diagram, open_limit: int) -> dict[str, object]:
    shape = outline.outline(diagram, open_limit)
    return {
        "name": theme.clip(diagram.name or diagram.title, 32),
        "title": theme.clean(diagram.title),
        "facts": theme.clean("   ".join(f"{name}: {value}" for name, value in diagram.facts)),
        "outline": outline_data(shape),
        "folded": sorted(outline.fold_to(shape, open_limit), key=lambda key: int(key[1:])),
    }


def _memory_tab(diagram: Diagram, memory: MemoryMap, name: str) -> dict[str, object]:
    def step(number: int) -> str:
        return theme.clean(f"{number} {memory.steps[number] if number < len(memory.steps) else ''}".strip())

    rows = [
        {
            "name": theme.clean(row.name), "size": theme.format_bytes(row.bytes), "bytes": row.bytes,
            "offset": row.offset, "first": step(row.start_step), "last": step(row.end_step),
        }
        for row in memory.rows
    ]  # fmt: skip
    title, tab = theme.clean(f"{diagram.title}, memory map"), f"{theme.clip(diagram.name or diagram.title, 24)}: memory"
    return {"name": tab, "title": title, "facts": "", "memory": name, "rows": rows}


def _template(name: str, memory: MemoryMap) -> str:
    wide, tall = chart_size(memory)
    return f'<template id="{name}"><svg viewBox="0 0 {wide:.1f} {tall:.1f}">{"".join(chart(memory))}</svg></template>'


def _legend(used: set[str]) -> str:
    rows: list[str] = []
    for style, (meaning, *_) in theme.PALETTE.items():
        if style in used or style == "folded":
            y = 17 * len(rows) + 3
            swatch = f'<rect class="body" x="1" y="{y}" width="15" height="11" rx="3"/>'
            rows.append(f'<g class="box {style}">{swatch}<text x="23" y="{y + 9}">{xml(meaning)}</text></g>')
    return f'<svg class="gc" viewBox="0 0 200 {17 * len(rows) + 4}" aria-hidden="true">{"".join(rows)}</svg>'


KEYS = """<p><kbd>/</kbd> search, <kbd>Enter</kbd> next match</p>
<p><kbd>+</kbd> <kbd>-</kbd> <kbd>0</kbd> <kbd>1</kbd> zoom, fit, full size; arrows move</p>
<p><kbd>n</kbd> <kbd>p</kbd> next and previous box</p>
<p><kbd>d</kbd> <kbd>u</kbd> down to a user, up to an input</p>
<p><kbd>f</kbd> fold or unfold the group; <kbd>Esc</kbd> clears</p>
<p>Inputs, variables and constants are pins beside each user. ↑ marks a value from far above.</p>"""


def _page(title: str, data: str, templates: str, legend: str) -> str:
    script = layout_script() + _resource("page.js")
    # The browser compares the hash with the text between the tags, line ends as they are.
    digest = b64encode(sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{xml(title)}</title>
<style>
{_resource("page.css")}{theme.drawing_css()}</style>
</head>
<body>
<header>
<h1 id="title"></h1>
<div id="tabs" role="tablist" aria-label="Stages"></div>
<input id="search" type="search" placeholder="Search ( / )" aria-label="Search nodes and groups">
<span id="found" role="status"></span>
<div class="tools" role="toolbar" aria-label="View">
<button id="fold">Fold all</button><button id="unfold">Unfold all</button>
<button id="out" aria-label="Zoom out">&#8722;</button><button id="in" aria-label="Zoom in">+</button>
<button id="fit">Fit</button>
</div>
</header>
<main>
<div id="stage">
<svg id="canvas" class="gc" tabindex="0" role="application" aria-label="Graph; n and p step through the boxes">
{ARROW}
<g id="world"></g>
</svg>
<div id="facts"></div>
<details id="legend"><summary>Legend and keys</summary>
{legend}
{KEYS}
</details>
</div>
<aside id="panel" aria-label="Details"></aside>
</main>
<div id="tip" hidden></div>
<div id="said" class="quiet" aria-live="polite"></div>
<noscript>This page draws with a script of its own; without one, write the diagram as SVG.</noscript>
{templates}
<script id="data" type="application/json">{data}</script>
<script>{script}</script>
</body>
</html>
"""
