"""What a template is, and the C signature that all of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from backends.base import Piece
from backends.opencl.cnames import memory_type
from backends.opencl.emit import Dialect
from graphcore.kernel.ir import Kernel, symbolic_sizes
from graphcore.shapes import Dim, Extent
from graphcore.target import Reject

__all__ = ["Template", "signature", "sizes_of", "NAME"]

NAME = "@NAME@"  # stands for the function's name, which is given when equal texts have been merged


class Template(Protocol):
    """Turns kernels into C functions ``void NAME(parameters, sizes, int task, int tasks)``."""

    name: str

    def schedule(self, kernel: Kernel, dialect: Dialect, hints: Mapping[str, int]) -> Sequence[Piece] | Reject:
        """The pieces that run a kernel, or why this template does not."""

    def emit(self, kernel: Kernel, config: Any, dialect: Dialect) -> str:
        """The function's text, named ``NAME``."""

    def arguments(self, kernel: Kernel, config: Any) -> list[Extent]:
        """Extents behind the function's int parameters, in order."""

    def tasks(self, kernel: Kernel, config: Any, dialect: Dialect, sizes: Mapping[str, int]) -> int:
        """How many independent tasks to start for these sizes."""


def sizes_of(kernel: Kernel) -> dict[Dim, str]:
    """C names of the symbolic extents, in the order of the launch's arguments."""
    return {d: f"n{i}" for i, d in enumerate(symbolic_sizes(kernel))}


def signature(kernel: Kernel, extra: Sequence[str] = ()) -> str:
    """The parameter list without task numbers: pointers in order, then symbolic extents."""
    written = kernel.written()
    parts = []
    for i, p in enumerate(kernel.params):
        qualifier = "" if i in written else "const "
        parts.append(f"__global {qualifier}{memory_type(p.dtype)}* p{i}")
    parts += [f"const int {n}" for n in sizes_of(kernel).values()]
    return ", ".join([*parts, *extra])
