// Shards and their endpoints as they are now, and which models the plan puts where.
import { html, useState } from "../lib/dom.js";
import { useRead } from "../lib/api.js";
import { bytes, count, digits, ms, plural } from "../lib/format.js";
import { Link, to, useTitle } from "../lib/router.js";
import { Command, Empty, Paged, Prose, Read, Section, Status, Table, Time } from "../lib/ui.js";

const STATES = { ready: "ok", loading: "info", wedged: "warning", down: "error", refused: "error" };
const MB = 1_000_000;

function Breakers({ places }) {
  const open = places.filter((place) => place.is_open || place.ejected_until);
  if (!open.length) return html`<${Status} kind="ok">closed<//>`;
  return html`<${Status} kind="error">open for ${open.map((place) => place.model).join(", ")}<//>`;
}

const ENDPOINTS = [
  { key: "url", title: "Endpoint", render: (row) => html`<code>${row.url.replace(/^https?:\/\//, "")}</code>${row.note && html`<div class="note"><${Prose} text=${row.note} /></div>`}` },
  { key: "state", title: "State", render: (row) => row.unanswered_s ? html`<${Status} kind=${row.state === "ready" ? "warning" : "error"}>${row.state}, does not answer<//>` : html`<${Status} kind=${row.gateway?.is_down ? "error" : (STATES[row.state] ?? "warning")}>${row.gateway?.is_down && row.state === "ready" ? "down for the gateway" : row.state}<//>` },
  { key: "breakers", title: "Breakers", wide: true, render: (row) => html`<${Breakers} places=${row.gateway?.places ?? []} />` },
  { key: "outstanding", title: "Under way", numeric: true, render: (row) => count(row.gateway?.outstanding) },
  { key: "queue", title: "Mean queue", numeric: true, render: (row) => digits(row.gateway?.queue, 2) },
  { key: "models", title: "Models ready", numeric: true, render: (row) => html`${count(row.models.filter((model) => model.state === "READY").length)}<span class="note"> of ${count(row.models.length)}</span>` },
  { key: "seen", title: "Seen", numeric: true, wide: true, render: (row) => html`<${Time} at=${row.seen_at} />` },
];

const PLACES = [
  { key: "model", title: "Model", render: (row) => html`<${Link} to=${to("models", row.model)}>${row.model}<//>` },
  { key: "url", title: "Endpoint", wide: true, render: (row) => html`<code>${row.url.replace(/^https?:\/\//, "")}</code>` },
  { key: "breaker", title: "Breaker", render: (row) => html`<${Status} kind=${row.is_open ? "error" : "ok"}>${row.is_open ? "open" : "closed"}<//>${row.ejected_until && html`<div class="note">ejected until <${Time} at=${row.ejected_until} /></div>`}` },
  { key: "flight", title: "In flight", numeric: true, render: (row) => html`${count(row.in_flight)}<span class="note"> of ${count(row.limit)}</span>` },
  { key: "usual", title: "Usual time", numeric: true, render: (row) => ms(row.usual_ms) },
  { key: "share", title: "Slow start", numeric: true, wide: true, render: (row) => (row.share < 1 ? `${digits(row.share * 100)} %` : "done") },
];

function Shard({ shard, gateways }) {
  const [open, setOpen] = useState(false);
  const rows = shard.endpoints.map((endpoint) => ({ ...endpoint, gateway: gateways.get(endpoint.url) }));
  const ready = rows.filter((row) => row.state === "ready" && !row.gateway?.is_down && !row.unanswered_s).length;
  const places = rows.flatMap((row) => (row.gateway?.places ?? []).map((place) => ({ ...place, url: row.url })));
  const models = [...new Set(rows.flatMap((row) => row.models.map((model) => `${model.name}/${model.version}`)))];
  const kind = ready === 0 ? "error" : ready < shard.replicas ? "warning" : "ok";
  return html`<${Section} title=${shard.name} aside=${html`<${Status} kind=${kind}>${ready} of ${plural(shard.replicas, "endpoint")} ready<//>`}>
    <${Table} caption=${`Endpoints of ${shard.name}`} columns=${ENDPOINTS} rows=${rows} keyOf=${(row) => row.url} empty=${html`<${Empty} title="This shard has no endpoint">Its servers have not reported yet: <code>tidegate status --watch</code><//>`} />
    <div class="tools"><button type="button" class="small" aria-expanded=${open} onClick=${() => setOpen(!open)}>${open ? "Hide" : "Show"} places and models</button><span class="note">${plural(places.length, "place")} that take requests (a place is a model on a server, with a breaker and a limit of its own), ${plural(models.length, "model version")}</span></div>
    ${open && html`<${Paged} items=${places} noun="places" textOf=${(row) => `${row.model} ${row.url}`}>${(some) => html`<${Table} caption=${`Places of ${shard.name}`} columns=${PLACES} rows=${some} keyOf=${(row) => `${row.url} ${row.model}`} />`}<//>
      <div class="body"><div class="field"><span class="label">Loaded</span><ul class="tags">${models.slice(0, 200).map((model) => html`<li key=${model}><a class="tag" href=${to("models", model.split("/")[0])}>${model}</a></li>`)}</ul></div></div>`}
  <//>`;
}

function Troubles({ fleet }) {
  const entries = [
    ...fleet.problems.map((text) => ["error", text]),
    ...fleet.drift.map((each) => ["warning", `Drift on ${each.url} of ${each.shard}: ${each.action} ${each.model}`]),
    ...fleet.waiting.map((text) => ["warning", text]),
    ...(fleet.degraded ?? []).map((text) => ["warning", text]),
  ];
  // A console that may not ask the servers knows only what they report.
  const sound = fleet.asked === false ? "Every server reports that it is ready" : "Every server holds what it must";
  if (!entries.length) return html`<div class=${fleet.healthy ? "banner good" : "banner"}><${Status} kind=${fleet.healthy ? "ok" : "warning"}>${fleet.healthy ? sound : "Not every shard has its servers ready"}<//><span class="note">as of <${Time} at=${fleet.as_of} /></span></div>`;
  return html`<${Section} title="Problems"><ul class="attention">${entries.map(([kind, text], index) => html`<li key=${index}><${Status} kind=${kind}><${Prose} text=${text} /><//></li>`)}</ul><div class="body"><${Command} text="tidegate status --watch" /><${Command} text="tidegate reconcile --dry-run" /></div><//>`;
}

const PLAN = [
  { key: "model", title: "Model", render: (row) => html`<${Link} to=${to("models", row.model)}>${row.model}<//>` },
  { key: "shards", title: "Shards, preferred first", render: (row) => row.shards.join(", ") },
  { key: "reason", title: "Why", wide: true, render: (row) => row.reason },
];

const ROOM = [
  { key: "name", title: "Shard", render: (row) => row.name },
  { key: "models", title: "Models", numeric: true, render: (row) => count(row.after.models) },
  { key: "memory", title: "Memory", numeric: true, render: (row) => html`${bytes(row.after.memory_mb * MB)}<span class="note">${row.memory_mb === null ? " of an undeclared limit" : ` of ${bytes(row.memory_mb * MB)}`}</span>` },
];

const moveText = (move) => (typeof move === "string" ? move : `${move.model ?? move.unit ?? "a model"}: ${(move.from ?? move.before ?? []).toString() || "nowhere"} → ${(move.to ?? move.after ?? []).toString() || "nowhere"}`);

function Plan() {
  const read = useRead("/v1/placement", 30_000);
  return html`<${Section} title="Placement" aside=${html`<code class="note">tidegate fleet plan</code>`}><${Read} of=${read}>${(plan) => {
    const rows = Object.entries(plan.placement).map(([model, shards]) => ({ model, shards, reason: plan.reasons?.[model] ?? "" }));
    return html`<div class="body">
        <p>${plan.moves.length ? html`<${Status} kind="warning">${plural(plan.moves.length, "model")} would move, which loads ${bytes(plan.load_mb * MB)}<//>` : html`<${Status} kind="ok">Nothing would move<//>`} ${plan.fits === false && html`<${Status} kind="error">Not all fits<//>`}</p>
        ${plan.moves.length > 0 && html`<ul class="changes">${plan.moves.map((move, index) => html`<li key=${index}>${moveText(move)}</li>`)}</ul>`}
        ${plan.problems.map((problem, index) => html`<p key=${index}><${Status} kind="error">${problem.message ?? problem}<//> <span class="note">${problem.hint ?? ""}</span></p>`)}
        ${(plan.notes ?? []).map((note, index) => html`<p key=${index} class="note">${note}</p>`)}
      </div>
      <${Table} caption="Room of each shard" columns=${ROOM} rows=${plan.shards} keyOf=${(row) => row.name} />
      <${Paged} items=${rows} noun="placements" textOf=${(row) => `${row.model} ${row.shards.join(" ")}`}>${(some) => html`<${Table} caption="Placement of each model" columns=${PLAN} rows=${some} keyOf=${(row) => row.model} />`}<//>`;
  }}<//><//>`;
}

export default function Fleet() {
  const read = useRead("/v1/fleet", 2000);
  useTitle("Fleet");
  return html`<div class="page"><div class="head"><h1>Fleet</h1><p class="note">Every Triton server, by shard, as the gateway and the control plane see it.</p></div>
    <${Read} of=${read}>${(fleet) => {
      const gateways = new Map((fleet.gateway?.endpoints ?? []).map((each) => [each.url, each]));
      return html`<${Troubles} fleet=${fleet} />
        ${fleet.shards.length ? fleet.shards.map((shard) => html`<${Shard} key=${shard.name} shard=${shard} gateways=${gateways} />`) : html`<div class="card"><${Empty} title="No shard">Shards are declared in routing_rules/fleet.yaml.<//></div>`}`;
    }}<//>
    <${Plan} />
  </div>`;
}
