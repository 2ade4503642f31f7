"""What to draw of a diagram: which boxes, folded or not, and which small inputs sit as pins beside their users."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from graphcore.viz import theme
from graphcore.viz.diagram import Diagram, DiagramEdge, DiagramGroup, DiagramNode
from graphcore.viz.layered import topological
from graphcore.viz.layout import Box, Frame, Wire

PIN_STYLES = ("placeholder", "variable", "constant")
FAR = 48
PIN_LIMIT = 6
PIN_HEIGHT, PIN_PITCH, PIN_TIE = 15.0, 18.0, 14.0
CHUNK = 100


@dataclass(frozen=True)
class Part:
    """A box that may be drawn: a node, or a group when folded. `rows` are its lines of text, the first one bold."""

    key: str
    id: str
    style: str
    rows: tuple[str, ...]
    width: float
    height: float


@dataclass(frozen=True)
class Heading:
    """A group's frame when unfolded; `part` is the group when folded. `derived`: all of it is part of a gradient."""

    key: str
    id: str
    style: str
    parent: str | None
    rows: tuple[str, ...]
    width: float
    height: float
    part: Part
    count: int
    derived: bool


@dataclass(frozen=True)
class Arc:
    """An edge between drawn nodes; a `far` one is shown as a pin that names its source, where both ends are visible."""

    source: str
    target: str
    label: str
    style: str
    far: bool


@dataclass(frozen=True)
class Pin:
    """A small box left of its user; `key` is the node that it stands for, or empty for "and more"."""

    key: str
    style: str
    text: str
    width: float
    far: bool = False


@dataclass(frozen=True)
class Outline:
    """A diagram with short keys: ``n0, n1 ...`` for nodes, ``g0, g1 ...`` for groups, parents before their children."""

    diagram: Diagram
    nodes: dict[str, DiagramNode]
    parts: dict[str, Part]
    groups: dict[str, Heading]
    home: dict[str, str | None]
    pinned: dict[str, tuple[str, ...]]
    hidden: frozenset[str]
    arcs: tuple[Arc, ...]
    pin_of: dict[str, Pin]
    far_of: dict[str, Pin]


@dataclass
class View:
    """The boxes, frames and edges that are visible under a set of folded groups; `edges` gives each wire's facts."""

    boxes: list[Box] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    edges: list[tuple[str, str, int]] = field(default_factory=list)
    pins: dict[str, list[Pin]] = field(default_factory=dict)


def outline(diagram: Diagram, limit: int = 5000) -> Outline:
    """Choose groups, pins and sizes.

    Args:
        diagram: What to draw.
        limit: With more outermost boxes than this, runs of them are grouped, to be foldable.

    Returns:
        The outline; the same diagram always gives the same one.
    """
    key = {node.id: f"n{index}" for index, node in enumerate(diagram.nodes)}
    nodes = {key[node.id]: node for node in diagram.nodes}
    edges = [(key[e.source], key[e.target], e) for e in diagram.edges]
    hidden, pinned = _pins(nodes, edges)
    order, depth = _order(nodes, [(s, t) for s, t, _ in edges if s not in hidden])
    groups, home = _explicit_groups(diagram, key) if diagram.groups else _scope_groups(nodes, edges, hidden, order)
    groups = _chunk(groups, home, [v for v in order if v not in hidden], limit)
    if not diagram.groups:
        for consumer, leaves in pinned.items():
            for leaf in leaves:
                if home.get(leaf) is None:
                    home[leaf] = home[consumer]
    far_depth = FAR if len(nodes) > 2 * FAR else len(nodes) + 1
    arcs = tuple(
        Arc(s, t, theme.clip(e.label, 24), e.style, not e.label and depth[t] - depth[s] > far_depth)
        for s, t, e in edges
        if s not in hidden
    )
    headings = _headings(groups, home, hidden, {k for k, node in nodes.items() if node.derived})
    far_of = {arc.source: _pin(arc.source, nodes[arc.source], far=True) for arc in arcs if arc.far}
    return Outline(
        diagram, nodes, {k: _node_part(k, node) for k, node in nodes.items()}, headings, home, pinned, hidden, arcs,
        {leaf: _pin(leaf, nodes[leaf]) for leaf in sorted(hidden, key=lambda k: int(k[1:]))}, far_of,
    )  # fmt: skip


def view(shape: Outline, folded: Collection[str]) -> View:
    """Return what is visible when these groups are folded."""
    top: dict[str | None, str | None] = {None: None}
    for group, heading in shape.groups.items():
        outer = top[heading.parent]
        top[group] = outer if outer is not None else group if group in folded else None
    result = View()
    seen: dict[tuple[str, str, str, str], int] = {}
    visible = {node: top[home] or node for node, home in shape.home.items()}
    for leaf_user, leaves in shape.pinned.items():
        if visible[leaf_user] == leaf_user:
            result.pins[leaf_user] = [shape.pin_of[leaf] for leaf in leaves]
    for arc in shape.arcs:
        source, target = visible[arc.source], visible[arc.target]
        if source == target and source != arc.source:
            continue
        if arc.far and source == arc.source and target == arc.target:
            pins = result.pins.setdefault(target, [])
            if shape.far_of[source] not in pins:
                pins.append(shape.far_of[source])
            continue
        label = arc.label if target == arc.target or source == arc.source else ""
        same = (source, target, label, arc.style)
        if same in seen:
            wire, style, count = result.edges[seen[same]]
            result.edges[seen[same]] = (wire, style, count + 1)
            continue
        seen[same] = len(result.wires)
        result.wires.append(Wire(source, target, theme.text_width(label, theme.LINE_SIZE) + 6 if label else 0.0, label))
        result.edges.append((label, arc.style, 1))
    for user, pins in result.pins.items():
        if len(pins) > PIN_LIMIT:
            text = f"+{len(pins) - PIN_LIMIT + 1} more"
            more = Pin("", "constant", text, theme.text_width(text, theme.LINE_SIZE) + 10)
            result.pins[user] = [*pins[: PIN_LIMIT - 1], more]
    for node, home in shape.home.items():
        if visible[node] == node and node not in shape.hidden:
            result.boxes.append(_box(shape.parts[node], home, result.pins.get(node, [])))
    for group, heading in shape.groups.items():
        if top[group] == group:
            result.boxes.append(_box(heading.part, heading.parent, []))
        elif top[group] is None:
            result.frames.append(Frame(group, heading.parent, heading.width, heading.height))
    return result


def fold_to(shape: Outline, limit: int) -> frozenset[str]:
    """Return the groups to fold so that about `limit` boxes remain: outer groups open first, small before large."""
    members: dict[str | None, int] = {None: 0}
    inner: dict[str | None, list[str]] = {}
    for group, heading in shape.groups.items():
        members[group] = 0
        inner.setdefault(heading.parent, []).append(group)
    for node, home in shape.home.items():
        members[home] += node not in shape.hidden
    total = members[None] + len(inner.get(None, []))
    folded = set(shape.groups)
    row = list(inner.get(None, []))
    while row:
        following: list[str] = []
        for group in sorted(row, key=lambda g: (members[g] + len(inner.get(g, [])), int(g[1:]))):
            more = members[group] + len(inner.get(group, [])) - 1
            if total + more <= limit:
                total += more
                folded.discard(group)
                following += inner.get(group, [])
        row = following
    return frozenset(folded)


def _box(part: Part, parent: str | None, pins: Sequence[Pin]) -> Box:
    side = max((pin.width for pin in pins), default=0.0) + PIN_TIE if pins else 0.0
    tall = len(pins) * PIN_PITCH - (PIN_PITCH - PIN_HEIGHT) if pins else 0.0
    return Box(part.key, part.width, part.height, parent, side, tall)


def _pins(
    nodes: dict[str, DiagramNode], edges: Sequence[tuple[str, str, DiagramEdge]]
) -> tuple[frozenset[str], dict[str, tuple[str, ...]]]:
    """Leaves (inputs, variables, constants) are not drawn as nodes but as pins, one beside each user."""
    users: dict[str, list[str]] = {}
    fed = {t for _, t, _ in edges}
    for source, target, _ in edges:
        users.setdefault(source, []).append(target)
    hidden = frozenset(k for k, n in nodes.items() if n.style in PIN_STYLES and k not in fed and k in users)
    pinned: dict[str, dict[str, None]] = {}
    for source, target, _ in edges:
        if source in hidden:
            pinned.setdefault(target, {})[source] = None
    return hidden, {user: tuple(leaves) for user, leaves in pinned.items()}


def _order(nodes: dict[str, DiagramNode], arcs: Sequence[tuple[str, str]]) -> tuple[list[str], dict[str, int]]:
    """Return the nodes in topological order, and each one's depth (longest path from a source)."""
    keys = list(nodes)
    number = {k: i for i, k in enumerate(keys)}
    order = [keys[i] for i in topological(len(keys), [(number[s], number[t]) for s, t in arcs])]
    position = {k: i for i, k in enumerate(order)}
    before: dict[str, list[str]] = {}
    for source, target in arcs:
        if position[source] < position[target]:
            before.setdefault(target, []).append(source)
    depth: dict[str, int] = {}
    for k in order:
        depth[k] = max((depth[p] + 1 for p in before.get(k, [])), default=0)
    return order, depth


def _explicit_groups(diagram: Diagram, key: dict[str, str]) -> tuple[list[DiagramGroup], dict[str, str | None]]:
    """Return the diagram's own groups with keys for ids, parents first."""
    inside: dict[str | None, list[DiagramGroup]] = {}
    for group in diagram.groups:
        inside.setdefault(group.parent, []).append(group)
    ordered = list(inside.get(None, []))
    for group in ordered:
        ordered += inside.get(group.id, [])
    short = {group.id: f"g{index}" for index, group in enumerate(ordered)}
    groups = [
        DiagramGroup(short[g.id], g.label, g.lines, short[g.parent] if g.parent is not None else None, g.style)
        for g in ordered
    ]
    return groups, {key[n.id]: short[n.group] if n.group is not None else None for n in diagram.nodes}


def _scope_groups(
    nodes: dict[str, DiagramNode],
    edges: Sequence[tuple[str, str, DiagramEdge]],
    hidden: frozenset[str],
    order: Sequence[str],
) -> tuple[list[DiagramGroup], dict[str, str | None]]:
    """Return boxes by name scopes; a scope that the flow leaves and enters again becomes several."""
    before: dict[str, list[str]] = {}
    for source, target, _ in edges:
        if source not in hidden:
            before.setdefault(target, []).append(source)
    groups: list[DiagramGroup] = []
    home: dict[str, str | None] = dict.fromkeys(nodes)
    names: dict[tuple[str, ...], int] = {}
    pending: list[tuple[list[str], int, str | None]] = [([v for v in order if v not in hidden], 0, None)]
    for members, depth, parent in pending:
        for name, inside in _fragments(members, before, nodes, depth):
            if name is None or len(inside) < 2:
                continue
            deep, label = depth + 1, name
            while all(
                len(nodes[v].scope) > deep and nodes[v].scope[deep] == nodes[inside[0]].scope[deep] for v in inside
            ):
                label += "/" + nodes[inside[0]].scope[deep]
                deep += 1
            path = nodes[inside[0]].scope[:deep]
            names[path] = names.get(path, 0) + 1
            group = f"g{len(groups)}"
            label += f" ({names[path]})" if names[path] > 1 else ""
            groups.append(DiagramGroup(group, label, (), parent, "scope"))
            for v in inside:
                home[v] = group
            pending.append((inside, deep, group))
    return groups, home


def _fragments(
    members: Sequence[str], before: dict[str, list[str]], nodes: dict[str, DiagramNode], depth: int
) -> list[tuple[str | None, list[str]]]:
    """Cut members, in topological order, into groups by scope name whose quotient graph has no cycle.

    A node joins its scope's latest group unless one of the node's inputs already depends on that group from outside.
    Each group knows the set of groups above it as the bits of an integer.
    """
    found: list[tuple[str | None, list[str]]] = []
    above: list[int] = []
    group_of: dict[str, int] = {}
    latest: dict[str, list[int]] = {}
    for v in members:
        scope = nodes[v].scope
        name = scope[depth] if len(scope) > depth else None
        inputs = {group_of[p] for p in before.get(v, []) if p in group_of}
        for group in reversed(latest.get(name, [])) if name is not None else ():
            if not any(above[g] >> group & 1 for g in inputs if g != group):
                break
        else:
            group = len(found)
            found.append((name, []))
            above.append(0)
            if name is not None:
                latest.setdefault(name, []).append(group)
        more = above[group]
        for g in inputs - {group}:
            more |= above[g] | 1 << g
        if more != above[group]:
            above[group] = more
            if found[group][1]:
                for g, mask in enumerate(above):
                    if mask >> group & 1:
                        above[g] = mask | more
        found[group][1].append(v)
        group_of[v] = group
    return found


def _chunk(
    groups: list[DiagramGroup], home: dict[str, str | None], order: Sequence[str], limit: int
) -> list[DiagramGroup]:
    """Return the groups, with runs of the outermost boxes in groups of their own where there are too many to draw."""
    parent = {group.id: group.parent for group in groups}
    outermost: dict[str, None] = {}
    for v in order:
        item, above = v, home[v]
        while above is not None:
            item, above = above, parent[above]
        outermost[item] = None
    if len(outermost) <= limit:
        return groups
    items, number = list(outermost), len(groups)
    outer: list[DiagramGroup] = []
    for start in range(0, len(items), CHUNK):
        run = items[start : start + CHUNK]
        group = f"g{number + len(outer)}"
        outer.append(DiagramGroup(group, f"boxes {start} to {start + len(run) - 1}", (), None, "scope"))
        for item in run:
            if item in parent:
                parent[item] = group
            else:
                home[item] = group
    return [*outer, *(DiagramGroup(g.id, g.label, g.lines, parent[g.id], g.style) for g in groups)]


def _headings(
    groups: Sequence[DiagramGroup], home: dict[str, str | None], hidden: frozenset[str], derived: Collection[str]
) -> dict[str, Heading]:
    count: dict[str, int] = {group.id: 0 for group in groups}
    forward = dict(count)  # nodes that are no part of a gradient
    for node, above in home.items():
        if above is not None and node not in hidden:
            count[above] += 1
            forward[above] += node not in derived
    for group in reversed(groups):
        if group.parent is not None:
            count[group.parent] += count[group.id]
            forward[group.parent] += forward[group.id]
    found = {}
    for group in groups:
        rows = _rows(group.label, group.lines)
        width = max(theme.text_width("▾ " + rows[0], theme.LABEL_SIZE), *_line_widths(rows)) + 8
        folded = (f"▸ {rows[0]}", f"{count[group.id]} nodes", *rows[1:])
        part = Part(group.id, group.label, "folded", folded, *_size(folded))
        found[group.id] = Heading(
            group.id, group.label, group.style, group.parent, rows, width, 4.0 + 13.0 * len(rows), part,
            count[group.id], count[group.id] > 0 and not forward[group.id],
        )  # fmt: skip
    return found


def _rows(label: str, lines: Iterable[str]) -> tuple[str, ...]:
    """Return the bold row and the small ones; short lines share a row."""
    rows: list[str] = []
    for line in lines:
        text = theme.clip(line, theme.LINE_CHARS)
        if rows and theme.columns_of(rows[-1]) + theme.columns_of(text) + 3 <= theme.LINE_CHARS - 4:
            rows[-1] += " · " + text
        elif text:
            rows.append(text)
    return (theme.clip(label, theme.LABEL_CHARS) or "·", *rows)


def _line_widths(rows: Sequence[str]) -> list[float]:
    return [0.0, *(theme.text_width(row, theme.LINE_SIZE) for row in rows[1:])]


def _size(rows: Sequence[str]) -> tuple[float, float]:
    width = max(theme.text_width(rows[0], theme.LABEL_SIZE), *_line_widths(rows)) + 22
    return max(48.0, width), 10.0 + 15.0 + 12.5 * (len(rows) - 1)


def _node_part(key: str, node: DiagramNode) -> Part:
    kind = [node.kind] if node.kind and node.kind.lower() not in node.label.lower() else []
    rows = _rows(node.label, [*kind, *node.lines])
    return Part(key, node.id, node.style, rows, *_size(rows))


def _pin(key: str, node: DiagramNode, *, far: bool = False) -> Pin:
    """A pin's text: the name, and the shape where there is room."""
    text = ("↑ " if far else "") + theme.clip(node.label, theme.PIN_CHARS - 2 if far else theme.PIN_CHARS)
    first = theme.one_line(node.lines[0]) if node.lines and not far else ""
    if first and theme.columns_of(text) + theme.columns_of(first) < theme.PIN_CHARS:
        text += " " + first
    return Pin(key, node.style, text or "·", theme.text_width(text or "·", theme.LINE_SIZE) + 10, far)
