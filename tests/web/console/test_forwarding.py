"""The gateway's part of the console: it passes requests on, in bounds, and streams the overview."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import tidegate.web.console.events
from tidegate.console.console import Console
from tidegate.errors import UnavailableError
from tidegate.gateway import Dispatcher
from tidegate.ports.console import ConsoleAnswer, ConsoleRequest
from tidegate.rules import Engine
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app
from tidegate.web.console.app import create_console
from tidegate.web.console.events import MOST_VIEWERS
from tidegate.web.console.forwarding import MOST_AT_ONCE, MOST_BODY_BYTES
from tidegate.web.console.paths import EVENTS, FLEET, PATHS

from tests.support.stack import eventually
from tests.web.conftest import Host, serving


@dataclass
class Backend:
    """Answers as a test says, and keeps what it was asked."""

    answer_to: Callable[[ConsoleRequest], ConsoleAnswer]
    asked: list[ConsoleRequest] = field(default_factory=list)
    held: asyncio.Event | None = None

    async def answer(self, request: ConsoleRequest) -> ConsoleAnswer:
        self.asked.append(request)
        if self.held is not None:
            await self.held.wait()
        return self.answer_to(request)


def sound(request: ConsoleRequest) -> ConsoleAnswer:
    return ConsoleAnswer(200, (("content-type", "application/json"), ("content-length", "2")), b"{}")


@pytest.fixture
def backend() -> Backend:
    return Backend(sound)


@pytest.fixture
def host(engine: Engine, backend: Backend) -> Iterator[Host]:
    dispatcher = Dispatcher(PooledTransport(), MemoryEndpointDirectory({}))
    with serving(create_app(engines=MemoryEngineSource(engine), dispatcher=dispatcher, console=backend)) as served:
        yield served


def test_a_request_is_passed_on_with_the_headers_that_count(host: Host, backend: Backend) -> None:
    headers = {
        "Authorization": "Bearer x",
        "Origin": "http://here",
        "Cookie": "a=b",
        "Tidegate-Caller": "c",
        "X-Other": "y",
    }
    reply = host.ask("POST", "/v1/rollback?a=1&b=%20", {"to": "live~1"}, headers)
    assert (reply.status, reply.json) == (200, {})
    (asked,) = backend.asked
    assert (asked.method, asked.path, asked.query) == ("POST", "/v1/rollback", "a=1&b=%20")
    assert json.loads(asked.body) == {"to": "live~1"}
    names = {name for name, _ in asked.headers}
    assert {"authorization", "origin", "host"} <= names
    assert not {"cookie", "tidegate-caller", "x-other"} & names


def test_every_path_of_the_app_is_passed_on_and_no_other() -> None:
    app = create_console(Console.__new__(Console), admit=lambda _: None, author_of=lambda _: "ana")
    assert {route.path for route in app.routes} - {EVENTS, FLEET} <= set(PATHS)  # type: ignore[attr-defined]


def test_without_a_console_its_paths_are_unknown(engine: Engine) -> None:
    dispatcher = Dispatcher(PooledTransport(), MemoryEndpointDirectory({}))
    with serving(create_app(engines=MemoryEngineSource(engine), dispatcher=dispatcher)) as served:
        for path in ("/console", "/v1/overview", "/v1/events", "/metrics", "/v1/models/title"):
            assert served.get(path).problem["type"] == "urn:tidegate:problem:not-found", path


def test_a_body_above_the_limit_is_refused_and_not_passed_on(host: Host, backend: Backend) -> None:
    reply = host.ask("POST", "/v1/drafts", b" " * (MOST_BODY_BYTES + 1))
    assert reply.status == 413
    assert reply.problem["limit_bytes"] == MOST_BODY_BYTES
    assert not backend.asked


def test_a_control_plane_that_does_not_answer_is_a_503(host: Host, backend: Backend) -> None:
    def silent(_: ConsoleRequest) -> ConsoleAnswer:
        raise UnavailableError("the other process of this stack did not answer within 15 s")

    backend.answer_to = silent
    for path in ("/v1/overview", "/v1/events", "/console"):
        reply = host.get(path)
        assert reply.status == 503
        assert "did not answer within" in reply.problem["detail"]


def test_more_requests_than_the_limit_are_refused_at_once(host: Host, backend: Backend) -> None:
    backend.held = asyncio.Event()
    connections = [http.client.HTTPConnection("127.0.0.1", host.port, timeout=60) for _ in range(MOST_AT_ONCE)]
    try:
        for each in connections:
            each.request("GET", "/v1/graph")
        assert eventually(lambda: len(backend.asked) == MOST_AT_ONCE)
        reply = host.get("/v1/graph")
        assert (reply.status, reply.problem["type"]) == (503, "urn:tidegate:problem:overloaded")
    finally:
        for each in connections:
            each.close()
    # A caller that has left holds no place.
    backend.held = None
    assert eventually(lambda: host.get("/v1/graph").status == 200)


def events(response: http.client.HTTPResponse, count: int) -> list[tuple[str, Any]]:
    found = []
    while len(found) < count:
        name, data, end = (response.readline() for _ in range(3))
        assert end == b"\n"
        found.append((name.decode().removeprefix("event: ").strip(), json.loads(data.removeprefix(b"data: "))))
    return found


def test_viewers_share_one_question_a_second_and_each_is_let_in_by_itself(host: Host, backend: Backend) -> None:
    number = 0

    def counted(request: ConsoleRequest) -> ConsoleAnswer:
        nonlocal number
        number += 1
        if dict(request.headers).get("authorization") != "Bearer right":
            return ConsoleAnswer(401, (("content-type", "application/problem+json"),), b'{"status": 401}')
        return ConsoleAnswer(200, (("content-type", "application/json"),), json.dumps({"number": number}).encode())

    backend.answer_to = counted
    refused = host.get("/v1/events")
    assert (refused.status, refused.json) == (401, {"status": 401})
    viewers = [http.client.HTTPConnection("127.0.0.1", host.port, timeout=60) for _ in range(3)]
    try:
        streams = []
        for each in viewers:
            each.request("GET", "/v1/events", headers={"Authorization": "Bearer right"})
            streams.append(each.getresponse())
        assert {each.getheader("content-type") for each in streams} == {"text/event-stream"}
        # The first one of each is of its own.
        assert {name for each in streams for name, _ in events(each, 1)} == {"overview"}
        seen: list[set[int]] = [set() for _ in streams]

        def share() -> set[int]:
            for each, numbers in zip(streams, seen, strict=True):
                numbers.update(data["number"] for _, data in events(each, 1))
            return set.intersection(*seen)

        assert eventually(share), seen
    finally:
        for each in viewers:
            each.close()
    # Nothing is asked once all have left.
    assert eventually(lambda: _is_still(backend)), "the question goes on without viewers"


def _is_still(backend: Backend) -> bool:
    before = len(backend.asked)
    time.sleep(2.5)
    return len(backend.asked) == before


def test_viewers_that_never_read_lose_their_places(
    host: Host, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tidegate.web.console.events, "SILENT_S", 1.0)
    body = json.dumps({"text": "x" * 32_000}).encode()
    backend.answer_to = lambda _: ConsoleAnswer(200, (("content-type", "application/json"),), body)
    viewers = [http.client.HTTPConnection("127.0.0.1", host.port, timeout=60) for _ in range(MOST_VIEWERS)]
    try:
        for each in viewers:
            each.request("GET", "/v1/events")
            assert each.getresponse().status == 200

        def refused() -> Any:
            connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=60)
            connection.request("GET", "/v1/events")
            response = connection.getresponse()
            found = None if response.status == 200 else json.loads(response.read())
            connection.close()
            return found

        found = refused()
        assert (found["status"], found["type"]) == (503, "urn:tidegate:problem:overloaded")
        assert "16 viewers have the overview already; ask GET /v1/overview" in found["detail"]
        assert eventually(lambda: refused() is None, 60)
    finally:
        for each in viewers:
            each.close()


def test_a_viewer_learns_that_the_control_plane_is_silent(host: Host, backend: Backend) -> None:
    broken = False

    def flaky(request: ConsoleRequest) -> ConsoleAnswer:
        if broken:
            raise UnavailableError("silent")
        return sound(request)

    backend.answer_to = flaky
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=60)
    connection.request("GET", "/v1/events")
    response = connection.getresponse()
    assert events(response, 1) == [("overview", {})]
    broken = True
    found = events(response, 3)
    assert found[-1][0] == "problem"
    assert found[-1][1]["detail"] == "silent"
    broken = False
    assert ("overview", {}) in events(response, 3)
    connection.close()
