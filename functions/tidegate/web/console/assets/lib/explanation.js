// A decision, and why: each rule with the condition that failed first, and the arithmetic of sticky choices.
import { html } from "./dom.js";
import { THIN, digits, short } from "./format.js";
import { Empty, Paged, Status, Table } from "./ui.js";

const REASONS = {
  serve: "The rule serves this target.",
  split: "The sticky choice of the split picked this variant.",
  experiment: "The experiment allocated this cell.",
  no_sticky_key: "The context has no sticky key, so the first variant serves.",
  override: "The caller pinned this target.",
};
const BUCKETS = 10_000;

export function Decision({ decision }) {
  if (!decision) return html`<${Empty} title="No rule matches this context">A last rule without conditions would serve it.<//>`;
  const facts = [
    ["Model", decision.version === null ? decision.model : `${decision.model}/${decision.version}`],
    ["Shards", decision.shards.join(", ")],
    ["Variant", decision.variant],
    ["Experiment", decision.experiment && `${decision.experiment}, cell ${decision.cell}`],
    ["Fallbacks", decision.fallbacks.map((each) => each.target).join(", ")],
    ["Shadows", decision.shadows.map((each) => each.target?.name ?? each.target ?? each).join(", ")],
    ["Parameters", Object.keys(decision.parameters).length ? JSON.stringify(decision.parameters) : ""],
    ["Timeout", decision.timeout_ms && `${decision.timeout_ms} ms`],
    ["Revision", short(decision.revision)],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html`<div class="decision"><p class="headline"><span class="tag strong">${decision.reason}</span> <strong>${decision.target}</strong> by rule <strong>${decision.rule}</strong></p>
    <p class="note">${REASONS[decision.reason] ?? ""}</p>
    <dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl></div>`;
}

function RuleStep({ rule, winner }) {
  const won = rule.rule === winner;
  const [kind, word] = won ? ["ok", "serves"] : rule.matched ? ["info", "would match too, but an earlier rule serves"] : ["off", ""];
  return html`<li class=${`step ${won ? "won" : ""}`} aria-current=${won ? "true" : undefined}>
    <span class="order">${rule.order}</span>
    <div><${Status} kind=${kind}><span class="name">${rule.rule}</span> <span class="note">${word}</span><//>
    ${rule.failed && html`<div class="why"><span class="tag">${rule.failed}</span> <span>${rule.detail}</span></div>`}</div>
  </li>`;
}

export function Steps({ explanation }) {
  const winner = explanation.decision?.rule;
  const rules = explanation.rules.map((rule, index) => ({ ...rule, order: index + 1 }));
  const at = rules.findIndex((rule) => rule.rule === winner);
  return html`<${Paged} items=${rules} noun="rules" start=${Math.max(at, 0)} textOf=${(rule) => `${rule.rule} ${rule.failed ?? ""} ${rule.detail ?? ""}`}>
    ${(shown) => html`<ol class="steps">${shown.map((rule) => html`<${RuleStep} key=${rule.rule} rule=${rule} winner=${winner} />`)}</ol>`}
  <//>`;
}

// The integer as it is: JSON's numbers are exact up to 2^53 only.
const exact = ({ first_8_bytes: bytes }) => BigInt(`0x${bytes}`).toString();

function Layer({ layer }) {
  const own = Object.entries(layer.ranges).find(([, ranges]) => ranges.some(([low, high]) => layer.bucket >= low && layer.bucket <= high));
  const percent = (bucket) => `${(bucket / BUCKETS) * 100}%`;
  return html`<div class="arithmetic">
    <p><strong>Layer ${layer.layer}</strong>: a hash puts each member in one of 10${THIN}000 buckets, always the same. This one’s bucket ${layer.bucket} ${own ? `is in the range of experiment ${own[0]}` : "is in no experiment’s range"}.</p>
    <div class="buckets" aria-hidden="true">${Object.entries(layer.ranges).flatMap(([experiment, ranges]) => ranges.map(([low, high]) => html`<span key=${`${experiment} ${low}`} class="range" style=${{ left: percent(low), width: percent(high - low + 1) }}></span>`))}<span class="mark" style=${{ left: percent(layer.bucket) }}></span></div>
    <ul class="note">${Object.entries(layer.ranges).map(([experiment, ranges]) => html`<li key=${experiment}>experiment ${experiment}: ${ranges.map(([low, high]) => `${low}–${high}`).join(", ")}</li>`)}</ul>
    <pre class="formula">${`SHA-256("${layer.layer}" 1F key) begins with ${layer.first_8_bytes}\n${exact(layer)} × 10000 / 2^64, rounded down, is ${layer.bucket}`}</pre>
  </div>`;
}

const DRAWS = [
  { key: "variant", title: "Variant", class: "breaks", render: (draw) => (draw.won ? html`<${Status} kind="ok">${draw.variant}<span class="hidden"> won</span><//>` : draw.variant) },
  { key: "weight", title: "Weight", numeric: true, render: (draw) => draw.weight },
  { key: "bytes", title: "First 8 bytes", wide: true, render: (draw) => html`<code>${draw.first_8_bytes}</code>` },
  { key: "u", title: "u", numeric: true, render: (draw) => digits(draw.u, 5) },
  { key: "score", title: "Score", numeric: true, render: (draw) => digits(draw.score, 5) },
];

export function Arithmetic({ explanation }) {
  const { layers, draws, shadows } = explanation;
  if (!layers.length && !draws.length && !shadows.length) return html`<${Empty} title="No hash decided this">Only conditions did: the rule has no split, no experiment of a layer and no shadow.<//>`;
  return html`<div class="body">
    ${layers.map((layer) => html`<${Layer} key=${layer.layer} layer=${layer} />`)}
    ${draws.length > 0 && html`<div><p><strong>Sticky choice</strong>: a hash of the member draws for each variant a number u between 0 and 1, always the same. The smallest score −ln(u) / weight wins, so a variant of twice the weight wins twice as often.</p><${Table} caption="Draws of the variants" columns=${DRAWS} rows=${draws} keyOf=${(draw) => draw.variant} /><pre class="formula">u = (first 8 bytes of SHA-256(salt 1F variant 1F key) + 0.5) / 2^64</pre></div>`}
    ${shadows.map((shadow) => html`<p key=${shadow.target}><strong>Shadow ${shadow.target}</strong>: ${shadow.u === null || shadow.u === undefined ? `there is no sticky key, so ${shadow.percent} % of such requests are copied by chance.` : `it gets a copy of the requests of ${shadow.percent} % of the members, those whose hash is at most ${shadow.percent} of 100. This member’s is ${digits(shadow.u * 100, 4)}, so its requests are ${shadow.sampled ? "" : "not "}copied.`}</p>`)}
  </div>`;
}

export function Ignored({ entries }) {
  if (!entries.length) return null;
  return html`<div class="banner">${entries.map(({ name, did_you_mean: meant }) => html`<${Status} key=${name} kind="warning">${name} is not declared, so no rule looks at it${meant ? `. Did you mean ${meant}?` : ""}<//>`)}</div>`;
}
