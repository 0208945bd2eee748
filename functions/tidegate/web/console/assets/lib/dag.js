// An ensemble's steps, from its inputs at the left to its outputs at the right, with the time that each takes.
import { html, useMemo } from "./dom.js";
import { ms, share } from "./format.js";
import { to } from "./router.js";

const WIDTH = 184;
const HEIGHT = 58;
const ACROSS = 84;
const DOWN = 18;

// The model's own inputs and outputs are ends of edges without a node. A node's column is the longest way to it from a node without a predecessor.
function layout({ nodes: steps, edges }) {
  const named = new Set(steps.map((step) => step.id));
  const ends = [...new Set(edges.flatMap((edge) => [edge.from, edge.to]))].filter((id) => !named.has(id));
  const nodes = [...steps, ...ends.map((id) => ({ id, model: null }))];
  const depth = new Map(nodes.map((node) => [node.id, 0]));
  for (let round = 0; round < nodes.length; round += 1) {
    let changed = false;
    for (const edge of edges) {
      const least = (depth.get(edge.from) ?? 0) + 1;
      if (depth.has(edge.to) && depth.get(edge.to) < least && least < nodes.length) {
        depth.set(edge.to, least);
        changed = true;
      }
    }
    if (!changed) break;
  }
  const columns = [];
  for (const node of nodes) (columns[depth.get(node.id)] ??= []).push(node);
  const most = Math.max(...columns.filter(Boolean).map((column) => column.length));
  const height = most * (HEIGHT + DOWN) - DOWN;
  const places = new Map();
  columns.forEach((column, index) =>
    column.forEach((node, row) => {
      const top = (height - column.length * (HEIGHT + DOWN) + DOWN) / 2 + row * (HEIGHT + DOWN);
      places.set(node.id, { node, x: index * (WIDTH + ACROSS), y: top });
    }),
  );
  // Tensors between the same two nodes share an edge.
  const joined = new Map();
  for (const edge of edges) {
    const key = `${edge.from} ${edge.to}`;
    joined.set(key, { ...edge, tensors: [...(joined.get(key)?.tensors ?? []), edge.tensor] });
  }
  return { places, edges: [...joined.values()].filter((edge) => places.has(edge.from) && places.has(edge.to)), width: columns.length * (WIDTH + ACROSS) - ACROSS, height };
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function Edge({ start, end, tensors }) {
  const [x0, y0, x1, y1] = [start.x + WIDTH, start.y + HEIGHT / 2, end.x, end.y + HEIGHT / 2];
  const far = end.x - start.x > WIDTH + ACROSS;
  // An edge past a column goes above or below the nodes there.
  const bend = far ? (y0 <= y1 ? -1 : 1) * (HEIGHT / 2 + 12) : 0;
  const middle = (x0 + x1) / 2;
  const path = far ? `M${x0} ${y0}C${x0 + 50} ${y0 + bend} ${x0 + 60} ${y0 + bend} ${middle} ${y0 + bend}S${x1 - 50} ${y1 + bend / 2} ${x1} ${y1}` : `M${x0} ${y0}C${middle} ${y0} ${middle} ${y1} ${x1} ${y1}`;
  const names = tensors.join(", ");
  return html`<g class="dag-edge"><path d=${path} marker-end="url(#arrow)" /><text x=${middle} y=${(far ? y0 + bend : (y0 + y1) / 2) - 5} text-anchor="middle">${cut(names, 14)}<title>${names}</title></text></g>`;
}

function Step({ x, y, node, top }) {
  const label = node.model ?? node.id;
  const body = html`<rect x=${x} y=${y} width=${WIDTH} height=${HEIGHT} rx="7" />
    <text x=${x + 12} y=${y + 19} class="dag-name">${cut(label, 24)}<title>${label}</title></text>
    <text x=${x + 12} y=${y + 37} class="dag-note">${node.model ? `${ms(node.time_ms)}${node.share ? ` · ${share(node.share, 0)}` : ""}` : "of the ensemble"}</text>
    ${node.model && html`<rect class="dag-bar" x=${x + 12} y=${y + 46} width=${WIDTH - 24} height="4" rx="2" /><rect class="dag-time" x=${x + 12} y=${y + 46} width=${(WIDTH - 24) * (top ? (node.time_ms ?? 0) / top : 0)} height="4" rx="2" />`}`;
  return html`<g class=${node.model ? "dag-node" : "dag-node tensor"}>${node.model ? html`<a href=${to("models", node.model)}>${body}</a>` : body}</g>`;
}

export function Dag({ dag, name }) {
  const { places, edges, width, height } = useMemo(() => layout(dag), [dag]);
  const top = Math.max(...dag.nodes.map((node) => node.time_ms ?? 0));
  return html`<div class="scroll" tabIndex="0" role="region" aria-label=${`Steps of ${name}`}><svg class="dag" viewBox=${`-8 -34 ${width + 16} ${height + 68}`} width=${width + 16} height=${height + 68}>
    <title>${`Steps of ${name}, in the order of what they need`}</title>
    <defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8Z" /></marker></defs>
    ${edges.map((edge) => html`<${Edge} key=${`${edge.from} ${edge.to}`} start=${places.get(edge.from)} end=${places.get(edge.to)} tensors=${edge.tensors} />`)}
    ${[...places.values()].map((place) => html`<${Step} key=${place.node.id} ...${place} top=${top} />`)}
  </svg></div>`;
}
