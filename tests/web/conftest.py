"""The gateway behind its listener, in front of a real or a scripted Triton."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tidegate.gateway import DispatchConfig, Dispatcher
from tidegate.ports import Endpoint, FleetStatus
from tidegate.rules import Engine, compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.installation import find_installation
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app
from tidegate.web.model_answers import ModelErrors

from tests.support.listening import Listening, listening
from tests.support.parts import need
from tests.support.processes import refusing_port, reserve_port

HERE = Path(__file__).parent
START_TIMEOUT_S = 300
STOP_TIMEOUT_S = 60
MODELS = ("pair_sum", "text_sum", "echo", "tally")
MAX_BODY_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response, unchanged except for header names, which are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The text of an error, checked to have exactly the protocol's format."""
        document = self.json
        assert list(document) == ["error"]
        assert self.headers["content-type"] == "application/json"
        assert isinstance(document["error"], str)
        return document["error"]

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document, checked to be one (RFC 9457)."""
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = self.json
        assert document["status"] == self.status
        assert {"type", "title", "detail"} <= document.keys()
        return document


@dataclass(frozen=True, slots=True)
class Host:
    """An HTTP server on a local port."""

    port: int

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | dict[str, Any] | None = None,
        headers: Mapping[str, str] | list[tuple[str, str]] = {},  # noqa: B006
    ) -> Reply:
        """Send one request on a connection of its own; a dictionary is sent as JSON."""
        pairs = list(headers.items()) if isinstance(headers, Mapping) else headers
        if isinstance(body, dict):
            body = json.dumps(body)
        data = body.encode() if isinstance(body, str) else body
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_accept_encoding=True)
            if data is not None:
                connection.putheader("Content-Length", str(len(data)))
            for name, value in pairs:
                connection.putheader(name, value)
            connection.endheaders(data)
            response = connection.getresponse()
            received = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, received, response.read())

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, None, {name.replace("_", "-"): value for name, value in headers.items()})


@contextlib.contextmanager
def serving(app: Any) -> Iterator[Host]:
    """Serve `app` behind the listener, as `tidegate up` does."""
    with listening(app) as served:
        yield Host(served.port)


@dataclass(frozen=True, slots=True)
class Received:
    """A request that the scripted Triton received; header names in lower case, in order."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


Script = Callable[[Received], tuple[int, Mapping[str, str], bytes]]


@dataclass
class FakeTriton:
    """A fake Triton that answers as `script` says, and records requests."""

    port: int
    hang_up: Callable[[], None]
    received: list[Received] = field(default_factory=list)
    script: Script = field(default=lambda request: silent(request))


def silent(_: Received) -> tuple[int, Mapping[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, b"{}"


@pytest.fixture
def fake(fake_server: FakeTriton) -> Iterator[FakeTriton]:
    """The scripted Triton, which answers `{}` until a test sets another script."""
    fake_server.received.clear()
    fake_server.script = silent
    yield fake_server
    # A test's gateway would keep its connections, and with them two descriptors each, for as long as this process runs.
    fake_server.hang_up()


class HangingUp(ThreadingHTTPServer):
    """A server that can end its connections."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        for each in list(self._open):
            # One that its client has closed meanwhile.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="session")
def fake_server() -> Iterator[FakeTriton]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = [(name.lower(), value) for name, value in self.headers.items()]
            request = Received(self.command, self.path, headers, body)
            if self.path == "/v2/health/live":
                # The dispatcher's own health requests, which depend on time, are not recorded.
                status, answer_headers, answer = silent(request)
            else:
                double.received.append(request)
                status, answer_headers, answer = double.script(request)
            self.send_response_only(status)
            for name, value in answer_headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = handle_any

        def log_message(self, *_: object) -> None:
            return

    server = HangingUp(("127.0.0.1", 0), Handler)
    double = FakeTriton(server.server_address[1], server.hang_up)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield double
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture(scope="session")
def engine() -> Engine:
    return load_bundle(compile_directory(HERE / "rules"))


OPERATOR = "a-token-of-the-tests-0123"
AS_OPERATOR = {"Authorization": f"Bearer {OPERATOR}"}


def gateway_app(
    engine: Engine,
    shards: Mapping[str, int],
    fleet: FleetStatus | None = None,
    model_errors: ModelErrors = ModelErrors.PASSED,
    streams: bool = True,
    sequence_key: str = "",
    **config: Any,
) -> Any:
    """Create the gateway in front of one local port per shard; `OPERATOR` is its operators' token."""
    endpoints = {shard: (Endpoint(shard, "127.0.0.1", port),) for shard, port in shards.items()}
    dispatcher = Dispatcher(PooledTransport(), MemoryEndpointDirectory(endpoints), DispatchConfig(**config))
    return create_app(
        engines=MemoryEngineSource(engine),
        dispatcher=dispatcher,
        fleet=fleet,
        max_body_bytes=MAX_BODY_BYTES,
        model_errors=model_errors,
        streams=streams,
        operator_token=OPERATOR,
        sequence_key=lambda: sequence_key,
    )


@pytest.fixture
def scripted(scripted_server: tuple[Any, Host], fake: FakeTriton, engine: Engine) -> Host:
    """A new gateway in front of the scripted Triton; the shard `spare` refuses connections."""
    slot, host = scripted_server
    slot.app = gateway_app(engine, {"main": fake.port, "spare": refusing_port()})
    return host


@pytest.fixture(scope="session")
def scripted_server() -> Iterator[tuple[Any, Host]]:
    class Slot:
        """Holds the app of the current test, so that one server is enough for all tests."""

        app: Any = None
        served: Listening

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    slot = Slot()
    with listening(slot) as served:
        slot.served = served
        yield slot, Host(served.port)


@pytest.fixture(autouse=True)
def left_to_no_other_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """End what a test's gateway does in the loop of all tests, such as looking for servers that are gone."""
    if "scripted_server" not in request.fixturenames:
        yield
        return
    slot, _ = request.getfixturevalue("scripted_server")

    async def others() -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - {asyncio.current_task()}

    async def end(tasks: set[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    before = slot.served.run(others())
    yield
    slot.served.run(end(slot.served.run(others()) - before))


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A real Triton with the models in tests/web/models."""
    need("pytriton")
    installation = find_installation()
    port, metrics_port = reserve_port(), reserve_port()
    prefix = f"tidegate-web-{uuid.uuid4().hex[:8]}"
    log = tmp_path_factory.mktemp("triton") / "log"
    command = [
        str(installation.server),
        f"--model-repository={HERE / 'models'}",
        f"--backend-directory={installation.backend_directory}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in MODELS),
        "--disable-auto-complete-config",
        "--http-header-forward-pattern=(?i)tidegate-param-.*",
        "--http-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        f"--http-port={port}",
        f"--metrics-port={metrics_port}",
        "--allow-grpc=false",
        "--exit-timeout-secs=3",
    ]
    host = Host(port)
    for _ in range(3):
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=installation.environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        # On a machine that is very busy, Triton aborts at times while it starts its Python models.
        if _is_ready(host, process, log):
            break
    try:
        assert process.poll() is None, log.read_text()[-4000:]
        yield host
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_TIMEOUT_S)
        for region in Path("/dev/shm").glob(f"{prefix}*"):
            region.unlink(missing_ok=True)


def _is_ready(host: Host, process: subprocess.Popen[bytes], log: Path) -> bool:
    """Wait until Triton is ready; return False if it has aborted."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() == -signal.SIGABRT:
            return False
        assert process.poll() is None, log.read_text()[-4000:]
        with contextlib.suppress(OSError):
            if host.get("/v2/health/ready").status == 200:
                return True
        time.sleep(0.1)
    pytest.fail(f"Triton was not ready within {START_TIMEOUT_S} s:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="session")
def gateway(engine: Engine, triton: Host) -> Iterator[Host]:
    """The gateway in front of the real Triton."""
    with serving(gateway_app(engine, {"main": triton.port})) as host:
        yield host


@pytest.fixture
def guarded(scripted_server: tuple[Any, Host], fake: FakeTriton, granting: Engine) -> Host:
    """The gateway with the callers of a module's `granting`, in front of the scripted Triton on both shards."""
    slot, host = scripted_server
    slot.app = gateway_app(granting, {"main": fake.port, "spare": fake.port})
    fake.script = sound_model
    return host


def sound_model(request: Received) -> tuple[int, Mapping[str, str], bytes]:
    """Describe every model as serving versions 1 and 2; answer everything else without outputs."""
    if request.method == "GET" and re.fullmatch(r"/v2/models/\w+(/versions/\d+)?", request.path):
        document = {"name": "m", "versions": ["1", "2"], "inputs": [], "outputs": []}
        return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()
    return 200, {"Content-Type": "application/json"}, b'{"outputs":[]}'
