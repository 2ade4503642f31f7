"""The pipeline: from a run's graph to a placed plan, as ordered data that users can change.

``DEFAULT`` lists the stages. ``DEFAULT.insert_after("simplify", Mine())`` and the like give another pipeline, which
``Session(passes=...)`` and ``compile_graph`` take. A package adds stages for everyone who has it installed by an entry
point of the group ``graphcore.stages``: a function that is given a pipeline and returns one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, TypeVar

from graphcore.base.errors import UsageError
from graphcore.ir.graph import Graph, slots_of
from graphcore.ir.state import StateSlot
from graphcore.plan.plan import Placed, Plan
from graphcore.plan.target import Target
from passes.driver import FORMS, Record, run_stages
from passes.fusion.fuse import Fuse
from passes.fusion.lower import Lower
from passes.fusion.partition import Partition
from passes.fusion.recompute import Recompute
from passes.graph.base import Pass
from passes.graph.inline_regions import InlineRegions
from passes.graph.simplify import Simplify
from passes.graph.specialize import Specialize
from passes.kernels.rewrite import RewriteKernels
from passes.planning.levels import Levels
from passes.planning.placement import Memory
from passes.planning.plan_builder import Schedule, Updates
from passes.stage import AnyStage, Stage, StageContext

__all__ = ["DEFAULT", "GROUP", "Compilation", "Pipeline", "choose_pipeline", "compile_graph", "installed"]

GROUP = "graphcore.stages"  # of entry points

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Pipeline:
    """Stages in order; the first takes a graph, each other what the one before gives. Where several have the same name,
    it means the first of them.

    Raises:
        UsageError: something that is no stage, or neighbours that do not fit.

    >>> DEFAULT.remove("recompute").names[3:5]
    ('fuse', 'lower')
    """

    stages: tuple[AnyStage, ...]

    def __post_init__(self) -> None:
        form: type = Graph
        giver = "the pipeline is given"
        for stage in self.stages:
            if not isinstance(stage, Stage):
                raise UsageError(f"pipeline: {stage!r} is no stage; build on passes.stage.Stage")
            if not issubclass(form, stage.takes):
                raise UsageError(
                    f"pipeline: the stage {stage.name} takes a {stage.takes.__name__}, but {giver} a {form.__name__}"
                )
            form, giver = stage.gives, f"{stage.name} gives"

    def __iter__(self) -> Iterator[AnyStage]:
        return iter(self.stages)

    def __getitem__(self, name: str) -> AnyStage:
        return self.stages[self.position(name)]

    def __str__(self) -> str:
        return "\n".join(f"{s.name}: {s.takes.__name__} -> {s.gives.__name__}, enters {s.descends}" for s in self)

    @property
    def names(self) -> tuple[str, ...]:
        """The stages' names, in order."""
        return tuple(s.name for s in self.stages)

    def position(self, name: str) -> int:
        """Where a stage stands.

        Raises:
            UsageError: there is none of that name.
        """
        if name not in self.names:
            raise UsageError(f"pipeline: no stage {name!r}; there are {', '.join(self.names)}")
        return self.names.index(name)

    def replace(self, name: str, *stages: AnyStage) -> Pipeline:
        """Other stages, any number, in the place of one."""
        at = self.position(name)
        return Pipeline((*self.stages[:at], *stages, *self.stages[at + 1 :]))

    def remove(self, name: str) -> Pipeline:
        """Without a stage."""
        return self.replace(name)

    def insert_before(self, name: str, *stages: AnyStage) -> Pipeline:
        """With more stages before one."""
        return self.replace(name, *stages, self[name])

    def insert_after(self, name: str, *stages: AnyStage) -> Pipeline:
        """With more stages after one."""
        return self.replace(name, self[name], *stages)


DEFAULT = Pipeline(
    (
        InlineRegions(),
        Simplify(),
        Specialize(),
        Fuse(),
        Recompute(),
        Lower(),
        RewriteKernels(),
        Schedule(),
        Updates(),
        Levels(),
        Memory(),
    )
)


def installed() -> Pipeline:
    """The default pipeline with what installed packages make of it, in the order of their entry points' names.

    Raises:
        UsageError: an entry point that gives no pipeline.
    """
    pipeline = DEFAULT
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda e: e.name):
        made = entry.load()(pipeline)
        if not isinstance(made, Pipeline):
            raise UsageError(
                f"the entry point {entry.name} of {GROUP} ({entry.value}) gave a {type(made).__name__}, "
                f"and must give the pipeline"
            )
        pipeline = made
    return pipeline


def choose_pipeline(passes: Any) -> Pipeline:
    """The pipeline of a session: the installed one, the caller's, or the default one with the caller's graph passes
    before ``specialize`` in the place of its own.

    Raises:
        UsageError: no list or pipeline, or something in it that is no pass.
    """
    if passes is None:
        return installed()
    if isinstance(passes, Pipeline):
        return passes
    if not isinstance(passes, (list, tuple)):
        raise UsageError(f"passes: expected a list of passes or a pipeline, got {type(passes).__name__}")
    for p in passes:
        if not isinstance(p, Pass):
            raise UsageError(f"passes: {p!r} is no graphcore pass; build on passes.graph.base.Pass")
    return Pipeline((*passes, *DEFAULT.stages[DEFAULT.position(Specialize.name) :]))


@dataclass(frozen=True)
class Compilation:
    """What became of a graph, for running it, for dumps and for explanations.

    Attributes:
        built: the graph as it was given.
        value: what the last stage made.
        made: the last result of every form that is kept, by its class.
        bound: symbolic extents that were bound; the compilation is valid for their sizes only.
        records: what every stage did, in order.
    """

    built: Graph
    value: Any
    made: Mapping[type, Any]
    bound: frozenset[str]
    records: tuple[Record, ...]

    def latest(self, form: type[Kind]) -> Kind:
        """The last result of a form.

        Raises:
            UsageError: the pipeline ended before it made one.
        """
        if form not in self.made:
            raise UsageError(f"the pipeline ended before it made a {form.__name__}")
        found: Kind = self.made[form]
        return found

    @property
    def simplified(self) -> Graph:
        """The graph that is cut into groups."""
        return self.latest(Graph)

    @property
    def partition(self) -> Partition:
        """The groups that become kernels."""
        return self.latest(Partition)

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.latest(Plan)

    @property
    def placed(self) -> Placed:
        """Where its buffers lie, for the sizes that it was compiled for."""
        return self.latest(Placed)

    @property
    def slots(self) -> tuple[StateSlot, ...]:
        """The variables at the plan's positions."""
        return slots_of(self.built)

    def explain(self) -> str:
        """What each stage did and decided, and which family runs each kernel."""
        lines = [str(record) for record in self.records]
        for number, step in enumerate(self.plan.launches if Plan in self.made else ()):
            choices = step.choices.describe()
            lines.append(f"kernel {number} {step.kernel.name}: level {step.level}, family {step.family} ({choices})")
        return "\n".join(lines)


def compile_graph(
    graph: Graph,
    target: Target | None,
    sizes: Mapping[str, int],
    *,
    pipeline: Pipeline = DEFAULT,
    verify: bool = False,
    fuel: int | None = None,
    fewest_bytes: bool = False,
    upto: str | type | None = None,
    dump: Callable[[str, str], None] | None = None,
) -> Compilation:
    """Run a pipeline.

    Args:
        graph: a run's graph; ``inputs`` are the fed placeholders.
        target: the device; None will do up to the last stage that gives a graph.
        sizes: the fed value of every symbolic extent; the schedules are chosen for these.
        pipeline: the stages.
        verify: check what every stage is given and makes.
        fuel: each stage stops rewriting after so many rewrites (to find a guilty rule by bisection).
        fewest_bytes: order the steps for memory rather than for few launches.
        upto: stop after the stage of this name, or with the last result of this class, such as ``Graph``.
        dump: is given the name of each stage and the text of what it made.

    Raises:
        CompileError: an op that the target cannot run.
        UsageError: ``upto`` names no stage.
    """
    told = StageContext(target, sizes, fewest_bytes, fuel)
    value: Any = graph
    made: dict[type, Any] = {Graph: graph}
    bound: frozenset[str] = frozenset()
    records = []
    for done in run_stages(pipeline.stages, graph, told, verify=verify, upto=upto):
        value = done.after
        form = FORMS.get(type(value))
        if form is not None and form.final:
            made[type(value)] = value
        bound |= done.context.bound
        records.append(done.record)
        if dump is not None:
            dump(done.record.title, done.stage.show(value))
    return Compilation(graph, value, made, bound, tuple(records))
