"""Stages: the parts of a pipeline, each a function from one form of a program to another or the same one.

A stage is a frozen dataclass whose fields are its options; running it is a pure function of what it is given. What it
may know of the device and the sizes, and what it has to tell, goes through its context.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from graphcore.base.errors import CompileError
from graphcore.ir.state import StateSlot
from graphcore.plan.target import Target

__all__ = ["Stage", "StageContext"]

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass
class StageContext:
    """What a stage is told and what it reports.

    Attributes:
        device: what is known of the device; None where only the graph is looked at.
        sizes: the value of every symbolic extent that the program is compiled for.
        slots: the variables of the graph that is compiled (``ir.graph.slots_of``): plans name them by position.
        fewest_bytes: order for memory rather than for few launches.
        fuel: rewrites that may still happen, None for any number; halving it finds the rewrite that breaks something.
        hits: how often each rule fired.
        visits: nodes that rules were tried on, or that were placed.
        attempts: calls of rules, or questions whether a node fits into a kernel.
        loops: rewrites given up because rules undid each other.
        bound: symbolic extents that the stage bound to their sizes; what comes out is valid for those only.
        explain: one line for every decision worth telling.
        verbose: also explain every single rewrite.
        options: further settings by name, for stages of users.
    """

    device: Target | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    fewest_bytes: bool = False
    fuel: int | None = None
    hits: dict[str, int] = field(default_factory=dict)
    visits: int = 0
    attempts: int = 0
    loops: int = 0
    bound: frozenset[str] = frozenset()
    explain: list[str] = field(default_factory=list)
    verbose: bool = False
    options: Mapping[str, object] = field(default_factory=dict)
    slots: Sequence[StateSlot] = ()

    @property
    def target(self) -> Target:
        """What is known of the device.

        Raises:
            CompileError: nothing; only the stages over graphs can do without.
        """
        if self.device is None:
            raise CompileError("this stage needs a device to compile for")
        return self.device

    @property
    def exhausted(self) -> bool:
        """Whether no rewrite may happen any more."""
        return self.fuel is not None and self.fuel <= 0

    def hit(self, name: str) -> None:
        """Count one rewrite by a rule."""
        self.hits[name] = self.hits.get(name, 0) + 1
        if self.fuel is not None:
            self.fuel -= 1

    def say(self, line: str) -> None:
        """Tell one decision; ``compiled.explain()`` shows it below the stage."""
        self.explain.append(line)

    def bind(self, names: Iterable[str]) -> None:
        """Note that symbolic extents were bound to their sizes. The stages before it over the same form run again."""
        self.bound |= frozenset(names)


@dataclass(frozen=True)
class Stage(Generic[In, Out]):
    """One stage of a pipeline.

    Attributes:
        name: in a pipeline, for messages and for ``upto``.
        takes, gives: the classes of what goes in and of what comes out.
        descends: which regions of a graph it enters, in words.

    A subclass's docstring says what it requires and ensures; what of this can be checked, ``requires`` and ``ensures``
    check when the driver verifies.
    """

    name: ClassVar[str] = "stage"
    takes: ClassVar[type] = object
    gives: ClassVar[type] = object
    descends: ClassVar[str] = "no region"

    def run(self, given: In, ctx: StageContext, /) -> Out:
        """What becomes of ``given``, which is left as it was unless its class says that it is used up.

        Args:
            given: a verified program in the form that the stage takes.
            ctx: limits for the stage, and where it counts and explains what it did.
        """
        raise TypeError(f"the stage {type(self).__name__} does not define run")

    def requires(self, given: In, /) -> None:
        """Raise VerifyError unless the stage can work on this."""

    def ensures(self, made: Out, /) -> None:
        """Raise VerifyError unless this is what the stage promises."""

    def show(self, made: Out, /) -> str:
        """What it made, as text."""
        return str(made)


AnyStage = Stage[Any, Any]
