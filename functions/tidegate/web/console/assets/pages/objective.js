// One objective: which rule serves how much of its traffic, and how its variants, shadows and experiments do.
import { html, useState } from "../lib/dom.js";
import { useRead } from "../lib/api.js";
import { Chart } from "../lib/charts.js";
import { overview, useFlip } from "../lib/events.js";
import { count, digits, ms, plural, rate, share, short } from "../lib/format.js";
import { Link, to, useTitle } from "../lib/router.js";
import { Empty, Paged, Read, Section, ShareBar, Stat, Status, Table, Tabs, Time } from "../lib/ui.js";
import { ErrorShare, errorKind } from "./overview.js";

const WINDOWS = [[60, "1 min"], [300, "5 min"], [900, "15 min"]];
const VERDICTS = {
  "as-configured": ["ok", "Requests fall as configured"],
  mismatch: ["error", "Requests do not fall as configured"],
  "too-few": ["off", "Too few requests to tell"],
};
const ACTIONS = { serve: "serves", split: "splits", experiment: "experiment" };

const RULES = [
  { key: "id", title: "Rule", class: "grow", render: (rule) => html`<span class="order">${rule.order}</span><span class="name">${rule.id}</span>
      <div class="note">${rule.when || "always"}${rule.line && html` <span class="wide">· line ${rule.line}</span>`}${rule.active && html` · <${Window} active=${rule.active} />`}</div>` },
  { key: "action", title: "Action", wide: true, render: (rule) => html`${ACTIONS[rule.action] ?? rule.action}${rule.target ? html`<div class="note">${rule.target}</div>` : html`<div class="note">${plural(rule.variants.length, "variant")}</div>`}` },
  { key: "share", title: "Share of requests", render: (rule) => html`<span class="pair"><span>${share(rule.share, 1)}</span>${rule.space_share !== null && html`<span class="note">${share(rule.space_share, 1)} of contexts</span>`}</span><${ShareBar} actual=${rule.share} expected=${rule.space_share} />` },
  { key: "requests", title: "Requests", numeric: true, wide: true, render: (rule) => count(rule.requests) },
  { key: "errors", title: "Errors", numeric: true, render: (rule) => html`<${ErrorShare} value=${rule.error_share} />` },
  { key: "fallbacks", title: "Fallbacks", numeric: true, wide: true, render: (rule) => share(rule.fallback_share) },
  { key: "p50", title: "p50", numeric: true, wide: true, render: (rule) => ms(rule.p50_ms) },
  { key: "p99", title: "p99", numeric: true, wide: true, render: (rule) => ms(rule.p99_ms) },
  { key: "last", title: "Last", numeric: true, wide: true, render: (rule) => (rule.last_at ? html`<${Time} at=${rule.last_at} />` : html`<${Status} kind="off">none<//>`) },
];

const VARIANTS = [
  { key: "name", title: "Variant", render: (variant) => html`<span class="name">${variant.name}</span>${variant.target !== variant.name && html`<div class="note">${variant.target}</div>`}` },
  { key: "weight", title: "Weight", numeric: true, wide: true, render: (variant) => count(variant.weight) },
  { key: "share", title: "Share", render: (variant) => html`<span class="pair"><span>${share(variant.share, 1)}</span><span class="note">${variant.configured_share === null ? "" : `${share(variant.configured_share, 1)} configured`}</span></span>
      <${ShareBar} actual=${variant.share} expected=${variant.configured_share} interval=${variant.ci95} />
      ${variant.ci95 && html`<div class="note">95${"\u202f"}%: ${share(variant.ci95[0], 1)} to ${share(variant.ci95[1], 1)}</div>`}` },
  { key: "requests", title: "Requests", numeric: true, wide: true, render: (variant) => count(variant.requests) },
  { key: "errors", title: "Errors", numeric: true, render: (variant) => html`<${ErrorShare} value=${variant.error_share} />` },
  { key: "fallbacks", title: "Fallbacks", numeric: true, wide: true, render: (variant) => share(variant.fallback_share) },
  { key: "p50", title: "p50", numeric: true, wide: true, render: (variant) => ms(variant.p50_ms) },
  { key: "p99", title: "p99", numeric: true, wide: true, render: (variant) => ms(variant.p99_ms) },
];

const SHADOWS = [
  { key: "target", title: "Shadow", render: (row) => html`<span class="name">${row.target}</span><div class="note">${row.percent}${"\u202f"}% of ${row.rule}</div>` },
  { key: "sent", title: "Sent", numeric: true, render: (row) => html`${count(row.sent)}<div class="note">of ${count(row.sampled)} sampled</div>` },
  { key: "dropped", title: "Dropped", numeric: true, wide: true, render: (row) => count(row.dropped) },
  { key: "compared", title: "Compared", numeric: true, wide: true, render: (row) => count(row.compared) },
  { key: "different", title: "Different", numeric: true, render: (row) => share(row.report?.different_share) },
  { key: "latency", title: "p50, primary and shadow", numeric: true, wide: true, render: (row) => `${ms(row.report?.latency?.primary_ms?.p50)}, ${ms(row.report?.latency?.shadow_ms?.p50)}` },
  { key: "overlap", title: "Ranking overlap", numeric: true, wide: true, render: (row) => digits(row.report?.ranking?.overlap?.p50, 2) },
];

function Window({ active }) {
  const over = active.until && Date.parse(active.until) < Date.now();
  const early = active.from && Date.parse(active.from) > Date.now();
  const [word, at] = early ? ["starts", active.from] : over ? ["ended", active.until] : ["ends", active.until];
  return html`<${Status} kind=${over ? "warning" : early ? "off" : "info"}>${at ? html`${word} <${Time} at=${at} />` : "has started"}<//>`;
}

function Variants({ rule }) {
  const about = rule.experiment;
  const isCallers = about?.allocate === "caller";
  const [kind, text] = (!isCallers && VERDICTS[rule.shares?.verdict]) || [];
  const test = Number.isFinite(rule.shares?.chi2) ? `χ² ${digits(rule.shares.chi2)}, p ${rule.shares.p < 0.001 ? "< 0.001" : digits(rule.shares.p, 2)}` : "";
  return html`<${Section} level="3" title=${`${rule.action === "split" ? "Split" : "Experiment"} of ${rule.id}`} class="inner"
    aside=${kind && html`<span class="note">${test}</span><${Status} kind=${kind}>${text}<//>`}>
    ${(about?.layer || isCallers) && html`<p class="note inset">${isCallers ? "Callers allocate its cells, so no share is expected" : `Layer ${about.layer}`}</p>`}
    <${Table} caption=${`Variants of ${rule.id}`} columns=${VARIANTS} rows=${rule.variants} keyOf=${(variant) => variant.name} />
  <//>`;
}

function Detail({ objective }) {
  const [seconds, choose] = useState(900);
  const read = useRead(`/v1/objectives/${encodeURIComponent(objective)}/traffic?window_s=${seconds}`, 5000, useFlip());
  const about = overview.use()?.objectives.find((each) => each.name === objective);
  useTitle(objective);
  return html`<div class="page">
    <div class="head"><h1>${objective}</h1><p class="note">${about && `${about.owner} · ${about.summary}`}</p>
      <div class="actions"><${Link} to=${to("playground", objective)}>Try a context<//><${Link} to=${`${to("rules")}?objective=${encodeURIComponent(objective)}`}>Graph<//>
      <${Tabs} label="Time window" items=${WINDOWS} current=${seconds} choose=${choose} /></div></div>
    <${Read} of=${read}>${(data) => html`<${Traffic} data=${data} about=${about} seconds=${seconds} />`}<//>
  </div>`;
}

function Traffic({ data, about, seconds }) {
  const rules = data.rules.map((rule, index) => ({ ...rule, order: index + 1 }));
  const chosen = rules.filter((rule) => rule.variants.length);
  const shadows = rules.flatMap((rule) => rule.shadows.map((shadow) => ({ ...shadow, rule: rule.id })));
  const silent = data.requests ? rules.filter((rule) => !rule.requests).length : 0;
  return html`<dl class="stats">
      <${Stat} label=${data.changed_at ? "Requests since the rules changed" : `Requests in ${WINDOWS.find(([each]) => each === seconds)[1]}`} value=${count(data.requests)} note=${about && `${rate(about.requests_per_s)} in the last minute`} />
      <${Stat} label="Errors, last minute" value=${share(about?.error_share)} kind=${errorKind(about?.error_share)} />
      <${Stat} label="Latency, last minute" value=${ms(about?.p50_ms)} note=${`p99 ${ms(about?.p99_ms)}`} />
      <${Stat} label="Rules" value=${count(rules.length)} note=${silent ? `${silent} matched nothing` : `revision ${short(data.revision)}`} />
    </dl>
    <${Section} title="Rules in order" aside=${html`<span class="note">bar: share of requests; tick: share of all possible contexts, each alike</span>`}>
      ${data.changed_at && html`<p class="note inset">The rules of this objective changed <${Time} at=${data.changed_at} />: requests of 10${"\u202f"}s later and on are counted, as the same id may have had other weights, targets or conditions before.</p>`}
      ${!data.requests && html`<${Empty} title=${data.changed_at ? "No request since the rules changed" : "No request in this window"}>Shares appear with the first request. <${Link} to=${to("playground", data.objective)}>Send one from the playground<//>, or look at a longer window.<//>`}
      <${Paged} items=${rules} noun="rules" textOf=${(rule) => `${rule.id} ${rule.when} ${rule.target ?? ""}`}>${(shown) => html`<${Table} caption=${`Rules of ${data.objective}`} columns=${RULES} rows=${shown} keyOf=${(rule) => rule.id} />`}<//>
    <//>
    <${Section} title="Traffic" aside=${html`<span class="note">15 min</span>`}><${Chart} history=${data.history} /><//>
    ${chosen.length > 0 && html`<${Section} title="Variants" aside=${html`<span class="note">bar: share of requests; tick: configured; band: 95${"\u202f"}% interval</span>`}>
      <p class="note inset">Intervals and χ² tests are of requests, not of members: a member with many requests counts as many. If one says that requests do not fall as configured, count members: <code>tidegate rules replay</code></p>
      <${Paged} items=${chosen} noun="splits and experiments" size=${10} textOf=${(rule) => rule.id}>${(shown) => html`<div class="stack">${shown.map((rule) => html`<${Variants} key=${rule.id} rule=${rule} />`)}</div>`}<//>
    <//>`}
    ${shadows.length > 0 && html`<${Section} title="Shadows" aside=${html`<code class="note">tidegate shadow report</code>`}>
      <${Table} caption="Shadows" columns=${SHADOWS} rows=${shadows} keyOf=${(row) => `${row.rule} ${row.target}`} /><//>`}`;
}

function Index() {
  const seen = overview.use();
  useTitle("Objectives");
  const columns = [
    { key: "name", title: "Objective", render: (row) => html`<${Link} to=${to("objectives", row.name)}>${row.name}<//><div class="note">${row.summary}</div>` },
    { key: "owner", title: "Owner", wide: true, render: (row) => row.owner },
    { key: "rate", title: "Requests", numeric: true, render: (row) => rate(row.requests_per_s) },
    { key: "errors", title: "Errors", numeric: true, render: (row) => html`<${ErrorShare} value=${row.error_share} />` },
    { key: "try", title: "Playground", wide: true, render: (row) => html`<${Link} to=${to("playground", row.name)} aria-label=${`Try ${row.name}`}>Try<//>` },
  ];
  return html`<div class="page"><div class="head"><h1>Objectives</h1><p class="note">What callers ask for, and which rules answer.</p></div>
    <div class="card">${!seen ? html`<div class="waiting" role="status">Reading …</div>` : seen.objectives.length ? html`<${Paged} items=${seen.objectives} noun="objectives" textOf=${(row) => `${row.name} ${row.owner} ${row.summary}`}>${(rows) => html`<${Table} caption="Objectives" columns=${columns} rows=${rows} keyOf=${(row) => row.name} />`}<//>` : html`<${Empty} title="No objective is live">Write one: <code>tidegate rules new OBJECTIVE</code><//>`}</div></div>`;
}

export default function Objectives({ parts: [objective] }) {
  return objective ? html`<${Detail} key=${objective} objective=${objective} />` : html`<${Index} />`;
}
