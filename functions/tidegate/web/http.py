"""The little HTTP that both doors share: read a body within a limit, answer once, which headers travel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

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
_STAYS_HERE = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"authorization", b"cookie"}
_HARMLESS_CONNECTION = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})


class ClientGoneError(Exception):
    """The caller closed the connection before its request was whole; nobody waits for an answer."""


class BodyTooLargeError(Exception):
    """The body is above the limit."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response, ready to be sent."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the response (ASGI)."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self.body})


async def read_body(receive: Receive, headers: RawHeaders, limit_bytes: int) -> bytes:
    """The whole request body, whether it came with a length or in chunks.

    Raises:
        BodyTooLargeError: the body is, or says that it will be, larger than `limit_bytes`.
        ClientGoneError: the caller closed the connection.
    """
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and (len(value) > 18 or int(value) > limit_bytes):
            raise BodyTooLargeError
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body", False) and len(body) <= limit_bytes:
        return body
    chunks, size_bytes = [], 0
    while True:
        if message["type"] != "http.request":
            raise ClientGoneError
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size_bytes += len(chunk)
        if size_bytes > limit_bytes:
            raise BodyTooLargeError
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()


def request_headers(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """The caller's headers that go on to Triton (names in lower case).

    Hop-by-hop headers, the caller's credentials and everything that is Tidegate's own stay here. Triton looks for the
    pattern of forwarded headers anywhere in a name, so a name that merely contains `tidegate-` stays too.
    """
    kept = [header for header in headers if header[0] not in _STAYS_HERE and b"tidegate-" not in header[0]]
    for name, value in headers:
        if name == b"connection" and value not in _HARMLESS_CONNECTION:
            named = {option.strip().lower() for option in value.split(b",")}
            kept = [header for header in kept if header[0] not in named]
    return kept


def response_headers(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """Triton's headers that go back to the caller."""
    return [header for header in headers if header[0] not in _HOP_BY_HOP]


def header_values(headers: RawHeaders, name: bytes) -> list[bytes]:
    """Every value of the header `name` (lower case), in order."""
    return [value for key, value in headers if key == name]
