"use strict";
// The layout of one frame: layered.py for the page, function by function, so that folding a group can lay out again.
// The tests run both on the same diagrams and compare every coordinate. The page runs this, then layout.js and page.js,
// as one script.

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
