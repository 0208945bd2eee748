"""Checks the shape of a file against its pydantic model and says every mistake in an author's words.

What is wrong is reported and left out, and the rest is checked on, so that one run shows all mistakes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tidegate.rules import language
from tidegate.rules.source import UNREAD, Location, Source
from tidegate.rules.values import type_name


class Report:
    """Takes the mistakes of one file: `report(location, what is wrong, what would be right)`.

    It knows which places could not be read or had the wrong shape, so that a mistake is told once and not again as the
    hole that it leaves.

    Attributes:
        count: how many mistakes it took.
    """

    def __init__(self, source: Source, add: Callable[[Location, str, str], None]) -> None:
        self._add = add
        self.count = 0
        self._broken: set[Location] = set(source.unread)

    def __call__(self, at: Location, message: str, hint: str) -> None:
        """Take a mistake."""
        self.count += 1
        self._add(at, message, hint)

    def leave_out(self, at: Location) -> None:
        """Note that the value at a place is not looked at any further."""
        self._broken.add(at)

    def is_left_out(self, at: Location) -> bool:
        """Whether the value at a place was left out."""
        return at in self._broken

    def is_whole(self, at: Location) -> bool:
        """Whether nothing directly in the value at a place was left out."""
        return not any(len(place) > len(at) and place[: len(at)] == at for place in self._broken)


ModelType = TypeVar("ModelType", bound=BaseModel)

_PATTERN_WORDS = {
    language.ALIAS: "an alias (name@alias)",
    language.NAME: "a name (letters, digits, '.', '_', '-', beginning with a letter or digit)",
    language.TARGET: "a target (model, model/version or name@alias)",
    language.PARAMETER: "a parameter name (letters, digits, '_', '-', beginning with a letter)",
    language.PRINTABLE: "printable ASCII text without blanks at its ends",
}


def check_shape(
    model: type[ModelType], data: Any, report: Report, at: Location = (), stand_ins: Mapping[str, Any] | None = None
) -> ModelType | None:
    """The model of `data`, less what is wrong in it; None where what is left is no model.

    Args:
        model: the shape.
        data: plain values of the file.
        report: takes every mistake.
        at: where `data` stands in its file.
        stand_ins: values for required keys, used where a key is missing or wrong so that the rest is still checked.
    """
    data = _without_holes(model, copy.deepcopy(data), at, report)
    for _ in range(8):
        try:
            return model.model_validate(data)
        except ValidationError as error:
            places = _by_place(error, data)
        _report_places(model, data, places, at, report)
        for place in sorted(places, key=_removal_order, reverse=True):
            is_missing = places[place][0]["type"] == "missing"
            name = place[-1] if place else None
            if len(place) == 1 and stand_ins and name in stand_ins:
                data[name] = stand_ins[str(name)]
            elif is_missing and len(place) > 1:
                _remove(data, place[:-1])
            elif is_missing or not place:
                return None
            else:
                _remove(data, place)
    return None


def _report_places(
    model: type[BaseModel], data: Any, places: Mapping[Location, list[Any]], at: Location, report: Report
) -> None:
    """Report each wrong place, but for those that are only the hole that another mistake has left."""
    misspelt: set[Location] = set()
    for place, details in places.items():
        if details[0]["type"] == "extra_forbidden":
            close = get_close_matches(str(place[-1]), _keys(model, place[:-1]), n=1)
            misspelt.update((*place[:-1], name) for name in close)
    for place, details in places.items():
        here = (*at, *place)
        match details[0]["type"]:
            case "missing":
                is_hole = place in misspelt or report.is_left_out(here)
            case "too_short":
                is_hole = not report.is_whole(here)
            case _:
                is_hole = False
        if not is_hole:
            report(here, *_words(model, data, place, details))
        report.leave_out(here)


def _removal_order(place: Location) -> list[tuple[bool, str]]:
    """Later list items first, so that removing one does not move another."""
    return [(isinstance(step, int), str(step).zfill(9)) for step in place]


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


def _without_holes(model: type[BaseModel], data: Any, at: Location, report: Report, path: Location = ()) -> Any:
    """`data` without empty values, which are reported, and without unread ones, which have been."""
    if isinstance(data, dict):
        for key in [key for key, value in data.items() if value is None or value is UNREAD]:
            place = (*path, key)
            if data.pop(key) is None:
                hint = f"give it {_expected(model, place)}, or delete the key"
                report((*at, *place), f"{str(key)!r} has no value", hint)
            report.leave_out((*at, *place))
        return {key: _without_holes(model, value, at, report, (*path, key)) for key, value in data.items()}
    if isinstance(data, list):
        kept = []
        for index, value in enumerate(data):
            if value is None:
                report((*at, *path, index), "a list item has no value", "give it a value, or delete it")
            if value is None or value is UNREAD:
                report.leave_out((*at, *path, index))
            else:
                kept.append(_without_holes(model, value, at, report, (*path, index)))
        return kept
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
    parent = place[:-1]
    name = _name(place)
    if "extra_forbidden" in kinds:
        return f"unknown key {name}", did_you_mean(str(place[-1]), _keys(model, parent), "key")
    if "missing" in kinds:
        return f"key {name} is missing", f"add it: {_expected(model, place)}"
    if any("[key]" in detail["loc"] for detail in details):
        return f"{name} is not a name that may stand here", f"write {_expected_key(model, parent)}"
    value = data
    for step in place:
        value = value[step]
    if kinds & {"too_short", "too_long", "string_too_long"}:
        detail = details[0]
        bound = detail.get("ctx", {})
        size = bound.get("min_length", bound.get("max_length"))
        most = "at least" if "min_length" in bound else "at most"
        return f"{name} has the wrong length", f"it needs {most} {size}: {_expected(model, place)}"
    if kinds & {"greater_than_equal", "less_than_equal", "finite_number"}:
        return f"{name} is out of range", f"write {_expected(model, place)}"
    got = "" if isinstance(value, str) else f", got {type_name(value)}"
    if isinstance(value, str):
        got = ", got text" if "string_pattern_mismatch" not in kinds and "literal_error" not in kinds else ""
    return f"{name} is not what may stand here{got}", f"write {_expected(model, place)}"


def _name(place: Location) -> str:
    """The name of a place: its key in quotes, or which item of which list it is."""
    if not place:
        return "the file"
    last = place[-1]
    return f"item {last + 1} of {_name(place[:-1])}" if isinstance(last, int) and len(place) > 1 else f"{str(last)!r}"


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
        shared = {key: schema[key] for key in ("examples",) if key in schema}
        return [alternative for choice in choices for alternative in _alternatives(root, {**shared, **choice})]
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
            if "examples" in schema:
                return f"text such as {schema['examples'][0]!r}"
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
