"""The description of the operators' paths: it is valid, and has every path of the console."""

from __future__ import annotations

from typing import Any

from openapi_spec_validator import validate
from tidegate.gateway import Dispatcher
from tidegate.ports.console import ConsoleAnswer, ConsoleRequest
from tidegate.rules import Engine
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app
from tidegate.web.console.app import create_console
from tidegate.web.console.paths import EVENTS, METRICS, PAGE

from tests.web.conftest import serving
from tests.web.console.test_app import Answers


class Silent:
    async def answer(self, request: ConsoleRequest) -> ConsoleAnswer:
        raise AssertionError(request.path)


def document(engine: Engine) -> Any:
    dispatcher = Dispatcher(PooledTransport(), MemoryEndpointDirectory({}))
    with serving(create_app(engines=MemoryEngineSource(engine), dispatcher=dispatcher, console=Silent())) as host:
        return host.get("/openapi.json").json


def test_the_document_is_valid_and_has_the_paths_of_the_console(engine: Engine) -> None:
    found = document(engine)
    validate(found)
    app = create_console(Answers(), admit=lambda _: None, author_of=lambda _: "ana")
    routes: Any = app.routes
    wanted = {
        (method, route.path)
        for route in routes
        for method in route.methods - {"HEAD"}
        if not route.path.startswith((PAGE, METRICS))
    }
    documented = {
        (method.upper(), path)
        for path, item in found["paths"].items()
        for method, operation in item.items()
        if method != "parameters" and operation.get("security")
    }
    assert documented == wanted | {("GET", EVENTS)}


def test_no_name_of_the_console_hides_one_of_the_apis(engine: Engine) -> None:
    dispatcher = Dispatcher(PooledTransport(), MemoryEndpointDirectory({}))
    with serving(create_app(engines=MemoryEngineSource(engine), dispatcher=dispatcher)) as host:
        own = host.get("/openapi.json").json
    both = document(engine)
    assert own["paths"].items() <= both["paths"].items()
    assert own["components"]["schemas"].items() <= both["components"]["schemas"].items()
