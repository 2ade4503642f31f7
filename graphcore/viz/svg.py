"""Write a diagram as SVG; nothing but Python is needed."""

from __future__ import annotations

from collections.abc import Sequence

from graphcore.viz import theme
from graphcore.viz.diagram import Diagram
from graphcore.viz.layout import Placement, Point, Rect, Route, place
from graphcore.viz.memory import chart, chart_size
from graphcore.viz.outline import PIN_HEIGHT, PIN_PITCH, PIN_TIE, Outline, Part, Pin, View, fold_to, outline, view
from graphcore.viz.theme import xml

MARGIN = 20.0
NODE_LIMIT = 5000


def to_svg(diagram: Diagram, *, limit: int = NODE_LIMIT) -> str:
    """Return the diagram as a standalone SVG document with light and dark colours.

    Args:
        diagram: What to draw.
        limit: With more nodes than this, groups are folded until about a fifth as many boxes remain.

    Returns:
        SVG text; the same diagram always gives the same text.
    """
    shape = outline(diagram, limit)
    folded = fold_to(shape, limit // 5) if len(diagram.nodes) > limit else frozenset[str]()
    shown = view(shape, folded)
    placed = place(shown.boxes, shown.frames, shown.wires)
    body: list[str] = []
    y, width = _heading(body, diagram, shape, folded)
    wide, tall = placed.width, placed.height
    _graph(body, shape, shown, placed, MARGIN, y)
    if diagram.memory is not None:
        beside = tall > wide
        at = (MARGIN + wide + 40.0, y) if beside else (MARGIN, y + tall + 40.0)
        if not diagram.nodes:
            at = (MARGIN, y)
        body.append(f'<g transform="translate({_n(at[0])} {_n(at[1])})">')
        body += chart(diagram.memory)
        body.append("</g>")
        chart_wide, chart_tall = chart_size(diagram.memory)
        wide, tall = (max(wide, at[0] - MARGIN + chart_wide), max(tall, at[1] - y + chart_tall))
    width, height = max(width, wide + 2 * MARGIN), y + tall + MARGIN
    size = f'width="{_n(width)}" height="{_n(height)}" viewBox="0 0 {_n(width)} {_n(height)}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="gc" role="img" {size}>',
        f"<title>{xml(diagram.title)}</title>",
        f"<style>\n{xml_text(theme.drawing_css())}</style>",
        ARROW,
        f'<rect class="paper" width="{_n(width)}" height="{_n(height)}"/>',
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"


ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" '
    'markerUnits="userSpaceOnUse" orient="auto"><path class="arrow" d="M0 .8 8 4 0 7.2z"/></marker></defs>'
)


def xml_text(css: str) -> str:
    """Return style text escaped for XML: the child combinator is the only special character in it."""
    return css.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def path_data(points: Sequence[Point]) -> str:
    """Return an SVG path through a route's points: lines, and S-curves with vertical ends where both x and y change."""
    x, y = points[0]
    data = [f"M{_n(x)} {_n(y)}"]
    for to_x, to_y in points[1:]:
        if abs(to_x - x) < 0.05 or abs(to_y - y) < 0.05:
            data.append(f"L{_n(to_x)} {_n(to_y)}")
        else:
            middle = _n((y + to_y) / 2)
            data.append(f"C{_n(x)} {middle} {_n(to_x)} {middle} {_n(to_x)} {_n(to_y)}")
        x, y = to_x, to_y
    return "".join(data)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0").replace("-0", "0" if abs(value) < 0.05 else "-0")


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "") -> str:
    extra = (f' class="{css}"' if css else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{_n(x)}" y="{_n(y)}"{extra}>{xml(text)}</text>'


def _rect(rect: Rect, css: str, radius: float) -> str:
    return (
        f'<rect class="{css}" x="{_n(rect.x)}" y="{_n(rect.y)}" width="{_n(rect.width)}" height="{_n(rect.height)}" '
        f'rx="{_n(radius)}"/>'
    )


def _heading(body: list[str], diagram: Diagram, shape: Outline, folded: frozenset[str]) -> tuple[float, float]:
    """Write title, facts and legend; return where the drawing starts and the width in pixels."""
    facts = [*diagram.facts, *([("folded groups", str(len(folded)))] if folded else [])]
    y, width = 10.0, 0.0
    for row in theme.wrap(diagram.title, 80, 3):
        y, width = y + 22, max(width, MARGIN * 2 + theme.text_width(row, 17))
        body.append(_text(MARGIN, y, row, "title"))
    y += 14
    for row in theme.wrap(" · ".join(f"{name}: {value}" for name, value in facts), 140, 3) if facts else ():
        body.append(_text(MARGIN, y + 6, row, "dim"))
        y, width = y + 16, max(width, MARGIN * 2 + theme.text_width(row, theme.LINE_SIZE))
    used: set[str] = {node.style for node in diagram.nodes} | ({"folded"} if folded else set())
    x = MARGIN
    for style, (meaning, *_) in theme.PALETTE.items():
        if style in used:
            if x > 760:
                x, y = MARGIN, y + 18
            body.append(
                f'<g class="box {style}">{_rect(Rect(x, y, 14, 11), "body", 3)}{_text(x + 19, y + 9, meaning)}</g>'
            )
            x += 34 + theme.text_width(meaning, theme.LINE_SIZE)
            width = max(width, x + MARGIN)
    return (y + 30 if used else y + 12), width


def _graph(body: list[str], shape: Outline, shown: View, placed: Placement, dx: float, dy: float) -> None:
    """Write frames, then edges, then nodes, so that edges run over frames and under nodes."""
    body.append(f'<g transform="translate({_n(dx)} {_n(dy)})">')
    for frame in shown.frames:
        heading, rect = shape.groups[frame.id], placed.frames[frame.id]
        body.append(f'<g class="frame {heading.style}">{_rect(rect, "area", 8)}')
        body.append(f"<title>{xml(heading.id)}</title>")
        for index, row in enumerate(heading.rows):
            css = "dim" if index else "label"
            body.append(_text(rect.x + 12, rect.y + 18 + 13 * index, row, css))
        body.append("</g>")
    for wire, route, (label, style, count) in zip(shown.wires, placed.routes, shown.edges, strict=True):
        ends = (_name(shape, wire.source), _name(shape, wire.target))
        body.append(_edge(route, f"{ends[0]} → {ends[1]}", label, style, count))
    for box in shown.boxes:
        part = shape.parts[box.id] if box.id in shape.parts else shape.groups[box.id].part
        body += _box(shape, part, placed.boxes[box.id], shown.pins.get(box.id, []))
    body.append("</g>")


def _name(shape: Outline, key: str) -> str:
    return shape.nodes[key].label if key in shape.nodes else shape.groups[key].id


def _edge(route: Route, title: str, label: str, style: str, count: int) -> str:
    css = f"edge {style}" + (" back" if route.back else "") + (" bundle" if count > 1 else "")
    text = f'<g class="{css}"><title>{xml(title)}</title><path d="{path_data(route.points)}" marker-end="url(#arrow)"/>'
    if label and route.label:
        x, y = route.label
        half = theme.text_width(label, theme.LINE_SIZE) / 2 + 2
        text += _rect(Rect(x - half, y - 7, 2 * half, 14), "plate", 2) + _text(x, y + 3.5, label, "", "middle")
    return text + "</g>"


def _box(shape: Outline, part: Part, rect: Rect, pins: Sequence[Pin]) -> list[str]:
    node = shape.nodes.get(part.key)
    scope = "/".join(node.scope) if node else ""
    about = [node.label, node.kind, *node.lines, scope, node.tooltip] if node else [part.id, *part.rows[1:]]
    lines = [f'<g class="box {part.style}"><title>{xml(chr(10).join(text for text in about if text))}</title>']
    lines.append(_rect(rect, "body", 5))
    lines.append(_rect(Rect(rect.x, rect.y + 3, 3.5, rect.height - 6), "bar", 1))
    for index, row in enumerate(part.rows):
        css = "dim" if index else "label"
        lines.append(_text(rect.x + rect.width / 2, rect.y + 17 + 12.5 * index, row, css, "middle"))
    lines.append("</g>")
    middle = rect.y + rect.height / 2
    for index, pin in enumerate(pins):
        y = middle + (index - (len(pins) - 1) / 2) * PIN_PITCH
        right = rect.x - PIN_TIE
        css = f"pin {pin.style}" + (" far" if pin.far else "")
        label = shape.nodes[pin.key].label if pin.key else pin.text
        lines.append(f'<path class="tie" d="{_tie(right, y, rect)}"/>')
        lines.append(
            f'<g class="{css}"><title>{xml(label)}</title>'
            + _rect(Rect(right - pin.width, y - PIN_HEIGHT / 2, pin.width, PIN_HEIGHT), "body", PIN_HEIGHT / 2)
            + _text(right - pin.width / 2, y + 3.5, pin.text, "", "middle")
            + "</g>"
        )
    return lines


def _tie(x: float, y: float, rect: Rect) -> str:
    """Return the short line from a pin to its box."""
    to_y = min(max(y, rect.y + 6), rect.y + rect.height - 6)
    return f"M{_n(x)} {_n(y)}C{_n(x + 8)} {_n(y)} {_n(rect.x - 8)} {_n(to_y)} {_n(rect.x)} {_n(to_y)}"
