"""Write a diagram in Graphviz's DOT language."""

from __future__ import annotations

from graphcore.viz import theme
from graphcore.viz.diagram import Diagram
from graphcore.viz.outline import Outline, outline

_SHAPES = {"placeholder": "oval", "variable": "cylinder", "constant": "plain", "reduce": "trapezium", "output": "oval"}


def to_dot(diagram: Diagram) -> str:
    """Return the diagram as DOT text, groups as clusters.

    Args:
        diagram: What to draw.

    Returns:
        DOT text; the same diagram always gives the same text. Node names are numbers in the diagram's order; labels
        and tooltips hold the diagram's text, escaped.
    """
    shape = outline(diagram, limit=len(diagram.nodes))
    facts = "".join(f"\n{name}: {value}" for name, value in diagram.facts)
    lines = [
        "digraph graphcore {",
        f"  label={quote(diagram.title + facts)};",
        '  labelloc="t"; rankdir="TB"; fontname="monospace"; ranksep=0.35; nodesep=0.2;',
        '  node [shape="box", style="filled,rounded", fontname="monospace", fontsize=10];',
        '  edge [color="#76828f", fontname="monospace", fontsize=9, arrowsize=0.7];',
    ]
    members: dict[str | None, list[str]] = {}
    for node, home in shape.home.items():
        members.setdefault(home, []).append(node)
    inner: dict[str | None, list[str]] = {}
    for group, heading in shape.groups.items():
        inner.setdefault(heading.parent, []).append(group)
    _cluster(lines, shape, members, inner, None, "  ")
    number = {node.id: f"n{index}" for index, node in enumerate(diagram.nodes)}
    for edge in diagram.edges:
        extra = [f"label={quote(edge.label)}"] if edge.label else []
        extra += ['style="dashed"'] if edge.style != "data" else []
        lines.append(
            f"  {number[edge.source]} -> {number[edge.target]}{' [' + ', '.join(extra) + ']' if extra else ''};"
        )
    return "\n".join([*lines, "}"]) + "\n"


def quote(text: str) -> str:
    """Return the text as a quoted DOT string.

    A backslash is doubled, for Graphviz would read ``\\N`` as the node's name; line ends become its line break.
    """
    safe = theme.clean(text).replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    return '"' + safe.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _cluster(
    lines: list[str],
    shape: Outline,
    members: dict[str | None, list[str]],
    inner: dict[str | None, list[str]],
    group: str | None,
    indent: str,
) -> None:
    for key in members.get(group, []):
        node = shape.nodes[key]
        _, fill, stroke, _, _ = theme.PALETTE[node.style]
        kind = [node.kind] if node.kind and node.kind.lower() not in node.label.lower() else []
        about = node.tooltip or "\n".join([node.label, *kind, "/".join(node.scope)])
        form = f', shape="{_SHAPES[node.style]}"' if node.style in _SHAPES else ""
        lines.append(
            f"{indent}{key} [label={quote(chr(10).join([node.label, *kind, *node.lines]))}, tooltip={quote(about)}, "
            f'fillcolor="{fill}", color="{stroke}"{form}];'
        )
    for child in inner.get(group, []):
        heading = shape.groups[child]
        colour = "#4b55c8" if heading.style == "kernel" else "#8494a8"
        lines.append(f"{indent}subgraph cluster_{child} {{")
        lines.append(
            f'{indent}  label={quote(chr(10).join(heading.rows))}; labeljust="l"; style="rounded"; color="{colour}";'
        )
        _cluster(lines, shape, members, inner, child, indent + "  ")
        lines.append(f"{indent}}}")
