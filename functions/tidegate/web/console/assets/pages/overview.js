// What runs now, how it does, and what needs attention.
import { html } from "../lib/dom.js";
import { connection, overview } from "../lib/events.js";
import { count, ms, plural, rate, share, short } from "../lib/format.js";
import { Link, to, useTitle } from "../lib/router.js";
import { Command, Empty, Failure, Prose, Section, Sparkline, Stat, Status, Table, Time } from "../lib/ui.js";
import { Chart, firstStep } from "../lib/charts.js";

const NOTABLE = 0.001;
const BAD = 0.01;

export const errorKind = (value) => (value >= BAD ? "error" : value >= NOTABLE ? "warning" : "");

export const ErrorShare = ({ value }) => {
  const kind = errorKind(value);
  return kind ? html`<${Status} kind=${kind}>${share(value)}<//>` : share(value);
};

const OBJECTIVES = [
  { key: "name", title: "Objective", class: "grow", render: (row) => html`<${Link} to=${to("objectives", row.name)}>${row.name}<//><div class="note clip wide" title=${row.summary}>${row.owner} · ${row.summary}</div>` },
  { key: "rate", title: "Requests", numeric: true, render: (row) => rate(row.requests_per_s) },
  { key: "errors", title: "Errors", numeric: true, render: (row) => html`<${ErrorShare} value=${row.error_share} />` },
  { key: "fallbacks", title: "Fallbacks", numeric: true, wide: true, render: (row) => share(row.fallback_share) },
  { key: "p50", title: "p50", numeric: true, wide: true, render: (row) => ms(row.p50_ms) },
  { key: "p99", title: "p99", numeric: true, render: (row) => ms(row.p99_ms) },
];

function shardKind(shard) {
  if (shard.ready === 0) return ["error", shard.problem || "no endpoint is ready"];
  if (shard.ready < shard.endpoints) return [shard.problem ? "error" : "warning", shard.problem || `${shard.ready} of ${plural(shard.endpoints, "endpoint")} ready`];
  return shard.problem ? ["warning", shard.problem] : ["ok", `${plural(shard.endpoints, "endpoint")} ready`];
}

const SHARDS = [
  { key: "name", title: "Shard", render: (row) => html`<${Link} to=${to("fleet")}>${row.name}<//>` },
  { key: "health", title: "Health", class: "breaks", render: (row) => html`<${Status} kind=${shardKind(row)[0]}>${shardKind(row)[1].replace(/https?:\/\//g, "")}<//>` },
  { key: "outstanding", title: "Under way", numeric: true, render: (row) => count(row.outstanding) },
];

export function Attention({ entries }) {
  if (!entries.length) return html`<${Empty} title="Nothing needs attention">Every server holds what it must, and every rule that sees traffic matches some.<//>`;
  return html`<ul class="attention">${entries.map(
    (entry, index) => html`<li key=${`${entry.kind} ${entry.text} ${index}`} class=${entry.severity}>
      <${Status} kind=${entry.severity}><span class="hidden">${entry.severity}: </span><${Prose} text=${entry.text} /><//>
      <div class="note">${entry.since && html`<span>since <${Time} at=${entry.since} /></span>`}${entry.page && html`<${Link} to=${entry.page}>Show<//>`}</div>
      ${entry.command && html`<${Command} text=${entry.command} />`}
    </li>`,
  )}</ul>`;
}

function Publishing({ entries }) {
  if (!entries.length) return null;
  return html`<ul class="publishing" aria-label="Publishes under way">${entries.map(
    (entry) => html`<li key=${entry.revision} class="banner"><${Status} kind="info"><strong>${short(entry.revision)}</strong> is being published by ${entry.by}: ${entry.stage === "trying" ? "its new models are tried on one server" : "its models are being loaded"}<//>
      <span class="note">${entry.why}</span></li>`,
  )}</ul>`;
}

function Live({ live }) {
  if (!live) return html`<${Empty} title="Nothing is live yet">Publish rules: <code>tidegate publish routing_rules</code><//>`;
  return html`<dl class="facts">
    <div><dt>Revision</dt><dd><code title=${live.revision}>${short(live.revision)}</code></dd></div>
    <div><dt>Since</dt><dd><${Time} at=${live.since} /></dd></div>
    <div><dt>By</dt><dd>${live.by}</dd></div>
    <div class="long"><dt>Why</dt><dd>${live.why || "no reason was given"}</dd></div>
  </dl>`;
}

export default function Overview() {
  const seen = overview.use();
  const { error, why } = connection.use();
  useTitle("Overview");
  if (!seen) {
    return html`<div class="page"><h1>Overview</h1>${error ? html`<${Failure} error=${error} />` : html`<div class="waiting" role="status">Reading …</div>`}</div>`;
  }
  // Nothing counted yet is no traffic yet.
  const traffic = seen.traffic ?? { window_s: 60 };
  const from = firstStep(seen.history?.requests_per_s);
  const line = (key) => seen.history?.[key].slice(from);
  const unhappy = seen.attention.filter((entry) => entry.severity !== "info").length;
  return html`<div class="page">
    <h1>Overview</h1>
    ${error && html`<${Failure} error=${error} />`}
    ${why && html`<div class="banner"><${Status} kind="info">This page is read every 2 s, and is not live: <${Prose} text=${why} /><//></div>`}
    <${Publishing} entries=${seen.publishing} />
    <dl class="stats">
      <${Stat} label="Requests" value=${rate(traffic.requests_per_s)}><${Sparkline} values=${line("requests_per_s")} label="Requests per second over 15 minutes" /><//>
      <${Stat} label="Errors" value=${share(traffic.error_share)} kind=${errorKind(traffic.error_share)}><${Sparkline} values=${line("error_share")} label="Share of errors over 15 minutes" /><//>
      <${Stat} label="Fallbacks" value=${share(traffic.fallback_share)} />
      <${Stat} label="p50" value=${ms(traffic.p50_ms)}><${Sparkline} values=${line("p50_ms")} label="Median latency over 15 minutes" /><//>
      <${Stat} label="p99" value=${ms(traffic.p99_ms)}><${Sparkline} values=${line("p99_ms")} label="99th percentile of latency over 15 minutes" /><//>
    </dl>
    <div class="columns overview">
      <div>
        <${Section} title="Objectives" aside=${html`<span class="note">last ${traffic.window_s} s</span>`}>
          <${Table} caption="Objectives" columns=${OBJECTIVES} rows=${seen.objectives} keyOf=${(row) => row.name}
            empty=${html`<${Empty} title="No objective is live">Write one: <code>tidegate rules new OBJECTIVE</code><//>`} />
        <//>
        <${Section} title="Traffic" class="later" aside=${html`<span class="note">15 min</span>`}><${Chart} history=${seen.history} /><//>
      </div>
      <div>
        <${Section} title="Needs attention" class="sooner" aside=${unhappy ? html`<${Status} kind=${seen.attention.some((entry) => entry.severity === "error") ? "error" : "warning"}>${unhappy}<//>` : null}><${Attention} entries=${seen.attention} /><//>
        <${Section} title="Live" class="later" aside=${html`<${Link} to=${to("rules")}>History<//>`}><${Live} live=${seen.live} /><//>
        <${Section} title="Shards" aside=${html`<${Link} to=${to("fleet")}>Fleet<//>`}>
          <${Table} caption="Shards" columns=${SHARDS} rows=${seen.shards} keyOf=${(row) => row.name} empty=${html`<${Empty} title="No shard">Shards are declared in routing_rules/fleet.yaml.<//>`} />
        <//>
      </div>
    </div>
  </div>`;
}
