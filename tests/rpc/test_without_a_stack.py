"""What one RPC holds, and for how long: of the byte budget, of the limits, and of the log, on a clock of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from tidegate.byte_budget import ByteBudget
from tidegate.gateway import Dispatcher
from tidegate.oip.infer_message import stream_error
from tidegate.oip.protobuf import field
from tidegate.ports import Endpoint, HttpRequest, HttpResponse
from tidegate.rpc import service
from tidegate.rpc.infer import INFER, Inference
from tidegate.rpc.stream import _IDLE_S, StreamInference
from tidegate.rules import compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource, MemoryTransport
from tidegate.web import create_app
from tidegate.web.access_log import AccessLog
from tidegate.web.parts import HandlerParts
from tritonclient.grpc import service_pb2

from tests.support import virtual_time
from tests.support.stack import write_rules

Answered = Callable[[Endpoint, HttpRequest], Awaitable[HttpResponse]]
BUDGET_BYTES = 1_000


class Aborted(grpc.aio.AbortError):
    """The RPC was ended with an error."""


class Message(bytes):
    """A caller's message, which is counted while it is held."""

    held = 0

    def __new__(cls, content: bytes) -> Message:
        cls.held += 1
        return super().__new__(cls, content)

    def __del__(self) -> None:
        Message.held -= 1


class Context:
    """An RPC of a caller that sends messages, each after a pause, and then nothing for an hour."""

    def __init__(self, *messages: tuple[float, bytes], is_done: bool = False, reads: float = 0.0) -> None:
        self.messages = list(messages)
        self.is_done = is_done
        self.reads_s = reads
        self.written: list[bytes] = []
        self.ended: list[Callable[[Any], None]] = []
        self.code: Any = None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> None:
        return None

    async def read(self) -> Any:
        if self.messages:
            pause_s, content = self.messages.pop(0)
            await asyncio.sleep(pause_s)
            return Message(content)
        if not self.is_done:
            await asyncio.sleep(3_600)
        return grpc.aio.EOF

    async def write(self, message: bytes) -> None:
        await asyncio.sleep(self.reads_s)
        self.written.append(message)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.ended.append(callback)

    async def send_initial_metadata(self, _metadata: Any) -> None: ...

    async def abort(self, code: grpc.StatusCode, _details: str, _metadata: Any) -> None:
        self.code = code
        raise Aborted


def request(size_bytes: int, name: str = "asked") -> bytes:
    message = service_pb2.ModelInferRequest(model_name=name, id=str(size_bytes))
    message.raw_input_contents.append(bytes(size_bytes))
    return bytes(message.SerializeToString())


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., HandlerParts]:
    def make(answer: Answered, lines: list[Any] | None = None, counted: list[Any] | None = None) -> HandlerParts:
        rules = write_rules(tmp_path, {"main": 1}, {"pair_sum": ["main"]}, asked="pair_sum/1", streamed="pair_sum/1")
        with (rules / "objectives" / "streamed.yaml").open("a") as objective:
            objective.write("responses: stream\n")
        directory = MemoryEndpointDirectory({"main": (Endpoint("main", "127.0.0.1", 1),)})
        app = create_app(
            engines=MemoryEngineSource(load_bundle(compile_directory(rules))),
            dispatcher=Dispatcher(MemoryTransport(answer), directory),
            budget=ByteBudget(BUDGET_BYTES),
            log=None if lines is None else AccessLog(lambda line: lines.append(json.loads(line))),
            count=None if counted is None else lambda *each: counted.append(each),
        )
        return app.parts

    return make


async def infer(parts: HandlerParts, context: Context) -> None:
    """Answer a unary RPC as gRPC does: it sends what the handler returns."""
    try:
        await context.write(await service._answered(Inference(parts).__call__, parts, INFER, None, context))
    finally:
        for ended in context.ended:
            ended(context)


async def after(seconds: float, response: HttpResponse, *_asked: object) -> HttpResponse:
    await asyncio.sleep(seconds)
    return response


REFUSED = HttpResponse(400, [(b"grpc-status", b"3")], b'{"error": "no such input"}')


def test_messages_that_the_budget_refuses_are_not_held(made: Callable[..., HandlerParts]) -> None:
    async def run() -> None:
        large = [(0.0, request(10 * BUDGET_BYTES)) for _ in range(20)]
        context = Context((0.0, request(10)), *large)
        parts = made(partial(after, 2.0, REFUSED))
        answering = asyncio.create_task(StreamInference(parts)(None, context))
        await asyncio.sleep(1)
        assert context.written == [], "they wait for the first answer"
        assert not context.messages
        assert Message.held == 1
        await asyncio.sleep(2)
        assert len(context.written) == 21
        assert all(stream_error(each) for each in context.written)
        assert all(str(10 * BUDGET_BYTES).encode() in each for each in context.written[1:]), "each has its id"
        assert (Message.held, parts.budget.used_bytes) == (0, 0)
        answering.cancel()

    virtual_time.run(run())


def test_a_stream_is_idle_from_the_end_of_its_last_request(made: Callable[..., HandlerParts]) -> None:
    async def run() -> None:
        began_s = asyncio.get_running_loop().time()
        # The second request comes after the limit has passed since the first one came, and before since it has ended.
        context = Context((0.0, request(10)), (_IDLE_S + 10, request(10)))
        with pytest.raises(Aborted):
            await StreamInference(made(partial(after, 20.0, REFUSED)))(None, context)
        assert context.code is grpc.StatusCode.ABORTED
        assert len(context.written) == 2
        assert asyncio.get_running_loop().time() - began_s == pytest.approx(_IDLE_S + 10 + 20 + _IDLE_S, abs=1)

    virtual_time.run(run())


def test_a_request_of_a_stream_is_logged_and_counted_with_the_code_of_its_error(
    made: Callable[..., HandlerParts],
) -> None:
    async def run() -> None:
        lines: list[Any] = []
        counted: list[Any] = []
        context = Context((0.0, request(10)), (0.0, request(10, "unknown")), is_done=True)
        await StreamInference(made(partial(after, 1.0, REFUSED), lines, counted))(None, context)
        assert sorted(line["status"] for line in lines) == ["INVALID_ARGUMENT", "NOT_FOUND"]
        assert {(method, name) for method, name, *_ in counted} == {
            ("", "inference.GRPCInferenceService/ModelStreamInfer")
        }
        assert sorted(code for _, _, code, _ in counted) == ["INVALID_ARGUMENT", "NOT_FOUND"]

    virtual_time.run(run())


def test_a_unary_request_ends_when_its_answer_is_sent(made: Callable[..., HandlerParts]) -> None:
    async def run() -> None:
        lines: list[Any] = []
        context = Context((0.0, request(10)), reads=5.0)
        parts = made(partial(after, 1.0, HttpResponse(200, [], field(2, b"answer"))), lines)
        answering = asyncio.create_task(infer(parts, context))
        await asyncio.sleep(3)
        assert lines == []
        assert (Message.held, parts.budget.used_bytes) == (0, 0)
        await answering
        assert [(line["status"], line["took_ms"] > 0) for line in lines] == [("OK", True)]

    virtual_time.run(run())


def test_a_unary_request_whose_caller_leaves_or_does_not_read_has_no_status(made: Callable[..., HandlerParts]) -> None:
    async def run() -> None:
        lines: list[Any] = []
        parts = made(partial(after, 1.0, HttpResponse(200, [], field(2, b"answer"))), lines)
        slow = Context((0.0, request(10)), reads=100.0)
        answering = asyncio.create_task(infer(parts, slow))
        await asyncio.sleep(35)
        assert [line.get("status") for line in lines] == [None]
        await answering
        leaving = Context((0.0, request(10)))
        answering = asyncio.create_task(infer(parts, leaving))
        await asyncio.sleep(0.5)
        answering.cancel()
        await asyncio.wait([answering])
        assert [line.get("status") for line in lines] == [None, None]

    virtual_time.run(run())


def test_a_unary_request_to_an_objective_that_streams_is_not_sent(made: Callable[..., HandlerParts]) -> None:
    async def run() -> None:
        context = Context((0.0, request(10, "streamed")))
        parts = made(partial(after, 1.0, HttpResponse(200, [], field(2, b"answer"))))
        with pytest.raises(Aborted):
            await infer(parts, context)
        assert context.code is grpc.StatusCode.UNIMPLEMENTED
        streaming = Context((0.0, request(10, "streamed")), is_done=True)
        await StreamInference(made(partial(after, 1.0, REFUSED)))(None, streaming)
        assert "the model answered with an error" in (stream_error(streaming.written[0]) or "")

    virtual_time.run(run())
