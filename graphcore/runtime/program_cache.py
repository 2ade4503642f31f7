"""What a session keeps of the graphs that it has run."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphcore.ir.fingerprint import fingerprint
from graphcore.ir.graph import Graph, Update, collect
from graphcore.ir.node import Tensor
from graphcore.runtime.compiled import Compiled
from graphcore.runtime.feed_ranges import FeedRanges, ranges_of
from graphcore.runtime.feeds import Constraint, check_feeds, constraints_of, feed_points, symbols_in

__all__ = ["CACHE_SIZE", "Entry", "Program", "ProgramCache", "run_graph", "shrink"]

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
        ranges: what labels and indices among the feeds may be.
        lines: as in ``Program``.
    """

    program: Program
    storages: tuple[np.dtype[Any], ...]
    rename: dict[str, str]
    needed: frozenset[str]
    constraints: tuple[Constraint, ...]
    ranges: FeedRanges | None
    lines: bytes


def shrink(cache: OrderedDict[Any, Any]) -> None:
    """Forget what was used longest ago."""
    while len(cache) > CACHE_SIZE:
        cache.popitem(last=False)


def run_graph(tensors: Sequence[Tensor], updates: Sequence[Update], fed: tuple[Tensor, ...]) -> Graph:
    """The graph of a run, whose inputs are a placeholder for each of ``fed``.

    Raises:
        FeedError: something that cannot be fed, or a placeholder that is not.
    """
    graph, _ = feed_points(collect(tensors, updates, fed), fed)
    check_feeds(graph, fed)
    return graph


class ProgramCache:
    """What leads from fetched and fed tensors to compiled programs; of each the ``CACHE_SIZE`` used last.

    Attributes:
        entries: by the serials of the tensors, which are never used again.
        programs: by fingerprint.
    """

    def __init__(self) -> None:
        self.entries: OrderedDict[tuple[Any, ...], Entry] = OrderedDict()
        self.programs: OrderedDict[bytes, Program] = OrderedDict()
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self.entries.clear()
            self.programs.clear()

    def entry(self, tensors: Sequence[Tensor], updates: Sequence[Update], fed: tuple[Tensor, ...]) -> Entry:
        """The entry for what a run fetches, updates and is fed."""
        key = (
            tuple(t.key for t in tensors),
            tuple((u.variable.uid, u.value.key) for u in updates),
            tuple(t.key for t in fed),
        )
        with self._lock:
            entry = self.entries.get(key)
            if entry is not None:
                self.entries.move_to_end(key)
                return entry
        graph = run_graph(tensors, updates, fed)
        found = fingerprint(graph)
        nodes = graph.nodes()
        ranges = ranges_of(graph)
        with self._lock:
            program = self.programs.get(found.digest)
            if program is None:
                program = self.programs[found.digest] = Program(graph, found.symbols, found.lines, found.pinned)
            self.programs.move_to_end(found.digest)
            entry = self.entries[key] = Entry(
                program,
                tuple(t.dtype.storage for t in fed),
                dict(zip(found.symbols, program.symbols, strict=True)),
                symbols_in(nodes),
                constraints_of(nodes),
                FeedRanges(ranges) if ranges else None,
                found.lines,
            )
            shrink(self.entries)
            shrink(self.programs)
        return entry
