"""Layered layout with nested boxes, after Sugiyama, Tagawa and Toda (1981) and Gansner et al. (1993).

Each frame is laid out on its own, innermost first, and is one box in the frame around it. An edge that crosses a
frame's border does so at a port on its top or bottom, which is a vertex of the inner layout. So nothing overlaps,
boxes stay together, and every sideways movement of an edge happens between two ranks, where no box is.
`layout.js` is the same algorithm, line by line, for the page; the tests compare the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphcore.viz.layered import Link, Local, Vertex, arrange

FRAME, HEADING, ENTRY, EXIT = "frame:", "heading:", "entry:", "exit:"

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """A drawn node, in pixels; `side` is the room for its pins left of it, `side_height` their height."""

    id: str
    width: float
    height: float
    parent: str | None = None
    side: float = 0.0
    side_height: float = 0.0


@dataclass(frozen=True, slots=True)
class Frame:
    """A box around boxes, with room for its heading, in pixels."""

    id: str
    parent: str | None
    header_width: float
    header_height: float


@dataclass(frozen=True, slots=True)
class Wire:
    """An edge between two boxes, with room for its label, in pixels; one source's equal labels are written once."""

    source: str
    target: str
    label_width: float = 0.0
    label: str = ""


@dataclass(frozen=True, slots=True)
class Rect:
    """A placed box, in pixels."""

    x: float
    y: float
    width: float
    height: float


@dataclass(slots=True)
class Route:
    """An edge's corner points; consecutive ones are joined by a line, or by an S-curve where both x and y differ."""

    points: list[Point]
    label: Point | None = None
    back: bool = False


@dataclass(slots=True)
class Placement:
    """Where everything is, in pixels from the top left corner; `routes` are in the order of the wires."""

    boxes: dict[str, Rect]
    frames: dict[str, Rect]
    routes: list[Route]
    width: float
    height: float


def place(boxes: Sequence[Box], frames: Sequence[Frame], wires: Sequence[Wire]) -> Placement:
    """Lay out boxes inside nested frames, the flow from top to bottom.

    Args:
        boxes: The nodes with their sizes in pixels.
        frames: The boxes around them.
        wires: The edges.

    Returns:
        The placement; the same input always gives the same output.
    """
    parent: dict[str, str | None] = {box.id: box.parent for box in boxes}
    parent.update({_frame_key(frame.id): frame.parent for frame in frames})
    children: dict[str | None, list[str]] = {None: []}
    for frame in frames:
        children[frame.id] = []
    for key, above in parent.items():
        children[above].append(key)
    parts = _split(wires, parent)
    sizes = {box.id: box for box in boxes}
    headers = {frame.id: frame for frame in frames}
    locals_: dict[str | None, Local] = {}
    for above in reversed(_outer_first(frames)):
        local = _assemble(children[above], parts.get(above, []), sizes, locals_, headers.get(above) if above else None)
        arrange(local)
        locals_[above] = local
    return _collect(wires, parts, locals_, _outer_first(frames), sizes)


def _frame_key(frame: str) -> str:
    return FRAME + frame


def _outer_first(frames: Sequence[Frame]) -> list[str | None]:
    inside: dict[str | None, list[str]] = {}
    for frame in frames:
        inside.setdefault(frame.parent, []).append(frame.id)
    order: list[str | None] = [None]
    for above in order:
        order.extend(inside.get(above, []))
    return order


@dataclass(slots=True)
class _Part:
    """A wire's part in one frame: between two children, or a child and a port; equal parts become one link."""

    wire: int
    source: str
    target: str
    source_node: str
    label: float
    text: str
    role: str
    link: int = -1


def _split(wires: Sequence[Wire], parent: dict[str, str | None]) -> dict[str | None, list[_Part]]:
    """Cut every wire at the frames' borders: out of the source's frames, across the common one, into the target's."""
    trails: dict[str, list[tuple[str | None, str]]] = {}
    for key in parent:
        if not key.startswith(FRAME):
            trail, child = [], key
            while True:
                above = parent[child]
                trail.append((above, child))
                if above is None:
                    break
                child = _frame_key(above)
            trails[key] = trail[::-1]
    parts: dict[str | None, list[_Part]] = {}
    for number, wire in enumerate(wires):
        a, b = trails[wire.source], trails[wire.target]
        depth = 0
        while depth + 1 < min(len(a), len(b)) and a[depth + 1][0] == b[depth + 1][0]:
            depth += 1
        across = _Part(number, a[depth][1], b[depth][1], wire.source, wire.label_width, wire.label, "across")
        parts.setdefault(a[depth][0], []).append(across)
        for above, child in a[depth + 1 :]:
            parts.setdefault(above, []).append(_Part(number, child, "", wire.source, 0.0, "", "out"))
        for above, child in b[depth + 1 :]:
            parts.setdefault(above, []).append(_Part(number, "", child, wire.source, 0.0, "", "in"))
    return parts


def _assemble(
    keys: Sequence[str], parts: list[_Part], sizes: dict[str, Box], done: dict[str | None, Local], header: Frame | None
) -> Local:
    """Make one frame's vertices (children, ports, heading) and links."""
    local = Local([], [])
    number: dict[str, int] = {}

    def add(vertex: Vertex) -> int:
        number[vertex.key] = len(local.vertices)
        local.vertices.append(vertex)
        return number[vertex.key]

    if header is not None:
        add(Vertex(HEADING, 0.0, header.header_width, header.header_height, end=-2))
    for part in parts:
        port = (ENTRY if part.role == "in" else EXIT) + part.source_node
        if part.role != "across" and port not in number:
            add(Vertex(port, 0.0, 0.0, 0.0, end=-1 if part.role == "in" else 1))
    for key in keys:
        if key.startswith(FRAME):
            inner = done[key.removeprefix(FRAME)]
            add(Vertex(key, inner.width / 2, inner.width / 2, inner.height))
        else:
            box = sizes[key]
            tall = max(box.height, box.side_height)
            add(Vertex(key, box.width / 2 + box.side, box.width / 2, tall, (tall - box.height) / 2))
    known: dict[tuple[int, int, float, float, str], int] = {}
    for part in parts:
        source = number[ENTRY + part.source_node if part.role == "in" else part.source]
        target = number[EXIT + part.source_node if part.role == "out" else part.target]
        out = 0.0 if part.role == "in" else _port(done, part.source, EXIT + part.source_node)
        into = 0.0 if part.role == "out" else _port(done, part.target, ENTRY + part.source_node)
        net = f"{part.source_node} {part.text}" if part.label else part.source_node
        same = (source, target, out, into, net)
        if same not in known:
            known[same] = len(local.links)
            local.links.append(Link(source, target, out, into, net, part.label))
        part.link = known[same]
    return local


def _port(done: dict[str | None, Local], key: str, port: str) -> float:
    """Where on the child an edge attaches, as an offset from its centre."""
    return done[key.removeprefix(FRAME)].ports[port] if key.startswith(FRAME) else 0.0


def _collect(
    wires: Sequence[Wire],
    parts: dict[str | None, list[_Part]],
    locals_: dict[str | None, Local],
    outer_first: list[str | None],
    sizes: dict[str, Box],
) -> Placement:
    """Move every frame's layout to its place and join the parts of each wire."""
    root = locals_[None]
    result = Placement({}, {}, [], root.width, root.height)
    origin: dict[str | None, Point] = {None: (0.0, 0.0)}
    pieces: list[dict[str, list[tuple[list[Point], Point | None, bool]]]] = [{} for _ in wires]
    for above in outer_first:
        local = locals_[above]
        dx, dy = origin[above]
        for vertex in local.vertices:
            x, y = vertex.x + dx, vertex.y + dy
            if vertex.key.startswith(FRAME):
                origin[vertex.key.removeprefix(FRAME)] = (x - vertex.left, y)
                inner = locals_[vertex.key.removeprefix(FRAME)]
                result.frames[vertex.key.removeprefix(FRAME)] = Rect(x - vertex.left, y, inner.width, inner.height)
            elif vertex.key in sizes and vertex.end == 0:
                box = sizes[vertex.key]
                result.boxes[box.id] = Rect(x - box.width / 2, y + vertex.inset, box.width, box.height)
        fans = _fan(local)
        lane = 0
        drawn: list[tuple[list[Point], Point | None, bool]] = []
        for number, link in enumerate(local.links):
            lane += link.back
            points = _bend_back(local, link, fans[number], lane) if link.back else _bend(local, link, fans[number])
            label = local.vertices[link.chain[0]] if link.label and link.chain else None
            spot = (label.x + dx, label.y + label.height / 2 + dy) if label else None
            drawn.append(([(x + dx, y + dy) for x, y in points], spot, link.back))
        for part in parts.get(above, []):
            pieces[part.wire].setdefault(part.role, []).append(drawn[part.link])
    for piece in pieces:
        joined = [*reversed(piece.get("out", [])), *piece["across"], *piece.get("in", [])]
        points = _simplify([point for part in joined for point in part[0]])
        result.routes.append(Route(points, joined[len(piece.get("out", []))][1], any(part[2] for part in joined)))
    return result


def _fan(local: Local) -> list[float]:
    """Spread the edges that enter one box along its top, in the order they come from: one offset a link."""
    entering: dict[int, dict[tuple[float, int], list[int]]] = {}
    for number, link in enumerate(local.links):
        vertex = local.vertices[link.target]
        if vertex.end == 0 and not vertex.key.startswith(FRAME):
            last = link.chain[-1] if link.chain else link.source
            come = local.vertices[last].x + (0.0 if link.chain else link.out)
            entering.setdefault(link.target, {}).setdefault((come, last), []).append(number)
    offsets = [link.into for link in local.links]
    for target, sources in entering.items():
        step = min(14.0, (2 * local.vertices[target].right - 16.0) / len(sources))
        for index, key in enumerate(sorted(sources)):
            for number in sources[key]:
                offsets[number] = (index - (len(sources) - 1) / 2) * step
    return offsets


def _bend(local: Local, link: Link, into: float) -> list[Point]:
    """Corner points of a forward link: straight through ranks, sideways only between them."""
    source, target = local.vertices[link.source], local.vertices[link.target]
    x = source.x + link.out
    top_port = source.end == -1
    points = [(x, 0.0 if top_port else source.y + source.height - source.inset), (x, local.bottoms[source.rank])]
    for dummy in link.chain:
        vertex = local.vertices[dummy]
        points += [(vertex.x, local.tops[vertex.rank]), (vertex.x, local.bottoms[vertex.rank])]
    x = target.x + into
    points += [(x, local.tops[target.rank]), (x, local.height if target.end == 1 else target.y + target.inset)]
    return points


def _bend_back(local: Local, link: Link, into: float, lane: int) -> list[Point]:
    """Corner points of a link that runs upwards: out below its source, along the right edge, in above its target."""
    source, target = local.vertices[link.source], local.vertices[link.target]
    side = local.width - 10.0 * lane
    x = source.x + link.out
    low, high = local.bottoms[source.rank] + 7.0, local.tops[target.rank] - 7.0
    return [
        (x, source.y + source.height - source.inset), (x, low), (side, low),
        (side, high), (target.x + into, high), (target.x + into, target.y + target.inset),
    ]  # fmt: skip


def _simplify(points: list[Point]) -> list[Point]:
    """Drop repeated points and points on a straight vertical line."""
    kept: list[Point] = []
    for point in points:
        if kept and kept[-1] == point:
            continue
        if len(kept) > 1 and kept[-2][0] == kept[-1][0] == point[0]:
            kept.pop()
        kept.append(point)
    return kept
