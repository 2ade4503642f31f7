"""The pipeline: from a run's graph to a plan, as explicit ordered data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphcore.base.errors import GraphcoreError, UsageError
from graphcore.ir.graph import Graph, verify_graph
from graphcore.plan.plan import Plan
from graphcore.plan.target import Target
from passes.fusion.fuse import fuse
from passes.fusion.partition import Partition
from passes.graph.base import Pass, PassContext
from passes.graph.inline_regions import InlineRegions
from passes.graph.simplify import Simplify
from passes.graph.specialize import specialize
from passes.planning.plan_builder import build_plan

__all__ = ["DEFAULT", "Compilation", "Record", "choose_passes", "compile_graph"]

DEFAULT: tuple[Pass, ...] = (InlineRegions(), Simplify())


@dataclass
class Record:
    """What one stage did: its name, seconds, nodes after it, rule hits and visits."""

    name: str
    seconds: float
    nodes: int
    hits: dict[str, int] = field(default_factory=dict)
    visits: int = 0


@dataclass
class Compilation:
    """Every stage of one compilation, for dumps and explanations."""

    built: Graph
    simplified: Graph
    partition: Partition
    plan: Plan
    bound: frozenset[str]
    records: list[Record]

    def explain(self) -> str:
        """Why every value is stored and every fusion was refused, and what each pass did."""
        lines = [
            f"{r.name}: {r.seconds * 1e3:.1f} ms, {r.nodes} nodes"
            + (f", {sum(r.hits.values())} rewrites" if r.hits else "")
            for r in self.records
        ]
        for number, step in enumerate(self.plan.steps):
            config = step.config.describe() if hasattr(step.config, "describe") else str(step.config)
            lines.append(f"kernel {number} {step.kernel.name}: level {step.level}, template {step.template} ({config})")
        return "\n".join([*lines, *self.plan.why])


def choose_passes(passes: Sequence[Pass] | None) -> tuple[Pass, ...]:
    """The graph passes of a session: the default ones, or the caller's.

    Raises:
        UsageError: something that is no pass.
    """
    if passes is None:
        return DEFAULT
    for p in passes:
        if not isinstance(p, Pass):
            raise UsageError(f"passes: {p!r} is no graphcore pass; build on passes.graph.base.Pass")
    return tuple(passes)


def compile_graph(
    graph: Graph,
    target: Target,
    sizes: Mapping[str, int],
    *,
    passes: Sequence[Pass] | None = None,
    verify: bool = False,
    fuel: int | None = None,
    allow: Callable[..., bool] | None = None,
    fewest_bytes: bool = False,
) -> Compilation:
    """Run every stage.

    Args:
        graph: a run's graph; ``inputs`` are the fed placeholders.
        target: the device.
        sizes: the fed value of every symbolic extent; the schedules are chosen for these.
        verify: check the graph before and after each pass.
        fuel: stop rewriting after so many rewrites (to find a guilty rule by bisection).
        allow: an extra condition on every fusion.
        fewest_bytes: order the steps for memory rather than for few launches.

    Raises:
        CompileError: an op that the target cannot run.
    """
    records: list[Record] = []
    current = graph
    for p in choose_passes(passes):
        current = _run_pass(p, current, fuel, verify, records)
    special, bound = _timed("specialize", records, lambda: specialize(current, sizes))
    if bound:
        for p in choose_passes(passes):
            special = _run_pass(p, special, fuel, verify, records)
    partition = _timed("fuse", records, lambda: fuse(special, target, allow))
    plan = _timed("plan", records, lambda: build_plan(partition, target, sizes, fewest_bytes))
    return Compilation(graph, special, partition, plan, bound, records)


def _run_pass(p: Pass, graph: Graph, fuel: int | None, verify: bool, records: list[Record]) -> Graph:
    context = PassContext(fuel=fuel)
    if verify:
        verify_graph(graph)
    begin = time.perf_counter()
    try:
        result = p.run(graph, context)
    except GraphcoreError as error:
        error.add_note(f"in the pass {p.name}")
        raise
    records.append(Record(p.name, time.perf_counter() - begin, len(result.nodes()), dict(context.hits), context.visits))
    if verify:
        verify_graph(result)
    return result


def _timed(name: str, records: list[Record], work: Callable[[], Any]) -> Any:
    begin = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - begin
    made = result[0] if isinstance(result, tuple) else result
    count = len(made.nodes()) if isinstance(made, Graph) else len(getattr(made, "groups", getattr(made, "steps", ())))
    records.append(Record(name, seconds, count))
    return result
