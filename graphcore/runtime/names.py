"""Names as feeds and fetches: of tensors that the call's other fetches reach, else of what the session compiled."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphcore.base.errors import FeedError, GraphcoreError, UsageError
from graphcore.ir.graph import Graph, Update, side_updates, toposort
from graphcore.ir.leaves import StateRead
from graphcore.ir.node import Node, Value, describe
from graphcore.ir.op import Kind

__all__ = ["resolve"]

Compiled = Callable[[], Iterable[Graph]]


def resolve(
    fetches: Sequence[Any], updates: Sequence[Update], fed: Sequence[Any], compiled: Compiled
) -> tuple[list[Value], tuple[Value, ...]]:
    """Fetches and feeds with tensors in the places of names.

    Args:
        fetches, fed: tensors, and names of tensors.
        updates: those that are fetched.
        compiled: gives the graphs that the session compiled, the newest first.

    Raises:
        UsageError, FeedError: a name that no tensor has, or that two have; the message lists names like it, or both
            lines.
    """
    given = [t for t in fetches if isinstance(t, Value)]
    near = _Names(_reached(given, updates))
    found = [t if isinstance(t, Value) else _find("fetches", t, near, compiled, UsageError) for t in fetches]
    if len(given) < len(fetches):
        near = _Names(_reached(found, updates))
    keys = [t if isinstance(t, Value) else _find("feed_dict", t, near, compiled, FeedError) for t in fed]
    return found, tuple(keys)


class _Names:
    """Tensors by the names that users gave them, and by those that are made of op and scope."""

    def __init__(self, tensors: Iterable[Value]) -> None:
        self.given: dict[str, list[Value]] = {}
        self.made: dict[str, list[Value]] = {}
        for t in tensors:
            table = self.made if t.node.op.given_name is None else self.given
            for name in dict.fromkeys(_names_of(t)):
                _add(table.setdefault(name, []), t)

    def named(self, name: str) -> list[Value]:
        """All tensors of a name; given ones come first."""
        return self.given.get(name) or self.made.get(name) or []


def _names_of(t: Value) -> list[str]:
    """A tensor's name in its scopes; a variable's path in its module, too."""
    read = t.node.op
    return [t.name, read.slot.name] if isinstance(read, StateRead) else [t.name]


def _add(alike: list[Value], t: Value) -> None:
    """Add a tensor to those of a name, unless it is one of them: also as another copy of what one line built, which
    programs hold of draws and what depends on them."""
    copied = t.node.op.kind is not Kind.LEAF
    for other in alike:
        if other == t or (isinstance(t.node.op, StateRead) and t.node.op == other.node.op):
            return
        if copied and other.type == t.type and other.node.origin is t.node.origin and other.node.op == t.node.op:
            return
    alike.append(t)


def _reached(tensors: Sequence[Value], updates: Sequence[Update]) -> list[Value]:
    roots = [*tensors, *(u.value for u in updates)]
    side = side_updates(roots)
    nodes = toposort([*roots, *(value for _, value in side)])
    return [*_outputs(nodes), *(u.slot.read() for u in updates), *(slot.read() for slot, _ in side)]


def _outputs(nodes: Iterable[Node]) -> list[Value]:
    return [t for node in nodes for t in node.outputs]


def _find(place: str, name: Any, near: _Names, compiled: Compiled, error: type[GraphcoreError]) -> Value:
    wanted = str(name).removesuffix(":0")
    found, far = near.named(wanted), None
    if not found:
        far = _Names(
            t for graph in compiled() for t in (*_outputs(graph.nodes()), *(slot.read() for slot, _ in graph.updates))
        )
        found = far.named(wanted)
    if len(found) == 1:
        return found[0]
    if found:
        lines = "".join(f"\n  {describe(t)}" for t in found)
        raise error(f"{place}: {len(found)} tensors have the name {wanted!r}; use the tensor itself{lines}")
    known = list(dict.fromkeys([*near.given, *(far.given if far is not None else ())]))
    like = difflib.get_close_matches(wanted, known, 5, 0.4) or known[:5]
    there = f"; there are {', '.join(map(repr, like))}" if like else ""
    raise error(
        f"{place}: no tensor has the name {wanted!r} among what the other fetches reach and what this session "
        f"compiled{there}; there is no global graph to look names up in, so use the tensor itself"
    )
