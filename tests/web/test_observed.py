"""The observer is called for every decided inference, as the source of metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tidegate.gateway import Dispatcher
from tidegate.ports import Endpoint, Served
from tidegate.rules import Engine
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app

from tests.support.processes import refusing_port
from tests.web.conftest import FakeTriton, Host, Received, serving

KNOWN = {"member_id": "m-1", "device": "mobile"}


@pytest.fixture
def watched(scripted_server: tuple[Any, Host], fake: FakeTriton, engine: Engine) -> tuple[Host, list[Served]]:
    """A gateway in front of the scripted Triton, and the reports to its observer."""
    seen: list[Served] = []
    shards = {"main": fake.port, "spare": refusing_port()}
    endpoints = {shard: (Endpoint(shard, "127.0.0.1", port),) for shard, port in shards.items()}
    dispatcher = Dispatcher(PooledTransport(), MemoryEndpointDirectory(endpoints))
    slot, host = scripted_server
    slot.app = create_app(engines=MemoryEngineSource(engine), dispatcher=dispatcher, observe=seen.append)
    return host, seen


def infer(host: Host, context: Mapping[str, Any], objective: str = "guarded") -> int:
    return host.ask("POST", f"/v2/models/{objective}/infer", b"{}", {"Tidegate-Context": json.dumps(context)}).status


def test_an_answered_request_is_reported_with_its_times(watched: tuple[Host, list[Served]]) -> None:
    host, seen = watched
    assert infer(host, KNOWN) == 200
    (served,) = seen
    assert (served.decision.objective, served.decision.rule, served.status) == ("guarded", "known", 200)
    assert (served.shard, served.is_fallback, served.failed_attempts) == ("main", False, 0)
    assert served.decide_ms > 0
    assert served.dispatch_ms >= served.triton_ms > 0


def test_a_request_that_nobody_answers_is_reported_with_its_attempts(
    watched: tuple[Host, list[Served]], fake: FakeTriton
) -> None:
    host, seen = watched

    def unavailable(_: Received) -> tuple[int, Mapping[str, str], bytes]:
        return 503, {}, b""

    fake.script = unavailable
    assert infer(host, KNOWN) == 503
    (served,) = seen
    assert (served.status, served.target, served.shard, served.failed_attempts) == (503, None, None, 2)
    assert not served.is_fallback


def test_a_fallback_is_reported_as_one(watched: tuple[Host, list[Served]], fake: FakeTriton, engine: Engine) -> None:
    _, seen = watched
    endpoints = {shard: (Endpoint(shard, "127.0.0.1", fake.port),) for shard in ("main", "spare")}
    dispatcher = Dispatcher(PooledTransport(), MemoryEndpointDirectory(endpoints))
    app = create_app(engines=MemoryEngineSource(engine), dispatcher=dispatcher, observe=seen.append)

    def only_the_backup(request: Received) -> tuple[int, Mapping[str, str], bytes]:
        return (200, {}, b"{}") if "/backup/" in request.path else (503, {}, b"")

    fake.script = only_the_backup
    with serving(app) as host:
        assert infer(host, KNOWN) == 200
    (served,) = seen
    assert (served.is_fallback, served.shard, served.failed_attempts) == (True, "spare", 1)


def test_what_was_never_decided_is_not_reported(watched: tuple[Host, list[Served]]) -> None:
    host, seen = watched
    assert infer(host, {"device": "mobile"}) == 400, "member_id is required"
    assert host.get("/v2/health/live").status == 200
    assert seen == []
