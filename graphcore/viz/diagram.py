"""A neutral picture of a graph: what the writers draw, with nothing of the framework in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

NodeStyle = Literal[
    "placeholder", "variable", "constant", "map", "view", "reduce", "contract",
    "opaque", "region", "update", "output", "kernel", "buffer",
]  # fmt: skip
EdgeStyle = Literal["data", "control", "update"]
GroupStyle = Literal["kernel", "scope"]

NODE_STYLES: tuple[str, ...] = (
    "placeholder", "variable", "constant", "map", "view", "reduce", "contract",
    "opaque", "region", "update", "output", "kernel", "buffer",
)  # fmt: skip


@dataclass(frozen=True)
class DiagramNode:
    """One op, kernel or buffer.

    Args:
        id: Unique in the diagram; edges name it. Any text.
        label: What the box says first.
        kind: The op's kind, for example ``matmul``.
        lines: Further short lines: shape and dtype, bytes.
        scope: Name scopes, outermost first. They become nested boxes in a diagram that has no groups of its own.
        group: Id of the innermost group around the node.
        tooltip: Longer text, shown on hover and in the details panel.
        style: Which colour the node has.
        derived: Whether it is part of a gradient: a search leads to the others first.
    """

    id: str
    label: str
    kind: str = ""
    lines: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()
    group: str | None = None
    tooltip: str = ""
    style: NodeStyle = "map"
    derived: bool = False


@dataclass(frozen=True)
class DiagramEdge:
    """A value that flows from one node to another.

    Args:
        source: Id of the producer.
        target: Id of the consumer.
        label: Short text on the edge; room is made for it.
        style: ``data``, or ``control`` and ``update`` (both dashed).
    """

    source: str
    target: str
    label: str = ""
    style: EdgeStyle = "data"


@dataclass(frozen=True)
class DiagramGroup:
    """A box around nodes and other groups: a kernel around its ops, or a name scope.

    Args:
        id: Unique among the groups.
        label: The box's heading.
        lines: Further short lines of the heading.
        parent: Id of the group around this one.
        style: ``kernel`` or ``scope``.
    """

    id: str
    label: str
    lines: tuple[str, ...] = ()
    parent: str | None = None
    style: GroupStyle = "kernel"


@dataclass(frozen=True)
class MemoryRow:
    """One buffer's place in the arena.

    Args:
        name: The buffer's name.
        start_step: The first step that uses it.
        end_step: The last step that uses it (inclusive).
        offset: Byte offset in the arena.
        bytes: Size in bytes.
    """

    name: str
    start_step: int
    end_step: int
    offset: int
    bytes: int


@dataclass(frozen=True)
class MemoryMap:
    """Which bytes of the arena are live at which step.

    Args:
        rows: The buffers.
        steps: Names of the steps, by number; may be empty.
    """

    rows: tuple[MemoryRow, ...]
    steps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if row.start_step < 0 or row.end_step < row.start_step:
                raise ValueError(f"buffer {row.name!r} lives from step {row.start_step} to {row.end_step}")
            if row.offset < 0 or row.bytes < 0:
                raise ValueError(f"buffer {row.name!r} has offset {row.offset} and {row.bytes} bytes")

    @property
    def step_count(self) -> int:
        """Number of steps on the time axis."""
        return max([len(self.steps), *(row.end_step + 1 for row in self.rows)])

    @property
    def arena_bytes(self) -> int:
        """The arena's size: the highest address in use."""
        return max((row.offset + row.bytes for row in self.rows), default=0)

    def live_bytes(self) -> list[int]:
        """Return the bytes live at each step; their maximum bounds every arena from below."""
        change = [0] * (self.step_count + 1)
        for row in self.rows:
            change[row.start_step] += row.bytes
            change[row.end_step + 1] -= row.bytes
        live, total = [], 0
        for delta in change[:-1]:
            total += delta
            live.append(total)
        return live


@dataclass(frozen=True)
class Diagram:
    """Everything one picture shows.

    Args:
        title: The heading.
        nodes: The nodes; their order breaks ties, so the same diagram always gives the same text.
        edges: The edges; both ends must be nodes.
        groups: Boxes; empty means boxes by the nodes' name scopes.
        facts: Pairs (name, value) for the heading: number of ops, bytes.
        memory: The memory map of a plan.
        name: What a page's tab says; the title by default.

    Raises:
        ValueError: For a repeated id, an edge or group that names something unknown, or groups inside each other.
    """

    title: str
    nodes: tuple[DiagramNode, ...]
    edges: tuple[DiagramEdge, ...] = ()
    groups: tuple[DiagramGroup, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    memory: MemoryMap | None = field(default=None)
    name: str = ""

    def __post_init__(self) -> None:
        nodes = {node.id for node in self.nodes}
        parents = {group.id: group.parent for group in self.groups}
        if len(nodes) != len(self.nodes) or len(parents) != len(self.groups):
            raise ValueError(f"diagram {self.title!r}: node ids and group ids must be unique")
        for node in self.nodes:
            if node.style not in NODE_STYLES:
                raise ValueError(f"node {node.id!r} has the unknown style {node.style!r}")
            if node.group is not None and node.group not in parents:
                raise ValueError(f"node {node.id!r} is in the unknown group {node.group!r}")
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in nodes:
                    raise ValueError(f"edge {edge.source!r} -> {edge.target!r}: there is no node {end!r}")
        for group in self.groups:
            above: set[str] = {group.id}
            parent = group.parent
            while parent is not None:
                if parent not in parents:
                    raise ValueError(f"group {group.id!r} is in the unknown group {parent!r}")
                if parent in above:
                    raise ValueError(f"group {group.id!r} is inside itself")
                above.add(parent)
                parent = parents[parent]
