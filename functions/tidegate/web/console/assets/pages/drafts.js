// Edited rules: checked while they are written, with what they would decide for the playground's context and what would move.
import { html, useEffect, useRef, useState } from "../lib/dom.js";
import { postJson, token, useRead } from "../lib/api.js";
import { Decision, Steps } from "../lib/explanation.js";
import { Moves } from "../lib/flows.js";
import { plural } from "../lib/format.js";
import { Empty, Failure, Read, Section, Status } from "../lib/ui.js";

const DEBOUNCE_MS = 600;

function Findings({ findings, show }) {
  if (!findings.length) return null;
  return html`<ul class="attention" aria-label="Findings">${findings.map(
    (finding, index) => html`<li key=${index}><${Status} kind=${finding.severity === "warning" ? "warning" : "error"}>${finding.message}<//>
      <div class="note">${finding.line ? html`<button type="button" class="quiet" onClick=${() => show(finding)}>${finding.file}, line ${finding.line}</button>` : finding.file}${finding.hint && html`<span>${finding.hint}</span>`}</div></li>`,
  )}</ul>`;
}

function Verdict({ checked, context, live }) {
  const { decision } = checked;
  if (!checked.ok) return html`<p><${Status} kind="error">These rules would be refused<//></p>`;
  const same = decision && live && decision.rule === live.rule && decision.target === live.target;
  return html`<p><${Status} kind="ok">These rules would pass<//>${context && decision && html` <${Status} kind=${same ? "off" : "info"}>${same ? "This context gets the same as from the live rules" : `This context gets ${decision.target} by rule ${decision.rule}, instead of ${live?.target ?? "a refusal"}`}<//>`}</p>`;
}

function Editor({ source, objective, context, live }) {
  const [files, setFiles] = useState(source.files);
  const [state, setState] = useState({ checked: null, error: null, checking: false });
  const areas = useRef({});
  const edited = files.some((file, index) => file.text !== source.files[index].text);
  const about = JSON.stringify([files, context]);
  useEffect(() => {
    if (!edited) {
      setState({ checked: null, error: null, checking: false });
      return undefined;
    }
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      setState((before) => ({ ...before, checking: true }));
      try {
        setState({ checked: await postJson("/v1/drafts", { objective, files, context }, { signal: abort.signal }), error: null, checking: false });
      } catch (error) {
        if (!abort.signal.aborted) setState({ checked: null, error, checking: false });
      }
    }, DEBOUNCE_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [about]);
  const write = (index) => (event) => setFiles(files.map((file, at) => (at === index ? { ...file, text: event.currentTarget.value } : file)));
  const show = ({ file, line }) => {
    const index = files.findIndex((each) => file.endsWith(each.path) || each.path.endsWith(file));
    const area = areas.current[index];
    if (!area) return;
    const lines = area.value.split("\n");
    const start = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
    area.focus();
    area.setSelectionRange(start, start + (lines[line - 1] ?? "").length);
  };
  const { checked, error, checking } = state;
  return html`<div class="columns even drafts">
    <div class="body">${files.map((file, index) => html`<div key=${file.path} class="field"><label for=${`draft-${index}`}><code>${file.path}</code></label>
      <textarea id=${`draft-${index}`} class="code rules" ref=${(area) => { areas.current[index] = area; }} rows=${Math.min(32, file.text.split("\n").length + 1)} spellcheck=${false} wrap="off" value=${file.text} onInput=${write(index)}></textarea></div>`)}
      <div class="actions"><button type="button" disabled=${!edited} onClick=${() => setFiles(source.files)}>Back to the live rules</button><span class="note">Nothing is saved or published here.</span></div></div>
    <div class="body" aria-live="polite" aria-busy=${checking}>
      ${error && html`<${Failure} error=${error} />`}
      ${checking && html`<p class="note">Checking …</p>`}
      ${checked ? html`<${Verdict} checked=${checked} context=${context} live=${live} />
        ${checked.findings.length > 0 && html`<p class="note">${plural(checked.findings.length, "finding")}</p>`}<${Findings} findings=${checked.findings} show=${show} />
        ${checked.refused && html`<${Failure} error=${{ title: "The context is refused", detail: checked.refused.detail }} />`}
        ${checked.decision && html`<div class="card"><${Decision} decision=${checked.decision} /></div>${checked.explanation?.rules && html`<div class="card"><${Steps} explanation=${{ ...checked.explanation, decision: checked.decision }} /></div>`}`}
        ${checked.moves && html`<div class="card"><${Moves} diff=${checked.moves} /></div>`}` : !checking && !error && html`<${Empty} title="The rules are as they are live">Edit them: they are checked while you write, and you see what this context would get and which share moves.<//>`}
    </div>
  </div>`;
}

export function Drafts({ objective, context, live }) {
  const signedIn = token.use();
  const read = useRead(signedIn ? `/v1/objectives/${encodeURIComponent(objective)}/source` : null);
  return html`<${Section} title="Edited rules">
    ${signedIn ? html`<${Read} of=${read}>${(source) => source.files.length ? html`<${Editor} key=${source.revision} source=${source} objective=${objective} context=${context} live=${live} />` : html`<${Empty} title="This stack has no source of its rules">Check a directory instead: <code>tidegate rules check routing_rules</code><//>`}<//>` : html`<${Empty} title="Only operators can try edited rules">Sign in on the overview.<//>`}
  <//>`;
}
