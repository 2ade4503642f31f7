"""Fusion: cut a graph into groups, each of which becomes one kernel.

One scan in graph order. A node joins a group of one of its operands (or of a sibling that reads the same value) if

* everything it reads outside has a smaller *level* than the group, so that the cut graph has no cycle;
* lowering its body over the group's axes meets members only at their canonical index, so that the group stays one loop
  nest;
* the group's kind allows it, and the caps of the target hold.

There are no patterns: softmax, layer norm and cross entropy, forward and backward, come out as one group each because
their reductions bind the same axes of one domain. Which members are stored is decided afterwards; ``recompute`` then
asks which of those are cheaper to compute again where they are used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from graphcore.base.errors import VerifyError
from graphcore.base.shapes import Dim, Extent, Shape, typical
from graphcore.ir.graph import Graph
from graphcore.ir.node import Node, Value
from graphcore.ir.op import Kind, Reduce
from graphcore.kernel import expr
from graphcore.kernel.expr import Expr
from graphcore.kernel.index import REDUCE, Axis, Index
from graphcore.kernel.ir import KernelKind
from passes.fusion.axes import Indices, awkward_views, bind_axes, fresh_axes, viewed
from passes.fusion.lower import lower_node
from passes.fusion.partition import (
    Group,
    Partition,
    contraction_of,
    is_inline,
    is_scalar_constant,
    stored_root,
)
from passes.stage import Stage, StageContext

__all__ = ["Fuse"]

_READERS_KEPT = 4  # siblings looked at per value: enough to merge neighbours, and 10,000 readers stay linear
_SCALAR_DEPTH = 8  # operations that every task may repeat to make a scalar
_INLINE_SOURCES = 24  # an inline node that reads more values than this is stored, so that chains of views stay cheap


class _Refused(Exception):
    """A join that cannot be; its text says why."""


class _Reads:
    """How the lowering of a candidate's body reads values: members at their canonical index only. A class, because a
    function that names itself would keep the graph in a circle.

    Args:
        members: the group's, with their indices.
        sources: the inline nodes that may be read through, by serial.
    """

    def __init__(self, members: Mapping[Value, Indices], sources: Container[int]) -> None:
        self.members, self.sources = members, sources

    def __call__(self, t: Value, at: Indices, guard: Expr | None = None) -> Expr:
        canonical = self.members.get(t)
        if canonical is not None:
            if canonical != at:
                raise _Refused(f"it needs {t.node.op.name} at {t.node.origin} at other elements than its own")
            return expr.let_ref("member", expr.index_value(at[0], t.dtype) if at else expr.const(0, t.dtype))
        if is_scalar_constant(t.node):
            return expr.const(t.node.op.scalar, t.dtype)  # type: ignore[attr-defined]
        if t.node.serial in self.sources:
            return lower_node(t.node, t.index, at, self, lambda n, e, p: None)
        return expr.let_ref("outside", expr.const(0, t.dtype))


@dataclass(frozen=True)
class Fuse(Stage[Graph, Partition]):
    """Cut a graph into groups.

    Requires: no region.
    Ensures: groups in an order in which they can run; every value that a result is or that another group reads is
    stored. A value made of few scalars is computed again wherever it is read.

    Attributes:
        allow: an extra condition ``(node, group)`` on every fusion; it lets tests draw random legal partitions.
    """

    name: ClassVar[str] = "fuse"
    takes: ClassVar[type] = Graph
    gives: ClassVar[type] = Partition
    allow: Callable[[Node, Group], bool] | None = None

    def run(self, graph: Graph, ctx: StageContext, /) -> Partition:
        scan = _Scan(graph, ctx, self.allow)
        partition = scan.run()
        ctx.visits, ctx.attempts = scan.visits, scan.attempts
        return partition

    def requires(self, graph: Graph, /) -> None:
        region = next((node for node in graph.nodes() if node.op.kind is Kind.REGION), None)
        if region is not None:
            raise VerifyError(f"a region cannot be cut: {region}\n  it was built at {region.origin.place}")


@dataclass
class _Scan:
    """The scan's state."""

    graph: Graph
    ctx: StageContext
    allow: Callable[[Node, Group], bool] | None
    groups: list[Group] = field(default_factory=list)
    home: dict[Value, Group] = field(default_factory=dict)
    sources: dict[int, tuple[Value, ...]] = field(default_factory=dict)
    readers: dict[Value, deque[Group]] = field(default_factory=dict)
    forced: set[Value] = field(default_factory=set)
    update_only: set[int] = field(default_factory=set)
    scalars: dict[Node, int] = field(default_factory=dict)
    awkward: set[Node] = field(default_factory=set)
    visits: int = 0
    attempts: int = 0  # lowerings that asked whether a node fits into a group

    def __post_init__(self) -> None:
        self.target = self.ctx.target

    def run(self) -> Partition:
        nodes = self.graph.nodes()
        self.forced = {t for t in map(stored_root, self.graph.roots) if t.node.op.kind is not Kind.LEAF}
        self.update_only = update_cone(self.graph, nodes)
        self.awkward = awkward_views(nodes)
        for node in nodes:
            self.visits += 1
            if node.op.kind is Kind.LEAF or (node in self.awkward and self.realize(node)):
                continue
            if self.is_read_through(node):
                self.sources[node.serial] = self.collect_sources(node)
            else:
                self.place(node)
        self.align_updates()
        self.groups.sort(key=lambda g: (g.level, g.number))
        store_what_is_used(self.graph, self.groups, self.home, self.sources, self.forced)
        return Partition(
            self.graph,
            tuple(g for g in self.groups if g.stored),
            recomputed=frozenset(node.output() for node in self.scalars),
            pinned=frozenset((*self.forced, *(node.output() for node in self.awkward))),
        )

    def align_updates(self) -> None:
        """Run the optimizer's elementwise groups in one level: nothing waits for them, and together they are rows of
        one launch."""
        read = {key for g in self.groups for key in g.reads}
        last = [
            g
            for g in self.groups
            if g.kind is KernelKind.MAP
            and all(n.serial in self.update_only for n in g.nodes)
            and not read & g.members.keys()
        ]
        together = max((g.level for g in last), default=0)
        for group in last:
            group.level = together

    def is_read_through(self, node: Node) -> bool:
        """Inline nodes vanish into their readers, unless they are themselves results or read too much.

        So do scalars made of few scalars: a task computes them once, a kernel of their own would cost a launch.
        """
        if not self.forced.isdisjoint(node.outputs):
            return False
        if is_inline(node):
            return len(self.collect_sources(node)) <= _INLINE_SOURCES
        if node.op.kind is not Kind.MAP or node.types[0].size != 1:
            return False
        depth = 1 + max((self.scalars.get(t.node, 0) for t in node.inputs), default=0)
        if depth > _SCALAR_DEPTH or any(t.size != 1 for t in self.collect_sources(node)):
            return False
        self.scalars[node] = depth
        return True

    def collect_sources(self, node: Node) -> tuple[Value, ...]:
        """The values that computing a node reads, looking through inline nodes."""
        found: dict[Value, Value] = {}
        for t in node.inputs:
            inner = self.sources.get(t.node.serial)
            for source in inner if inner is not None else (() if is_scalar_constant(t.node) else (t,)):
                found[source] = source
        return tuple(found.values())

    # Placing one node

    def place(self, node: Node) -> None:
        sources = self.collect_sources(node)
        if not self.join_any(node, sources, self.candidates(node, sources)):
            self.start(node, sources)

    def realize(self, node: Node) -> bool:
        """Let the producer store a view in the order in which a product reads it well; whether it can."""
        sources = self.collect_sources(node)
        return self.join_any(node, sources, [(g, False) for g in (self.home.get(t) for t in sources) if g is not None])

    def join_any(self, node: Node, sources: tuple[Value, ...], candidates: Iterable[tuple[Group, bool]]) -> bool:
        refusals: list[str] = []
        for group, sibling in candidates:
            try:
                self.join(node, group, sources, sibling)
                return True
            except _Refused as reason:
                refusals.append(
                    f"{node.op.name} at {node.origin} not into kernel {group.number} ({group.nodes[0].op.name}): "
                    f"{reason}"
                )
        for line in refusals:
            self.ctx.say(line)
        return False

    def candidates(self, node: Node, sources: tuple[Value, ...]) -> Iterable[tuple[Group, bool]]:
        if node.op.kind is Kind.CONTRACT:
            return []
        producers = {g.number: g for g in (self.home.get(t) for t in sources) if g is not None}
        listed = [(g, False) for g in sorted(producers.values(), key=lambda g: (-g.level, g.number))]
        size = node.types[0].size if not isinstance(node.op, Reduce) else node.inputs[0].size
        for t in sources:
            if t.size == size and size != 1:
                listed += [(g, True) for g in self.readers.get(t, ()) if g.number not in producers]
            elif not _is_pointwise(node):  # windows over the same value: a maximum and its position read it once
                listed += [
                    (g, True)
                    for g in self.readers.get(t, ())
                    if g.kind is KernelKind.WINDOW and g.shape == node.types[0].shape
                ]
        if size == 1 and node.output() in self.forced:
            listed += self.hosts(sources)
        return listed

    def hosts(self, sources: tuple[Value, ...]) -> list[tuple[Group, bool]]:
        """A kernel that may store a scalar result on the side, so that a counter costs none of its own.

        Best one of many axes: it is not going to vanish because its values are better computed again.
        """
        level = 1 + max((self.home[t].level for t in sources if t in self.home), default=0)
        loops = (KernelKind.MAP, KernelKind.ROWS)
        fitting = [g for g in self.groups[:64] if g.level >= level and g.kind in loops and g.shape != ()]
        return [
            (g, True) for g in sorted(fitting, key=lambda g: (g.kind is not KernelKind.ROWS, -len(g.axes), g.level))[:1]
        ]

    def join(self, node: Node, group: Group, sources: tuple[Value, ...], sibling: bool) -> None:
        self.check_kind(node, group)
        for t in sources:
            producer = self.home.get(t)
            if producer is not None and producer is not group and producer.level >= group.level:
                raise _Refused(f"its operand {t.node.op.name} at {t.node.origin} is ready only after that kernel")
        reasons = []
        for index, bound in self.canonical_indices(node, group):
            try:
                self.try_index(node, group, index, bound)
            except _Refused as reason:
                reasons.append(str(reason))
                continue
            if self.allow is not None and not self.allow(node, group):
                raise _Refused("refused by the caller")
            self.admit(node, group, index, bound, sources)
            return
        raise _Refused(reasons[0] if reasons else "its elements do not line up with that kernel's axes")

    def check_kind(self, node: Node, group: Group) -> None:
        caps = self.target
        if group.ops + self.weight(node) > caps.max_ops:
            raise _Refused(f"the kernel holds {caps.max_ops} ops already")
        if len(group.reads) + len(group.members) // 4 >= caps.max_operands:
            raise _Refused(f"the kernel reads {len(group.reads)} buffers already")
        if group.kind is KernelKind.CONTRACT:
            if node.serial in self.update_only and not any(t in group.sums for t in self.collect_sources(node)):
                raise _Refused(
                    "an optimizer's update runs as rows of one kernel, which is faster than in a product's epilogue"
                )
            if isinstance(node.op, Reduce) and node.op.combine != "add":
                raise _Refused("a product's epilogue gathers sums only")
            if not isinstance(node.op, Reduce) and node.op.kind not in (Kind.MAP, Kind.VIEW):
                raise _Refused("a product's epilogue takes elementwise work only")
        if isinstance(node.op, Reduce):
            if group.kind is KernelKind.WINDOW:
                raise _Refused(f"a {group.kind} kernel takes no further reductions")
            if group.reductions >= caps.max_reductions:
                raise _Refused(f"the kernel has {group.reductions} reductions already")

    def weight(self, node: Node) -> int:
        """Operations that a node adds to a kernel, with the longest chain of scalars that it reads through."""
        return 1 + max((self.scalars.get(t.node, 0) for t in node.inputs), default=0)

    def canonical_indices(self, node: Node, group: Group) -> list[tuple[Indices, dict[int, Axis | None]]]:
        """Where the node's elements could sit on the group's axes; with the axes that a reduction binds."""
        if isinstance(node.op, Reduce):
            axes = node.op.axes  # type: ignore[attr-defined]
            found = []
            for full in self.operand_indices(node.inputs[0], group):
                bound = bind_axes(full, node.inputs[0].shape, axes)
                if bound is not None:
                    found.append((tuple(i for a, i in enumerate(full) if a not in axes), bound))
            return found
        if node.op.kind is Kind.VIEW:
            through = self.index_of(node.inputs[0], group)
            return [(viewed(through, node), {})] if through is not None and node.op.inverts_index else []
        listed: dict[Indices, None] = {}
        for t in node.inputs:
            if t.shape == node.types[0].shape:
                listed.update(dict.fromkeys(self.operand_indices(t, group)))
        known = group.by_shape.get(node.types[0].shape)
        if known is not None:
            listed[known] = None
        if all(e == 1 for e in node.types[0].shape):
            listed[tuple(Index(0) for _ in node.types[0].shape)] = None
        return [(index, {}) for index in listed]

    def operand_indices(self, t: Value, group: Group) -> list[Indices]:
        through = self.index_of(t, group)
        known = group.by_shape.get(t.shape)
        return list(dict.fromkeys(i for i in (through, known) if i is not None))

    def index_of(self, t: Value, group: Group) -> Indices | None:
        """The canonical index of a member, or of a view of one, walking forward through invertible views."""
        chain: list[Value] = []
        while t not in group.members:
            if not t.node.op.inverts_index or t.node.serial not in self.sources:
                return None
            chain.append(t)
            t = t.node.inputs[0]
        index = group.members[t]
        for view in reversed(chain):
            index = viewed(index, view.node)
        return index

    def try_index(self, node: Node, group: Group, index: Indices, bound: dict[int, Axis | None]) -> None:
        """Lower the node's body over the group's axes; refuse if it meets a member anywhere but at its canonical
        index."""
        self.attempts += 1
        if isinstance(node.op, Reduce):
            axes = frozenset(a for a in bound.values() if a is not None)
            if group.columns is not None and axes != group.columns:
                raise _Refused("it reduces other axes than the kernel's reductions")
            if any(isinstance(a.extent, Dim) and a != group.axes[0] for a in axes):
                raise _Refused("it reduces an inner symbolic axis")

        read = _Reads(group.members, self.sources)

        def axis(n: Node, extent: Extent, position: int) -> Axis | None:
            """A reduction's axis of the domain, or one of a window's own: its reads depend on it."""
            return (
                bound[position] if position in bound else None if extent == 1 else Axis(f"w{position}", extent, REDUCE)
            )

        free = frozenset(group.axes)
        if any(i.axes() - free for i in index):
            raise _Refused("it has axes that the kernel lacks")
        for output in range(len(node.types)):
            lower_node(node, output, index, read, axis)
        needed = frozenset().union(*(i.axes() for i in index)) if index else frozenset()
        if group.kind is KernelKind.CONTRACT:
            self.check_epilogue(node, group, needed, bound)
            return
        reads_members = any(t in group.members for t in self.collect_sources(node))
        row_axes = free - (group.columns or frozenset())
        if isinstance(node.op, Reduce) and needed - free:
            raise _Refused("its result has axes that the kernel lacks")
        if group.kind is KernelKind.WINDOW and needed != free and reads_members:
            raise _Refused("it is smaller than the kernel's result")
        if needed and needed < row_axes and group.columns is not None:
            raise _Refused("it is smaller than the kernel's rows")
        if needed != free and needed and group.columns is None and not isinstance(node.op, Reduce):
            raise _Refused("it is smaller than the kernel's domain")

    def check_epilogue(self, node: Node, group: Group, needed: frozenset[Axis], bound: dict[int, Axis | None]) -> None:
        """A product's epilogue: elementwise work, sums of it over everything but its columns, and elementwise work on
        those sums."""
        free = frozenset(group.axes)
        members = [t for t in self.collect_sources(node) if t in group.members]
        of_sums = any(key in group.sums for key in members)
        if node.op.kind is Kind.OPAQUE and not _is_pointwise(node):
            raise _Refused("a product's epilogue takes elementwise work only")
        if isinstance(node.op, Reduce):
            if of_sums or not members:
                raise _Refused("a product's epilogue sums what the product makes")
            if len(group.axes) < 2 or not needed or needed != columns_of(group):
                raise _Refused(
                    "a product's epilogue gathers one sum for each of its columns, a convolution's one for each of "
                    "its channels"
                )
            summed = node.inputs[0]
            costs, nbytes = self.target.costs, typical(summed.size) * summed.dtype.itemsize
            if costs.traffic_seconds(nbytes) < costs.kernel_seconds:
                raise _Refused("reading so few elements again costs less than another kernel for the tasks' sums")
        elif of_sums and needed != free - (group.columns or frozenset()):
            raise _Refused("it needs sums over all of the product's rows")
        elif not of_sums and needed != free and (members or needed):
            raise _Refused("it is smaller than the product's result")

    def admit(
        self, node: Node, group: Group, index: Indices, bound: dict[int, Axis | None], sources: tuple[Value, ...]
    ) -> None:
        for output, kind in enumerate(node.types):
            group.members[Value(node, output)] = index
            self.home[Value(node, output)] = group
            group.by_shape.setdefault(kind.shape, index)
        group.nodes.append(node)
        group.ops += self.weight(node)
        for position, axis in bound.items():
            group.bound[node.serial, position] = axis
        if group.kind is KernelKind.CONTRACT and (isinstance(node.op, Reduce) or any(t in group.sums for t in sources)):
            group.sums.update(node.outputs)
        if isinstance(node.op, Reduce):
            group.kind = KernelKind.CONTRACT if group.kind is KernelKind.CONTRACT else KernelKind.ROWS
            group.columns = frozenset(a for a in bound.values() if a is not None)
            group.reductions += 1
        self.note_reads(group, sources)

    def note_reads(self, group: Group, sources: tuple[Value, ...]) -> None:
        for t in sources:
            if t not in group.members:
                group.reads.setdefault(t, t)
                kept = self.readers.setdefault(t, deque(maxlen=_READERS_KEPT))
                if group not in kept:
                    kept.append(group)

    def start(self, node: Node, sources: tuple[Value, ...]) -> None:
        """A group of the node alone."""
        level = 1 + max((self.home[t].level for t in sources if t in self.home), default=0)
        plain = isinstance(node.op, Reduce)
        shape = node.inputs[0].shape if plain else node.types[0].shape
        axes, index = fresh_axes(shape)
        kind = KernelKind.MAP if _is_pointwise(node) else KernelKind.WINDOW
        if node.op.kind is Kind.CONTRACT:
            kind = KernelKind.CONTRACT
        group = Group(len(self.groups), kind, axes, shape, level)
        group.by_shape[shape] = index
        self.groups.append(group)
        bound: dict[int, Axis | None] = {}
        if plain:
            found = bind_axes(index, shape, node.op.axes)  # type: ignore[attr-defined]
            assert found is not None
            bound = found
            index = tuple(i for a, i in enumerate(index) if a not in node.op.axes)  # type: ignore[attr-defined]
        self.admit(node, group, index, bound, sources)


def _is_pointwise(node: Node) -> bool:
    """Whether an opaque op is computed element by element without loops of its own (gather, padding, random bits)."""
    return not node.op.loops


def columns_of(group: Group) -> frozenset[Axis]:
    """The axis of a product's result for whose every element an epilogue may gather a sum: columns, or a convolution's
    channels."""
    product = group.nodes[0]
    roles = contraction_of(product)
    column = roles.column() if roles is not None else None
    return group.members[product.output()][column].axes() if column is not None else frozenset()


def update_cone(graph: Graph, nodes: list[Node]) -> set[int]:
    """Nodes that serve nothing but variables' updates: the optimizer."""
    wanted = {t.node.serial for t in graph.outputs}
    serves_other: set[int] = set(wanted)
    shapes: dict[int, set[Shape]] = {}
    for variable, value in graph.updates:
        shapes.setdefault(value.node.serial, set()).add(variable.shape)
    elementwise: set[int] = set()
    for node in reversed(nodes):
        mine = shapes.get(node.serial)
        if mine and node.serial not in serves_other and node.op.kind in (Kind.MAP, Kind.VIEW):
            elementwise.add(node.serial)
            for t in node.inputs:
                shapes.setdefault(t.node.serial, set()).update(mine)
        else:
            for t in node.inputs:
                serves_other.add(t.node.serial)
    return {s for s in elementwise if s not in serves_other}


def store_what_is_used(
    graph: Graph,
    groups: list[Group],
    home: dict[Value, Group],
    sources: dict[int, tuple[Value, ...]],
    forced: set[Value],
) -> None:
    """A member is stored when it is a result or when another group reads it."""
    needed = set(forced)
    for group in groups:
        needed.update(key for key in group.reads)
    for group in groups:
        group.stored = [t for node in group.nodes for t in node.outputs if t in needed]
