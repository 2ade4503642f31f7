"""What a template is, and the C signature that all of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from backends.codegen.cnames import counter_type, memory_type
from backends.codegen.device_model import DeviceModel
from backends.codegen.language import Language
from graphcore.base.shapes import Dim, Extent
from graphcore.kernel.ir import Kernel, symbolic_sizes
from graphcore.plan.backend import Piece
from graphcore.plan.costs import Work
from graphcore.plan.target import Reject

__all__ = ["NAME", "GroupTemplate", "Scheduler", "Template", "signature", "sizes_of"]

NAME = "@NAME@"  # stands for the function's name, which is given when equal texts have been merged


class Scheduler(Protocol):
    """Says how a kernel is run: with which template, or as which other kernels."""

    name: str

    def schedule(self, kernel: Kernel, model: DeviceModel, hints: Mapping[str, int]) -> Sequence[Piece] | Reject:
        """The pieces that run a kernel, or why not."""


class Template(Scheduler, Protocol):
    """Turns kernels into C functions ``void NAME(parameters, sizes, int task, int tasks)``; sizes of wide kernels are
    long.

    On GPUs a task is a work item and ``tasks`` the work items of the launch, though ``Template.tasks`` counts groups
    there.
    """

    def emit(self, kernel: Kernel, config: Any, model: DeviceModel) -> str:
        """The function's text, named ``NAME``."""

    def arguments(self, kernel: Kernel, config: Any) -> list[Extent]:
        """Extents behind the function's int parameters, in order."""

    def tasks(self, kernel: Kernel, config: Any, model: DeviceModel, sizes: Mapping[str, int]) -> int:
        """How many independent tasks to start for these sizes."""

    def work(self, kernel: Kernel, config: Any) -> Work:
        """What all tasks do together, for any sizes."""


class GroupTemplate(Template, Protocol):
    """A template whose tasks are whole work-groups (GPUs): its functions end in a parameter ``pool``, local
    memory as chars.

    ``tasks`` counts work-groups. All work items of a group call the function, which may hold barriers; the caller puts
    one after it.
    """

    def local_bytes(self, kernel: Kernel, config: Any, model: DeviceModel) -> int:
        """Bytes of local memory behind ``pool``."""


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
