"""Functions as Lambda runs them, in front of a real Triton and of AWS on this machine."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import socket
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.provision import provision
from tidegate.metrics import Metric
from tidegate.ports import LiveEntry

from tests.support.aws import LocalAws, names
from tests.support.lambda_runtime import Environment
from tests.web.conftest import OPERATOR, Host, triton

__all__ = ["triton"]

EVENTS = Path(__file__).parent / "events"


def alarm_event(name: str, at: float) -> Any:
    """A recorded event of an alarm that changes its state at a time in Unix seconds."""
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").removesuffix("+00:00")
    return json.loads((EVENTS / f"{name}.json").read_text().replace("2026-11-24T08:00:00", text))


@dataclass(frozen=True, slots=True)
class Answer:
    """A function's response to an HTTP event; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_base64: bool

    @property
    def json(self) -> Any:
        """The document, unpacked where the recorded request's `accept-encoding` had Triton pack it."""
        packing = self.headers.get("content-encoding")
        unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress}.get(packing or "", bytes)
        return json.loads(unpack(self.body))


def http_event(
    path: str,
    body: bytes | str | dict[str, Any] = b"",
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    kind: str = "http_api",
    query: str = "",
) -> dict[str, Any]:
    """A recorded event with another request in it; a body that is no text comes as base64, as the platform sends it."""
    event: dict[str, Any] = json.loads((EVENTS / f"{kind}.json").read_text())
    if isinstance(body, dict):
        body = json.dumps(body)
    data = body.encode() if isinstance(body, str) else body
    event["rawPath"] = path
    event["rawQueryString"] = query
    event["requestContext"]["http"] |= {"path": path, "method": method}
    event["headers"] |= {"content-length": str(len(data)), **(headers or {})}
    try:
        event["body"], event["isBase64Encoded"] = data.decode(), False
    except UnicodeDecodeError:
        event["body"], event["isBase64Encoded"] = base64.b64encode(data).decode(), True
    return event


def read(response: Mapping[str, Any]) -> Answer:
    """What a function answered."""
    body = response.get("body", "")
    is_base64 = response.get("isBase64Encoded", False)
    data = base64.b64decode(body) if is_base64 else body.encode()
    return Answer(response["statusCode"], response.get("headers") or {}, data, is_base64)


@dataclass(slots=True)
class Deployment:
    """A bucket and a table with rules that are live, as the functions of one stage share them."""

    aws: LocalAws
    sequence: int = 0
    environments: list[Environment] = field(default_factory=list)

    def publish(self, bundle: bytes) -> str:
        """Make rules live; their revision."""

        async def flip() -> str:
            store = S3BundleStore(self.aws.objects())
            revision = await store.put_bundle(bundle)
            self.sequence += 1
            before = await store.pointer()
            await store.flip(LiveEntry(revision, self.sequence, "tests", 1_795_507_200.0, "a test"), before)
            return revision

        return asyncio.run(flip())

    def variables(self, shards: Mapping[str, int]) -> dict[str, str]:
        """The variables that a function of this stage gets."""
        return {
            "TIDEGATE_BUCKET": self.aws.bucket,
            "TIDEGATE_REGISTRY_TABLE": self.aws.table,
            "TIDEGATE_AWS_ENDPOINT_URL": self.aws.url,
            "TIDEGATE_OPERATOR_TOKEN": OPERATOR,
            "TIDEGATE_SHARD_ENDPOINTS": json.dumps({shard: f"127.0.0.1:{port}" for shard, port in shards.items()}),
        }


@pytest.fixture
def deployment(aws_url: str) -> Deployment:
    """A stage of its own."""
    local = names(aws_url)
    asyncio.run(provision(local.clients(), local.bucket, local.table))
    return Deployment(local)


Starter = Callable[..., Environment]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts environments that are gone with the test."""
    running: list[Environment] = []

    def started(function: str, variables: Mapping[str, str], code: Path | None = None, **options: Any) -> Environment:
        log = tmp_path / f"{function}-{len(running)}.log"
        environment = Environment(f"tidegate.lambdas.{function}.handler", variables, log, code, **options)
        environment.__enter__()
        running.append(environment)
        return environment

    yield started
    for environment in running:
        environment.__exit__(None, None, None)
        check_metrics(environment)


def check_metrics(environment: Environment) -> None:
    """Every metric that a function emitted is in the table, with its unit and its dimensions."""
    known = {metric.metric_name: metric for metric in Metric}
    for line in environment.log.splitlines():
        if not line.startswith('{"_aws"'):
            continue
        document = json.loads(line)
        for group in document["_aws"]["CloudWatchMetrics"]:
            for stated in group["Metrics"]:
                metric = known[stated["Name"]]
                assert stated["Unit"] == metric.unit
                assert document["service"] in metric.functions
                assert any(set(dimensions) == set(group["Dimensions"][0]) for dimensions in metric.dimensions), line


def ask(
    environment: Environment,
    path: str,
    body: bytes | str | dict[str, Any] = b"",
    headers: Mapping[str, str] | None = None,
    remaining_ms: int = 30_000,
    **event: Any,
) -> Answer:
    """Invoke a function with a request, and read its answer."""
    return read(environment.invoke(http_event(path, body, headers, **event), remaining_ms))


@pytest.fixture
def shards(triton: Host) -> dict[str, int]:
    """The port of each shard: both are the one real Triton."""
    return {"main": triton.port, "spare": triton.port}


class Cutter:
    """A TCP proxy that can hang, and whose open connections can be cut, as they are behind the back of a frozen process."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._hangs = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Cut every open connection; how many there were."""
        cut, self._open = self._open, []
        for each in cut:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        return len(cut)

    def hang(self) -> None:
        """Take what is sent from now on, and pass none of it on."""
        self._hangs = True

    def close(self) -> None:
        """Stop."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self._hangs:
                    sink.sendall(data)


@pytest.fixture
def cutting() -> Iterator[Callable[[int], Cutter]]:
    """Makes proxies that cut connections."""
    made: list[Cutter] = []

    def make(target: int) -> Cutter:
        made.append(Cutter(target))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
