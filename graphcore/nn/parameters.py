"""Parameters and buffers made from values, and containers of parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graphcore.api.variable import Variable
from graphcore.base.errors import UsageError
from graphcore.nn.module import Module

__all__ = ["Buffer", "Parameter", "ParameterDict", "ParameterList"]


class _Parameters(type):
    """Makes variables, and takes every trainable one for a parameter."""

    def __call__(cls, data: Any, requires_grad: bool = True, *, name: str | None = None) -> Variable:
        return Variable(data, requires_grad, name)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Variable) and instance.trainable


class Parameter(metaclass=_Parameters):
    """``Parameter(data, requires_grad=True, *, name=None)`` is a trainable ``Variable``; a module that it is assigned
    to has it among its parameters.

    Args:
        data: an array, number, initializer of ``gc.init``, or tensor that needs no feed (evaluated at first use).
        requires_grad: whether optimizers update it.
        name: shown in messages until a module owns it.

    >>> Parameter([1.0, 2.0]).trainable
    True
    """


class _Buffers(type):
    """Makes variables, and takes every one that is not trained for a buffer."""

    def __call__(cls, data: Any, persistent: bool = True, *, name: str | None = None) -> Variable:
        variable = Variable(data, False, name)
        variable.persistent = bool(persistent)
        return variable

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Variable) and not instance.trainable


class Buffer(metaclass=_Buffers):
    """``Buffer(data, persistent=True, *, name=None)`` is a ``Variable`` that is not trained; a module that it is
    assigned to has it among its buffers.

    Args:
        data: as for ``Parameter``.
        persistent: whether checkpoints hold it.
        name: shown in messages until a module owns it.

    >>> Buffer([1.0, 2.0]).trainable
    False
    """


def _parameter(container: Module, value: Any) -> Variable:
    """A variable as it is, another value as a parameter."""
    if isinstance(value, Module):
        raise UsageError(f"{type(container).__name__} takes parameters, got a {type(value).__name__}")
    return value if isinstance(value, Variable) else Variable(value)


class ParameterList(Module):
    """A list of parameters that the surrounding module sees, under their positions.

    Args:
        values: variables, or what ``Parameter`` takes.

    >>> sorted(ParameterList([[1.0], [2.0]]).state_dict())
    ['0', '1']
    """

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self.extend(values)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Variable]:
        return (getattr(self, name) for name in list(self._places))

    def __getitem__(self, index: int) -> Variable:
        """The parameter at a position."""
        return list(self)[index]

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, list(self._places)[index], _parameter(self, value))

    def append(self, value: Any) -> ParameterList:
        """Add a parameter at the end. Returns the list."""
        setattr(self, str(len(self)), _parameter(self, value))
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Add parameters at the end. Returns the list."""
        for value in values:
            self.append(value)
        return self


class ParameterDict(Module):
    """A dictionary of parameters that the surrounding module sees, under their keys.

    Args:
        values: keys, without dots, to variables or what ``Parameter`` takes.

    >>> sorted(ParameterDict({"scale": [1.0]}).state_dict())
    ['scale']
    """

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()) -> None:
        self.update(values)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._places))

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> Variable:
        """The parameter of a key.

        Raises:
            KeyError: there is none.
        """
        if key not in self._places:
            raise KeyError(key)
        found: Variable = getattr(self, key)
        return found

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self._places:
            setattr(self, key, _parameter(self, value))
        else:
            self._add(key, _parameter(self, value), self._parameters, Variable)

    def __delitem__(self, key: str) -> None:
        delattr(self, key)

    def keys(self) -> Iterable[str]:
        """The keys, in the order of their making."""
        return list(self._places)

    def values(self) -> Iterable[Variable]:
        """The parameters."""
        return [self[key] for key in self]

    def items(self) -> Iterable[tuple[str, Variable]]:
        """The keys with their parameters."""
        return [(key, self[key]) for key in self]

    def update(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Add parameters, or replace those of the same keys."""
        for key, value in values.items() if isinstance(values, Mapping) else values:
            self[key] = value
