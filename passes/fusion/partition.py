"""Partitions: the groups that fusion makes of a graph, and what every group reads and stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from graphcore.base.errors import VerifyError
from graphcore.base.shapes import Shape
from graphcore.ir.graph import Graph, verify_graph
from graphcore.ir.leaves import Constant
from graphcore.ir.node import Node, Value
from graphcore.ir.op import Kind
from graphcore.kernel.contraction import ContractionRoles
from graphcore.kernel.index import Axis, Index
from graphcore.kernel.ir import KernelKind

__all__ = [
    "Group",
    "Partition",
    "contraction_of",
    "is_inline",
    "is_scalar_constant",
    "stored_root",
    "verify_partition",
]


def is_scalar_constant(node: Node) -> bool:
    """A rank-0 or one-element constant, written into kernels as a literal."""
    return isinstance(node.op, Constant) and node.op.array.size == 1


def is_inline(node: Node) -> bool:
    """Whether a node costs nothing to repeat: views, literals, positions, paddings. Consumers read through it."""
    return node.op.inline or is_scalar_constant(node)


def contraction_of(node: Node) -> ContractionRoles | None:
    """What a node sums over what, where it is a sum of products and says so."""
    return node.op.contraction_roles(*(t.type for t in node.inputs))


@dataclass
class Group:
    """Nodes that become one kernel.

    Attributes:
        number: position in the partition.
        kind: the loops of its kernel.
        axes: the iteration domain.
        shape: the domain's extents, size-1 axes included.
        members: the canonical index of every member value over the domain's axes.
        bound: the axis that a reducing member binds at an operand position.
        columns: the domain axes that reductions bind; None while there are none.
        ops: operations that its kernel does for a point: its nodes, and the scalars that they compute on the way.
        sums: members of a product's group that hold sums over its columns, or are made of such: known only when the
            product is done.
        level: one more than the largest level of the groups it reads.
        nodes: member nodes, in graph order.
        reads: outside values, in order of first use.
        stored: member values that others need.
    """

    number: int
    kind: KernelKind
    axes: tuple[Axis, ...]
    shape: Shape
    level: int
    members: dict[Value, tuple[Index, ...]] = field(default_factory=dict)
    bound: dict[tuple[int, int], Axis | None] = field(default_factory=dict)
    columns: frozenset[Axis] | None = None
    ops: int = 0
    sums: set[Value] = field(default_factory=set)
    nodes: list[Node] = field(default_factory=list)
    reads: dict[Value, Value] = field(default_factory=dict)
    stored: list[Value] = field(default_factory=list)
    by_shape: dict[Shape, tuple[Index, ...]] = field(default_factory=dict)
    reductions: int = 0


@dataclass(frozen=True)
class Partition:
    """A graph cut into groups.

    Attributes:
        graph: what was cut.
        groups: in an order in which they can run.
        recomputed: values that consumers compute again instead of loading them.
        pinned: values that stay stored, however cheap they are: results, and what is stored in another order.
    """

    graph: Graph
    groups: Sequence[Group]
    recomputed: frozenset[Value] = frozenset()
    pinned: frozenset[Value] = frozenset()

    @cached_property
    def stored(self) -> frozenset[Value]:
        """Every value that some group stores."""
        return frozenset(t for g in self.groups for t in g.stored)

    def loads(self, t: Value, group: Group) -> bool:
        """Whether a group's kernel takes a value from memory. All else that it uses it computes itself: its members,
        what costs nothing to repeat, and what readers compute again."""
        return t not in group.members and (t in self.stored or not (is_inline(t.node) or t in self.recomputed))

    def group_of(self) -> dict[Value, Group]:
        """The group of every member value."""
        return {key: g for g in self.groups for key in g.members}

    def __str__(self) -> str:
        lines = []
        for g in self.groups:
            stored = set(g.stored)
            lines.append(f"group {g.number} ({g.kind}, level {g.level})")
            for n in g.nodes:
                mark = " -> stored" if not stored.isdisjoint(n.outputs) else ""
                lines.append(f"  {n.op.name} : {', '.join(map(str, n.types))}{mark}  # {n.origin}")
        return "\n".join(lines)


def stored_root(t: Value) -> Value:
    """The value whose buffer a root may share: reshapes need no copy."""
    while t.node.op.is_alias:
        t = t.node.inputs[0]
    return t


def verify_partition(partition: Partition) -> None:
    """Check that the groups can run in their order and that everything they need is there.

    Raises:
        VerifyError: naming the value and its line.
    """
    verify_graph(partition.graph)
    level: dict[Value, int] = {}
    for group in partition.groups:
        for t in group.reads.values():
            if t.node.op.kind is not Kind.LEAF and level.get(t, group.level) >= group.level:
                raise VerifyError(
                    f"kernel {group.number} reads {t}, which no kernel of a lower level stores\n"
                    f"  it was built at {t.node.origin.place}"
                )
        for t in group.stored:
            if t not in group.members or t in level:
                raise VerifyError(f"kernel {group.number} stores {t}, which is not its own alone")
            level[t] = group.level
    for t in map(stored_root, partition.graph.roots):
        if t.node.op.kind is not Kind.LEAF and t not in level:
            raise VerifyError(f"no kernel stores the result {t}\n  it was built at {t.node.origin.place}")
