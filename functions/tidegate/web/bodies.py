"""Request bodies: read within a limit, counted in the budget of the process, whole or as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tidegate.byte_budget import ByteBudget
from tidegate.errors import OverloadedError
from tidegate.web.http import RawHeaders, Receive


class ClientGoneError(Exception):
    """The caller closed the connection before its request was whole; nobody waits for an answer."""


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

    __slots__ = ("_budget", "_held_bytes", "_limit_bytes", "_receive", "_seen_bytes", "_setting", "announced_bytes")

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

    async def whole(self) -> bytes:
        """All of the body, whether it came with a length or in chunks.

        Raises:
            BodyTooLargeError: it is, or says that it will be, larger than the limit.
            ClientGoneError: the caller closed the connection.
            OverloadedError: the process holds as much as it may.
        """
        chunk, is_last = await self._next()
        self.hold(len(chunk))
        if is_last:
            return chunk
        chunks = [chunk]
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
        chunks: list[bytes] = []
        is_last = False
        while self._seen_bytes < size_bytes and not is_last:
            chunk, is_last = await self._next()
            self.hold(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    async def rest(self) -> AsyncIterator[bytes]:
        """What follows, as it comes; nothing of it is held.

        Raises:
            ClientGoneError: the caller closed the connection.
            BodyTooLargeError: it is larger than the limit.
        """
        is_last = self._seen_bytes == self.announced_bytes
        while not is_last:
            chunk, is_last = await self._next()
            if chunk:
                yield chunk

    @property
    def rest_bytes(self) -> int:
        """Bytes that are still to come of a body whose length was announced."""
        return (self.announced_bytes or 0) - self._seen_bytes

    async def _next(self) -> tuple[bytes, bool]:
        if self.announced_bytes is not None and self.announced_bytes > self._limit_bytes:
            raise self._too_large()
        message = await self._receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        chunk: bytes = message.get("body", b"")
        self._seen_bytes += len(chunk)
        if self._seen_bytes > self._limit_bytes:
            raise self._too_large()
        return chunk, not message.get("more_body", False)

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(self._limit_bytes, self._setting)


def _announced_bytes(headers: RawHeaders) -> int | None:
    """`Content-Length`, where the request has one that is a number; the server has checked that there is no other."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            # Python reads no number of more than 4 300 digits.
            return int(value.lstrip(b"0")[:19] or b"0")
    return None
