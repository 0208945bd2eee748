"""Messages about wrong shapes: the value as it was read, the allowed values, and the correction."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from tidegate.language import documents
from tidegate.language.source import Location
from tidegate.language.words import did_you_mean, quoted, shortened
from tidegate.rules.values import type_name

_PATTERN_WORDS = {
    documents.ALIAS: "an alias (name@alias)",
    documents.NAME: "a name (letters, digits, '.', '_', '-', beginning with a letter or digit)",
    documents.TARGET: "a target (model, model/version or name@alias)",
    documents.PARAMETER: "a parameter name (letters, digits, '_', '-', beginning with a letter)",
    documents.PRINTABLE: "printable ASCII text without blanks at its ends",
    documents.ATTRIBUTE: "an attribute's name (letters, digits, '.', '_', '-', beginning with a letter or '_')",
    documents.HEADER: "header:<name of an HTTP header>",
}

_LIMITED = frozenset(
    {"greater_than_equal", "less_than_equal", "too_short", "too_long", "string_too_short", "string_too_long"}
)
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_GROUPED = re.compile(r"[-+]?[0-9]{1,3}(?:[_, '][0-9]{3})+|[-+]?[0-9]+(?:_[0-9]+)+")
_SWITCHES = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def shape_words(
    model: type[BaseModel], place: Location, value: Any, name: str, details: list[Mapping[str, Any]]
) -> tuple[str, str]:
    """Return the message and the hint for one wrong place of a model, for pydantic's errors there, at least one.

    `value` is the value there, meaningless where a key is missing; `name` is what to call the place.
    """
    kinds = {detail["type"] for detail in details}
    parent = place[:-1]
    if kinds & {"extra_forbidden", "invalid_key"}:
        known, key = keys_at(model, parent), place[-1]
        names_any = any(isinstance(each.get("additionalProperties"), dict) for each in _at(model, parent))
        if names_any and not isinstance(key, str):
            return f"unknown key {name}", f"write a name in text, or {', '.join(known)}"
        return f"unknown key {name}", did_you_mean(str(key), known, "key")
    if "missing" in kinds:
        return f"key {name} is missing", f"add it: {expected(model, place)}"
    # A key such as `kind` should tell which shape a mapping has, and does not.
    of_kind = next((detail for detail in details if detail["type"].startswith("union_tag_")), None)
    if of_kind is not None and isinstance(value, dict):
        key = str(of_kind["ctx"]["discriminator"]).strip("'")
        kinds_of_key = f"one of {', '.join(expected(model, (*place, key)).split(' or '))}"
        if key not in value:
            return f"key {key!r} is missing in {name}", f"add it: {kinds_of_key}"
        return f"{key!r} of {name} is {shown(value[key])}", f"write {kinds_of_key}{why(value[key], kinds_of_key)}"
    of_key = [detail for detail in details if "[key]" in detail["loc"]]
    if of_key:
        return _key_words(model, parent, place[-1], of_key[0])
    right = expected(model, place)
    wrong = _beyond_limit(name, value, details)
    if wrong is not None:
        if isinstance(value, str) and "at most" in wrong:
            return wrong, "shorten it"
        return wrong, f"write {right}" if value or isinstance(value, int | float) else "write one, or delete the key"
    return f"{name} is {shown(value)}", f"write {right}{why(value, right)}"


def _key_words(model: type[BaseModel], parent: Location, key: Any, detail: Mapping[str, Any]) -> tuple[str, str]:
    right = _expected_key(model, parent)
    if detail["type"] == "string_too_long":
        most = detail["ctx"]["max_length"]
        return (
            f"the key {quoted(str(key))} has {len(str(key))} characters, and at most {most} are allowed",
            "shorten it",
        )
    if isinstance(key, str):
        return f"the key {quoted(key)} is not a valid name", f"write {right}"
    return f"the key {key} is {type_name(key)}", f"write {right}; put it in quotes if it is one"


def _beyond_limit(name: str, value: Any, details: list[Mapping[str, Any]]) -> str | None:
    """Say which limit a value of a right type breaks; None for another mistake. Of several types the widest limit counts."""
    limits: dict[str, list[Any]] = {}
    for detail in details:
        for limit, bound in detail.get("ctx", {}).items():
            if detail["type"] in _LIMITED:
                limits.setdefault(limit, []).append(bound)
    if any(detail["type"] == "finite_number" for detail in details):
        return f"{name} is {value}, which is not finite"
    if "ge" in limits:
        return f"{name} is {value}, which is below the minimum {_number(min(limits['ge']))}"
    if "le" in limits:
        return f"{name} is {value}, which is above the maximum {_number(max(limits['le']))}"
    if not limits:
        return None
    if not value:
        return f"{name} is empty, and at least 1 is needed"
    noun = "character" if isinstance(value, str) else "key" if isinstance(value, dict) else "item"
    if "max_length" in limits:
        return f"{name} has {_count(len(value), noun)}, and at most {max(limits['max_length'])} are allowed"
    return f"{name} has {_count(len(value), noun)}, and at least {min(limits['min_length'])} are needed"


def why(value: Any, right: str) -> str:
    """Say why a value was not read as what its author meant."""
    if isinstance(value, str):
        is_number = "integer" in right or "number" in right
        if is_number and _NUMBER.fullmatch(value):
            return "; without the quotes, since a number in quotes is text"
        if is_number and _GROUPED.fullmatch(value):
            return f"; digits alone, such as {re.sub('[^-+0-9]', '', value)}, since anything else is read as text"
        if "true or false" in right and value.lower() in (*_SWITCHES, "true", "false"):
            plain = _SWITCHES.get(value.lower(), value.lower())
            return f"; {plain} without quotes, since {value!r} is read as text"
    elif isinstance(value, bool | int | float) and any(
        word in right for word in ("text", "name", "target", "one of", "version")
    ):
        return "; put it in quotes if it is text"
    return ""


def shown(value: Any) -> str:
    """Return a value of a file with its type, as it was read."""
    match value:
        case str():
            return f"the text {quoted(value)}" if value else "an empty text"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int():
            return f"the integer {shortened(str(value))}"
        case float():
            return f"the number {value}"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            # None, or its substitute in a file of cases.
            return "null"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def keys_at(model: type[BaseModel], place: Location) -> list[str]:
    """Return the keys that a mapping at a place may have."""
    return [key for schema in _at(model, place) for key in schema.get("properties", {})]


def expected(model: type[BaseModel], place: Location) -> str:
    """Describe what is allowed at a place."""
    words = list(dict.fromkeys(_schema_words(_schema(model), schema) for schema in _at(model, place)))
    return _joined(words) or "a value"


def _joined(words: list[str]) -> str:
    if any(word.startswith("a number") for word in words):
        # A whole number is one too, and the limits of a number are never narrower.
        words = [word for word in words if not word.startswith("an integer")]
    return " or ".join(words)


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True)


def _at(model: type[BaseModel], place: Location) -> list[dict[str, Any]]:
    """Return the schemas that may hold at a place."""
    root = _schema(model)
    here = _alternatives(root, root)
    for step in place:
        found: list[dict[str, Any]] = []
        for schema in here:
            if isinstance(step, int) and "items" in schema:
                found += _alternatives(root, schema["items"])
            elif step in schema.get("properties", {}):
                found += _alternatives(root, schema["properties"][step])
            elif isinstance(schema.get("additionalProperties"), dict):
                found += _alternatives(root, schema["additionalProperties"])
            elif "patternProperties" in schema:
                for each in schema["patternProperties"].values():
                    found += _alternatives(root, each)
        here = found
    return here


def _alternatives(root: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in schema:
        return _alternatives(root, root["$defs"][schema["$ref"].rpartition("/")[2]])
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        shared = {"examples": schema["examples"]} if "examples" in schema else {}
        return [alternative for choice in choices for alternative in _alternatives(root, {**shared, **choice})]
    return [] if schema.get("type") == "null" else [schema]


def _expected_key(model: type[BaseModel], place: Location) -> str:
    for schema in _at(model, place):
        pattern = schema.get("propertyNames", {}).get("pattern") or next(
            iter(schema.get("patternProperties", {})), None
        )
        if pattern:
            return _PATTERN_WORDS.get(pattern, "a name (letters, digits, '.', '_', '-')")
    return "a name (letters, digits, '.', '_', '-') or an integer of at least 0"


def _schema_words(root: dict[str, Any], schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    match schema.get("type"):
        case "string":
            pattern = schema.get("pattern", "")
            if pattern in _PATTERN_WORDS:
                return _PATTERN_WORDS[pattern] + _length(schema)
            if "examples" in schema:
                return f"text such as {schema['examples'][0]!r}"
            return "text" + _length(schema)
        case "boolean":
            return "true or false"
        case "integer" | "number" as kind:
            return ("an integer" if kind == "integer" else "a number") + _limits(schema)
        case "array":
            inner = dict.fromkeys(_schema_words(root, item) for item in _alternatives(root, schema.get("items", {})))
            return _list(schema, _joined(list(inner)))
        case "object":
            keys = ", ".join(schema.get("properties", {}))
            if "minProperties" in schema:
                return f"a mapping of at least {_count(schema['minProperties'], 'key')}"
            return f"a mapping with the keys {keys}" if keys else "a mapping"
        case _:
            return "a value"


def _length(schema: Mapping[str, Any]) -> str:
    most = schema.get("maxLength")
    return "" if most is None else f" of at most {most} characters"


def _limits(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {_number(low)} to {_number(high)}"
    return "" if low is None else f" of at least {_number(low)}"


def _list(schema: Mapping[str, Any], item: str) -> str:
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is None:
        return f"a list of ({item})"
    exactly = "" if least == most else "at least "
    return f"a list of {exactly}{_count(least, 'item')}, each {item}"


def _number(value: Any) -> str:
    return json.dumps(int(value) if float(value).is_integer() else value)
