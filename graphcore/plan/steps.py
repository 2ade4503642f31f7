"""The steps beside launches: copies, calls of the host, collectives, loops and branches.

Loops and branches hold plans. Such a plan has no feeds and fetches: its buffers that lie ``within`` one of the plan
around are how values come in and go out. So a slice of a stacked input or output is a buffer whose place moves on every
trip, and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from graphcore.base.shapes import Extent
from graphcore.plan.plan import Launch, Plan, print_plan

__all__ = ["STEPS", "Branch", "Carry", "Collective", "Copy", "HostCall", "Loop"]


@dataclass(frozen=True)
class _Plain:
    """Steps without memory of their own."""

    @property
    def title(self) -> str:
        """What kind of step it is, in small letters."""
        return type(self).__name__.lower()

    @property
    def workspace(self) -> tuple[int, ...]:
        """Nothing."""
        return ()

    def lines(self) -> list[str]:
        """The kind of step."""
        return [self.title]


@dataclass(frozen=True)
class Copy(_Plain):
    """The bytes of one buffer to another one of its type."""

    source: int
    target: int
    level: int = 0

    @property
    def buffers(self) -> tuple[int, ...]:
        return self.source, self.target

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.source,)

    @property
    def writes(self) -> tuple[int, ...]:
        return (self.target,)


@dataclass(frozen=True)
class HostCall(_Plain):
    """A function of the host, by the name under which who runs the plan has it."""

    function: str
    operands: tuple[int, ...]
    results: tuple[int, ...]
    level: int = 0

    @property
    def buffers(self) -> tuple[int, ...]:
        return (*self.operands, *self.results)

    @property
    def reads(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(self.operands))

    @property
    def writes(self) -> tuple[int, ...]:
        return self.results

    def lines(self) -> list[str]:
        """The function's name."""
        return [f"{self.title} {self.function}"]


@dataclass(frozen=True)
class Collective(_Plain):
    """What all processes of a group do together: the sum of what each gives, for each."""

    operation: Literal["all_reduce"]
    source: int
    target: int
    level: int = 0

    @property
    def buffers(self) -> tuple[int, ...]:
        return self.source, self.target

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.source,)

    @property
    def writes(self) -> tuple[int, ...]:
        return (self.target,)

    def lines(self) -> list[str]:
        """The operation's name."""
        return [f"{self.title} {self.operation}"]


@dataclass(frozen=True)
class Carry:
    """A value that one trip of a loop hands to the next one. It has two places, which take turns.

    Attributes:
        initial, final: buffers around the loop: what the first trip is given, and what the last one made.
        given, made: the body's buffers.
    """

    initial: int
    given: int
    made: int
    final: int


@dataclass(frozen=True)
class Loop(_Plain):
    """A plan, again and again.

    Attributes:
        body: what a trip does.
        trips: how many there are; with a predicate, the most.
        carries: what goes from one trip to the next.
        predicate: the position of a carry, one bool: while it is true before a trip, there is one more.
    """

    body: Plan
    trips: Extent
    carries: tuple[Carry, ...] = ()
    predicate: int | None = None
    level: int = 0

    @cached_property
    def reads(self) -> tuple[int, ...]:
        return _once((*(c.initial for c in self.carries), *_around(self.body, writes=False)))

    @cached_property
    def writes(self) -> tuple[int, ...]:
        return _once((*(c.final for c in self.carries), *_around(self.body, writes=True)))

    @property
    def buffers(self) -> tuple[int, ...]:
        return _once((*self.reads, *self.writes))

    def lines(self) -> list[str]:
        """How many trips, and the body."""
        until = "" if self.predicate is None else f" while carry {self.predicate}"
        carried = "".join(f", carries {c.initial} as {c.given} <- {c.made} to {c.final}" for c in self.carries)
        return [f"{self.title} {self.trips} times{until}{carried}", *print_plan(self.body).splitlines()]


@dataclass(frozen=True)
class Branch(_Plain):
    """One of several plans.

    Attributes:
        index: a buffer of one bool or integer: which of them; 0 and false are the first. What is beyond means the
            nearest.
        plans: the choices.
    """

    index: int
    plans: tuple[Plan, ...]
    level: int = 0

    @cached_property
    def reads(self) -> tuple[int, ...]:
        return _once((self.index, *(n for plan in self.plans for n in _around(plan, writes=False))))

    @cached_property
    def writes(self) -> tuple[int, ...]:
        return _once(n for plan in self.plans for n in _around(plan, writes=True))

    @property
    def buffers(self) -> tuple[int, ...]:
        return _once((*self.reads, *self.writes))

    def lines(self) -> list[str]:
        """The plans, one after the other."""
        inside = [(f"choice {n}", *print_plan(plan).splitlines()) for n, plan in enumerate(self.plans)]
        return [f"{self.title} by {self.index}", *(line for lines in inside for line in lines)]


STEPS: tuple[type, ...] = (Launch, Copy, HostCall, Collective, Loop, Branch)


def _once(numbers: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(numbers))


def _around(plan: Plan, writes: bool) -> Iterable[int]:
    """Buffers of the plan around that a plan reads or writes through its own."""
    for step in plan.steps:
        for number in step.writes if writes else step.reads:
            within = plan.buffers[number].within if number < len(plan.buffers) else None
            if within is not None:
                yield within.parent
