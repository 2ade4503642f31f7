// What the page decides without touching it: where the camera stands, what a search leads to, whose a key is.

// The camera that shows a drawing in a window of the same sides, whole or at a readable size from its top. `inset` is
// what lies over the window's top and bottom, and a margin, in pixels of the window: none of the drawing comes there.
function fitted(drawing, box, inset, whole) {
  const wide = (box.width - 2 * inset.side) / Math.max(drawing.width, 1);
  const room = box.height - inset.top - inset.bottom, tall = room / Math.max(drawing.height, 1);
  const all = Math.max(Math.min(wide, tall, 1.25), 1e-4);
  const scale = whole ? all : Math.max(all, Math.min(wide, 0.9), 0.6);
  const below = Math.max(0, (room - drawing.height * scale) / 2);
  return {x: (box.width - drawing.width * scale) / 2, y: inset.top + below, scale};
}

// Keys of what a lower-case text is found in, in the order in which a reader wants them: what is called exactly that,
// then what has it in its name, then in other lines, each in the graph's order; and all of that before gradients.
function searched(entries, text) {
  const bare = name => name.toLowerCase().replace(/^∂ /, "");
  const rank = entry =>
    entry.names.some(name => name.toLowerCase() === text || bare(name) === text) ? 0
    : entry.names.some(name => name.toLowerCase().includes(text)) ? 1
    : entry.lines.some(line => line.toLowerCase().includes(text)) ? 2 : 3;
  return entries.map(entry => ({...entry, rank: rank(entry)})).filter(entry => entry.rank < 3)
    .sort((a, b) => a.derived - b.derived || a.rank - b.rank || a.place - b.place).map(entry => entry.key);
}

// What can be searched for in an outline: the nodes, and after them the groups in the order of their first nodes.
function entriesOf(outline) {
  const parent = new Map(outline.groups.map(group => [group.key, group.parent])), first = new Map();
  outline.nodes.forEach((node, index) => {
    for (let above = node.home; above !== null && !first.has(above); above = parent.get(above)) first.set(above, index);
  });
  const groups = outline.groups.map(group =>
    ({key: group.key, names: [group.label], lines: group.lines, derived: group.derived, place: outline.nodes.length + (first.get(group.key) ?? 0)}));
  const nodes = outline.nodes.map((node, place) =>
    ({key: node.key, names: [node.label, node.kind, node.id], lines: [node.scope.join("/"), ...node.lines], derived: node.derived, place}));
  return [...nodes, ...groups];
}

// Whether a focused element uses a key itself, so that it is none of the page's.
function usesKey(tag, role, key) {
  if (tag === "INPUT" || tag === "TEXTAREA") return true;
  if (role === "tab" && (key === "ArrowLeft" || key === "ArrowRight")) return true;
  return (tag === "BUTTON" || tag === "SUMMARY") && (key === "Enter" || key === " ");
}
