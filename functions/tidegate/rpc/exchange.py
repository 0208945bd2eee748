"""One RPC: what its metadata says, and how it is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import grpc
import grpc.aio

from tidegate.byte_budget import ByteLease
from tidegate.errors import TidegateError, UnknownObjectiveError
from tidegate.gateway.quotas import Lease
from tidegate.gateway.record import Record
from tidegate.gateway.request import Ask, Limits
from tidegate.oip.error_texts import reason
from tidegate.ports import Headers, HttpResponse
from tidegate.web.errors import Failure, failure_of
from tidegate.web.head import RequestHead
from tidegate.web.parts import HandlerParts
from tidegate.web.spans import end_rpc, response_header

Code = grpc.StatusCode
Metadata = tuple[tuple[str, str], ...]

_CODES = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    409: Code.ABORTED,
    413: Code.RESOURCE_EXHAUSTED,
    422: Code.FAILED_PRECONDITION,
    429: Code.RESOURCE_EXHAUSTED,
    431: Code.RESOURCE_EXHAUSTED,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
"""The codes of Tidegate's own errors, by their HTTP status; all others are INTERNAL."""

_BY_NUMBER = {code.value[0]: code for code in Code}
CALLER_S = 30.0
"""How long a caller may take to send its message, or to read one, in seconds."""

_LONGEST_DETAIL = 4_000
"""Clients accept 8 or 16 KiB of metadata, in which a character of the detail takes up to twelve bytes."""


class Context(Protocol):
    """The part of `grpc.aio.ServicerContext` that is used: https://grpc.github.io/grpc/python/grpc_asyncio.html"""

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None: ...

    def peer(self) -> str: ...

    def time_remaining(self) -> float | None: ...

    async def read(self) -> Any:
        """Return the next message of the caller's stream, or `grpc.aio.EOF`."""

    async def write(self, message: bytes) -> None: ...

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` once the RPC's handler has ended, and what it returned is sent, or cannot be."""

    async def send_initial_metadata(self, metadata: Metadata) -> None: ...

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata) -> None:
        """End the RPC with an error; raises `grpc.aio.AbortError`."""


class RpcAnswer(NamedTuple):
    """An answer: a serialized message, or an error's code and text.

    `metadata` is sent first, `trailing` with the error. `lease` keeps a large message counted in the byte budget until it is
    sent.
    """

    message: bytes = b""
    metadata: Headers = ()
    code: grpc.StatusCode | None = None
    detail: str = ""
    trailing: Headers = ()
    lease: ByteLease | None = None


class UnreadError(TidegateError):
    """The caller does not read what is sent to it, or has left."""


class Exchange:
    """One RPC of a method, by its full name. The metadata of a caller has the names and the meaning of its headers over HTTP, in lower case.

    What answers it, or a request of its stream, calls `end`.
    """

    __slots__ = ("_context", "_late", "_method", "_parts", "_sent", "head", "identity", "lease", "peer", "record")

    def __init__(self, context: Context, method: str) -> None:
        self._context = context
        self._method = method
        self._parts: HandlerParts | None = None
        self._sent: RpcAnswer | None = None
        self._late: asyncio.TimerHandle | None = None
        headers = [(_encoded(name), _encoded(value)) for name, value in context.invocation_metadata() or ()]
        self.head = RequestHead(headers)
        self.identity: dict[str, Any] = {"headers": headers}
        self.peer: str = context.peer()
        self.lease = Lease()
        self.record = Record(headers)

    def ask(self, objective: str) -> Ask:
        """Return the `Ask` of this RPC.

        Raises:
            RefusedError: as `limits` does.
        """
        head = self.head
        pins, marks = head.values(b"tidegate-override"), head.values(b"tidegate-traffic")
        return Ask(objective, self.lease, self.identity, self.peer, pins, marks, self.limits().caller_ms, self.record)

    def limits(self) -> Limits:
        """Return the caller's limit: its deadline, or its `tidegate-timeout-ms` if that is shorter.

        Raises:
            RefusedError: `tidegate-timeout-ms` is malformed.
        """
        timeout_ms, left_s = self.head.timeout_ms(), self._context.time_remaining()
        if left_s is None:
            return Limits(timeout_ms)
        left_ms = max(0.0, left_s * 1000.0)
        return Limits(left_ms if timeout_ms is None else min(timeout_ms, left_ms))

    async def receive(self) -> bytes | RpcAnswer:
        """Return the caller's one message, or the answer that there is none."""
        try:
            async with asyncio.timeout(CALLER_S):
                message = await self._context.read()
        except TimeoutError:
            return RpcAnswer(code=Code.DEADLINE_EXCEEDED, detail=f"no message came within {CALLER_S:g} s")
        if message is grpc.aio.EOF:
            return RpcAnswer(code=Code.INVALID_ARGUMENT, detail="the RPC has no message")
        return bytes(message)

    def end(self, parts: HandlerParts, answer: RpcAnswer | None) -> None:
        """Give back what the RPC holds of its limits, count and log it, and end its span; without an answer its caller has left."""
        self.lease.release()
        code = None if answer is None else (answer.code or Code.OK).name
        if parts.count is not None:
            parts.count("", self._method[1:], code, time.perf_counter() - self.record.began_s)
        if parts.log is not None:
            parts.log.ended(self.record, code)
        if self.record.span is not None:
            end_rpc(self.record.span, self.record, self._method, code)

    def end_with_rpc(self, parts: HandlerParts) -> None:
        """Call `end` once the RPC has ended, or its caller does not read the answer in time."""
        self._parts = parts
        self._context.add_done_callback(self._ended)

    def _ended(self, _context: object) -> None:
        parts, answer = self._parts, self._sent
        self._parts = self._sent = None
        if self._late is not None:
            self._late.cancel()
        if parts is not None:
            self.end(parts, answer)

    def _unread(self) -> None:
        self._sent = None
        self._ended(None)

    async def answer(self, answer: RpcAnswer) -> bytes:
        """Send the metadata of an answer, and return its message for gRPC to send, or end the RPC with its error.

        Raises:
            UnreadError: the caller has left.
        """
        metadata = answer.metadata
        if self.record.span is not None:
            metadata = [*metadata, response_header(self.record.span)]
        if metadata:
            try:
                await self._context.send_initial_metadata(_decoded(metadata))
            except grpc.aio.BaseError:
                raise UnreadError from None
        self._sent = answer
        if answer.code is not None:
            await self._context.abort(answer.code, answer.detail[:_LONGEST_DETAIL], _decoded(answer.trailing))
        self._late = asyncio.get_running_loop().call_later(CALLER_S, self._unread)
        return answer.message


async def write(context: Context, message: bytes) -> None:
    """Send a message to the caller.

    Raises:
        UnreadError: the caller did not read in time.
    """
    try:
        async with asyncio.timeout(CALLER_S):
            await context.write(message)
    except (TimeoutError, grpc.aio.BaseError):
        raise UnreadError from None


async def abort_unread(context: Context) -> None:
    """End an RPC whose caller does not read."""
    # One that has left gets no error, and gRPC says so by one of its own.
    with suppress(grpc.aio.BaseError):
        await context.abort(Code.RESOURCE_EXHAUSTED, f"nothing was read for {CALLER_S:g} s", ())


def failed(error: Exception, metadata: Headers = ()) -> RpcAnswer:
    """Return the answer for an error; `metadata` shows the decision, where one was made."""
    if isinstance(error, UnknownObjectiveError):
        return unknown_model(error)
    return refused(failure_of(error), metadata)


def refused(failure: Failure, metadata: Headers = ()) -> RpcAnswer:
    """Return the answer for a failure."""
    code = _CODES.get(failure.status, Code.INTERNAL)
    return RpcAnswer(metadata=metadata, code=code, detail=failure.detail, trailing=failure.headers)


def unknown_model(error: UnknownObjectiveError) -> RpcAnswer:
    """Return Triton's answer for a model that it does not have, with the name of a similar objective."""
    near = f"; did you mean '{error.near}'?" if error.near else ""
    return RpcAnswer(code=Code.NOT_FOUND, detail=f"Request for unknown model: '{error.objective}' is not found{near}")


def passed_on(response: HttpResponse, shown: HttpResponse, metadata: Headers) -> RpcAnswer:
    """Return Triton's answer as it is.

    Args:
        response: the answer of Triton.
        shown: the same, as the caller may see it.
        metadata: shows the decision.
    """
    if response.status < 400:
        return RpcAnswer(response.body, metadata, lease=response.lease)
    return RpcAnswer(metadata=metadata, code=code_of(response), detail=reason(shown.body))


def code_of(response: HttpResponse) -> grpc.StatusCode:
    """Return the code of an error of Triton."""
    return _BY_NUMBER.get(int(response.header(b"grpc-status") or b"13"), Code.INTERNAL)


def _encoded(text: str | bytes) -> bytes:
    return text.encode("utf-8", "replace") if isinstance(text, str) else text


def _decoded(headers: Headers) -> Metadata:
    return tuple([(name.decode("ascii"), value.decode("ascii")) for name, value in headers])
