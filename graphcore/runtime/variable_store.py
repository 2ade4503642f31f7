"""Checkpoint keys of variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcore.api.variable import Variable
from graphcore.base.errors import DTypeError, SessionError, ShapeError, UsageError
from graphcore.base.shapes import format_shape
from graphcore.ir.node import Tensor, describe

__all__ = ["checked_variable", "fitting_value", "keyed_variables", "match_state"]


def keyed_variables(module: Any, used: Sequence[Variable]) -> dict[str, Variable]:
    """Variables by checkpoint key: module paths where a module owns the variable, scoped names otherwise.

    Raises:
        SessionError: two variables with one key; the message shows both lines.
    """
    pairs: Iterable[tuple[str, Variable]]
    if module is not None and not (hasattr(module, "named_parameters") and hasattr(module, "named_buffers")):
        raise UsageError(f"state: expected a module, got {type(module).__name__}")
    if module is not None:
        pairs = [*module.named_parameters(), *module.named_buffers()]
    else:
        pairs = [(v.key_hint or v.name, v) for v in used]
    found: dict[str, Variable] = {}
    for key, variable in pairs:
        other = found.setdefault(key, variable)
        if other is not variable:
            raise SessionError(
                f"two variables have the checkpoint key {key!r}: made at {other.place} and at {variable.place}; give "
                f"one another name"
            )
    return found


def match_state(
    variables: Mapping[str, Variable], state: Mapping[str, Any], strict: bool, of_session: bool = False
) -> list[tuple[str, Variable, Any]]:
    """Keys, variables and their new values.

    Args:
        variables, state: by checkpoint key.
        strict: whether the keys must be the same.
        of_session: whether ``variables`` are those that a session has used so far, for the message.

    Raises:
        SessionError: with ``strict``, keys that are missing or unexpected; no mapping of names to arrays.
    """
    if not isinstance(state, Mapping):
        raise SessionError(f"load_state_dict: expected a dict of key to array, got {type(state).__name__}")
    missing, extra = sorted(variables.keys() - state.keys()), sorted(map(str, state.keys() - variables.keys()))
    if strict and (missing or extra):
        used = (
            "\n  a session knows the variables that it has used: run or compile something, e.g. "
            "sess.compile(train_step, {x: shape}), or pass module=..., first"
            if of_session and extra
            else ""
        )
        raise SessionError(
            f"the state does not match: missing {_listed(missing)}, unexpected {_listed(extra)}; pass strict=False "
            f"to load what fits{used}"
        )
    return [(key, variable, state[key]) for key, variable in variables.items() if key in state]


def _listed(keys: Sequence[str]) -> str:
    shown = ", ".join(map(repr, keys[:10])) or "nothing"
    return shown + (f" and {len(keys) - 10} more" if len(keys) > 10 else "")


def checked_variable(function: str, variable: Any) -> Variable:
    """The variable.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(variable, Variable):
        raise UsageError(
            f"{function}: expected a Variable, got {type(variable).__name__}"
            + (f"\n  {describe(variable)}" if isinstance(variable, Tensor) else "")
        )
    return variable


def fitting_value(variable: Variable, value: Any, role: str) -> Any:
    """The value as an array of the variable's shape and type.

    Raises:
        UsageError: a symbolic tensor.
        ShapeError, DTypeError: another shape, or a type that does not convert within its kind.
    """
    if isinstance(value, Tensor):
        raise UsageError(
            f"{role}: the value for {variable.name!r} is a symbolic tensor; pass an array, or fetch "
            f"variable.assign(tensor)\n  {describe(value)}"
        )
    array = np.asarray(value)
    made = f"the variable was made at {variable.place}"
    if array.shape != tuple(variable.shape):
        raise ShapeError(
            f"{role}: variable {variable.name!r} has shape {format_shape(variable.shape)}, the value "
            f"{format_shape(array.shape)}\n  {made}"
        )
    weak = not hasattr(value, "dtype") and array.dtype.kind == "i" and variable.dtype.is_integer
    floats = (
        array.dtype.itemsize == 2 and variable.dtype.is_float and array.dtype.kind not in "biuc"
    )  # bfloat16 to float16
    if not (
        weak or floats or (array.dtype.kind != "c" and np.can_cast(array.dtype, variable.dtype.storage, "same_kind"))
    ):
        raise DTypeError(
            f"{role}: variable {variable.name!r} is {variable.dtype}, the value {array.dtype}, which does not "
            f"convert without losing what it means; "
            f"convert it with array.astype({variable.dtype.name!r})\n  {made}"
        )
    return array.astype(variable.dtype.storage)
