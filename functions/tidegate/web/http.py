"""HTTP shared by the handlers of `/v1` and `/v2`: whole responses, and which response headers are passed on."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from tidegate.byte_budget import ByteLease

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = Sequence[tuple[bytes, bytes]]
HeaderList = tuple[tuple[bytes, bytes], ...]

_HOP_BY_HOP: Final = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
LEASE: Final = "tidegate.lease"
"""The scope's key for what the request holds of its limits; the app gives it back when the response has ended."""

RECORD: Final = "tidegate.record"
"""The scope's key for what is known of the request, if requests are logged."""

BLANKS: Final = b" \t"
_PRINTABLE: Final = "".join(chr(code) for code in range(0x20, 0x7F))


class Answer:
    """A whole response, ready to be sent. `lease` keeps a large body counted in the byte budget until then."""

    def __init__(
        self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, lease: ByteLease | None = None
    ) -> None:
        self.status: Final = status
        self.headers: Final = headers
        self.body: Final = body
        self.lease: Final = lease

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the response (ASGI)."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body})


def json_answer(document: Any, headers: RawHeaders = (), status: int = 200) -> Answer:
    """Return a response with a document as JSON."""
    return json_bytes_answer(compact(document), headers, status)


def json_bytes_answer(body: bytes, headers: RawHeaders = (), status: int = 200) -> Answer:
    """Return a response with a body that is JSON already."""
    return Answer(status, (*json_headers(body), *headers), body)


def json_headers(body: bytes, media_type: bytes = b"application/json") -> HeaderList:
    """Return the headers that describe a JSON body."""
    return (b"content-type", media_type), (b"content-length", b"%d" % len(body))


def compact(document: Any) -> bytes:
    """Encode a document as JSON without whitespace.

    Raises:
        ValueError: it holds NaN or an infinity, which JSON does not have.
    """
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def response_headers(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Return the headers of Triton's response to pass on, with ASCII values: a Lambda response allows no others."""
    # As `Any`: mypyc would take each tuple apart, and make it again for the list.
    every: Sequence[Any] = headers
    return [
        header if header[1].isascii() else (header[0], ascii_value(header[1]))
        for header in every
        if header[0] not in _HOP_BY_HOP
    ]


def is_printable(value: bytes) -> bool:
    """Return whether a header value is printable ASCII."""
    return value.isascii() and value.decode("latin-1").isprintable()


def ascii_value(value: bytes) -> bytes:
    """Percent-encode every byte of a header value that is not printable ASCII."""
    return quote(value, safe=_PRINTABLE).encode()


def named_tag(tag: bytes, sent: Sequence[bytes]) -> bool:
    """Return whether the values of `If-None-Match` name a tag (https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2)."""
    named = [each.strip().removeprefix(b"W/") for value in sent for each in value.split(b",")]
    return tag in named or b"*" in named


def header_values(headers: RawHeaders, name: bytes) -> list[bytes]:
    """Return every value of the header `name` (lower case), in order, without surrounding blanks.

    Blanks are not part of a value (https://www.rfc-editor.org/rfc/rfc9110#section-5.5), and servers leave trailing ones.
    """
    return [value.strip(BLANKS) for key, value in headers if key == name]
