// Which share moves from which target to which: a picture of bands, and the same as a table.
import { html } from "./dom.js";
import { share } from "./format.js";
import { Status, Table } from "./ui.js";

const WIDTH = 640;
const SIDE = 190;
const LINE = 14;
const ROW = 40;

// Stack the shares of each side in the order of their size; a band joins its two places.
function layout(flows, height) {
  const sides = ["from", "to"].map((side) => {
    const sums = new Map();
    for (const flow of flows) sums.set(flow[side], (sums.get(flow[side]) ?? 0) + flow.share);
    return [...sums].sort(([, one], [, other]) => other - one);
  });
  const gap = 4;
  const places = sides.map((side) => {
    // Each name has room for its text; what is left of the height is shared in proportion.
    const free = height - side.length * (LINE + gap);
    const total = side.reduce((sum, [, part]) => sum + part, 0) || 1;
    let top = 0;
    return new Map(side.map(([name, part]) => {
      const thick = Math.max((part / total) * free, 1);
      const place = { name, top, size: thick + LINE, start: top + LINE / 2, thick, part };
      top += place.size + gap;
      return [name, place];
    }));
  });
  const bands = flows.map((flow) => {
    const [start, end] = [places[0].get(flow.from), places[1].get(flow.to)];
    const [left, right] = [start, end].map((place) => (flow.share / (place.part || 1)) * place.thick);
    const band = { ...flow, y0: start.start, h0: Math.max(left, 1), y1: end.start, h1: Math.max(right, 1) };
    start.start += left;
    end.start += right;
    return band;
  });
  return { places, bands };
}

function shape({ y0, h0, y1, h1 }) {
  const [x0, x1, middle] = [SIDE, WIDTH - SIDE, WIDTH / 2];
  return `M${x0} ${y0}C${middle} ${y0} ${middle} ${y1} ${x1} ${y1}V${y1 + h1}C${middle} ${y1 + h1} ${middle} ${y0 + h0} ${x0} ${y0 + h0}Z`;
}

const cut = (text) => (text.length > 26 ? `${text.slice(0, 25)}…` : text);

export function Flows({ objective }) {
  const flows = [...objective.flows].sort((one, other) => other.share - one.share);
  const most = Math.max(new Set(flows.map((flow) => flow.from)).size, new Set(flows.map((flow) => flow.to)).size);
  const height = Math.max(most * ROW, 90);
  const { places, bands } = layout(flows, height);
  const moves = flows.filter((flow) => flow.from !== flow.to);
  const labels = (side, x, anchor) => [...places[side].values()].map((place) => html`<text key=${place.name} x=${x} y=${place.top + place.size / 2} text-anchor=${anchor} dominant-baseline="central">${cut(place.name ?? "refused")}<title>${place.name}</title></text>`);
  return html`<figure class="flows">
    <div class="scroll" role="region" tabIndex="0" aria-label=${`Flow of ${objective.objective}`}><svg viewBox=${`0 -4 ${WIDTH} ${height + 8}`} role="img" aria-label=${`Before at the left, after at the right. ${moves.length ? moves.map((flow) => `${share(flow.share)} moves from ${flow.from} to ${flow.to}`).join("; ") : "Nothing moves."}`}>
      ${bands.map((band, index) => html`<path key=${index} class=${band.from === band.to ? "stays" : "moves"} d=${shape(band)}><title>${`${band.from} → ${band.to}: ${share(band.share)}`}</title></path>`)}
      ${labels(0, SIDE - 8, "end")}${labels(1, WIDTH - SIDE + 8, "start")}
    </svg></div>
    ${moves.length > 0 && html`<${Table} caption=${`What moves of ${objective.objective}`} rows=${moves} keyOf=${(flow) => `${flow.from} ${flow.to}`} columns=${[
      { key: "from", title: "From", render: (flow) => flow.from ?? "refused" },
      { key: "to", title: "To", render: (flow) => flow.to ?? "refused" },
      { key: "share", title: "Share", numeric: true, render: (flow) => share(flow.share) },
    ]} />`}
  </figure>`;
}

// The summary of `rules diff`: each change as text, then the objectives of which something moves.
export function Moves({ diff }) {
  const moved = diff.objectives.filter((each) => each.moved > 0 || each.retuned > 0 || each.undecided);
  return html`<div class="body">
    ${diff.changes.length ? html`<ul class="changes">${diff.changes.map((change, index) => html`<li key=${index}><span class="tag">${change.kind}</span> ${change.objective && html`<span class="note">${change.objective}: </span>`}${change.text}</li>`)}</ul>` : html`<p><${Status} kind="ok">The rules are the same<//></p>`}
    ${diff.changes.length > 0 && !moved.length && html`<p><${Status} kind="ok">No share of any objective moves<//></p>`}
    ${moved.map((each) => html`<div key=${each.objective} class="moved"><p><strong>${each.objective}</strong>: ${share(each.moved)} moves${each.retuned > 0 ? `, ${share(each.retuned)} gets other parameters` : ""}${each.exact ? "" : `, give or take ${share(each.bound)}`}</p>${each.undecided ? html`<p class="note">Not decided: ${each.undecided}</p>` : null}<${Flows} objective=${each} /></div>`)}
  </div>`;
}
