"""One frame's layered layout: ranks, dummies, order within ranks, coordinates.

After Sugiyama, Tagawa and Toda (1981) and Gansner, Koutsofios, North and Vo (1993); the placement of a row is an
isotonic regression. `layered.js` is the same algorithm, line by line; the tests compare the two.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import pairwise

BOX_GAP = 18.0
LANE_GAP = 9.0
RANK_GAP = 22.0
PADDING = 12.0
ROW_WIDTH = 1500.0
ORDER_SWEEPS = 10
PLACE_SWEEPS = 14
STRAIGHT_SWEEPS = 3
FULL_EFFORT = 20000


@dataclass(slots=True)
class Vertex:
    """A box, frame, border port (`end` -1 top, 1 bottom), heading (`end` -2) or a long edge's dummy (`key` empty)."""

    key: str
    left: float
    right: float
    height: float
    inset: float = 0.0
    end: int = 0
    rank: int = 0
    x: float = 0.0
    y: float = 0.0
    place: int = 0


@dataclass(slots=True)
class Link:
    """A part of one or more wires inside one frame; `out` and `into` are offsets from the ends' x."""

    source: int
    target: int
    out: float
    into: float
    net: str
    label: float
    back: bool = False
    chain: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Segment:
    """A part of a link between two neighbouring ranks."""

    upper: int
    lower: int
    out: float
    into: float
    weight: float


@dataclass(slots=True)
class Local:
    """One frame's own layout, its origin at its top left corner."""

    vertices: list[Vertex]
    links: list[Link]
    tops: list[float] = field(default_factory=list)
    bottoms: list[float] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0
    ports: dict[str, float] = field(default_factory=dict)


def topological(count: int, arcs: Sequence[tuple[int, int]]) -> list[int]:
    """Return 0..count-1 so that arcs point forward as far as possible, the smallest number first among equals.

    In a cycle the vertex with the fewest missing predecessors goes first; the arcs left pointing back are drawn so.
    """
    following: list[list[int]] = [[] for _ in range(count)]
    missing = [0] * count
    for source, target in arcs:
        if source != target:
            following[source].append(target)
            missing[target] += 1
    done = [False] * count
    ready = [v for v in range(count) if missing[v] == 0]
    heapify(ready)
    order: list[int] = []
    stuck: list[tuple[int, int]] = []
    while len(order) < count:
        if ready:
            v = heappop(ready)
        else:
            if not stuck:
                stuck = sorted((missing[u], u) for u in range(count) if not done[u])
            v = stuck.pop(0)[1]
        if done[v]:
            continue
        done[v] = True
        order.append(v)
        for u in following[v]:
            missing[u] -= 1
            if missing[u] == 0 and not done[u]:
                heappush(ready, u)
    return order


def arrange(local: Local) -> None:
    """Place one frame's vertices: ranks, dummies, order within ranks, x, y."""
    wrapped = _rank(local)
    segments, lanes = _insert_dummies(local)
    rows: list[list[int]] = [[] for _ in range(max((v.rank for v in local.vertices), default=-1) + 1)]
    for number, vertex in enumerate(local.vertices):
        rows[vertex.rank].append(number)
    upper: list[list[Segment]] = [[] for _ in local.vertices]
    lower: list[list[Segment]] = [[] for _ in local.vertices]
    for segment in segments:
        upper[segment.lower].append(segment)
        lower[segment.upper].append(segment)
    _sort_rows(local.vertices, rows, upper, lower)
    _place_rows(local.vertices, rows, upper, lower, wrapped)
    _straighten(local.vertices, rows, lanes)
    _finish(local, rows, segments)


def _rank(local: Local) -> bool:
    """Longest-path ranks; headings and upper ports on the first, lower ports on the last; sources sink to their users.

    Returns:
        Whether a rank was too wide, so that some of its boxes went further down.
    """
    vertices, links = local.vertices, local.links
    order = topological(len(vertices), [(link.source, link.target) for link in links])
    position = [0] * len(vertices)
    for index, v in enumerate(order):
        position[v] = index
    out: list[list[Link]] = [[] for _ in vertices]
    into: list[list[Link]] = [[] for _ in vertices]
    for link in links:
        link.back = position[link.source] >= position[link.target]
        if not link.back:
            out[link.source].append(link)
            into[link.target].append(link)
    first = 1 if any(v.end < 0 for v in vertices) else 0
    for v in order:
        base = 0 if vertices[v].end < 0 else first
        vertices[v].rank = max([base, *(vertices[e.source].rank + (2 if e.label else 1) for e in into[v])])
    for v in reversed(order):
        if vertices[v].end == 0 and len(out[v]) > len(into[v]):
            vertices[v].rank = min(vertices[e.target].rank - (2 if e.label else 1) for e in out[v])
    wrapped = _wrap_ranks(vertices, order, into)
    last = max((v.rank + 1 for v in vertices if v.end != 1), default=0)
    for vertex in vertices:
        if vertex.end == 1:
            vertex.rank = last
    return wrapped


def _wrap_ranks(vertices: list[Vertex], order: list[int], into: list[list[Link]]) -> bool:
    """Move boxes down from ranks that are too wide, as Coffman and Graham do, so that many equal boxes fill rows."""
    solid = [v for v in order if vertices[v].end == 0]
    area = 0.0
    for v in solid:
        area += (vertices[v].left + vertices[v].right + BOX_GAP) * (vertices[v].height + RANK_GAP)
    room = max(ROW_WIDTH, (2.0 * area) ** 0.5)
    load: dict[int, float] = {}
    wrapped = False
    place = {v: index for index, v in enumerate(order)}
    for v in sorted(solid, key=lambda v: (vertices[v].rank, place[v])):
        wide = vertices[v].left + vertices[v].right + BOX_GAP
        rank = max([vertices[v].rank, *(vertices[e.source].rank + (2 if e.label else 1) for e in into[v])])
        while load.get(rank, 0.0) > 0.0 and load[rank] + wide > room:
            rank += 1
            wrapped = True
        vertices[v].rank = rank
        load[rank] = load.get(rank, 0.0) + wide
    return wrapped


def _sweeps(most: int, vertices: Sequence[Vertex]) -> int:
    """Fewer sweeps over a huge frame: its time then grows little with its size."""
    return max(3, int(most * min(1.0, FULL_EFFORT / max(1, len(vertices)))))


def _insert_dummies(local: Local) -> tuple[list[Segment], list[list[int]]]:
    """Cut links that span several ranks; links of one value share their dummies, so that they run as one line."""
    vertices = local.vertices
    lanes: dict[tuple[int, float, str], list[int]] = {}
    segments: dict[tuple[int, int, float, float], Segment] = {}
    for link in local.links:
        if link.back:
            continue
        lane = lanes.setdefault((link.source, link.out, link.net), [])
        span = vertices[link.target].rank - vertices[link.source].rank
        while len(lane) < span - 1:
            half = link.label / 2 if not lane else 0.0
            tall = 14.0 if link.label and not lane else 0.0
            vertices.append(Vertex("", half, half, tall, rank=vertices[link.source].rank + len(lane) + 1))
            lane.append(len(vertices) - 1)
        link.chain = lane[: span - 1]
        ends = [link.source, *link.chain, link.target]
        for index, (a, b) in enumerate(pairwise(ends)):
            out = link.out if index == 0 else 0.0
            into = link.into if index == len(ends) - 2 else 0.0
            segments.setdefault(
                (a, b, out, into), Segment(a, b, out, into, _weight(vertices[a], vertices[b], out, into))
            )
    return list(segments.values()), [lane for lane in lanes.values() if lane]


def _weight(upper: Vertex, lower: Vertex, out: float, into: float) -> float:
    """How much a segment wants to be vertical: neighbours most, borders and off-centre ports of wide boxes least."""
    if not upper.key and not lower.key:
        return 8.0
    if upper.end or lower.end or abs(out) > 200.0 or abs(into) > 200.0:
        return 0.03
    return 1.0 if not upper.key or not lower.key else 2.0


def _sort_rows(
    vertices: list[Vertex], rows: list[list[int]], upper: list[list[Segment]], lower: list[list[Segment]]
) -> None:
    """Order each row by its neighbours' barycentres, downwards and upwards; keep the order that crosses least."""
    share = [1.0 / (v.left + v.right + 1.0) for v in vertices]

    def number(row: list[int]) -> None:
        for index, v in enumerate(row):
            vertices[v].place = index

    def sweep(row: list[int], down: bool) -> None:
        keys: dict[int, float] = {}
        for v in row:
            total, near = 0.0, upper[v] if down else lower[v]
            for s in near:
                total += (
                    vertices[s.upper].place + s.out * share[s.upper]
                    if down
                    else vertices[s.lower].place + s.into * share[s.lower]
                )
            keys[v] = total / len(near) if near else float(vertices[v].place)
            if vertices[v].end == -2:
                keys[v] = -1e9
        row.sort(key=lambda v: (keys[v], vertices[v].place))
        number(row)

    def crossings() -> int:
        total = 0
        for row in rows:
            pairs = sorted(
                (vertices[v].place + s.out * share[v], vertices[s.lower].place + s.into * share[s.lower])
                for v in row
                for s in lower[v]
            )
            seen: list[float] = []
            for _, low in pairs:
                total += len(seen) - bisect_right(seen, low)
                insort(seen, low)
        return total

    for row in rows:
        number(row)
    best, least = [list(row) for row in rows], crossings()
    for turn in range(_sweeps(ORDER_SWEEPS, vertices)):
        if least == 0:
            break
        for row in rows[1:] if turn % 2 == 0 else rows[-2::-1]:
            sweep(row, turn % 2 == 0)
        count = crossings()
        if count < least:
            best, least = [list(row) for row in rows], count
    for index, row in enumerate(best):
        rows[index] = row
        number(row)


def _place_rows(
    vertices: list[Vertex], rows: list[list[int]], upper: list[list[Segment]], lower: list[list[Segment]], wrapped: bool
) -> None:
    """Give every vertex an x near its neighbours' median, in order, without overlap; wrapped rows stay packed."""
    for row in rows:
        _spread(vertices, row, [0.0] * len(row), [1.0] * len(row))
    packed = [v.x for v in vertices] if wrapped else []
    sweeps = _sweeps(PLACE_SWEEPS, vertices)
    for turn in range(sweeps):
        # Means settle the whole; medians with heavy long edges then make most lines vertical.
        rough = 3 * turn < 2 * sweeps
        for down in (True, False):
            for row in rows if down else reversed(rows):
                wanted, weights = [], []
                for v in row:
                    spots = [(vertices[s.upper].x + s.out - s.into, s.weight) for s in upper[v]]
                    spots += [(vertices[s.lower].x + s.into - s.out, s.weight) for s in lower[v]]
                    if packed and vertices[v].end == 0 and vertices[v].key:
                        spots.append((packed[v], 4.0))
                    want, weight = _mean(spots) if rough else _median(spots)
                    wanted.append(want if spots else vertices[v].x)
                    weights.append(weight if spots else 0.01)
                _spread(vertices, row, wanted, weights)


def _mean(spots: list[tuple[float, float]]) -> tuple[float, float]:
    """Weighted mean and total weight, no weight above 1."""
    total = weighted = 0.0
    for x, weight in spots:
        total += min(weight, 1.0)
        weighted += min(weight, 1.0) * x
    return (weighted / total if spots else 0.0), total


def _straighten(vertices: list[Vertex], rows: list[list[int]], lanes: list[list[int]]) -> None:
    """Make long edges straight where their neighbours leave room, the outermost first."""

    def bounds(v: int) -> tuple[float, float]:
        row, at, me = rows[vertices[v].rank], vertices[v].place, vertices[v]
        low, high = -1e12, 1e12
        if at > 0:
            low = vertices[row[at - 1]].x + vertices[row[at - 1]].right + _gap(vertices[row[at - 1]], me) + me.left
        if at + 1 < len(row):
            high = vertices[row[at + 1]].x - vertices[row[at + 1]].left - _gap(me, vertices[row[at + 1]]) - me.right
        return low, high

    def settle(piece: list[int], low: float, high: float) -> None:
        middle, _ = _median([(vertices[v].x, 1.0) for v in piece])
        for v in piece:
            vertices[v].x = min(max(middle, low), high)

    centre = 0.0
    for vertex in vertices:
        centre += vertex.x / len(vertices)
    for _ in range(STRAIGHT_SWEEPS):
        for lane in sorted(lanes, key=lambda lane: (-abs(vertices[lane[0]].x - centre), lane[0])):
            piece: list[int] = []
            low, high = -1e12, 1e12
            for v in lane:
                near, far = bounds(v)
                if piece and max(low, near) > min(high, far):
                    settle(piece, low, high)
                    piece, low, high = [], -1e12, 1e12
                piece.append(v)
                low, high = max(low, near), min(high, far)
            settle(piece, low, high)


def _gap(left: Vertex, right: Vertex) -> float:
    return LANE_GAP if not left.key and not right.key else BOX_GAP


def _median(spots: list[tuple[float, float]]) -> tuple[float, float]:
    """Weighted median and total weight: most edges become vertical, where a mean bends all of them a little."""
    spots.sort()
    total = 0.0
    for _, weight in spots:
        total += weight
    below = 0.0
    for index, (x, weight) in enumerate(spots):
        below += weight
        if below > total / 2:
            return x, total
        if below == total / 2:
            return (x + spots[index + 1][0]) / 2, total
    return 0.0, 0.0


def _spread(vertices: list[Vertex], row: list[int], wanted: list[float], weights: list[float]) -> None:
    """Least-squares positions that keep the row's order and gaps (isotonic regression by pooling neighbours)."""
    shifts: list[float] = []
    shift = 0.0
    for index, v in enumerate(row):
        if index:
            before = vertices[row[index - 1]]
            shift += before.right + _gap(before, vertices[v]) + vertices[v].left
        shifts.append(shift)
    blocks: list[tuple[float, float, int]] = []
    for want, weight, offset in zip(wanted, weights, shifts, strict=True):
        block = (want - offset, weight, 1)
        while blocks and blocks[-1][0] >= block[0]:
            mean, total, count = blocks.pop()
            joint = total + block[1]
            block = ((mean * total + block[0] * block[1]) / joint, joint, count + block[2])
        blocks.append(block)
    index = 0
    for mean, _, count in blocks:
        for _ in range(count):
            vertices[row[index]].x = mean + shifts[index]
            index += 1


def _finish(local: Local, rows: list[list[int]], segments: list[Segment]) -> None:
    """Set y by ranks, move everything to the frame's origin, and size the frame."""
    vertices = local.vertices
    framed = any(v.end == -2 for v in vertices)
    pad = PADDING if framed else 0.0
    bend = [0.0] * len(rows)
    for s in segments:
        shift = abs(vertices[s.upper].x + s.out - vertices[s.lower].x - s.into)
        bend[vertices[s.upper].rank] = max(bend[vertices[s.upper].rank], shift)
    y = pad / 2
    for index, row in enumerate(rows):
        tall = max((vertices[v].height for v in row), default=0.0)
        local.tops.append(y)
        local.bottoms.append(y + tall)
        for v in row:
            vertices[v].y = y + (tall - vertices[v].height) / 2
        only_ports = index == 0 and all(vertices[v].end < 0 for v in row)
        y += tall + (RANK_GAP / 2 if only_ports else RANK_GAP) + min(46.0, bend[index] / 9)
    bottom = local.bottoms[-1] if rows else 0.0
    local.height = bottom + (0.0 if any(v.end == 1 for v in vertices) else pad)
    solid = [v for v in vertices if v.end != -2]
    left = min((v.x - v.left for v in solid), default=0.0)
    header = next((v for v in vertices if v.end == -2), None)
    if header is not None:
        ports = [v.x for v in vertices if v.end == -1]
        left = min([left, *(x - header.right - BOX_GAP for x in ports)])
    for vertex in vertices:
        vertex.x += pad - left
    right = max((v.x + v.right for v in solid), default=0.0)
    if header is not None:
        header.x = pad
        right = max(right, header.x + header.right)
    back = sum(link.back for link in local.links)
    local.width = right + pad + (10.0 * back + 6.0 if back else 0.0)
    local.ports = {v.key: v.x - local.width / 2 for v in vertices if v.end in (-1, 1)}
