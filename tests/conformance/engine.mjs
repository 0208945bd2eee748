// A second engine, written from docs/conformance.md alone: it reads the rules of a bundle one by one, without the index.
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";

const SEPARATOR = "\u001f";
const VERSION = /^([0-9]{1,18}(?:\.[0-9]{1,18})*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?$/;

/** Parse JSON. A number without a point and an exponent is an integer of any size (a BigInt), any other a double. */
export function parse(text) {
  return JSON.parse(text, (_, value, { source }) =>
    typeof value === "number" && /^-?\d+$/.test(source) ? BigInt(source) : value);
}

// Hashes.

export function firstNumber(...parts) {
  return createHash("sha256").update(parts.join(SEPARATOR), "utf8").digest().readBigUInt64BE(0);
}

export function draw(number) {
  return (Number(number) + 0.5) * 2 ** -64;
}

export function bucket(layer, key) {
  return (firstNumber(layer, key) * 10000n) >> 64n;
}

/** Return the index of the winner among [variant, weight]s. */
export function race(salt, variants, key) {
  let best = Infinity, winner = 0;
  variants.forEach(([variant, weight], index) => {
    if (weight === 0n) return;
    const score = -Math.log(draw(firstNumber(salt, variant, key))) / Number(weight);
    if (score < best) [best, winner] = [score, index];
  });
  return winner;
}

// Values.

/** Return [numbers, identifiers of the pre-release or null], or null where the text is not a version. */
export function version(text) {
  const match = text.length <= 256 ? VERSION.exec(text) : null;
  // `$` is the end of the text: without the flag `m` there is no other.
  if (match === null) return null;
  const numbers = match[1].split(".").map(BigInt);
  while (numbers.length && numbers.at(-1) === 0n) numbers.pop();
  return [numbers, match[2] === undefined ? null : match[2].split(".")];
}

const order = (one, other) => (one < other ? -1 : one > other ? 1 : 0);

function orderOfLists(one, other, compare) {
  for (let at = 0; at < Math.min(one.length, other.length); at++) {
    const found = compare(one[at], other[at]);
    if (found) return found;
  }
  return order(one.length, other.length);
}

function orderOfIdentifiers(one, other) {
  const [first, second] = [one, other].map((each) => /^[0-9]+$/.test(each));
  if (first !== second) return first ? -1 : 1;
  return first ? order(BigInt(one), BigInt(other)) : order(one, other);
}

export function orderOfVersions([one, early], [other, late]) {
  const found = orderOfLists(one, other, order);
  if (found || early === late) return found;
  if (early === null || late === null) return early === null ? 1 : -1;
  return orderOfLists(early, late, orderOfIdentifiers);
}

export function isOfType(type, value) {
  switch (type) {
    case "string": return typeof value === "string";
    case "integer": return typeof value === "bigint";
    case "number": return typeof value === "bigint" ? -(2n ** 1024n) < value && value < 2n ** 1024n : Number.isFinite(value);
    case "boolean": return typeof value === "boolean";
    case "version": return typeof value === "string" && version(value) !== null;
    case "set": return Array.isArray(value) && value.every((each) => typeof each === "string");
  }
}

function compare(type, one, other) {
  return type === "version" ? orderOfVersions(version(one), version(other)) : order(one, other);
}

/** Of numbers `==`, which compares an integer and a double by value. */
const equal = (type, one, other) => (type === "version" ? compare(type, one, other) === 0 : one == other); // eslint-disable-line eqeqeq

/** Return the value of an attribute that arrives as text, as in a header; undefined where it is none. */
export function fromText(type, text) {
  const isInteger = /^[+-]?[0-9]{1,4300}$/.test(text);
  switch (type) {
    case "string": return text;
    case "integer": return isInteger ? BigInt(text.replace(/^\+/, "")) : undefined;
    case "boolean": return { true: true, false: false }[text.toLowerCase()];
    case "set": return text.split(",").map((each) => each.trim()).filter((each) => each !== "");
    case "version": return isOfType("version", text) ? text : undefined;
    case "number": {
      if (!isInteger && !/^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$/.test(text)) return undefined;
      const value = isInteger ? BigInt(text.replace(/^\+/, "")) : Number(text);
      return isOfType("number", value) ? value : undefined;
    }
  }
}

// Rules.

class KeyError extends Error {}

export class Engine {
  constructor(bytes) {
    const text = bytes.toString("utf8");
    const lines = text.split("\n");
    const header = parse(lines[0]);
    const body = bytes.subarray(bytes.indexOf(10) + 1);
    if (header.format !== "tidegate-bundle" || header.format_version !== 1n) throw new Error("another format");
    if (lines.pop() !== "" || BigInt(lines.length) !== header.lines) throw new Error("not whole");
    if (crc32(body).toString(16).padStart(8, "0") !== header.checksum) throw new Error("damaged");
    this.revision = createHash("sha256").update(bytes).digest("hex");
    this.manifest = parse(lines[1]);
    this.objectives = new Map();
    for (const [name, entry] of Object.entries(this.manifest.objectives)) {
      const first = Number(entry.line) + 1;
      const { rules } = parse(lines[first - 1]);
      this.objectives.set(name, { name, ...entry, rules: lines.slice(first, first + Number(rules)).map(parse) });
    }
  }

  /** Return what a case of the corpus expects: `decision` (with `sampled`), `no_rule` or `errors`. */
  decide(name, context, at) {
    const objective = this.objectives.get(name);
    const errors = [...this.#errors(objective, context)];
    if (errors.length) return { errors };
    const request = { objective, context, present: { ...context } };
    for (const [attribute, { default: value }] of Object.entries(objective.context)) {
      if (value !== undefined && value !== null && !Object.hasOwn(context, attribute)) request.present[attribute] = value;
    }
    try {
      for (const rule of objective.rules) {
        if (!this.#isActive(rule, at) || !this.#all(request, rule.when)) continue;
        const decision = this.#act(request, rule);
        if (decision !== null) return { decision, ...this.#sampled(request, rule) };
      }
    } catch (error) {
      if (error instanceof KeyError) return { errors: [["key", error.message]] };
      throw error;
    }
    return { no_rule: true };
  }

  *#errors({ context: attributes, unknown_attributes }, context) {
    for (const [name, { type, required, values }] of Object.entries(attributes)) {
      if (!Object.hasOwn(context, name)) {
        if (required) yield ["missing", name];
      } else if (!isOfType(type, context[name])) {
        yield ["type", name];
      } else if (values) {
        const each = type === "set" ? context[name] : [context[name]];
        if (!each.every((one) => values.some((other) => equal(type, one, other)))) yield ["domain", name];
      }
    }
    const cells = Object.hasOwn(context, "allocations") ? context.allocations : {};
    const isObject = typeof cells === "object" && cells !== null && !Array.isArray(cells);
    if (!isObject || !Object.values(cells).every((each) => ["bigint", "string"].includes(typeof each))) {
      yield ["type", "allocations"];
    }
    if (unknown_attributes === "refuse") {
      for (const name of Object.keys(context)) {
        if (!Object.hasOwn(attributes, name) && name !== "allocations") yield ["unknown", name];
      }
    }
  }

  #isActive({ active: [from, until] = [null, null] }, at) {
    return (from === null || at >= from) && (until === null || at < until);
  }

  #all(request, conditions) {
    return conditions.every((term) =>
      typeof term[0] === "string"
        ? this.#holds(request, term)
        : term.some((alternative) => this.#all(request, alternative)));
  }

  #holds({ objective, present }, [name, operator, operand]) {
    const { type } = objective.context[name];
    const isPresent = Object.hasOwn(present, name);
    if (operator === "present") return isPresent === operand;
    if (!isPresent) return false;
    const value = present[name];
    switch (operator) {
      case "in": return operand.some((each) => equal(type, value, each));
      case "not": return !operand.some((each) => equal(type, value, each));
      case "gt": return compare(type, value, operand) > 0;
      case "gte": return compare(type, value, operand) >= 0;
      case "lt": return compare(type, value, operand) < 0;
      case "lte": return compare(type, value, operand) <= 0;
      case "prefix": return operand.some((each) => value.startsWith(each));
      case "suffix": return operand.some((each) => value.endsWith(each));
      case "contains_any": return operand.some((each) => value.includes(each));
      case "contains_all": return operand.every((each) => value.includes(each));
    }
    throw new Error(operator);
  }

  /** Return the text of the first key that has a value; null without one. */
  #key({ objective, present }, names) {
    for (const name of names) {
      let value = present[name] ?? "";
      if (value === "") value = objective.context[name].default ?? "";
      if (value === "") continue;
      const text = String(value);
      if (!text.isWellFormed()) throw new KeyError(name);
      return text;
    }
    return null;
  }

  #act(request, rule) {
    const { objective } = request;
    const made = (target, reason, picked = {}) => ({
      rule: rule.id, ...this.#target(target), reason, variant: null, experiment: null, cell: null,
      parameters: rule.parameters ?? {}, fallbacks: (rule.fallback ?? []).map((each) => this.#target(each)),
      shadows: (rule.shadow ?? []).map(([each, percent]) => ({ ...this.#target(each), percent })),
      timeout_ms: rule.timeout_ms ?? null, hedge_after_ms: rule.hedge_after_ms ?? null, hedge_at: rule.hedge_at ?? null,
      fault: rule.fault ?? null, ...picked,
    });
    if (rule.serve !== undefined) return made(rule.serve, "serve");
    if (rule.split !== undefined) {
      const key = this.#key(request, objective.sticky_key ?? []);
      const [variant] = rule.split[key === null ? 0 : race(`${objective.name}/${rule.id}`, rule.split, key)];
      return made(variant, key === null ? "no_sticky_key" : "split", { variant });
    }
    const cell = this.#cell(request, rule.experiment);
    if (cell === null) return null;
    const parameters = { ...rule.parameters, ...cell.parameters };
    const picked = { experiment: rule.experiment.id, cell: cell.cell, variant: String(cell.cell), parameters };
    return made(cell.serve, "experiment", picked);
  }

  #cell(request, { id, allocate, cells, layer, ranges }) {
    if (allocate === "caller") {
      const given = request.context.allocations ?? {};
      return Object.hasOwn(given, id) ? cells.find(({ cell }) => String(cell) === String(given[id])) ?? null : null;
    }
    const key = this.#key(request, this.manifest.layers[layer].key);
    if (key === null) return null;
    const found = bucket(layer, key);
    if (!ranges.some(([first, last]) => first <= found && found <= last)) return null;
    return cells[race(id, cells.map(({ cell, weight }) => [String(cell), weight]), key)];
  }

  #sampled(request, { id, shadow = [] }) {
    if (!shadow.length) return {};
    const key = this.#key(request, request.objective.sticky_key ?? []);
    const salt = `${request.objective.name}/${id}/shadow`;
    // Without a key chance decides, which needs none for shadows of all requests and of none.
    if (key === null && shadow.some(([, percent]) => percent > 0 && percent < 100)) return {};
    const u = (target) => (key === null ? 1 : draw(firstNumber(salt, target, key)));
    return { sampled: shadow.filter(([target, percent]) => u(target) <= Number(percent) / 100).map(([target]) => target) };
  }

  #target(name) {
    const [model, pinned] = this.manifest.targets[name];
    return { target: name, model, version: pinned, shards: this.manifest.fleet.models[model] };
  }
}
