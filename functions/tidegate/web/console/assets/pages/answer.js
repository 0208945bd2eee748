// The model's answer to a context and inputs: a real request, sent on demand only.
import { html, useEffect, useState } from "../lib/dom.js";
import { postJson, send, token, useRead } from "../lib/api.js";
import { ms, pretty } from "../lib/format.js";
import { Failure, Section, Status } from "../lib/ui.js";

const MOST_EVENTS = 200;
const MOST_TEXT = 20_000;
const EXAMPLES = { BYTES: "", BOOL: false };

function named({ name, shape, datatype }, context) {
  const attribute = Object.keys(context).find((each) => each.toLowerCase() === name.toLowerCase());
  return attribute && typeof context[attribute] !== "object" ? shaped({ shape, datatype }, context[attribute]) : undefined;
}

// A value in a list for each dimension that is not 1, the batch left out.
function shaped({ shape }, value) {
  const dimensions = shape[0] === -1 ? shape.slice(1) : shape;
  return dimensions.reduceRight((inner, size) => (size === 1 ? inner : Array.from({ length: size > 0 && size <= 16 ? size : 1 }, () => inner)), value);
}

// An input named as an attribute has its value, any other that of the golden request of the model, or one of its shape and type.
const prefilled = (objective, context, sample) => Object.fromEntries((objective.inputs ?? []).map((tensor) => [tensor.name, named(tensor, context) ?? sample?.[tensor.name] ?? shaped(tensor, EXAMPLES[tensor.datatype] ?? 0)]));

async function streamed(path, body, show) {
  const response = await send(path, { method: "POST", body });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const events = [];
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const whole = (text + value).split("\n\n");
    text = whole.pop();
    for (const event of whole) events.push(JSON.parse(event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("")));
    show(events.slice(0, MOST_EVENTS));
  }
  return { events, decision: events.findLast((event) => event.decision)?.decision };
}

function Outputs({ done }) {
  const text = pretty(done.events ? done.events.filter((event) => event.outputs).map((event) => event.outputs) : done.answer.outputs);
  const decision = done.decision ?? done.answer?.decision;
  const served = decision?.served_by;
  return html`<div class="body" aria-live="polite">
    ${decision ? html`<p><${Status} kind=${served?.fallback ? "warning" : "ok"}>${served ? `${served.model}/${served.version} on ${served.shard}${served.fallback ? ", a fallback" : ""}` : decision.target} in ${ms(done.tookMs)}<//></p>` : html`<p class="note">Answers arrive …</p>`}
    <pre class="output" tabIndex="0" aria-label="Outputs">${text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT)}\n… ${text.length - MOST_TEXT} further characters` : text}</pre>
  </div>`;
}

export function Answer({ objective, context, valid, model, inputs, setInputs }) {
  const [text, write] = useState(null);
  const [state, setState] = useState({});
  const signedIn = token.use();
  const { data } = useRead(signedIn && model ? `/v1/models/${encodeURIComponent(model)}` : null);
  const shown = text ?? pretty(prefilled(objective, context, data?.sample));
  useEffect(() => {
    try {
      setInputs({ value: JSON.parse(shown), problem: "" });
    } catch (error) {
      setInputs({ value: null, problem: error.message });
    }
  }, [shown]);
  const ask = async () => {
    const began = performance.now();
    const path = `/v1/objectives/${encodeURIComponent(objective.name)}`;
    const body = { context, inputs: inputs.value };
    const took = () => performance.now() - began;
    setState({ asking: true });
    try {
      if (objective.responses === "stream") {
        const { events, decision } = await streamed(`${path}/stream`, body, (some) => setState({ asking: true, done: { events: some, tookMs: took() } }));
        setState({ done: { events, decision, tookMs: took() } });
      } else {
        const answer = await postJson(`${path}/infer`, body);
        setState({ done: { answer, tookMs: took() } });
      }
    } catch (error) {
      setState({ error });
    }
  };
  const problem = inputs?.problem;
  return html`<${Section} title="Model’s answer" class="later" aside=${text !== null && html`<button type="button" class="quiet" onClick=${() => write(null)}>Reset inputs</button>`}>
    <div class="body">
      <div class="field"><label for="inputs">Inputs as JSON</label>
        <textarea id="inputs" class="code" rows=${Math.min(10, shown.split("\n").length + 1)} spellcheck=${false} value=${shown} onInput=${(event) => write(event.currentTarget.value)} aria-invalid=${problem ? "true" : undefined} aria-describedby="inputs-about"></textarea>
        <span id="inputs-about">${problem ? html`<span class="wrong">${problem}</span>` : html`<span class="note">${objective.inputs ? objective.inputs.map((each) => `${each.name} ${each.datatype} [${each.shape.join(", ")}]`).join(" · ") : "The model is unavailable, so its inputs are unknown."}</span>`}</span></div>
      <div class="actions"><button type="button" class="primary" disabled=${!valid || !inputs?.value || state.asking} onClick=${ask}>${state.asking ? "Asking …" : "Ask the model"}</button><span class="note">A real request: it counts as traffic.</span></div>
      ${state.error && html`<${Failure} error=${state.error} />`}
    </div>
    ${state.done && html`<${Outputs} done=${state.done} />`}
  <//>`;
}
