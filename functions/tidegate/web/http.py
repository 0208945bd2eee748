"""The HTTP that the handlers of `/v1` and `/v2` share: answer once, which headers travel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tidegate.byte_budget import ByteLease

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
RawHeaders = Sequence[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
TRACING = frozenset({b"traceparent", b"tracestate", b"baggage", b"x-request-id", b"x-amzn-trace-id"})
_TRAVELS = TRACING | {
    b"accept-encoding", b"content-type", b"endpoint-load-metrics-format", b"inference-header-content-length",
}  # fmt: skip
_OF_THE_BODY = frozenset({b"content-type", b"content-encoding", b"inference-header-content-length"})
"""What no `Connection` takes away: a server would read another body than the one that was looked at
(https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1 forbids to name such headers there)."""

LONGEST_VALUE_BYTES = 8_000
"""Triton 2.51 resets the connection at a value of more than 8 191 bytes, whose request would count as a failure of the
endpoint. It has no limit for the headers together: 100 values of 8 000 bytes are answered."""

BLANKS = b" \t"
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F))
_HARMLESS_CONNECTION = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})


class HeaderTooLongError(Exception):
    """A header that would travel on is longer than Triton reads; `name` is in lower case."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"the header {name} is longer than {LONGEST_VALUE_BYTES} bytes, as it travels on")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response, ready to be sent. `lease` counts a large body as held until it is sent."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    lease: ByteLease | None = None

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the response (ASGI)."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body})


def request_headers(headers: RawHeaders, codings: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The caller's headers that go on to Triton (names in lower case): what describes the body and the trace.

    An allow-list, since a proxy in front of Triton may refuse a request for a header that no model needs. Every
    value is ASCII; `Content-Encoding` has the `codings` of the body as Triton reads them.

    Raises:
        HeaderTooLongError: one is longer than Triton reads.
    """
    kept = [
        (name, value.strip(BLANKS) if value.isascii() else ascii_value(value.strip(BLANKS)))
        for name, value in headers
        if name in _TRAVELS
    ]
    if codings:
        kept.append((b"content-encoding", ascii_value(b", ".join(codings))))
    for name, value in headers:
        if name == b"connection" and value not in _HARMLESS_CONNECTION:
            named = {option.strip().lower() for option in value.split(b",")} - _OF_THE_BODY
            kept = [header for header in kept if header[0] not in named]
    return _checked(kept)


def tracing_headers(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """The caller's headers that describe the trace, each value in ASCII.

    Raises:
        HeaderTooLongError: one is longer than Triton reads.
    """
    return _checked([(name, ascii_value(value.strip(BLANKS))) for name, value in headers if name in TRACING])


def _checked(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    for name, value in headers:
        if len(value) > LONGEST_VALUE_BYTES:
            raise HeaderTooLongError(name.decode("latin-1"))
    return headers


def response_headers(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Triton's headers that go back to the caller, each value in ASCII: a function's response holds no other."""
    return [
        header if header[1].isascii() else (header[0], ascii_value(header[1]))
        for header in headers
        if header[0] not in _HOP_BY_HOP
    ]


def content_codings(headers: RawHeaders) -> list[bytes]:
    """The codings that the body has, in the order in which they were applied; empty where it has none.

    Read as RFC 9110 8.4 says (https://www.rfc-editor.org/rfc/rfc9110#section-8.4): in any case, as a list that may have
    empty elements and several lines, `identity` for no coding, `x-gzip` for `gzip`.
    """
    found = header_values(headers, b"content-encoding")
    if not found:
        return []
    codings = [part.strip(BLANKS).lower() for value in found for part in value.split(b",")]
    return [b"gzip" if coding == b"x-gzip" else coding for coding in codings if coding not in (b"", b"identity")]


def ascii_value(value: bytes) -> bytes:
    """A header value with every byte that is not printable ASCII percent-encoded."""
    return quote(value, safe=_PRINTABLE).encode()


def header_values(headers: RawHeaders, name: bytes) -> list[bytes]:
    """Every value of the header `name` (lower case), in order, without the blanks around it.

    Blanks are no part of a value (https://www.rfc-editor.org/rfc/rfc9110#section-5.5), and servers leave those at its end.
    """
    return [value.strip(BLANKS) for key, value in headers if key == name]
