// The catalogue of models, and one model: its steps with their times, where it is loaded, and what depends on it.
import { html } from "../lib/dom.js";
import { useRead } from "../lib/api.js";
import { overview, useFlip } from "../lib/events.js";
import { Dag } from "../lib/dag.js";
import { NONE, bytes, ms, plural, rate, share } from "../lib/format.js";
import { Link, to, useTitle } from "../lib/router.js";
import { Command, Empty, Paged, Read, Section, Status, Table } from "../lib/ui.js";

const joined = (values) => (values?.length ? values.join(", ") : NONE);

const MODELS = [
  { key: "name", title: "Model", render: (row) => html`<${Link} to=${to("models", row.name)}>${row.name}<//><div class="note">${row.kind}${row.backend && row.backend !== row.kind ? ` · ${row.backend}` : ""}</div>` },
  { key: "versions", title: "Versions", wide: true, render: (row) => joined(row.versions) },
  { key: "shards", title: "Loaded on", render: (row) => (row.shards.length ? html`<span class="tags">${row.shards.map((shard) => html`<span key=${shard} class="tag">${shard}</span>`)}</span>` : html`<${Status} kind="off">nowhere<//>`) },
  { key: "used", title: "Used by", wide: true, render: (row) => (row.used_by.length ? plural(row.used_by.length, "ensemble") : plural(row.objectives.length, "objective")) },
  { key: "memory", title: "Memory", numeric: true, wide: true, render: (row) => bytes(row.memory_bytes) },
  { key: "rate", title: "Requests", numeric: true, wide: true, render: (row) => rate(row.requests_per_s) },
  { key: "p50", title: "p50", numeric: true, render: (row) => ms(row.p50_ms) },
];

function Catalogue() {
  const read = useRead("/v1/models", 10_000, useFlip());
  useTitle("Models");
  return html`<div class="page"><div class="head"><h1>Models</h1><p class="note">The models that the live rules need, where they are loaded, and what depends on them.</p></div>
    <div class="card"><${Read} of=${read}>${({ models }) =>
      models.length
        ? html`<${Paged} items=${models} noun="models" textOf=${(row) => `${row.name} ${row.kind} ${row.backend} ${row.shards.join(" ")} ${row.objectives.join(" ")}`}>${(rows) => html`<${Table} caption="Models" columns=${MODELS} rows=${rows} keyOf=${(row) => row.name} />`}<//>`
        : html`<${Empty} title="The model store is empty">Push models: <code>tidegate models push triton_models</code><//>`
    }<//></div></div>`;
}

const STATES = { READY: "ok", LOADING: "info", UNAVAILABLE: "error" };

const LOADED = [
  { key: "shard", title: "Shard", render: (row) => row.shard },
  { key: "url", title: "Endpoint", render: (row) => html`<code>${row.url.replace(/^https?:\/\//, "")}</code>` },
  { key: "version", title: "Version", numeric: true, wide: true, render: (row) => row.version },
  { key: "state", title: "State", render: (row) => html`<${Status} kind=${STATES[row.state] ?? "warning"}>${row.state.toLowerCase()}<//>` },
];

const STEPS = [
  { key: "model", title: "Step", render: (row) => html`<${Link} to=${to("models", row.model)}>${row.model}<//>${row.version ? html` <span class="note">version ${row.version}</span>` : ""}` },
  { key: "time", title: "Time", numeric: true, render: (row) => ms(row.time_ms) },
  { key: "queue", title: "Queued", numeric: true, render: (row) => ms(row.queue_ms) },
  { key: "share", title: "Share", numeric: true, wide: true, render: (row) => share(row.share, 1) },
];

function Links({ names, section, none }) {
  if (!names?.length) return html`<p class="note">${none}</p>`;
  return html`<ul class="tags">${names.map((name) => html`<li key=${name}>${section ? html`<a class="tag" href=${to(section, name)}>${name}</a>` : html`<span class="tag">${name}</span>`}</li>`)}</ul>`;
}

function Steps({ model }) {
  const steps = model.dag.nodes.filter((node) => node.model);
  const timed = steps.some((node) => node.time_ms !== null);
  return html`<${Section} title="Steps" aside=${html`<span class="note">${timed ? "mean time per request, on all its servers" : "times appear with the first request"}</span>`}>
    <div class="body"><${Dag} dag=${model.dag} name=${model.name} /></div>
    <${Table} caption="Steps with their times" columns=${STEPS} rows=${steps} keyOf=${(row) => row.id} />
  <//>`;
}

function Detail({ name }) {
  const read = useRead(`/v1/models/${encodeURIComponent(name)}`, 5000);
  const folder = overview.use()?.stack.models ?? "triton_models";
  useTitle(name);
  return html`<div class="page"><div class="head"><h1>${name}</h1><p class="note"><${Link} to=${to("models")}>All models<//></p></div>
    <${Read} of=${read}>${(model) => html`
      <div class="card"><dl class="facts">
        ${[["Kind", model.kind], ["Backend", model.backend || NONE], ["Versions", joined(model.versions)], ["Shards", joined(model.shards)], ["Memory", bytes(model.memory_bytes)], ["Requests", rate(model.requests_per_s)], ["p50", ms(model.p50_ms)]].map(([label, value]) => html`<div key=${label}><dt>${label}</dt><dd>${value}</dd></div>`)}
      </dl></div>
      ${model.kind === "ensemble" && model.dag?.nodes.length > 0 && html`<${Steps} model=${model} />`}
      <div class="columns even">
        <div>
          <${Section} title="Blast radius"><div class="body">
            <p>${model.blast_radius.rules.length ? html`If it fails, ${plural(model.blast_radius.rules.length, "rule")} of ${plural(model.blast_radius.objectives.length, "objective")} cannot serve it.` : "No live rule depends on it."}</p>
            <div class="field"><span class="label">Objectives</span><${Paged} items=${model.blast_radius.objectives} noun="objectives" textOf=${(name) => name} least=${51}>${(names) => html`<${Links} names=${names} section="objectives" none="none" />`}<//></div>
            <div class="field"><span class="label">Rules</span><${Paged} items=${model.blast_radius.rules} noun="rules" textOf=${(rule) => rule} least=${51}>${(rules) => html`<${Links} names=${rules} none="none" />`}<//></div>
            <div class="field"><span class="label">Ensembles that call it</span><${Links} names=${model.used_by} section="models" none="none" /></div>
          </div><//>
          <${Section} title="Closure"><div class="body"><p class="note">All that is loaded with it.</p><${Links} names=${model.closure} section="models" none="only itself" /></div><//>
        </div>
        <div>
          <${Section} title="Loaded"><${Table} caption="Where it is loaded" columns=${LOADED} rows=${model.loaded} keyOf=${(row) => `${row.url} ${row.version}`} empty=${html`<${Empty} title="No server has it loaded">It is loaded once live rules can reach it: <code>tidegate status</code><//>`} /><//>
          <${Section} title="On the command line"><div class="body"><${Command} text=${`tidegate models graph ${folder} ${name}`} /><${Command} text=${`tidegate models smoke ${folder} ${name}`} /></div><//>
        </div>
      </div>`}<//>
  </div>`;
}

export default function Models({ parts: [name] }) {
  return name ? html`<${Detail} key=${name} name=${name} />` : html`<${Catalogue} />`;
}
