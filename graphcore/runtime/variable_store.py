"""The variables of a session: their values, how these begin, and their checkpoint keys."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcore.api import random
from graphcore.api.initializers import generator
from graphcore.api.variable import Variable
from graphcore.base.arrays import beyond, shown
from graphcore.base.errors import DTypeError, SessionError, ShapeError, UsageError
from graphcore.base.shapes import format_shape
from graphcore.ir.node import Tensor, describe
from graphcore.runtime.locks import Line, Turn

__all__ = ["VariableStore", "checked_variable", "fitting_value", "keyed_variables", "match_state"]


class VariableStore:
    """The variables that a session has used, and what was restored for those that it has not.

    Values are on the backend; they are read and written between two runs.

    Args:
        backend: holds the values.
        line: the session's runs.
        seed: of initial values; None takes the one that ``gc.random.seed`` set, at the first use.
        evaluate: gives the value of an initial value that is a tensor, from it and feeds.
        owner: a weak reference to the session, which every used variable gets.
    """

    def __init__(
        self,
        backend: Any,
        line: Line,
        seed: int | None,
        evaluate: Callable[[Tensor, Mapping[Tensor, Any]], Any],
        owner: Callable[[], Any],
    ) -> None:
        self._backend = backend
        self._line = line
        self._seed = seed
        self._evaluate = evaluate
        self._owner = owner
        self._lock = threading.RLock()  # initial values may be tensors that read other variables
        self._known: dict[int, Variable] = {}  # by uid, in the order of first use
        self._pending: dict[str, Any] = {}  # values by checkpoint key, restored before their variables were used
        self._only_restored = False  # whether a variable that was not restored is an error
        self._ranks: dict[int, int] = {}  # by uid, among the variables with the same key
        self._alike: dict[str, int] = {}  # how many variables have a key

    @property
    def seed(self) -> int:
        """The seed."""
        if self._seed is None:
            self._seed = random.default_seed()
        return self._seed

    @property
    def used(self) -> list[Variable]:
        """All variables, in the order of first use."""
        return list(self._known.values())

    @property
    def pending(self) -> dict[str, Any]:
        """What was restored and not used yet, by checkpoint key."""
        return {key: np.array(value) for key, value in self._pending.items()}

    def initialise(self, variables: Iterable[Variable]) -> None:
        """Give variables that have no value yet their initial ones; of those with one key, to the one first that was
        built first, whatever the order in which a run needs them."""
        missing = sorted((v for v in variables if not self._backend.has(v)), key=lambda v: v.uid)
        if len(missing) > 1:
            self._reserve(missing)
        for variable in missing:
            if self._backend.has(variable):
                continue
            with self._lock:
                if not self._backend.has(variable):  # another thread may have been here
                    self.note(variable)
                    self.write([(variable, self._initial_value(variable))])

    def clear(self) -> None:
        """Forget all variables."""
        self._known.clear()
        self._pending.clear()
        self._ranks.clear()
        self._alike.clear()

    def _reserve(self, variables: Sequence[Variable]) -> None:
        turn = Turn()
        with turn.lock:  # growing memory must not meet a run
            self._line.wait(turn)
            self._backend.reserve(variables)

    def _initial_value(self, variable: Variable) -> Any:
        key = variable.key_hint or variable.name
        if key in self._pending:
            value = fitting_value(variable, self._pending[key], f"restore: {key!r}")
            del self._pending[key]
            return value
        if self._only_restored:
            raise SessionError(
                f"variable {key!r}, made at {variable.place}, is not in the state that this session was given before "
                f"it used any variable; "
                "pass strict=False to initialise what is missing"
            )
        initial = variable.initial
        if isinstance(initial, Tensor):
            return self._evaluate(*random.rekeyed(initial, self._words_for(variable)))
        if hasattr(initial, "sample"):
            return np.asarray(initial.sample(self.generator_for(variable)))
        if random.is_seed(variable):
            return np.array([self.seed & 0xFFFFFFFF, (self.seed >> 32) & 0xFFFFFFFF], np.uint32)
        return initial

    def generator_for(self, variable: Variable) -> np.random.Generator:
        """The generator of a variable's initial value: by the seed, the checkpoint key and, among variables with equal
        keys, the order of first use."""
        rank = self.note(variable)
        return generator(self.seed, variable.draw_key, rank)

    def _words_for(self, variable: Variable) -> Any:
        """The seed of the draws in an initial value that is a tensor."""
        return self.generator_for(variable).integers(0, 2**32, 2, np.uint32)

    def note(self, variable: Variable) -> int:
        """Make a variable one of those that the session has used. Returns how many with the same key came before."""
        with self._lock:
            if variable.uid not in self._ranks:
                key = variable.draw_key
                self._ranks[variable.uid] = self._alike.get(key, 0)
                self._alike[key] = self._ranks[variable.uid] + 1
            variable.live = self._owner
            self._known[variable.uid] = variable
            return self._ranks[variable.uid]

    def write(self, pairs: Sequence[tuple[Variable, Any]]) -> None:
        """Set variables between two runs, all of them."""
        turn = Turn()
        with turn.lock:
            self._line.wait(turn)
            self._backend.reserve([variable for variable, _ in pairs])
            for variable, value in pairs:
                self._backend.write(variable, value)

    def read(self, variables: Sequence[Variable]) -> list[Any]:
        """The values of variables between two runs, of one moment."""
        self.initialise(variables)
        turn = Turn()
        with turn.lock:
            self._line.wait(turn)
            return [self._backend.read(v) for v in variables]

    def load(self, state: Mapping[str, Any], strict: bool, module: Any) -> None:
        """Set variables from arrays by checkpoint key; see ``Session.load_state_dict``."""
        if module is None and not self._known:
            match_state({}, state, strict=False)
            with self._lock:
                self._pending, self._only_restored = {k: np.array(v) for k, v in state.items()}, strict
            return
        keyed = keyed_variables(module, self.used)
        pairs = [
            (v, fitting_value(v, value, f"load_state_dict: {key!r}"))
            for key, v, value in match_state(keyed, state, strict, module is None)
        ]
        for variable, _ in pairs:
            self.note(variable)
        self.write(pairs)


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
            instead = "name one optimizer with name=" if key.startswith("optim/") else "give one another name"
            raise SessionError(
                f"two variables have the checkpoint key {key!r}: made at {other.place} and at {variable.place}; "
                f"{instead}"
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
    wrong = beyond(array, variable.dtype.storage)
    if wrong is not None:
        info = np.iinfo(variable.dtype.storage)
        raise DTypeError(
            f"{role}: the value for {variable.name!r} holds {shown(wrong)}, which {variable.dtype} cannot: it goes "
            f"from {info.min} to {info.max}\n  {made}"
        )
    return array.astype(variable.dtype.storage)
