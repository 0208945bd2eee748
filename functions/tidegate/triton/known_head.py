"""The head of a connection's last small response. The responses of one model mostly have the same head, and parsing it is half of the
work on them."""

from __future__ import annotations

from typing import Final

from tidegate.byte_budget import UNCOUNTED_BYTES

_MOST_KEPT_BYTES: Final = 1_024
_END_OF_HEAD: Final = b"\r\n\r\n"


class KnownHead:
    """The head of a response with a Content-Length, after which the connection stays open: what llhttp made of these bytes."""

    def __init__(self, head: bytes, status: int, headers: list[tuple[bytes, bytes]], length: int) -> None:
        self.head: Final = head
        self.status: Final = status
        self.headers: Final = headers
        self.length: Final = length
        self.size_bytes: Final = len(head) + length

    def begins(self, data: bytes) -> bool:
        """Return whether `data` is a whole response with this head."""
        return len(data) == self.size_bytes and data.startswith(self.head)

    def body_of(self, data: bytes) -> bytes:
        """Return the body of a response that this head begins."""
        return data[len(self.head) :]


def head_of(data: bytes, status: int, headers: list[tuple[bytes, bytes]], length: int) -> KnownHead | None:
    """Return the head to keep of `data`, if that is a whole response with a small head and a body of `length` bytes that is small, too."""
    head_bytes = len(data) - length
    if length > UNCOUNTED_BYTES or not 4 <= head_bytes <= _MOST_KEPT_BYTES:
        return None
    if data.find(_END_OF_HEAD) != head_bytes - 4:
        return None
    return KnownHead(data[:head_bytes], status, headers, length)
