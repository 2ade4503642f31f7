"""The driver: runs the stages of a pipeline one after the other, verifies, times and counts what they make."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from graphcore.base.errors import UsageError
from graphcore.base.garbage import collector_paused
from graphcore.ir.graph import Graph, slots_of, verify_graph
from graphcore.plan.plan import Placed, Plan
from graphcore.plan.verify import verify_plan
from passes.fusion.lower import Kernels, verify_kernels
from passes.fusion.partition import Partition, verify_partition
from passes.planning.levels import Unordered
from passes.planning.plan_builder import Draft
from passes.stage import AnyStage, StageContext

__all__ = ["FORMS", "Done", "Form", "Record", "check", "run_stages"]


@dataclass(frozen=True)
class Form:
    """What the driver knows of one form of a program.

    Attributes:
        unit: what is counted.
        count: how many of them there are.
        verify: raises VerifyError where a rule of the form is broken.
        final: kept for those who ask the compilation; the others are used up on the way.
    """

    unit: str
    count: Callable[[Any], int]
    verify: Callable[[Any], None] | None = None
    final: bool = True


FORMS: dict[type, Form] = {
    Graph: Form("nodes", lambda graph: len(graph.nodes()), verify_graph),
    Partition: Form("groups", lambda partition: len(partition.groups), verify_partition),
    Kernels: Form("kernels", lambda kernels: len(kernels.listed), verify_kernels),
    Draft: Form("steps", lambda draft: len(draft.plan.steps), final=False),
    Unordered: Form("steps", lambda unordered: len(unordered.plan.steps), final=False),
    Plan: Form("steps", lambda plan: len(plan.steps), verify_plan),
    Placed: Form("buffers", lambda placed: len(placed.offsets)),
}


@dataclass(frozen=True)
class Record:
    """What one run of a stage did.

    Attributes:
        name: the stage's.
        seconds: how long it ran.
        count, unit: the size of what it made: nodes, groups, kernels, steps or buffers.
        hits: how often each rule fired.
        visits, attempts: as in ``StageContext``.
        lines: what it had to tell.
        again: whether it ran once more because a later stage bound extents.
    """

    name: str
    seconds: float
    count: int
    unit: str
    hits: dict[str, int] = field(default_factory=dict)
    visits: int = 0
    attempts: int = 0
    lines: Sequence[str] = ()
    again: bool = False

    @property
    def title(self) -> str:
        """The name, and whether this was not the first time."""
        return f"{self.name}, again" if self.again else self.name

    def __str__(self) -> str:
        rewrites = f", {sum(self.hits.values())} rewrites" if self.hits else ""
        head = f"{self.title}: {self.seconds * 1e3:.1f} ms, {self.count} {self.unit}{rewrites}"
        return "\n  ".join((head, *self.lines))


class Done(NamedTuple):
    """A stage that has run: what it was given, what it made, what it reported. Look at forms that are used up before
    the next stage runs."""

    stage: AnyStage
    before: Any
    after: Any
    context: StageContext
    record: Record


def run_stages(
    stages: Sequence[AnyStage],
    graph: Graph,
    told: StageContext,
    *,
    verify: bool = False,
    upto: str | type | None = None,
) -> Iterator[Done]:
    """Run stages one after the other, each when the next result is asked for.

    A stage that binds extents makes those before it that work on the same form run once more.

    Args:
        stages: as in a ``Pipeline``.
        graph: what the first one is given.
        told: what every stage is told, beside the graph's variables; each reports to a copy of its own.
        verify: check the graph, and what every stage makes, with the verifier of its form and with what the stage
            requires and ensures.
        upto: stop after the stage of this name, or with the last result of this form.

    Raises:
        UsageError: no stage of that name.
        VerifyError: a broken rule; a note names the stage. So it does for whatever else a stage raises.
    """
    if isinstance(upto, str) and upto not in [s.name for s in stages]:
        raise UsageError(f"upto: no stage {upto!r}; there are {', '.join(s.name for s in stages)}")
    value: Any = graph
    told = replace(told, slots=slots_of(graph))
    if verify:
        verify_graph(graph)
    for position, stage in enumerate(stages):
        if isinstance(upto, type) and isinstance(value, upto) and not issubclass(stage.gives, upto):
            return
        done = _run(stage, value, told, verify, again=False)
        value = done.after
        yield done
        for earlier in stages[:position] if done.context.bound else ():
            if earlier.takes is earlier.gives is stage.gives:
                done = _run(earlier, value, told, verify, again=True)
                value = done.after
                yield done
        if stage.name == upto:
            return


def _run(stage: AnyStage, value: Any, told: StageContext, verify: bool, again: bool) -> Done:
    context = replace(told, hits={}, explain=[])
    try:
        if verify:
            stage.requires(value)
        begin = time.perf_counter()
        with collector_paused():
            made = stage.run(value, context)
        seconds = time.perf_counter() - begin
        if not isinstance(made, stage.gives):
            raise UsageError(f"the stage gave a {type(made).__name__}, and must give a {stage.gives.__name__}")
        if verify:
            check(stage, made, context)
    except Exception as error:
        error.add_note(f"in the stage {stage.name}")
        raise
    form = FORMS.get(type(made))
    record = Record(
        stage.name,
        seconds,
        form.count(made) if form is not None else 1,
        form.unit if form is not None else type(made).__name__,
        context.hits,
        context.visits,
        context.attempts,
        tuple(context.explain),
        again,
    )
    return Done(stage, value, made, context, record)


def check(stage: AnyStage, made: Any, context: StageContext) -> None:
    """Raise VerifyError unless what a stage made keeps the rules of its form and what the stage ensures."""
    form = FORMS.get(type(made))
    if form is not None and form.verify is not None:
        form.verify(made)
    if not context.exhausted:  # a stage that was stopped on its way has not promised anything
        stage.ensures(made)
