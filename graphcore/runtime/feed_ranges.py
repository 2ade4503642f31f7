"""Labels and indices that are fed: which feeds an op reads as positions along an axis, and whether they are in range.

What an op reads directly, through ops that only move or cast elements, is checked whole (through slices, what they
leave), by two reductions of the fed array in every run. What is computed is not: the op says what it makes of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphcore.base.arrays import outside, wrong_position
from graphcore.base.errors import FeedError
from graphcore.base.shapes import Extent, bind
from graphcore.ir.graph import Graph
from graphcore.ir.leaves import RequireRange, RequireShape
from graphcore.ir.node import Node, Value, describe
from graphcore.ir.op import Cut, Kind

__all__ = ["FeedRange", "FeedRanges", "ranges_of"]

_KEPT = 128  # shapes of feeds for which limits are kept


@dataclass(frozen=True)
class FeedRange:
    """What a feed may hold.

    Attributes:
        feed: the number of the feed.
        cuts: the slices of it that are read, one after the other.
        extent, negative, allowed: as in ``RequireRange``.
        label: the function that reads it.
        lines: the lines of function and feed, for messages.
    """

    feed: int
    cuts: tuple[Cut, ...]
    extent: Extent
    negative: bool
    allowed: int | None
    label: str = field(compare=False)
    lines: str = field(compare=False)
    name: str = field(compare=False)

    def bound(self, sizes: Mapping[str, int]) -> tuple[int, tuple[tuple[slice, ...], ...]]:
        """The axis's extent and the slices, for these sizes."""
        slices = []
        for starts, lengths, steps in self.cuts:
            first, counts = ([int(bind(n, sizes)) for n in extents] for extents in (starts, lengths))
            axes = zip(first, counts, steps, strict=True)
            slices.append(tuple(slice(start, start + n * step, step) for start, n, step in axes))
        return int(bind(self.extent, sizes)), tuple(slices)

    def refusal(self, array: Any, position: tuple[int, ...], extent: int, slices: Sequence[Any]) -> FeedError:
        """The error for an element of what the slices leave of the feed."""
        text = wrong_position(array, position, extent, self.negative, self.allowed)
        whole = position
        for cut in reversed(slices):
            whole = tuple(s.start + i * s.step for s, i in zip(cut, whole, strict=True))
        text = text.replace(f"position {position}", f"position {whole}", 1)
        return FeedError(f"the feed for {self.name!r}: {text}{self.lines}")


class FeedRanges:
    """The ranges of a run's feeds.

    Args:
        ranges: what ``ranges_of`` gives.
    """

    def __init__(self, ranges: Sequence[FeedRange]) -> None:
        self._ranges = tuple(ranges)
        self._limits: OrderedDict[Any, tuple[tuple[FeedRange, int, Any], ...]] = OrderedDict()

    def check(self, arrays: Sequence[Any], shapes: Any, sizes: Callable[[], Mapping[str, int]]) -> None:
        """Raise FeedError for a label or an index out of its range.

        Args:
            arrays: what is fed.
            shapes: of the arrays.
            sizes: gives the symbolic extents, if shapes are new.
        """
        limits = self._limits.get(shapes)
        if limits is None:
            known = sizes()
            limits = tuple((r, *r.bound(known)) for r in self._ranges)
            self._limits[shapes] = limits
            while len(self._limits) > _KEPT:
                self._limits.popitem(last=False)
        for r, extent, slices in limits:
            array = arrays[r.feed]
            for cut in slices:
                array = array[cut]
            wrong = outside(array, extent, r.negative, r.allowed)
            if wrong is not None:
                raise r.refusal(array, wrong, extent, slices)


def ranges_of(graph: Graph) -> list[FeedRange]:
    """What the feeds of a graph, its ``inputs``, may hold, by the ops that read them as positions, in regions too."""
    feeds = {t: i for i, t in enumerate(graph.inputs) if t.dtype.is_integer}
    found: dict[FeedRange, None] = {}
    if not feeds:
        return []
    pending: list[tuple[list[Node], dict[Value, Value]]] = [(graph.nodes(), {})]
    while pending:
        nodes, outer = pending.pop()
        for node in nodes:
            op: Any = node.op
            if op.kind is Kind.REGION:  # its operands are its first body's inputs
                inputs = dict(zip(op.bodies[0].inputs, node.inputs, strict=True))
                pending.append((op.bodies[0].nodes(), {**outer, **inputs}))
            elif isinstance(op, RequireRange):
                for feed, cuts in _feeds_read(node.inputs[0], feeds, outer):
                    t = graph.inputs[feed]
                    label = op.label or "the op"
                    lines = f"\n  {label} was built at {node.origin.place}\n  {describe(t)}"
                    found.setdefault(
                        FeedRange(feed, cuts, op.extent, op.negative, op.allowed, label, lines, t.name), None
                    )
    return list(found)


def _feeds_read(
    indices: Value, feeds: Mapping[Value, int], outer: Mapping[Value, Value]
) -> Iterator[tuple[int, tuple[Cut, ...]]]:
    """The feeds that reach a tensor unchanged, and the slices that are left of them."""
    stack: list[tuple[Value, tuple[Cut, ...]]] = [(indices, ())]
    seen: set[tuple[Value, tuple[Cut, ...]]] = set()
    while stack:
        t, cuts = stack.pop()
        if (t, cuts) in seen:
            continue
        seen.add((t, cuts))
        op, cut = t.node.op, t.node.op.cut()
        if t in feeds:
            yield feeds[t], cuts
        elif t in outer:
            stack.append((outer[t], cuts))
        elif cut is not None:
            stack.append((t.node.inputs[0], (cut, *cuts)))
        elif op.retypes or isinstance(op, (RequireShape, RequireRange)):  # elements stay in their places
            stack.append((t.node.inputs[0], cuts))
        elif not cuts and (op.kind is Kind.VIEW or op.joins):
            stack += [(u, cuts) for u in t.node.inputs if u.dtype.is_integer]
