"""What schedules kernels, and the C signature that all families share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from backends.codegen.cnames import counter_type, memory_type
from backends.codegen.device_model import DeviceModel
from backends.codegen.language import Language
from graphcore.base.shapes import Dim
from graphcore.kernel.ir import Kernel, symbolic_sizes
from graphcore.plan.backend import Piece
from graphcore.plan.target import Reject

__all__ = ["NAME", "Scheduler", "function", "signature", "sizes_of"]

NAME = "@NAME@"  # stands for the function's name, which is given when equal texts have been merged


class Scheduler(Protocol):
    """Says how a kernel is run: with which family, or as which other kernels."""

    name: str

    def schedule(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[Piece] | Reject:
        """The pieces that run a kernel, or why not."""


def sizes_of(kernel: Kernel) -> dict[Dim, str]:
    """C names of the symbolic extents, in the order of the launch's arguments."""
    return {d: f"n{i}" for i, d in enumerate(symbolic_sizes(kernel))}


def signature(language: Language, kernel: Kernel, extra: Sequence[str] = ()) -> str:
    """The parameter list without task numbers: pointers in order, then symbolic extents."""
    written = kernel.written()
    parts = []
    for i, p in enumerate(kernel.params):
        parts.append(f"{language.pointer(memory_type(p.dtype), const=i not in written)} p{i}")
    parts += [f"const {counter_type(kernel)} {n}" for n in sizes_of(kernel).values()]
    return ", ".join([*parts, *extra])


def function(language: Language, kernel: Kernel, lines: Sequence[str], extra: Sequence[str] = ()) -> str:
    """A kernel's function, to be named.

    Args:
        language: what it is written in.
        kernel: whose parameters and symbolic extents it takes.
        lines: its body.
        extra: parameters behind the kernel's own, before the task numbers.
    """
    body = "\n".join(f"  {line}" for line in lines)
    parameters = signature(language, kernel, extra)
    return f"GC_NOINLINE static void {NAME}({parameters}, const int task, const int tasks) {{\n{body}\n}}\n"
