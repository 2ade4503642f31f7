"""From kernels to the steps of a plan: kernels scheduled, buffers made, updates put in place or copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from numpy.typing import NDArray

from graphcore.base.errors import CompileError
from graphcore.ir.graph import Graph
from graphcore.ir.leaves import Constant, StateRead
from graphcore.ir.node import Value
from graphcore.ir.op import Kind
from graphcore.ir.state import StateSlot
from graphcore.kernel import expr
from graphcore.kernel.estimate import estimate
from graphcore.kernel.expr import walk
from graphcore.kernel.index import PARALLEL, Axis, as_index
from graphcore.kernel.ir import Kernel, Param, Store
from graphcore.kernel.parts import Part, Parts, uncut
from graphcore.plan.backend import Piece
from graphcore.plan.plan import ARENA, CONSTANT, VARIABLE, Buffer, Fetch, Launch, Plan, Role, print_plan
from graphcore.plan.target import Reject, Target
from passes.fusion.lower import Kernels, verify_kernels
from passes.fusion.partition import is_scalar_constant, stored_root
from passes.planning.choices import choose_for_plan
from passes.planning.flow import Flow, accesses
from passes.planning.levels import Unordered
from passes.planning.limits import refuse_doubles
from passes.stage import Stage, StageContext

__all__ = ["Draft", "Schedule", "Updates", "scheduled"]


class Draft:
    """A plan in the making: steps in the order of the kernels, and which value is in which buffer."""

    def __init__(self, graph: Graph, ctx: StageContext) -> None:
        self.graph, self.target, self.say = graph, ctx.target, ctx.say
        self.hints = dict(ctx.sizes)
        self.buffers: list[Buffer] = []
        self.steps: list[Launch] = []
        self.feeds: list[int] = []
        self.fetches: list[Fetch] = []
        self.variables: list[int] = []
        self.constants: list[NDArray[Any]] = []
        self.in_place: list[tuple[int, int]] = []
        self.slots = {id(variable): position for position, variable in enumerate(ctx.slots)}
        self.buffer_of: dict[Value, int] = {}
        self.variable_buffer: dict[int, int] = {}
        self.old_values: dict[Value, int] = {}  # copies of updated variables that are fetched
        self.pieces: dict[Part, list[Piece]] = {}  # how equal kernels run is asked once

    def __str__(self) -> str:
        return print_plan(self.plan)

    @property
    def plan(self) -> Plan:
        """What there is of the plan by now."""
        return Plan(
            tuple(self.buffers),
            tuple(self.steps),
            tuple(self.feeds),
            tuple(self.fetches),
            tuple(self.variables),
            tuple(self.constants),
            tuple(self.in_place),
            dict(self.hints),
        )

    def schedule_all(self, kernels: Kernels) -> None:
        for t in self.graph.inputs:
            self.feeds.append(self.buffer(t, "feed"))
        verify_kernels(kernels)
        listed = [made for made in kernels.listed if made.kernel.stores]  # else every value it would store is empty
        for made in listed:
            refuse_doubles(made.kernel, self.target)
        cut = [made.parts or uncut(made.kernel) for made in listed]
        pieces = iter(self.choose([part for parts in cut for part in parts.parts]))
        for made, parts in zip(listed, cut, strict=True):
            self.schedule_parts(parts, tuple(self.buffer(t) for t in made.values), pieces)

    def first(self, part: Part) -> list[Piece]:
        """How the target would run a kernel for itself."""
        if part not in self.pieces:
            self.pieces[part] = scheduled(part, self.target, self.hints)
        return self.pieces[part]

    def choose(self, parts: Sequence[Part]) -> list[Sequence[Piece]]:
        """How the target runs each of the plan's kernels."""
        target, sizes = self.target, self.hints
        firsts = [self.first(part) for part in parts]

        def others(number: int) -> list[tuple[Sequence[Piece], float]]:
            assert target.alternatives is not None
            part, menu = parts[number], target.alternatives(parts[number].kernel, sizes)
            return [(_as_counted(part, made, sizes), length) for made, length in menu]

        return choose_for_plan(firsts, others, target, sizes, self.say)

    # Buffers

    def buffer(self, t: Value, role: Role = "value") -> int:
        found = self.buffer_of.get(t)
        if found is not None:
            return found
        node = t.node
        label = f"{node.op.name}{f' {t.name!r}' if role == 'feed' else ''} at {node.origin}"
        if isinstance(node.op, StateRead):
            return self.variable(node.op.slot)
        if isinstance(node.op, Constant):
            made = Buffer(len(self.buffers), CONSTANT, t.shape, t.dtype, label, self.constant(node.op.array))
        else:
            if node.op.kind is Kind.LEAF and role != "feed":
                raise CompileError(
                    f"{node.op.name} {t.name!r} has no value: feed it (it was built at {node.origin.place})"
                )
            made = Buffer(len(self.buffers), ARENA, t.shape, t.dtype, label, None, role)
        self.buffers.append(made)
        self.buffer_of[t] = made.number
        return made.number

    def variable(self, variable: StateSlot) -> int:
        found = self.variable_buffer.get(id(variable))
        if found is None:
            made = Buffer(
                len(self.buffers),
                VARIABLE,
                variable.shape,
                variable.dtype,
                f"variable {variable.name} at {variable.place}",
                self.slots[id(variable)],
            )
            self.buffers.append(made)
            found = self.variable_buffer[id(variable)] = self.buffer_of[variable.read()] = made.number
            self.variables.append(found)
        return found

    def constant(self, array: Any) -> int:
        """The position of an array among the plan's constants."""
        self.constants.append(array)
        return len(self.constants) - 1

    def scratch(self, shape: Any, dtype: Any, label: str) -> int:
        made = Buffer(len(self.buffers), ARENA, shape, dtype, label, None, "workspace")
        self.buffers.append(made)
        return made.number

    # Steps

    def schedule_parts(
        self, parts: Parts, buffers: tuple[int, ...], chosen: Iterator[Sequence[Piece]], why: str = ""
    ) -> None:
        """Steps for what a kernel was cut into.

        Args:
            parts: the kernels.
            buffers: behind the parameters of the whole one.
            chosen: how the target runs each of the parts.
            why: what the steps are there for, where they compute nothing.
        """
        spaces: dict[int, int] = {}
        for part in parts.parts:
            shared = [p for p in sorted(part.params) if p >= len(buffers)]
            for p in shared:
                if p not in spaces:
                    space = parts.workspaces[p - len(buffers)]
                    spaces[p] = self.scratch(space.shape, space.dtype, f"workspace of {parts.whole.name}")
            behind = tuple(buffers[p] if p < len(buffers) else spaces[p] for p in part.params)
            self.schedule(part, next(chosen), behind, tuple(spaces[p] for p in shared), why)

    def schedule(
        self, part: Part, pieces: Sequence[Piece], buffers: tuple[int, ...], shared: tuple[int, ...], why: str
    ) -> None:
        """Steps for one kernel.

        Args:
            part: the kernel and how reports count it.
            pieces: how the target runs it.
            buffers: behind its parameters.
            shared: those of them that are workspaces.
            why: what the steps are there for, where they compute nothing.
        """
        work: dict[int, int] = {}
        for piece in pieces:
            extra = [*shared]
            for number, shape, dtype in piece.workspace:
                if number not in work:
                    work[number] = self.scratch(shape, dtype, f"workspace of {part.kernel.name}")
                extra.append(work[number])
            # A piece's parameters below len(buffers) are the kernel's own, the others are its workspaces.
            mapped = tuple(buffers[i] if i < len(buffers) else work[i - len(buffers)] for i in piece.params)
            self.steps.append(
                Launch(
                    piece.kernel,
                    mapped,
                    piece.family,
                    piece.choices,
                    piece.tasks,
                    piece.arguments,
                    piece.work,
                    workspace=tuple(extra),
                    helper=piece.helper,
                    flops=piece.flops,
                    nbytes=piece.nbytes,
                    why=why,
                    elementwise_order=piece.elementwise_order,
                    flattens=piece.flattens,
                )
            )

    def copy(self, source: int, target: int, why: str) -> None:
        """A step that copies one buffer to another of the same type."""
        b = self.buffers[source]
        axis = Axis("i0", b.nbytes // b.dtype.itemsize if isinstance(b.nbytes, int) else _elements(b), PARALLEL)
        at = as_index(axis)
        shape = (axis.extent,)
        axes = (axis,) if axis.extent != 1 else ()
        kernel = Kernel(
            "copy",
            (Param("p0", b.dtype, shape), Param("p1", b.dtype, shape)),
            axes,
            (Store(1, at, expr.load(0, at, b.dtype)),),
            origins=(why,),
        )
        parts = uncut(kernel)
        self.schedule_parts(parts, (source, target), map(self.first, parts.parts), why)

    def finish_updates(self) -> Flow:
        """Write each update over its variable where every other reader of the old value runs before; else copy at the
        end."""
        self.keep_old_values()
        flow = Flow(accesses(self.plan), self.state())
        over: dict[int, int] = {}  # new values that are written over their variable's old one
        copied: list[tuple[int, int, str]] = []
        for variable, value in self.graph.updates:
            old = self.variable(variable)
            root = stored_root(value)
            if root == variable.read() or variable.size == 0:  # no kernel computes what has no elements
                continue
            why = f"{variable.name} <- {root.node.op.name}"
            if is_scalar_constant(root.node) or root.node.op.kind is Kind.LEAF:
                held = self.scratch(variable.shape, variable.dtype, f"new value of {variable.name}")
                self.copy(self.buffer(root), held, f"{variable.name} takes the value of another leaf")
                copied.append((held, old, why))
                continue
            new = self.buffer_of[root]
            reason = "another variable takes it" if new in over else self.cannot_replace(flow, old, new)
            if reason is None:
                over[new] = old
            else:
                self.say(f"the update of {variable.name} is copied at the end: {reason}")
                copied.append((new, old, why))
        circular = Flow(accesses(self.plan), self.state(), over).circular()
        for new, old in tuple(over.items()):
            if circular.intersection(flow.writers[new]):
                del over[new]
                name = self.buffers[old].label
                self.say(f"the update of {name} is copied at the end: updates need each other's old values")
                copied.append((new, old, name))
        for source, target, why in copied:
            self.copy(source, target, why)
        flow = Flow(accesses(self.plan), self.state(), over)
        self.replace(flow, over)
        return flow

    def state(self) -> set[int]:
        """The variables' buffers: whatever reads one reads its value from before the run."""
        return {*self.variables}

    def keep_old_values(self) -> None:
        """Copy every variable that is both fetched and updated: a fetch is the value before the run."""
        updated = {v.read(): v for v, value in self.graph.updates if stored_root(value) != v.read() and v.size != 0}
        for t in self.graph.outputs:
            root = stored_root(t)
            if root in updated and root not in self.old_values:
                variable = updated[root]
                held = self.old_values[root] = self.scratch(
                    variable.shape, variable.dtype, f"old value of {variable.name}"
                )
                self.copy(self.variable(variable), held, f"{variable.name} is fetched and updated")

    def cannot_replace(self, flow: Flow, old: int, new: int) -> str | None:
        """Why the kernel that computes a variable's new value cannot write it over the old one; None if it can."""
        if self.buffers[new].space != ARENA or self.buffers[new].role == "feed":
            return "its new value is no computed value of its own"
        writers = flow.writers.get(new, ())
        if len(writers) != 1:
            return "several kernels write its new value"
        place = writers[0]
        writer = self.steps[place]
        if old in writer.buffers and not writer.elementwise_order:
            return "the kernel that computes it reads the old value out of order"
        if old in writer.buffers and not _same_elements(writer, old, new):
            return "the kernel that computes it reads other elements of the old value than it writes"
        if old in writer.buffers and not _reads_before_writing(writer, old, new):
            return "a reduction of the kernel that computes it may read the old value later"
        late = flow.follows(place, [i for i in flow.readers.get(old, ()) if i > place])
        return None if late is None else f"{self.steps[late].kernel.name} needs the old value later"

    def replace(self, flow: Flow, over: Mapping[int, int]) -> None:
        """Let the kernels that compute new values write the variables' own buffers."""
        for new, old in over.items():
            self.buffers[new] = replace(self.buffers[new], role="replaced")
            self.in_place += [(old, i) for i in flow.writers[new]]
            for i in dict.fromkeys((*flow.writers[new], *flow.readers.get(new, ()))):
                self.steps[i] = self.steps[i].renamed(new, old)
        self.buffer_of = {key: over.get(number, number) for key, number in self.buffer_of.items()}

    def fetch(self, t: Value) -> Fetch:
        root = stored_root(t)
        if isinstance(root.node.op, Constant):
            return Fetch(None, t.shape, t.dtype, self.constant(root.node.op.array))
        number = self.old_values.get(root, -1)
        if number < 0:
            number = self.buffer(root)
        found = self.buffers[number]
        if found.space == ARENA and found.role == "value":
            self.buffers[number] = replace(found, role="fetch")
        return Fetch(number, t.shape, t.dtype)


def scheduled(part: Part, target: Target, sizes: Mapping[str, int]) -> list[Piece]:
    """How a target runs a kernel, counted as reports count it.

    Raises:
        CompileError: no family of the target can run it; the message names its ops and lines.
    """
    assert target.schedule is not None
    kernel = part.kernel
    pieces = target.schedule(kernel, target, sizes)
    if isinstance(pieces, Reject):
        raise CompileError(f"{target.name} cannot run {kernel.name}: {pieces.reason}\n  " + "\n  ".join(kernel.origins))
    return _as_counted(part, pieces, sizes)


def _as_counted(part: Part, pieces: Sequence[Piece], sizes: Mapping[str, int]) -> list[Piece]:
    """The pieces of a part as reports count it."""
    if part.counted is part.kernel:
        return list(pieces)
    flops, nbytes = (0.0, 0.0) if part.counted is None else estimate(part.counted, sizes)
    return [p if p.helper else replace(p, helper=part.helper, flops=flops, nbytes=nbytes) for p in pieces]


def _elements(b: Buffer) -> Any:
    total: Any = 1
    for e in b.shape:
        total = total * e
    return total


def _reads_before_writing(step: Launch, old: int, new: int) -> bool:
    """Whether only the store of ``new`` itself needs ``old``: a kernel with reductions has several loops, and one may
    come after that store."""
    reductions = step.kernel.reductions()
    bound = {a for v in reductions for a in v.reduce_axes}
    stores = [s for s in step.kernel.stores if step.buffers[s.param] == new]
    if not any(s.index.axes() & bound for s in stores):
        return True  # it is written after all loops, when the values of all such stores have been computed
    elsewhere = [
        *(v.args[0] for v in reductions),
        *(s.value for s in step.kernel.stores if step.buffers[s.param] != new),
    ]
    return not any(v.fn == "load" and step.buffers[v.param] == old for v in expr.walk(*elsewhere))


def _same_elements(step: Launch, old: int, new: int) -> bool:
    """Whether the kernel loads each element of ``old`` only where it stores that very element of ``new``."""
    kernel = step.kernel
    stores = [s for s in kernel.stores if step.buffers[s.param] == new]
    if len(stores) != 1:
        return False
    store = stores[0]
    if any(v.index != store.index for v in kernel.values() if v.fn == "load" and step.buffers[v.param] == old):
        return False
    bound = {a for v in kernel.reductions() for a in v.reduce_axes}
    if store.index.axes() >= set(kernel.axes) - bound:
        return True
    # It is stored once, by one task, while other tasks may still need the old value for other stores.
    others = walk(*(s.value for s in kernel.stores if s is not store))
    return not any(v.fn == "load" and step.buffers[v.param] == old for v in others)


@dataclass(frozen=True)
class Schedule(Stage[Kernels, Draft]):
    """Ask the target how each kernel runs, and give every value a buffer.

    Requires: kernels in an order in which they can run; they are verified here, whoever made them.
    Ensures: steps in that order, each over buffers of its own values. No variable is written yet.
    """

    name: ClassVar[str] = "schedule"
    takes: ClassVar[type] = Kernels
    gives: ClassVar[type] = Draft

    def run(self, kernels: Kernels, ctx: StageContext, /) -> Draft:
        """The steps.

        Raises:
            CompileError: a kernel that no family of the target can run; the message names its ops and lines.
        """
        draft = Draft(kernels.graph, ctx)
        draft.schedule_all(kernels)
        return draft


@dataclass(frozen=True)
class Updates(Stage[Draft, Unordered]):
    """Write the new values of variables, in place where every other reader of the old value runs before, and find what
    is fetched.

    Requires: a draft, which is used up.
    Ensures: a plan that misses nothing but the order of its steps, and what each step must wait for.
    """

    name: ClassVar[str] = "updates"
    takes: ClassVar[type] = Draft
    gives: ClassVar[type] = Unordered

    def run(self, draft: Draft, ctx: StageContext, /) -> Unordered:
        draft.say = ctx.say
        flow = draft.finish_updates()
        for t in draft.graph.outputs:
            draft.fetches.append(draft.fetch(t))
        return Unordered(draft.plan, flow)
