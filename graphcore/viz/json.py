"""Write a diagram as JSON, for other programs."""

from __future__ import annotations

import json
from dataclasses import asdict

from graphcore.viz.diagram import Diagram

FORMAT = "graphcore-diagram"
VERSION = 1


def to_json(diagram: Diagram, *, indent: int | None = 1) -> str:
    """Return the diagram as JSON text: its fields by name, with ``format`` and ``version`` in front.

    Args:
        diagram: What to write.
        indent: Spaces a level; None writes one line.

    Returns:
        ASCII text, safe for any file encoding; the same diagram always gives the same text.
    """
    content = {"format": FORMAT, "version": VERSION, **asdict(diagram)}
    return json.dumps(content, indent=indent, ensure_ascii=True) + "\n"
