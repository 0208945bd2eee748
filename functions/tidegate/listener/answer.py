"""Serialization of an answer: its head, and the framing of its body."""

from __future__ import annotations

import time
from collections.abc import Iterable
from email.utils import formatdate
from typing import Any, Final

from tidegate.header_lines import HeaderLines
from tidegate.listener.refusal import STATUS_LINES

_BODILESS: Final = frozenset({204, 304})
_OWN: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"date"})
_END_OF_CHUNKS: Final = b"0\r\n\r\n"


class _Clock:
    """The `Date` header, computed once per second."""

    def __init__(self) -> None:
        self._second = 0
        self._header = b""

    def header(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._header = b"date: " + formatdate(second, usegmt=True).encode() + b"\r\n"
        return self._header


_CLOCK: Final = _Clock()
_LINES: Final = HeaderLines()


class AnswerFrame:
    """Serializes one answer. `keep` says whether the connection stays open after it; the head announces that."""

    __slots__ = ("_bodiless", "_chunked", "_head_only", "_http_10", "_left", "keep")

    def __init__(self, method: str, http_version: str) -> None:
        self._head_only = method == "HEAD"
        self._http_10 = http_version == "1.0"
        self._bodiless = self._head_only
        self._chunked = False
        self._left: int | None = None
        self.keep = True

    def head(self, status: int, headers: Iterable[tuple[bytes, bytes]], whole_bytes: int | None) -> bytes:
        """Return the head. `whole_bytes` is the size of the body if it is known; None if parts will follow.

        Raises:
            RuntimeError, ValueError: status or headers cannot be sent.
        """
        if not 200 <= status <= 999:
            raise RuntimeError(f"{status} is not the status of a final answer")
        parts = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        length: bytes | None = None
        date = b""
        kept = _LINES.kept
        # As `Any`: mypyc would take each tuple apart, and make it again for the dictionary.
        every: Iterable[Any] = headers
        for header in every:
            # ASGI allows lists, too, which no dictionary finds.
            line = kept.get(header) if isinstance(header, tuple) else None
            if line is not None:
                parts.append(line)
                continue
            name, value = header
            if name not in _OWN:
                parts.append(_LINES.line(name, value))
            elif name == b"content-length":
                length = value
            elif name == b"date":
                date = _LINES.line(name, value, keeps=False)
            elif name == b"connection" and b"close" in value.lower():
                self.keep = False
        parts.append(date or _CLOCK.header())
        self._bodiless = self._head_only or status in _BODILESS
        if framing := self._framing(length, whole_bytes, status):
            parts.append(framing)
        elif not self._bodiless:
            self.keep = False
        if not self.keep:
            parts.append(b"connection: close\r\n")
        elif self._http_10:
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    @property
    def ends_with_connection(self) -> bool:
        """Whether the end of the connection ends the body, so that only a reset shows that it is incomplete."""
        return not self._chunked and self._left is None

    def body(self, part: bytes, more: bool) -> bytes:
        """Frame a part of the body; `more` is true if others follow.

        Raises:
            RuntimeError: the body's length differs from the head's Content-Length.
        """
        if self._chunked:
            end = b"" if more else _END_OF_CHUNKS
            return b"".join((b"%x\r\n" % len(part), part, b"\r\n", end)) if part else end
        if self._bodiless:
            return b""
        if self._left is not None:
            left = self._left - len(part)
            if left < 0 or (left and not more):
                raise RuntimeError("the answer's body is not as long as its Content-Length says")
            self._left = left
        return part

    def _framing(self, length: bytes | None, whole_bytes: int | None, status: int) -> bytes:
        """Return the header that frames the body; empty if there is no body, or the end of the connection ends it."""
        if length is not None and not length.isdigit():
            raise RuntimeError("the answer's Content-Length is not a number")
        if length is None and whole_bytes is not None and (whole_bytes or not self._bodiless):
            length = b"%d" % whole_bytes
        if self._bodiless:
            return b"content-length: %b\r\n" % length if length is not None and status not in _BODILESS else b""
        if length is not None:
            self._left = int(length)
            return b"content-length: %b\r\n" % length
        if self._http_10:
            return b""
        self._chunked = True
        return b"transfer-encoding: chunked\r\n"
