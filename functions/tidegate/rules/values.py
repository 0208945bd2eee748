"""Typed context values: the values that each attribute type accepts, and the order of versions."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from tidegate.errors import printable
from tidegate.rules.contract import Attribute, AttributeType

VersionKey = tuple[tuple[int, ...], tuple[Any, ...]]

FLOAT_BITS: Final = 1024
"""An integer of more bits is beyond every finite double."""

MAX_VERSION_LENGTH: Final = 256

SHOWN_VALUES: Final = 20
SHOWN_CHARACTERS: Final = 60
"""Limits of the part of a closed domain that a message shows."""

VERSION_PATTERN: Final = (
    r"([0-9]{1,18}(?:\.[0-9]{1,18})*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?"
)
_VERSION: Final = re.compile(VERSION_PATTERN)
_RELEASE: tuple[Any, ...] = (1,)

EXPECTED: dict[AttributeType, str] = {
    "string": "text",
    "integer": "an integer",
    "number": "a finite number",
    "boolean": "true or false",
    "version": 'a version such as "8.2.1"',
    "set": "a list of texts",
}
"""Values that each attribute type accepts, for error messages."""


def version_key(text: str) -> VersionKey:
    """Return a key that sorts version texts by SemVer 2.0 precedence (https://semver.org/#spec-item-11).

    Any number of numeric parts is allowed and missing parts count as 0, so "8.2" equals "8.2.0". A pre-release sorts
    before its release; build metadata is ignored.

    Raises:
        ValueError: `text` is not a version.
    """
    match = _match_version(text)
    if match is None:
        raise ValueError("not a version")
    numbers = [int(part) for part in match[1].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    if match[2] is None:
        return tuple(numbers), _RELEASE
    identifiers = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in match[2].split("."))
    return tuple(numbers), (0, identifiers)


def _match_version(text: str) -> re.Match[str] | None:
    return _VERSION.fullmatch(text) if len(text) <= MAX_VERSION_LENGTH else None


def accepts(kind: AttributeType, value: object) -> bool:
    """Return whether `value` is of the attribute type `kind`. A boolean, NaN and infinity are not numbers."""
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            if isinstance(value, int):
                return not isinstance(value, bool) and value.bit_length() <= FLOAT_BITS
            return isinstance(value, float) and math.isfinite(value)
        case "boolean":
            return isinstance(value, bool)
        case "version":
            return isinstance(value, str) and _match_version(value) is not None
        case "set":
            return isinstance(value, list | tuple | set | frozenset) and all(isinstance(item, str) for item in value)


def within(attribute: Attribute, value: Any) -> bool:
    """Return whether a value of the right type is in the attribute's closed domain; always if the domain is open."""
    if attribute.values is None:
        return True
    if attribute.type == "set":
        return all(item in attribute.values for item in value)
    if attribute.type == "version":
        return version_key(value) in {version_key(str(item)) for item in attribute.values}
    return value in attribute.values


def domain_words(attribute: Attribute) -> str:
    """Describe the closed domain for error messages."""
    values = [json_text(value) for value in attribute.values or ()]
    shown = [text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…" for text in values[:SHOWN_VALUES]]
    return (
        "one of " + ", ".join(shown) + (f" and {len(values) - SHOWN_VALUES} more" if len(values) > SHOWN_VALUES else "")
    )


def json_text(value: Any) -> str:
    """Return a rule's own value as an author would write it; unprintable characters are escaped, so that no terminal obeys them."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else printable(str(value))


def json_line(value: Any) -> str:
    """Return a JSON value on one line, to be pasted; unprintable characters are escaped as in JSON."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def type_name(value: object) -> str:
    """Name a value's JSON type, for error messages that must not hold the value itself."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number" if math.isfinite(value) else "a number that is not finite"
        case str():
            return "text"
        case dict():
            return "an object"
        case list() | tuple() | set() | frozenset():
            return "a list"
        case _:
            return type(value).__name__
