"""The C signature that all families share."""

from __future__ import annotations

from collections.abc import Sequence

from backends.codegen.cnames import counter_type, memory_type
from backends.codegen.language import Language, Space
from graphcore.base.shapes import Dim
from graphcore.kernel.ir import Kernel, symbolic_sizes

__all__ = ["NAME", "function", "signature", "sizes_of"]

NAME = "@NAME@"  # stands for the function's name, which is given when equal texts have been merged


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


def function(
    language: Language, kernel: Kernel, lines: Sequence[str], extra: Sequence[str] = (), pool: bool = False
) -> str:
    """A kernel's function, to be named.

    Args:
        language: what it is written in.
        kernel: whose parameters and symbolic extents it takes.
        lines: its body.
        extra: parameters behind the kernel's own, before the task numbers.
        pool: whether it takes local memory of that name.
    """
    body = "\n".join(f"  {line}" for line in lines)
    parameters = signature(language, kernel, extra)
    local = f", {language.pointer('char', Space.LOCAL)} pool" if pool else ""
    return f"GC_NOINLINE static void {NAME}({parameters}, const int task, const int tasks{local}) {{\n{body}\n}}\n"
