// node check.mjs CORPUS: decide every case by the engine beside this file, and print what differs, as JSON.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Engine, bucket, draw, firstNumber, fromText, orderOfVersions, parse, race, version } from "./engine.mjs";

const folder = process.argv[2];
const read = (name) => readFileSync(join(folder, name));
const cases = (name) => read(name).toString("utf8").trimEnd().split("\n").slice(1).map(parse);
const hex = (number) => number.toString(16).padStart(16, "0");
const near = (one, other) => Math.abs(one - other) <= 1e-15 * Math.abs(other);
const counts = {}, differing = [];

/** Return JSON with sorted names, in which an integer differs from a double, and where numbers are written as they are. */
function canonical(value) {
  if (typeof value === "bigint") return `${value}`;
  if (typeof value === "number") return `double ${value}`;
  if (Array.isArray(value)) return `[${value.map(canonical)}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`)}}`;
}

function check(file, judge) {
  const found = cases(file);
  counts[file] = found.length;
  for (const each of found) {
    const got = judge(each);
    if (got !== true) differing.push({ file, expected: canonical(each), got: canonical(got) });
  }
}

check("hashes.jsonl", ({ layer, salt, key, first_8_bytes, bucket: expected, draws, winner }) => {
  if (layer !== undefined) {
    return (hex(firstNumber(layer, key)) === first_8_bytes && bucket(layer, key) === expected) || bucket(layer, key);
  }
  const got = draws.map(({ variant, weight }) => {
    const number = firstNumber(salt, variant, key);
    return { first_8_bytes: hex(number), u: draw(number), score: weight ? -Math.log(draw(number)) / Number(weight) : null };
  });
  const alike = got.every((each, at) => each.first_8_bytes === draws[at].first_8_bytes && each.u === draws[at].u
    && (each.score === draws[at].score || near(each.score, draws[at].score)));
  const picked = draws[race(salt, draws.map(({ variant, weight }) => [variant, weight]), key)].variant;
  return (alike && picked === winner) || [got, picked];
});

check("versions.jsonl", ({ left, right, order, text }) => {
  if (text !== undefined) return version(text) === null || version(text);
  const got = orderOfVersions(version(left), version(right));
  return BigInt(got) === order || got;
});

check("texts.jsonl", ({ type, text, value, error }) => {
  const got = fromText(type, text);
  return (error ? got === undefined : got !== undefined && canonical(got) === canonical(value)) || (got ?? null);
});

const engine = new Engine(read("rules.bundle"));
check("decisions.jsonl", ({ objective, at, context, expect }) => {
  const got = engine.decide(objective, context, Number(at));
  if (got.errors) got.errors.sort((one, other) => (one.join("\n") < other.join("\n") ? -1 : 1));
  return canonical(got) === canonical(expect) || got;
});

console.log(JSON.stringify({ counts, revision: engine.revision, differing }));
