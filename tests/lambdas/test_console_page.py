"""The console's page in a browser, before the functions `console` and `gateway`, as an operator of a deployment has it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from tidegate.aws.provision import provision
from tidegate.aws.registry import DynamoRegistry
from tidegate.cli import main
from tidegate.ports import Endpoint, EndpointState, RegisteredEndpoint

from infra.contract import PLAYGROUND_PATHS
from tests.console.conftest import PATIENCE_MS, Watched, browser
from tests.infra.test_rights import ANSWER, HERE, SECRET, write_models
from tests.lambdas.conftest import http_event
from tests.lambdas.test_console import emit_a_request_a_minute
from tests.support.aws import local_server, names
from tests.support.fake_servers import fake_server
from tests.support.lambda_runtime import Environment
from tests.support.stack import write_rules

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["browser"]

TOKEN = "a-token-that-the-authorizer-accepts"
TO_THE_GATEWAY = [(method, re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + "$")) for path, method in PLAYGROUND_PATHS]


def serve(console: Environment, gateway: Environment) -> ThreadingHTTPServer:
    """An HTTP API of the routes that `infra/stacks/console.py` makes: requests with `TOKEN` pass, and all requests to the page."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            url = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            event = http_event(url.path, body, headers, self.command, query=url.query)
            is_page = url.path == "/console" or url.path.startswith("/console/")
            if is_page:
                del event["requestContext"]["authorizer"]
            elif headers.get("authorization") != f"Bearer {TOKEN}":
                self.reply(401, {"content-type": "application/json"}, b'{"message":"Unauthorized"}')
                return
            asks_gateway = any(method == self.command and path.match(url.path) for method, path in TO_THE_GATEWAY)
            response = (gateway if asks_gateway else console).invoke(event)
            content = response["body"]
            data = base64.b64decode(content) if response["isBase64Encoded"] else content.encode()
            self.reply(response["statusCode"], response["headers"], data)

        do_GET = do_POST = answer

        def reply(self, status: int, headers: dict[str, str], data: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name != "content-length":
                    self.send_header(name, value)
            if status != 304:
                self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A browser leaves when it likes."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    with local_server("tests.support.cloudwatch") as url, fake_server() as server:
        aws = names(url)
        asyncio.run(provision(aws.clients(), aws.bucket, aws.table))
        server.infer = ANSWER
        entry = RegisteredEndpoint(Endpoint("alpha", server.host, server.port), EndpointState.READY, time.time() + 50)
        asyncio.run(DynamoRegistry(aws.clients(), aws.table).register(entry))
        stores = {
            "TIDEGATE_BUCKET": aws.bucket,
            "TIDEGATE_REGISTRY_TABLE": aws.table,
            "TIDEGATE_AWS_ENDPOINT_URL": aws.url,
            **HERE,
        }
        models = write_models(folder / "models", "one", "two")
        for serves in ("one", "two"):
            rules = folder / serves
            rules.mkdir()
            write_rules(rules, {"alpha": 1}, {"one": ["alpha"], "two": ["alpha"]}, main=serves)
            options = ["--rules", str(rules), "--models", str(models), "--why", f"serves {serves}"]
            done = CliRunner().invoke(main, ["publish", *options], env={**stores, "TIDEGATE_MANAGEMENT_SECRET": SECRET})
            assert done.exit_code == 0, done.output + done.stderr
        emit_a_request_a_minute(aws, "main", "default", "two")
        shards = {"TIDEGATE_SHARD_ENDPOINTS": json.dumps({"alpha": f"127.0.0.1:{server.port}"})}
        with (
            Environment("tidegate.lambdas.console.handler", stores, Path(folder / "console.log")) as console,
            Environment("tidegate.lambdas.gateway.handler", stores | shards, Path(folder / "gateway.log")) as gateway,
        ):
            served = serve(console, gateway)
            yield f"http://127.0.0.1:{served.server_address[1]}"
            served.shutdown()
            served.server_close()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/console", "serves two"),
        ("/console/objectives/main", "default"),
        ("/console/playground/main#context=%7B%7D", "by rule"),
        ("/console/rules", "main"),
        ("/console/rules/history", "serves one"),
        ("/console/models/two", "Blast radius"),
        ("/console/fleet", "alpha"),
    ],
)
def test_an_operator_with_a_token_has_every_page(address: str, browser: Browser, path: str, text: str) -> None:
    # The stream is refused by the function, and the page asks for the overview instead.
    watched = Watched(address, expected="501")
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(f"sessionStorage.setItem('tidegate-token', {json.dumps(TOKEN)})")
    page = context.new_page()
    watched.attach(page)
    page.goto(address + path)
    page.locator("h1").first.wait_for()
    page.get_by_text(text).or_(page.get_by_label(text)).first.wait_for(state="attached")
    page.locator("main .waiting").first.wait_for(state="detached")
    context.close()
    watched.judge()
    assert any(url.endswith("/v1/overview") for url in watched.urls)


def test_whoever_has_no_token_is_asked_for_one(address: str, browser: Browser) -> None:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(f"{address}/console")
    page.locator("input[type=password]").first.wait_for()
    assert page.get_by_text("serves two").count() == 0
    context.close()
