"""Modules: trees of layers that own variables."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphcore.api.operands import training_flag
from graphcore.api.random import own_generator
from graphcore.api.tensor import Tensor
from graphcore.api.variable import Variable, holder_of
from graphcore.base import dtypes, source
from graphcore.base.dtypes import as_dtype
from graphcore.base.errors import DTypeError, FormatError, SessionError, ShapeError, UsageError
from graphcore.base.notices import BuildWarning, DeviceWarning, warn_of_building, warn_once
from graphcore.base.shapes import format_shape
from graphcore.base.signposts import DEVICE
from graphcore.base.source import name_scope
from graphcore.ir.graph import Graph, read_slots, toposort
from graphcore.ir.interpret import interpret

__all__ = ["IncompatibleKeys", "Module"]

if TYPE_CHECKING:
    from typing import Self


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict(strict=False)`` could not match."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base of layers and models: assign variables and modules to attributes, define ``forward``, call the module.

    A trainable ``Variable`` becomes a parameter, another one a buffer. ``train()`` and ``eval()`` act on what is built
    afterwards.

    Attributes:
        training: whether dropout and batch normalisation build their training form.

    >>> class Scale(Module):
    ...     def __init__(self):
    ...         self.factor = Variable(2.0)
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> [name for name, _ in Scale().named_parameters()]
    ['factor']
    """

    training: bool
    _parameters: dict[str, Variable]
    _buffers: dict[str, Variable]
    _modules: dict[str, Module]
    _places: dict[str, str]
    _scopes: tuple[str, ...]

    def __new__(cls, *args: Any, **options: Any) -> Self:
        # Here and not in __init__, so that a subclass need not call super().__init__() first.
        self = super().__new__(cls)
        for name, value in (
            ("training", True),
            ("_parameters", {}),
            ("_buffers", {}),
            ("_modules", {}),
            ("_places", {}),
            ("_owner", None),
            ("_scopes", source.current_scope()),
        ):
            object.__setattr__(self, name, value)
        return self

    def forward(self, *args: Any, **options: Any) -> Any:
        """The module's outputs; subclasses define it.

        Raises:
            UsageError: the subclass has no ``forward``.
        """
        raise UsageError(f"{type(self).__name__} does not define forward(self, ...)")

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Build ``forward`` in a name scope of this module.

        Warns once a line that gives an outermost module an array, or calls it again and again on the same.
        """
        if self._parent() is None:
            self._warn_of_calling((*args, *options.values()))
        with name_scope(self._scope()):
            return self.forward(*args, **options)

    def _warn_of_calling(self, given: tuple[Any, ...]) -> None:
        what = f"the call of {type(self).__name__}"
        if any(not isinstance(value, Tensor) and hasattr(value, "__array__") for value in given):
            warn_once(
                BuildWarning,
                "array",
                f"{what} is given an array, which becomes a constant of the program; feed a placeholder: build y = "
                f"model(x) once, and run sess.run(y, {{x: array}})",
            )
        keys = tuple(value.value if isinstance(value, Tensor) else type(value) for value in given)
        warn_of_building(what, hash((id(self), self.training, keys)))

    # -- registration -------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        """Plain assignment registers variables and modules, and replaces what had the name before."""
        group: Any = None
        if isinstance(value, Variable):
            group = self._parameters if value.trainable else self._buffers
        elif isinstance(value, Module):
            group = self._modules
        if name in self._places:
            self._forget(name, group)
        if group is not None:
            self._register(name, value, group)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        self._forget(name)
        object.__delattr__(self, name)

    def register_parameter(self, name: str, variable: Variable | None) -> None:
        """Add a parameter under a name that is not taken (a frozen variable too); None reserves the name.

        Raises:
            UsageError: the name is taken; the message shows both lines.
        """
        self._add(name, variable, self._parameters, Variable)

    def register_buffer(self, name: str, variable: Any, persistent: bool = True) -> None:
        """Add a value that is not trained: a variable, or an array that becomes one; None reserves the name.

        Args:
            name: of the attribute.
            variable: the value.
            persistent: whether checkpoints hold it.

        Raises:
            UsageError: the name is taken; the message shows both lines.
        """
        if variable is not None and not isinstance(variable, Variable):
            variable = Variable(variable, trainable=False, name=name)
        if isinstance(variable, Variable) and not persistent:
            variable.persistent = False
        self._add(name, variable, self._buffers, Variable)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under a name that is not taken.

        Raises:
            UsageError: the name is taken; the message shows both lines.
        """
        self._add(name, module, self._modules, Module)

    def _add(self, name: str, value: Any, group: dict[str, Any], kind: type) -> None:
        if value is not None and not isinstance(value, kind):
            raise UsageError(f"{type(self).__name__}: {name!r} must be a {kind.__name__}, got {type(value).__name__}")
        if name in self._places:
            raise UsageError(
                f"{type(self).__name__} already has {name!r}:\n  first at {self._places[name]}\n  again at "
                f"{source.capture().place}\n"
                f"  choose another name, or assign to the attribute to replace it"
            )
        if hasattr(self, name):
            raise UsageError(f"{type(self).__name__}: {name!r} is the name of another attribute")
        if value is not None:
            self._register(name, value, group)
        object.__setattr__(self, name, value)

    def _register(self, name: str, value: Any, group: dict[str, Any]) -> None:
        if not name or "." in name:
            raise UsageError(
                f"{type(self).__name__}: the name {name!r} must be non-empty and without dots, which "
                "separate the parts of a path"
            )
        if isinstance(value, Module):
            if self in value.modules():
                raise UsageError(f"{type(self).__name__}: assigning {name!r} would make the module contain itself")
            if value._parent() is None:  # a module shared by two parents keeps its first path
                object.__setattr__(value, "_owner", (weakref.ref(self), name))
        group[name] = value
        self._places[name] = source.capture().place
        self._update_hints()

    def _forget(self, name: str, kept: dict[str, Any] | None = None) -> None:
        """Unregister a name; in the group ``kept`` it keeps its place for what replaces it."""
        old = self._modules.get(name)
        if old is not None and old._parent() is self:
            object.__setattr__(old, "_owner", None)
        groups: tuple[dict[str, Any], ...] = (self._parameters, self._buffers, self._modules)
        for group in groups if kept is not None else (*groups, self._places):
            if group is not kept:
                group.pop(name, None)

    def _parent(self) -> Module | None:
        owner = self._owner  # type: ignore[attr-defined]
        return None if owner is None else owner[0]()

    def _root(self) -> Module:
        module = self
        while (parent := module._parent()) is not None:
            module = parent
        return module

    def _update_hints(self) -> None:
        """Checkpoint keys are paths from the outermost module, below the name scopes in which that was made."""
        root = self._root()
        for key, variable in root._named("_parameters", "_buffers"):
            variable.key_hint = "/".join((*root._scopes, key))

    def _scope(self) -> str:
        kind = type(self).__name__
        if self._parent() is None:
            return kind
        name: str = self._owner[1]  # type: ignore[attr-defined]
        return f"{kind}_{name}" if name.isdigit() else name

    # -- walking the tree ---------------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct submodules with their names, each once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """Direct submodules."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (under ``prefix``) and all below it with their paths, each once, parents first."""
        seen: set[int] = set()
        pending: list[tuple[str, Module]] = [(prefix, self)]
        while pending:
            path, module = pending.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            pending.extend((_join(path, name), child) for name, child in reversed(module._modules.items()))

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def _named(self, *groups: str, prefix: str = "") -> Iterator[tuple[str, Variable]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix):
            for group in groups:
                for name, variable in getattr(module, group).items():
                    if id(variable) not in seen:
                        seen.add(id(variable))
                        yield _join(path, name), variable

    def _saved(self) -> Iterator[tuple[str, Variable]]:
        """What checkpoints hold, by path."""
        named = self._named("_parameters", "_buffers")
        return ((path, variable) for path, variable in named if variable.persistent)

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Variable]]:
        """Parameters with their paths such as ``"encoder.0.weight"``; a shared one once, under its first path."""
        return self._named("_parameters", prefix=prefix)

    def parameters(self) -> Iterator[Variable]:
        """The parameters (frozen ones too)."""
        return (variable for _, variable in self.named_parameters())

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Variable]]:
        """Variables that are saved but not trained, with their paths."""
        return self._named("_buffers", prefix=prefix)

    def buffers(self) -> Iterator[Variable]:
        """Variables that are saved but not trained."""
        return (variable for _, variable in self.named_buffers())

    # -- modes --------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """What is built from now on is for training. Returns the module."""
        training = training_flag(f"{type(self).__name__}.train", mode)
        for module in self.modules():
            object.__setattr__(module, "training", training)
        return self

    def eval(self) -> Self:
        """What is built from now on is for evaluation. Returns the module."""
        return self.train(False)

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call ``function`` on every module below this one and then on this one. Returns the module."""
        for module in reversed(list(self.modules())):
            function(module)
        return self

    def freeze(self) -> Self:
        """Optimizers that are built from now on leave the parameters alone. Returns the module."""
        for variable in self.parameters():
            variable.trainable = False
        return self

    def unfreeze(self) -> Self:
        """Undo ``freeze``. Returns the module."""
        for variable in self.parameters():
            variable.trainable = variable.dtype.is_float
        return self

    def to(self, *targets: Any, **options: Any) -> Self:
        """Give floating parameters and buffers another element type, before the module is called or a session uses it.

        A device is for a session to name: warns once a line. Returns the module.

        Raises:
            SessionError: an open session uses a variable already.
            DTypeError: no floating type.
        """
        for target in (*targets, *options.values()):
            if isinstance(target, (bool, type(None))):
                continue
            if _is_device(target):
                warn_once(DeviceWarning, "device", f"{type(self).__name__}.to(...) does nothing: {DEVICE}")
                continue
            for _, variable in self._named("_parameters", "_buffers"):
                if variable.dtype.is_float:
                    variable.set_dtype(target)
        return self

    def half(self) -> Self:
        """``to("float16")``. Returns the module."""
        return self.to("float16")

    def float(self) -> Self:
        """``to("float32")``. Returns the module."""
        return self.to("float32")

    def double(self) -> Self:
        """``to("float64")``. Returns the module."""
        return self.to("float64")

    def bfloat16(self) -> Self:
        """``to("bfloat16")``. Returns the module."""
        return self.to("bfloat16")

    def cuda(self, device: Any = None) -> Self:
        """The module itself: devices are for sessions. Warns once a line."""
        return self.to("cuda")

    def cpu(self) -> Self:
        """The module itself: devices are for sessions. Warns once a line."""
        return self.to("cpu")

    # -- state --------------------------------------------------------------------------------------------------------

    def state_dict(self, prefix: str = "", *, session: Any = None) -> dict[str, np.ndarray]:
        """The values of parameters and buffers by path.

        They are those of the open session that changed the module last, or else uses it; before any session does, the
        initial ones. Initializers are drawn then, as a session would that takes the seed of ``gc.random.seed`` (of
        modules that are alike each draws other numbers), and the drawn arrays become the initial values, so that
        sessions start from what was returned.

        Args:
            prefix: of the paths.
            session: whose values instead.

        Raises:
            SessionError: the module was changed in a session that is closed, and was not committed.
            UsageError: an initial value is a tensor that is drawn or depends on variables; only a session can evaluate
                it.
        """
        own = list(self._saved())
        held = holder_of("state_dict", [variable for _, variable in own]) if session is None else session
        if held is not None:
            return {_join(prefix, key): value for key, value in held.state_dict(self).items()}
        return {_join(prefix, key): _initial_array(key, variable).copy() for key, variable in own}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Set initial values by path, before a session uses the variables. Nothing changes if it raises.

        Args:
            state_dict: path to array; floating types are cast to the variable's, other types must be equal.
            strict: whether every path must be there and no other.

        Returns:
            The keys that the dictionary lacks and those that the module lacks.

        Raises:
            SessionError: an open session has used a variable already, so an initial value would come too late.
            FormatError: with ``strict``, keys are missing or unexpected.
            ShapeError, DTypeError: an array does not fit; the message names the key.
        """
        own = dict(self._saved())
        for key, variable in own.items():
            session = variable.live() if variable.live is not None else None
            if session is not None and not session.closed:
                raise SessionError(
                    f"load_state_dict: {key!r} has a value in an open session already, which its initial value does "
                    f"not "
                    f"change; use sess.load_state_dict(state, module=module)"
                    f"\n  the variable was made at {variable.place}"
                )
        missing = [key for key in own if key not in state_dict]
        unexpected = [key for key in state_dict if key not in own]
        if strict and (missing or unexpected):
            raise FormatError(
                f"load_state_dict: the keys do not match {type(self).__name__}\n  missing: {_listed(missing)}\n"
                f"  unexpected: {_listed(unexpected)}\n  pass strict=False to load what matches"
            )
        arrays = {
            key: _checked_array(key, variable, state_dict[key]) for key, variable in own.items() if key in state_dict
        }
        for key, array in arrays.items():
            own[key].set_initial(array)
        return IncompatibleKeys(missing, unexpected)

    # -- text ---------------------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What stands between the parentheses of the module's ``repr``; subclasses define it."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): " + repr(module).replace("\n", "\n  ") for name, module in self._modules.items()]
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        body = "".join(f"\n  {line}" for line in ([extra] if extra else []) + lines)
        return f"{type(self).__name__}({body}\n)"


def _is_device(target: Any) -> bool:
    """Whether something names a device, as strings and PyTorch's devices do, and no element type."""
    try:
        as_dtype(target)
    except DTypeError:
        return True
    return False


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _listed(keys: list[str], limit: int = 10) -> str:
    shown = ", ".join(map(repr, keys[:limit]))
    return (shown or "none") + (f" and {len(keys) - limit} more" if len(keys) > limit else "")


def _initial_array(key: str, variable: Variable) -> np.ndarray:
    initial = variable.initial
    if isinstance(initial, Tensor):
        if read_slots(toposort([initial.value])):
            raise UsageError(
                f"state_dict: the initial value of {key!r} is drawn or depends on other variables, made at "
                f"{variable.place}; use sess.state_dict(module)"
            )
        variable.set_initial(interpret(Graph((initial.value,)), {})[0])
    if hasattr(initial, "sample"):
        variable.set_initial(initial.sample(own_generator(variable)))
    return np.asarray(variable.initial)


def _checked_array(key: str, variable: Variable, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.shape != variable.shape:
        hint = "; the module has another size" if re.search(r"\.?(weight|bias)$", key) else ""
        raise ShapeError(
            f"load_state_dict: {key!r} has shape {format_shape(variable.shape)}, the given array "
            f"{format_shape(array.shape)}{hint}\n"
            f"  the variable was made at {variable.place}"
        )
    given = as_dtype(array.dtype)
    if (
        given != variable.dtype
        and not (given.is_float and variable.dtype.is_float)
        and not _widens(given, variable.dtype)
    ):
        raise DTypeError(
            f"load_state_dict: {key!r} is {variable.dtype}, the given array {given}; cast it with "
            f".astype('{variable.dtype}')\n"
            f"  the variable was made at {variable.place}"
        )
    return array


def _widens(given: dtypes.DType, wanted: dtypes.DType) -> bool:
    """Whether every value of an integer type is one of another."""
    return given.is_integer and wanted.is_integer and bool(np.can_cast(given.storage, wanted.storage, "safe"))
