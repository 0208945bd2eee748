"""`GET /`: links, for people who open the gateway's address."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tidegate.gateway import Dispatcher
from tidegate.ports.console import ConsoleAnswer, ConsoleRequest
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app

from tests.web.conftest import HERE, FakeTriton, Host
from tests.web.test_callers import CALLERS, compiled


@pytest.mark.parametrize("accept", [None, "*/*", "text/html,application/xhtml+xml,*/*;q=0.8", "text/html, application/json;q=0.9", "application/json;q=x", "application/json;q=0.9, text/html;q=1.000, text/html;q=0.1"])  # fmt: skip
def test_a_browser_gets_a_page_whose_links_are_served(scripted: Host, accept: str | None) -> None:
    reply = scripted.ask("GET", "/", None, {} if accept is None else {"Accept": accept})
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
    assert reply.headers["vary"] == "accept"
    links = re.findall(r'href="(/[^"]*)"', reply.body.decode())
    assert "/console" not in links, "this gateway has none"
    for link in links:
        assert scripted.get(link).status not in (404, 405)
    assert not re.search(rb"<script|style=|<style", reply.body), "the policy would not let it run"


@pytest.mark.parametrize("accept", ["application/json", "application/json, text/plain, */*", "text/html;q=0.5, application/json"])  # fmt: skip
def test_a_program_gets_json(scripted: Host, accept: str) -> None:
    reply = scripted.ask("GET", "/", None, {"Accept": accept})
    assert reply.headers["content-type"] == "application/json"
    assert reply.json["openapi"] == "/openapi.json"
    assert reply.json["objectives"] == "/v1/objectives"


def test_it_needs_no_caller_and_has_no_body_for_head(guarded_by_callers: Host) -> None:
    reply = guarded_by_callers.ask("HEAD", "/")
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["content-length"]) == len(guarded_by_callers.get("/").body)
    assert guarded_by_callers.ask("POST", "/").problem["status"] == 405
    assert guarded_by_callers.get("/?a=b").problem["status"] == 400
    assert b'href="/console"' in guarded_by_callers.get("/").body


@pytest.fixture
def guarded_by_callers(scripted_server: tuple[Any, Host], fake: FakeTriton, tmp_path: Any) -> Host:
    """A gateway with callers and a console."""

    class Console:
        async def answer(self, _request: ConsoleRequest) -> ConsoleAnswer:
            raise AssertionError

    slot, host = scripted_server
    slot.app = create_app(
        engines=MemoryEngineSource(compiled(tmp_path, HERE / "rules", CALLERS)),
        dispatcher=Dispatcher(PooledTransport(), MemoryEndpointDirectory({})),
        console=Console(),
    )
    return host
