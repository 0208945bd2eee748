"""Checks the shape of a file against its pydantic model and says every mistake in an author's words.

What is wrong is reported and left out, and the rest is checked on, so that one run shows all mistakes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tidegate.rules import language
from tidegate.rules.source import Location
from tidegate.rules.values import type_name

Report = Callable[[Location, str, str], None]
"""Called with the location of a mistake, what is wrong, and what would be right."""

ModelType = TypeVar("ModelType", bound=BaseModel)

_PATTERN_WORDS = {
    language.NAME: "a name (letters, digits, '.', '_', '-', beginning with a letter or digit)",
    language.TARGET: "a target (model, model/version or name@alias)",
    language.PARAMETER: "a parameter name (letters, digits, '_', '-', beginning with a letter)",
    language.PRINTABLE: "printable ASCII text without blanks at its ends",
}


def check_shape(model: type[ModelType], data: Any, report: Report, at: Location = ()) -> ModelType | None:
    """The model of `data`, less what is wrong in it; None where what is left is no model.

    Every mistake is reported with its location, which begins with `at`.
    """
    data = copy.deepcopy(data)
    data = _without_nulls(model, data, at, report)
    for _ in range(8):
        try:
            return model.model_validate(data)
        except ValidationError as error:
            places = _by_place(error, data)
            broken = False
            for place, details in places.items():
                report((*at, *place), *_words(model, data, place, details))
                broken = broken or not place or details[0]["type"] == "missing"
            if broken:
                return None
            for place in sorted(places, key=lambda p: [(isinstance(s, int), str(s).zfill(9)) for s in p], reverse=True):
                _remove(data, place)
    return None


def did_you_mean(word: str, known: Iterator[str] | list[str] | set[str], noun: str) -> str:
    """What would be right in place of an unknown `word`."""
    names = sorted(known)
    close = get_close_matches(word, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if not names:
        return f"no {noun} is declared"
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"known {noun}s: {shown}"


def _without_nulls(model: type[BaseModel], data: Any, at: Location, report: Report, path: Location = ()) -> Any:
    if isinstance(data, dict):
        for key in [key for key, value in data.items() if value is None]:
            del data[key]
            report(
                (*at, *path, key),
                f"{str(key)!r} has no value",
                f"give it {_expected(model, (*path, key))}, or delete the key",
            )
        for key, value in data.items():
            data[key] = _without_nulls(model, value, at, report, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            if value is None:
                report((*at, *path, index), "a list item has no value", "give it a value, or delete it")
        return [
            _without_nulls(model, value, at, report, (*path, index))
            for index, value in enumerate(data)
            if value is not None
        ]
    return data


def _by_place(error: ValidationError, data: Any) -> dict[Location, list[Any]]:
    places: dict[Location, list[Any]] = {}
    for detail in error.errors(include_url=False, include_input=False):
        place: list[Any] = []
        here: Any = data
        for step in detail["loc"]:
            is_item = isinstance(here, list) and isinstance(step, int)
            if is_item or (isinstance(here, dict) and step in here):
                here = here[step]
                place.append(step)
        if detail["type"] == "missing":
            place.append(detail["loc"][-1])
        places.setdefault(tuple(place), []).append(detail)
    return places


def _words(model: type[BaseModel], data: Any, place: Location, details: list[Any]) -> tuple[str, str]:
    kinds = {detail["type"] for detail in details}
    name = str(place[-1]) if place else "the file"
    parent = place[:-1]
    if "extra_forbidden" in kinds:
        return f"unknown key {name!r}", did_you_mean(name, _keys(model, parent), "key")
    if "missing" in kinds:
        return f"key {name!r} is missing", f"add it: {_expected(model, place)}"
    if any("[key]" in detail["loc"] for detail in details):
        return f"{name!r} is not a name that may stand here", f"write {_expected_key(model, parent)}"
    value = data
    for step in place:
        value = value[step]
    if kinds & {"too_short", "too_long", "string_too_long"}:
        detail = details[0]
        bound = detail.get("ctx", {})
        size = bound.get("min_length", bound.get("max_length"))
        most = "at least" if "min_length" in bound else "at most"
        return f"{name!r} has the wrong length", f"it needs {most} {size}: {_expected(model, place)}"
    got = "" if isinstance(value, str) else f", got {type_name(value)}"
    if isinstance(value, str):
        got = ", got text" if "string_pattern_mismatch" not in kinds and "literal_error" not in kinds else ""
    subject = f"{name!r}" if place and not isinstance(place[-1], int) else "a list item"
    if not place:
        subject = "the file"
    return f"{subject} is not what may stand here{got}", f"write {_expected(model, place)}"


def _remove(data: Any, place: Location) -> None:
    for step in place[:-1]:
        if isinstance(data, dict) and step not in data:
            return
        data = data[step]
    if isinstance(data, dict):
        data.pop(place[-1], None)
    elif isinstance(data, list) and isinstance(place[-1], int) and place[-1] < len(data):
        del data[place[-1]]


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True)


def _at(model: type[BaseModel], place: Location) -> list[dict[str, Any]]:
    """The schemas that may hold at a place."""
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
        return [alternative for choice in choices for alternative in _alternatives(root, choice)]
    return [] if schema.get("type") == "null" else [schema]


def _keys(model: type[BaseModel], place: Location) -> list[str]:
    return [key for schema in _at(model, place) for key in schema.get("properties", {})]


def _expected(model: type[BaseModel], place: Location) -> str:
    words = list(dict.fromkeys(_schema_words(_schema(model), schema) for schema in _at(model, place)))
    return " or ".join(words) or "nothing"


def _expected_key(model: type[BaseModel], place: Location) -> str:
    for schema in _at(model, place):
        pattern = schema.get("propertyNames", {}).get("pattern") or next(
            iter(schema.get("patternProperties", {})), None
        )
        if pattern:
            return _PATTERN_WORDS.get(pattern, "a name (letters, digits, '.', '_', '-')")
    return "a name (letters, digits, '.', '_', '-') or an integer"


def _schema_words(root: dict[str, Any], schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    match schema.get("type"):
        case "string":
            pattern = schema.get("pattern", "")
            if pattern.startswith("^header:"):
                return "header:<name of an HTTP header>"
            return _PATTERN_WORDS.get(pattern, "text")
        case "boolean":
            return "true or false"
        case "integer" | "number" as kind:
            noun = "an integer" if kind == "integer" else "a number"
            low, high = schema.get("minimum"), schema.get("maximum")
            if low is not None and high is not None:
                return f"{noun} from {low:g} to {high:g}" if high < 1e6 else f"{noun} of at least {low:g}"
            return noun if low is None else f"{noun} of at least {low:g}"
        case "array":
            inner = list(
                dict.fromkeys(_schema_words(root, item) for item in _alternatives(root, schema.get("items", {})))
            )
            return "a list of (" + " or ".join(inner) + ")"
        case "object":
            keys = ", ".join(schema.get("properties", {}))
            return f"a mapping with the keys {keys}" if keys else "a mapping"
        case _:
            return "a value"
