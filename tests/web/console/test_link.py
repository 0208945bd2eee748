"""Questions of the console over the channel between a gateway and its control plane."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tidegate.bootstrap import console_link
from tidegate.bootstrap.console_link import LinkedConsole, answered
from tidegate.bootstrap.gateway_channel import GatewayChannel
from tidegate.bootstrap.gateway_link import GatewayLink, Message
from tidegate.errors import UnavailableError
from tidegate.ports.console import ConsoleAnswer, ConsoleRequest
from tidegate.settings import Settings
from tidegate.tasks import cancel
from tidegate.web.callers import Operators
from tidegate.web.console.app import create_console

from tests.web.console.test_app import AS_OPERATOR, TOKEN, Answers

SIGNED = tuple((name.decode(), value.decode()) for name, value in AS_OPERATOR)
POSTED = (*SIGNED, ("content-type", "application/json"), ("host", "here"))


def over_a_link(
    ask: Callable[[LinkedConsole], Awaitable[Any]],
    handle: Callable[[Any, Message], Awaitable[Message | None]] = answered,
) -> Any:
    """Ask through two ends of a channel, the second of which has the app."""
    console = Answers()
    app = create_console(console, admit=Operators(TOKEN).check, author_of=lambda _: "ana")

    async def work() -> Any:
        near, far = socket.socketpair()

        async def nothing(_: Message) -> None:
            """Takes no message."""

        async def control(message: Message) -> Message | None:
            return await handle(app, message)

        asking, answering = await GatewayLink.over(near, nothing), await GatewayLink.over(far, control)
        tasks = [asyncio.create_task(each.run()) for each in (asking, answering)]
        try:
            return await ask(LinkedConsole(asking))
        finally:
            await cancel(*tasks)

    return asyncio.run(work()), console


def test_questions_and_answers_pass_unchanged() -> None:
    async def ask(console: LinkedConsole) -> list[ConsoleAnswer]:
        return [
            await console.answer(ConsoleRequest("GET", "/v1/overview", "", SIGNED)),
            await console.answer(ConsoleRequest("GET", "/v1/overview", "", ())),
            await console.answer(ConsoleRequest("POST", "/v1/rollback", "", POSTED, '{"to": "é"}'.encode())),
            await console.answer(ConsoleRequest("HEAD", "/console", "", ())),
        ]

    (overview, refused, posted, head), console = over_a_link(ask)
    assert (overview.status, overview.body) == (200, b'{"name":"<script>alert(1)</script>"}')
    assert ("cache-control", "no-store") in overview.headers
    assert (refused.status, posted.status) == (401, 200)
    assert console.rolled_back == [({"to": "é"}, "ana")]
    assert (head.status, head.body) == (200, b"")
    assert int(dict(head.headers)["content-length"]) > 100


def test_a_question_that_is_none_costs_the_control_plane_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(console: LinkedConsole) -> list[str]:
        found = []
        for request in (
            ConsoleRequest("GET", "no path", "", ()),
            ConsoleRequest("GET", "/v1/overview", "", (("only one",),)),  # type: ignore[arg-type]
        ):
            with pytest.raises(UnavailableError) as error:
                await console.answer(request)
            found.append(str(error.value))
        assert (await console.answer(ConsoleRequest("GET", "/v1/overview", "", SIGNED))).status == 200
        return found

    with caplog.at_level(logging.WARNING):
        assert over_a_link(ask)[0] == ["ValueError", "ValueError"]
    assert "could not be handled" in caplog.text


def test_a_silent_control_plane_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_link, "WAIT_S", 0.01)

    async def never(_app: Any, _message: Message) -> None:
        await asyncio.Event().wait()

    async def ask(console: LinkedConsole) -> None:
        await console.answer(ConsoleRequest("GET", "/v1/overview", "", ()))

    with pytest.raises(UnavailableError, match=r"did not answer within 0\.01 s"):
        over_a_link(ask, never)


def test_a_setting_leaves_the_console_out() -> None:
    async def work() -> Any:
        return GatewayChannel().console(Settings(console=False))

    assert asyncio.run(work()) is None
    assert Settings().console
    assert not Settings().console_writes
