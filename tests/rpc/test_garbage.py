"""What gRPC's library leaves of each RPC is collected before much of it has gathered."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from tidegate.bootstrap.gateway_process import GC_THRESHOLDS
from tidegate.gateway import Dispatcher
from tidegate.ports import Endpoint, HttpRequest, HttpResponse
from tidegate.rpc.server import RpcConfig, RpcServer
from tidegate.rules import compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource, MemoryTransport
from tidegate.web import create_app
from tritonclient.grpc import service_pb2

from tests.rpc.conftest import SERVICE
from tests.support.listening import Listening, listening
from tests.support.processes import reserve_port
from tests.support.stack import write_rules

RPCS = 5_000
MOST_OBJECTS = 20_000
"""Nearly twice what gathers between two collections; without one, these RPCs leave twice as many."""


async def answered(_: Endpoint, __: HttpRequest) -> HttpResponse:
    return HttpResponse(200, (), b"")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Listening, str]]:
    """A gRPC server whose model answers at once, in the loop of a listener."""
    rules = write_rules(tmp_path, {"a": 1}, {"echo_parameters": ["a"]}, echo="echo_parameters")
    directory = MemoryEndpointDirectory({"a": (Endpoint("a", "127.0.0.1", 1),)})
    app = create_app(
        engines=MemoryEngineSource(load_bundle(compile_directory(rules))),
        dispatcher=Dispatcher(MemoryTransport(answered), directory),
    )
    port = reserve_port()

    async def start() -> RpcServer:
        server = RpcServer(app.parts, RpcConfig(port, 64, 64, 1_000_000, 65_536, 60.0, 60.0))
        await server.start()
        return server

    with listening(app) as running:
        server = running.run(start())
        yield running, f"127.0.0.1:{port}"
        running.run(server.stop(0))


def test_many_rpcs_leave_few_objects(served: tuple[Listening, str]) -> None:
    message = service_pb2.ModelInferRequest(model_name="echo", id="1")
    before, most = gc.get_threshold(), 0
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        with grpc.insecure_channel(served[1]) as channel:
            ask = channel.unary_unary(f"{SERVICE}ModelInfer", service_pb2.ModelInferRequest.SerializeToString)
            for number in range(RPCS):
                ask(message, timeout=60)
                if number % 100 == 0:
                    most = max(most, len(gc.get_objects()))
        assert most < MOST_OBJECTS, Counter(type(each).__qualname__ for each in gc.get_objects()).most_common(5)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
