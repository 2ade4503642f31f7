// The page: draws the visible part of one diagram, and lets the reader move, search, fold and select.
// Names from the diagram only ever become text nodes and attribute values, never markup.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SPACE = "http://www.w3.org/2000/svg", $ = id => document.getElementById(id);
const svg = $("canvas"), world = $("world"), tip = $("tip"), panel = $("panel"), field = $("search");
const tabs = DATA.tabs.map(tab => ({...tab, folded: new Set(tab.folded || []), camera: null, picked: null}));
let tab = null, shown = null, elements = new Map(), edgeElements = [], matches = [], match = -1;
let camera = {x: 0, y: 0, scale: 1};

function make(parent, name, attributes, text) {
  const element = document.createElementNS(SPACE, name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.appendChild(element);
  return element;
}

function html(parent, name, text, attributes) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  for (const key in attributes || {}) element.setAttribute(key, attributes[key]);
  parent.appendChild(element);
  return element;
}

const round = value => Math.round(value * 10) / 10;

function pathData(points) {
  let [x, y] = points[0], data = "M" + round(x) + " " + round(y);
  for (const [toX, toY] of points.slice(1)) {
    if (Math.abs(toX - x) < 0.05 || Math.abs(toY - y) < 0.05) data += "L" + round(toX) + " " + round(toY);
    else data += "C" + [x, (y + toY) / 2, toX, (y + toY) / 2, toX, toY].map(round).join(" ");
    x = toX; y = toY;
  }
  return data;
}

function textRows(group, rows, x, y, step, anchor) {
  rows.forEach((row, index) => make(group, "text",
    {x: round(x), y: round(y + (index ? 2 : 0) + step * index), class: index ? "dim" : "label", "text-anchor": anchor}, row));
}

function keep(key, element) {
  element.dataset.key = key;
  if (!elements.has(key)) elements.set(key, []);
  elements.get(key).push(element);
  return element;
}

function draw() {
  world.replaceChildren();
  elements = new Map(); edgeElements = [];
  if (tab.memory) {
    world.append(...document.importNode($(tab.memory).content.firstElementChild, true).childNodes);
    for (const slab of world.querySelectorAll(".slab")) keep("m" + slab.dataset.row, slab);
    for (const title of world.querySelectorAll(".slab>title")) title.remove();
    const size = $(tab.memory).content.firstElementChild.viewBox.baseVal;
    shown = {width: size.width, height: size.height, boxes: new Map(), frames: new Map()};
    return;
  }
  const view = visibleParts(tab.outline, tab.folded, DATA.size);
  shown = place(view.boxes, view.frames, view.wires, DATA.size);
  for (const frame of view.frames) drawFrame(tab.groups.get(frame.id), shown.frames.get(frame.id));
  view.edges.forEach((edge, index) => drawEdge(edge, shown.routes[index]));
  for (const box of view.boxes) drawBox(box, shown.boxes.get(box.id), view.pins.get(box.id) || []);
}

function drawFrame(group, rect) {
  const element = keep(group.key, make(world, "g", {class: "frame " + group.style}));
  make(element, "rect", {class: "area", rx: 8, x: round(rect.x), y: round(rect.y), width: round(rect.width), height: round(rect.height)});
  const head = make(element, "g", {class: "head"});
  head.dataset.toggle = group.key;
  make(head, "rect", {x: round(rect.x + 6), y: round(rect.y + 4), width: group.width + 8, height: group.height + 4});
  textRows(head, ["▾ " + group.rows[0], ...group.rows.slice(1)], rect.x + 12, rect.y + 18, 13, "start");
}

function drawEdge(edge, route) {
  const element = make(world, "g", {class: "edge " + edge.style + (route.back ? " back" : "") + (edge.count > 1 ? " bundle" : "")});
  make(element, "path", {d: pathData(route.points), "marker-end": "url(#arrow)"});
  if (edge.label && route.label) {
    const [x, y] = route.label, half = edge.label.length * 3.02 + 2;
    make(element, "rect", {x: round(x - half), y: round(y - 7), width: round(2 * half), height: 14, rx: 2});
    make(element, "text", {x: round(x), y: round(y + 3.5), "text-anchor": "middle"}, edge.label);
  }
  edgeElements.push({element, source: edge.source, target: edge.target});
}

function drawBox(box, rect, pins) {
  const part = tab.groups.has(box.id) ? tab.groups.get(box.id).folded : tab.nodes.get(box.id);
  const element = keep(box.id, make(world, "g", {class: "box " + part.style}));
  make(element, "rect", {class: "body", rx: 5, x: round(rect.x), y: round(rect.y), width: round(rect.width), height: round(rect.height)});
  make(element, "rect", {class: "bar", rx: 1, x: round(rect.x), y: round(rect.y + 3), width: 3.5, height: round(rect.height - 6)});
  textRows(element, part.rows, rect.x + rect.width / 2, rect.y + 17, 12.5, "middle");
  pins.forEach((pin, index) => {
    const y = rect.y + rect.height / 2 + (index - (pins.length - 1) / 2) * DATA.size.pin_pitch, right = rect.x - DATA.size.pin_tie;
    const to = Math.min(Math.max(y, rect.y + 6), rect.y + rect.height - 6);
    make(world, "path", {class: "tie", d: `M${round(right)} ${round(y)}C${round(right + 8)} ${round(y)} ${round(rect.x - 8)} ${round(to)} ${round(rect.x)} ${round(to)}`});
    const small = make(world, "g", {class: "pin " + pin.style + (pin.far ? " far" : "")});
    if (pin.key) keep(pin.key, small); else small.dataset.key = box.id;
    make(small, "rect", {class: "body", rx: DATA.size.pin_height / 2, x: round(right - pin.width), y: round(y - DATA.size.pin_height / 2), width: pin.width, height: DATA.size.pin_height});
    make(small, "text", {x: round(right - pin.width / 2), y: round(y + 3.5), "text-anchor": "middle"}, pin.text);
  });
}

// Camera.

function apply() {
  world.setAttribute("transform", `translate(${round(camera.x)} ${round(camera.y)}) scale(${camera.scale.toPrecision(6)})`);
}

function zoom(factor, x, y) {
  const box = svg.getBoundingClientRect();
  if (x === undefined) { x = box.width / 2; y = box.height / 2; }
  const least = Math.min(0.01, camera.scale), scale = Math.min(4, Math.max(least, camera.scale * factor)), ratio = scale / camera.scale;
  camera = {x: x - (x - camera.x) * ratio, y: y - (y - camera.y) * ratio, scale};
  apply();
}

function fit(whole) {
  const box = svg.getBoundingClientRect(), facts = $("facts"), legend = $("legend");
  const over = facts.offsetHeight ? facts.offsetTop + facts.offsetHeight : 0, under = legend.open ? 0 : box.height - legend.offsetTop;
  // A tall graph opens at a readable size at its top; the fit button shows all of it.
  camera = fitted(shown, box, {side: 20, top: Math.min(over, box.height / 4) + 14, bottom: Math.min(under, box.height / 4) + 14}, whole);
  const {scale} = camera;
  const first = [...shown.frames.values(), ...shown.boxes.values()].sort((a, b) => a.y - b.y)[0];
  if (first && camera.x < 0) camera.x = box.width / 2 - (first.x + first.width / 2) * scale;
  apply();
}

function boundsOf(key) {
  const list = elements.get(key);
  if (!list) return null;
  const main = list.find(element => element.matches(".box,.frame,.slab")) || list[0];
  const box = main.getBBox();
  return main.matches(".frame") ? {x: box.x, y: box.y, width: box.width, height: Math.min(box.height, 60)} : box;
}

function centre(key) {
  const box = boundsOf(key), view = svg.getBoundingClientRect();
  if (!box) return;
  camera.scale = Math.max(camera.scale, 0.75);
  camera.x = view.width / 2 - (box.x + box.width / 2) * camera.scale;
  camera.y = view.height / 2 - (box.y + box.height / 2) * camera.scale;
  apply();
}

// Folding.

function setFolded(folded, anchor) {
  const before = anchor && boundsOf(anchor);
  tab.folded = folded;
  draw();
  const after = anchor && boundsOf(anchor);
  if (before && after) {
    camera.x += (before.x + before.width / 2 - after.x - after.width / 2) * camera.scale;
    camera.y += (before.y - after.y) * camera.scale;
    apply();
  } else if (!anchor) fit(false);
  markFound();
  light(tab.picked);
  describe(tab.picked);
}

function toggle(group) {
  const folded = new Set(tab.folded);
  if (!folded.delete(group)) folded.add(group);
  setFolded(folded, group);
}

function reveal(key) {
  const folded = new Set(tab.folded), size = folded.size;
  let above = tab.groups.has(key) ? tab.groups.get(key).parent : tab.nodes.has(key) ? tab.nodes.get(key).home : null;
  for (; above; above = tab.groups.get(above).parent) folded.delete(above);
  if (folded.size !== size) setFolded(folded, key);
}

// Selection.

function light(key) {
  for (const element of world.querySelectorAll(".hot,.picked")) element.classList.remove("hot", "picked");
  svg.classList.toggle("lit", key !== null && !tab.memory && elements.has(key));
  if (key === null || !elements.has(key)) return;
  for (const element of elements.get(key)) element.classList.add(key === tab.picked ? "picked" : "hot", "hot");
  for (const edge of edgeElements) {
    if (edge.source !== key && edge.target !== key) continue;
    edge.element.classList.add("hot");
    for (const element of elements.get(edge.source === key ? edge.target : edge.source) || []) element.classList.add("hot");
  }
  for (const arc of tab.arcsOf(key))
    for (const element of elements.get(arc.source === key ? arc.target : arc.source) || []) element.classList.add("hot");
}

function pick(key, move) {
  tab.picked = key;
  if (key !== null && move) { reveal(key); centre(key); }
  light(key);
  describe(key);
  $("said").textContent = key === null ? "" : nameOf(key);
}

function nameOf(key) {
  if (tab.memory) return tab.rows[Number(key.slice(1))].name;
  return tab.groups.has(key) ? tab.groups.get(key).label : tab.nodes.get(key).label;
}

function describe(key) {
  panel.replaceChildren();
  if (key === null) {
    html(panel, "p", tab.memory ? "Click a buffer for its place and life." : "Click a box for its details; click a group's heading to fold it.", {class: "note"});
    if (!tab.memory) list("groups", tab.outline.groups.filter(group => group.parent === null).map(group => group.key));
    return;
  }
  html(panel, "h2", nameOf(key));
  const facts = html(panel, "dl"), fact = (name, value) => {
    if (value === "" || value === undefined) return;
    html(facts, "dt", name); html(facts, "dd", value);
  };
  if (tab.memory) {
    const row = tab.rows[Number(key.slice(1))];
    fact("size", row.size); fact("bytes", String(row.bytes)); fact("offset", String(row.offset));
    fact("first step", row.first); fact("last step", row.last);
  } else if (tab.groups.has(key)) {
    const group = tab.groups.get(key);
    fact("nodes", String(group.count));
    for (const line of group.lines) fact("", line);
    html(panel, "button", tab.folded.has(key) ? "Unfold" : "Fold").onclick = () => { reveal(key); toggle(key); };
    list("in it", [...tab.outline.groups.filter(g => g.parent === key).map(g => g.key), ...tab.outline.nodes.filter(n => n.home === key).map(n => n.key)]);
  } else {
    const node = tab.nodes.get(key);
    fact("kind", node.kind); fact("class", node.meaning);
    fact("scope", node.scope.join(" / ")); fact("in", node.home === null ? "" : tab.groups.get(node.home).label);
    for (const line of node.lines) fact("", line);
    fact("id", node.id === node.label ? "" : node.id);
    if (node.tooltip) html(panel, "pre", node.tooltip);
    list("from", [...new Set(tab.arcsOf(key).filter(arc => arc.target === key).map(arc => arc.source))]);
    list("to", [...new Set(tab.arcsOf(key).filter(arc => arc.source === key).map(arc => arc.target))]);
  }
}

function list(title, keys) {
  if (!keys.length) return;
  html(panel, "h3", title + " (" + keys.length + ")");
  const items = html(panel, "ul");
  for (const key of keys.slice(0, 80)) html(html(items, "li"), "button", nameOf(key) || "·").onclick = () => pick(key, true);
  if (keys.length > 80) html(panel, "p", "and " + (keys.length - 80) + " more", {class: "note"});
}

function about(key) {
  if (tab.memory) { const row = tab.rows[Number(key.slice(1))]; return `${row.name}\n${row.size} at offset ${row.offset}\nsteps ${row.first} to ${row.last}`; }
  if (tab.groups.has(key)) { const group = tab.groups.get(key); return [group.label, group.count + " nodes", ...group.lines].join("\n"); }
  const node = tab.nodes.get(key), tooltip = node.tooltip.length > 600 ? node.tooltip.slice(0, 600) + "…" : node.tooltip;
  return [node.label, node.kind === node.label ? "" : node.kind, ...node.lines, node.scope.join(" / "), tooltip].filter(line => line).join("\n");
}

// Search.

function search() {
  const text = field.value.trim().toLowerCase();
  match = -1;
  if (!tab.entries)
    tab.entries = tab.memory ? tab.rows.map((row, place) => ({key: "m" + place, names: [row.name], lines: [], derived: false, place})) : entriesOf(tab.outline);
  matches = text ? searched(tab.entries, text) : [];
  markFound();
}

function markFound() {
  for (const element of world.querySelectorAll(".found")) element.classList.remove("found");
  for (const key of matches) for (const element of elements.get(key) || []) element.classList.add("found");
  $("found").textContent = !field.value.trim() ? "" : matches.length ? (match < 0 ? "" : match + 1 + "/") + matches.length + " found" : "none";
}

function step(by) {
  if (!matches.length) return;
  match = (match + by + matches.length + (match < 0 && by < 0 ? 1 : 0)) % matches.length;
  pick(matches[match], true);
  markFound();
}

// Tabs.

function open(index) {
  if (tab) tab.camera = camera;
  tab = tabs[index];
  if (tab.outline && !tab.nodes) {
    tab.nodes = new Map(tab.outline.nodes.map(node => [node.key, node]));
    tab.groups = new Map(tab.outline.groups.map(group => [group.key, group]));
    const incident = new Map();
    const add = (key, arc) => { if (!incident.has(key)) incident.set(key, []); incident.get(key).push(arc); };
    const pinned = tab.outline.pinned.flatMap(([target, leaves]) => leaves.map(source => ({source, target})));
    for (const arc of [...pinned, ...tab.outline.arcs]) { add(arc.source, arc); if (arc.target !== arc.source) add(arc.target, arc); }
    tab.arcsOf = key => incident.get(key) || [];
  } else if (!tab.arcsOf) tab.arcsOf = () => [];
  [...$("tabs").children].forEach((button, i) => {
    button.setAttribute("aria-selected", String(i === index));
    button.tabIndex = i === index ? 0 : -1;
  });
  $("title").textContent = tab.title;
  $("facts").textContent = tab.facts;
  for (const id of ["fold", "unfold"]) $(id).hidden = !tab.outline || !tab.outline.groups.length;
  draw();
  if (tab.camera) { camera = tab.camera; apply(); } else fit(false);
  search();
  pick(tab.picked, false);
}

tabs.forEach((item, index) => {
  const button = html($("tabs"), "button", item.name, {role: "tab", "aria-controls": "stage"});
  // A click leaves the keys to the drawing; who comes by the keyboard stays among the tabs.
  button.onclick = event => { open(index); if (event.detail) svg.focus({preventScroll: true}); };
  button.onkeydown = event => {
    const by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!by) return;
    event.preventDefault();
    const next = (index + by + tabs.length) % tabs.length;
    open(next);
    $("tabs").children[next].focus();
  };
});
$("tabs").hidden = tabs.length < 2;

// Pointer.

const fingers = new Map();
let moved = 0;

svg.addEventListener("pointerdown", event => {
  if (event.button) return;
  fingers.set(event.pointerId, event);
  moved = 0;
});
window.addEventListener("pointermove", event => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const box = svg.getBoundingClientRect();
  moved += Math.hypot(event.clientX - before.clientX, event.clientY - before.clientY);
  if (fingers.size === 2) {
    const other = [...fingers.values()].find(finger => finger.pointerId !== event.pointerId);
    const span = finger => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY) || 1;
    zoom(span(event) / span(before), other.clientX - box.left, other.clientY - box.top);
  } else if (moved > 3) {
    svg.classList.add("drag");
    tip.hidden = true;
    camera.x += event.clientX - before.clientX; camera.y += event.clientY - before.clientY;
    apply();
  }
  fingers.set(event.pointerId, event);
});
for (const name of ["pointerup", "pointercancel"])
  window.addEventListener(name, event => { fingers.delete(event.pointerId); svg.classList.remove("drag"); });
svg.addEventListener("wheel", event => {
  event.preventDefault();
  const box = svg.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.0016)), event.clientX - box.left, event.clientY - box.top);
}, {passive: false});
svg.addEventListener("click", event => {
  if (moved > 3) return;
  const head = event.target.closest("[data-toggle]"), item = event.target.closest("[data-key]");
  if (head) { pick(head.dataset.toggle, false); toggle(head.dataset.toggle); }
  else if (item) pick(item.dataset.key, item.matches(".far"));
  else pick(null);
});
svg.addEventListener("dblclick", event => {
  const item = event.target.closest(".box[data-key]");
  if (item && !tab.memory && tab.groups.has(item.dataset.key)) toggle(item.dataset.key);
});
svg.addEventListener("pointerover", event => {
  const item = event.target.closest("[data-key]");
  if (!item || fingers.size) return;
  if (item.matches(".frame") && !event.target.closest(".head")) return;
  if (tab.picked === null) light(item.dataset.key);
  tip.textContent = about(item.dataset.key);
  tip.hidden = false;
});
svg.addEventListener("pointerout", event => {
  const item = event.target.closest("[data-key]");
  if (!item || item.contains(event.relatedTarget)) return;
  tip.hidden = true;
  if (tab.picked === null) light(null);
});
svg.addEventListener("pointermove", event => {
  if (tip.hidden) return;
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8) + "px";
});

// Keyboard.

function neighbour(forward) {
  const drawn = tab.memory ? tab.rows.map((_, index) => "m" + index) : [...shown.frames.keys(), ...shown.boxes.keys()];
  if (!drawn.length) return;
  const at = drawn.indexOf(tab.picked);
  pick(drawn[at < 0 ? 0 : (at + (forward ? 1 : -1) + drawn.length) % drawn.length], true);
}

function follow(forward) {
  if (tab.picked === null) return;
  const edge = edgeElements.find(e => (forward ? e.source : e.target) === tab.picked);
  const arc = tab.arcsOf(tab.picked).find(a => (forward ? a.source : a.target) === tab.picked);
  const next = edge || arc;
  if (next) pick(forward ? next.target : next.source, true);
}

const keys = {
  ArrowLeft: () => { camera.x += 60; apply(); }, ArrowRight: () => { camera.x -= 60; apply(); },
  ArrowUp: () => { camera.y += 60; apply(); }, ArrowDown: () => { camera.y -= 60; apply(); },
  "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: () => fit(true), 1: () => zoom(1 / camera.scale),
  n: () => neighbour(true), p: () => neighbour(false), d: () => follow(true), u: () => follow(false),
  Enter: () => { if (tab.picked !== null && !tab.memory && tab.groups.has(tab.picked)) toggle(tab.picked); },
  f: () => {
    if (tab.picked === null || tab.memory) return;
    const group = tab.groups.has(tab.picked) ? tab.picked : tab.nodes.get(tab.picked).home;
    if (group) { tab.picked = group; toggle(group); pick(group, true); }
  },
  Escape: () => pick(null),
};
window.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const at = event.target instanceof Element ? event.target : document.body;
  if (usesKey(at.tagName, at.getAttribute("role"), event.key)) return;
  if (event.key === "/") { event.preventDefault(); field.focus(); field.select(); return; }
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});
field.addEventListener("input", search);
field.addEventListener("keydown", event => {
  if (event.key === "Enter") { event.preventDefault(); step(event.shiftKey ? -1 : 1); }
  if (event.key === "Escape") { field.value = ""; search(); svg.focus(); }
});
$("in").onclick = () => zoom(1.25);
$("out").onclick = () => zoom(0.8);
$("fit").onclick = () => fit(true);
$("fold").onclick = () => setFolded(new Set(tab.outline.groups.map(group => group.key)));
$("unfold").onclick = () => setFolded(foldTo(tab.outline, DATA.limit));
open(0);
