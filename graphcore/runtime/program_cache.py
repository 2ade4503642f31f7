"""What a session keeps of the graphs that it has run."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphcore.base.notices import BuildWarning, warn_once
from graphcore.base.shapes import symbols_of
from graphcore.ir.constraints import Constraint, constraints_of
from graphcore.ir.fingerprint import fingerprint
from graphcore.ir.graph import Graph, Update, collect
from graphcore.ir.node import Value
from graphcore.ir.state import StateSlot
from graphcore.runtime.compiled import Compiled
from graphcore.runtime.feed_ranges import FeedRanges, ranges_of
from graphcore.runtime.feeds import check_feeds, feed_points, symbols_in

__all__ = ["CACHE_LIMIT", "CACHE_SIZE", "CacheInfo", "Entry", "Program", "ProgramCache", "run_graph", "shrink"]

CACHE_SIZE = 128  # programs of a session, what leads to them, compilations and shapes of each
_MANY = 3  # compilations of one fetch, which a line is told of
CACHE_LIMIT = 256 << 20  # estimated bytes of a session's compilations


@dataclass
class Program:
    """What a session keeps of all graphs with one fingerprint: the first of them and what was compiled for it.

    Attributes:
        graph: the first graph.
        symbols: its symbolic extents in canonical order.
        lines: tells whether another graph was built by the same lines.
        pinned: objects whose addresses are in the fingerprint.
        compiled: compilations, for sizes too different for one.
        bound: executables by the state that they run over and the shapes that are fed.
        digest: the fingerprint, for those in a cache.
    """

    graph: Graph
    symbols: tuple[str, ...]
    lines: bytes
    pinned: tuple[Any, ...]
    compiled: list[Compiled] = field(default_factory=list)
    bound: OrderedDict[tuple[Any, ...], Any] = field(default_factory=OrderedDict)
    lock: Any = field(default_factory=threading.Lock)
    digest: bytes | None = None

    def nbytes(self, compiled: Compiled) -> int:
        """An estimate of what a compilation and its executables take."""
        bound = sum(b.compiled is compiled for b in list(self.bound.values()))
        return compiled.nbytes + bound * compiled.bound_nbytes

    def add(self, compiled: Compiled) -> None:
        """Keep a compilation for other sizes. Warns once a line where there come to be many."""
        self.compiled.append(compiled)
        del self.compiled[:-CACHE_SIZE]
        if len(self.compiled) == _MANY:
            self._warn_of_sizes(self.compiled[-2].hints, compiled)

    def _warn_of_sizes(self, before: Mapping[str, int], compiled: Compiled) -> None:
        now = compiled.hints
        changed = [name for name in now if before.get(name) != now[name]]
        name = next((name for name in changed if name in compiled.bound_names), changed[0])
        axes = [(t, axis) for t in self.graph.inputs for axis, e in enumerate(t.shape) if name in symbols_of((e,))]
        where = ", ".join(f"axis {axis} of {t.name!r}" for t, axis in axes) or name
        warn_once(
            BuildWarning,
            "sizes",
            f"one fetch is compiled for the {_MANY}rd time, because {where} was {before.get(name)} and is "
            f"{now[name]}; pad it to few sizes, for instance to powers of two",
        )

    def forget(self, compiled: Compiled) -> None:
        """Drop a compilation and its executables."""
        self.compiled.remove(compiled)
        for key in [key for key, bound in self.bound.items() if bound.compiled is compiled]:
            del self.bound[key]


@dataclass(frozen=True)
class CacheInfo:
    """What a session keeps of the graphs that it ran.

    Attributes:
        programs: different graphs.
        compilations: compiled programs: a graph has several where its sizes are too different for one.
        executables: compilations bound to the shapes of feeds.
        bytes: estimate of what they take in the process, the device's programs included.
        limit: bytes above which the compilations used longest ago are forgotten.
        evicted: compilations that were forgotten so far.
    """

    programs: int
    compilations: int
    executables: int
    bytes: int
    limit: int
    evicted: int


@dataclass(frozen=True)
class Entry:
    """The way from fetched and fed tensors to their program. It holds no node, so a graph lives no longer than its user
    wants.

    Attributes:
        program: the compiled program.
        storages: NumPy types of the fed tensors.
        rename: this graph's symbolic extents to the program's.
        slots: this graph's slots, in the order of their first appearance.
        state: a number for these slots among all of the session.
        needed: the symbolic extents that feeds must give.
        constraints: equalities between extents that every feed must satisfy.
        ranges: what labels and indices among the feeds may be.
        lines: as in ``Program``.
    """

    program: Program
    storages: tuple[np.dtype[Any], ...]
    rename: dict[str, str]
    slots: tuple[StateSlot, ...]
    state: int
    needed: frozenset[str]
    constraints: tuple[Constraint, ...]
    ranges: FeedRanges | None
    lines: bytes


def shrink(cache: OrderedDict[Any, Any]) -> None:
    """Forget what was used longest ago."""
    while len(cache) > CACHE_SIZE:
        cache.popitem(last=False)


def run_graph(values: Sequence[Value], updates: Sequence[Update], fed: tuple[Value, ...]) -> Graph:
    """The graph of a run, whose inputs are a placeholder for each of ``fed``.

    Raises:
        FeedError: something that cannot be fed, or a placeholder that is not.
    """
    graph, _ = feed_points(collect(values, updates, fed), fed)
    check_feeds(graph, fed)
    return graph


class ProgramCache:
    """What leads from fetched and fed tensors to compiled programs; of each the ``CACHE_SIZE`` used last.

    Args:
        limit: estimated bytes of compilations; those used longest ago are forgotten first, the one in use never.

    Attributes:
        entries: by the serials of the tensors, which are never used again.
        programs: by fingerprint.
        clock: counts uses.
    """

    def __init__(self, limit: int = CACHE_LIMIT) -> None:
        self.limit = limit
        self.entries: OrderedDict[tuple[Any, ...], Entry] = OrderedDict()
        self.programs: OrderedDict[bytes, Program] = OrderedDict()
        self.clock: Iterator[int] = itertools.count()
        self.evicted = 0
        self._states = itertools.count(1)
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget everything, also for those who hold a way to a program."""
        with self._lock:
            for digest in list(self.programs):
                self._forget(digest)
            self.entries.clear()

    def info(self) -> CacheInfo:
        """How much is there."""
        with self._lock:
            programs = list(self.programs.values())
            compiled = [c for p in programs for c in list(p.compiled)]
            executables = sum(len(p.bound) for p in programs)
            return CacheInfo(
                len(programs),
                len(compiled),
                executables,
                sum(p.nbytes(c) for p in programs for c in list(p.compiled)),
                self.limit,
                self.evicted,
            )

    def note(self, program: Program, used: Compiled) -> None:
        """Note that a program has a new compilation or executable, and forget others if there are too many bytes."""
        used.used = next(self.clock)
        with self._lock:
            if program.digest is None:
                return
            self.programs[program.digest] = program  # it may have been forgotten while it was compiled
            kept = [(c, p, p.nbytes(c)) for p in self.programs.values() for c in list(p.compiled)]
            total = sum(nbytes for _, _, nbytes in kept)
            for compiled, its, nbytes in sorted(kept, key=lambda one: one[0].used):
                if total <= self.limit:
                    break
                # A program that is being compiled is in use, and nobody waits for it here.
                if compiled is not used and its.lock.acquire(blocking=False):
                    try:
                        its.forget(compiled)
                        total -= nbytes
                        self.evicted += 1
                    finally:
                        its.lock.release()
                    if not its.compiled and its.digest is not None:
                        self._forget(its.digest)
            self._shrink()

    def graphs(self) -> list[Graph]:
        """The graphs of all programs, the newest first."""
        with self._lock:
            return [program.graph for program in reversed(self.programs.values())]

    def _forget(self, digest: bytes) -> None:
        """Forget a program and what leads to it."""
        program = self.programs.pop(digest)
        for key in [key for key, entry in self.entries.items() if entry.program is program]:
            del self.entries[key]
        if program.lock.acquire(blocking=False):
            try:
                self.evicted += len(program.compiled)
                program.compiled.clear()
                program.bound.clear()
            finally:
                program.lock.release()

    def _state(self, slots: tuple[StateSlot, ...]) -> int:
        """The number of the slots: that of an entry which has the same, else a new one."""
        known = (entry.state for entry in self.entries.values() if entry.slots == slots)
        return next(known, None) or next(self._states)

    def _shrink(self) -> None:
        shrink(self.entries)
        while len(self.programs) > CACHE_SIZE:
            self._forget(next(iter(self.programs)))

    def entry(self, values: Sequence[Value], updates: Sequence[Update], fed: tuple[Value, ...]) -> Entry:
        """The entry for what a run fetches, updates and is fed."""
        key = (
            tuple([(node.serial, index) for node, index in values]),
            tuple([(u.slot.serial, u.value.node.serial, u.value.index) for u in updates]),
            tuple([(node.serial, index) for node, index in fed]),
        )
        with self._lock:
            entry = self.entries.get(key)
            if entry is not None:
                self.entries.move_to_end(key)
                digest = entry.program.digest
                if digest is not None and digest in self.programs:
                    self.programs.move_to_end(digest)
                return entry
        graph = run_graph(values, updates, fed)
        found = fingerprint(graph)
        nodes = graph.nodes()
        ranges = ranges_of(graph)
        with self._lock:
            program = self.programs.get(found.digest)
            if program is None:
                program = self.programs[found.digest] = Program(
                    graph, found.symbols, found.lines, found.pinned, digest=found.digest
                )
            self.programs.move_to_end(found.digest)
            entry = self.entries[key] = Entry(
                program,
                tuple(t.dtype.storage for t in fed),
                dict(zip(found.symbols, program.symbols, strict=True)),
                found.slots,
                self._state(found.slots),
                symbols_in(nodes),
                constraints_of(nodes),
                FeedRanges(ranges) if ranges else None,
                found.lines,
            )
            self._shrink()
        return entry
