"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, overload

from graphcore.base.errors import UsageError
from graphcore.nn.module import Module

__all__ = ["ModuleList", "Sequential"]


class _Numbered(Module):
    """A list of submodules named by their positions."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self._modules.values()))

    def _make(self, modules: list[Module]) -> _Numbered:
        return type(self)(*modules)

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> _Numbered: ...

    def __getitem__(self, index: int | slice) -> Module:
        """The module at a position, or the same kind of container over a slice of them."""
        modules = list(self._modules.values())
        return self._make(modules[index]) if isinstance(index, slice) else modules[index]

    def __setitem__(self, index: int, module: Module) -> None:
        names = list(self._modules)
        setattr(self, names[index], _checked(self, module))

    def append(self, module: Module) -> Any:
        """Add a module at the end. Returns the container."""
        self.add_module(str(len(self)), _checked(self, module))
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add modules at the end. Returns the container."""
        for module in modules:
            self.append(module)
        return self


class Sequential(_Numbered):
    """Modules one after the other.

    Args:
        modules: the modules, or one mapping of names to modules.

    >>> from graphcore import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> [key for key, _ in model.named_parameters()]
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, _checked(self, module))
        else:
            self.extend(modules)  # type: ignore[arg-type]

    def forward(self, x: Any) -> Any:
        """``x`` through all modules."""
        for module in self:
            x = module(x)
        return x


class ModuleList(_Numbered):
    """A list of modules whose parameters the surrounding module sees.

    Args:
        modules: the modules.

    >>> from graphcore import nn
    >>> len(nn.ModuleList([nn.Linear(4, 4) for _ in range(3)]))
    3
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)

    def _make(self, modules: list[Module]) -> ModuleList:
        return ModuleList(modules)

    def forward(self, *args: Any, **options: Any) -> Any:
        """A list cannot be called.

        Raises:
            UsageError: always.
        """
        raise UsageError("a ModuleList cannot be called; loop over it, or use nn.Sequential")


def _checked(container: Module, module: Any) -> Module:
    if not isinstance(module, Module):
        hint = "; wrap a function in a Module" if callable(module) else ""
        raise UsageError(f"{type(container).__name__} takes modules, got {type(module).__name__}{hint}")
    return module
