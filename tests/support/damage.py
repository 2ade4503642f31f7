"""Documents with one damage each, and the rule that readers keep: a FormatError that says where, or another text."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from graphcore.base.errors import FormatError
from graphcore.io.fields import render

__all__ = ["check_damages", "damages"]

# What a field becomes: every kind of JSON value, numbers and names that nothing has, positions beyond everything.
OTHERS: tuple[Any, ...] = (
    None, True, -1, 0, 3, 10**6, 2**63, 10**30, 0.5, "", "x", "add", "float16", "nan:00", "0x1p0", [], [0], [[]], {},
    {"a": 1},
)  # fmt: skip


def damages(document: Any) -> Iterator[tuple[str, Any, bool]]:
    """The path, the damaged document, and whether what is there now is of another kind than what was, for every place:
    deleted, doubled, unknown, or another value."""
    for path, parent, key in _places(document):
        original = copy.copy(parent)
        for change in _changes(parent[key]):
            broken = change(parent, key)
            yield path, document, broken
            parent.clear()
            (parent.extend if isinstance(parent, list) else parent.update)(original)


def _places(document: Any) -> Iterator[tuple[str, Any, Any]]:
    stack: list[tuple[str, Any]] = [("", document)]
    while stack:
        path, node = stack.pop()
        for key in sorted(node) if isinstance(node, dict) else range(len(node)):
            here = f"{path}.{key}" if isinstance(node, dict) else f"{path}[{key}]"
            yield here, node, key
            if isinstance(node[key], (dict, list)):
                stack.append((here, node[key]))


def _changes(value: Any) -> Iterator[Callable[[Any, Any], bool]]:
    def deleted(parent: Any, key: Any) -> bool:
        del parent[key]
        return isinstance(parent, dict)

    def renamed(parent: Any, key: Any) -> bool:
        if isinstance(parent, dict):
            parent[f"{key}_"] = parent[key]
            return True
        parent.insert(key, copy.deepcopy(parent[key]))
        return False

    def replaced(other: Any) -> Callable[[Any, Any], bool]:
        def change(parent: Any, key: Any) -> bool:
            parent[key] = copy.deepcopy(other)
            return isinstance(other, float) or (
                value is not None and other is not None and _kind(other) != _kind(value)
            )

        return change

    yield deleted
    yield renamed
    for other in OTHERS:
        if other != value or type(other) is not type(value):
            yield replaced(other)


def _kind(value: Any) -> type:
    """Objects may stand for symbolic extents, where numbers are."""
    return int if isinstance(value, dict) and not isinstance(value, bool) else type(value)


def check_damages(text: str, read: Callable[[str], Any], write: Callable[[Any], str], share: float, seed: int) -> int:
    """Fail unless every damage is refused with its place, or makes the text of something else.

    Args:
        text: a right one.
        read, write: the reader and the writer.
        share: of the damages, chosen by ``seed``.

    Returns:
        How many were refused.
    """
    document, rng, refused = json.loads(text), random.Random(seed), 0
    for path, damaged, broken in damages(document):
        if rng.random() >= share:
            continue
        changed = render(damaged)
        try:
            found = read(changed)
        except FormatError as error:
            refused += 1
            place = str(error).partition(":")[0]
            assert place, f"{path}: {error}"
        else:
            assert not broken, f"{path}: nothing is wrong with {changed[:200]}"
            assert write(found) == changed, f"{path}: read as something else"
    assert render(document) == text
    return refused
