"""Texts of functions, from when schedules are compared by them until a program is made of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from graphcore.kernel.ir import Kernel

__all__ = ["Texts"]


class Texts:
    """What was written for a device's kernels, each once: kernels that differ by name and origin only share it."""

    def __init__(self) -> None:
        self._written: dict[Hashable, str] = {}

    def of(self, kernel: Kernel, family: str, choices: Hashable, write: Callable[[], str]) -> str:
        """The text of a kernel's function.

        Args:
            kernel: which kernel.
            family, choices: which family of schedules writes it, and what was chosen.
            write: writes it.
        """
        inside = (kernel.params, kernel.axes, kernel.stores, kernel.kind, kernel.form, kernel.scratch, kernel.wide)
        key = (family, choices, inside)
        found = self._written.get(key)
        if found is None:
            found = self._written[key] = write()
        return found

    def forget(self) -> None:
        """Drop all of them: a program is made, and its text can be written again."""
        self._written.clear()
