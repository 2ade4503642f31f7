"""Placeholders, constants and variables: the leaves that users make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from graphcore.api.agreement import taken
from graphcore.api.initial_value import InitialValue
from graphcore.api.tensor import Tensor, adopt, result, wrap
from graphcore.base import dtypes, source
from graphcore.base.dtypes import DType
from graphcore.base.errors import DTypeError, GraphError, SessionError, ShapeError, UsageError
from graphcore.base.notices import BuildWarning, warn_once
from graphcore.base.shapes import agree, as_shape, format_shape, is_static
from graphcore.ir import graph as ir
from graphcore.ir.graph import read_slots, toposort
from graphcore.ir.leaves import Constant, Placeholder
from graphcore.ir.node import Builder, Node, Value, describe, make_node
from graphcore.ir.op import TensorType
from graphcore.ir.state import StateSlot

# fmt: off
__all__ = [
    "Update", "Variable", "as_tensor", "constant", "fixed", "holder_of", "is_tensor_like", "placeholder",
    "read_variables", "variable_of",
]
# fmt: on

_LARGE = 1 << 20  # bytes of a constant that is likely to be meant as data or as a variable


def placeholder(dtype: Any = "float32", shape: Any = (), name: str | None = None) -> Tensor:
    """A value fed at every run.

    Args:
        dtype: element type.
        shape: extents; ``None`` or a ``gc.Dim`` is symbolic and takes its value from the feed.
        name: shown in messages and diagrams.

    Raises:
        ShapeError, DTypeError: no shape or no dtype.

    >>> x = placeholder("float32", (None, 784), name="x")
    >>> x.ndim
    2
    """
    if isinstance(dtype, (tuple, list)):
        raise DTypeError(f"placeholder: {dtype!r} is a shape; the order is placeholder(dtype, shape)")
    op = Placeholder(as_shape(shape), dtypes.as_dtype(dtype), None if name is None else str(name))
    return result(make_node(op, ()))


def constant(value: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """A fixed tensor from a number, a nested list or an array. Python floats become float32, integers int64.

    Raises:
        DTypeError: no numbers, or an integer type that cannot hold one of them.

    >>> constant([1.0, 2.0]).dtype
    float32
    """
    if isinstance(value, Tensor):
        raise DTypeError(
            f"constant: the value is already a tensor ({describe(value)}); use it as it is, or gc.Variable(...)"
        )
    return fixed("constant", value, dtype, name)


def fixed(function: str, value: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """A constant that a function makes of a user's value; arguments and errors as for ``constant``."""
    array = _numbers_of(value)
    if array.nbytes > _LARGE:
        warn_once(
            BuildWarning,
            "constant",
            f"{function}: an array of {array.nbytes:,} bytes becomes a part of the program; feed a placeholder, or "
            f"hold it in gc.Variable(array, trainable=False)",
        )
    op = _constant(function, array, hasattr(value, "dtype"), dtype)
    if name is not None:
        op = Constant(op.array, op.dtype, op.digest, str(name))
    return result(make_node(op, ()))


def _constant(function: str, array: Any, strong: bool, dtype: Any) -> Constant:
    """The constant of an array in a type: by default that of a ``strong`` array, else the default of its kind."""
    if dtype is None:
        kinds = {"f": dtypes.float32, "i": dtypes.int64, "O": dtypes.int64, "b": dtypes.bool_}
        dtype = array.dtype if strong else kinds.get(array.dtype.kind, array.dtype)
    return _held(function, array, dtypes.as_dtype(dtype))


def _held(function: str, array: Any, dtype: DType) -> Constant:
    try:
        return Constant.of(array, dtype)
    except DTypeError as error:
        raise DTypeError(f"{function}: {error}; give a wider dtype") from None


def _numbers_of(value: Any) -> Any:
    """A value as an array of numbers; integers beyond int64 stay as they are."""
    if isinstance(value, Value):  # a tuple, which would be taken for a list of its parts
        raise UsageError(f"a value of a graph is given for a tensor or numbers; its tensor is meant: {describe(value)}")
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ShapeError(f"a nested list is no array: its parts have different lengths ({error})") from None
    if array.dtype == object and array.size and all(isinstance(v, (int, float)) for v in array.flat):
        return array
    if array.dtype.kind not in "biufc" and not hasattr(value, "dtype"):
        raise DTypeError(
            f"{value!r:.80} of type {type(value).__name__} holds no numbers; use a number, an array or a nested list "
            f"of numbers"
        )
    return array


def is_tensor_like(value: Any) -> bool:
    """Whether a value can become a tensor: a tensor, number, array or nested list of numbers."""
    return isinstance(value, (Tensor, bool, int, float, np.ndarray, np.generic, list, tuple)) or hasattr(
        value, "__array__"
    )


def as_tensor(value: Any, dtype: DType | None = None) -> Tensor:
    """``value`` itself if it is a tensor, else a constant."""
    return value if isinstance(value, Tensor) else constant(value, dtype)


class Update(ir.Update):
    """A variable takes a value at the end of a run. Fetching an update performs it and gives None.

    Attributes:
        slot: what graphs know of the variable.
        value: the new value.
        place: the user's line.
    """

    @property
    def variable(self) -> Variable:
        return variable_of(self.slot)


@dataclass
class _Notes:
    """What users and sessions say of a variable, beside what graphs know; kept with the slot, for the variable may be
    made again.

    Attributes:
        own_name: the scoped name, which no module replaced; ``scoped`` the same without a number.
        trainable: whether steps that are built from now on train the variable.
        key_hint: the path in the module that owns the variable.
        key_from: the checkpoint key of what belongs to other variables, from a function that gives theirs.
        live: the session that used it last, weakly.
        changes: sessions that gave it other values, weakly, and when.
        persistent: whether checkpoints hold it.
    """

    own_name: str
    scoped: str
    trainable: bool
    key_hint: str | None = None
    key_from: Callable[[Callable[[Variable], str]], str] | None = None
    live: Callable[[], Any] | None = None
    changes: dict[Callable[[], Any], int] = field(default_factory=dict)
    persistent: bool = True

    @staticmethod
    def face(slot: StateSlot) -> Variable:
        """The variable of a slot, where nobody holds it any more."""
        return _over(Variable.__new__(Variable), slot)


class _Note:
    """A field of a variable's notes, as an attribute of the variable."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, variable: Variable, owner: type) -> Any:
        return self if variable is None else getattr(variable.slot.notes, self.name)

    def __set__(self, variable: Variable, value: Any) -> None:
        setattr(variable.slot.notes, self.name, value)


class Variable(Tensor):
    """A tensor that a session keeps between runs.

    Args:
        initial: an initializer of ``gc.init``, an array, a number, or a tensor that needs no feed (evaluated at first
            use).
        trainable: whether optimizers update it.
        name: shown in messages, diagrams and checkpoints; prefixed by the open name scopes.
        dtype: the element type, if it is not the initial value's.

    Reading a variable in a run gives its value before the run; ``assign`` makes an update that lands at the run's end.

    >>> w = Variable([1.0, 2.0], name="w")
    >>> w.shape, w.trainable
    ((2,), True)
    """

    __slots__ = ("slot",)
    slot: StateSlot
    trainable: Any = _Note()
    key_from: Any = _Note()
    live: Any = _Note()
    changes: Any = _Note()
    persistent: Any = _Note()

    def __init__(self, initial: Any, trainable: bool = True, name: str | None = None, dtype: Any = None) -> None:
        wanted = None if dtype is None else dtypes.as_dtype(dtype)
        begin: Any
        if isinstance(initial, Tensor) or (hasattr(initial, "shape") and hasattr(initial, "sample")):
            begin = initial
            shape, found = initial.shape, wanted or dtypes.as_dtype(initial.dtype)
            if isinstance(initial, Tensor):
                _check_initial(initial)
                if found != initial.dtype:
                    raise DTypeError(
                        f"Variable: dtype {found} for an initial tensor of {initial.dtype}; cast it with "
                        f".astype('{found}')"
                    )
        else:
            op = _constant("Variable", _numbers_of(initial), hasattr(initial, "dtype"), wanted)
            begin, shape, found = op.array, tuple(op.array.shape), op.dtype
        if not is_static(shape):
            raise ShapeError(f"Variable: the shape {format_shape(shape)} is symbolic; variables need fixed extents")
        slot = StateSlot(TensorType(tuple(shape), found), begin, source.capture())
        if name is not None:
            slot.label = str(name)
        scoped = "/".join((*source.current_scope(), str(name) if name is not None else "variable"))
        slot.name = scoped if name is not None else f"{scoped}_{slot.serial}"
        slot.notes = _Notes(slot.name, scoped, bool(trainable) and found.is_float)
        _over(self, slot)

    @property
    def uid(self) -> int:
        """How many variables were made before this one."""
        return self.slot.serial

    @property
    def place(self) -> str:
        """The line that made the variable."""
        return self.slot.place

    @property
    def key_hint(self) -> str | None:
        """The path in the module that owns the variable."""
        path: str | None = self.slot.notes.key_hint
        return path

    @key_hint.setter
    def key_hint(self, path: str | None) -> None:
        notes = self.slot.notes
        notes.key_hint = path
        self.slot.name = path or notes.own_name

    @property
    def name(self) -> str:
        """The path in the module that owns the variable, else its scoped name."""
        return self.slot.name

    @property
    def draw_key(self) -> str:
        """What seeds the draw of the initial value beside a session's seed: the name, without the number of a variable
        that was given none, which tells how many others were made before it."""
        scoped: str = self.slot.notes.scoped
        return self.key_hint or scoped

    @property
    def is_named(self) -> bool:
        """Whether its name is its own: given, or its path in a module. The sessions that use it number the others."""
        notes: _Notes = self.slot.notes
        return self.key_hint is not None or notes.own_name == notes.scoped

    @property
    def initial(self) -> Any:
        """An array, a tensor, or an initializer with ``sample(rng)``."""
        return self.slot.initializer

    def set_initial(self, value: Any) -> None:
        """Replace the initial value, by an array or an initializer (before a session initialises the variable).

        Raises:
            ShapeError: another shape.
        """
        if hasattr(value, "sample"):
            if (value.shape, value.dtype) != (self.shape, self.dtype):
                raise ShapeError(
                    f"set_initial: variable {self.name!r} is {self.type}, the initializer {value}"
                    f"\n  the variable was made at {self.place}"
                )
            self._begin(value)
            return
        if isinstance(value, Tensor):
            raise DTypeError(
                f"set_initial: the value for {self.name!r} is a symbolic tensor; pass an array"
                f"\n  the value is {describe(value)}"
            )
        array = _numbers_of(value)
        if array.shape != self.shape:
            raise ShapeError(
                f"set_initial: variable {self.name!r} has shape {format_shape(self.shape)}, the value "
                f"{format_shape(array.shape)}\n  the variable was made at {self.place}"
            )
        self._check_kind("set_initial", array)
        self._begin(_held("set_initial", array, self.dtype).array)

    def check_unused(self, function: str) -> None:
        """Raise SessionError if an open session has used the variable, so that an initial value would come too late."""
        session = self.live() if self.live is not None else None
        if session is not None and not session.closed:
            raise SessionError(
                f"{function}: {self.name!r} has a value in an open session already; use sess.set_value(variable, array)"
                f"\n  the variable was made at {self.place}"
            )

    @property
    def data(self) -> InitialValue:
        """The initial value, for ``w.data.normal_(0.0, 0.02)`` and the like; ``w.data = array`` replaces it."""
        return InitialValue(self)

    @data.setter
    def data(self, value: Any) -> None:
        InitialValue(self).copy_(value)

    def _begin(self, initial: Any) -> None:
        self.slot.initializer = initial
        # What sessions that are gone left in it no longer matters.
        self.changes = {s: when for s, when in self.changes.items() if s() is not None and not s().closed}

    def set_dtype(self, dtype: Any) -> None:
        """Change the element type, before a session uses the variable or anything is built on it.

        Raises:
            SessionError: an open session has used it.
            DTypeError: one type is floating and the other is not.
        """
        wanted = dtypes.as_dtype(dtype)
        self.check_unused("set_dtype")
        if wanted.is_float != self.dtype.is_float:
            raise DTypeError(
                f"set_dtype: variable {self.name!r} is {self.dtype}, which does not become {wanted}"
                f"\n  the variable was made at {self.place}"
            )
        slot, initial = self.slot, self.initial
        if isinstance(initial, Tensor):
            slot.initializer = wrap(Builder().cast(initial.value, dtype=wanted))
        elif hasattr(initial, "sample"):
            slot.initializer = replace(initial, dtype=wanted)
        else:
            slot.initializer = _held("set_dtype", initial, wanted).array
        slot.retype(TensorType(self.shape, wanted))
        _over(self, slot)

    def _check_kind(self, function: str, array: Any) -> None:
        """Raise DTypeError for an array that would lose its meaning: floats for integers, numbers for bools."""
        kinds = "biufO" if self.dtype.is_float else "biuO" if self.dtype.is_integer else "b"
        if array.dtype.kind not in kinds and not (self.dtype.is_float and array.dtype == dtypes.bfloat16.storage):
            raise DTypeError(
                f"{function}: variable {self.name!r} is {self.dtype}, the value {array.dtype}; convert it with "
                f"array.astype({self.dtype.name!r})\n"
                f"  the variable was made at {self.place}"
            )

    def read(self) -> Tensor:
        """The variable's value before the run, which the variable itself is as a tensor."""
        return self

    def assign(self, value: Any) -> Update:
        """An update: the variable takes ``value`` at the end of a run that fetches it.

        Raises:
            ShapeError, DTypeError: the value does not fit.
        """
        if not isinstance(value, Tensor):
            array = _numbers_of(value)
            self._check_kind("assign", array)
            value = result(make_node(_held("assign", array, self.dtype), ()))
        new = as_tensor(value, self.dtype)
        if new.dtype != self.dtype:
            raise DTypeError(
                f"assign: variable {self.name!r} is {self.dtype}, the value {new.dtype}; cast it with "
                f".astype('{self.dtype}')\n"
                f"  the value is {describe(new)}\n  the variable was made at {self.place}"
            )
        if not agree(new.shape, self.shape):
            raise ShapeError(
                f"assign: variable {self.name!r} has shape {format_shape(self.shape)}, the value "
                f"{format_shape(new.shape)}\n"
                f"  the value is {describe(new)}\n  the variable was made at {self.place}"
            )
        return Update(self.slot, taken(new, self.shape, "assign", self).value, source.capture().place)

    def assign_add(self, value: Any) -> Update:
        """An update: the variable grows by ``value``, which broadcasts to its shape."""
        return self.assign(self + value)

    def assign_sub(self, value: Any) -> Update:
        """An update: ``value``, which broadcasts to the variable's shape, is taken from it."""
        return self.assign(self - value)

    @property
    def requires_grad(self) -> bool:
        """Whether steps that are built from now on train the variable: ``trainable``."""
        return bool(self.trainable)

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        if flag and not self.dtype.is_float:
            raise DTypeError(
                f"requires_grad: variable {self.name!r} is {self.dtype}; only floating types can be trained"
            )
        self.trainable = bool(flag)

    def requires_grad_(self, requires_grad: bool = True) -> Variable:
        """Set ``requires_grad``. Returns the variable."""
        self.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        """Forget the symbolic gradient that ``backward`` left."""
        self.grad = None

    def __repr__(self) -> str:
        return f"Variable({self.name}, {self.type})"


def _over(variable: Variable, slot: StateSlot) -> Variable:
    """Let an object be the variable of a slot that has none."""
    Tensor.__init__(variable, slot.read())
    variable.slot = slot
    variable.grad = None
    adopt(variable)
    return variable


def variable_of(slot: StateSlot) -> Variable:
    """The variable of a slot."""
    found = wrap(slot.read())
    assert isinstance(found, Variable)
    return found


def read_variables(nodes: Iterable[Node]) -> list[Variable]:
    """The variables that nodes read, in the nodes' order."""
    return [variable_of(slot) for slot in read_slots(nodes)]


def holder_of(function: str, variables: Sequence[Variable]) -> Any:
    """The session that has the values of variables: the open one that changed one of them last, else an open one that
    uses them; None where no session has changed them.

    Raises:
        SessionError: only sessions that are closed changed them.
    """
    changes = [(when, session()) for v in variables for session, when in v.changes.items()]
    still_open = [(when, session) for when, session in changes if session is not None and not session.closed]
    if still_open:
        return max(still_open, key=lambda one: one[0])[1]
    if changes:
        changed = next(v for v in variables if v.changes)
        raise SessionError(
            f"{function}: {changed.name!r} was changed in a session that is closed, and its initial value is another "
            f"one; call sess.commit() before the session closes, or pass session= while it is open\n"
            f"  the variable was made at {changed.place}"
        )
    using = [v.live() for v in variables if v.live is not None]
    return next((session for session in using if session is not None and not session.closed), None)


def _check_initial(initial: Tensor) -> None:
    for node in toposort([initial.value]):
        if isinstance(node.op, Placeholder):
            raise GraphError(
                f"Variable: the initial value depends on a placeholder ({describe(node.output())}); feed it to a run "
                f"and use sess.set_value instead"
            )
