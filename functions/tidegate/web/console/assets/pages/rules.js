// The live rules as a graph, what differs between two revisions, and the history with roll back.
import { html, useEffect, useState } from "../lib/dom.js";
import { useRead } from "../lib/api.js";
import { overview, refresh, useFlip } from "../lib/events.js";
import { Moves } from "../lib/flows.js";
import { Graph, GraphList } from "../lib/graph.js";
import { clock, count, plural, short } from "../lib/format.js";
import { go, place, to, useTitle } from "../lib/router.js";
import { Empty, Paged, Read, Section, Status, Tabs, Time } from "../lib/ui.js";
import { RollBack } from "./rollback.js";

const VIEWS = [["", "Graph"], ["history", "History"], ["diff", "Differences"]];
const AT_A_GLANCE = 150;

// What is drawn of a graph: with many rules one objective's, a page of them at a time, and only what they lead to.
function part(graph, objectives) {
  const used = new Set(objectives.flatMap((each) => each.rules.flatMap((rule) => rule.targets.map((target) => target.target))));
  const targets = graph.targets.filter((each) => used.has(each.target));
  const shards = new Set(targets.flatMap((each) => each.shards));
  return { ...graph, objectives, targets, shards: graph.shards.filter((each) => shards.has(each)) };
}

function GraphView({ wanted }) {
  const read = useRead("/v1/graph?revision=live", 0, useFlip());
  return html`<${Read} of=${read}>${(graph) => html`<${Drawn} graph=${graph} wanted=${wanted} />`}<//>`;
}

function Drawn({ graph, wanted }) {
  const [form, setForm] = useState(() => (matchMedia("(max-width: 720px)").matches ? "list" : "picture"));
  const total = graph.objectives.reduce((sum, each) => sum + each.rules.length, 0);
  if (!total) return html`<div class="card"><${Empty} title="No rule is live">Publish rules: <code>tidegate publish routing_rules</code><//></div>`;
  const name = wanted ?? (total > AT_A_GLANCE ? graph.objectives[0].name : "");
  const shown = name ? graph.objectives.filter((each) => each.name === name) : graph.objectives;
  const rules = shown.flatMap((objective) => objective.rules.map((rule) => ({ objective: objective.name, rule })));
  const choose = (event) => go(event.currentTarget.value ? `${to("rules")}?objective=${encodeURIComponent(event.currentTarget.value)}` : to("rules"), { replace: true });
  const View = form === "picture" ? Graph : GraphList;
  const regrouped = (some) => graph.objectives.map((each) => ({ name: each.name, rules: some.filter((entry) => entry.objective === each.name).map((entry) => entry.rule) })).filter((each) => each.rules.length);
  return html`<section class="card" aria-label="Graph of the live rules">
    <div class="tools">
      <label class="hidden" for="graph-objective">Objective</label>
      <select id="graph-objective" value=${name} onChange=${choose}>${total <= AT_A_GLANCE && html`<option value="">All objectives</option>`}${graph.objectives.map((each) => html`<option key=${each.name} value=${each.name}>${each.name} (${plural(each.rules.length, "rule")})</option>`)}</select>
      <${Tabs} label="Form" items=${[["picture", "Picture"], ["list", "List"]]} current=${form} choose=${setForm} />
      <span class="note">Revision <code>${short(graph.revision)}</code>, ${plural(total, "rule")}, ${plural(graph.targets.length, "target")}</span>
    </div>
    <${Paged} key=${name} items=${rules} noun="rules" size=${60} least=${30} textOf=${({ rule }) => `${rule.id} ${rule.targets.map((target) => target.target).join(" ")}`}>${(some) => html`<${View} graph=${part(graph, regrouped(some))} />`}<//>
  </section>`;
}

const ACTIONS = { publish: "published", rollback: "rolled back", recover: "recovered" };

// A flip is `live~N` as the commands count: 0 is live.
function History() {
  const read = useRead("/v1/revisions", 5000, useFlip());
  const about = overview.use();
  const [back, ask] = useState(null);
  return html`<${Read} of=${read}>${({ history }) => {
    if (!history.length) return html`<div class="card"><${Empty} title="Nothing was published yet">Publish rules: <code>tidegate publish routing_rules</code><//></div>`;
    const writes = about?.stack.writes;
    const live = history.find((entry) => entry.live);
    return html`<${Section} title="History" aside=${about && !writes && html`<span class="note">Read-only: <code>TIDEGATE_CONSOLE_WRITES=true</code> lets operators roll back here</span>`}>
      <${Paged} items=${history} noun="flips" textOf=${(entry) => `${entry.revision} ${entry.by} ${entry.why} ${entry.action}`}>${(some) => html`<ol class="history">${some.map((entry) => html`<${Flip} key=${entry.flip} entry=${entry} live=${live} writes=${writes} ask=${ask} />`)}</ol>`}<//>
    <//>
    ${back && html`<${RollBack} entry=${back} live=${live} close=${() => ask(null)} done=${() => { ask(null); read.refresh(); refresh(); }} />`}`;
  }}<//>`;
}

function Flip({ entry, live, writes, ask }) {
  const before = live && entry.revision !== live.revision;
  return html`<li class=${entry.live ? "live" : ""}>
    <div class="flip"><span class="order">${entry.flip}</span>
      <div><p><code title=${entry.revision}>${short(entry.revision)}</code> ${entry.live && html`<${Status} kind="ok">live<//> `}${entry.bad && html`<${Status} kind="error">bad<//> `}${!entry.loaded && !entry.live && html`<${Status} kind="off">unloaded<//>`}</p>
      <p class="reason">${entry.why || "no reason was given"}</p>
      <p class="note">${ACTIONS[entry.action] ?? entry.action} <${Time} at=${entry.at} /> by ${entry.by}${entry.marked_bad ? `; marked ${short(entry.marked_bad)} as bad` : ""}${entry.bad ? `; marked bad by ${entry.bad.by}: ${entry.bad.why}` : ""}</p></div></div>
    ${before && html`<div class="actions"><a class="button small" href=${`${to("rules", "diff")}?old=${entry.revision}&new=live`} aria-label=${`Compare flip ${entry.flip} with live`}>Compare with live</a>
      ${writes && !entry.bad && html`<button type="button" class="small danger" onClick=${() => ask(entry)} aria-label=${`Roll back to flip ${entry.flip}`}>Roll back …</button>`}</div>`}
  </li>`;
}

function Differences({ query }) {
  const revisions = useRead("/v1/revisions");
  const old = query.get("old") ?? "live~1";
  const neu = query.get("new") ?? "live";
  const read = useRead(`/v1/revisions/diff?old=${encodeURIComponent(old)}&new=${encodeURIComponent(neu)}`, 0, useFlip());
  const known = [...new Map((revisions.data?.history ?? []).map((entry) => [entry.revision, entry])).values()];
  const choices = (current) => [["live", "live"], ["live~1", "the one before (live~1)"], ...known.map((entry) => [entry.revision, `${short(entry.revision)} · flip ${entry.flip} · ${clock(entry.at).slice(0, 16)}${entry.live ? " · live" : ""}`])].concat(known.some((entry) => entry.revision === current) || current.startsWith("live") ? [] : [[current, short(current)]]);
  const pick = (side) => (event) => {
    const next = new URLSearchParams({ old, new: neu, [side]: event.currentTarget.value });
    go(`${to("rules", "diff")}?${next}`, { replace: true });
  };
  const side = (name, label, value) => html`<div class="field"><label for=${`side-${name}`}>${label}</label><select id=${`side-${name}`} value=${value} onChange=${pick(name)}>${choices(value).map(([key, text]) => html`<option key=${key} value=${key}>${text}</option>`)}</select></div>`;
  return html`<${Section} title="Differences of two revisions" aside=${html`<span class="note">shares of all possible contexts, each alike</span>`}>
    <div class="tools">${side("old", "Before", old)}${side("new", "After", neu)}<button type="button" onClick=${() => go(`${to("rules", "diff")}?${new URLSearchParams({ old: neu, new: old })}`, { replace: true })}>Swap</button></div>
    <${Read} of=${read}>${(diff) => html`<${Moves} diff=${diff} />`}<//>
  <//>`;
}

export default function Rules({ parts: [view = ""] }) {
  const { query } = place.use();
  useTitle(view === "history" ? "History of the rules" : view === "diff" ? "Differences of rules" : "Rules");
  const known = VIEWS.some(([key]) => key === view);
  // Any other name is an objective's, whose rules its own page shows.
  useEffect(() => {
    if (!known) go(to("objectives", view), { replace: true });
  }, [known, view]);
  return html`<div class="page">
    <div class="head"><h1>Rules</h1><p class="note">Objective → rules → targets → shards, and how they became what they are.</p>
      <${Tabs} label="View" items=${VIEWS} current=${view} choose=${(key) => go(key ? to("rules", key) : to("rules"))} /></div>
    ${view === "" && html`<${GraphView} wanted=${query.get("objective")} />`}
    ${view === "history" && html`<${History} />`}
    ${view === "diff" && html`<${Differences} query=${query} />`}
  </div>`;
}
