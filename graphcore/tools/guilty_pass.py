"""Replay: evaluate what every stage of a compilation makes on the oracles, and name the one that changed results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np

from graphcore.api.tensor import Tensor
from graphcore.base.errors import VerifyError
from graphcore.base.shapes import bind
from graphcore.ir.graph import Graph, collect, slots_of
from graphcore.ir.interpret import interpret
from graphcore.ir.leaves import Constant, StateRead
from graphcore.ir.node import Value
from graphcore.ir.state import StateSlot
from graphcore.kernel.interpret import run_kernel, run_parts
from graphcore.kernel.parts import uncut
from graphcore.plan.backend import open_backend
from graphcore.plan.plan import CONSTANT, VARIABLE, Buffer, Launch, Placed, Plan
from graphcore.runtime.feeds import feed_points
from graphcore.runtime.fetches import flatten_fetches
from passes.driver import Done, check, run_stages
from passes.fusion.lower import Kernels
from passes.fusion.partition import Partition, stored_root
from passes.graph.specialize import bind_everything
from passes.pipeline import choose_pipeline
from passes.planning.levels import Unordered
from passes.planning.plan_builder import Draft
from passes.stage import StageContext

__all__ = ["Replay", "replay"]


_NOTHING = np.zeros(0, np.float32)  # stands for values of no elements, which no kernel stores


@dataclass(frozen=True)
class Replay:
    """What a replay found.

    Attributes:
        guilty: the first stage whose results differ from the graph as built, or that breaks a rule of what it makes;
            None if all agree.
        rewrite: for a rewriting pass, the number of the first rewrite that breaks it, from 1.
        errors: the largest difference after every stage, relative to the largest magnitude; infinite for a broken rule.
        reason: the rule that was broken.
    """

    guilty: str | None
    rewrite: int | None
    errors: Mapping[str, float]
    reason: str = ""


def replay(
    fetches: Any,
    feeds: Mapping[Tensor, Any],
    variables: Mapping[Any, Any] | None = None,
    *,
    passes: Any = None,
    tolerance: float = 1e-4,
) -> Replay:
    """Compare what every stage makes with the graph as built.

    A graph is evaluated by the graph oracle, kernels by the kernel oracle, steps one after the other in memory of their
    own, and at last in the arena. A partition has no values of its own: its rules are checked.

    Args:
        fetches: as in ``Session.run``.
        feeds: arrays for the placeholders.
        variables: values of variables; missing ones take their initial array.
        passes: graph passes instead of the default ones, or a pipeline.
        tolerance: differences above it, relative to the largest magnitude, count.

    >>> import graphcore as gc
    >>> x = gc.placeholder("float32", (2,))
    >>> replay(x * 1.0, {x: [1.0, 2.0]}).guilty is None
    True
    """
    tensors, updates, _ = flatten_fetches(fetches)
    fed = tuple([t.value for t in feeds])
    graph, _ = feed_points(collect(tensors, updates, fed), fed)
    arrays = [np.asarray(a, t.dtype.storage) for t, a in feeds.items()]
    sizes = {
        name: int(n)
        for t, a in zip(feeds, arrays, strict=True)
        for e, n in zip(t.shape, a.shape, strict=True)
        if hasattr(e, "symbols")
        for name in e.symbols()
    }
    oracle = _Oracle(arrays, {v.slot: a for v, a in (variables or {}).items()}, sizes, slots_of(graph))
    told = StageContext(open_backend("numpy:kernels").target, sizes)
    expected = oracle.graph(graph)
    errors: dict[str, float] = {}
    for done in run_stages(choose_pipeline(passes).stages, graph, told):
        name, title = done.stage.name, done.record.title
        try:
            check(done.stage, done.after, done.context)
            found = oracle.evaluate(done, graph)
        except VerifyError as error:
            return Replay(name, None, {**errors, title: inf}, str(error))
        if found is None:
            continue
        errors[title] = _difference(expected, found)
        if errors[title] > tolerance:
            return Replay(name, _first_bad_rewrite(done, expected, oracle, tolerance), errors)
    return Replay(None, None, errors)


def _first_bad_rewrite(done: Done, expected: Sequence[Any], oracle: _Oracle, tolerance: float) -> int | None:
    """Bisect the fuel of a stage over graphs; None where no rewrite can be blamed alone."""

    def bad(fuel: int) -> bool:
        context = replace(done.context, fuel=fuel, hits={}, explain=[])
        return _difference(expected, oracle.graph(done.stage.run(done.before, context))) > tolerance

    low, high = 0, sum(done.context.hits.values())
    if not isinstance(done.after, Graph) or high == 0 or bad(low) or not bad(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bad(middle) else (middle, high)
    return high


class _Oracle:
    """Values of feeds and variables, and how each form of a program is evaluated with them: outputs, then new values of
    variables."""

    def __init__(
        self,
        feeds: Sequence[Any],
        variables: dict[StateSlot, Any],
        sizes: dict[str, int],
        slots: Sequence[StateSlot],
    ) -> None:
        self.feeds, self.variables, self.sizes, self.slots = feeds, variables, sizes, slots

    def evaluate(self, done: Done, built: Graph) -> list[Any] | None:
        """What a stage made, evaluated; None for a form of a user, which has no oracle."""
        made = done.after
        if isinstance(made, Graph):
            return self.graph(made)
        if isinstance(made, Kernels):
            return self.kernels(made)
        if isinstance(made, Draft):
            arrays = self.steps(made.plan, made.plan.launches)
            found = {key: arrays[number] for key, number in made.buffer_of.items()}
            return self.results(made.graph, found)
        if isinstance(made, Unordered):
            return self.plan(made.plan, [made.plan.launches[i] for i in _in_turn(made.flow.before)], built)
        if isinstance(made, Plan):
            return self.plan(made, made.launches, built)
        if isinstance(made, Placed):
            return self.plan(done.before, done.before.launches, built, made)
        return self.graph(made.graph) if isinstance(made, Partition) else None  # it means what its graph does

    def value(self, slot: StateSlot) -> Any:
        if slot not in self.variables:
            initial = slot.initializer
            self.variables[slot] = initial.sample(np.random.default_rng(0)) if hasattr(initial, "sample") else initial
        return np.asarray(self.variables[slot], slot.dtype.storage)

    def leaves(self, graph: Graph) -> dict[Value, Any]:
        """The values of feeds, variables and constants."""
        known: dict[Value, Any] = dict(zip(graph.inputs, self.feeds, strict=True))
        for node in graph.nodes():
            if isinstance(node.op, StateRead):
                known.setdefault(node.output(), self.value(node.op.slot))
            elif isinstance(node.op, Constant):
                known[node.output()] = node.op.array
        return known

    def graph(self, graph: Graph) -> list[Any]:
        bound = bind_everything(graph, self.sizes)
        return interpret(bound, self.leaves(bound))

    def kernels(self, kernels: Kernels) -> list[Any]:
        """One kernel after the other, each value in an array of its own."""
        found = {key: np.ascontiguousarray(a).reshape(-1) for key, a in self.leaves(kernels.graph).items()}
        for _, kernel, values, parts in kernels.listed:
            for position in kernel.written():
                t = values[position]
                found[t] = _unwritten(int(bind(t.size, self.sizes)) * t.dtype.itemsize).view(t.dtype.storage)
            run_parts(parts or uncut(kernel), [found.get(t, _NOTHING) for t in values], self.sizes)
        return self.results(kernels.graph, found)

    def results(self, graph: Graph, found: Mapping[Value, Any]) -> list[Any]:
        """The roots of a graph, from flat arrays of what is in memory and the leaves."""
        known = {**self.leaves(graph), **found}
        return [
            np.reshape(known.get(stored_root(t), _NOTHING), tuple(int(bind(e, self.sizes)) for e in t.shape))
            for t in graph.roots
        ]

    def plan(self, plan: Plan, steps: Sequence[Launch], built: Graph, placed: Placed | None = None) -> list[Any]:
        arrays = self.steps(plan, steps, placed)
        outputs = []
        for fetch in plan.fetches:
            shape = tuple(int(bind(e, self.sizes)) for e in fetch.shape)
            outputs.append(np.reshape(plan.fetched(fetch, arrays), shape))
        written = {self.slots[plan.slot(number)]: arrays[number] for number in plan.variables}
        values = {v: np.reshape(array, tuple(v.shape)) for v, array in written.items()}
        return [*outputs, *(values.get(v, self.value(v)) for v, _ in built.updates)]

    def steps(self, plan: Plan, steps: Sequence[Launch], placed: Placed | None = None) -> list[Any]:
        """Every buffer after some steps: in memory of its own, or in the arena where it was placed."""
        arena = _unwritten(placed.arena_bytes) if placed is not None else None
        offsets = placed.offsets if placed is not None else {}
        arrays = [self.memory(plan, b, arena, offsets) for b in plan.buffers]
        for number, array in zip(plan.feeds, self.feeds, strict=True):
            np.copyto(arrays[number], np.reshape(array, -1))
        for step in steps:
            run_kernel(step.kernel, [arrays[n] for n in step.buffers], self.sizes)
        return arrays

    def memory(self, plan: Plan, buffer: Buffer, arena: Any, offsets: Mapping[int, int]) -> Any:
        if buffer.space == VARIABLE:
            return self.value(self.slots[plan.slot(buffer.number)]).reshape(-1).copy()
        if buffer.space == CONSTANT:
            return np.ascontiguousarray(plan.constant(buffer)).reshape(-1)
        nbytes = int(bind(buffer.nbytes, self.sizes))
        start = offsets.get(buffer.number)
        made = _unwritten(nbytes) if arena is None or start is None else arena[start : start + nbytes]
        return made.view(buffer.dtype.storage)


def _unwritten(nbytes: int) -> Any:
    """Memory that nothing was written to: NaN in every floating type."""
    return np.full(nbytes, 0xFF, np.uint8)


def _in_turn(before: Sequence[Sequence[int]]) -> list[int]:
    """Steps after those before them, the latest first wherever there is a choice, so that a missing one shows."""
    done: list[int] = []
    waiting = dict(enumerate(map(set, before)))
    while waiting:
        ready = max((i for i, missing in waiting.items() if not missing), default=None)
        if ready is None:
            raise VerifyError("the steps wait for each other")
        del waiting[ready]
        done.append(ready)
        for missing in waiting.values():
            missing.discard(ready)
    return done


def _difference(expected: Sequence[Any], found: Sequence[Any]) -> float:
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.size == 0:
            continue
        with np.errstate(invalid="ignore"):
            apart = np.abs(a - b)
        apart = np.where((np.isnan(a) & np.isnan(b)) | (a == b), 0.0, apart)
        scale = max(float(np.max(np.abs(a), where=np.isfinite(a), initial=0.0)), 1e-30)
        worst = max(worst, float(np.max(np.nan_to_num(apart, nan=np.inf))) / scale)
    return worst
