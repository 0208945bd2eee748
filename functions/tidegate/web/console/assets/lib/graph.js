// The graph of rules: four columns joined by curves, in a picture that zooms and pans, and as a list for readers of text.
import { html, useEffect, useMemo, useRef, useState } from "./dom.js";
import { plural, share } from "./format.js";
import { Link, to } from "./router.js";
import { Table } from "./ui.js";

const COLUMNS = [0, 230, 470, 750];
const NODE = { width: 180, height: 24 };
const WIDE = [180, 190, 230, 110];
const GAP = 10;
const WIDTH = COLUMNS[3] + WIDE[3];
const ROLES = ["fallback", "shadow", "variant", "serve"];
const STEP = 1.3;
const LARGEST = 8;

const cut = (text, width) => (text.length > width / 7 ? `${text.slice(0, Math.floor(width / 7) - 1)}…` : text);

// Nodes in columns and edges between them. Each column is spread over the height of the longest.
function layout(graph) {
  const columns = [
    graph.objectives.map((each) => ({ id: `o ${each.name}`, text: each.name, href: to("objectives", each.name) })),
    graph.objectives.flatMap((each) => each.rules.map((rule) => ({ id: `r ${each.name} ${rule.id}`, text: rule.id }))),
    graph.targets.map((each) => ({ id: `t ${each.target}`, text: each.target, note: each.version ? `${each.model}/${each.version}` : each.model, href: to("models", each.model) })),
    graph.shards.map((each) => ({ id: `s ${each}`, text: each, href: to("fleet") })),
  ];
  const height = Math.max(...columns.map((column) => column.length)) * (NODE.height + GAP);
  const nodes = new Map();
  columns.forEach((column, index) => {
    const room = height / column.length;
    column.forEach((node, row) => nodes.set(node.id, { ...node, x: COLUMNS[index], y: room * (row + 0.5), width: WIDE[index] }));
  });
  const edges = [];
  for (const objective of graph.objectives) {
    for (const rule of objective.rules) {
      const id = `r ${objective.name} ${rule.id}`;
      edges.push({ from: `o ${objective.name}`, to: id, role: "serve" });
      for (const { target, role, share: part } of rule.targets) edges.push({ from: id, to: `t ${target}`, role, part });
    }
  }
  for (const { target, shards } of graph.targets) for (const shard of shards) edges.push({ from: `t ${target}`, to: `s ${shard}`, role: "place" });
  edges.sort((one, other) => ROLES.indexOf(one.role) - ROLES.indexOf(other.role));
  return { nodes, edges: edges.filter((edge) => nodes.has(edge.from) && nodes.has(edge.to)), height };
}

// All that leads to a node, and all that it leads to.
function connected(edges, id) {
  const found = new Set([id]);
  for (const [near, far] of [["from", "to"], ["to", "from"]]) {
    const open = [id];
    while (open.length) {
      const node = open.pop();
      for (const edge of edges) {
        if (edge[near] === node && edge.role !== "seen" && !found.has(`${near} ${edge[far]}`)) {
          found.add(`${near} ${edge[far]}`).add(edge[far]);
          open.push(edge[far]);
        }
      }
    }
  }
  return found;
}

function curve(start, end) {
  const [x0, x1] = [start.x + start.width, end.x];
  const middle = (x0 + x1) / 2;
  return `M${x0} ${start.y}C${middle} ${start.y} ${middle} ${end.y} ${x1} ${end.y}`;
}

function Node({ node, faint, look }) {
  const box = html`<rect x=${node.x} y=${node.y - NODE.height / 2} width=${node.width} height=${NODE.height} rx="5" /><text x=${node.x + 9} y=${node.y} dominant-baseline="central">${cut(node.text, node.width)}<title>${node.note ? `${node.text}: ${node.note}` : node.text}</title></text>`;
  const events = { onMouseEnter: () => look(node.id), onMouseLeave: () => look(null), onFocus: () => look(node.id), onBlur: () => look(null) };
  return html`<g class=${faint ? "node faint" : "node"} ...${events}>${node.href ? html`<a href=${node.href}>${box}</a>` : box}</g>`;
}

export function Graph({ graph }) {
  // By what it shows: each time that the page is drawn, the graph is another object, and who has zoomed in stays there.
  const drawn = JSON.stringify(graph);
  const { nodes, edges, height } = useMemo(() => layout(graph), [drawn]);
  const whole = { x: -6, y: -4, width: WIDTH + 12, height: height + 8 };
  const [view, setView] = useState(null);
  const [seen, look] = useState(null);
  const svg = useRef(null);
  const drag = useRef(null);
  const box = view ?? whole;
  useEffect(() => setView(null), [drawn]);
  const lit = useMemo(() => (seen ? connected(edges, seen) : null), [seen, edges]);
  const zoom = (factor, x = box.x + box.width / 2, y = box.y + box.height / 2) => {
    const width = Math.min(whole.width, Math.max(whole.width / LARGEST, box.width / factor));
    const scale = width / box.width;
    setView(width >= whole.width ? null : { x: x - (x - box.x) * scale, y: y - (y - box.y) * scale, width, height: box.height * scale });
  };
  const point = (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.current.getScreenCTM().inverse());
    return [at.x, at.y];
  };
  const latest = useRef(zoom);
  latest.current = zoom;
  // Preact's listeners are passive for wheels; with the control key, as a pinch sends it, the wheel zooms.
  useEffect(() => {
    const wheel = (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      latest.current(event.deltaY < 0 ? STEP : 1 / STEP, ...point(event));
    };
    const element = svg.current;
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  }, []);
  const press = (event) => {
    if (!view || event.button) return;
    drag.current = { at: point(event), box };
    event.currentTarget.setPointerCapture(event.pointerId);
  };
  const move = (event) => {
    if (!drag.current) return;
    const [x, y] = point(event);
    setView({ ...box, x: box.x - (x - drag.current.at[0]), y: box.y - (y - drag.current.at[1]) });
  };
  const keys = (event) => {
    const pan = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "+" || event.key === "=") zoom(STEP);
    else if (event.key === "-") zoom(1 / STEP);
    else if (event.key === "0") setView(null);
    else if (pan && view) setView({ ...box, x: box.x + (pan[0] * box.width) / 8, y: box.y + (pan[1] * box.height) / 8 });
    else return;
    event.preventDefault();
  };
  const faint = (...ids) => lit && !ids.every((id) => lit.has(id));
  return html`<div class="graph">
    <div class="zoom" role="group" aria-label="Zoom"><button type="button" class="small" aria-label="Zoom in" onClick=${() => zoom(STEP)}>+</button><button type="button" class="small" aria-label="Zoom out" disabled=${!view} onClick=${() => zoom(1 / STEP)}>−</button><button type="button" class="small" disabled=${!view} onClick=${() => setView(null)}>Fit</button>
      <span class="note">solid: serves; coloured: a variant, thicker by its share; dashed: shadow; dotted: fallback. Control and the wheel zoom, and so do + and −.</span></div>
    <div class="scroll" tabIndex="0" role="region" aria-label="Graph of rules: plus and minus zoom, arrows move" onKeyDown=${keys}>
      <svg ref=${svg} class=${view ? "zoomed" : ""} viewBox=${`${box.x} ${box.y} ${box.width} ${box.height}`} style=${{ aspectRatio: `${whole.width} / ${whole.height}` }} onPointerDown=${press} onPointerMove=${move} onPointerUp=${() => { drag.current = null; }} onPointerCancel=${() => { drag.current = null; }}>
        <title>Objectives at the left, then rules, targets, and shards at the right</title>
        ${edges.map((edge, index) => html`<path key=${index} class=${`edge ${edge.role} ${faint(edge.from, edge.to) ? "faint" : ""}`} d=${curve(nodes.get(edge.from), nodes.get(edge.to))} stroke-width=${edge.role === "variant" && edge.part !== null ? 1 + 3 * edge.part : 1.2}><title>${edge.part !== null && edge.part !== undefined ? `${edge.role} ${share(edge.part)}` : edge.role}</title></path>`)}
        ${[...nodes.values()].map((node) => html`<${Node} key=${node.id} node=${node} faint=${faint(node.id)} look=${look} />`)}
      </svg></div>
  </div>`;
}

const LIST = [
  { key: "rule", title: "Rule", render: (row) => html`<span class="name">${row.rule.id}</span><div class="note"><${Link} to=${to("objectives", row.objective)}>${row.objective}<//></div>` },
  { key: "targets", title: "Targets", render: (row) => html`<ul>${row.rule.targets.map(({ target, role, share: part }, index) => html`<li key=${index}>${target} <span class="note">${role}${part === null ? "" : ` ${share(part)}`}</span></li>`)}</ul>` },
  { key: "shards", title: "Shards", render: (row) => row.shards.join(", ") },
];

export function GraphList({ graph }) {
  const placed = new Map(graph.targets.map((each) => [each.target, each.shards]));
  const rows = graph.objectives.flatMap(({ name, rules }) => rules.map((rule) => ({ objective: name, rule, shards: [...new Set(rule.targets.flatMap(({ target }) => placed.get(target) ?? []))] })));
  return html`<${Table} caption=${`${plural(rows.length, "rule")} with their targets and shards`} columns=${LIST} rows=${rows} keyOf=${(row) => `${row.objective} ${row.rule.id}`} />`;
}
