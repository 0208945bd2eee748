"""Reads JSON that a caller sent: every name of an object once, since readers differ on which of two counts."""

from __future__ import annotations

import json
from typing import Any

from tidegate.rules.strict_json import DuplicateNameError, refuse_constant, unique_names
from tidegate.web.errors import malformed, wrong_coding, wrong_media_type
from tidegate.web.http import RawHeaders, content_codings, header_values


def why_unreadable(error: ValueError | RecursionError) -> str:
    """What is wrong with JSON that `json` raised `error` for, and where; never a value of it."""
    match error:
        case json.JSONDecodeError():
            return f"{error.msg} at line {error.lineno} column {error.colno}"
        case UnicodeDecodeError():
            return f"byte {error.start} is not UTF-8; send BYTES that are no UTF-8 text as binary data"
        case RecursionError():
            return "it is nested too deeply"
        case _:
            return "a number in it is too long"


def read_document(headers: RawHeaders, body: bytes, members: tuple[str, ...]) -> dict[str, Any]:
    """The body as an object with the given members, each an object; one that is left out is empty.

    Raises:
        WebError: the body is not JSON (415 where its headers say so), or not of that form.
    """
    for media_type in header_values(headers, b"content-type"):
        essence = media_type.split(b";", 1)[0].strip().lower()
        if essence != b"application/json" and not essence.endswith(b"+json"):
            raise wrong_media_type("the body must be application/json")
    if content_codings(headers):
        raise wrong_coding("the body must not be compressed: send it without Content-Encoding, or with identity")
    try:
        document = json.loads(body, parse_constant=refuse_constant, object_pairs_hook=unique_names)
    except json.JSONDecodeError as error:
        raise malformed(f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except DuplicateNameError as error:
        raise malformed(f"the body is ambiguous: {error}") from None
    except (ValueError, RecursionError):
        raise malformed(
            "the body is not JSON: it must be UTF-8, of numbers that are finite, and not nested deeply"
        ) from None
    if not isinstance(document, dict):
        raise malformed(f"the body must be an object with the members {_listed(members)}")
    for name in document:
        if name not in members:
            raise malformed(f"unknown member {name[:64]!r} in the body; the members are {_listed(members)}")
    for name in members:
        if not isinstance(document.setdefault(name, {}), dict):
            raise malformed(f"the member '{name}' must be an object")
    return document


def _listed(members: tuple[str, ...]) -> str:
    return " and ".join(f"'{name}'" for name in members)
