"""One request and its answer: the app's `receive` and `send` (ASGI 3, HTTP)."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from enum import IntEnum
from typing import Any, Final, Protocol

from tidegate.asgi_messages import CUT, PATIENCE
from tidegate.listener.answer import AnswerFrame
from tidegate.listener.refusal import closing_answer
from tidegate.listener.sending import Sending

logger = logging.getLogger("tidegate.listener")

Message = MutableMapping[str, Any]
App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class WholeAnswer(Protocol):
    """An answer with the whole of its body. The names of its headers are in lower case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Iterable[tuple[bytes, bytes]]: ...

    @property
    def body(self) -> bytes: ...


AtOnce = Callable[[MutableMapping[str, Any]], WholeAnswer | None]
"""Returns the answer to a request without a body, by its scope (ASGI), and waits for nothing; None: the app answers it."""

_INTERNAL: Final = "internal error"


class _Answer(IntEnum):
    """Progress of the answer."""

    NONE = 0
    STARTED = 1
    """The app sent status and headers. Nothing is written yet, so that head and body can share one write."""
    WRITING = 2
    COMPLETE = 3


class Line(Protocol):
    """The interface of a connection to its exchange."""

    sending: Sending

    def write(self, head: bytes, body: bytes) -> None:
        """Send bytes."""

    def body_wanted(self, expected: bool) -> None:
        """Continue reading; `expected` is true if the caller waits for the interim response 100."""

    def end_comes_late(self) -> bool:
        """Return whether so much of the body is left that the connection must close after the answer."""

    def answered(self, keep: bool) -> None:
        """Continue after the complete answer; `keep` is false if the connection must close."""

    def cut(self, at_once: bool) -> None:
        """Close the connection within an answer: after what was written, or at once."""

    def abort(self) -> None:
        """Close the connection at once."""

    def give_up_after(self, silent_s: float) -> None:
        """Close the connection once its peer has taken nothing of what was sent for so long."""


class Exchange:
    """Runs the app for one request.

    When the caller disconnects, an app that awaits `receive()` gets `http.disconnect`; otherwise its task is cancelled.
    Either way, `send()` does nothing from then on.
    """

    __slots__ = (
        "_answer", "_body", "_body_complete", "_end_sent", "_expects_continue", "_frame", "_gone",
        "_headers", "_keep_alive", "_line", "_scope", "_status", "_waiter", "buffered_bytes",
        "takes_interim", "task",
    )  # fmt: skip

    def __init__(self, line: Line, scope: dict[str, Any], keep_alive: bool, expects_continue: bool) -> None:
        self._line = line
        self._scope = scope
        self._frame = AnswerFrame(scope["method"], scope["http_version"])
        self.takes_interim = scope["http_version"] != "1.0"
        self._keep_alive = keep_alive
        self._expects_continue = expects_continue
        self._body: list[bytes] = []
        self.buffered_bytes = 0
        self._body_complete = False
        self._end_sent = False
        self._waiter: asyncio.Future[None] | None = None
        self._gone = False
        self._answer = _Answer.NONE
        self._status = 0
        self._headers: Any = ()
        self.task: asyncio.Task[None] | None = None

    @property
    def answer_begun(self) -> bool:
        """Whether a part of the answer has been written."""
        return self._answer >= _Answer.WRITING

    @property
    def continue_owed(self) -> bool:
        """Whether the caller withholds its body until it gets an interim response."""
        return self._expects_continue and not self._body_complete

    def last_of_connection(self) -> None:
        """Close the connection after this answer, unless its head is written already."""
        self._keep_alive = False

    def body_arrived(self, piece: bytes, complete: bool) -> None:
        """Buffer the next bytes of the body for the app."""
        if piece:
            self._body.append(piece)
            self.buffered_bytes += len(piece)
        self._body_complete = complete
        self._wake()

    def end(self) -> None:
        """End the app's work, since its answer can no longer be sent."""
        if self._gone or self._answer is _Answer.COMPLETE:
            return
        self._gone = True
        if self._waiter is not None:
            self._wake()
        elif self.task is not None:
            self.task.cancel()

    async def run(self, app: App) -> None:
        """Run the app. An error becomes a 500, or closes the connection if an answer had begun."""
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
        finally:
            # A task keeps the error that it ended with, and so all that the app had in hand, such as the request's body.
            self.task = None

    def answered_by(self, at_once: AtOnce) -> bool:
        """Answer without the app, which would need a task; return whether that was done. An error becomes a 500."""
        line, frame = self._line, self._frame
        try:
            answer = at_once(self._scope)
            if answer is None:
                return False
            body = answer.body
            frame.keep = self._keep_alive
            head = frame.head(answer.status, answer.headers, len(body))
            body = frame.body(body, False)
        except Exception as error:  # noqa: BLE001  # the app's error is not the server's
            self._fail(f"raised {type(error).__name__}", error)
            return True
        line.write(head, body)
        self._answer = _Answer.COMPLETE
        line.answered(frame.keep)
        return True

    async def receive(self) -> Message:
        """Return the next part of the body, or `http.disconnect` (ASGI)."""
        while not self._gone and self._answer is not _Answer.COMPLETE:
            body = self._body
            if body or (self._body_complete and not self._end_sent):
                part = body[0] if len(body) == 1 else b"".join(body)
                self._end_sent = self._body_complete
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

        The message `tidegate.cut` ends an answer as incomplete: the caller gets what was sent so far, and no end. The message
        `tidegate.patience` has a caller disconnected that takes nothing for `seconds`; small parts of an answer, which the kernel
        holds, would otherwise go unread for minutes before `write_timeout_s` counts.

        Raises:
            RuntimeError: the message is out of order, or the answer is not valid HTTP.
        """
        if self._gone:
            return
        kind = message["type"]
        if kind == CUT and self._answer is _Answer.WRITING:
            self._answer = _Answer.COMPLETE
            self._line.cut(self._frame.ends_with_connection)
            return
        if kind == "http.response.start" and self._answer is _Answer.NONE:
            self._status = message["status"]
            self._headers = message.get("headers", ())
            self._answer = _Answer.STARTED
            return
        if kind != "http.response.body" or self._answer not in (_Answer.STARTED, _Answer.WRITING):
            if kind == PATIENCE:
                self._line.give_up_after(message["seconds"])
                return
            raise RuntimeError(f"the app sent {kind} where it must not")
        line = self._line
        if line.sending.writable is not None and not await self._drained():
            return
        body = message.get("body", b"")
        more = message.get("more_body", False)
        head = b""
        frame = self._frame
        if self._answer is _Answer.STARTED:
            frame.keep = self._keep_alive and not line.end_comes_late()
            head = frame.head(self._status, self._headers, None if more else len(body))
        body = frame.body(body, more)
        if head or body:
            line.write(head, body)
        self._answer = _Answer.WRITING
        if not more:
            self._answer = _Answer.COMPLETE
            self._wake()
            line.answered(frame.keep)
        # So an app that sends a large answer does not count it as sent while it is in this server's memory.
        if line.sending.writable is not None:
            await self._drained()

    async def _drained(self) -> bool:
        """Wait until the caller has read most of what was sent; return whether it is still connected."""
        while (writable := self._line.sending.writable) is not None and not self._gone:
            await asyncio.shield(writable)
        return not self._gone

    def _fail(self, how: str, error: Exception | None) -> None:
        """Answer with 500 for an app that failed. The log gets the traceback, not the message, which may quote the request."""
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


def _places(error: BaseException | None) -> str:
    if error is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    return ":\n" + "".join(f"  {frame.filename}:{frame.lineno} in {frame.name}\n" for frame in frames).rstrip()
