"""Callers that keep the gateway waiting over gRPC, on a clock of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from tidegate.rpc import exchange, stream
from tidegate.rpc.exchange import Exchange, RpcAnswer, UnreadError
from tidegate.rpc.stream import StreamInference


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


def test_a_caller_that_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        with pytest.raises(UnreadError):
            await Exchange(SilentContext(), "/inference.GRPCInferenceService/ModelInfer").send(RpcAnswer(b"answer"))

    on_a_quick_clock(work, monkeypatch)


def test_a_stream_without_requests_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        context = SilentContext()
        with pytest.raises(Aborted):
            await StreamInference(None)(None, context)
        assert context.code is grpc.StatusCode.ABORTED

    on_a_quick_clock(work, monkeypatch)
