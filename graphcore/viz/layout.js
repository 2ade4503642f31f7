"use strict";
// The layout of layered.py, layout.py and outline.py (view, fold_to) for the page, function by function, so that
// folding a group can lay out again. The tests run both on the same diagrams and compare every coordinate.

const FRAME = "frame:", HEADING = "heading:", ENTRY = "entry:", EXIT = "exit:";
const sum = (list, f) => { let total = 0; for (const item of list) total += f(item); return total; };
const largest = (base, list, f) => { for (const item of list) { const x = f(item); if (x > base) base = x; } return base; };

function topological(count, arcs) {
  const following = Array.from({length: count}, () => []), missing = new Array(count).fill(0);
  for (const [source, target] of arcs) if (source !== target) { following[source].push(target); missing[target] += 1; }
  const done = new Array(count).fill(false), heap = [], order = [];
  let stuck = [];
  const push = v => {
    let i = heap.push(v) - 1;
    for (let up = (i - 1) >> 1; i > 0 && heap[up] > v; up = (i - 1) >> 1) { heap[i] = heap[up]; heap[up] = v; i = up; }
  };
  const pop = () => {
    const first = heap[0], last = heap.pop();
    if (heap.length) {
      let i = 0, next = 1;
      while (next < heap.length) {
        if (next + 1 < heap.length && heap[next + 1] < heap[next]) next += 1;
        if (heap[next] >= last) break;
        heap[i] = heap[next]; i = next; next = 2 * i + 1;
      }
      heap[i] = last;
    }
    return first;
  };
  for (let v = 0; v < count; v++) if (missing[v] === 0) push(v);
  while (order.length < count) {
    let v;
    if (heap.length) v = pop();
    else {
      if (!stuck.length) {
        for (let u = 0; u < count; u++) if (!done[u]) stuck.push([missing[u], u]);
        stuck.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
      }
      v = stuck.shift()[1];
    }
    if (done[v]) continue;
    done[v] = true;
    order.push(v);
    for (const u of following[v]) if (--missing[u] === 0 && !done[u]) push(u);
  }
  return order;
}

function arrange(local, size) {
  const wrapped = rankAll(local, size), [segments, lanes] = insertDummies(local), vertices = local.vertices;
  const rows = Array.from({length: largest(-1, vertices, v => v.rank) + 1}, () => []);
  vertices.forEach((v, number) => rows[v.rank].push(number));
  const upper = vertices.map(() => []), lower = vertices.map(() => []);
  for (const s of segments) { upper[s.lower].push(s); lower[s.upper].push(s); }
  sortRows(vertices, rows, upper, lower, size);
  placeRows(vertices, rows, upper, lower, wrapped, size);
  straighten(vertices, rows, lanes, size);
  finish(local, rows, segments, size);
}

function rankAll(local, size) {
  const {vertices, links} = local;
  const order = topological(vertices.length, links.map(link => [link.source, link.target]));
  const position = new Array(vertices.length).fill(0);
  order.forEach((v, index) => { position[v] = index; });
  const out = vertices.map(() => []), into = vertices.map(() => []);
  for (const link of links) {
    link.back = position[link.source] >= position[link.target];
    if (!link.back) { out[link.source].push(link); into[link.target].push(link); }
  }
  const first = vertices.some(v => v.end < 0) ? 1 : 0, step = link => link.label ? 2 : 1;
  for (const v of order)
    vertices[v].rank = largest(vertices[v].end < 0 ? 0 : first, into[v], e => vertices[e.source].rank + step(e));
  for (const v of [...order].reverse())
    if (vertices[v].end === 0 && out[v].length > into[v].length)
      vertices[v].rank = -largest(-1e12, out[v], e => step(e) - vertices[e.target].rank);
  const wrapped = wrapRanks(vertices, order, into, step, size);
  const last = largest(0, vertices, v => v.end === 1 ? 0 : v.rank + 1);
  for (const v of vertices) if (v.end === 1) v.rank = last;
  return wrapped;
}

function wrapRanks(vertices, order, into, step, size) {
  const solid = order.filter(v => vertices[v].end === 0);
  const area = sum(solid, v => (vertices[v].left + vertices[v].right + size.box_gap) * (vertices[v].height + size.rank_gap));
  const room = Math.max(size.row_width, Math.sqrt(2 * area)), load = new Map();
  let wrapped = false;
  for (const v of solid.slice().sort((a, b) => vertices[a].rank - vertices[b].rank)) {
    const wide = vertices[v].left + vertices[v].right + size.box_gap;
    let rank = largest(vertices[v].rank, into[v], e => vertices[e.source].rank + step(e));
    while ((load.get(rank) || 0) > 0 && load.get(rank) + wide > room) { rank += 1; wrapped = true; }
    vertices[v].rank = rank;
    load.set(rank, (load.get(rank) || 0) + wide);
  }
  return wrapped;
}

const sweepsOf = (most, vertices, size) => Math.max(3, Math.floor(most * Math.min(1, size.full_effort / Math.max(1, vertices.length))));

function insertDummies(local) {
  const vertices = local.vertices, lanes = new Map(), segments = new Map();
  for (const link of local.links) {
    if (link.back) continue;
    const name = [link.source, link.out, link.net].join(" ");
    if (!lanes.has(name)) lanes.set(name, []);
    const lane = lanes.get(name), span = vertices[link.target].rank - vertices[link.source].rank;
    while (lane.length < span - 1) {
      const half = lane.length ? 0 : link.label / 2, tall = link.label && !lane.length ? 14 : 0;
      const dummy = vertex("", half, half, tall, 0, 0);
      dummy.rank = vertices[link.source].rank + lane.length + 1;
      lane.push(vertices.push(dummy) - 1);
    }
    link.chain = lane.slice(0, span - 1);
    const ends = [link.source, ...link.chain, link.target];
    for (let i = 0; i + 1 < ends.length; i++) {
      const a = ends[i], b = ends[i + 1], out = i === 0 ? link.out : 0, into = i === ends.length - 2 ? link.into : 0;
      const same = [a, b, out, into].join(" ");
      if (!segments.has(same))
        segments.set(same, {upper: a, lower: b, out, into, weight: weightOf(vertices[a], vertices[b], out, into)});
    }
  }
  return [[...segments.values()], [...lanes.values()].filter(lane => lane.length)];
}

const vertex = (key, left, right, height, inset, end) => ({key, left, right, height, inset, end, rank: 0, x: 0, y: 0, place: 0});

function weightOf(upper, lower, out, into) {
  if (!upper.key && !lower.key) return 8;
  if (upper.end || lower.end || Math.abs(out) > 200 || Math.abs(into) > 200) return 0.03;
  return upper.key && lower.key ? 2 : 1;
}

function sortRows(vertices, rows, upper, lower, size) {
  const share = vertices.map(v => 1 / (v.left + v.right + 1));
  const number = row => row.forEach((v, index) => { vertices[v].place = index; });
  const above = s => vertices[s.upper].place + s.out * share[s.upper];
  const below = s => vertices[s.lower].place + s.into * share[s.lower];
  const sweep = (row, down) => {
    const keys = new Map();
    for (const v of row) {
      const near = down ? upper[v] : lower[v];
      keys.set(v, near.length ? sum(near, down ? above : below) / near.length : vertices[v].place);
      if (vertices[v].end === -2) keys.set(v, -1e9);
    }
    row.sort((a, b) => keys.get(a) - keys.get(b) || vertices[a].place - vertices[b].place);
    number(row);
  };
  const crossings = () => {
    let total = 0;
    for (const row of rows) {
      const pairs = [];
      for (const v of row) for (const s of lower[v]) pairs.push([above(s), below(s)]);
      pairs.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
      const seen = [];
      for (const [, low] of pairs) {
        let from = 0, to = seen.length;
        while (from < to) { const middle = (from + to) >> 1; if (low < seen[middle]) to = middle; else from = middle + 1; }
        total += seen.length - from;
        seen.splice(from, 0, low);
      }
    }
    return total;
  };
  rows.forEach(number);
  let best = rows.map(row => row.slice()), least = crossings();
  const sweeps = sweepsOf(size.order_sweeps, vertices, size);
  for (let turn = 0; turn < sweeps && least > 0; turn++) {
    const down = turn % 2 === 0;
    for (const row of down ? rows.slice(1) : rows.slice(0, -1).reverse()) sweep(row, down);
    const count = crossings();
    if (count < least) { best = rows.map(row => row.slice()); least = count; }
  }
  best.forEach((row, index) => { rows[index] = row; number(row); });
}

function placeRows(vertices, rows, upper, lower, wrapped, size) {
  for (const row of rows) spread(vertices, row, row.map(() => 0), row.map(() => 1), size);
  const packed = wrapped ? vertices.map(v => v.x) : null;
  const sweeps = sweepsOf(size.place_sweeps, vertices, size);
  for (let turn = 0; turn < sweeps; turn++) {
    const rough = 3 * turn < 2 * sweeps;
    for (const down of [true, false]) {
      for (const row of down ? rows : rows.slice().reverse()) {
        const wanted = [], weights = [];
        for (const v of row) {
          const spots = [];
          for (const s of upper[v]) spots.push([vertices[s.upper].x + s.out - s.into, s.weight]);
          for (const s of lower[v]) spots.push([vertices[s.lower].x + s.into - s.out, s.weight]);
          if (packed && vertices[v].end === 0 && vertices[v].key) spots.push([packed[v], 4]);
          const [want, weight] = rough ? mean(spots) : median(spots);
          wanted.push(spots.length ? want : vertices[v].x);
          weights.push(spots.length ? weight : 0.01);
        }
        spread(vertices, row, wanted, weights, size);
      }
    }
  }
}

function mean(spots) {
  let total = 0, weighted = 0;
  for (const [x, weight] of spots) { total += Math.min(weight, 1); weighted += Math.min(weight, 1) * x; }
  return [spots.length ? weighted / total : 0, total];
}

function median(spots) {
  spots.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const total = sum(spots, spot => spot[1]);
  let below = 0;
  for (let index = 0; index < spots.length; index++) {
    below += spots[index][1];
    if (below > total / 2) return [spots[index][0], total];
    if (below === total / 2) return [(spots[index][0] + spots[index + 1][0]) / 2, total];
  }
  return [0, 0];
}

const gap = (left, right, size) => !left.key && !right.key ? size.lane_gap : size.box_gap;

function straighten(vertices, rows, lanes, size) {
  const bounds = v => {
    const me = vertices[v], row = rows[me.rank];
    let low = -1e12, high = 1e12;
    if (me.place > 0) { const near = vertices[row[me.place - 1]]; low = near.x + near.right + gap(near, me, size) + me.left; }
    if (me.place + 1 < row.length) { const far = vertices[row[me.place + 1]]; high = far.x - far.left - gap(me, far, size) - me.right; }
    return [low, high];
  };
  const settle = (piece, low, high) => {
    const [middle] = median(piece.map(v => [vertices[v].x, 1]));
    for (const v of piece) vertices[v].x = Math.min(Math.max(middle, low), high);
  };
  let centre = 0;
  for (const v of vertices) centre += v.x / vertices.length;
  for (let sweep = 0; sweep < size.straight_sweeps; sweep++) {
    const keyed = lanes.map(lane => [-Math.abs(vertices[lane[0]].x - centre), lane]);
    keyed.sort((a, b) => a[0] - b[0] || a[1][0] - b[1][0]);
    for (const [, lane] of keyed) {
      let piece = [], low = -1e12, high = 1e12;
      for (const v of lane) {
        const [near, far] = bounds(v);
        if (piece.length && Math.max(low, near) > Math.min(high, far)) {
          settle(piece, low, high);
          piece = []; low = -1e12; high = 1e12;
        }
        piece.push(v);
        low = Math.max(low, near); high = Math.min(high, far);
      }
      settle(piece, low, high);
    }
  }
}

function spread(vertices, row, wanted, weights, size) {
  const shifts = [], blocks = [];
  let shift = 0;
  row.forEach((v, index) => {
    if (index) { const before = vertices[row[index - 1]]; shift += before.right + gap(before, vertices[v], size) + vertices[v].left; }
    shifts.push(shift);
  });
  row.forEach((v, index) => {
    let block = [wanted[index] - shifts[index], weights[index], 1];
    while (blocks.length && blocks[blocks.length - 1][0] >= block[0]) {
      const [middle, total, count] = blocks.pop(), joint = total + block[1];
      block = [(middle * total + block[0] * block[1]) / joint, joint, count + block[2]];
    }
    blocks.push(block);
  });
  let index = 0;
  for (const [middle, , count] of blocks) for (let i = 0; i < count; i++, index++) vertices[row[index]].x = middle + shifts[index];
}

function finish(local, rows, segments, size) {
  const vertices = local.vertices, header = vertices.find(v => v.end === -2), pad = header ? size.padding : 0;
  const bend = rows.map(() => 0);
  for (const s of segments) {
    const shift = Math.abs(vertices[s.upper].x + s.out - vertices[s.lower].x - s.into), rank = vertices[s.upper].rank;
    bend[rank] = Math.max(bend[rank], shift);
  }
  let y = pad / 2;
  rows.forEach((row, index) => {
    const tall = largest(0, row, v => vertices[v].height);
    local.tops.push(y); local.bottoms.push(y + tall);
    for (const v of row) vertices[v].y = y + (tall - vertices[v].height) / 2;
    const onlyPorts = index === 0 && row.every(v => vertices[v].end < 0);
    y += tall + (onlyPorts ? size.rank_gap / 2 : size.rank_gap) + Math.min(46, bend[index] / 9);
  });
  const bottom = rows.length ? local.bottoms[rows.length - 1] : 0, solid = vertices.filter(v => v.end !== -2);
  local.height = bottom + (vertices.some(v => v.end === 1) ? 0 : pad);
  let left = solid.length ? -largest(-1e12, solid, v => v.left - v.x) : 0;
  if (header) for (const v of vertices) if (v.end === -1) left = Math.min(left, v.x - header.right - size.box_gap);
  for (const v of vertices) v.x += pad - left;
  let right = largest(solid.length ? -1e12 : 0, solid, v => v.x + v.right);
  if (header) { header.x = pad; right = Math.max(right, header.x + header.right); }
  const back = sum(local.links, link => link.back ? 1 : 0);
  local.width = right + pad + (back ? 10 * back + 6 : 0);
  for (const v of vertices) if (v.end === -1 || v.end === 1) local.ports.set(v.key, v.x - local.width / 2);
}

function place(boxes, frames, wires, size) {
  const parent = new Map(), children = new Map([[null, []]]);
  for (const box of boxes) parent.set(box.id, box.parent);
  for (const frame of frames) { parent.set(FRAME + frame.id, frame.parent); children.set(frame.id, []); }
  for (const [key, above] of parent) children.get(above).push(key);
  const parts = split(wires, parent), sizes = new Map(boxes.map(box => [box.id, box]));
  const headers = new Map(frames.map(frame => [frame.id, frame])), done = new Map(), outerFirst = [null];
  for (let i = 0; i < outerFirst.length; i++) for (const frame of frames) if (frame.parent === outerFirst[i]) outerFirst.push(frame.id);
  for (const above of outerFirst.slice().reverse()) {
    const local = assemble(children.get(above), parts.get(above) || [], sizes, done, headers.get(above));
    arrange(local, size);
    done.set(above, local);
  }
  return collect(wires, parts, done, outerFirst, sizes);
}

function split(wires, parent) {
  const trails = new Map(), parts = new Map();
  for (const key of parent.keys()) {
    if (key.startsWith(FRAME)) continue;
    const trail = [];
    for (let child = key; ;) {
      const above = parent.get(child);
      trail.push([above, child]);
      if (above === null) break;
      child = FRAME + above;
    }
    trails.set(key, trail.reverse());
  }
  const add = (above, part) => { if (!parts.has(above)) parts.set(above, []); parts.get(above).push(part); };
  wires.forEach((wire, number) => {
    const a = trails.get(wire.source), b = trails.get(wire.target), node = wire.source;
    let depth = 0;
    while (depth + 1 < Math.min(a.length, b.length) && a[depth + 1][0] === b[depth + 1][0]) depth += 1;
    add(a[depth][0], {wire: number, source: a[depth][1], target: b[depth][1], node, label: wire.label_width, text: wire.label, role: "across"});
    for (const [above, child] of a.slice(depth + 1)) add(above, {wire: number, source: child, target: "", node, label: 0, text: "", role: "out"});
    for (const [above, child] of b.slice(depth + 1)) add(above, {wire: number, source: "", target: child, node, label: 0, text: "", role: "in"});
  });
  return parts;
}

function assemble(keys, parts, sizes, done, header) {
  const local = {vertices: [], links: [], tops: [], bottoms: [], width: 0, height: 0, ports: new Map()}, number = new Map(), known = new Map();
  const add = v => number.set(v.key, local.vertices.push(v) - 1);
  const port = (key, name) => key.startsWith(FRAME) ? done.get(key.slice(FRAME.length)).ports.get(name) : 0;
  if (header) add(vertex(HEADING, 0, header.header_width, header.header_height, 0, -2));
  for (const part of parts) {
    const name = (part.role === "in" ? ENTRY : EXIT) + part.node;
    if (part.role !== "across" && !number.has(name)) add(vertex(name, 0, 0, 0, 0, part.role === "in" ? -1 : 1));
  }
  for (const key of keys) {
    if (key.startsWith(FRAME)) {
      const inner = done.get(key.slice(FRAME.length));
      add(vertex(key, inner.width / 2, inner.width / 2, inner.height, 0, 0));
    } else {
      const box = sizes.get(key), tall = Math.max(box.height, box.side_height);
      add(vertex(key, box.width / 2 + box.side, box.width / 2, tall, (tall - box.height) / 2, 0));
    }
  }
  for (const part of parts) {
    const source = number.get(part.role === "in" ? ENTRY + part.node : part.source);
    const target = number.get(part.role === "out" ? EXIT + part.node : part.target);
    const out = part.role === "in" ? 0 : port(part.source, EXIT + part.node);
    const into = part.role === "out" ? 0 : port(part.target, ENTRY + part.node);
    const net = part.label ? part.node + " " + part.text : part.node, same = [source, target, out, into, net].join(" ");
    if (!known.has(same))
      known.set(same, local.links.push({source, target, out, into, net, label: part.label, back: false, chain: []}) - 1);
    part.link = known.get(same);
  }
  return local;
}

function collect(wires, parts, done, outerFirst, sizes) {
  const root = done.get(null), result = {boxes: new Map(), frames: new Map(), routes: [], width: root.width, height: root.height};
  const origin = new Map([[null, [0, 0]]]), pieces = wires.map(() => ({out: [], across: [], in: []}));
  for (const above of outerFirst) {
    const local = done.get(above), [dx, dy] = origin.get(above);
    for (const v of local.vertices) {
      const x = v.x + dx, y = v.y + dy;
      if (v.key.startsWith(FRAME)) {
        const id = v.key.slice(FRAME.length), inner = done.get(id);
        origin.set(id, [x - v.left, y]);
        result.frames.set(id, {x: x - v.left, y, width: inner.width, height: inner.height});
      } else if (v.end === 0 && sizes.has(v.key)) {
        const box = sizes.get(v.key);
        result.boxes.set(v.key, {x: x - box.width / 2, y: y + v.inset, width: box.width, height: box.height});
      }
    }
    const fans = fan(local);
    let lane = 0;
    const drawn = local.links.map((link, number) => {
      if (link.back) lane += 1;
      const points = link.back ? bendBack(local, link, fans[number], lane) : bend(local, link, fans[number]);
      const label = link.label && link.chain.length ? local.vertices[link.chain[0]] : null;
      return {points: points.map(([x, y]) => [x + dx, y + dy]), label: label && [label.x + dx, label.y + label.height / 2 + dy], back: link.back};
    });
    for (const part of parts.get(above) || []) pieces[part.wire][part.role].push(drawn[part.link]);
  }
  for (const piece of pieces) {
    const joined = [...piece.out.reverse(), ...piece.across, ...piece.in];
    const points = simplify(joined.flatMap(part => part.points));
    result.routes.push({points, label: piece.across[0].label, back: joined.some(part => part.back)});
  }
  return result;
}

function fan(local) {
  const entering = new Map(), offsets = local.links.map(link => link.into);
  local.links.forEach((link, number) => {
    const v = local.vertices[link.target];
    if (v.end !== 0 || v.key.startsWith(FRAME)) return;
    const last = link.chain.length ? link.chain[link.chain.length - 1] : link.source;
    const come = local.vertices[last].x + (link.chain.length ? 0 : link.out), same = come + " " + last;
    if (!entering.has(link.target)) entering.set(link.target, new Map());
    const sources = entering.get(link.target);
    if (!sources.has(same)) sources.set(same, [come, last, []]);
    sources.get(same)[2].push(number);
  });
  for (const [target, sources] of entering) {
    const step = Math.min(14, (2 * local.vertices[target].right - 16) / sources.size);
    const ordered = [...sources.values()].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    ordered.forEach(([, , numbers], index) => {
      for (const number of numbers) offsets[number] = (index - (sources.size - 1) / 2) * step;
    });
  }
  return offsets;
}

function bend(local, link, into) {
  const source = local.vertices[link.source], target = local.vertices[link.target];
  let x = source.x + link.out;
  const points = [[x, source.end === -1 ? 0 : source.y + source.height - source.inset], [x, local.bottoms[source.rank]]];
  for (const dummy of link.chain) {
    const v = local.vertices[dummy];
    points.push([v.x, local.tops[v.rank]], [v.x, local.bottoms[v.rank]]);
  }
  x = target.x + into;
  points.push([x, local.tops[target.rank]], [x, target.end === 1 ? local.height : target.y + target.inset]);
  return points;
}

function bendBack(local, link, into, lane) {
  const source = local.vertices[link.source], target = local.vertices[link.target], side = local.width - 10 * lane;
  const x = source.x + link.out, low = local.bottoms[source.rank] + 7, high = local.tops[target.rank] - 7;
  return [
    [x, source.y + source.height - source.inset], [x, low], [side, low],
    [side, high], [target.x + into, high], [target.x + into, target.y + target.inset],
  ];
}

function simplify(points) {
  const kept = [];
  for (const point of points) {
    const last = kept[kept.length - 1], before = kept[kept.length - 2];
    if (last && last[0] === point[0] && last[1] === point[1]) continue;
    if (before && before[0] === last[0] && last[0] === point[0]) kept.pop();
    kept.push(point);
  }
  return kept;
}

// What is visible of an outline under a set of folded groups: boxes, frames, wires, and each box's pins.
function visibleParts(outline, folded, size) {
  const top = new Map([[null, null]]), result = {boxes: [], frames: [], wires: [], edges: [], pins: new Map()};
  for (const group of outline.groups) {
    const outer = top.get(group.parent);
    top.set(group.key, outer !== null ? outer : folded.has(group.key) ? group.key : null);
  }
  const nodes = new Map(outline.nodes.map(node => [node.key, node])), seen = new Map();
  const visible = new Map(outline.nodes.map(node => [node.key, top.get(node.home) || node.key]));
  for (const [user, leaves] of outline.pinned)
    if (visible.get(user) === user) result.pins.set(user, leaves.map(leaf => outline.pins[leaf]));
  for (const arc of outline.arcs) {
    const source = visible.get(arc.source), target = visible.get(arc.target);
    if (source === target && source !== arc.source) continue;
    if (arc.far && source === arc.source && target === arc.target) {
      if (!result.pins.has(target)) result.pins.set(target, []);
      const pins = result.pins.get(target), pin = outline.far_pins[source];
      if (!pins.includes(pin)) pins.push(pin);
      continue;
    }
    const own = target === arc.target || source === arc.source, label = own ? arc.label : "";
    const same = JSON.stringify([source, target, label, arc.style]);
    if (seen.has(same)) { result.edges[seen.get(same)].count += 1; continue; }
    seen.set(same, result.wires.length);
    result.wires.push({source, target, label_width: label ? arc.label_width : 0, label});
    result.edges.push({source, target, label, style: arc.style, count: 1});
  }
  for (const [user, pins] of result.pins)
    if (pins.length > size.pin_limit) {
      const more = {key: "", style: "constant", text: "+" + (pins.length - size.pin_limit + 1) + " more", far: false};
      more.width = size.more_width[more.text.length] || 60;
      result.pins.set(user, [...pins.slice(0, size.pin_limit - 1), more]);
    }
  const box = (part, parent, pins) => ({
    id: part.key, width: part.width, height: part.height, parent,
    side: pins.length ? largest(0, pins, pin => pin.width) + size.pin_tie : 0,
    side_height: pins.length ? pins.length * size.pin_pitch - (size.pin_pitch - size.pin_height) : 0,
  });
  const hidden = new Set(outline.hidden);
  for (const [key, node] of nodes)
    if (visible.get(key) === key && !hidden.has(key)) result.boxes.push(box(node, node.home, result.pins.get(key) || []));
  for (const group of outline.groups) {
    if (top.get(group.key) === group.key) result.boxes.push(box({key: group.key, ...group.folded}, group.parent, []));
    else if (top.get(group.key) === null)
      result.frames.push({id: group.key, parent: group.parent, header_width: group.width, header_height: group.height});
  }
  return result;
}

// The groups to fold so that about `limit` boxes remain.
function foldTo(outline, limit) {
  const members = new Map([[null, 0]]), inner = new Map([[null, []]]), hidden = new Set(outline.hidden);
  for (const group of outline.groups) { members.set(group.key, 0); inner.set(group.key, []); }
  for (const group of outline.groups) inner.get(group.parent).push(group.key);
  for (const node of outline.nodes) if (!hidden.has(node.key)) members.set(node.home, members.get(node.home) + 1);
  const size = group => members.get(group) + inner.get(group).length, folded = new Set(outline.groups.map(group => group.key));
  let total = size(null), row = inner.get(null);
  while (row.length) {
    const following = [];
    for (const group of row.slice().sort((a, b) => size(a) - size(b) || Number(a.slice(1)) - Number(b.slice(1))))
      if (total + size(group) - 1 <= limit) {
        total += size(group) - 1;
        folded.delete(group);
        following.push(...inner.get(group));
      }
    row = following;
  }
  return folded;
}
