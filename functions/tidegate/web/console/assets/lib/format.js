// Numbers, times and identifiers as text. An absent figure is an en dash.
export const NONE = "–";
export const THIN = "\u202f";

const counts = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const absent = (value) => value === null || value === undefined || Number.isNaN(value);

export function digits(value, most = 3) {
  if (absent(value)) return NONE;
  const size = Math.abs(value);
  if (size >= 1000) return counts.format(value).replaceAll(",", THIN);
  const places = size === 0 ? 0 : Math.min(6, Math.max(0, most - 1 - Math.floor(Math.log10(size))));
  return String(Number(value.toFixed(places)));
}

export const count = (value) => (absent(value) ? NONE : counts.format(value).replaceAll(",", THIN));
export const rate = (value) => (absent(value) ? NONE : `${digits(value)}${THIN}/s`);

export function share(value, places = 2) {
  if (absent(value)) return NONE;
  const percent = value * 100;
  if (percent > 0 && percent < 0.01) return `<${THIN}0.01${THIN}%`;
  return `${Number(percent.toFixed(percent >= 10 ? Math.min(places, 1) : places))}${THIN}%`;
}

export function ms(value) {
  if (absent(value)) return NONE;
  return value >= 1000 ? `${digits(value / 1000)}${THIN}s` : `${digits(value)}${THIN}ms`;
}

export function bytes(value) {
  if (absent(value)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  for (; value >= 1000 && step < units.length - 1; step += 1) value /= 1000;
  return `${digits(value)}${THIN}${units[step]}`;
}

export const short = (revision) => (revision ? revision.slice(0, 12) : NONE);

export function ago(iso, now = Date.now()) {
  if (!iso) return NONE;
  const seconds = (now - Date.parse(iso)) / 1000;
  const size = Math.abs(seconds);
  const text =
    size < 10 ? "now" : size < 90 ? `${Math.round(size)} s` : size < 5400 ? `${Math.round(size / 60)} min` : size < 129_600 ? `${Math.round(size / 3600)} h` : `${Math.round(size / 86_400)} d`;
  return text === "now" ? text : seconds < 0 ? `in ${text}` : `${text} ago`;
}

export const clock = (iso) => (iso ? new Date(iso).toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC") : NONE);

// A time within a sentence: of today without the date.
export const moment = (iso, now = new Date()) => (clock(iso).slice(0, 10) === now.toISOString().slice(0, 10) ? clock(iso).slice(11) : clock(iso));
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

// JSON over several lines, but a list of numbers or texts on one: it is read across.
export function pretty(value, indent = "") {
  const inner = `${indent}  `;
  if (Array.isArray(value)) {
    if (value.every((each) => typeof each !== "object" || each === null)) return `[${value.map((each) => JSON.stringify(each)).join(", ")}]`;
    return `[\n${value.map((each) => inner + pretty(each, inner)).join(",\n")}\n${indent}]`;
  }
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const entries = Object.entries(value);
  return entries.length ? `{\n${entries.map(([name, each]) => `${inner}${JSON.stringify(name)}: ${pretty(each, inner)}`).join(",\n")}\n${indent}}` : "{}";
}

// A text of an address, as it is where its percent-encoding is none.
export function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
