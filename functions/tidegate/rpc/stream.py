"""`ModelStreamInfer`: each request of a caller's stream is decided by its own objective, and its answers pass unchanged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from tidegate.errors import BrokenAnswerError, TidegateError
from tidegate.gateway.call import Outcome
from tidegate.gateway.streams import AnswerReader
from tidegate.oip.error_texts import error_text, is_ended_stub
from tidegate.oip.infer_message import InferMessage, read_id, read_infer, stream_error, stream_error_response
from tidegate.ports import StreamEnd
from tidegate.rpc.exchange import Code, Context, Exchange, RpcAnswer, UnreadError, abort_unread, code_of, failed, write
from tidegate.rpc.infer import STREAM_INFER, checked, decide, full
from tidegate.tasks import first_failure
from tidegate.web.errors import failure_of
from tidegate.web.parts import HandlerParts

MOST_UNDER_WAY = 64
"""The most requests of a stream that are under way; the gateway reads no further ones meanwhile."""

_IDLE_S = 300.0
"""How long a stream may have no request, in seconds."""

_LONGEST_ID = 1_024
"""The longest id that is kept of a message that the byte budget has no room for."""


class StreamInference:
    """Answers `ModelStreamInfer`."""

    def __init__(self, parts: HandlerParts) -> None:
        self._parts = parts

    async def __call__(self, _requests: object, context: Context) -> None:
        """Answer one RPC. When its caller leaves, this is cancelled, and so are its requests at the models' servers."""
        try:
            with first_failure():
                await CallerStream(self._parts, context).run()
        except UnreadError:
            await abort_unread(context)
        except _IdleError:
            await context.abort(Code.ABORTED, f"the stream had no request for {_IDLE_S:g} s", ())


class _IdleError(TidegateError):
    """The caller keeps a stream open without a request."""


class CallerStream:
    """One stream of a caller.

    The first answers come in the order of the requests, as Triton's do. A request of a sequence is sent once the one before it
    in that sequence has an answer, since their order counts.
    """

    def __init__(self, parts: HandlerParts, context: Context) -> None:
        self._parts = parts
        self._context = context
        self._room = asyncio.Semaphore(MOST_UNDER_WAY)
        self._under_way = 0
        self._idle_since_s = asyncio.get_running_loop().time()
        self._writing = asyncio.Lock()
        self._sequences: dict[object, asyncio.Event] = {}

    async def run(self) -> None:
        """Answer the requests until the caller has sent the last one."""
        before = asyncio.Event()
        before.set()
        async with asyncio.TaskGroup() as requests:
            while True:
                await self._room.acquire()
                message = await self._next()
                if message is grpc.aio.EOF:
                    return
                turn = asyncio.Event()
                self._under_way += 1
                requests.create_task(self._answer(message, before, turn))
                # Else it would be held, uncounted, until the next one comes.
                del message
                before = turn

    async def _next(self) -> Any:
        """Return the next request of the caller, or `grpc.aio.EOF`.

        Raises:
            _IdleError: none came in time after the last one had ended.
        """
        now_s = asyncio.get_running_loop().time
        reading = asyncio.ensure_future(self._context.read())
        try:
            while True:
                left_s = _IDLE_S if self._under_way else self._idle_since_s + _IDLE_S - now_s()
                if left_s <= 0.0:
                    raise _IdleError
                done, _ = await asyncio.wait([reading], timeout=left_s)
                if done:
                    return reading.result()
        finally:
            reading.cancel()

    async def _answer(self, message: bytes, before: asyncio.Event, turn: asyncio.Event) -> None:
        """Answer one request. Its first answer is sent after `before`, and sets `turn`."""
        exchange, budget = Exchange(self._context, STREAM_INFER), self._parts.budget
        size_bytes, answer = len(message), None
        is_held = budget.take(size_bytes)
        try:
            if is_held:
                found = await self._inferred(message, exchange, before, turn)
            else:
                found = _failed(full(), exchange)
            if found.detail:
                name = read_id(message)
                if not is_held:
                    del message
                    name = name if len(name) <= _LONGEST_ID else ""
                await before.wait()
                await self._write(stream_error_response(found.detail, name))
            answer = found
        finally:
            exchange.end(self._parts, answer)
            if is_held:
                budget.give(size_bytes)
            turn.set()
            self._under_way -= 1
            self._idle_since_s = asyncio.get_running_loop().time()
            self._room.release()

    async def _inferred(
        self, message: bytes, exchange: Exchange, before: asyncio.Event, turn: asyncio.Event
    ) -> RpcAnswer:
        """Infer, and return how that ended. An error with a detail is still to be sent; all else has been."""
        try:
            return await self._infer(message, exchange, before, turn)
        except UnreadError:
            raise
        except Exception as error:  # noqa: BLE001  # failed() renders any error, and logs the unexpected
            return _failed(error, exchange)

    async def _infer(self, message: bytes, exchange: Exchange, before: asyncio.Event, turn: asyncio.Event) -> RpcAnswer:
        parts, service = self._parts, self._parts.service
        found = read_infer(message)
        async with self._sequence(found, exchange):
            decided, call = await decide(parts, exchange, found, message, STREAM_INFER)
            sent = decided
            try:
                sent, call = await checked(parts, decided, call, found)
                outcome = await service.dispatch(sent, call)
            except Exception as error:
                service.failed(sent, error, failure_of(error).status)
                raise
        if outcome.response.stream is None:
            service.answered(sent, call, outcome)
            text = parts.answers.text(outcome, error_text(outcome.response.body) or "the model answered with an error")
            return RpcAnswer(code=code_of(outcome.response), detail=text)
        first_s, end = service.now_s(), StreamEnd.BROKEN
        reader = service.reader(sent, outcome, call)
        try:
            await before.wait()
            passed = await self._pass_on(reader, outcome, found, turn)
            if not passed.detail:
                end = StreamEnd.COMPLETE
        except (UnreadError, asyncio.CancelledError):
            end = StreamEnd.CALLER_LEFT
            raise
        finally:
            reader.close()
            service.answered(sent, call, outcome, end, first_s)
        return passed

    @contextlib.asynccontextmanager
    async def _sequence(self, found: InferMessage, exchange: Exchange) -> AsyncIterator[None]:
        """Wait until all earlier requests of a request's sequence have an answer, and let the next one wait for this one."""
        name = found.parameters.get("sequence_id") or tuple(exchange.head.values(b"tidegate-sequence"))
        if not name:
            yield
            return
        earlier, answered = self._sequences.get(name), asyncio.Event()
        self._sequences[name] = answered
        try:
            if earlier is not None:
                await earlier.wait()
            yield
        finally:
            answered.set()
            if self._sequences.get(name) is answered:
                del self._sequences[name]

    async def _pass_on(
        self, reader: AnswerReader, outcome: Outcome, found: InferMessage, turn: asyncio.Event
    ) -> RpcAnswer:
        """Pass the answers on, and return how they ended; see `_inferred`."""
        code: grpc.StatusCode | None = None
        try:
            while message := await reader.next():
                text = stream_error(message)
                if text is not None:
                    if is_ended_stub(text):
                        reader.stub_ended()
                    # The protocol has no code for it.
                    code = Code.UNKNOWN
                    message = stream_error_response(self._parts.answers.text(outcome, text), found.id)
                await self._write(message)
                turn.set()
        except BrokenAnswerError as error:
            return failed(error)
        return RpcAnswer(code=code)

    async def _write(self, message: bytes) -> None:
        async with self._writing:
            await write(self._context, message)


def _failed(error: Exception, exchange: Exchange) -> RpcAnswer:
    exchange.record.fail(error)
    return failed(error)
