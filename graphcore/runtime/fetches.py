"""Nested fetches: flatten to tensors and updates, and build results of the same nesting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from graphcore.api.tensor import Tensor
from graphcore.base.errors import UsageError
from graphcore.ir.graph import Update
from graphcore.ir.node import Value

__all__ = ["flatten_fetches"]


def flatten_fetches(fetches: Any) -> tuple[list[Any], list[Update], Callable[[Sequence[Any]], Any]]:
    """Values (and names, in place of some) and updates of any nesting of tensors and updates, and what puts arrays back
    in the same nesting.

    Raises:
        UsageError: something that is neither a tensor nor an update, nor a nesting of them.
    """
    tensors: list[Any] = []
    updates: list[Update] = []
    build = _visit(fetches, tensors, updates)
    return tensors, updates, build


def _visit(value: Any, tensors: list[Any], updates: list[Update]) -> Callable[[Sequence[Any]], Any]:
    if isinstance(value, Tensor):
        position = len(tensors)
        tensors.append(value.value)
        return itemgetter(position)
    if isinstance(value, (Value, str)):
        tensors.append(value)
        return itemgetter(len(tensors) - 1)
    if isinstance(value, Update):
        updates.append(value)
        return lambda values: None
    if value is None:
        return lambda values: None
    if hasattr(value, "updates") and not isinstance(value, (list, tuple, dict)):
        updates.extend(value.updates)
        return lambda values: None
    if isinstance(value, dict):
        parts = {k: _visit(v, tensors, updates) for k, v in value.items()}
        return lambda values: {k: p(values) for k, p in parts.items()}
    if isinstance(value, (list, tuple)):
        items = [_visit(v, tensors, updates) for v in value]
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return lambda values: type(value)(*(p(values) for p in items))
        kind = list if isinstance(value, list) else tuple
        return lambda values: kind([p(values) for p in items])
    hint = ""
    if hasattr(value, "minimize"):
        hint = ", e.g. the step that optimizer.minimize(loss) gives"
    elif callable(value):
        hint = ", e.g. what it gives when it is called on a tensor"
    raise UsageError(
        f"fetches: cannot fetch {_article(type(value).__name__)}; fetch tensors, updates, or lists, tuples and dicts "
        f"of them{hint}"
    )


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiouAEIOU" else f"a {noun}"
