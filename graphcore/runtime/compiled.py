"""Compiled graphs: what ``Session.compile`` gives and sessions keep."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from graphcore.base.errors import OutOfMemoryError, UsageError
from graphcore.base.shapes import bind, product
from graphcore.ir.graph import Graph, slots_of
from graphcore.ir.printer import print_graph
from graphcore.ir.state import StateSlot
from graphcore.kernel.ir import print_kernel
from graphcore.plan.backend import refuse_foreign
from graphcore.plan.plan import ARENA, CONSTANT, Placed, Plan, print_plan
from passes.graph.specialize import bind_everything
from passes.pipeline import Compilation, Pipeline, compile_graph
from passes.planning.limits import refuse_oversized
from passes.planning.placement import place

__all__ = ["STAGES", "Compiled"]

STAGES = ("built", "simplified", "fused", "kernels", "plan", "source")
_REGROW = 8  # a batch this many times larger than the one that schedules were chosen for is compiled anew
# What things take in the process, measured by benchmarks/session_memory.py.
_NODE_BYTES, _STEP_BYTES, _PLAN_BYTES, _ROW_BYTES, _BOUND_BYTES = 400, 7000, 6000, 400, 9000


class Compiled:
    """A graph compiled for a device; valid for every batch size near the one it was compiled for.

    Running takes the plan and the program. What the stages before them made is kept until ``release``, and made again
    for who asks then. Where the graph itself is interpreted, both are made for who asks, too: what runs there needs no
    lowering.
    """

    def __init__(self, graph: Graph, backend: Any, sizes: dict[str, int], pipeline: Pipeline, verify: bool) -> None:
        self.backend = backend
        self.hints = self.sizes = dict(sizes)
        self.bound: Any = None
        self._made: Compilation | None
        self._planned: tuple[Plan, Any] | None
        self.fewest_bytes = False
        self.pipeline = pipeline
        self.used = 0  # when it was last used, by the cache's clock
        self._source = graph, verify
        self._compile()

    def _compile(self) -> None:
        self._made = self._planned = None
        self._placed: dict[tuple[tuple[str, int], ...], Placed] = {}
        nodes = self._source[0].nodes()
        self._nodes = len(nodes)
        self.slots = slots_of(self._source[0])
        places = {slot: position for position, slot in enumerate(self.slots)}
        self.updated = tuple(places[slot] for slot, _ in self._source[0].updates)
        refuse_foreign(nodes, self.backend)
        if self.backend.interprets:
            self._bound_sizes = self._run_stages(upto=Graph).bound
            self.state = list(range(len(self.slots)))
        else:
            plan, _ = self._plan()
            self.state = [plan.slot(number) for number in plan.variables]

    def _plan(self) -> tuple[Plan, Any]:
        """The plan and the device's program for it."""
        if self._planned is None:
            made = self.compilation
            self._bound_sizes = made.bound
            self._planned = made.plan, self.backend.compile(made.plan)
            self._placed[_key(self.hints)] = made.placed
        return self._planned

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self._plan()[0]

    @property
    def program(self) -> Any:
        """What the device made of the plan."""
        return self._plan()[1]

    @property
    def compilation(self) -> Compilation:
        """What every stage made."""
        made = self._made
        if made is None:
            made = self._made = self._run_stages()
        return made

    @property
    def bound_names(self) -> frozenset[str]:
        """The symbolic extents of whose sizes it is valid for these only."""
        return self._bound_sizes

    @property
    def nbytes(self) -> int:
        """An estimate of what it takes in the process, the device's program included."""
        if self._planned is None:
            return _PLAN_BYTES + _NODE_BYTES * self._nodes
        constants = sum(int(array.nbytes) for array in self.plan.constants)
        ours = _PLAN_BYTES + _NODE_BYTES * self._nodes + _STEP_BYTES * len(self.plan.launches) + constants
        return ours + int(self.backend.nbytes(self.program))

    @property
    def bound_nbytes(self) -> int:
        """An estimate of what an executable takes."""
        return _BOUND_BYTES + _ROW_BYTES * (0 if self._planned is None else len(self.plan.launches))

    def release(self) -> None:
        """Keep only what running takes."""
        self._made = None

    def _run_stages(self, upto: str | type | None = None) -> Compilation:
        graph, verify = self._source
        return compile_graph(
            graph,
            self.backend.target,
            self.hints,
            pipeline=self.pipeline,
            verify=verify,
            fewest_bytes=self.fewest_bytes,
            upto=upto,
        )

    @property
    def launches(self) -> int:
        return int(self.bound.launches) if self.bound is not None else 0

    def fits(self, sizes: dict[str, int]) -> bool:
        """Whether this compilation serves other sizes of the symbolic extents."""
        near = all(
            self.hints[k] == v if k in self._bound_sizes else v <= self.hints[k] * _REGROW for k, v in sizes.items()
        )
        return near and (
            self.backend.interprets
            or all(v <= self.hints[k] for k, v in sizes.items())
            or bool(self.backend.holds(self.program, sizes))
        )

    def place(self, sizes: dict[str, int]) -> Placed:
        key = _key(sizes)
        if key not in self._placed:
            placed = place(self.plan, sizes, section=self.backend.target.max_alloc)
            refuse_oversized(self.plan, placed, self.backend.target)
            self._placed[key] = placed
            while len(self._placed) > 64:
                self._placed.pop(next(iter(self._placed)))
        return self._placed[key]

    def check_limit(self, sizes: dict[str, int], limit: int | None) -> None:
        """Reorder the steps if the plan needs more than ``limit`` bytes.

        Raises:
            OutOfMemoryError: even that is not enough; nothing has been allocated.
        """
        if limit is None:
            return
        if not self.fewest_bytes and self.demand(sizes)[0] > limit:
            self.fewest_bytes = True
            self._compile()
        needed, text = self.demand(sizes)
        if needed > limit:
            raise OutOfMemoryError(f"the memory limit is {limit:,} bytes; {text}")

    def demand(self, sizes: dict[str, int]) -> tuple[int, str]:
        """The bytes that the plan needs, and a text that says so and lists the largest values."""
        placed = self.place(sizes)
        variables = sum(int(product(v.shape)) * v.dtype.itemsize for v in (self.slots[i] for i in self.state))
        sized = sorted(
            (
                (int(bind(b.nbytes, sizes)), b.label)
                for b in self.plan.buffers
                if b.number in placed.offsets or b.position is not None
            ),
            reverse=True,
        )
        largest = "".join(f"\n  {n:,} bytes: {label}" for n, label in sized[:10])
        needed = placed.arena_bytes + variables
        return (
            needed,
            f"the plan needs {needed:,} bytes, {placed.arena_bytes:,} for intermediate values and {variables:,} for "
            f"variables; the largest values:{largest}",
        )

    def bind(self, sizes: dict[str, int], slots: Sequence[StateSlot]) -> Any:
        """An executable for these sizes, over slots in the order of the graph's own (``ir.graph.slots_of``).

        Raises:
            OutOfMemoryError: the device cannot hold the plan; the message lists the largest values.
        """
        try:
            bound = (
                self.backend.interpret(bind_everything(self._source[0], sizes), slots)
                if self.backend.interprets
                else self.backend.bind(self.program, self.place(sizes), slots)
            )
        except OutOfMemoryError as error:
            raise OutOfMemoryError(f"{error}\n{self.demand(sizes)[1]}") from None
        bound.compiled = self
        return bound

    def at(self, bound: Any, sizes: dict[str, int]) -> Compiled:
        """The same compilation, seen at the sizes of one executable."""
        seen = copy.copy(self)
        seen.bound, seen.sizes = bound, sizes
        return seen

    # What users ask

    def memory_analysis(self) -> dict[str, int]:
        """Bytes of the plan: ``arena_bytes lower_bound_bytes feed_bytes fetch_bytes variable_bytes constant_bytes
        workspace_bytes``."""
        plan, placed = self.plan, self.place(self.sizes)

        def total(numbers: Any) -> int:
            return sum(int(bind(plan.buffers[n].nbytes, placed.sizes)) for n in numbers)

        return {
            "arena_bytes": placed.arena_bytes,
            "lower_bound_bytes": placed.lower_bound_bytes,
            "feed_bytes": total(plan.feeds),
            "fetch_bytes": total(dict.fromkeys(f.buffer for f in plan.fetches if f.buffer is not None)),
            "variable_bytes": total(plan.variables),
            "constant_bytes": total(b.number for b in plan.buffers if b.space == CONSTANT),
            "workspace_bytes": total(
                b.number
                for b in plan.buffers
                if b.space == ARENA and b.role == "workspace" and b.number in placed.offsets
            ),
        }

    def cost_analysis(self) -> dict[str, Any]:
        """Work of one run: ``launches flops bytes_accessed levels`` and ``kernels``, a list of name, family, flops,
        bytes, rows.

        Steps of one level with the same function are one kernel with several rows. Packing and partial-sum helpers are
        listed under ``helpers``.
        """
        plan = self.plan
        kernels: dict[tuple[Any, ...], dict[str, Any]] = {}
        helpers: list[dict[str, Any]] = []
        functions = self.backend.functions(self.program)
        for i, step in enumerate(plan.launches):
            entry = {
                "name": step.kernel.name,
                "family": step.family,
                "flops": step.flops,
                "bytes": step.nbytes,
                "rows": 1,
                "level": step.level,
            }
            if step.helper:
                helpers.append(entry)
                continue
            key = (step.level, functions[i])
            if key in kernels:
                found = kernels[key]
                found["flops"] += step.flops
                found["bytes"] += step.nbytes
                found["rows"] += 1
            else:
                kernels[key] = entry
        return {
            "launches": self.launches,
            "levels": len(plan.levels),
            "flops": sum(s.flops for s in plan.launches),
            "bytes_accessed": sum(s.nbytes for s in plan.launches),
            "kernels": list(kernels.values()),
            "helpers": helpers,
        }

    def as_text(self, stage: str = "plan") -> str:
        """A stage as text: ``built simplified fused kernels plan source``, or by the name of a stage of the pipeline,
        which is then run again up to there.

        Raises:
            UsageError: another stage.
        """
        if stage == "built":
            return print_graph(self._source[0])
        if stage == "simplified":
            return print_graph(self.compilation.simplified)
        if stage == "fused":
            return str(self.compilation.partition)
        if stage == "kernels":
            return "\n\n".join(print_kernel(s.kernel) for s in self.plan.launches)
        if stage == "plan":
            return print_plan(self.plan, self.place(self.sizes))
        if stage == "source":
            return str(self.backend.source(self.program))
        if stage in self.pipeline.names:
            return self.pipeline[stage].show(self._run_stages(upto=stage).value)
        raise UsageError(
            f"as_text: no stage {stage!r}; use one of {', '.join(STAGES)}, or of the pipeline's "
            f"{', '.join(self.pipeline.names)}"
        )

    def explain(self) -> str:
        """What each stage of the pipeline did and decided (why each value is stored, each fusion was refused), which
        family runs each kernel, which functions there are, how long their texts are and which kernels share them, and
        how the plan is launched."""
        mode = f"launched as: {self.bound.mode}, {self.bound.launches} launches" if self.bound is not None else ""
        return "\n".join([self.compilation.explain(), *self._functions(), mode])

    def _functions(self) -> list[str]:
        """A line for every distinct function, the longest first; none where a backend generates no text."""
        texts = self.backend.texts(self.program)
        if not texts:
            return []
        callers: list[list[str]] = [[] for _ in texts]
        for kernel, function in enumerate(self.backend.functions(self.program)):
            callers[function].append(str(kernel))
        lines = [
            f"functions: {len(texts)} for {len(self.plan.launches)} kernels, {sum(n for _, n in texts):,} bytes of text"
        ]
        for number in sorted(range(len(texts)), key=lambda i: -texts[i][1]):
            (name, nbytes), its = texts[number], callers[number]
            lines.append(f"  {name}: {nbytes:,} bytes, {'kernel' if len(its) == 1 else 'kernels'} {' '.join(its)}")
        return lines


def _key(sizes: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(sizes.items()))
