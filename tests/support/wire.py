"""HTTP/1.1 on a raw socket: sends exactly the bytes that a test means, and reads answers one by one."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; the names of its headers are in lower case, and repeated ones are joined with commas."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Wire:
    """A connection."""

    def __init__(self, port: int, timeout_s: float = TIMEOUT_S) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Wire:
        """Send bytes. A server that has answered and closed before it read them all is no error: its answer tells."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)
        return self

    def reply(self, method: str = "POST") -> Reply | None:
        """The next answer, an interim one included; None where the connection ends instead.

        Raises:
            TimeoutError: neither came in time.
        """
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name = name.lower()
            headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
        status = int(first.split(" ")[1])
        if status < 200 or status in (204, 304) or method == "HEAD":
            return Reply(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Reply(status, headers, b"".join(self._chunks()))
        length = headers.get("content-length")
        return Reply(status, headers, self._take(int(length)) if length is not None else self._rest())

    def closed(self) -> bool:
        """Wait until the server ends the connection; false where it sends something or nothing in time."""
        if self._received:
            return False
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = int((self._until(b"\r\n") or b"0").split(b";")[0], 16)
            if not size:
                self._until(b"\r\n")
                return
            yield self._take(size)
            self._take(2)

    def _until(self, mark: bytes) -> bytes | None:
        while (end := self._received.find(mark)) < 0:
            if not self._more():
                return None
        found = bytes(self._received[:end])
        del self._received[: end + len(mark)]
        return found

    def _take(self, size: int) -> bytes:
        while len(self._received) < size and self._more():
            pass
        found = bytes(self._received[:size])
        del self._received[:size]
        return found

    def _rest(self) -> bytes:
        while self._more():
            pass
        return self._take(len(self._received))

    def _more(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError:
            return False
        self._received += data
        return bool(data)


def message(method: str, path: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> bytes:
    """A request as bytes, with `Host` and `Content-Length`."""
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def ask(port: int, data: bytes, timeout_s: float = TIMEOUT_S) -> Reply | None:
    """Send bytes over a connection of their own; the first answer, None where the connection ends without one."""
    with Wire(port, timeout_s) as wire:
        return wire.send(data).reply()


def ask_all(port: int, data: bytes, count: int, timeout_s: float = TIMEOUT_S) -> Sequence[Reply | None]:
    """Send bytes over a connection of their own; the first `count` answers."""
    with Wire(port, timeout_s) as wire:
        wire.send(data)
        return [wire.reply() for _ in range(count)]
