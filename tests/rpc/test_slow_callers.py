"""Callers that keep the gateway waiting over gRPC, on a clock of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from tidegate.rpc import exchange, stream
from tidegate.rpc.exchange import Exchange, RpcAnswer
from tidegate.rpc.service import InferenceService
from tidegate.rpc.stream import StreamInference

LIVE = b"/inference.GRPCInferenceService/ServerLive"


class Aborted(Exception):
    """The RPC was ended with an error."""


class SilentContext:
    """An RPC of a caller that neither sends nor reads."""

    def __init__(self) -> None:
        self.code: Any = None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> None:
        return None

    async def read(self) -> Any:
        await asyncio.sleep(3_600)

    async def write(self, _message: bytes) -> None:
        await asyncio.sleep(3_600)

    async def send_initial_metadata(self, _metadata: Any) -> None: ...

    async def abort(self, code: grpc.StatusCode, _details: str, _metadata: Any) -> None:
        self.code = code
        raise Aborted


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """A frame of HTTP/2: https://www.rfc-editor.org/rfc/rfc9113#section-4.1"""
    return len(content).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + content


def window(size_bytes: int) -> bytes:
    """The setting of how much of each answer may be sent before the caller says that it has read it."""
    return frame(4, 0, 0, b"\0\4" + size_bytes.to_bytes(4))


def asking(method: bytes, window_bytes: int) -> bytes:
    """A connection's first bytes, with a unary RPC whose message is empty."""
    headers = {b":method": b"POST", b":scheme": b"http", b":path": method, b":authority": b"a", b"te": b"trailers"}
    headers[b"content-type"] = b"application/grpc"
    literals = [b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in headers.items()]
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + window(window_bytes)
    return preface + frame(1, 4, 1, b"".join(literals)) + frame(0, 1, 1, bytes(5))


def on_a_quick_clock(work: Callable[[], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run something whose time limits are a thousandth of what they are."""
    monkeypatch.setattr(exchange, "CALLER_S", exchange.CALLER_S / 1000)
    monkeypatch.setattr(stream, "_IDLE_S", stream._IDLE_S / 1000)
    asyncio.run(asyncio.wait_for(work(), 10))


def test_a_caller_that_sends_no_message_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        answer = await Exchange(SilentContext(), "/inference.GRPCInferenceService/ModelInfer").receive()
        assert isinstance(answer, RpcAnswer)
        assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED

    on_a_quick_clock(work, monkeypatch)


@pytest.mark.parametrize(("window_bytes", "code"), [(65_535, "OK"), (0, None)])
def test_a_caller_that_does_not_read_is_left(
    window_bytes: int, code: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str | None] = []
    parts: Any = SimpleNamespace(count=lambda _shard, _method, code, _s: ended.append(code), log=None)

    async def work() -> None:
        server = grpc.aio.server(handlers=InferenceService(parts).handlers())
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(asking(LIVE, window_bytes))
        while not ended:
            await asyncio.sleep(0.001)
        # What waited is sent, and the RPC does not end a second time.
        writer.write(window(65_535))
        await reader.readuntil(b"grpc-status")
        writer.close()
        await server.stop(None)
        assert ended == [code]

    on_a_quick_clock(work, monkeypatch)


def test_a_stream_without_requests_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        context = SilentContext()
        with pytest.raises(Aborted):
            await StreamInference(None)(None, context)
        assert context.code is grpc.StatusCode.ABORTED

    on_a_quick_clock(work, monkeypatch)
