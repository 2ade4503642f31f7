"""What optimizers are given: parameters, groups of them with options of their own, learning rates, and checks of
numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable
from graphcore.base.errors import DTypeError, GradientError, ShapeError, UsageError
from graphcore.ir.node import describe

__all__ = [
    "LearningRate",
    "ParamGroup",
    "Parameters",
    "checked_rate",
    "checked_value",
    "is_rate",
    "label",
    "non_negative",
    "parameter_groups",
]

LearningRate = float | Tensor | Callable[[Tensor], Any]
Check = Callable[[Mapping[str, Any]], dict[str, Any]]
# Variables, a module, pairs of name and variable, or dictionaries with "params" and options.
Parameters = Any


def label(variable: Variable) -> str:
    """What to call a variable: its path in its module, or its name."""
    return variable.key_hint or variable.name


def is_rate(value: Any) -> bool:
    """Whether a first argument is a learning rate, and not what to train."""
    scheduled = callable(value) and not hasattr(value, "parameters")
    return isinstance(value, (bool, int, float, np.number, Tensor)) or scheduled


def checked_rate(op: str, lr: Any) -> LearningRate:
    """A learning rate as an optimizer takes it.

    Raises:
        UsageError: negative, not finite, or no rate at all.
        ShapeError, DTypeError: a tensor that is no floating scalar.
    """
    if isinstance(lr, Tensor):
        return checked_value(lr)  # type: ignore[no-any-return]
    if callable(lr) and not hasattr(lr, "parameters"):
        return lr  # type: ignore[no-any-return]
    return non_negative(op, "lr", lr)


def checked_value(lr: Any) -> Any:
    """What a schedule gives: a floating scalar tensor, or a number of at least 0."""
    if isinstance(lr, Tensor):
        if lr.shape != ():
            raise ShapeError(f"the learning rate must be a scalar, it is {describe(lr)}")
        if not lr.dtype.is_float:
            raise DTypeError(f"the learning rate must be of a floating type, it is {describe(lr)}")
        return lr
    return non_negative("the learning rate's schedule", "its value", lr)


def non_negative(op: str, name: str, value: Any, below: float = math.inf) -> float:
    """A finite number of at least 0 (and less than ``below``).

    Raises:
        UsageError: anything else.
    """
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    huge = isinstance(value, int) and value > sys.float_info.max
    if not number or huge or not 0 <= value < below:
        limit = f" and less than {below:g}" if below < math.inf else ""
        raise UsageError(f"{op}: {name} must be a finite number of at least 0{limit}, got {value!r}")
    return float(value)


class ParamGroup(dict[str, Any]):
    """Parameters under ``"params"``, and their options: ``"lr"`` and what else the optimizer takes.

    Options may be assigned until a step is built with them: a step takes them as they are then.
    """

    def __init__(self, op: str, check: Check, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        super().update(check(options))
        self._op, self._check = op, check
        self.built = False

    def __setitem__(self, name: str, value: Any) -> None:
        if self.built:
            instead = (
                f"for a rate that changes between runs give {self._op}(lr=gc.Variable(0.1, trainable=False)), and "
                f"sess.set_value(rate, 0.01)"
                if name == "lr"
                else "build another step with another optimizer"
            )
            raise UsageError(
                f"{self._op}: {name!r} is assigned after a step was built with it, which does not change that step; "
                f"{instead}"
            )
        if name == "params":
            raise UsageError(f"{self._op}: parameters are given when the optimizer is made")
        super().__setitem__(name, self._check({**self, name: value})[name])

    def update(self, *args: Any, **options: Any) -> None:
        """Assign several options."""
        for name, value in dict(*args, **options).items():
            self[name] = value

    def __delitem__(self, name: str) -> None:
        raise UsageError(f"{self._op}: an option of a group can be assigned, not removed")


def parameter_groups(op: str, params: Parameters, defaults: Mapping[str, Any], check: Check) -> list[ParamGroup]:
    """The groups of parameters; one where they are given without options.

    Raises:
        UsageError: no parameters, something that is none, or one that is given twice.
        GradientError: a parameter of no floating type.
    """
    if hasattr(params, "parameters"):
        params = params.parameters()
    if isinstance(params, (Variable, Mapping, str)) or not isinstance(params, Iterable):
        raise UsageError(
            f"{op}: params must be parameters in a list, or a list of dicts with 'params', as in "
            f"{op}(model.parameters(), lr=0.001); got {type(params).__name__}"
        )
    listed = list(params)
    grouped = bool(listed) and all(isinstance(g, Mapping) for g in listed)
    found: list[ParamGroup] = []
    seen: dict[int, Variable] = {}
    for given in listed if grouped else [{"params": listed}]:
        unknown = sorted(given.keys() - {"params", *defaults})
        if "params" not in given or unknown:
            what = f"it has {', '.join(map(repr, unknown))}" if unknown else "it lacks 'params'"
            raise UsageError(f"{op}: a group has 'params' and {', '.join(map(repr, defaults))}; {what}")
        variables = _variables(op, given["params"], seen)
        found.append(ParamGroup(op, check, {**defaults, **given, "params": variables}))
    if not seen:
        raise UsageError(f"{op}: params is empty; {op}(lr=0.001).minimize(loss) trains all that the loss depends on")
    return found


def _variables(op: str, params: Any, seen: dict[int, Variable]) -> list[Variable]:
    """Parameters as variables, which go to those seen before."""
    if hasattr(params, "parameters"):
        params = params.parameters()
    variables = []
    for item in [params] if isinstance(params, Variable) else params:
        variable = item[1] if isinstance(item, tuple) and len(item) == 2 else item
        if not isinstance(variable, Variable):
            raise UsageError(f"{op}: params must be Variables, got {type(variable).__name__}")
        if not variable.dtype.is_float:
            raise GradientError(
                f"{op}: the variable {label(variable)!r} is {variable.dtype}; only floating types can be trained"
            )
        if variable.uid in seen:
            raise UsageError(f"{op}: the variable {label(variable)!r}, made at {variable.place}, is given twice")
        seen[variable.uid] = variable
        variables.append(variable)
    return variables
