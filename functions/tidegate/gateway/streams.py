"""Answers that are passed on as they arrive: after their start has been passed on, no other target can be asked."""

from __future__ import annotations

from collections.abc import Callable

from tidegate.errors import BrokenAnswerError, EndpointError, EndpointStubEndedError, EndpointTimeoutError
from tidegate.ports import AnswerStream

Ended = Callable[[EndpointError | None], None]
"""Called once, when an answer has ended: None if it is complete."""


class AnswerReader:
    """Reads an answer within its limits, and reports how it ended.

    Args:
        stream: the body.
        clock: seconds that never run backwards.
        idle_s: how long the answer may pause, in seconds.
        until_s: when the answer must be complete, on the clock.
        ended: callback with the end of the answer, unless it was closed before.
    """

    __slots__ = ("_clock", "_ended", "_idle_s", "_is_reported", "_stream", "_until_s")

    def __init__(
        self, stream: AnswerStream, clock: Callable[[], float], idle_s: float, until_s: float, ended: Ended
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._idle_s = idle_s
        self._until_s = until_s
        self._ended = ended
        self._is_reported = False

    async def next(self) -> bytes:
        """Return what has arrived of the answer since the last call; nothing once it is complete.

        Raises:
            BrokenAnswerError: it broke off, paused for too long or took too long in all. It is closed.
        """
        left_s = self._until_s - self._clock()
        try:
            part = await self._stream.next(min(self._idle_s, left_s))
        except EndpointError as error:
            self._stream.close()
            is_late = isinstance(error, EndpointTimeoutError) and left_s <= self._idle_s
            # That a long answer was ended says nothing about the health of its model.
            self._report(None if is_late else error)
            raise BrokenAnswerError("the answer took longer than it may" if is_late else str(error)) from error
        if not part:
            self._report(None)
        return part

    def stub_ended(self) -> None:
        """Note that, by a part of the answer, the process of its model has ended."""
        self._report(EndpointStubEndedError("the model's process has ended", sent=True))

    def close(self) -> None:
        """Cut the answer off, unless it has ended."""
        self._stream.close()

    def _report(self, error: EndpointError | None) -> None:
        if not self._is_reported:
            self._is_reported = True
            self._ended(error)
