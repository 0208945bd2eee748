"""Answers that are passed on to the caller as they arrive from the model's server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from tidegate.asgi_messages import CUT
from tidegate.byte_budget import FULL, UNCOUNTED_BYTES, ByteBudget, ByteLease
from tidegate.errors import BrokenAnswerError, TidegateError
from tidegate.gateway.call import Call, Outcome
from tidegate.gateway.request import Decided
from tidegate.gateway.streams import AnswerReader
from tidegate.oip.error_texts import is_ended_stub
from tidegate.oip.events import EventReader, error_event, error_of
from tidegate.ports import StreamEnd
from tidegate.web.http import RawHeaders, Receive, Scope, Send
from tidegate.web.parts import HandlerParts

MOST_EVENT_BYTES: Final = 16 * 1024 * 1024
"""The largest event of a stream. It is held until it is complete, so that a model's error can be redacted."""


class Translator(Protocol):
    """Turns what arrives of a stream into what the caller gets. `broken` is set once the stream must end as incomplete."""

    broken: TidegateError | None

    def feed(self, part: bytes) -> bytes:
        """Return the bytes to send for a part."""

    def end(self) -> bytes:
        """Return the bytes to send after the last part.

        Raises:
            BrokenAnswerError: the stream ended within an event.
        """

    def error(self, error: TidegateError) -> bytes:
        """Return the bytes that report why the stream ends."""


class StreamedAnswer:
    """An answer that is passed on as it arrives (an ASGI app). It holds the connection to the server until it has ended.

    Args:
        status: the HTTP status.
        headers: the response headers.
        reader: reads the answer.
        translator: translates it; None: its bytes are passed on unchanged.
        ended: callback with its end, called once.
    """

    def __init__(
        self,
        status: int,
        headers: RawHeaders,
        reader: AnswerReader,
        translator: Translator | None,
        ended: Callable[[StreamEnd], None],
    ) -> None:
        self._status = status
        self._headers = headers
        self._reader = reader
        self._translator = translator
        self._ended = ended

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the answer (ASGI). When the caller leaves, the listener cancels this."""
        # Until it is known better: an unforeseen error is not the caller's.
        end = StreamEnd.BROKEN
        try:
            await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
            end = await self._pass_on(send)
        except asyncio.CancelledError:
            end = StreamEnd.CALLER_LEFT
            raise
        finally:
            self._reader.close()
            self._ended(end)

    async def _pass_on(self, send: Send) -> StreamEnd:
        translator = self._translator
        try:
            while part := await self._reader.next():
                if translator is not None:
                    part = translator.feed(part)
                if part:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                if translator is not None and translator.broken is not None:
                    raise translator.broken
            last = b"" if translator is None else translator.end()
            await send({"type": "http.response.body", "body": last, "more_body": False})
        except TidegateError as error:
            if translator is not None:
                await send({"type": "http.response.body", "body": translator.error(error), "more_body": True})
            await send({"type": CUT})
            return StreamEnd.BROKEN
        return StreamEnd.COMPLETE


class TritonEvents:
    """The events of `generate_stream`, unchanged except for models' errors, which are redacted."""

    def __init__(self, parts: HandlerParts, outcome: Outcome, reader: AnswerReader) -> None:
        self.broken: TidegateError | None = None
        self._answers = parts.answers
        self._outcome = outcome
        self._reader = reader
        self._events = WholeEvents(parts.budget)

    def feed(self, part: bytes) -> bytes:
        """See `Translator`."""
        shown: list[bytes] = []
        for event in self._events.feed(part):
            text = error_of(event)
            if text is None:
                shown.append(event)
            elif is_ended_stub(text):
                self._reader.stub_ended()
                self.broken = BrokenAnswerError("the model's process has ended")
                break
            else:
                shown.append(error_event(self._answers.text(self._outcome, text)))
        return b"".join(shown)

    def end(self) -> bytes:
        """See `Translator`."""
        self._events.end()
        return b""

    def error(self, error: TidegateError) -> bytes:
        """See `Translator`."""
        return error_event(str(error))


class WholeEvents:
    """Collects whole events. The bytes of a large one that is not complete count in the byte budget."""

    def __init__(self, budget: ByteBudget, most_bytes: int = MOST_EVENT_BYTES) -> None:
        self._budget = budget
        self._most_bytes = most_bytes
        self._reader = EventReader()
        self._lease: ByteLease | None = None

    def feed(self, part: bytes) -> list[bytes]:
        """Return the events that are complete now.

        Raises:
            BrokenAnswerError: an event is too large.
        """
        events = self._reader.feed(part)
        held_bytes = len(self._reader.rest)
        if held_bytes <= UNCOUNTED_BYTES:
            self._lease = None
        elif held_bytes > self._most_bytes:
            raise BrokenAnswerError(f"an event of the stream is larger than {self._most_bytes} bytes")
        elif self._lease is None:
            self._lease = self._budget.lease(held_bytes)
        elif not self._lease.grow(held_bytes):
            self._lease = None
        if held_bytes > UNCOUNTED_BYTES and self._lease is None:
            raise BrokenAnswerError(FULL)
        return events

    def end(self) -> None:
        """Check that the stream does not end within an event.

        Raises:
            BrokenAnswerError: it does.
        """
        if self._reader.rest.strip():
            raise BrokenAnswerError("the stream ended within an event")


def streamed(
    parts: HandlerParts,
    decided: Decided,
    outcome: Outcome,
    call: Call,
    headers: RawHeaders,
    translator_of: Callable[[AnswerReader], Translator] | None = None,
) -> StreamedAnswer:
    """Return the answer of an outcome with a stream; how it ended is reported as `Service.answered` does."""
    service = parts.service
    reader = service.reader(decided, outcome, call)
    first_s = service.now_s()

    def ended(end: StreamEnd) -> None:
        service.answered(decided, call, outcome, end, first_s)

    translator = None if translator_of is None else translator_of(reader)
    return StreamedAnswer(outcome.response.status, headers, reader, translator, ended)
