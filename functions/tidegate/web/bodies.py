"""Request bodies: read whole or streamed, within a limit and the byte budget of the process."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from tidegate.byte_budget import FULL, ByteBudget
from tidegate.errors import OverloadedError
from tidegate.web.http import Receive

_SOON_S: Final = 2.0


class ClientGoneError(Exception):
    """The caller closed the connection before its request was complete; no answer is sent."""


class BodyTooSlowError(Exception):
    """A streamed body arrived much more slowly than its first part."""

    def __init__(self) -> None:
        super().__init__("the body came too slowly while it was passed on to the model")


class BodyTooLargeError(Exception):
    """The body is larger than `limit_bytes`, the value of the setting named `setting`."""

    def __init__(self, limit_bytes: int, setting: str) -> None:
        self.limit_bytes = limit_bytes
        self.setting = setting
        super().__init__(f"the body is larger than {limit_bytes} bytes ({setting})")


class Body:
    """The body of one request. A context manager: leaving it returns the held bytes to the budget.

    Bytes count once they have arrived, not when they are announced. Otherwise a few callers that announce much and send
    nothing would use up the budget.

    Args:
        receive: receives the body (ASGI).
        announced_bytes: the body's `Content-Length`, where the request has one.
        limit_bytes: a larger body is refused.
        budget: the byte budget of the process.
        setting: the setting that `limit_bytes` comes from, for error messages.
    """

    __slots__ = (
        "_ahead",
        "_budget",
        "_expected_s",
        "_held_bytes",
        "_is_complete",
        "_limit_bytes",
        "_receive",
        "_seen_bytes",
        "_setting",
        "announced_bytes",
    )

    def __init__(
        self,
        receive: Receive,
        announced_bytes: int | None,
        limit_bytes: int,
        budget: ByteBudget,
        setting: str = "max_body_bytes",
    ) -> None:
        self._receive = receive
        self._limit_bytes = limit_bytes
        self._budget = budget
        self._setting = setting
        self._held_bytes = 0
        self._seen_bytes = 0
        self._ahead: deque[bytes] = deque()
        self._is_complete = False
        self._expected_s = 0.0
        self.announced_bytes = announced_bytes

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        held_bytes, self._held_bytes = self._held_bytes, 0
        self._budget.give(held_bytes)

    def hold(self, size_bytes: int) -> None:
        """Reserve bytes in the budget until this request ends.

        Raises:
            OverloadedError: the budget has no room for them.
        """
        if not self._budget.take(size_bytes):
            raise OverloadedError(FULL)
        self._held_bytes += size_bytes

    async def whole(self, begun: bytes = b"") -> bytes:
        """Read and return the rest of the body, after `begun`, which `start` returned.

        Raises:
            BodyTooLargeError: it is, or announces that it will be, larger than the limit.
            ClientGoneError: the caller closed the connection.
            OverloadedError: the budget has no room for it.
        """
        chunks = [begun, *self._ahead] if begun else []
        self._ahead.clear()
        while not self._is_complete:
            chunk, _ = await self.next()
            self.hold(len(chunk))
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def start(self, size_bytes: int, needed_bytes: int) -> bytes:
        """Read at least the first `size_bytes` of the body, or all of a shorter one. Return all of a complete one, else at least the
        first `needed_bytes`: `rest` yields what was read after them as it came, since joining it would copy it.

        Raises:
            BodyTooLargeError, ClientGoneError, OverloadedError: as `whole` does.
        """
        started_s = time.monotonic()
        ahead = self._ahead
        while self._seen_bytes < size_bytes and not self._is_complete:
            chunk, _ = await self.next()
            self.hold(len(chunk))
            ahead.append(chunk)
        self._expected_s = (time.monotonic() - started_s) * self._unread_bytes / max(self._seen_bytes, 1)
        begun = ahead.popleft()
        if self._is_complete or len(begun) < needed_bytes:
            begun = b"".join((begun, *ahead))
            ahead.clear()
        return begun

    @property
    def is_fast(self) -> bool:
        """Whether the rest of the body should arrive within seconds, judged by how long `start` took.

        A slow caller's body is held instead: while it streams, it takes up a slot at the model's server.
        """
        return self._expected_s <= _SOON_S

    def rest(self) -> AsyncIterator[bytes]:
        """Return an iterator over the rest of the body as it arrives, after what `start` has read; it holds none of it.

        Each step raises:
            BodyTooSlowError: the caller takes much longer than its first part suggested. Time that the consumer of this
                iterator takes does not count, since a server that reads slowly holds the caller up.
            ClientGoneError: the caller closed the connection.
            BodyTooLargeError: it is larger than the limit.
        """
        return _Rest(self, _SOON_S + 2 * self._expected_s)

    @property
    def rest_bytes(self) -> int:
        """The bytes of `rest`, of a body with an announced length.

        0 once the body is complete and returned, whatever was announced: in a Lambda event, nothing has compared the body with
        its `Content-Length`.
        """
        return sum([len(chunk) for chunk in self._ahead]) + self._unread_bytes

    @property
    def _unread_bytes(self) -> int:
        return 0 if self._is_complete else max(0, (self.announced_bytes or 0) - self._seen_bytes)

    def take_ahead(self) -> bytes | None:
        """Return the next part of what `start` has read and not returned; None after the last one."""
        return self._ahead.popleft() if self._ahead else None

    def check_announced(self) -> None:
        """Check the announced size against the limit.

        Raises:
            BodyTooLargeError: the body will be larger than the limit.
        """
        if self.announced_bytes is not None and self.announced_bytes > self._limit_bytes:
            raise self._too_large()

    @property
    def is_complete(self) -> bool:
        """Whether the last byte has been read."""
        return self._is_complete

    async def next(self) -> tuple[bytes, bool]:
        """Read the next part of the body; return it, and whether it is the last.

        Raises:
            BodyTooLargeError, ClientGoneError: as `whole` does.
        """
        self.check_announced()
        message = await self._receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        chunk: bytes = message.get("body", b"")
        self._seen_bytes += len(chunk)
        if self._seen_bytes > self._limit_bytes:
            raise self._too_large()
        self._is_complete = not message.get("more_body", False) or self._seen_bytes == self.announced_bytes
        return chunk, self._is_complete

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(self._limit_bytes, self._setting)


class _Rest:
    """The rest of a body. A class, since mypyc compiles no asynchronous generators."""

    __slots__ = ("_body", "_left_s")

    def __init__(self, body: Body, left_s: float) -> None:
        self._body = body
        self._left_s = left_s

    def __aiter__(self) -> _Rest:
        return self

    async def __anext__(self) -> bytes:
        read = self._body.take_ahead()
        if read is not None:
            return read
        loop = asyncio.get_running_loop()
        while not self._body.is_complete:
            began_s = loop.time()
            try:
                async with asyncio.timeout(self._left_s):
                    chunk, _ = await self._body.next()
            except TimeoutError:
                raise BodyTooSlowError from None
            self._left_s -= loop.time() - began_s
            if chunk:
                return chunk
        raise StopAsyncIteration
