"""Packages that are slow to import or must not be imported before their environment is ready, loaded on first use."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

__all__ = ["Lazy", "load_module", "networkx", "pyopencl"]


def load_module(name: str) -> ModuleType:
    """A module by its dotted name. All of the package's imports by name go through here."""
    return importlib.import_module(name)


class Lazy:
    """Stands for a package that is imported when an attribute of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(load_module(self._name), attribute)


networkx = Lazy("networkx")
pyopencl = Lazy("pyopencl")
