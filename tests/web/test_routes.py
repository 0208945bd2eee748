"""The routes that requests are counted by are those of the gateway, and no path makes another."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.routing import Route
from tidegate.gateway import Dispatcher
from tidegate.ports import Endpoint
from tidegate.rules import Engine
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app
from tidegate.web.console import paths
from tidegate.web.routes import ROUTES, route_of

from tests.support.stack import eventually
from tests.web.conftest import FakeTriton, Host


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v2/models/title_ranking/infer", "/v2/models/{objective}/infer"),
        ("/v2/models/title_ranking/versions/3/infer", "/v2/models/{objective}/versions/{version}/infer"),
        ("/v2/models/models/generate_stream", "/v2/models/{objective}/generate_stream"),
        ("/v2/models/title_ranking", "/v2/models/{objective}"),
        ("/v2/health/live", "/v2/health/live"),
        ("/v1/objectives/title_ranking/resolve", "/v1/objectives/{objective}/resolve"),
        ("/v1/models/title_ranking_svd", "/v1/models/{model}"),
        ("/console/rules/title_ranking", "/console"),
        ("/", "/"),
        ("", ""),
        ("*", ""),
        ("/v2/repository/index", ""),
        ("/v2/models/a/b/c/d", ""),
        ("/v1/objectives/{objective}/infer/", ""),
        ("/" + "x" * 5000, ""),
    ],
)
def test_a_path_has_one_of_few_routes(path: str, route: str) -> None:
    assert route_of(path) == route
    assert route_of(path) == route


def test_every_route_of_the_gateway_is_one(engine: Engine) -> None:
    app = create_app(
        engines=MemoryEngineSource(engine), dispatcher=Dispatcher(PooledTransport(), MemoryEndpointDirectory({}))
    )
    served = {route.path for route in app.routes if isinstance(route, Route)}
    passed_on = {*paths.PATHS, paths.EVENTS} - {paths.BELOW_PAGE}
    assert served | passed_on <= ROUTES


def test_each_request_is_counted_whatever_becomes_of_it(
    scripted_server: tuple[Any, Host], fake: FakeTriton, engine: Engine
) -> None:
    seen: list[tuple[str, str, Any, float]] = []
    slot, host = scripted_server
    directory = MemoryEndpointDirectory({"main": (Endpoint("main", "127.0.0.1", fake.port),)})
    slot.app = create_app(
        engines=MemoryEngineSource(engine),
        dispatcher=Dispatcher(PooledTransport(), directory),
        count=lambda *counted: seen.append(counted),
    )
    context = {"Tidegate-Context": json.dumps({"member_id": "m-1", "device": "mobile"})}
    answers = [
        host.ask("POST", "/v2/models/guarded/infer", b"{}", context),
        host.ask("POST", "/v2/models/nothing/infer", b"{}", context),
        host.ask("POST", "/v2/models/guarded/infer", b"{}", {"Tidegate-Context": "[]"}),
        host.ask("GET", "/v1/objectives"),
        host.ask("GET", "/v1/fleet"),
        host.ask("GET", "/v2/mod%65ls/guarded"),
        host.ask("PROPFIND", "/nowhere"),
    ]
    infer = "/v2/models/{objective}/infer"
    # Each is counted after its answer has been sent.
    assert eventually(lambda: len(seen) == len(answers))
    assert [(method, route, status) for method, route, status, _ in seen] == [
        ("POST", infer, 200),
        ("POST", infer, 404),
        ("POST", infer, 400),
        ("GET", "/v1/objectives", 200),
        ("GET", "/v1/fleet", answers[4].status),
        ("GET", "/v2/models/{objective}", 404),
        ("_OTHER", "", 404),
    ]
    assert [answer.status for answer in answers] == [status for _, _, status, _ in seen]
    assert all(took_s > 0 for *_, took_s in seen)
