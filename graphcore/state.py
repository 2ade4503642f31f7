"""Checkpoint keys of variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphcore.errors import SessionError, ShapeError
from graphcore.shapes import format_shape
from graphcore.variable import Variable

__all__ = ["keyed_variables", "match_state"]


def keyed_variables(module: Any, used: Sequence[Variable]) -> dict[str, Variable]:
    """Variables by checkpoint key: module paths where a module owns the variable, scoped names otherwise.

    Raises:
        SessionError: two variables with one key; the message shows both lines.
    """
    pairs: Iterable[tuple[str, Variable]]
    if module is not None:
        pairs = [*module.named_parameters(), *module.named_buffers()]
    else:
        pairs = [(v.key_hint or v.name, v) for v in used]
    found: dict[str, Variable] = {}
    for key, variable in pairs:
        other = found.setdefault(key, variable)
        if other is not variable:
            raise SessionError(f"two variables have the checkpoint key {key!r}: made at {other.place} and at {variable.place}; give one another name")
    return found


def match_state(variables: Mapping[str, Variable], state: Mapping[str, Any], strict: bool) -> list[tuple[Variable, Any]]:
    """Variables with their new values.

    Raises:
        SessionError: with ``strict``, keys that are missing or unexpected.
        ShapeError: a value of another shape.
    """
    missing, extra = sorted(variables.keys() - state.keys()), sorted(state.keys() - variables.keys())
    if strict and (missing or extra):
        raise SessionError(f"the state does not match: missing {missing or 'nothing'}, unexpected {extra or 'nothing'}; pass strict=False to load what fits")
    pairs = []
    for key in variables.keys() & state.keys():
        variable, value = variables[key], state[key]
        if tuple(value.shape) != tuple(variable.shape):
            raise ShapeError(f"{key!r} has shape {value.shape} in the state, {format_shape(variable.shape)} in the program (made at {variable.place})")
        pairs.append((variable, value))
    return pairs
