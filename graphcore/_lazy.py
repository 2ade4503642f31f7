"""Third-party packages that are slow to import, loaded where they are first needed."""

from __future__ import annotations

from typing import Any

__all__ = ["networkx"]


def networkx() -> Any:
    """The networkx package (0.2 s to import)."""
    import networkx as package

    return package
