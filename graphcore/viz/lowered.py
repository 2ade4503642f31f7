"""Diagrams of what a graph becomes: kernels around their ops, and the plan's steps and buffers."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphcore.base.shapes import bind
from graphcore.ir.graph import Graph
from graphcore.ir.leaves import StateRead
from graphcore.ir.node import Node, Value
from graphcore.ir.op import Kind
from graphcore.kernel.ir import print_kernel
from graphcore.plan.plan import CONSTANT, VARIABLE, Launch, Placed, Plan
from graphcore.viz.adapters import (
    Splats,
    edges_once,
    fetch_node,
    node_tooltip,
    op_label,
    style_of,
    update_node,
    variable_tooltip,
)
from graphcore.viz.diagram import Diagram, DiagramEdge, DiagramGroup, DiagramNode, MemoryMap, MemoryRow
from graphcore.viz.theme import format_bytes

if TYPE_CHECKING:
    from passes.fusion.partition import Group, Partition

__all__ = ["flop_text", "fused_diagram", "plan_diagram", "predecessors"]

Facts = Sequence[tuple[str, str]]


def flop_text(count: float) -> str:
    """A count of arithmetic operations with a decimal unit: ``1.5 Mflop``."""
    for unit in ("", "k", "M", "G", "T"):
        if abs(count) < 999.5 or unit == "T":
            break
        count /= 1000
    return f"{count:.3g} {unit}flop"


# Fused


def fused_diagram(
    partition: Partition,
    pieces: Callable[[Group], Sequence[Any]],
    sizes: Mapping[str, int],
    title: str,
    facts: Facts = (),
) -> Diagram:
    """A picture of a fused graph: each kernel is a frame around the ops that it computes.

    Args:
        partition: the groups.
        pieces: what the target makes of a group: a list of ``graphcore.plan.backend.Piece``; an empty one where all
            that the group stores is empty, so that nothing runs.
        sizes: a value for each symbolic extent.
        title: the heading.
        facts: pairs (name, value) that come after the counts.

    Returns:
        A value that several kernels compute stands in each of them, marked with their number. Views are drawn as labels
        of the edges through which they are read. The values that a kernel stores are marked with their bytes.
    """
    return _Fused(partition, pieces, sizes).diagram(title, facts)


class _Fused:
    def __init__(
        self, partition: Partition, pieces: Callable[[Group], Sequence[Any]], sizes: Mapping[str, int]
    ) -> None:
        self.partition, self.pieces, self.sizes = partition, pieces, sizes
        self.splats = Splats()
        self.running = 0  # kernels that have something to do
        self.nodes: list[DiagramNode] = []
        self.edges: list[DiagramEdge] = []
        self.groups: list[DiagramGroup] = []
        self.names: dict[Value, str] = {}
        self.number: dict[int, int] = {}
        for number, node in enumerate(
            dict.fromkeys((*(t.node for t in partition.graph.inputs), *partition.graph.nodes()))
        ):
            self.number[node.serial] = number
            self.names.update({t: f"%{number}" + (f".{t.index}" if len(node.types) > 1 else "") for t in node.outputs})
        # The box that holds a value for others to read: a leaf, or the op in the kernel that stores it.
        self.home: dict[Value, str] = {t: self.box(t.node, g) for g in partition.groups for t in g.stored}

        self.inside = {g.number: self.computed(g) for g in partition.groups}
        self.copies = Counter(node.serial for nodes in self.inside.values() for node in nodes)

    def box(self, node: Node, group: Group) -> str:
        """The id of an op in a kernel."""
        return f"k{group.number} %{self.number[node.serial]}"

    def diagram(self, title: str, facts: Facts) -> Diagram:
        graph = self.partition.graph
        for t in graph.inputs:
            self.leaf(t)
        for group in self.partition.groups:
            self.kernel(group)
        for number, t in enumerate(graph.outputs):
            self.nodes.append(fetch_node(number, t))
            self.read(t, f"fetch {number}", None)
        frames = {t: f"k{g.number}" for g in self.partition.groups for t in g.stored}
        for number, (variable, value) in enumerate(graph.updates):
            source, _ = self.through(value, None)  # an update stands in the kernel that computes its value
            self.nodes.append(update_node(number, variable, group=frames.get(source)))
            self.read(value, f"update {number}", None, "update")
        stored = sum(self.bytes_of(t) for g in self.partition.groups for t in g.stored)
        counts = (("kernels", str(self.running)), ("stored", format_bytes(stored)))
        return Diagram(title, tuple(self.nodes), edges_once(self.edges), tuple(self.groups), (*counts, *facts))

    def bytes_of(self, t: Value) -> int:
        return int(bind(t.size, self.sizes)) * t.dtype.itemsize

    def kernel(self, group: Group) -> None:
        """A kernel's frame and the ops inside."""
        pieces = self.pieces(group)
        frame, lines = f"k{group.number}", [f"{group.kind}, level {group.level}"]
        if pieces:
            main = next((p for p in pieces if not p.helper), pieces[0])
            helpers = sum(p.helper for p in pieces)
            name = main.kernel.name
            lines += [f"family {main.family}", flop_text(sum(p.flops for p in pieces))]
            lines += [format_bytes(sum(p.nbytes for p in pieces)), *([f"{helpers} helper steps"] if helpers else [])]
        else:
            name = f"{group.nodes[0].op.name}: no elements"
            lines.append("nothing runs")
        self.running += bool(pieces)
        self.groups.append(DiagramGroup(frame, name, tuple(lines)))
        for node in self.inside[group.number]:
            self.op(node, group, frame)

    def computed(self, group: Group) -> list[Node]:
        """The ops that a kernel computes, in graph order: found from what it stores, as lowering finds them."""
        found: dict[int, Node] = {}
        pending = [t.node for t in group.stored]
        while pending:
            node = pending.pop()
            if node.serial not in found:
                found[node.serial] = node
                sources = (self.through(t, group)[0] for t in node.inputs)
                pending += [s.node for s in sources if self.is_inside(s, group)]
        return sorted(found.values(), key=lambda n: self.number[n.serial])

    def is_inside(self, t: Value, group: Group) -> bool:
        """Whether a kernel computes a value that it uses, instead of loading it."""
        return t.node.op.kind is not Kind.LEAF and not self.partition.loads(t, group)

    def through(self, t: Value, group: Group | None) -> tuple[Value, str]:
        """What is behind the views that a kernel, or a result, reads a value through, and the names of those views.

        A view that is a member of the kernel has a box there, and one that another kernel stores is loaded from that.
        """
        seen: list[str] = []
        while t.node.op.kind is Kind.VIEW and t not in self.home and (group is None or t not in group.members):
            if not (t.node.op.is_alias or t.node.op.only_repeats):  # views that a reader need not know of
                seen.append(t.node.op.name)
            t = t.node.inputs[0]
        return t, ", ".join(reversed(seen))

    def op(self, node: Node, group: Group, frame: str) -> None:
        name = self.box(node, group)
        derived = node.origin.derived
        label, attributes = op_label(node, self.splats, derived)
        stored = set(group.stored)
        kept = [f"stored: {format_bytes(self.bytes_of(t))}" for t in node.outputs if t in stored]
        again = [f"in {self.copies[node.serial]} kernels"] if self.copies[node.serial] > 1 else []
        lines = (*filter(None, (attributes,)), *map(str, node.types), str(node.origin), *kept, *again)
        tip = node_tooltip(node, self.splats, self.names)
        style, scope = style_of(node), node.origin.scope
        self.nodes.append(DiagramNode(name, label, node.op.name, lines, scope, frame, tip, style, derived))
        for t in node.inputs:
            if self.splats.text(t) is None:
                self.read(t, name, group)

    def read(self, t: Value, target: str, group: Group | None, style: Any = "data") -> None:
        source, views = self.through(t, group)
        if group is not None and self.is_inside(source, group):
            producer = self.box(source.node, group)
        else:
            producer = self.leaf(source) if source.node.op.kind is Kind.LEAF else self.home[source]
        self.edges.append(DiagramEdge(producer, target, views, style))

    def leaf(self, t: Value) -> str:
        """The node of a placeholder, variable or constant; drawn when first read."""
        if t not in self.home:
            name = self.home[t] = self.names[t]
            label, _ = op_label(t.node, self.splats, derived=False)
            number = self.splats.text(t)
            tip = (
                variable_tooltip(t.node)
                if isinstance(t.node.op, StateRead)
                else node_tooltip(t.node, self.splats, self.names)
            )
            lines = (str(t.type), format_bytes(self.bytes_of(t)))
            self.nodes.append(
                DiagramNode(name, number or label, t.node.op.name, lines, (), None, tip, style_of(t.node))
            )
        return self.home[t]


# Plan


def plan_diagram(
    plan: Plan, placed: Placed, graph: Graph, slots: Sequence[Any], title: str, facts: Facts = ()
) -> Diagram:
    """A picture of a plan: steps and buffers in levels, with the memory map.

    Args:
        plan: the plan.
        placed: its buffers' places, for one set of sizes.
        graph: what was planned; it names the feeds and fetches.
        title: the heading.
        facts: pairs (name, value) that come after the counts.

    Returns:
        Steps as kernels, arena buffers between them with offset and size, and whose bytes they take over; variables
        that are written as updates.
    """
    return _Planned(plan, placed, graph, slots).diagram(title, facts)


class _Planned:
    def __init__(self, plan: Plan, placed: Placed, graph: Graph, slots: Sequence[Any]) -> None:
        self.plan, self.placed, self.graph, self.slots = plan, placed, graph, slots
        self.nodes: list[DiagramNode] = []
        self.edges: list[DiagramEdge] = []
        self.names: dict[int, str] = {}
        self.fed: dict[int, str] = {n: t.name for n, t in zip(plan.feeds, graph.inputs, strict=True)}
        self.over = predecessors(placed, {n: self.bytes_of(n) for n in placed.offsets})

    def bytes_of(self, number: int) -> int:
        return int(bind(self.plan.buffers[number].nbytes, self.placed.sizes))

    def diagram(self, title: str, facts: Facts) -> Diagram:
        plan, placed = self.plan, self.placed
        for number in sorted(self.fed):
            self.buffer(number, None)
        for i, step in enumerate(plan.launches):
            self.step(i, step)
        for i, (fetch, t) in enumerate(zip(plan.fetches, self.graph.outputs, strict=True)):
            constant = ["a constant: computed at compile time"] if fetch.constant is not None else []
            self.nodes.append(fetch_node(i, t, more=constant))
            if fetch.buffer is not None:
                self.edges.append(DiagramEdge(self.buffer(fetch.buffer, None), f"fetch {i}"))
        levels = [
            DiagramGroup(
                f"level {s[0].level}", f"level {s[0].level}", (f"{len(s)} steps",) if len(s) > 1 else (), None, "scope"
            )
            for s in plan.levels
        ]
        work = f"{flop_text(sum(s.flops for s in plan.launches))}, {format_bytes(sum(s.nbytes for s in plan.launches))}"
        arena = f"{format_bytes(placed.arena_bytes)}, at least {format_bytes(placed.lower_bound_bytes)}"
        counts = (("steps", f"{len(plan.launches)} in {len(plan.levels)} levels"), ("work", work), ("arena", arena))
        return Diagram(
            title, tuple(self.nodes), edges_once(self.edges), tuple(levels), (*counts, *facts), self.memory()
        )

    def step(self, i: int, step: Launch) -> None:
        name, level = f"step {i}", f"level {step.level}"
        config = step.choices.describe()
        work = flop_text(step.flops) if step.flops else ""
        lines = (step.family, config, work, format_bytes(step.nbytes), "helper" if step.helper else "")
        tip = "\n".join(filter(None, (step.why, *step.kernel.origins, print_kernel(step.kernel))))
        shown = tuple(line for line in lines if line)
        self.nodes.append(DiagramNode(name, step.kernel.name, f"step {i}", shown, (), level, tip, "kernel"))
        for number in step.reads:
            self.edges.append(DiagramEdge(self.buffer(number, level), name))
        for number in step.writes:
            buffer = self.plan.buffers[number]
            if buffer.space == VARIABLE:
                how = "copied" if (number, i) not in self.plan.in_place else "in place"
                update = f"{name} writes buffer {number}"
                more = (format_bytes(self.bytes_of(number)), how)
                self.nodes.append(
                    replace(update_node(i, self.slots[self.plan.slot(number)], more=more, group=level), id=update)
                )
                self.edges.append(DiagramEdge(name, update, style="update"))
            else:
                self.edges.append(DiagramEdge(name, self.buffer(number, level)))
        for number in step.workspace:
            if number not in step.reads and number not in step.writes:
                self.edges.append(DiagramEdge(name, self.buffer(number, level), style="control"))

    def buffer(self, number: int, level: str | None) -> str:
        """The node of a buffer; drawn at its first use, in that level."""
        if number in self.names:
            return self.names[number]
        b = self.plan.buffers[number]
        name = self.names[number] = f"buffer {number}"
        what = f"{b.dtype}({', '.join(map(str, b.shape))}{',' if len(b.shape) == 1 else ''})"
        size = format_bytes(self.bytes_of(number))
        if b.space == VARIABLE:
            named = self.slots[self.plan.slot(number)].name
            self.nodes.append(DiagramNode(name, named, "variable", (what, size), (), None, b.label, "variable"))
        elif b.space == CONSTANT:
            self.nodes.append(DiagramNode(name, "constant", "constant", (what, size), (), None, b.label, "constant"))
        elif number in self.fed:
            lines = (what, *self.place_lines(number))
            self.nodes.append(DiagramNode(name, self.fed[number], "feed", lines, (), None, b.label, "placeholder"))
        else:
            label = f"#{number} {b.label.partition(' at ')[0]}" if b.role != "workspace" else f"#{number} workspace"
            lines = (what, *self.place_lines(number))
            tip = "\n".join((b.label, *self.reuse_lines(number)))
            self.nodes.append(
                DiagramNode(name, label, "" if b.role == "value" else b.role, lines, (), level, tip, "buffer")
            )
        return name

    def place_lines(self, number: int) -> tuple[str, ...]:
        size = self.bytes_of(number)
        if number not in self.placed.offsets:
            return (format_bytes(size),)
        over = self.over.get(number, ())
        reuse = f"over {', '.join(f'#{n}' for n in over[:3])}{' …' if len(over) > 3 else ''}" if over else ""
        return tuple(filter(None, (f"{format_bytes(size)} @ {self.placed.offsets[number]}", reuse)))

    def reuse_lines(self, number: int) -> list[str]:
        if number not in self.placed.offsets:
            return []
        first, last = self.placed.lifetimes[number]
        lines = [
            f"bytes {self.placed.offsets[number]} to {self.placed.offsets[number] + self.bytes_of(number)} of the arena"
        ]
        lines.append(f"lives from {self.moment(first)} to {self.moment(last)}")
        return lines + [f"takes over bytes of #{n}, {self.plan.buffers[n].label}" for n in self.over.get(number, ())]

    def moment(self, level: int) -> str:
        """A lifetime's end in words."""
        last = max((s.level for s in self.plan.launches), default=0)
        return "the feeds" if level < 0 else "the fetches" if level > last else f"level {level}"

    def memory(self) -> MemoryMap:
        """The arena over levels, with a step before them for the feeds and one after them for the fetches."""
        last = max((s.level for s in self.plan.launches), default=0)
        kernels: dict[int, list[str]] = {}
        for step in self.plan.launches:
            kernels.setdefault(step.level, []).append(step.kernel.name)
        steps = ["feeds", *(f"level {n}: {', '.join(kernels.get(n, []))}" for n in range(last + 1)), "fetches"]
        rows = []
        for number, offset in sorted(self.placed.offsets.items()):
            first, end = self.placed.lifetimes[number]
            rows.append(
                MemoryRow(
                    f"#{number} {self.plan.buffers[number].label}", first + 1, end + 1, offset, self.bytes_of(number)
                )
            )
        return MemoryMap(tuple(rows), tuple(steps))


def predecessors(placed: Placed, sizes: Mapping[int, int]) -> dict[int, tuple[int, ...]]:
    """Whose bytes every buffer takes over: the last earlier owners of its part of the arena, by offset.

    Args:
        placed: offsets and lifetimes.
        sizes: bytes by buffer number.
    """
    found: dict[int, tuple[int, ...]] = {}
    owned: list[tuple[int, int, int]] = []  # (start, end, buffer), disjoint and sorted
    for number in sorted(placed.offsets, key=lambda n: (placed.lifetimes[n], n)):
        start = placed.offsets[number]
        end = start + sizes[number]
        if start == end:
            continue
        first = bisect_right(owned, (start, start, -1))
        first -= first > 0 and owned[first - 1][1] > start
        last = first
        while last < len(owned) and owned[last][0] < end:
            last += 1
        met = owned[first:last]
        found[number] = tuple(dict.fromkeys(n for _, _, n in met))
        left = [(met[0][0], start, met[0][2])] if met and met[0][0] < start else []
        right = [(end, met[-1][1], met[-1][2])] if met and met[-1][1] > end else []
        owned[first:last] = [*left, (start, end, number), *right]
    return found
