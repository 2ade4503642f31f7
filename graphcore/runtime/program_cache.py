"""What a session keeps of the graphs that it has run."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphcore.ir.graph import Graph
from graphcore.runtime.compiled import Compiled
from graphcore.runtime.feeds import Constraint

__all__ = ["CACHE_SIZE", "Entry", "Program", "shrink"]

CACHE_SIZE = 128  # programs of a session, what leads to them, compilations and shapes of each


@dataclass
class Program:
    """What a session keeps of all graphs with one fingerprint: the first of them and what was compiled for it.

    Attributes:
        graph: the first graph.
        symbols: its symbolic extents in canonical order.
        lines: tells whether another graph was built by the same lines.
        pinned: objects whose addresses are in the fingerprint.
        compiled: compilations, for sizes too different for one.
        bound: executables by the shapes that are fed.
    """

    graph: Graph
    symbols: tuple[str, ...]
    lines: bytes
    pinned: tuple[Any, ...]
    compiled: list[Compiled] = field(default_factory=list)
    bound: OrderedDict[tuple[Any, ...], Any] = field(default_factory=OrderedDict)
    lock: Any = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Entry:
    """The way from fetched and fed tensors to their program. It holds no node, so a graph lives no longer than its user
    wants.

    Attributes:
        program: the compiled program.
        storages: NumPy types of the fed tensors.
        rename: this graph's symbolic extents to the program's.
        needed: the symbolic extents that feeds must give.
        constraints: equalities between extents that every feed must satisfy.
        lines: as in ``Program``.
    """

    program: Program
    storages: tuple[np.dtype[Any], ...]
    rename: dict[str, str]
    needed: frozenset[str]
    constraints: tuple[Constraint, ...]
    lines: bytes


def shrink(cache: OrderedDict[Any, Any]) -> None:
    """Forget what was used longest ago."""
    while len(cache) > CACHE_SIZE:
        cache.popitem(last=False)
