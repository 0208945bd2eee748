"""Requests that the listener refuses itself, and the answers that it gives without the app."""

from __future__ import annotations

import http
import json
import logging

logger = logging.getLogger("tidegate.listener")

_LOG_INTERVAL_S = 1.0
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}


class RefusalError(Exception):
    """A request that cannot be read, or that exceeds a limit; its connection ends with the answer.

    `text` never holds anything that the caller sent, as it is logged.
    """

    def __init__(self, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.status = status
        self.text = text
        self.headers = headers
        super().__init__(text)


def closing_answer(status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A whole answer in the form of the Open Inference Protocol's errors, after which the connection ends."""
    body = json.dumps({"error": text}, separators=(",", ":")).encode()
    lines = [STATUS_LINES[status], b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)]
    lines.extend(b"%b: %b\r\n" % header for header in headers)
    return b"".join([*lines, b"connection: close\r\n\r\n", body])


class RefusalLog:
    """One line per second at most, however many requests are refused; the next line counts those left out."""

    def __init__(self) -> None:
        self._next_s = 0.0
        self._left_out = 0

    def write(self, text: str, peer: str, now_s: float) -> None:
        """Log that a request of `peer` (an address) was refused."""
        if now_s < self._next_s:
            self._left_out += 1
            return
        more = f"; {self._left_out} more were refused since the last such line" if self._left_out else ""
        self._left_out = 0
        self._next_s = now_s + _LOG_INTERVAL_S
        logger.warning("refused a request of %s: %s%s", peer, text, more)
