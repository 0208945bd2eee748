"""Request bodies: read within a limit, counted in the budget of the process, whole or as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from tidegate.byte_budget import ByteBudget
from tidegate.errors import OverloadedError
from tidegate.web.http import RawHeaders, Receive

_SOON_S = 2.0


class ClientGoneError(Exception):
    """The caller closed the connection before its request was whole; nobody waits for an answer."""


class BodyTooSlowError(Exception):
    """A body that was being passed on came more slowly than its start let expect."""

    def __init__(self) -> None:
        super().__init__("the body came too slowly while it was passed on to the model")


class BodyTooLargeError(Exception):
    """The body is above the limit, `limit_bytes`; `setting` is the name of the setting that has it."""

    def __init__(self, limit_bytes: int, setting: str) -> None:
        self.limit_bytes = limit_bytes
        self.setting = setting
        super().__init__(f"the body is larger than {limit_bytes} bytes ({setting})")


class Body:
    """The body of one request. A context manager: leaving it returns what it holds of the budget.

    Bytes count once they have arrived, not when they are announced: else a few callers that announce much and send
    nothing would keep all others out.

    Args:
        receive: brings the body (ASGI).
        headers: the request's headers.
        limit_bytes: a larger body is refused.
        budget: counts what is held.
        setting: the name of the setting that `limit_bytes` comes from.
    """

    __slots__ = (
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
        headers: RawHeaders,
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
        self._is_complete = False
        self._expected_s = 0.0
        self.announced_bytes = _announced_bytes(headers)

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        held_bytes, self._held_bytes = self._held_bytes, 0
        self._budget.give(held_bytes)

    def hold(self, size_bytes: int) -> None:
        """Count bytes that are held for this request until it ends.

        Raises:
            OverloadedError: the process holds as much as it may.
        """
        if not self._budget.take(size_bytes):
            raise OverloadedError("the gateway holds as many bytes of other requests as it may (max_buffered_bytes)")
        self._held_bytes += size_bytes

    async def whole(self, begun: bytes = b"") -> bytes:
        """All of the body, whether it came with a length or in chunks; `begun` is what `start` has brought.

        Raises:
            BodyTooLargeError: it is, or says that it will be, larger than the limit.
            ClientGoneError: the caller closed the connection.
            OverloadedError: the process holds as much as it may.
        """
        if self._is_complete:
            return begun
        chunk, is_last = await self._next()
        self.hold(len(chunk))
        if is_last and not begun:
            return chunk
        chunks = [begun, chunk]
        while not is_last:
            chunk, is_last = await self._next()
            self.hold(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    async def start(self, size_bytes: int) -> bytes:
        """The first `size_bytes` of the body and what came with them; less only where the body is shorter.

        Raises:
            BodyTooLargeError, ClientGoneError, OverloadedError: as `whole` does.
        """
        started_s = time.monotonic()
        chunks: list[bytes] = []
        while self._seen_bytes < size_bytes and not self._is_complete:
            chunk, _ = await self._next()
            self.hold(len(chunk))
            chunks.append(chunk)
        self._expected_s = (time.monotonic() - started_s) * self.rest_bytes / max(self._seen_bytes, 1)
        return b"".join(chunks)

    @property
    def is_fast(self) -> bool:
        """Whether what follows the start can be expected soon, by how long the start took.

        A slow caller's body is held instead: one that is passed on as it comes takes up the place of another at a server.
        """
        return self._expected_s <= _SOON_S

    async def rest(self) -> AsyncIterator[bytes]:
        """What follows, as it comes; nothing of it is held.

        Raises:
            BodyTooSlowError: the caller takes much longer than the start let expect. The time that the reader of this takes
                is not counted, as a server that reads slowly holds the caller up.
            ClientGoneError: the caller closed the connection.
            BodyTooLargeError: it is larger than the limit.
        """
        loop = asyncio.get_running_loop()
        left_s = _SOON_S + 2 * self._expected_s
        while not self._is_complete:
            began_s = loop.time()
            try:
                async with asyncio.timeout(left_s):
                    chunk, _ = await self._next()
            except TimeoutError:
                raise BodyTooSlowError from None
            left_s -= loop.time() - began_s
            if chunk:
                yield chunk

    @property
    def rest_bytes(self) -> int:
        """Bytes that are still to come of a body whose length was announced.

        None are once the body is complete, whatever was announced: an event of Lambda has a body and a header that says how
        long it is, and nobody has compared the two.
        """
        return 0 if self._is_complete else max(0, (self.announced_bytes or 0) - self._seen_bytes)

    def check_announced(self) -> None:
        """Check what the body says of its size.

        Raises:
            BodyTooLargeError: it will be larger than the limit.
        """
        if self.announced_bytes is not None and self.announced_bytes > self._limit_bytes:
            raise self._too_large()

    async def _next(self) -> tuple[bytes, bool]:
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


def _announced_bytes(headers: RawHeaders) -> int | None:
    """`Content-Length`, where the request has one that is a number; the server has checked that there is no other."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            # Python reads no number of more than 4 300 digits.
            return int(value.lstrip(b"0")[:19] or b"0")
    return None
