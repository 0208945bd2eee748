// A request as text: for a shell, for Python, and as a case of the rules' tests.

const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

export function curl(url, body) {
  return `curl -sS ${shell(url)} \\\n  -H 'Content-Type: application/json' \\\n  --data-raw ${shell(JSON.stringify(body))}`;
}

// A value as a Python literal. JSON's escapes of text are Python's, too.
function literal(value) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${literal(each)}`).join(", ")}}`;
  return JSON.stringify(value);
}

export function python(url, body) {
  return `import json
import urllib.request

body = ${literal(body)}
request = urllib.request.Request(
    ${JSON.stringify(url)},
    json.dumps(body).encode(),
    {"Content-Type": "application/json"},
)
with urllib.request.urlopen(request, timeout=10) as response:
    print(json.dumps(json.load(response), indent=2))
`;
}

// An entry of routing_rules/cases/<objective>.yaml. YAML takes JSON's values as they are.
export function testCase(context, decision, error) {
  const about = decision && {
    rule: decision.rule,
    target: decision.target,
    ...(decision.cell !== null && decision.cell !== undefined ? { cell: decision.cell } : {}),
    ...(decision.reason === "split" ? { variant: decision.variant } : {}),
  };
  const expect = about ?? { error: error?.more?.attribute ?? "context" };
  const name = about ? `${about.rule} serves ${about.target}` : "is refused";
  return `  - name: ${JSON.stringify(name)}\n    context: ${JSON.stringify(context)}\n    expect: ${JSON.stringify(expect)}\n`;
}
