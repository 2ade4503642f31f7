"""Plans: what a backend runs. Buffers with a place in a space, and steps in levels.

A plan is pure data. Its sizes may be symbolic in leading extents; ``passes.planning.placement.place`` binds them for
one set of feeds, so another batch size needs new offsets but no new kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal, Protocol, TypeVar

from numpy.typing import NDArray

from graphcore.base.dtypes import DType
from graphcore.base.errors import DeviceError
from graphcore.base.shapes import Extent, Shape, product
from graphcore.kernel.ir import Kernel
from graphcore.plan.costs import NO_WORK, Work

__all__ = [
    "ARENA",
    "CONSTANT",
    "VARIABLE",
    "Buffer",
    "Choices",
    "Fetch",
    "Launch",
    "Placed",
    "Plan",
    "Role",
    "Step",
    "Unchosen",
    "Within",
    "by_level",
    "print_plan",
]

Space = Literal["arena", "variable", "constant"]
Role = Literal["feed", "value", "fetch", "workspace", "replaced"]
ARENA: Final = "arena"
VARIABLE: Final = "variable"
CONSTANT: Final = "constant"


@dataclass(frozen=True)
class Within:
    """Memory that is a part of a buffer of the plan around, at ``offset`` bytes and ``stride`` more every trip of the
    loop. A negative stride walks backwards."""

    parent: int
    offset: Extent = 0
    stride: Extent = 0


@dataclass(frozen=True)
class Buffer:
    """Memory of one value.

    Attributes:
        number: position in the plan.
        space: ``arena``, ``variable`` or ``constant``.
        shape, dtype: what it holds.
        label: the op and line behind it, for messages and diagrams.
        position: of a variable among the graph's (``ir.graph.slots_of``), of a constant among the plan's.
        role: ``feed``, ``value``, ``fetch`` or ``workspace``; ``replaced`` by a variable's own memory.
        within: in a loop's or a branch's plan, where it is in the plan around; None if it has memory of its own.
    """

    number: int
    space: Space
    shape: Shape
    dtype: DType
    label: str
    position: int | None = None
    role: Role = "value"
    within: Within | None = None

    @property
    def nbytes(self) -> Extent:
        return product(self.shape) * self.dtype.itemsize


class Choices(Protocol):
    """What a family chose for a kernel."""

    def describe(self) -> str:
        """In a few words, for people."""


@dataclass(frozen=True)
class Unchosen:
    """The choices of who interprets kernels: there are none."""

    def describe(self) -> str:
        return "oracle"


class Step(Protocol):
    """What a plan does, one thing at a time; ``steps`` has the kinds beside ``Launch``."""

    @property
    def level(self) -> int:
        """Steps of one level do not depend on each other."""

    @property
    def title(self) -> str:
        """A name for messages."""

    @property
    def buffers(self) -> tuple[int, ...]:
        """What it is given."""

    @property
    def workspace(self) -> tuple[int, ...]:
        """Those that live during this step only."""

    @property
    def reads(self) -> tuple[int, ...]:
        """Buffers that are loaded, each once."""

    @property
    def writes(self) -> tuple[int, ...]:
        """Buffers that are stored to, each once."""

    def lines(self) -> list[str]:
        """What it does, and on further lines the steps inside of it."""


AnyStep = TypeVar("AnyStep", bound=Step)


@dataclass(frozen=True)
class Launch:
    """A step of the plan: one kernel.

    Attributes:
        kernel: its IR; ``buffers`` are behind its parameters, in order.
        family: the family of schedules that emits it; ``choices`` what it chose.
        level: steps of one level do not depend on each other.
        workspace: buffers for packing or partial results, after ``buffers``.
        helper: a packing or split step that belongs to another kernel; counted apart.
        flops, nbytes: arithmetic and memory traffic of the whole kernel for the hinted sizes.
        tasks: how many tasks share it, for any sizes; none where nothing is to be done.
        arguments: the integers behind the parameters of its function, for any sizes.
        work: what the cost model is asked about, for any sizes.
        why: what a step that computes nothing is there for.
        elementwise_order, flattens: as the family that scheduled it says (``Piece``): whether its loads and stores go
            element by element, and whether it may count the points of all parallel axes together.
    """

    kernel: Kernel
    buffers: tuple[int, ...]
    family: str
    choices: Choices
    tasks: Extent = 1
    arguments: tuple[Extent, ...] = ()
    work: Work = NO_WORK
    level: int = 0
    workspace: tuple[int, ...] = ()
    helper: bool = False
    flops: float = 0.0
    nbytes: float = 0.0
    why: str = ""
    elementwise_order: bool = False
    flattens: bool = True

    @property
    def title(self) -> str:
        """The kernel's name."""
        return self.kernel.name

    def lines(self) -> list[str]:
        """The kernel's name and what runs it."""
        return [f"{self.kernel.name} [{self.family}: {self.choices.describe()}]"]

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """Buffers that are loaded, each once."""
        return tuple(dict.fromkeys(self.buffers[i] for i in sorted(self.kernel.read())))

    @cached_property
    def writes(self) -> tuple[int, ...]:
        """Buffers that are stored to, each once."""
        return tuple(dict.fromkeys(self.buffers[i] for i in sorted(self.kernel.written())))

    def renamed(self, old: int, new: int) -> Launch:
        """The same over another buffer."""
        return replace(self, buffers=tuple(new if b == old else b for b in self.buffers))


@dataclass(frozen=True)
class Fetch:
    """Where a fetched value is: a buffer viewed with a shape, or one of the plan's constants."""

    buffer: int | None
    shape: Shape
    dtype: DType
    constant: int | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that a backend needs to run a graph.

    Attributes:
        buffers: all of them, by number.
        steps: in order; ``step.level`` never falls. Where loops and branches are among them it is a tree.
        feeds: the buffer of every feed, in the order of the graph's inputs.
        fetches: one for each output.
        variables: buffers of the variables that are read or written; which ones these are says who binds the plan.
        constants: arrays.
        in_place: ``(variable buffer, step)`` pairs where an update was written over the old value.
        hints: extents that the schedules were chosen for.
    """

    buffers: tuple[Buffer, ...] = ()
    steps: tuple[Step, ...] = ()
    feeds: tuple[int, ...] = ()
    fetches: tuple[Fetch, ...] = ()
    variables: tuple[int, ...] = ()
    constants: tuple[NDArray[Any], ...] = ()
    in_place: tuple[tuple[int, int], ...] = ()
    hints: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return print_plan(self)

    def __eq__(self, other: object) -> bool:
        """Equal data, arrays bit for bit."""
        if not isinstance(other, Plan) or len(self.constants) != len(other.constants):
            return False
        same = all(
            a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
            for a, b in zip(self.constants, other.constants, strict=True)
        )
        return same and vars(self) | {"constants": ()} == vars(other) | {"constants": ()}

    def slot(self, number: int) -> int:
        """Which of the graph's variables a buffer of the space ``variable`` holds."""
        position = self.buffers[number].position
        assert position is not None
        return position

    def constant(self, buffer: Buffer) -> NDArray[Any]:
        """The array behind a buffer of the space ``constant``."""
        assert buffer.position is not None
        return self.constants[buffer.position]

    def fetched(self, fetch: Fetch, buffers: Sequence[Any]) -> Any:
        """What is fetched, of the values of all buffers or of the constants."""
        if fetch.constant is not None:
            return self.constants[fetch.constant]
        assert fetch.buffer is not None
        return buffers[fetch.buffer]

    @cached_property
    def launches(self) -> tuple[Launch, ...]:
        """The steps of a plan that has no others than launches, told apart once.

        Raises:
            DeviceError: it has others; only the plan interpreter runs them yet.
        """
        other = next((s for s in self.steps if not isinstance(s, Launch)), None)
        if other is not None:
            raise DeviceError(
                f"cannot run a {type(other).__name__} yet ({other.title}); the plan interpreter does: use the device "
                f"'numpy:kernels'"
            )
        return tuple(s for s in self.steps if isinstance(s, Launch))

    @property
    def levels(self) -> list[list[Launch]]:
        """Launches by level.

        Raises:
            DeviceError: as for ``launches``.
        """
        return by_level(self.launches)


def by_level(steps: Iterable[AnyStep]) -> list[list[AnyStep]]:
    """Steps of equal levels together, the lowest first."""
    found: dict[int, list[AnyStep]] = {}
    for step in steps:
        found.setdefault(step.level, []).append(step)
    return [found[level] for level in sorted(found)]


@dataclass(frozen=True)
class Placed:
    """A plan bound to sizes: an arena offset for every arena buffer.

    Attributes:
        sizes: values of the symbolic extents.
        offsets: by buffer number, bytes. Where one allocation would be too large they go through several: the number
            of a section times its size, which the target gives (``max_alloc``), plus the offset in it.
        arena_bytes: size of the arena.
        lower_bound_bytes: the largest sum of live bytes at any level: no placement can need less.
        lifetimes: first and last level of every arena buffer.
        strategy: how they were placed.
        tops: bytes of each section, where there are several; their sum is the arena's size.
    """

    sizes: dict[str, int]
    offsets: dict[int, int]
    arena_bytes: int
    lower_bound_bytes: int
    lifetimes: dict[int, tuple[int, int]]
    strategy: str = ""
    tops: tuple[int, ...] = ()


def print_plan(plan: Plan, placed: Placed | None = None) -> str:
    """The plan as text: one line a step, with the buffers it touches."""
    lines = []
    for level, steps in enumerate(by_level(plan.steps)):
        lines.append(f"level {level}")
        for step in steps:
            head, *inside = step.lines()
            touched = f"reads {_list(plan, step.reads, placed)} writes {_list(plan, step.writes, placed)}"
            lines += [f"  {head} {touched}", *(f"    {line}" for line in inside)]
    if placed is not None:
        lines.append(f"arena {placed.arena_bytes} bytes, lower bound {placed.lower_bound_bytes}")
    return "\n".join(lines)


def _list(plan: Plan, numbers: Sequence[int], placed: Placed | None) -> str:
    parts = []
    for n in numbers:
        b = plan.buffers[n]
        where = f"@{placed.offsets[n]}" if placed is not None and n in placed.offsets else ""
        parts.append(f"{b.space}:{n}{where}")
    return ", ".join(parts) or "nothing"
