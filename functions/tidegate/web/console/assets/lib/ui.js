// The parts that pages are built of.
import { html, useEffect, useId, useMemo, useRef, useState } from "./dom.js";
import { NONE, ago, clock, count, moment } from "./format.js";

const SHAPES = {
  ok: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13Zm3.2 4.9-4 4.2-2.3-2.2.9-1 1.3 1.3 3.1-3.3Z",
  warning: "M8 1.2 15.2 14H.8L8 1.2Zm-.8 4.6.2 4h1.2l.2-4Zm.8 4.8a.9.9 0 1 0 0 1.8.9.9 0 0 0 0-1.8Z",
  error: "M5.2 1h5.6L15 5.2v5.6L10.8 15H5.2L1 10.8V5.2Zm.6 3.8-1 1L7 8l-2.2 2.2 1 1L8 9l2.2 2.2 1-1L9 8l2.2-2.2-1-1L8 7Z",
  info: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13Zm-.8 5.6h1.6V12H7.2Zm.8-3a1 1 0 1 1 0 2 1 1 0 0 1 0-2Z",
  off: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13Zm0 1.6a4.9 4.9 0 1 1 0 9.8 4.9 4.9 0 0 1 0-9.8Z",
};

export function Icon({ kind }) {
  return html`<svg class="icon ${kind}" viewBox="0 0 16 16" width="14" height="14" aria-hidden="true"><path fill-rule="evenodd" d=${SHAPES[kind] ?? SHAPES.off} /></svg>`;
}

export const Status = ({ kind, children }) => html`<span class="status ${kind}"><${Icon} kind=${kind} /><span>${children}</span></span>`;

export function Section({ title, aside, children, class: name = "", level = 2 }) {
  const id = useId();
  return html`<section class="card ${name}" aria-labelledby=${id}>
    <header>${level === 2 ? html`<h2 id=${id}>${title}</h2>` : html`<h3 id=${id}>${title}</h3>`}${aside && html`<div class="aside">${aside}</div>`}</header>
    ${children}
  </section>`;
}

export function Stat({ label, value, note, kind = "", children }) {
  return html`<div class="stat ${kind}"><dt>${label}</dt><dd><span class="figure">${value}</span>${note && html`<span class="note">${note}</span>`}${children}</dd></div>`;
}

export function Time({ at }) {
  return at ? html`<time dateTime=${at} title=${clock(at)}>${ago(at)}</time>` : html`<span>${NONE}</span>`;
}

const PIECES = /`([^`]+)`|(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d))/;

// A sentence of the stack's: commands in backticks and ISO times as people read them.
export const Prose = ({ text }) => html`${`${text ?? ""}`.split(PIECES).map((piece, index) => (index % 3 === 0 || piece === undefined ? piece : index % 3 === 1 ? html`<code>${piece}</code>` : html`<time dateTime=${piece} title=${ago(piece)}>${moment(piece)}</time>`))}`;

// Columns: {key, title, render(row), numeric, wide (hidden on a phone)}. The first column heads its row.
export function Table({ caption, columns, rows, keyOf, empty }) {
  if (!rows.length && empty) return empty;
  const cell = (column) => `${column.numeric ? "numeric" : ""} ${column.wide ? "wide" : ""} ${column.class ?? ""}`.trim();
  return html`<div class="scroll" role="region" aria-label=${`${caption}: table`} tabIndex="0"><table>
    <caption class="hidden">${caption}</caption>
    <thead><tr>${columns.map((column) => html`<th key=${column.key} scope="col" class=${cell(column)}>${column.title}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${keyOf(row)} class=${row.rowClass}>${columns.map((column, index) =>
      index ? html`<td key=${column.key} class=${cell(column)}>${column.render(row)}</td>` : html`<th key=${column.key} scope="row" class=${cell(column)}>${column.render(row)}</th>`,
    )}</tr>`)}</tbody>
  </table></div>`;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><p class="title">${title}</p>${children && html`<div>${children}</div>`}</div>`;
}

export function Failure({ error, retry }) {
  const signedOut = error.status === 401;
  return html`<div class="failure" role="alert">
    <${Status} kind="error"><strong>${error.title || "This could not be read"}</strong><//>
    <p><${Prose} text=${error.detail || error.message} /></p>
    ${signedOut ? html`<p>Sign in with the operators’ token: <code>tidegate console</code> prints a link with it.</p>` : retry && html`<button type="button" onClick=${retry}>Try again</button>`}
  </div>`;
}

// What was read of a path: its failure, that it is awaited, or the page. Old data stay visible beside an error.
export function Read({ of: { data, error, refresh }, children }) {
  if (!data) return error ? html`<${Failure} error=${error} retry=${refresh} />` : html`<div class="waiting" role="status">Reading …</div>`;
  return html`${error && html`<${Failure} error=${error} retry=${refresh} />`}${children(data)}`;
}

export function Copy({ text, label = "Copy", class: name = "quiet" }) {
  const [said, say] = useState("");
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(typeof text === "function" ? text() : text);
      say("Copied");
    } catch {
      say("Not allowed: select the text");
    }
    clearTimeout(timer.current);
    timer.current = setTimeout(() => say(""), 2000);
  };
  return html`<button type="button" class=${`${name} copy`} onClick=${copy}>${said || label}<span class="hidden" role="status">${said}</span></button>`;
}

export const Command = ({ text }) => html`<div class="command"><code>${text}</code><${Copy} text=${text} /></div>`;

// Actual share as a bar, the expected one as a tick, the confidence interval as a band.
export function ShareBar({ actual, expected, interval }) {
  const percent = (value) => `${Math.min(100, Math.max(0, value * 100)).toFixed(2)}%`;
  return html`<span class="share-bar" aria-hidden="true">
    ${actual !== null && actual !== undefined && html`<span class="actual" style=${{ width: percent(actual) }}></span>`}
    ${interval && html`<span class="interval" style=${{ left: percent(interval[0]), width: percent(interval[1] - interval[0]) }}></span>`}
    ${expected !== null && expected !== undefined && html`<span class="expected" style=${{ left: percent(expected) }}></span>`}
  </span>`;
}

export function Sparkline({ values = [], label }) {
  const path = useMemo(() => {
    const known = values.filter((value) => value !== null && value !== undefined);
    if (known.length < 2) return "";
    const top = Math.max(...known) || 1;
    let pen = "M";
    return values
      .map((value, index) => {
        if (value === null || value === undefined) {
          pen = "M";
          return "";
        }
        const point = `${pen}${((index / (values.length - 1)) * 100).toFixed(1)} ${(23 - (value / top) * 21).toFixed(1)}`;
        pen = "L";
        return point;
      })
      .join("");
  }, [values]);
  return html`<svg class="sparkline" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label=${label}><path d=${path} vector-effect="non-scaling-stroke" /></svg>`;
}

export function Tabs({ label, items, current, choose }) {
  return html`<div class="tabs" role="group" aria-label=${label}>${items.map(
    ([key, text]) => html`<button key=${key} type="button" aria-pressed=${key === current} onClick=${() => choose(key)}>${text}</button>`,
  )}</div>`;
}

// A list in pages with a filter by text: a thousand rows are neither drawn nor read aloud at once.
// `start` is the index of an item that the first page shows; fewer items than `least` have no filter.
export function Paged({ items, textOf, noun, size = 50, start = 0, least = 9, children }) {
  const [wanted, want] = useState("");
  const [page, turn] = useState(Math.floor(start / size));
  useEffect(() => turn(wanted ? 0 : Math.floor(start / size)), [start]);
  const found = useMemo(() => {
    const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
    return words.length ? items.filter((item) => words.every((word) => textOf(item).toLowerCase().includes(word))) : items;
  }, [items, wanted]);
  const pages = Math.max(1, Math.ceil(found.length / size));
  const at = Math.min(page, pages - 1);
  const id = useId();
  const filter = (event) => {
    want(event.currentTarget.value);
    turn(0);
  };
  if (items.length < least) return children(items);
  return html`<div class="paged">
    <div class="tools">
      <label class="hidden" for=${id}>Filter ${noun}</label>
      <input id=${id} type="search" placeholder="Filter ${count(items.length)} ${noun}" value=${wanted} onInput=${filter} />
      ${wanted && html`<span class="note" role="status">${count(found.length)} of ${count(items.length)}</span>`}
      ${pages > 1 && html`<nav class="pager" aria-label="Pages of ${noun}">
        <button type="button" class="quiet" disabled=${at === 0} onClick=${() => turn(at - 1)}>Previous</button>
        <span>${count(at * size + 1)}–${count(Math.min(found.length, (at + 1) * size))} of ${count(found.length)}</span>
        <button type="button" class="quiet" disabled=${at === pages - 1} onClick=${() => turn(at + 1)}>Next</button>
      </nav>`}
    </div>
    ${found.length ? children(found.slice(at * size, (at + 1) * size)) : html`<${Empty} title="Nothing matches “${wanted}”">Change the filter or clear it.<//>`}
  </div>`;
}
