"""The state of optimizers in PyTorch's layout: by the order of the parameters and by slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphcore.api.random import own_generator
from graphcore.api.variable import Variable, holder_of
from graphcore.base.errors import FormatError

__all__ = ["load_values", "numbered_state", "read_values"]


def read_values(function: str, variables: Sequence[Variable], session: Any) -> list[Any]:
    """The values of variables in a session, by default the one that has them, else their initial ones.

    Raises:
        SessionError: only sessions that are closed changed them.
    """
    held = holder_of(function, variables) if session is None else session
    return [_initial_array(v) if held is None else held.get_value(v) for v in variables]


def _initial_array(variable: Variable) -> Any:
    initial = variable.initial
    return initial.sample(own_generator(variable)) if hasattr(initial, "sample") else initial


def load_values(function: str, values: Sequence[tuple[Variable, Any]]) -> None:
    """Set initial values, all of them or none.

    Raises:
        SessionError: an open session uses one of the variables already.
        ShapeError, DTypeError: a value that does not fit.
    """
    for variable, _ in values:
        variable.check_unused(function)
    before = [(variable, variable.initial) for variable, _ in values]
    try:
        for variable, value in values:
            variable.set_initial(value)
    except Exception:
        for variable, initial in before:
            variable.set_initial(initial)
        raise


def numbered_state(op: str, state: Any, count: int, slots: Sequence[str]) -> dict[int, dict[str, Any]]:
    """What a state holds for each parameter, by its number and by slot; of slots that are not there, nothing.

    Args:
        op: the optimizer's name.
        state: ``{"state": {number: {slot: array}}, "param_groups": [{"params": [number, ...]}, ...]}``.
        count: how many parameters there are.
        slots: the names that the optimizer knows.

    Raises:
        FormatError: another layout, another number of parameters, or a slot that the optimizer does not know.
    """
    if not isinstance(state, Mapping) or not isinstance(state.get("state"), Mapping) or "param_groups" not in state:
        raise FormatError(f"{op}.load_state_dict: expected a dict with 'state' and 'param_groups', as PyTorch's")
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    if len(numbers) != count:
        raise FormatError(f"{op}.load_state_dict: the state is of {len(numbers)} parameters, there are {count}")
    found: dict[int, dict[str, Any]] = {}
    for position, number in enumerate(numbers):
        held = {slot: np.asarray(value) for slot, value in state["state"].get(number, {}).items() if value is not None}
        unknown = sorted(held.keys() - set(slots))
        if unknown:
            raise FormatError(
                f"{op}.load_state_dict: it has no slot {', '.join(map(repr, unknown))}; there are "
                f"{', '.join(map(repr, slots))}"
            )
        found[position] = held
    return found
