"""What the tests of pictures share: the stages, diagrams as plain data, and files that are well formed."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from graphcore.tools.pictures import dump

__all__ = ["DEVICE", "STAGES", "diagram_of", "written"]

DEVICE = "numpy:kernels"
STAGES = ("built", "simplified", "fused", "plan")


def diagram_of(fetches: Any, folder: Path, stage: str, **options: Any) -> dict[str, Any]:
    """A stage's diagram as plain data."""
    path = folder / "graph.json"
    if stage in ("fused", "plan") and "session" not in options:
        options.setdefault("device", DEVICE)
    dump(fetches, path, stage, **options)
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def written(path: Path) -> str:
    """A picture's text, after a check that it is well formed."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".svg":
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    elif path.suffix == ".dot":
        assert text.startswith("digraph") and text.count("{") == text.count("}")
    elif path.suffix == ".json":
        json.loads(text)
    else:
        HTMLParser().feed(text)
        assert "</html>" in text
    return text
