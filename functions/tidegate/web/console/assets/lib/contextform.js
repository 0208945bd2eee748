// A form made of an objective's declared attributes. It holds texts; `contextOf` makes values of the declared types of them.
import { html, useId } from "./dom.js";

const HINTS = { version: "such as 8.10", set: "values with commas between them", integer: "a whole number", number: "a number", string: "text" };
const NUMBERS = { integer: /^[+-]?\d+$/, number: /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i };
const ALLOCATION = "allocation ";

// The texts of a form for a context, and what of it the form cannot show.
export function textsOf(objective, context) {
  const texts = {};
  const rest = {};
  const types = new Map(objective.attributes.map((attribute) => [attribute.name, attribute.type]));
  for (const [name, value] of Object.entries(context)) {
    if (name === "allocations" && isObject(value)) {
      for (const [experiment, cell] of Object.entries(value)) texts[ALLOCATION + experiment] = String(cell);
    } else if (types.get(name) === "set" && Array.isArray(value) && value.length && value.every(isItem)) texts[name] = value.join(", ");
    else if (types.has(name) && fits(types.get(name), value)) texts[name] = String(value);
    else rest[name] = value;
  }
  return { texts, rest };
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

// Whether a field, whose values are parted at commas and trimmed, can hold one.
const isItem = (value) => typeof value === "string" && value !== "" && value === value.trim() && !value.includes(",");

function fits(type, value) {
  if (type === "boolean") return typeof value === "boolean";
  if (type in NUMBERS) return typeof value === "number";
  return typeof value === "string" && value !== "" && type !== "set";
}

// The context of a form's texts, and by attribute what is wrong with one. An empty text is an absent attribute.
export function contextOf(objective, { texts, rest }) {
  const context = { ...rest };
  const wrong = {};
  for (const { name, type } of objective.attributes) {
    const text = texts[name];
    if (text === undefined || text === "") continue;
    if (type === "boolean") context[name] = text === "true";
    else if (type === "set") context[name] = text.split(",").map((each) => each.trim()).filter(Boolean);
    else if (type in NUMBERS) {
      if (NUMBERS[type].test(text.trim())) context[name] = Number(text);
      else wrong[name] = `${text} is not ${HINTS[type]}`;
    } else context[name] = text;
  }
  const cells = Object.entries(texts).filter(([key, text]) => key.startsWith(ALLOCATION) && text !== "");
  if (cells.length) context.allocations = Object.fromEntries(cells.map(([key, text]) => [key.slice(ALLOCATION.length), /^\d+$/.test(text) ? Number(text) : text]));
  return { context, wrong };
}

function Field({ name, attribute, text, problem, write }) {
  const id = useId();
  const { type, values, required, header } = attribute;
  const notes = [type !== "string" && !values ? (HINTS[type] ?? type) : "", attribute.default !== null && attribute.default !== undefined ? `default ${attribute.default}` : "", header ? `header ${header}` : ""].filter(Boolean);
  const shared = { id, value: text ?? "", "aria-describedby": `${id}-about`, "aria-invalid": problem ? "true" : undefined };
  const choices = values ?? (type === "boolean" ? ["true", "false"] : null);
  const control =
    choices && type !== "set"
      ? html`<select ...${shared} onChange=${(event) => write(event.currentTarget.value)}><option value="">absent</option>${choices.map((value) => html`<option key=${value} value=${String(value)}>${value}</option>`)}</select>`
      : html`<input ...${shared} type="text" autocomplete="off" spellcheck=${false} placeholder=${required ? "" : "absent"} inputMode=${type in NUMBERS ? "decimal" : undefined} onInput=${(event) => write(event.currentTarget.value)} />`;
  return html`<div class="field">
    <label for=${id}>${name}${required && html` <span class="tag">required</span>`}</label>
    ${control}
    <div id=${`${id}-about`}>${problem ? html`<span class="wrong">${problem}</span>` : html`<span class="note">${notes.join(" · ")}</span>`}</div>
  </div>`;
}

export function ContextForm({ objective, form, problems, change }) {
  const write = (key) => (text) => change({ ...form, texts: { ...form.texts, [key]: text } });
  const ordered = [...objective.attributes].sort((one, other) => other.required - one.required);
  const left = Object.keys(form.rest);
  return html`<div class="fields">
    ${ordered.map((attribute) => html`<${Field} key=${attribute.name} name=${attribute.name} attribute=${attribute} text=${form.texts[attribute.name]} problem=${problems[attribute.name]} write=${write(attribute.name)} />`)}
    ${objective.allocations.map((experiment) => html`<${Field} key=${ALLOCATION + experiment} name=${`Cell of ${experiment}`} attribute=${{ type: "string", values: null, required: false, default: null, header: null }} text=${form.texts[ALLOCATION + experiment]} problem=${null} write=${write(ALLOCATION + experiment)} />`)}
    ${left.length > 0 && html`<p class="note">Sent too, as JSON has it: ${left.join(", ")}</p>`}
  </div>`;
}
