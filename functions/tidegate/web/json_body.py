"""The one reader of JSON that a caller sent, in a body, a header or a parameter."""

from __future__ import annotations

import json
from typing import Any

from tidegate.rules.strict_json import DuplicateNameError, NotFiniteError, refuse_constant, unique_names
from tidegate.web.errors import malformed, wrong_coding, wrong_media_type
from tidegate.web.http import RawHeaders, content_codings, header_values

# Made once: each costs as much as reading a small document.
_FINITE = json.JSONDecoder(object_pairs_hook=unique_names, parse_constant=refuse_constant)
_ANY = json.JSONDecoder(object_pairs_hook=unique_names)


class UnreadableError(ValueError):
    """JSON that is not read: what is wrong with it, and where; never a value of it."""


def parse(data: str | bytes, *, finite: bool = True) -> Any:
    """Some JSON as Python's values.

    Args:
        data: the JSON; bytes are UTF-8.
        finite: refuse NaN and Infinity, which JSON does not have and Triton reads.

    Raises:
        UnreadableError: it is no JSON, a name is duplicated in one object, or a number is not finite.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        return (_FINITE if finite else _ANY).decode(text)
    except json.JSONDecodeError as error:
        why = f"{error.msg} at line {error.lineno} column {error.colno}"
    except UnicodeDecodeError as error:
        why = f"byte {error.start} is not UTF-8; send BYTES that are no UTF-8 text as binary data"
    except RecursionError:
        why = "it is nested too deeply"
    except (DuplicateNameError, NotFiniteError) as error:
        why = str(error)
    except ValueError:
        why = "a number in it is too long"
    raise UnreadableError(why) from None


def check_media(headers: RawHeaders) -> None:
    """Check that a body is plain JSON, as its headers say.

    Raises:
        WebError: it is not (415).
    """
    for media_type in header_values(headers, b"content-type"):
        essence = media_type.split(b";", 1)[0].strip().lower()
        if essence != b"application/json" and not essence.endswith(b"+json"):
            raise wrong_media_type("the body must be application/json")
    if content_codings(headers):
        raise wrong_coding("the body must not be compressed: send it without Content-Encoding, or with identity")


def read_members(body: bytes, members: tuple[str, ...]) -> dict[str, Any]:
    """The body as an object with the given members, each an object; one that is left out is empty.

    Raises:
        WebError: the body is not JSON, or not of that form.
    """
    try:
        document = parse(body)
    except UnreadableError as error:
        raise malformed(f"the body is not JSON that can be read: {error}") from None
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
