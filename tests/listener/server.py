"""A listener in a thread of its own, an app that behaves by the path, and a strict raw client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from tests.support.listening import PATIENCE_S, Listening, listening


def until(check: Callable[[], object]) -> None:
    """Wait until `check` holds."""
    end_s = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < end_s, "it never came true"
        time.sleep(0.005)


@dataclass
class App:
    """Answers by path, and records what became of each request."""

    events: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.events.append("called")
        name = scope["path"].strip("/").replace("-", "_")
        await getattr(self, f"_{name}", self._echo)(scope, receive, send)
        self.events.append("returned")

    async def _echo(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.events.append("disconnect")
                return
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(bytes(body))
        await answer(send, bytes(body))

    async def _scope(self, scope: Any, receive: Any, send: Any) -> None:
        shown = {key: value for key, value in scope.items() if key != "asgi"}
        await answer(send, json.dumps(shown, default=lambda value: value.decode("latin-1")).encode())

    async def _ignore(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"unread")

    async def _wait(self, scope: Any, receive: Any, send: Any) -> None:
        self.events.append("waiting")
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise
        await answer(send, b"waited")

    async def _wait_then_read(self, scope: Any, receive: Any, send: Any) -> None:
        await self.go_on.wait()
        await self._echo(scope, receive, send)

    async def _watch(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        self.events.append((await receive())["type"])

    async def _fail(self, scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("the member 4711 has no history")

    async def _fail_midway(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        raise ValueError

    async def _silent(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers nothing."""

    async def _stream(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in (b"one,", b"", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    async def _large(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            for _ in range(3):
                await send({"type": "http.response.start", "status": 200, "headers": []})
                for _ in range(64):
                    await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})
                    self.events.append("sent")
                await send({"type": "http.response.body"})
                return
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise

    async def _whole(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"y" * 8_000_000)

    async def _empty(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"abc"})

    async def _too_long(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"12345", (b"content-length", b"3"))

    async def _too_short(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"12345", (b"content-length", b"30"))

    async def _split(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"", (b"x-city", b"a\r\nset-cookie: b"))

    async def _status_999(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 99, "headers": []})
        await send({"type": "http.response.body"})

    async def _close(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"bye", (b"connection", b"close"))

    async def _dated(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"dated", (b"date", b"Mon, 01 Jan 2024 00:00:00 GMT"))


async def answer(send: Any, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Send a complete answer."""
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True, slots=True)
class Served:
    """A listener that serves an `App`."""

    app: App
    listening: Listening

    def stop(self, grace_s: float) -> Future[None]:
        """Begin to stop the listener."""
        listener = self.listening.listener
        return asyncio.run_coroutine_threadsafe(listener.stop(grace_s), self.listening.loop)

    def go_on(self) -> None:
        """Let the requests to `/wait` end."""
        self.listening.loop.call_soon_threadsafe(self.app.go_on.set)

    def connect(self) -> Client:
        """A connection."""
        return Client(socket.create_connection(("127.0.0.1", self.listening.port), PATIENCE_S))

    def healthy(self) -> bool:
        """Return whether a request of another caller is answered."""
        with self.connect() as client:
            client.send(post(b"well"))
            return client.read().body == b"well"


@contextlib.contextmanager
def serving(at_once: Any = None, **limits: Any) -> Iterator[Served]:
    """Serve an `App` with the default limits, except for `limits`, after `at_once` if there is one."""
    app = App()
    with listening(app, at_once, **limits) as found:
        yield Served(app, found)


@dataclass(frozen=True)
class Answer:
    """One answer; header names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key == name]
        assert len(found) <= 1, found
        return found[0] if found else None

    @property
    def error(self) -> str:
        text = json.loads(self.body)["error"]
        assert isinstance(text, str)
        return text


class Client(contextlib.AbstractContextManager["Client"]):
    """Sends bytes and reads answers; what is not an HTTP/1.1 answer fails the test."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._read = b""

    def __exit__(self, *exc: object) -> None:
        self.sock.close()

    def send(self, *parts: bytes) -> None:
        """Send each part in a segment of its own."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, part in enumerate(parts):
            if number:
                time.sleep(0.01)
            self.sock.sendall(part)

    def read(self, head_only: bool = False) -> Answer:
        """Read the next answer, which may be an interim one."""
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, self._read = self._read.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", first)
        assert match, head
        status = int(match[1])
        headers = []
        for line in lines:
            name, colon, value = line.partition(": ")
            assert colon and re.fullmatch(r"[\w-]+", name), head
            headers.append((name.lower(), value))
        found = Answer(status, headers, b"")
        length, coding = found.header("content-length"), found.header("transfer-encoding")
        assert length is None or coding is None, head
        if head_only or status < 200 or status in (204, 304):
            return found
        if coding is not None:
            return Answer(status, headers, self._chunks())
        if length is None:
            return Answer(status, headers, self.rest())
        return Answer(status, headers, self._take(int(length)))

    def rest(self) -> bytes:
        """Read everything up to the end of the connection."""
        with contextlib.suppress(EndError):
            while True:
                self._more()
        rest, self._read = self._read, b""
        return rest

    def ended(self) -> bool:
        """Return whether the server closed the connection without another byte."""
        return self.rest() == b""

    def _chunks(self) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in self._read:
                self._more()
            size, self._read = self._read.split(b"\r\n", 1)
            chunk = self._take(int(size, 16) + 2)
            assert chunk.endswith(b"\r\n")
            if chunk == b"\r\n":
                return body
            body += chunk[:-2]

    def _take(self, count: int) -> bytes:
        while len(self._read) < count:
            self._more()
        taken, self._read = self._read[:count], self._read[count:]
        return taken

    def _more(self) -> None:
        data = self.sock.recv(262_144)
        if not data:
            raise EndError(f"the connection ended after {self._read!r}")
        self._read += data


class EndError(Exception):
    """The server closed the connection."""


def get(path: bytes = b"/echo", headers: bytes = b"") -> bytes:
    """Return a request without a body; `headers` are complete lines."""
    return b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (path, headers)


def post(body: bytes, path: bytes = b"/echo", headers: bytes = b"") -> bytes:
    """Return a request with a Content-Length."""
    return b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%b\r\n%b" % (path, len(body), headers, body)


def chunked(*chunks: bytes, path: bytes = b"/echo") -> bytes:
    """Return a request with a chunked body."""
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % (path, framed)
