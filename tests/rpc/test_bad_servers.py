"""Servers whose messages are no Protocol Buffers: not their caller's fault, and the next target answers as long as one can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from tidegate.byte_budget import ByteBudget
from tidegate.gateway import DispatchConfig, Dispatcher
from tidegate.oip.protobuf import field
from tidegate.ports import Endpoint, HttpRequest, HttpResponse
from tidegate.rpc.server import RpcConfig, RpcServer
from tidegate.rules import compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource, MemoryTransport
from tidegate.triton.connection import ResponseLimits
from tidegate.triton.rpc_transport import RpcTransport
from tidegate.web import create_app
from tritonclient.grpc import service_pb2

from tests.rpc.conftest import SERVICE
from tests.support.processes import reserve_port
from tests.support.stack import write_rules

MALFORMED = [b"\xff", b"\x0a\x7f", field(2, b"")[:1], b"\x0b"]
ANSWER = field(2, field(3, b"good"))
METHODS = ("ModelStreamInfer", "ServerMetadata")
SMALL = 1 << 20


class Server:
    """A server that answers every request with the same messages."""

    def __init__(self, *messages: bytes) -> None:
        self.messages = messages
        self.asked = 0

    async def answer(self, _requests: Any, context: Any) -> None:
        await context.read()
        self.asked += 1
        for message in self.messages:
            await context.write(message)


@asynccontextmanager
async def started(server: Server) -> AsyncIterator[int]:
    """Serve the methods of the protocol, and yield the port."""
    serving = grpc.aio.server()
    methods = {name: grpc.stream_stream_rpc_method_handler(server.answer) for name in METHODS}
    serving.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE.strip("/"), methods)])
    port = serving.add_insecure_port("127.0.0.1:0")
    await serving.start()
    try:
        yield port
    finally:
        await serving.stop(0)


@asynccontextmanager
async def gateway(folder: Path, main: Server, spare: Server | None = None) -> AsyncIterator[grpc.aio.Channel]:
    """The gateway over gRPC before a server for each shard; the fallback's server may be absent. Yields a caller's channel."""
    rules = write_rules(folder, {"main": 1, "spare": 1}, {"first": ["main"], "second": ["spare"]}, asked="first")
    with (rules / "objectives" / "asked.yaml").open("a") as objective:
        objective.write("\nfallback: [second]\n")
    servers = {"main": main} if spare is None else {"main": main, "spare": spare}

    async def healthy(_endpoint: Endpoint, _request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, (), b"")

    async with AsyncExitStack() as stack:
        ports = {shard: await stack.enter_async_context(started(server)) for shard, server in servers.items()}
        endpoints = {shard: (Endpoint(shard, "127.0.0.1", port),) for shard, port in ports.items()}
        limits = ResponseLimits(SMALL, ByteBudget(SMALL))
        transport = RpcTransport(MemoryTransport(healthy), lambda endpoint: endpoint.port, limits)
        stack.push_async_callback(transport.aclose)
        dispatcher = Dispatcher(
            transport, MemoryEndpointDirectory(endpoints), DispatchConfig(default_timeout_ms=30_000)
        )
        app = create_app(engines=MemoryEngineSource(load_bundle(compile_directory(rules))), dispatcher=dispatcher)
        port = reserve_port()
        server = RpcServer(app.parts, RpcConfig(port, 64, 64, SMALL, 1 << 16, 30.0, 30.0))
        await server.start()
        stack.push_async_callback(server.stop, 0.0)
        yield await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))


async def streamed(channel: grpc.aio.Channel) -> list[Any]:
    serialize, read = service_pb2.ModelInferRequest.SerializeToString, service_pb2.ModelStreamInferResponse.FromString
    call = channel.stream_stream(f"{SERVICE}ModelStreamInfer", serialize, read)(
        iter([service_pb2.ModelInferRequest(model_name="asked", id="7")]), timeout=60
    )
    return [each async for each in call]


@pytest.mark.parametrize("message", MALFORMED)
def test_a_malformed_first_message_leads_to_the_fallback(tmp_path: Path, message: bytes) -> None:
    async def run() -> None:
        spare = Server(ANSWER)
        async with gateway(tmp_path, Server(message, ANSWER), spare) as channel:
            (answer,) = await streamed(channel)
        assert (answer.error_message, answer.infer_response.id, spare.asked) == ("", "good", 1)

    asyncio.run(run())


@pytest.mark.parametrize("message", MALFORMED)
def test_without_a_fallback_the_server_is_named_as_the_one_to_blame(tmp_path: Path, message: bytes) -> None:
    async def run() -> None:
        async with gateway(tmp_path, Server(message)) as channel:
            (answer,) = await streamed(channel)
        assert answer.infer_response.id == "7"
        assert "every target failed" in answer.error_message
        assert "first on main: the answer is not a message of the protocol" in answer.error_message

    asyncio.run(run())


def test_a_malformed_message_after_the_first_breaks_the_answer_off(tmp_path: Path) -> None:
    async def run() -> None:
        spare = Server(ANSWER)
        async with gateway(tmp_path, Server(ANSWER, b"\xff"), spare) as channel:
            first, broken = await streamed(channel)
        assert (first.error_message, first.infer_response.id) == ("", "good")
        assert broken.infer_response.id == "7"
        assert broken.error_message == "the answer is not a message of the protocol"
        assert spare.asked == 0, "its caller has the start of another answer"

    asyncio.run(run())


@pytest.mark.parametrize("message", MALFORMED)
def test_metadata_of_the_server_that_cannot_be_read_is_not_the_callers_fault(tmp_path: Path, message: bytes) -> None:
    async def run() -> None:
        async with gateway(tmp_path, Server(message)) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await channel.unary_unary(f"{SERVICE}ServerMetadata")(b"", timeout=60)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert failed.value.details() == "no server describes itself"

    asyncio.run(run())
