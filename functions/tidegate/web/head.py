"""The request headers that the gateway acts on, collected in one pass."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from tidegate.errors import malformed
from tidegate.web.http import BLANKS, RawHeaders, ascii_value, is_printable

_TRACING: Final = frozenset({b"traceparent", b"tracestate", b"baggage", b"x-request-id", b"x-amzn-trace-id"})
_TRAVELS: Final = _TRACING | {
    b"accept-encoding", b"content-type", b"endpoint-load-metrics-format", b"inference-header-content-length",
}  # fmt: skip
_READ: Final = _TRAVELS | {
    b"connection", b"content-encoding", b"content-length", b"tidegate-context", b"tidegate-override",
    b"tidegate-sequence", b"tidegate-timeout-ms", b"tidegate-traffic",
}  # fmt: skip
_OF_THE_BODY: Final = frozenset({b"content-type", b"content-encoding", b"inference-header-content-length"})
"""Headers that `Connection` cannot remove: without them the server would read the body differently from the gateway.
https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1 forbids listing them there."""

LONGEST_VALUE_BYTES: Final = 8_000
"""Triton 2.51 resets the connection when a value is longer than 8 191 bytes, which would count as a failure of the
endpoint. It does not limit the total: it answers a request with 100 values of 8 000 bytes."""

_HARMLESS_CONNECTION: Final = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})
_MILLISECONDS: Final = re.compile(rb"\d{1,9}(\.\d{1,6})?")


class HeaderTooLongError(Exception):
    """A header to be forwarded is longer than Triton accepts; `name` is in lower case."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"the header {name} is longer than {LONGEST_VALUE_BYTES} bytes, as it travels on")


class RequestHead:
    """The headers of one request, names in lower case.

    Surrounding blanks are stripped: they are not part of a value
    (https://www.rfc-editor.org/rfc/rfc9110#section-5.5), and servers leave trailing ones.
    """

    __slots__ = ("_found", "_travelling", "codings", "headers")

    def __init__(self, headers: RawHeaders) -> None:
        found: dict[bytes, list[bytes]] = {}
        travelling: list[tuple[bytes, bytes]] = []
        for name, value in headers:
            if name in _READ:
                text = value.strip(BLANKS)
                if name in found:
                    found[name].append(text)
                else:
                    found[name] = [text]
                if name in _TRAVELS:
                    travelling.append((name, text if is_printable(text) else ascii_value(text)))
        self.headers = headers
        self._found = found
        self._travelling = travelling
        self.codings = _codings(found[b"content-encoding"]) if b"content-encoding" in found else ()
        """The content codings of the body, in the order in which they were applied."""

    def values(self, name: bytes) -> Sequence[bytes]:
        """Return every value of `name` (lower case), which must be a header that the gateway reads."""
        assert name in _READ
        return self._found.get(name, ())

    @property
    def json_lengths(self) -> Sequence[bytes]:
        """Every `Inference-Header-Content-Length`, the offset at which the JSON of a request ends."""
        return self._found.get(b"inference-header-content-length", ())

    @property
    def announced_bytes(self) -> int | None:
        """`Content-Length`, or None without a numeric one. The server has refused requests with two that differ."""
        for text in self._found.get(b"content-length", ()):
            if text.isdigit():
                # int() raises for more than 4 300 digits.
                return int(text.lstrip(b"0")[:19] or b"0")
        return None

    def timeout_ms(self) -> float | None:
        """Return the value of `Tidegate-Timeout-Ms`, or None without that header.

        Raises:
            RefusedError: the header is not a positive decimal number, or is sent more than once.
        """
        found = self._found.get(b"tidegate-timeout-ms")
        if found is None:
            return None
        timeout_ms = float(found[0]) if len(found) == 1 and _MILLISECONDS.fullmatch(found[0]) else 0.0
        if timeout_ms <= 0.0:
            raise malformed(
                "the header Tidegate-Timeout-Ms must be sent once and be a positive number of milliseconds",
                header="Tidegate-Timeout-Ms",
            )
        return timeout_ms

    def forwarded(self) -> list[tuple[bytes, bytes]]:
        """Return the headers to forward to Triton: those that describe the body and the trace.

        They are an allow-list, since a proxy in front of Triton may refuse a request for a header that no model needs.
        Every value is ASCII, and `Content-Encoding` is normalized to what Triton accepts.

        Raises:
            HeaderTooLongError: a header is longer than Triton accepts.
        """
        kept = self._travelling.copy()
        if self.codings:
            kept.append((b"content-encoding", ascii_value(b", ".join(self.codings))))
        for value in self._found.get(b"connection", ()):
            if value not in _HARMLESS_CONNECTION:
                named = {option.strip().lower() for option in value.split(b",")} - _OF_THE_BODY
                kept = [header for header in kept if header[0] not in named]
        return _checked(kept)

    def tracing(self) -> list[tuple[bytes, bytes]]:
        """Return the tracing headers, with their values in ASCII.

        Raises:
            HeaderTooLongError: a header is longer than Triton accepts.
        """
        return _checked([header for header in self._travelling if header[0] in _TRACING])


def _checked(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    for name, value in headers:
        if len(value) > LONGEST_VALUE_BYTES:
            raise HeaderTooLongError(name.decode("latin-1"))
    return headers


def _codings(values: Sequence[bytes]) -> tuple[bytes, ...]:
    """Parse `Content-Encoding` (https://www.rfc-editor.org/rfc/rfc9110#section-8.4).

    Codings are case-insensitive, the list may have empty elements and span several lines, `identity` is no coding and
    `x-gzip` is `gzip`.
    """
    codings = [part.strip(BLANKS).lower() for value in values for part in value.split(b",")]
    return tuple(b"gzip" if coding == b"x-gzip" else coding for coding in codings if coding not in (b"", b"identity"))
