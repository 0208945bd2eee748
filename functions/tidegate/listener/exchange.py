"""One request and its answer: what the app gets as `receive` and `send` (ASGI 3, HTTP)."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from enum import IntEnum
from typing import Any, Protocol

from tidegate.listener.refusal import STATUS_LINES, closing_answer

logger = logging.getLogger("tidegate.listener")

Message = MutableMapping[str, Any]
App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

_BODILESS = frozenset({204, 304})
_OWN = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"date"})
_END_OF_CHUNKS = b"0\r\n\r\n"
_INTERNAL = "internal error"


class _Answer(IntEnum):
    """How far the answer is."""

    NONE = 0
    STARTED = 1
    """The app gave status and headers; nothing is written, since most bodies come with the next message."""
    WRITING = 2
    COMPLETE = 3


class Line(Protocol):
    """What an exchange needs of its connection."""

    writable: asyncio.Future[None] | None
    """Set while the caller takes the answer more slowly than the app gives it."""

    def write(self, head: bytes, body: bytes) -> None:
        """Send bytes."""

    def body_wanted(self, expected: bool) -> None:
        """Read on; `expected`: the caller waits for the interim response 100."""

    def end_comes_late(self) -> bool:
        """Whether so much of the request's body is still to come that the connection has to end with the answer."""

    def answered(self, keep: bool) -> None:
        """Go on after the whole answer."""

    def abort(self) -> None:
        """End the connection at once."""


class _Clock:
    """The value of `Date`, computed once per second."""

    def __init__(self) -> None:
        self._second = 0
        self._header = b""

    def header(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._header = b"date: " + formatdate(second, usegmt=True).encode() + b"\r\n"
        return self._header


_clock = _Clock()


class Exchange:
    """Runs the app for one request.

    A caller that is gone ends the app's work: `receive()` brings `http.disconnect` where the app awaits it, else the task
    is cancelled. Either way `send()` does nothing from then on.
    """

    __slots__ = (
        "_answer", "_body", "_body_complete", "_chunked", "_end_told", "_expects_continue", "_gone", "_head_only",
        "_headers", "_http_10", "_keep_alive", "_left", "_line", "_scope", "_status", "_waiter", "buffered_bytes",
        "task",
    )  # fmt: skip

    def __init__(self, line: Line, scope: dict[str, Any], keep_alive: bool, expects_continue: bool) -> None:
        self._line = line
        self._scope = scope
        self._head_only = scope["method"] == "HEAD"
        self._http_10 = scope["http_version"] == "1.0"
        self._keep_alive = keep_alive
        self._expects_continue = expects_continue
        self._body: list[bytes] = []
        self.buffered_bytes = 0
        self._body_complete = False
        self._end_told = False
        self._waiter: asyncio.Future[None] | None = None
        self._gone = False
        self._answer = _Answer.NONE
        self._status = 0
        self._headers: Any = ()
        self._chunked = False
        self._left: int | None = None
        self.task: asyncio.Task[None] | None = None

    @property
    def answer_begun(self) -> bool:
        """Whether a part of the answer was written."""
        return self._answer >= _Answer.WRITING

    @property
    def takes_interim(self) -> bool:
        """Whether an interim response may be sent now."""
        return not self.answer_begun and not self._http_10

    @property
    def continue_owed(self) -> bool:
        """Whether the caller holds its body back until it gets an interim response."""
        return self._expects_continue and not self._body_complete

    def last_of_connection(self) -> None:
        """End the connection with this answer, if its head is not written yet."""
        self._keep_alive = False

    def body_arrived(self, piece: bytes, complete: bool) -> None:
        """Hand over the next bytes of the body."""
        if piece:
            self._body.append(piece)
            self.buffered_bytes += len(piece)
        self._body_complete = complete
        self._wake()

    def end(self) -> None:
        """End the app's work: nobody waits for its answer any more."""
        if self._gone or self._answer is _Answer.COMPLETE:
            return
        self._gone = True
        if self._waiter is not None:
            self._wake()
        elif self.task is not None:
            self.task.cancel()

    async def run(self, app: App) -> None:
        """Run the app. Whatever it raises becomes a 500, or the end of the connection where an answer had begun."""
        try:
            await app(self._scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._fail("was cancelled", None)
            raise
        except Exception as error:  # noqa: BLE001  # the app's error is not the server's
            self._fail(f"raised {type(error).__name__}", error)
        else:
            if self._answer is not _Answer.COMPLETE:
                self._fail("returned without a whole answer", None)

    async def receive(self) -> Message:
        """The next part of the body, or `http.disconnect` (ASGI)."""
        while not self._gone and self._answer is not _Answer.COMPLETE:
            body = self._body
            if body or (self._body_complete and not self._end_told):
                part = body[0] if len(body) == 1 else b"".join(body)
                self._end_told = self._body_complete
                if body:
                    self._body = []
                    self.buffered_bytes = 0
                    if not self._body_complete:
                        self._line.body_wanted(False)
                return {"type": "http.request", "body": part, "more_body": not self._body_complete}
            if not self._body_complete:
                expected, self._expects_continue = self._expects_continue, False
                self._line.body_wanted(expected)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Send a part of the answer (ASGI).

        Raises:
            RuntimeError: the message does not fit those before it, or the answer's own framing.
        """
        if self._gone:
            return
        kind = message["type"]
        if kind == "http.response.start" and self._answer is _Answer.NONE:
            self._status = message["status"]
            self._headers = message.get("headers", ())
            self._answer = _Answer.STARTED
            return
        if kind != "http.response.body" or self._answer not in (_Answer.STARTED, _Answer.WRITING):
            raise RuntimeError(f"the app sent {kind} where it must not")
        line = self._line
        if line.writable is not None and not await self._drained():
            return
        body = message.get("body", b"")
        more = message.get("more_body", False)
        head = b""
        if self._answer is _Answer.STARTED:
            head = self._head(None if more else len(body))
        self._write(head, body, more)
        self._answer = _Answer.WRITING
        if not more:
            self._answer = _Answer.COMPLETE
            self._wake()
            line.answered(self._keep_alive)
        # Whoever gave a large answer learns when it is on its way, not merely in this server's memory.
        if line.writable is not None:
            await self._drained()

    async def _drained(self) -> bool:
        """Wait until the caller has taken most of what was sent; return whether it is still there."""
        while (writable := self._line.writable) is not None and not self._gone:
            await asyncio.shield(writable)
        return not self._gone

    def _write(self, head: bytes, body: bytes, more: bool) -> None:
        if self._chunked:
            head += b"%x\r\n" % len(body) if body else b""
            body = (body + b"\r\n" if body else b"") + (b"" if more else _END_OF_CHUNKS)
        elif self._bodiless:
            body = b""
        elif self._left is not None:
            left = self._left - len(body)
            if left < 0 or (left and not more):
                raise RuntimeError("the answer's body is not as long as its Content-Length says")
            self._left = left
        if head or body:
            self._line.write(head, body)

    @property
    def _bodiless(self) -> bool:
        return self._head_only or self._status in _BODILESS

    def _head(self, whole_bytes: int | None) -> bytes:
        """The head of the answer; `whole_bytes` is the size of a body that is all there."""
        status = self._status
        lines = [STATUS_LINES[status] if 200 <= status <= 599 and status in STATUS_LINES else _status_line(status)]
        length: bytes | None = None
        date = b""
        keep = self._keep_alive and not self._line.end_comes_late()
        for name, value in self._headers:
            if name in _OWN:
                if name == b"content-length":
                    length = value
                elif name == b"date":
                    date = b"date: %b\r\n" % value
                elif name == b"connection" and b"close" in value.lower():
                    keep = False
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        lines.append(date or _clock.header())
        if framing := self._framing(length, whole_bytes):
            lines.append(framing)
        elif not self._bodiless:
            keep = False
        if not keep:
            lines.append(b"connection: close\r\n")
        elif self._http_10:
            lines.append(b"connection: keep-alive\r\n")
        self._keep_alive = keep
        return _checked(lines)

    def _framing(self, length: bytes | None, whole_bytes: int | None) -> bytes:
        """The header that says where the body ends; empty where the end of the connection does, or where there is none."""
        if length is not None and not length.isdigit():
            raise RuntimeError("the answer's Content-Length is no number")
        if length is None and whole_bytes is not None and (whole_bytes or not self._bodiless):
            length = b"%d" % whole_bytes
        if self._bodiless:
            return b"content-length: %b\r\n" % length if length is not None and self._status not in _BODILESS else b""
        if length is not None:
            self._left = int(length)
            return b"content-length: %b\r\n" % length
        if self._http_10:
            return b""
        self._chunked = True
        return b"transfer-encoding: chunked\r\n"

    def _fail(self, how: str, error: Exception | None) -> None:
        """Answer for an app that did not. The log has the places of its error, not its text, which may quote a caller."""
        if self._gone or self._answer is _Answer.COMPLETE:
            if error is not None:
                logger.error("the app %s after its answer%s", how, _places(error))
            return
        logger.error("the app %s%s", how, _places(error))
        if self._answer is _Answer.WRITING:
            self._gone = True
            self._line.abort()
            return
        self._answer = _Answer.COMPLETE
        self._line.write(closing_answer(500, _INTERNAL), b"")
        self._line.answered(False)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _status_line(status: int) -> bytes:
    if not 200 <= status <= 999:
        raise RuntimeError(f"{status} is no status of a final answer")
    return b"HTTP/1.1 %d \r\n" % status


def _checked(lines: list[bytes]) -> bytes:
    lines.append(b"\r\n")
    head = b"".join(lines)
    if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
        raise RuntimeError("a header of the answer holds a line break or NUL")
    return head


def _places(error: BaseException | None) -> str:
    if error is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    return ":\n" + "".join(f"  {frame.filename}:{frame.lineno} in {frame.name}\n" for frame in frames).rstrip()
