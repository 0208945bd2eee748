"""Request bodies of `/v1`: one JSON object."""

from __future__ import annotations

from typing import Any

from tidegate.errors import malformed
from tidegate.strict_json import UnreadableError, parse
from tidegate.web.errors import wrong_coding, wrong_media_type
from tidegate.web.head import RequestHead


def check_media(head: RequestHead) -> None:
    """Check that the headers describe the body as uncompressed JSON.

    Raises:
        WebError: they describe another media type or a content coding (415).
    """
    for media_type in head.values(b"content-type"):
        essence = media_type.split(b";", 1)[0].strip().lower()
        if essence != b"application/json" and not essence.endswith(b"+json"):
            raise wrong_media_type("the body must be application/json")
    if head.codings:
        raise wrong_coding("the body must not be compressed: send it without Content-Encoding, or with identity")


def read_members(body: bytes, members: tuple[str, ...]) -> dict[str, Any]:
    """Parse a body as an object with the given members, each an object; one that is left out becomes an empty object.

    Raises:
        RefusedError: the body is not JSON, or does not have that shape.
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
