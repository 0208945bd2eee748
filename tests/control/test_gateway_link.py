"""The channel between the control plane and its gateway: whole messages, answers, and ends that go away or say nonsense."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tidegate.bootstrap.gateway_link import GatewayLink, Message, MessageKind
from tidegate.errors import BundleError, StoreError
from tidegate.tasks import cancel


async def nothing(_: Message) -> None:
    """Takes no message."""


async def stores(message: Message) -> Message | None:
    """Answers as the control plane of a stack with one bundle."""
    match message.kind:
        case MessageKind.BUNDLE if message.members["revision"] == "known":
            return Message(MessageKind.ANSWER, payload=b"\x00\xff" * 100_000)
        case MessageKind.BUNDLE:
            raise BundleError("there is no such bundle")
        case MessageKind.POINTER:
            raise StoreError("the store did not answer")
        case MessageKind.STATUS:
            raise ZeroDivisionError
        case MessageKind.LOG:
            await asyncio.sleep(60)
    return None


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[GatewayLink, GatewayLink, socket.socket]]:
    """Two ends, both of which run; the socket of the second, to write nonsense to it."""
    near, far = socket.socketpair()
    raw = far.dup()
    asking, answering = await GatewayLink.over(near, nothing), await GatewayLink.over(far, stores)
    tasks = [asyncio.create_task(each.run()) for each in (asking, answering)]
    try:
        yield asking, answering, raw
    finally:
        raw.close()
        for task in tasks:
            await cancel(task)


def test_answers_come_to_who_asked_with_their_bytes_or_errors() -> None:
    async def work() -> None:
        async with pair() as (asking, _, _):
            known, unknown, down, odd, plain = await asyncio.gather(
                asking.ask(Message(MessageKind.BUNDLE, {"revision": "known"}), 5),
                asking.ask(Message(MessageKind.BUNDLE, {"revision": "none"}), 5),
                asking.ask(Message(MessageKind.POINTER), 5),
                asking.ask(Message(MessageKind.STATUS), 5),
                asking.ask(Message(MessageKind.POLL), 5),
                return_exceptions=True,
            )
            assert isinstance(known, Message)
            assert known.payload == b"\x00\xff" * 100_000
            assert isinstance(unknown, BundleError)
            assert str(unknown) == "there is no such bundle"
            assert isinstance(down, StoreError)
            assert isinstance(odd, StoreError), "what one end does not understand silences nothing"
            assert isinstance(plain, Message)
            with pytest.raises(StoreError, match=r"did not answer within 0\.05 s"):
                await asking.ask(Message(MessageKind.LOG), 0.05)

    asyncio.run(work())


def test_a_message_without_an_answer_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with pair() as (asking, _, _):
            asking.send(Message(MessageKind.POINTER))
            await asking.ask(Message(MessageKind.POLL), 5)

    asyncio.run(work())
    assert "pointer" in caplog.text


@pytest.mark.parametrize(
    "nonsense",
    [b"\xff" * 64, b"\x00\x00\x00\x02" + bytes(8) + b"[]", b"\x00\x00\x00\x02" + bytes(8) + b"{}", b"\x00" * 64],
    ids=["a huge length", "no object", "no kind", "no JSON"],
)
def test_an_end_that_sends_nonsense_is_let_go(nonsense: bytes) -> None:
    async def work() -> None:
        async with pair() as (asking, _, raw):
            waiting = asyncio.create_task(asking.ask(Message(MessageKind.LOG), 10))
            await asyncio.sleep(0)
            raw.setblocking(True)
            raw.sendall(nonsense)
            with pytest.raises(StoreError, match="has ended"):
                await waiting
            with pytest.raises(StoreError, match="has ended"):
                await asking.ask(Message(MessageKind.BUNDLE, {"revision": "known"}), 5)

    asyncio.run(work())


def test_an_end_that_reads_nothing_is_known_to_be_behind() -> None:
    async def work() -> None:
        near, far = socket.socketpair()
        with far:
            link = await GatewayLink.over(near, nothing)
            assert not link.is_behind
            link.send(Message(MessageKind.BUNDLE, payload=bytes(4_000_000)))
            assert link.is_behind
            running = asyncio.create_task(link.run())
            await cancel(running)

    asyncio.run(work())
