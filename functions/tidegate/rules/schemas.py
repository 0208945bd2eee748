"""JSON Schemas (draft 2020-12) of the files of a rules directory, made from the models that parse them.

Editors read them through the first line of each file (https://github.com/redhat-developer/yaml-language-server).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from tidegate.rules.cases.language import CaseFile, CaseSpec
from tidegate.rules.language import CallersFile, FleetFile, LayerSpec, Name, ObjectiveFile, RuleSpec

FOLDER = "schema"
"""The folder of the schemas in a rules directory."""

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
"""Every kind of file, by the name of its schema."""

_ACTIONS = ("serve", "split", "experiment")


def schema_text(name: str) -> str:
    """The schema of one kind of file as the text of `schema/<name>.json`."""
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
    """The first line of a file that is checked by schema `name`; `folder` leads from the file to the schemas."""
    return f"# yaml-language-server: $schema={folder}/{name}.json"


def _tightened(schema: Any) -> Any:
    """A schema of pydantic as strict as the parser is: nothing may be empty, and no key may miss its pattern.

    Null is only where the models say so themselves, which they do with a title.
    """
    if isinstance(schema, list):
        return [_tightened(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _tightened(value) for key, value in schema.items() if not (key == "default" and value is None)}
    if isinstance(made.get("title"), str) and made.get("type") != "null":
        # Derived from the key it stands under, so it tells nothing.
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
