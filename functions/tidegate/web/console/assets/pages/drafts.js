// Edited rules: checked while they are written, with what they would decide for the playground's context and what would move.
import { html, useEffect, useRef, useState } from "../lib/dom.js";
import { postJson, token, useRead } from "../lib/api.js";
import { Decision, Steps } from "../lib/explanation.js";
import { Moves } from "../lib/flows.js";
import { plural } from "../lib/format.js";
import { Empty, Failure, Prose, Read, Section, Status, Tabs } from "../lib/ui.js";

const DEBOUNCE_MS = 600;

const placeOf = ({ file, line }) => (line ? `${file}, line ${line}` : file);

// A finding in a file that is not shown here, such as that of another objective, has its place as text.
function Findings({ findings, indexOf, show }) {
  if (!findings.length) return null;
  return html`<ul class="attention" aria-label="Findings">${findings.map(
    (finding, index) => html`<li key=${index}><${Status} kind=${finding.severity === "warning" ? "warning" : "error"}>${finding.rule ? html`<strong>Rule ${finding.rule}</strong>: ` : finding.objective ? html`<strong>Objective ${finding.objective}</strong>: ` : ""}<${Prose} text=${finding.message} /><//>
      <div class="note">${indexOf(finding) < 0 ? html`<span>${placeOf(finding)}</span>` : html`<button type="button" class="quiet" onClick=${() => show(finding)}>${placeOf(finding)}</button>`}${finding.hint && html`<span><${Prose} text=${finding.hint} /></span>`}</div></li>`,
  )}</ul>`;
}

function Verdict({ checked, edited, context, live }) {
  const { decision } = checked;
  if (!checked.ok) return html`<p><${Status} kind="error">${edited ? "These rules would be refused" : "The rules directory is refused as it is"}<//></p>`;
  const same = decision && live && decision.rule === live.rule && decision.target === live.target;
  return html`<p><${Status} kind="ok">These rules would pass<//>${context && decision && html` <${Status} kind=${same ? "off" : "info"}>${same ? "This context gets the same as from the live rules" : `This context gets ${decision.target} by rule ${decision.rule}, instead of ${live?.target ?? "a refusal"}`}<//>`}</p>`;
}

function Editor({ source, objective, context, live, shown }) {
  const [files, setFiles] = useState(source.files);
  const [state, setState] = useState({ checked: null, error: null, checking: false });
  const [at, open] = useState(0);
  const [found, find] = useState(null);
  const area = useRef(null);
  const edited = files.some((file, index) => file.text !== source.files[index].text);
  // A directory that is not what is live has something to say before anybody edits it.
  const judged = edited || source.matches_live === false;
  const whole = useRef(null);
  const about = JSON.stringify([files, context]);
  useEffect(() => {
    if (!judged) {
      setState({ checked: null, error: null, checking: false });
      return undefined;
    }
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      setState((before) => ({ ...before, checking: true }));
      try {
        const checked = await postJson("/v1/drafts", { objective, files, context }, { signal: abort.signal });
        setState({ checked, error: null, checking: false });
        const wrong = checked.findings.find((finding) => finding.severity === "error" && indexOf(finding) >= 0);
        if (!edited && wrong) open(indexOf(wrong));
      } catch (error) {
        if (!abort.signal.aborted) setState({ checked: null, error, checking: false });
      }
    }, DEBOUNCE_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [about]);
  const write = (event) => setFiles(files.map((file, index) => (index === at ? { ...file, text: event.currentTarget.value } : file)));
  const indexOf = ({ file, line }) => (line ? files.findIndex((each) => file.endsWith(each.path) || each.path.endsWith(file)) : -1);
  const show = (finding) => {
    open(indexOf(finding));
    find({ index: indexOf(finding), line: finding.line });
  };
  useEffect(() => {
    if (shown) whole.current?.scrollIntoView();
  }, []);
  // The file of a finding is drawn first; then its line is selected.
  useEffect(() => {
    if (!found || found.index !== at || !area.current) return;
    const lines = area.current.value.split("\n");
    const start = lines.slice(0, found.line - 1).reduce((sum, text) => sum + text.length + 1, 0);
    area.current.focus();
    area.current.setSelectionRange(start, start + (lines[found.line - 1] ?? "").length);
    find(null);
  }, [found, at]);
  const { checked, error, checking } = state;
  return html`<div class="columns even drafts" ref=${whole}>
    <div class="body">
      ${source.matches_live === false && html`<div class="banner"><${Status} kind="warning">The rules directory is not what is live: its last change was refused, or is not published yet<//></div>`}
      ${files.length > 1 && html`<${Tabs} label="File" items=${files.map((file, index) => [index, `${file.path}${file.text === source.files[index].text ? "" : " *"}`])} current=${at} choose=${open} />`}
      <div class="field"><label class=${files.length > 1 ? "hidden" : ""} for="draft">${files[at].path}</label>
        <textarea id="draft" class="code rules" ref=${area} rows=${Math.min(32, files[at].text.split("\n").length + 1)} spellcheck=${false} wrap="off" value=${files[at].text} onInput=${write}></textarea></div>
      <div class="actions"><button type="button" disabled=${!edited} onClick=${() => setFiles(source.files)}>Undo the edits</button><span class="note">Nothing is saved or published here.</span></div></div>
    <div class=${source.matches_live === false ? "body sooner" : "body"} aria-live="polite" aria-busy=${checking}>
      ${error && html`<${Failure} error=${error} />`}
      ${checking && html`<p class="note">Checking …</p>`}
      ${checked ? html`<${Verdict} checked=${checked} edited=${edited} context=${context} live=${live} />
        ${checked.findings.length > 0 && html`<p class="note">${plural(checked.findings.length, "finding")}</p>`}<${Findings} findings=${checked.findings} indexOf=${indexOf} show=${show} />
        ${checked.refused && html`<${Failure} error=${{ title: "The context is refused", detail: checked.refused.detail }} />`}
        ${checked.decision && html`<div class="card"><${Decision} decision=${checked.decision} /></div>${checked.explanation?.rules && html`<div class="card"><${Steps} explanation=${{ ...checked.explanation, decision: checked.decision }} /></div>`}`}
        ${checked.moves && html`<div class="card"><${Moves} diff=${checked.moves} /></div>`}` : !checking && !error && html`<${Empty} title=${source.matches_live === false ? "The rules are those of the directory" : "The rules are as they are live"}>Edit them: they are checked while you write, and you see what this context would get and which share moves.<//>`}
    </div>
  </div>`;
}

export function Drafts({ objective, context, live, shown }) {
  const signedIn = token.use();
  const read = useRead(signedIn ? `/v1/objectives/${encodeURIComponent(objective)}/source` : null);
  return html`<${Section} title="Edited rules">
    ${signedIn ? html`<${Read} of=${read}>${(source) => source.files.length ? html`<${Editor} key=${source.revision} source=${source} objective=${objective} context=${context} live=${live} shown=${shown} />` : html`<${Empty} title="This stack has no source of its rules">Check a directory instead: <code>tidegate rules check routing_rules</code><//>`}<//>` : html`<${Empty} title="Only operators can try edited rules">Sign in on the overview.<//>`}
  <//>`;
}
