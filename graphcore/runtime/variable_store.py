"""The variables of a session: their values, how these begin, and their checkpoint keys."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcore.api import random
from graphcore.api.initializers import generator
from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable
from graphcore.base.arrays import beyond, shown
from graphcore.base.errors import DTypeError, SessionError, ShapeError, UsageError
from graphcore.base.shapes import format_shape
from graphcore.ir.node import describe
from graphcore.ir.state import StateSlot
from graphcore.runtime.locks import Line, Turn

__all__ = ["VariableStore", "checked_variable", "fitting_value", "match_state", "owned_variables", "renamed"]

_moments = itertools.count()  # of changes, in all sessions
_SESSIONS = 8  # that are remembered to have changed a variable


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
        self._only_restored: bool | str = False  # whether a variable that was not restored is an error
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
        missing = sorted((v for v in variables if not self._backend.has(v.slot)), key=lambda v: v.uid)
        if len(missing) > 1:
            self._reserve(missing)
        for variable in missing:
            if self._backend.has(variable.slot):
                continue
            with self._lock:
                if not self._backend.has(variable.slot):  # another thread may have been here
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
            self._backend.reserve([v.slot for v in variables])

    def _initial_value(self, variable: Variable) -> Any:
        key = self.key_of(variable)
        if key in self._pending:
            value = fitting_value(variable, self._pending[key], f"restore: {key!r}")
            del self._pending[key]
            return value
        if variable.persistent and (self._only_restored is True or (self._only_restored and _of_model(key))):
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

    def key_of(self, variable: Variable) -> str:
        """The checkpoint key of a variable: the scopes and path of a module's, what belongs to others by theirs, the
        scoped name of another one; those without a name are numbered in the order of first use."""
        if variable.key_from is not None:
            return str(variable.key_from(self.key_of))
        if variable.is_named:
            return variable.name
        rank = self.note(variable)
        return f"{variable.draw_key}_{rank}" if rank else variable.draw_key

    def keyed(self, module: Any = None) -> dict[str, Variable]:
        """The variables of a module, or all that were used, by checkpoint key.

        Raises:
            SessionError: two variables with one key; the message shows both lines.
        """
        chosen = [v for v in self.used if v.persistent] if module is None else owned_variables(module).values()
        return _unique((self.key_of(v), v) for v in chosen)

    def mark(self, slots: Iterable[StateSlot]) -> None:
        """Note that this session has given variables other values than they had."""
        when = next(_moments)
        for slot in slots:
            changes = slot.notes.changes
            if self._owner not in changes and len(changes) > _SESSIONS:
                del changes[min(changes, key=changes.__getitem__)]
            changes[self._owner] = when

    def commit(self, variables: Sequence[Variable]) -> None:
        """Make the values of variables their initial ones."""
        for variable, value in zip(variables, self.read(variables), strict=True):
            variable.changes.pop(self._owner, None)
            variable.set_initial(value)

    def write(self, pairs: Sequence[tuple[Variable, Any]]) -> None:
        """Set variables between two runs, all of them."""
        turn = Turn()
        with turn.lock:
            self._line.wait(turn)
            self._backend.reserve([variable.slot for variable, _ in pairs])
            for variable, value in pairs:
                self._backend.write(variable.slot, value)

    def read(self, variables: Sequence[Variable]) -> list[Any]:
        """The values of variables between two runs, of one moment."""
        self.initialise(variables)
        turn = Turn()
        with turn.lock:
            self._line.wait(turn)
            return [self._backend.read(v.slot) for v in variables]

    def load(self, state: Mapping[str, Any], strict: bool | str, module: Any) -> None:
        """Set variables from arrays by checkpoint key; see ``Session.load_state_dict``."""
        if strict not in (True, False, "model"):
            raise UsageError(f"load_state_dict: strict is {strict!r}; use True, False or 'model'")
        if module is None and not self._known:
            match_state({}, state, strict=False)
            with self._lock:
                self._pending, self._only_restored = {k: np.array(v) for k, v in state.items()}, strict
            return
        self.set(
            match_state(self.keyed() if module is None else owned_variables(module), state, strict, module is None)
        )

    def set(self, matched: Sequence[tuple[str, Variable, Any]]) -> None:
        """Set variables, all of them or none; with the keys of the values."""
        pairs = [(v, fitting_value(v, value, f"load_state_dict: {key!r}")) for key, v, value in matched]
        for variable, _ in pairs:
            self.note(variable)
        self.write(pairs)
        self.mark(variable.slot for variable, _ in pairs)

    def restore(self, state: Mapping[str, Any], strict: bool | str, module: Any) -> None:
        """Set variables from a file's arrays; see ``Session.restore``."""
        full = None if module is None else self.keyed(module)
        if full is None or full.keys().isdisjoint(state):
            self.load(state, strict, module)
        else:  # a session's file, which may hold more than the module's
            match_state(full, {key: state[key] for key in full if key in state}, strict)
            self.set([(key, variable, state[key]) for key, variable in full.items() if key in state])


def owned_variables(module: Any) -> dict[str, Variable]:
    """The variables of a module by their paths in it, or of an optimizer by their names."""
    if hasattr(module, "named_parameters") and hasattr(module, "named_buffers"):
        named = (*module.named_parameters(), *module.named_buffers())
        return {path: variable for path, variable in named if variable.persistent}
    if hasattr(module, "minimize"):
        return {v.name: v for v in module.variables()}
    raise UsageError(f"state: expected a module, got {type(module).__name__}")


def renamed(state: Mapping[str, Any], names: Mapping[str, str] | Callable[[str], str]) -> dict[str, Any]:
    """A state under other keys.

    Raises:
        SessionError: two keys become one.
    """
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, value in state.items():
        new = names(key) if callable(names) else names.get(key, key)
        if new in found:
            raise SessionError(f"restore: names makes {new!r} of both {origins[new]!r} and {key!r}")
        found[new], origins[new] = value, key
    return found


def _unique(pairs: Iterable[tuple[str, Variable]]) -> dict[str, Variable]:
    found: dict[str, Variable] = {}
    for key, variable in pairs:
        other = found.setdefault(key, variable)
        if other is not variable:
            instead = "give one another name, or make its module in a scope: with gc.name_scope('generator'): ..."
            if not _of_model(key):
                instead = "name one optimizer with name=, or " + instead
            raise SessionError(
                f"two variables have the checkpoint key {key!r}: made at {other.place} and at {variable.place}; "
                f"{instead}"
            )
    return found


def _of_model(key: str) -> bool:
    """Whether a checkpoint key is neither an optimizer's nor of what draws or counts."""
    return not key.startswith(("optim/", "random/", "fit/"))


def match_state(
    variables: Mapping[str, Variable], state: Mapping[str, Any], strict: bool | str, of_session: bool = False
) -> list[tuple[str, Variable, Any]]:
    """Keys, variables and their new values.

    Args:
        variables, state: by checkpoint key.
        strict: whether the keys must be the same; ``"model"``: those that are no optimizer's.
        of_session: whether ``variables`` are those that a session has used so far, for the message.

    Raises:
        SessionError: with ``strict``, keys that are missing or unexpected; no mapping of names to arrays.
    """
    if not isinstance(state, Mapping):
        raise SessionError(f"load_state_dict: expected a dict of key to array, got {type(state).__name__}")
    missing, extra = sorted(variables.keys() - state.keys()), sorted(map(str, state.keys() - variables.keys()))
    if strict == "model":
        missing, extra = list(filter(_of_model, missing)), list(filter(_of_model, extra))
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
    whole = array.dtype.kind == "i" or (array.dtype == object and all(isinstance(n, int) for n in array.flat))
    weak = not hasattr(value, "dtype") and whole and variable.dtype.is_integer
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
