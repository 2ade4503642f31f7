// The layout of nested frames, and what of an outline is visible: layout.py and outline.py (view, fold_to) for the page,
// function by function, on top of layered.js.

const FRAME = "frame:", HEADING = "heading:", ENTRY = "entry:", EXIT = "exit:";

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
