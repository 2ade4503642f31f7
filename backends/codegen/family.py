"""What a family of schedules is: code generation for one sort of kernel."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from backends.codegen.device_model import DeviceModel
from backends.codegen.template import sizes_of
from graphcore.base.errors import CompileError
from graphcore.base.shapes import Extent
from graphcore.kernel.index import Axis
from graphcore.kernel.ir import Kernel
from graphcore.kernel.whole_forms import WholeForm
from graphcore.plan.backend import Piece
from graphcore.plan.costs import Work
from graphcore.plan.plan import Choices
from graphcore.plan.target import Reject, Sharing

__all__ = ["Family"]


class Family:
    """Turns kernels of one sort into C functions ``void NAME(parameters, sizes, int task, int tasks)``; sizes of wide
    kernels are long.

    A family looks at a kernel and either says why it does not take it or what can be chosen. Choices are frozen data:
    with the kernel they say everything about the function. On GPUs a task is a work item and ``tasks`` the work items
    of the launch, though ``Family.tasks`` counts work-groups there.

    Attributes:
        name: in plans; no two families share one.
        version: what tells this family's texts and choices from those of others of its name, such as a package's
            version; graphcore's own leave it empty.
        wide: whether its functions count in 64 bits where a kernel's loops must.
        flattens: whether its functions may count the points of all parallel axes together.
        takes: forms without loops that it makes code for; it is not asked about kernels of others.
        choices: the class of what can be chosen, by which plans in files are read; a frozen dataclass of plain data.
        build_weight: how many times longer than others' a byte of its text keeps the runtime's compiler busy.
    """

    name: str
    version: ClassVar[str] = ""
    wide: ClassVar[bool] = False
    flattens: ClassVar[bool] = True
    takes: ClassVar[tuple[type[WholeForm], ...]] = ()
    choices: ClassVar[type[Choices] | None] = None
    build_weight: ClassVar[float] = 1.0

    def serves(self, device: DeviceModel) -> bool:
        """Whether the family makes code for such devices; it is not asked about kernels of others."""
        return True

    def candidates(self, kernel: Kernel, device: DeviceModel, hints: Mapping[str, int]) -> Iterable[Choices] | Reject:
        """What can be chosen for a kernel, the best guess first; or why the family does not take it.

        Args:
            kernel: a verified kernel.
            device: what it will run on.
            hints: the sizes of symbolic extents that it is compiled for; it must be right for any others too.
        """
        raise NotImplementedError

    def pieces(self, kernel: Kernel, choices: Any, device: DeviceModel, hints: Mapping[str, int]) -> Sequence[Piece]:
        """The launches that compute a kernel with these choices: the kernel itself, unless a family needs helpers or
        workspaces."""
        return [Piece(kernel, self.name, choices, tuple(range(len(kernel.params))))]

    def schedule(self, kernel: Kernel, device: DeviceModel, hints: Mapping[str, int]) -> Sequence[Piece] | Reject:
        """The launches that compute a kernel with the best guess; or why not.

        Raises:
            CompileError: ``candidates`` is empty.
        """
        if not self.serves(device):
            return Reject("it is made for other devices")
        found = self.candidates(kernel, device, hints)
        if isinstance(found, Reject):
            return found
        best = next(iter(found), None)
        if best is None:
            raise CompileError(
                f"the family {self.name} offers no choices for {kernel.name}: give one, or return Reject(reason)"
            )
        return self.pieces(kernel, best, device, hints)

    def order_of_sums(self, kernel: Kernel, choices: Any) -> Hashable:
        """What the order of a kernel's sums follows from: choices for which this is equal give equal bits, so that time
        may decide between them. By default that is known of equal choices only."""
        known: Hashable = choices
        return known

    def emit(self, kernel: Kernel, choices: Any, device: DeviceModel) -> str:
        """The function's text, named ``NAME``."""
        raise NotImplementedError

    def text(self, kernel: Kernel, choices: Any, device: DeviceModel) -> str:
        """What ``emit`` writes, which is kept until a program is made of it."""
        return device.texts.of(kernel, self.name, choices, lambda: self.emit(kernel, choices, device))

    def bodies(self, kernel: Kernel, choices: Any) -> float:
        """Roughly how the texts of several choices for a kernel compare in length: where their loops are written out in
        several bodies, the length of these. Choices whose number is not smaller are not tried for less text."""
        return 1.0

    def arguments(self, kernel: Kernel, choices: Any) -> list[Extent]:
        """Extents behind the function's int parameters, in order."""
        return list(sizes_of(kernel))

    def tasks(self, kernel: Kernel, choices: Any, device: DeviceModel) -> Extent:
        """How many independent tasks to start, for any sizes; where nothing is stored none are."""
        raise NotImplementedError

    def work(self, kernel: Kernel, choices: Any) -> Work:
        """What all tasks do together, for any sizes."""
        raise NotImplementedError

    def blocks(self, kernel: Kernel, choices: Any) -> Mapping[Axis, int | None] | None:
        """The axes that a block of the work sums over in stores of mode "add", which come last, each with the block's
        extent (None: all of it); None where an epilogue adds up nothing. Every block has a place of its own."""
        return None

    def sharing(self, kernel: Kernel, choices: Any, device: DeviceModel, sizes: Mapping[str, int]) -> Sharing | None:
        """What parts of the kernel's reductions, which are all over the same axes, would be good for; None where the
        family shares out sums by itself."""
        return None

    def orders(self, kernel: Kernel, choices: Any, device: DeviceModel, results: int, sizes: Mapping[str, int]) -> bool:
        """Whether sums of every row's own points, after this kernel has put the points in the order of their rows, take
        less than comparing the row of each of so many results with that of every point."""
        return False

    def local_bytes(self, kernel: Kernel, choices: Any, device: DeviceModel) -> int | None:
        """Bytes of local memory of a function whose tasks are whole work-groups; None where work items do not work
        together.

        Such a function ends in a parameter ``pool``, local memory as chars. All work items of a group call it, it may
        hold barriers, and the caller puts one after it.
        """
        return None
