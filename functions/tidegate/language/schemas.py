"""Starting points for authors of rules: JSON Schemas (draft 2020-12) of the files of a rules directory, generated from the
models that parse them, and a first, valid objective with its cases.

Editors read them through the first line of each file (https://github.com/redhat-developer/yaml-language-server).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from tidegate.language.case_documents import CaseFile, CaseSpec
from tidegate.language.documents import CallersFile, FleetFile, LayerSpec, Name, ObjectiveFile, RuleSpec

FOLDER = "schema"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, slots=True)
class Described:
    """A kind of file: the files it covers, relative to a rules directory, and the type that parses them."""

    files: str
    summary: str
    type: Any


SCHEMAS: Mapping[str, Described] = {
    "objective": Described("objectives/*.yaml", "One objective: its context and its rules.", ObjectiveFile),
    "fleet": Described("fleet.yaml", "Shards, where models are placed, aliases.", FleetFile),
    "layers": Described("layers.yaml", "Experiment layers: who owns which buckets.", dict[Name, LayerSpec]),
    "callers": Described("callers.yaml", "Who may call what.", CallersFile),
    "cases": Described("cases/*.yaml", "Contexts and what they must decide.", CaseFile | list[CaseSpec]),
}
_ACTIONS = ("serve", "split", "experiment")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./@-]*")
_RESERVED = frozenset({"true", "false", "null"})


def schema_text(name: str) -> str:
    """Return the schema of one kind of file as the text of `schema/<name>.json`."""
    described = SCHEMAS[name]
    made = _tightened(TypeAdapter(described.type).json_schema(by_alias=True))
    made.pop("title", None)
    head = {"$schema": DIALECT, "title": described.files, "description": described.summary}
    rule = made.get("$defs", {}).get(RuleSpec.__name__)
    if rule is not None:
        # The parser checks it after the shape, with words of its own; an editor has only the schema.
        rule["oneOf"] = [{"required": [action]} for action in _ACTIONS]
    return json.dumps({**made, **head}, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def editor_line(name: str, folder: str) -> str:
    """Return the first line of a file that is checked by schema `name`; `folder` leads from the file to the schemas."""
    return f"# yaml-language-server: $schema={folder}/{name}.json"


def _tightened(schema: Any) -> Any:
    """Return a schema of pydantic as strict as the parser is: nothing may be empty, and no key may miss its pattern.

    Null is only where the models say so themselves, which they do with a title.
    """
    if isinstance(schema, list):
        return [_tightened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _tightened(value) for key, value in schema.items() if not (key == "default" and value is None)}
    if isinstance(made.get("title"), str) and made.get("type") != "null":
        # Pydantic derives it from the key, so it adds nothing.
        del made["title"]
    if "patternProperties" in made:
        made.setdefault("additionalProperties", False)
    if {"type": "null"} in made.get("anyOf", ()):
        rest = [choice for choice in made["anyOf"] if choice != {"type": "null"}]
        if len(rest) > 1:
            made["anyOf"] = rest
        else:
            del made["anyOf"]
            made = {**rest[0], **made}
    return made


def best_model(objective: str, models: Iterable[str], aliases: Mapping[str, str]) -> str | None:
    """Return the target that suits a new objective: its own champion, else a model named after it, else the only one of the fleet;
    None where nothing says which of several it is, as the objective may be live as soon as it is written."""
    champion = f"{objective}@champion"
    if champion in aliases:
        return champion
    names = list(models)
    return next((name for name in names if name.startswith(objective)), names[0] if len(names) == 1 else None)


def objective_text(objective: str, target: str) -> str:
    """Return the text of `objectives/<objective>.yaml`: one attribute, one rule that serves `target`."""
    return f"""{editor_line("objective", f"../{FOLDER}")}
objective: {scalar(objective)}
summary: Not described yet.
owner: nobody yet
context:                  # what callers say about a request, and rules may look at
  member_id: {{type: string, required: true}}
sticky_key: member_id     # whose value makes a split sticky
timeout_ms: 1000
rules:                    # tried from the top; the first that matches is taken
  - id: default           # without `when` it matches every request: keep it last
    serve: {scalar(target)}
"""


def cases_text(objective: str, target: str) -> str:
    """Return the text of `cases/<objective>.yaml`, with a case for the rule and one for a context that is refused."""
    return f"""{editor_line("cases", f"../{FOLDER}")}
objective: {scalar(objective)}
cases:
  - name: every member gets the default
    context: {{member_id: "1"}}
    expect: {{rule: default, target: {scalar(target)}, reason: serve}}
  - name: a request without a member is refused
    context: {{}}
    expect: {{error: member_id}}
"""


def scalar(text: str) -> str:
    """Return a name as a YAML scalar that reads as text."""
    is_plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _RESERVED
    return text if is_plain else json.dumps(text)
