"""Requests that the listener itself refuses, and answers that it sends without the app."""

from __future__ import annotations

import http
import json
import logging

logger = logging.getLogger("tidegate.listener")

_LOG_INTERVAL_S = 1.0
STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}


class RefusalError(Exception):
    """A request is malformed or exceeds a limit. Its connection is closed after the answer.

    `text` is logged, and so never quotes the request.
    """

    def __init__(self, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.status = status
        self.text = text
        self.headers = headers
        super().__init__(text)


def closing_answer(status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """Return a complete answer that closes the connection, in the error format of the Open Inference Protocol."""
    body = json.dumps({"error": text}, separators=(",", ":")).encode()
    lines = [STATUS_LINES[status], b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)]
    lines.extend(b"%b: %b\r\n" % header for header in headers)
    return b"".join([*lines, b"connection: close\r\n\r\n", body])


class RefusalLog:
    """Logs at most one refusal per second, with a count of those that were left out."""

    def __init__(self) -> None:
        self._next_s = 0.0
        self._left_out = 0

    def write(self, text: str, peer: str, now_s: float) -> None:
        """Log that a request from `peer` (an address) was refused."""
        if now_s < self._next_s:
            self._left_out += 1
            return
        more = f"; {self._left_out} more were refused since the last such line" if self._left_out else ""
        self._left_out = 0
        self._next_s = now_s + _LOG_INTERVAL_S
        logger.warning("refused a request of %s: %s%s", peer, text, more)
