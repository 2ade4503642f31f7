"""What the session needs of a backend, and how backends are found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from graphcore.base.errors import DeviceError
from graphcore.base.lazy import load_module
from graphcore.base.shapes import Extent
from graphcore.ir.graph import Graph
from graphcore.ir.node import Node
from graphcore.ir.op import Kind
from graphcore.ir.state import StateSlot
from graphcore.plan.costs import NO_WORK, Work
from graphcore.plan.plan import Placed, Plan
from graphcore.plan.target import Target

__all__ = ["Backend", "Executable", "MemoryInfo", "Piece", "backend_module", "open_backend", "refuse_foreign"]


@dataclass(frozen=True)
class Piece:
    """One kernel that a target's ``schedule`` made of a kernel.

    Attributes:
        kernel: its IR.
        family, choices: which family of schedules emits it, and what it chose.
        params: what is behind its parameters: positions in the original kernel's parameters, workspaces counted after
            them.
        workspace: ``(number, shape, dtype)`` of the workspaces that the piece names.
        helper: packing or partial results, counted apart from the plan's kernels.
        flops, nbytes: arithmetic and traffic for the hinted sizes, as reports count them.
        tasks: how many tasks share it.
        arguments: what its function is given behind its parameters.
        work: what the cost model is asked about. Tasks, arguments and work are for any sizes.
        flattens: whether its function may count the points of all parallel axes together.
        elementwise_order: whether every element is stored right after what it needs has been loaded: a result may then
            lie over an operand of which each element is loaded only for the one that takes its place.
    """

    kernel: Any
    family: str
    choices: Any
    params: tuple[int, ...]
    workspace: tuple[tuple[int, Any, Any], ...] = ()
    helper: bool = False
    flops: float = 0.0
    nbytes: float = 0.0
    tasks: Extent = 1
    arguments: tuple[Extent, ...] = ()
    work: Work = NO_WORK
    flattens: bool = True
    elementwise_order: bool = False


@dataclass(frozen=True)
class MemoryInfo:
    """What a session holds on its device, in bytes, and what it cost to get there.

    Attributes:
        variables, constants, arena: sizes of the blocks for state, for constants and for what lives during a run.
        growths: how often a block was replaced by a larger one.
        copied: bytes that were copied into larger blocks.
        blocks: sizes of all blocks: those of variables, of constants and of the arena, each one or more.
    """

    variables: int
    constants: int
    arena: int
    growths: int = 0
    copied: int = 0
    blocks: tuple[int, ...] = ()


class Executable(Protocol):
    """A compiled plan, bound to sizes."""

    def run(self, feeds: Sequence[Any]) -> list[Any]:
        """Feed arrays in the plan's order, run, return fresh arrays."""


class Backend(Protocol):
    """One open device with the variables of one session.

    Attributes:
        name: for messages.
        target: what the passes know of the device.
        launch: how plans are started: ``auto``, ``step``, ``level`` or ``one``.
        interprets: whether it runs graphs themselves, by ``interpret``; plans are made for who asks for them then.
    """

    name: str
    target: Target
    interprets: bool
    launch: str

    def serves(self, spec: str) -> bool:
        """Whether a device string may mean this device.

        Raises:
            DeviceError: it means no device that is there; the message lists those that are.
        """

    def compile(self, plan: Plan) -> Any:
        """A program for the plan."""

    def bind(self, program: Any, placed: Placed, slots: Sequence[StateSlot] = ()) -> Executable:
        """The program with sizes and offsets, over the variables at the plan's positions."""

    def interpret(self, graph: Graph, slots: Sequence[StateSlot]) -> Executable:
        """A graph with every extent bound, as it is (the graph oracle), over the variables in the order of its own
        (``slots_of``)."""

    def holds(self, program: Any, sizes: Mapping[str, int]) -> bool:
        """Whether a program counts right for sizes of the symbolic extents beyond those that it was compiled for."""

    def functions(self, program: Any) -> tuple[int, ...]:
        """Which distinct function every step of the plan calls."""

    def texts(self, program: Any) -> tuple[tuple[str, int], ...]:
        """The name and the bytes of text of every distinct function, by number; nothing where none is generated."""

    def source(self, program: Any) -> str:
        """The generated source."""

    def reserve(self, slots: Sequence[StateSlot]) -> None:
        """Make room for all variables at once, before they are written one by one."""

    def memory(self) -> MemoryInfo:
        """What is held on the device."""

    def close(self) -> None:
        """Release all memory; nothing is run afterwards."""

    def nbytes(self, program: Any) -> int:
        """An estimate of what a compiled program takes in the process beside its plan."""

    def has(self, slot: StateSlot) -> bool:
        """Whether a variable has a value here."""

    def read(self, slot: StateSlot) -> Any:
        """A variable's value as a fresh array."""

    def write(self, slot: StateSlot, value: Any) -> None:
        """Set a variable."""


_BUILTIN = {"opencl": "backends.opencl.runtime:open_opencl", "numpy": "backends.numpy.runtime:open_numpy"}
_ROOT = Path(__file__).resolve().parents[2]


def open_backend(spec: str) -> Any:
    """The backend behind a device string such as ``"auto"``, ``"opencl:intel"`` or ``"numpy"``.

    Backends are entry points of the group ``graphcore.backends``: a callable that takes the device string. ``"auto"``
    takes OpenCL.

    Raises:
        DeviceError: no such backend, its device is missing, or another package hides graphcore's own.
    """
    name = "opencl" if spec == "auto" else spec.split(":", maxsplit=1)[0]
    found = {e.name: e.value for e in metadata.entry_points(group="graphcore.backends")}
    entry = found.get(name) or _BUILTIN.get(name)
    if entry is None:
        known = ", ".join(sorted({*_BUILTIN, *found}))
        raise DeviceError(f"no backend for device {spec!r}; there are {known}, e.g. Session(device='opencl:intel')")
    check_neighbours()
    module, _, function = entry.partition(":")
    return getattr(load_module(module), function)(spec)


def refuse_foreign(nodes: Iterable[Node], backend: Any) -> None:
    """Raise DeviceError where a node asks for another device than a backend's: a program runs on one device."""
    served = {"auto": True}
    pending = list(nodes)
    while pending:
        node = pending.pop()
        spec = "auto" if node.device is None else node.device
        if spec not in served:
            served[spec] = backend.serves(spec)
        if not served[spec]:
            open_backend(spec).close()  # which raises if there is none
            raise DeviceError(
                f"{node.op.name} asks for the device {spec!r}, and the session runs on {backend.name}; all of a run is "
                f"on its session's device, as in gc.Session(device={spec!r})\n"
                f"  it was built at {node.origin.place}"
            )
        if node.op.kind is Kind.REGION:
            pending.extend(n for body in node.op.bodies for n in body.nodes())  # type: ignore[attr-defined]


def backend_module(name: str) -> Any:
    """A module below ``backends``, for tools that look at one backend without opening a device."""
    check_neighbours()
    return load_module(f"backends.{name}")


def check_neighbours() -> None:
    """Raise DeviceError if the packages ``passes`` and ``backends`` that Python finds are not graphcore's own."""
    for package in map(load_module, ("passes", "backends")):
        found = Path(package.__file__ or "").resolve().parents[1]
        if found != _ROOT:
            raise DeviceError(
                f"another package named {package.__name__!r} at {package.__file__} hides graphcore's own; rename it "
                f"or take it off sys.path"
            )
