// Try a context: what is decided, why, and what the model answers. The context stays in the address's fragment, which is never
// sent with a page's request, since contexts may be personal data.
import { html, useEffect, useMemo, useRef, useState } from "../lib/dom.js";
import { postJson, token, useRead } from "../lib/api.js";
import { ContextForm, contextOf, textsOf } from "../lib/contextform.js";
import { Arithmetic, Decision, Ignored, Steps } from "../lib/explanation.js";
import { pretty } from "../lib/format.js";
import { BASE, go, place, to, useTitle } from "../lib/router.js";
import { curl, python, testCase } from "../lib/snippets.js";
import { Copy, Empty, Failure, Read, Section, Tabs } from "../lib/ui.js";
import { Answer } from "./answer.js";
import { Drafts } from "./drafts.js";

const DEBOUNCE_MS = 200;
const KEY = "#context=";

function contextOfAddress() {
  const { hash } = location;
  if (!hash.startsWith(KEY)) return { context: {}, error: null };
  try {
    const context = JSON.parse(decodeURIComponent(hash.slice(KEY.length)));
    if (typeof context !== "object" || context === null || Array.isArray(context)) throw new Error("not an object");
    return { context, error: null };
  } catch {
    return { context: {}, error: { title: "The link’s context cannot be read", detail: "After #context= it must have a JSON object, percent-encoded. The form starts empty." } };
  }
}

// What the live rules decide for a context, asked again a moment after it changes.
function useDecision(objective, text, valid) {
  const [state, setState] = useState({ answer: null, error: null });
  useEffect(() => {
    if (!valid) return undefined;
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const answer = await postJson(`/v1/objectives/${encodeURIComponent(objective)}/resolve?explain=true`, { context: JSON.parse(text) }, { signal: abort.signal });
        setState({ answer, error: null });
      } catch (error) {
        if (!abort.signal.aborted) setState({ answer: null, error });
      }
    }, DEBOUNCE_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [objective, text, valid]);
  return state;
}

function JsonContext({ context, change }) {
  const [text, write] = useState(() => pretty(context));
  const [problem, tell] = useState("");
  const edit = (event) => {
    write(event.currentTarget.value);
    try {
      const value = JSON.parse(event.currentTarget.value);
      if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error("a context is an object: {…}");
      tell("");
      change(value);
    } catch (error) {
      tell(error.message);
    }
  };
  return html`<div class="field"><label class="hidden" for="context-json">Context as JSON</label>
    <textarea id="context-json" class="code" rows="10" spellcheck=${false} value=${text} onInput=${edit} aria-invalid=${problem ? "true" : undefined} aria-describedby="context-json-problem"></textarea>
    <span id="context-json-problem" class="wrong">${problem}</span></div>`;
}

function Examples({ objective, choose }) {
  const signedIn = token.use();
  const { data } = useRead(signedIn ? `/v1/objectives/${encodeURIComponent(objective)}/cases` : null);
  if (!data?.cases.length) return null;
  return html`<div class="field"><label for="example">Example from the rules’ cases</label>
    <select id="example" value="" onChange=${(event) => event.currentTarget.value !== "" && choose(data.cases[Number(event.currentTarget.value)].context)}>
      <option value="">choose …</option>${data.cases.map((each, index) => html`<option key=${index} value=${index}>${each.name}</option>`)}
    </select></div>`;
}

function Playground({ objective }) {
  const [linked] = useState(contextOfAddress);
  const [form, change] = useState(() => textsOf(objective, linked.context));
  const [mode, setMode] = useState("form");
  const [inputs, setInputs] = useState(null);
  const { context, wrong } = useMemo(() => contextOf(objective, form), [form]);
  const text = JSON.stringify(context);
  const valid = !Object.keys(wrong).length;
  const required = objective.attributes.filter((each) => each.required).map((each) => each.name);
  const untouched = text === "{}" && required.length > 0;
  const { answer, error } = useDecision(objective.name, text, valid && !untouched);
  const set = (value) => change(textsOf(objective, value));
  const first = useRef(true);
  useEffect(() => {
    if (first.current && linked.error === null && text === "{}") return;
    first.current = false;
    history.replaceState(null, "", `${location.pathname}${KEY}${encodeURIComponent(text)}`);
  }, [text]);
  useEffect(() => {
    const follow = () => location.hash.startsWith(KEY) && set(contextOfAddress().context);
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const problems = { ...wrong };
  const attribute = error?.more?.attribute;
  if (attribute && objective.attributes.some((each) => each.name === attribute)) problems[attribute] ??= error.detail;
  const url = `${location.origin}/v1/objectives/${encodeURIComponent(objective.name)}/${objective.responses === "stream" ? "stream" : "infer"}`;
  const body = () => ({ context, inputs: inputs?.value ?? {} });
  const explanation = answer?.explanation;
  return html`<div class="columns playground">
    <div>
      <${Section} title="Context" aside=${html`<${Tabs} label="How the context is edited" items=${[["form", "Form"], ["json", "JSON"]]} current=${mode} choose=${setMode} />`}>
        <div class="body">
          ${linked.error && html`<${Failure} error=${linked.error} />`}
          <${Examples} objective=${objective.name} choose=${(value) => { set(value); setMode("form"); }} />
          ${mode === "form" ? html`<${ContextForm} objective=${objective} form=${form} problems=${problems} change=${change} />` : html`<${JsonContext} context=${context} change=${set} />`}
          <div class="actions"><${Copy} class="small" label="Copy link" text=${() => location.href.split("#")[0] + KEY + encodeURIComponent(text)} /><${Copy} class="small" label="Copy as curl" text=${() => curl(url, body())} /><${Copy} class="small" label="Copy as Python" text=${() => python(url, body())} /><${Copy} class="small" label="Copy as case" text=${() => testCase(context, answer?.decision, error)} />
          <button type="button" class="small" onClick=${() => set({})}>Clear</button></div>
        </div>
      <//>
      <${Answer} objective=${objective} context=${context} valid=${valid && !untouched} model=${answer?.decision?.model} inputs=${inputs} setInputs=${setInputs} />
    </div>
    <div>
      <${Section} title="Decision" class="decided"><div aria-live="polite" aria-atomic="true">
        ${untouched ? html`<${Empty} title="Begin with the context">${required.join(", ")} ${required.length === 1 ? "is" : "are"} required. Fill in the form, or choose an example.<//>` : !valid ? html`<${Empty} title="The context has a mistake">It is marked in the form.<//>` : error ? html`<div class="body"><${Failure} error=${error} /></div>` : answer ? html`<${Decision} decision=${answer.decision} />` : html`<div class="waiting">Deciding …</div>`}
      </div><//>
      ${valid && !untouched && explanation && html`<${Ignored} entries=${explanation.ignored} />
        <${Section} title="Rule by rule"><${Steps} explanation=${explanation} /><//>
        <${Section} title="Arithmetic of the sticky choice"><${Arithmetic} explanation=${explanation} /><//>`}
    </div>
  </div>
  <${Drafts} objective=${objective.name} context=${valid && !untouched ? context : null} live=${answer?.decision} shown=${place.get().query.has("edited")} />`;
}

export default function Page({ parts: [name] }) {
  const list = useRead("/v1/objectives");
  const about = useRead(name ? `/v1/objectives/${encodeURIComponent(name)}` : null);
  useTitle(name ? `Playground: ${name}` : "Playground");
  useEffect(() => {
    if (!name && list.data?.objectives.length) go(to("playground", list.data.objectives[0].name), { replace: true });
  }, [name, list.data]);
  const choose = (event) => go(to("playground", event.currentTarget.value));
  return html`<div class="page">
    <div class="head"><h1>Playground</h1><p class="note">What a request of this context gets, and why. Nothing is sent to a model until you ask for it.</p>
      <div class="actions"><label class="hidden" for="objective">Objective</label>
        <select id="objective" value=${name ?? ""} onChange=${choose}>${list.data?.objectives.map((each) => html`<option key=${each.name} value=${each.name}>${each.name}</option>`)}</select></div></div>
    ${list.error && html`<${Failure} error=${list.error} retry=${list.refresh} />`}
    ${name ? html`<${Read} of=${about}>${(objective) => html`<${Playground} key=${objective.name} objective=${objective} />`}<//>` : list.data && !list.data.objectives.length && html`<${Empty} title="No objective is live">Publish rules: <code>tidegate publish routing_rules</code><//>`}
  </div>`;
}
