"""Choices for the whole plan: less text where it takes less time to compile than it will ever cost to run.

A family's first guess is the fastest way to run a kernel. A plan has many kernels that hardly count, and compilers take
as long for their texts as for those of the others. So the plan's choices are the ones for which the modelled time of a
run and the modelled seconds of compiling each distinct function, spread over ``RUNS`` runs, are least together. Only
choices that keep every bit are compared, and all that is given up must stay below ``MOST_SLOWER`` of the modelled time
of a run: the model orders choices less surely than the families' guesses do.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from graphcore.base.shapes import bind
from graphcore.plan.backend import Piece
from graphcore.plan.target import Target

__all__ = ["LEAST_SECONDS", "MOST_SLOWER", "RUNS", "choose_for_plan"]

RUNS = 1000  # of a program, that share the seconds of compiling it
MOST_SLOWER = 0.01  # of a run
LEAST_SECONDS = 0.04  # of compiling that another function may save: for less it is not worth a text

Pieces = Sequence[Piece]


@dataclass
class _Sort:
    """Kernels that are the same functions: they are chosen for together.

    Attributes:
        places: which of the plan's kernels they are.
        keys: their functions.
        seconds: of a run, all of them.
    """

    keys: tuple[Hashable, ...]
    places: list[int] = field(default_factory=list)
    seconds: float = 0.0


def choose_for_plan(
    firsts: Sequence[Pieces],
    others: Callable[[int], Sequence[tuple[Pieces, float]]],
    target: Target,
    sizes: Mapping[str, int],
    say: Callable[[str], None],
) -> list[Pieces]:
    """What every kernel of a plan becomes.

    Args:
        firsts: for every kernel what its family's first guess makes of it.
        others: what else could be made of a kernel, by its position, with the same bits, and roughly which part of its
            text that has.
        target: the device.
        sizes: of the symbolic extents, that the plan is for.
        say: is told what was chosen in place of a first guess, and why.
    """
    if target.function is None:
        return list(firsts)
    return _Chooser(firsts, others, target, sizes, say).chosen()


class _Chooser:
    """One plan's choices: linear in its kernels, with one more text written for each function that may change."""

    def __init__(
        self,
        firsts: Sequence[Pieces],
        others: Callable[[int], Sequence[tuple[Pieces, float]]],
        target: Target,
        sizes: Mapping[str, int],
        say: Callable[[str], None],
    ) -> None:
        assert target.function is not None
        self.function, self.costs = target.function, target.costs
        self.made, self.others, self.sizes, self.say = list(firsts), others, sizes, say
        self.footprint = sum(float(bind(p.work.traffic, sizes)) for pieces in firsts for p in pieces)
        self.build: dict[Hashable, float] = {}
        self.uses: dict[Hashable, int] = {}  # how many kernels call a function
        sorts: dict[tuple[Hashable, ...], _Sort] = {}
        for place, pieces in enumerate(firsts):
            keys = self.keys(pieces)
            sort = sorts.setdefault(keys, _Sort(keys))
            sort.places.append(place)
            sort.seconds += self.seconds(pieces)
            for key in keys:
                self.uses[key] = self.uses.get(key, 0) + 1
        self.sorts = list(sorts.values())
        self.left = MOST_SLOWER * sum(sort.seconds for sort in self.sorts)  # seconds that may still be given up

    def chosen(self) -> list[Pieces]:
        """All kernels' pieces, after those whose compiling costs most were looked at first."""
        for sort in sorted(self.sorts, key=self.alone, reverse=True):
            if self.alone(sort) < LEAST_SECONDS:
                break
            self.improve(sort)
        return self.made

    def keys(self, pieces: Pieces) -> tuple[Hashable, ...]:
        found = []
        for piece in pieces:
            key, seconds = self.function(piece)
            self.build[key] = seconds
            found.append(key)
        return tuple(found)

    def seconds(self, pieces: Pieces) -> float:
        """Of one run of a kernel."""
        tasks = (int(bind(p.tasks, self.sizes)) for p in pieces)
        return sum(
            self.costs.seconds(p.work.bound(self.sizes), n, self.footprint) for p, n in zip(pieces, tasks, strict=True)
        )

    def alone(self, sort: _Sort) -> float:
        """Seconds of compiling what only these kernels call."""
        own = (key for key in set(sort.keys) if self.uses[key] == sort.keys.count(key) * len(sort.places))
        return sum(self.build[key] for key in own)

    def improve(self, sort: _Sort) -> None:
        """Take the choice for some kernels that is best for the plan, as far as the lengths of bodies tell; only that
        one's text is written, and decides."""
        first, alone = sort.places[0], self.alone(sort)
        own = self.seconds(self.made[first])
        best, gain, slower, pieces = -1, 0.0, 0.0, self.made[first]
        for number, (other, length) in enumerate(self.others(first)):
            more = max((self.seconds(other) - own) * sort.seconds / own, 0.0)  # the guess knows better what is faster
            saved = alone * (1 - length)
            if more <= self.left and saved >= LEAST_SECONDS and saved / RUNS - more > gain:
                best, gain, slower, pieces = number, saved / RUNS - more, more, other
        if best < 0:
            return
        keys = self.keys(pieces)
        saved = alone - sum(self.build[key] for key in set(keys) if key in sort.keys or key not in self.uses)
        if saved >= LEAST_SECONDS and saved / RUNS > slower:
            self.take(sort, best, keys, saved, slower)

    def take(self, sort: _Sort, number: int, keys: tuple[Hashable, ...], saved: float, slower: float) -> None:
        """Let kernels become what a number of their menus says, if that is the same functions for all of them."""
        made = [self.others(place)[number][0] for place in sort.places]
        if any(self.keys(pieces) != keys for pieces in made):
            return
        self.tell(self.made[sort.places[0]], made[0], len(made), saved, slower)
        self.left -= slower
        for place, pieces in zip(sort.places, made, strict=True):
            self.made[place] = pieces
        for change, changed in ((-1, sort.keys), (1, keys)):
            for key in changed:
                self.uses[key] = self.uses.get(key, 0) + change * len(made)

    def tell(self, before: Pieces, after: Pieces, kernels: int, saved: float, slower: float) -> None:
        main, given = after[-1], before[-1]
        count = f", {kernels} times" if kernels > 1 else ""
        self.say(
            f"{main.kernel.name}{count}: {main.choices.describe()} in place of {given.choices.describe()}, because it "
            f"compiles {saved:.2f} s faster and runs {slower * 1e6:.1f} us longer"
        )
