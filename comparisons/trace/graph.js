// The graph of a trace: laid out by dagre, drawn, zoomed, walked through.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = { step: 44, leaf: 38, label: 16 };
const MANY = 30; // steps, from which on submodules are closed at first
const READABLE = 0.7; // of the full size, at which the letters still can be read

function made(name, attributes, ...inside) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...inside);
  return element;
}

const ruler = document.createElement("canvas").getContext("2d");
function width(text, font) {
  ruler.font = font;
  return ruler.measureText(text).width;
}
const cut = (text, n) => (text.length > n ? `${text.slice(0, n - 1)}…` : text);

class Graph {
  constructor(svg, { nodes, edges }) {
    Object.assign(this, { svg, nodes, edges, open: new Set(), chosen: null });
    this.groups = this.grouped();
    const wrong = new Set(nodes.filter(n => n.kind === "different").flatMap(n => n.groups));
    const few = nodes.filter(n => n.kind !== "leaf").length <= MANY;
    for (const name of this.groups.keys()) if (few || wrong.has(name)) this.open.add(name);
    this.listen();
    this.draw();
    this.first();
  }

  // Submodules with several steps, each with the names of those around it: "blocks.0", "blocks.0/attn".
  grouped() {
    const counts = new Map();
    for (const n of this.nodes) n.groups = n.place.map((_, i) => n.place.slice(0, i + 1).join("/"));
    for (const n of this.nodes) if (n.kind !== "leaf") for (const g of n.groups) counts.set(g, (counts.get(g) ?? 0) + 1);
    for (const n of this.nodes) n.groups = n.groups.filter(g => counts.get(g) > 1);
    // One that holds the same steps as the one around it says nothing.
    for (const n of this.nodes) n.groups = n.groups.filter((g, i) => !i || counts.get(g) < counts.get(n.groups[i - 1]));
    const found = new Map();
    for (const n of this.nodes) n.groups.forEach((g, i) => {
      if (!found.has(g)) found.set(g, { id: g, steps: [], around: i ? n.groups[i - 1] : null });
      if (n.kind !== "leaf") found.get(g).steps.push(n);
    });
    return found;
  }

  // What stands for a node: itself, or the outermost closed submodule around it.
  standing(n) { return n.groups.find(g => !this.open.has(g)) ?? n.id; }

  layout() {
    const g = new dagre.graphlib.Graph({ compound: true, multigraph: true });
    g.setGraph({ rankdir: "TB", nodesep: 26, edgesep: 14, ranksep: 34, marginx: 20, marginy: 20 });
    g.setDefaultEdgeLabel(() => ({}));
    const standing = new Map(this.nodes.map(n => [n.id, this.standing(n)]));
    for (const n of this.nodes) {
      const id = standing.get(n.id);
      if (g.hasNode(id)) continue;
      const box = id === n.id ? this.box(n) : this.closed(this.groups.get(id));
      g.setNode(id, box);
    }
    for (const group of this.groups.values()) if (this.open.has(group.id) && this.visible(group)) g.setNode(group.id, { group });
    for (const n of this.nodes) {
      const id = standing.get(n.id), around = id === n.id ? n.groups.at(-1) : this.groups.get(id).around;
      if (around) g.setParent(id, around);
    }
    for (const group of this.groups.values()) if (g.hasNode(group.id) && group.around) g.setParent(group.id, group.around);
    const merged = new Map();
    for (const e of this.edges) {
      const from = standing.get(e.from), to = standing.get(e.to);
      if (from === to) continue;
      const key = JSON.stringify([from, to]);
      if (!merged.has(key)) merged.set(key, { from, to, parts: [] });
      merged.get(key).parts.push(e);
    }
    this.drawn = [...merged.values()];
    for (const e of this.drawn) {
      const [one] = e.parts, leaf = one.to.startsWith("leaf");
      e.none = e.parts.every(part => part.norm === "");
      e.text = e.none ? "no gradient" : e.parts.length > 1 ? `${e.parts.length} gradients` : leaf || !one.argument ? one.norm : `${cut(one.argument, 14)} ${one.norm}`;
      e.different = e.parts.some(part => part.different);
      // What was computed first stands above.
      g.setEdge(e.to, e.from, { width: width(e.text, "11px monospace") + 10, height: HEIGHT.label, labelpos: "c", weight: leaf ? 1 : 3 });
    }
    this.order(g);
    dagre.layout(g);
    for (const e of g.edges().filter(e => e.name)) g.removeEdge(e);
    return g;
  }

  // A leaf of a submodule stands below what came before that: else two submodules, of which one
  // follows the other, would have to stand side by side. A named edge asks for it, and is not drawn.
  order(g) {
    for (const e of this.drawn) {
      const inside = g.parent(e.from);
      if (!inside || e.to.startsWith("leaf") || this.within(g, e.to, inside)) continue;
      for (const f of this.drawn) {
        const alone = f.from === e.from && f.to.startsWith("leaf") && g.outEdges(f.to).length === 1;
        if (alone) g.setEdge(e.to, f.to, { width: 0, height: 0, weight: 0 }, "order");
      }
    }
  }

  within(g, id, group) { return id !== undefined && (id === group || this.within(g, g.parent(id), group)); }

  visible(group) { return !group.around || (this.open.has(group.around) && this.visible(this.groups.get(group.around))); }

  box(n) {
    const title = cut(n.title, 46), second = cut(n.second, 50);
    const wide = Math.max(width(title, "13px system-ui"), width(second, "11px system-ui")) + 24;
    return { width: Math.max(wide, 70), height: HEIGHT[n.kind === "leaf" ? "leaf" : "step"], title, second, node: n };
  }

  closed(group) {
    const counts = new Map();
    for (const n of group.steps) counts.set(n.kind, (counts.get(n.kind) ?? 0) + 1);
    const worst = group.steps.reduce((a, b) => (KINDS.ranks[b.kind] > KINDS.ranks[a.kind] ? b : a));
    const second = [...counts].map(([kind, n]) => `${n} ${kind}`).join(", ");
    return { ...this.box({ title: `▸ ${group.id}: ${group.steps.length} steps`, second, kind: worst.kind, tone: worst.tone, id: group.id }), height: HEIGHT.step, opens: group.id };
  }

  draw() {
    const g = this.layout(), { svg } = this;
    svg.replaceChildren(made("defs", {}, made("marker", { id: "tip", viewBox: "0 0 8 8", refX: 8, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto-start-reverse", markerUnits: "userSpaceOnUse" }, made("path", { d: "M0 0L8 4L0 8z" }))));
    const ids = g.nodes(), at = id => g.node(id);
    const boxes = ids.filter(id => !at(id).group);
    const bands = this.bands(boxes.map(at), g);
    for (const id of ids.filter(id => at(id).group).sort((a, b) => at(b).width * at(b).height - at(a).width * at(a).height)) svg.append(this.frame(at(id)));
    const ports = this.ports(g);
    for (const e of this.drawn) svg.append(this.arrow(e, g, bands, ports));
    this.placed = new Map();
    for (const id of boxes) {
      const drawn = this.boxed(id, at(id));
      this.placed.set(id, { ...at(id), element: drawn });
      svg.append(drawn);
    }
    const { width: w, height: h } = g.graph();
    this.size = { width: Math.max(w, 1), height: Math.max(h, 1) };
    const first = [...this.placed.values()][0];
    if (first) first.element.setAttribute("tabindex", 0);
    if (this.chosen) this.mark();
  }

  // The rows in which boxes and labels stand: [top, bottom] by their middle. Edges go straight down in them.
  bands(boxes, g) {
    const found = new Map();
    const add = (y, height) => {
      const key = Math.round(y), known = found.get(key) ?? [y, y];
      found.set(key, [Math.min(known[0], y - height / 2), Math.max(known[1], y + height / 2)]);
    };
    for (const b of boxes) add(b.y, b.height);
    for (const e of g.edges()) { const label = g.edge(e); if (label.x !== undefined) add(label.y, label.height); }
    return found;
  }

  // Where edges leave and reach a box: spread along its side, in the order in which they go on.
  ports(g) {
    const found = new Map();
    for (const id of g.nodes()) {
      if (g.node(id).group) continue;
      const box = g.node(id);
      for (const side of ["below", "above"]) {
        const edges = (g.nodeEdges(id) ?? []).filter(e => {
          const other = g.node(e.v === id ? e.w : e.v);
          return side === "below" ? other.y > box.y : other.y < box.y;
        });
        const toward = e => {
          const points = [...g.edge(e).points].sort((a, b) => a.y - b.y);
          return (side === "below" ? points[1] : points.at(-2)).x;
        };
        edges.sort((a, b) => toward(a) - toward(b));
        edges.forEach((e, i) => found.set(JSON.stringify([e.v, e.w, id]), box.x + box.width * ((i + 1) / (edges.length + 1) - 0.5) * 0.8));
      }
    }
    return found;
  }

  arrow(e, g, bands, ports) {
    const key = { v: e.to, w: e.from }, label = g.edge(key);
    const [upper, lower] = g.node(e.to).y <= g.node(e.from).y ? [e.to, e.from] : [e.from, e.to];
    const port = id => ports.get(JSON.stringify([e.to, e.from, id]));
    const band = y => bands.get(Math.round(y)) ?? [y, y];
    const inner = [...label.points].sort((a, b) => a.y - b.y).slice(1, -1);
    const a = g.node(upper), b = g.node(lower);
    // In its row an edge goes straight down, and turns between rows, where there are no boxes.
    const stops = [
      { x: port(upper), from: a.y + a.height / 2, to: band(a.y)[1] },
      ...inner.map(p => ({ x: p.x, from: band(p.y)[0], to: band(p.y)[1] })),
      { x: port(lower), from: band(b.y)[0], to: b.y - b.height / 2 },
    ];
    const down = ({ from, to }) => (to > from ? `V${to}` : ""); // a part of no length has no direction
    let d = `M${stops[0].x} ${stops[0].from}${down(stops[0])}`;
    for (let i = 1; i < stops.length; i++) {
      const { x, from } = stops[i], before = stops[i - 1], middle = (before.to + from) / 2;
      d += `C${before.x} ${middle} ${x} ${middle} ${x} ${from}${down(stops[i])}`;
    }
    const tip = upper === e.to ? "marker-start" : "marker-end";
    const words = e.parts.map(p => p.norm === "" ? `${p.argument}: no gradient is asked for` : `gradient${p.argument ? ` of ${p.argument}` : ""}, norm ${p.norm}${p.different ? ", different" : ""}`).join("\n");
    const drawn = made("g", { class: `edge${e.different ? " different" : ""}${e.none ? " none" : ""}` }, made("title", {}, words), made("path", { d, ...(e.none ? {} : { [tip]: "url(#tip)" }) }), made("rect", { x: label.x - label.width / 2, y: label.y - label.height / 2, width: label.width, height: label.height }), made("text", { x: label.x, y: label.y }, e.text));
    Object.assign(drawn.dataset, { from: e.from, to: e.to });
    return drawn;
  }

  boxed(id, box) {
    const x = box.x - box.width / 2, y = box.y - box.height / 2, n = box.node;
    const drawn = made("g", { class: `node ${n.tone} ${n.kind === "leaf" ? "leaf" : ""} ${box.opens ? "closed" : ""}`, tabindex: -1, role: "button", "aria-label": `${n.title}; ${n.kind}${box.opens ? "; opens" : ""}` },
      made("title", {}, `${n.title}\n${n.second}`),
      made("rect", { x, y, width: box.width, height: box.height, rx: n.kind === "leaf" ? box.height / 2 : 6 }),
      made("text", { x: box.x, y: y + box.height * 0.42, "text-anchor": "middle" }, box.title),
      made("text", { x: box.x, y: y + box.height * 0.8, "text-anchor": "middle" }, box.second));
    drawn.dataset.id = id;
    return drawn;
  }

  frame({ x, y, width: w, height: h, group }) {
    const drawn = made("g", { class: "group", tabindex: 0, role: "button", "aria-expanded": true, "aria-label": `close ${group.id}` },
      made("rect", { x: x - w / 2, y: y - h / 2, width: w, height: h, rx: 8 }),
      made("text", { x: x - w / 2 + 8, y: y - h / 2 + 4 }, `▾ ${group.id}`));
    drawn.dataset.group = group.id;
    return drawn;
  }

  // ---- what is seen of it

  get view() { return this.svg.viewBox.baseVal; }

  look(x, y, w, h) { this.svg.setAttribute("viewBox", `${x} ${y} ${w} ${h}`); }

  scale() { return Math.min(this.svg.clientWidth / this.view.width, this.svg.clientHeight / this.view.height); }

  fit() { this.look(0, 0, this.size.width, this.size.height); }

  // At first all of it, if it can be read then; else what is wrong, or the result at its end.
  first() {
    const { clientWidth: w, clientHeight: h } = this.svg;
    const all = Math.min(w / this.size.width, h / this.size.height);
    if (all >= READABLE) return this.look((this.size.width - w / Math.min(all, 1.2)) / 2, 0, w / Math.min(all, 1.2), h / Math.min(all, 1.2));
    const boxes = [...this.placed.values()], at = boxes.find(b => b.node.kind === "different") ?? boxes.reduce((a, b) => (b.y > a.y ? b : a));
    this.around(at, READABLE);
  }

  around(box, scale) {
    const w = this.svg.clientWidth / scale, h = this.svg.clientHeight / scale;
    const inside = (low, size, all) => (all <= size ? (all - size) / 2 : Math.min(Math.max(low, 0), all - size));
    this.look(inside(box.x - w / 2, w, this.size.width), inside(box.y - h / 2, h, this.size.height), w, h);
  }

  zoom(k, fx = 0.5, fy = 0.5) {
    const b = this.view;
    this.look(b.x + b.width * (1 - k) * fx, b.y + b.height * (1 - k) * fy, b.width * k, b.height * k);
  }

  reveal(id) {
    const box = this.placed.get(id), b = this.view;
    if (box.x < b.x || box.x > b.x + b.width || box.y < b.y || box.y > b.y + b.height) this.around(box, this.scale());
  }

  // ---- what one does with it

  toggle(group) {
    const scale = this.scale();
    if (!this.open.delete(group)) this.open.add(group);
    this.draw();
    const inside = [...this.placed.keys()].find(id => id === group || this.nodes.some(n => n.id === id && n.groups.includes(group)));
    this.around(this.placed.get(inside), Math.max(scale, 0.3));
    this.focus(inside);
  }

  all(open) {
    this.open = new Set(open ? this.groups.keys() : []);
    this.draw();
    this.first();
  }

  focus(id) {
    for (const { element } of this.placed.values()) element.setAttribute("tabindex", -1);
    const { element } = this.placed.get(id);
    element.setAttribute("tabindex", 0);
    element.focus({ preventScroll: true });
    this.reveal(id);
  }

  choose(id) {
    const { opens } = this.placed.get(id);
    if (opens) return this.toggle(opens);
    this.chosen = id;
    document.querySelectorAll("#panel > section").forEach(s => { s.hidden = s.id !== id; });
    document.getElementById("panel").scrollTop = 0;
    this.mark();
  }

  mark() {
    this.svg.querySelectorAll(".node").forEach(n => n.classList.toggle("chosen", n.dataset.id === this.chosen));
    this.svg.querySelectorAll(".edge").forEach(e => e.classList.toggle("lit", e.dataset.from === this.chosen || e.dataset.to === this.chosen));
  }

  // The box that is nearest that way; up and down first along an edge, and to a step before a leaf.
  step(id, dx, dy) {
    const at = this.placed.get(id);
    const beside = new Set(this.drawn.flatMap(e => (e.from === id ? [e.to] : e.to === id ? [e.from] : [])));
    let best = null, least = Infinity;
    for (const [other, box] of this.placed) {
      const x = box.x - at.x, y = box.y - at.y, along = x * dx + y * dy;
      if (along <= 1) continue;
      const joined = dy && beside.has(other) ? (box.node.kind === "leaf" ? 1e6 : 2e6) : 0;
      const far = along + 2 * Math.abs(x * dy + y * dx) - joined;
      if (far < least) [best, least] = [other, far];
    }
    if (best) this.focus(best);
  }

  listen() {
    const { svg } = this, arrows = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
    const tools = { fit: () => this.fit(), in: () => this.zoom(1 / 1.25), out: () => this.zoom(1.25), open: () => this.all(true), close: () => this.all(false) };
    for (const button of document.querySelectorAll("[data-do]")) {
      button.addEventListener("click", tools[button.dataset.do]);
      if (["open", "close"].includes(button.dataset.do)) button.hidden = !this.groups.size;
    }
    svg.addEventListener("keydown", e => {
      const node = e.target.closest(".node"), group = e.target.closest(".group");
      const does = { "+": tools.in, "-": tools.out, 0: tools.fit }[e.key];
      if (does) does();
      else if (e.key === "Enter" || e.key === " ") { if (node) this.choose(node.dataset.id); else if (group) this.toggle(group.dataset.group); }
      else if (arrows[e.key] && node) this.step(node.dataset.id, ...arrows[e.key]);
      else return;
      e.preventDefault();
    });
    svg.addEventListener("wheel", e => {
      e.preventDefault();
      const r = svg.getBoundingClientRect();
      this.zoom(Math.exp(e.deltaY / 500), (e.clientX - r.left) / r.width, (e.clientY - r.top) / r.height);
    }, { passive: false });
    this.drag();
  }

  // One finger moves, two zoom; what hardly moves is a click.
  drag() {
    const { svg } = this, down = new Map();
    let moved = 0;
    const apart = () => { const [a, b] = down.values(); return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY); };
    svg.addEventListener("pointerdown", e => { down.set(e.pointerId, e); moved = 0; });
    for (const end of ["pointerup", "pointercancel"]) window.addEventListener(end, e => down.delete(e.pointerId));
    svg.addEventListener("pointermove", e => {
      const from = down.get(e.pointerId);
      if (!from) return;
      const before = down.size === 2 ? apart() : 0;
      down.set(e.pointerId, e);
      if (down.size === 2) return this.zoom(before / Math.max(apart(), 1));
      const scale = this.scale(), b = this.view;
      moved += Math.abs(e.clientX - from.clientX) + Math.abs(e.clientY - from.clientY);
      this.look(b.x - (e.clientX - from.clientX) / scale, b.y - (e.clientY - from.clientY) / scale, b.width, b.height);
    });
    svg.addEventListener("click", e => {
      if (moved > 6) return;
      const node = e.target.closest(".node"), group = e.target.closest(".group text");
      if (node) { this.choose(node.dataset.id); if (this.placed.has(node.dataset.id)) this.focus(node.dataset.id); }
      else if (group) this.toggle(group.closest(".group").dataset.group);
    });
  }
}

document.addEventListener("DOMContentLoaded", async () => {
  const data = await unpacked(document.getElementById("data"));
  const graph = new Graph(document.getElementById("graph"), data);
  document.getElementById("graph").graph = graph;
  const worst = data.nodes.find(n => n.kind === "different") ?? data.nodes.filter(n => n.kind !== "leaf").at(-1);
  document.querySelectorAll("#panel > section").forEach(s => { s.hidden = s.id !== worst?.id; });
  graph.chosen = worst?.id;
  graph.mark();
  document.documentElement.dataset.laid = "";
});
