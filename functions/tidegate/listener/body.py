"""The body of a request as it arrives: where it ends, and how fast it must come."""

from __future__ import annotations

from tidegate.listener.chunked import ChunkedBody
from tidegate.listener.config import ListenerConfig
from tidegate.listener.head import HeadReader


class BodyPace:
    """A time credit of at most `timeout_s`: waiting spends it, and each byte that arrives earns `1 / min_bytes_per_s`.

    So a body may pause for up to `timeout_s`, but may not stay below `min_bytes_per_s` for much longer than that.
    """

    __slots__ = ("_left_s", "_min_bytes_per_s", "_since_s", "_timeout_s")

    def __init__(self, timeout_s: float, min_bytes_per_s: int) -> None:
        self._timeout_s = timeout_s
        self._min_bytes_per_s = min_bytes_per_s
        self._left_s = timeout_s
        self._since_s = 0.0

    def start(self, now_s: float) -> float:
        """Start with the full credit; return how long the next byte may take, in seconds."""
        self._left_s = self._timeout_s
        return self.resume(now_s)

    def resume(self, now_s: float) -> float:
        """Continue after the server paused reading, which costs no credit; return as `start` does."""
        self._since_s = now_s
        return self._left_s

    def arrived(self, size_bytes: int, now_s: float) -> float:
        """Count bytes that arrived; return as `start` does."""
        earned_s = size_bytes / self._min_bytes_per_s
        self._left_s = min(self._timeout_s, self._left_s - (now_s - self._since_s) + earned_s)
        return self.resume(now_s)


class ArrivingBody:
    """Cuts a body from the bytes that arrive.

    Attributes:
        pace: its credit of time; start it with the body.
        complete: whether all of it has arrived.
        rest: the bytes after it, once it is complete.
    """

    __slots__ = ("_chunked", "_left_bytes", "_max_unread_bytes", "_reader", "complete", "pace", "rest")

    def __init__(self, config: ListenerConfig, reader: HeadReader) -> None:
        self._max_unread_bytes = config.max_unread_bytes
        self._reader = reader
        self._chunked: ChunkedBody | None = None
        self._left_bytes = 0
        self.pace = BodyPace(config.body_timeout_s, config.min_bytes_per_s)
        self.complete = False
        self.rest = b""

    def begin(self) -> None:
        """Expect the body of the request whose head was read."""
        self._chunked = ChunkedBody() if self._reader.chunked else None
        self._left_bytes = self._reader.content_length

    @property
    def too_much_left(self) -> bool:
        """Whether it is cheaper to close the connection than to read and drop the rest."""
        return self._chunked is not None or self._left_bytes > self._max_unread_bytes

    def feed(self, data: bytes) -> bytes:
        """Return the part of the body in `data`.

        Raises:
            RefusalError: the chunks are malformed.
        """
        if self._chunked is not None:
            pieces, end = self._chunked.feed(data)
            self.complete = end is not None
            self.rest = b"" if end is None else data[end:]
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        left = self._left_bytes
        piece, self.rest = (data, b"") if len(data) <= left else (data[:left], data[left:])
        self._left_bytes = left - len(piece)
        if piece:
            self._reader.skip(piece)
        self.complete = not self._left_bytes
        return piece
