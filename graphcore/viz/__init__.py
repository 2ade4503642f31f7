"""Pictures of graphs: a neutral diagram, and writers for DOT, JSON, SVG and a self-contained page."""

from __future__ import annotations

from graphcore.viz.diagram import Diagram, DiagramEdge, DiagramGroup, DiagramNode, MemoryMap, MemoryRow
from graphcore.viz.dot import to_dot
from graphcore.viz.html import to_html
from graphcore.viz.json import to_json
from graphcore.viz.svg import to_svg

__all__ = [
    "Diagram",
    "DiagramEdge",
    "DiagramGroup",
    "DiagramNode",
    "MemoryMap",
    "MemoryRow",
    "to_dot",
    "to_html",
    "to_json",
    "to_svg",
]
