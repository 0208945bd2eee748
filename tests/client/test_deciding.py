"""What the SDK decides is what the gateway decides: by the polled bundle, by a resolver, for threads and for event loops."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tidegate.client import AsyncClient, Client
from tidegate.client.connections import Connections
from tidegate.client.exchange import Request
from tidegate.errors import (
    ContextError,
    NoRuleError,
    RefusedError,
    SettingsError,
    StoreError,
    TidegateError,
    UnavailableError,
    UnknownObjectiveError,
)
from tidegate.gateway import Dispatcher
from tidegate.ports import Endpoint
from tidegate.rules import Decision, Engine, compile_directory, load_bundle
from tidegate.rules.bundle import unpack
from tidegate.rules.resolved import resolve_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app

from conformance.contexts import Mentioned, contexts
from conformance.corpus import RULES
from tests.support.listening import listening
from tests.support.processes import refusing_port
from tests.support.stack import ROOT, eventually, write_rules

CONTEXTS = 10_000
TOKEN = "an-operators-token-0123"
KEPT_MS = 3_600_000
"""Decisions of a resolver outlast every test, however slow."""

POLLS = 3600.0
"""The time between two polls where a test makes the only one."""


@dataclass
class Server:
    """A gateway whose rules a test may change; `asked` has the requests that it got, as path and status."""

    engines: MemoryEngineSource
    url: str = ""
    asked: list[tuple[str, int]] = field(default_factory=list)

    def count(self, path: str, status: int) -> int:
        return self.asked.count((path, status))


def server_app(server: Server, **options: Any) -> Any:
    directory = MemoryEndpointDirectory({"alpha": (Endpoint("alpha", "127.0.0.1", 1),)})
    app = create_app(
        engines=server.engines,
        dispatcher=Dispatcher(PooledTransport(), directory),
        operator_token=TOKEN,
        decision_ttl_ms=KEPT_MS,
        **options,
    )

    async def noted(scope: Any, receive: Any, send: Any) -> None:
        async def noting(message: Any) -> None:
            if message["type"] == "http.response.start":
                server.asked.append((scope["path"], message["status"]))
            await send(message)

        await app(scope, receive, noting)

    return noted


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_bundle(compile_directory(RULES))


@pytest.fixture
def server(engine: Engine) -> Iterator[Server]:
    made = Server(MemoryEngineSource(engine))
    with listening(server_app(made, is_bundle_open=True)) as served:
        made.url = f"http://127.0.0.1:{served.port}"
        yield made


def outcome(decide: Any, *arguments: Any) -> Any:
    """A decision, or its error as what a program sees of it."""
    try:
        return decide(*arguments)
    except TidegateError as error:
        return type(error), getattr(error, "attribute", None)


def random_contexts(engine: Engine, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    mentioned = Mentioned(engine.bundle.data)
    each = -(-count // len(engine.objectives))
    for name, objective in engine.objectives.items():
        for context, _ in contexts(objective, mentioned.values(name), mentioned.experiments(name), each):
            yield name, context


def test_ten_thousand_random_contexts_are_decided_alike(server: Server, engine: Engine) -> None:
    """By the engine, by the SDK for threads and for loops, and by the app behind the path of a resolver."""
    asked = list(random_contexts(engine, CONTEXTS))
    assert len(asked) >= CONTEXTS
    expected = [outcome(engine.decide, *each) for each in asked]
    assert {type(each) for each in expected} == {Decision, tuple}
    with Client(server.url, poll_s=POLLS) as client:
        assert [outcome(client.decide, *each) for each in asked] == expected

    async def by_loop() -> list[Any]:
        async with AsyncClient(server.url, poll_s=POLLS) as client:
            return [await async_outcome(client, *each) for each in asked]

    assert asyncio.run(by_loop()) == expected
    app = server_app(server)

    async def by_resolver() -> list[Any]:
        return [await resolved(app, *each) for each in asked]

    shown = [each.as_dict() if isinstance(each, Decision) else each for each in expected]
    assert asyncio.run(by_resolver()) == shown


def test_a_resolvers_decisions_that_are_kept_are_those_of_the_engine(server: Server, engine: Engine) -> None:
    asked = list(random_contexts(engine, 700))
    expected = [outcome(engine.decide, *each) for each in asked]
    with Client(server.url, decide="resolver") as client:
        for _ in range(2):
            assert [outcome(client.decide, *each) for each in asked] == expected

    async def by_loop() -> list[Any]:
        async with AsyncClient(server.url, decide="resolver") as client:
            return [await async_outcome(client, *each) for each in asked[:100]]

    assert asyncio.run(by_loop()) == expected[:100]
    # The second time errors alone are asked for again.
    assert sum(path.endswith("/resolve") for path, _ in server.asked) < 1.5 * len(asked) + 100


async def async_outcome(client: AsyncClient, objective: str, context: Any) -> Any:
    try:
        return await client.decide(objective, context)
    except TidegateError as error:
        return type(error), getattr(error, "attribute", None)


async def resolved(app: Any, objective: str, context: Any) -> Any:
    """The decision in an answer of the app, or the error of its problem."""
    sent: list[Any] = []
    body = json.dumps({"context": context}).encode()

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    path = f"/v1/objectives/{objective}/resolve"
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
    }
    await app(scope, receive, send)
    document = json.loads(sent[1]["body"])
    if sent[0]["status"] == 200:
        return document["decision"]
    kinds = {"context": ContextError, "no-rule": NoRuleError}
    return kinds[document["type"].rpartition(":")[2]], document.get("attribute")


def test_an_import_needs_the_standard_library_alone() -> None:
    script = "import sys; sys.path.insert(0, 'functions'); import tidegate.client; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    packages = {name.partition(".")[0] for name in done.stdout.split()} - {"tidegate", "__main__"}
    assert packages <= sys.stdlib_module_names


# Polling.


def changed(engine: Engine, model: str = "ranker") -> Engine:
    """The engine of another revision: the same rules, resolved."""
    targets = engine.bundle.manifest.targets
    versions = {name: version or 9 for name, (_, version) in targets.items()}
    return load_bundle(resolve_bundle(engine.bundle.data, versions, {}))


def test_a_change_is_followed_and_nothing_else_is_sent_again(server: Server, engine: Engine) -> None:
    with Client(server.url, poll_s=0.01) as client:
        assert client.decide("windows").version is not None or client.revision == engine.revision
        assert eventually(lambda: client.decide("windows") and server.count("/v1/bundle", 304) >= 3)
        assert server.count("/v1/bundle", 200) == server.count("/v1/shards", 200) == 1
        server.engines.live = changed(engine)
        assert eventually(lambda: client.decide("windows") and client.revision == server.engines.live.revision)
        assert client.decide("sets", {"features": ["hero"]}).version == 9
        assert server.count("/v1/bundle", 200) == 2


def test_nothing_runs_while_nothing_is_decided(server: Server) -> None:
    with Client(server.url, poll_s=0.01) as client:
        client.decide("windows")
        polling = client._polling
        assert polling is not None
        polling.join()
        before = len(server.asked)
        assert not [thread for thread in threading.enumerate() if thread.name == "tidegate-poll"]
        # Many poll intervals later no request has come.
        threading.Event().wait(0.2)
        assert len(server.asked) == before
        # Rules that were not polled for so long are late: the decision waits for the poll that it starts.
        assert eventually(lambda: client.decide("windows") and len(server.asked) > before)


def test_rules_that_are_late_wait_for_a_poll(server: Server, engine: Engine, tmp_path: Path) -> None:
    with Client(server.url, cache_dir=tmp_path) as client:
        client.decide("windows")
    for path in tmp_path.glob("*.bundle"):
        os.utime(path, (0, 0))
    server.engines.live = changed(engine)
    with Client(server.url, cache_dir=tmp_path, fresh_wait_s=60) as client:
        client.decide("windows")
        assert client.revision == server.engines.live.revision


def test_the_last_good_bundle_serves_while_the_gateway_is_down(
    server: Server, engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "kept"
    with Client(server.url, cache_dir=folder) as client:
        expected = client.decide("choices", {"member_id": "42", "country": "DK"})
    (bundle,) = folder.glob("*.bundle")
    assert bundle.read_bytes() == engine.bundle.data
    assert bundle.stat().st_mode & 0o077 == 0
    down = f"http://127.0.0.1:{refusing_port()}"
    kept = bundle.with_name(next(iter(_file_name(down, folder))))
    bundle.rename(kept)
    with Client(down, cache_dir=folder) as client:
        assert client.decide("choices", {"member_id": "42", "country": "DK"}) == expected
    with (
        Client(down, cache_dir=folder, poll_s=1e-9, max_age_s=1e-8) as client,
        pytest.raises(StoreError, match="max_age_s"),
    ):
        client.decide("windows")
    with caplog.at_level(logging.WARNING):
        kept.write_bytes(kept.read_bytes()[:-10])
        with Client(down, cache_dir=folder) as client, pytest.raises(StoreError, match="cannot be read"):
            client.decide("windows")
    assert "is damaged" in caplog.text


def _file_name(url: str, folder: Path) -> Iterator[str]:
    client = Client(url, cache_dir=folder)
    assert client._rules._file is not None
    yield client._rules._file.name


def test_a_gateway_that_does_not_answer_is_asked_more_and_more_rarely(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(f"http://127.0.0.1:{refusing_port()}", poll_s=1.0)
    pauses = []
    for failures in range(8):
        client._rules._failures = failures
        pauses.append([client._rules._pause_s() for _ in range(200)])
    assert all(0.9 <= each <= 1.1 for each in pauses[0])
    assert all(max(each) > min(each) for each in pauses)
    for failures, found in enumerate(pauses[1:], start=1):
        longest = min(30.0, 2.0**failures)
        assert longest / 2 <= min(found) <= max(found) <= 1.1 * longest
    with pytest.raises(StoreError):
        client.decide("windows")
    # The error stays until the next poll is due.
    with pytest.raises(StoreError):
        client.decide("windows")


def test_a_bundle_that_is_not_what_its_tag_names_is_not_used(engine: Engine) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"etag", b'"another"'), (b"content-length", b"%d" % len(engine.bundle.data))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": engine.bundle.data})

    with listening(app) as served:
        client = Client(f"http://127.0.0.1:{served.port}", shards={})
        with pytest.raises(TidegateError, match="another bundle"):
            client.decide("windows")


@pytest.mark.parametrize(
    ("sent", "compressed"),
    [
        ({}, False),
        ({"Accept-Encoding": "gzip, deflate"}, True),
        ({"Accept-Encoding": "br;q=1, gzip;q=0.5"}, True),
        ({"Accept-Encoding": "gzip;q=0"}, False),
        ({"Accept-Encoding": "identity"}, False),
        ({"Accept-Encoding": "*"}, True),
    ],
)
def test_the_bundle_is_compressed_for_who_takes_that(
    server: Server, engine: Engine, sent: Mapping[str, str], compressed: bool
) -> None:
    connections = Connections(2.0)
    reply = connections.send(Request(server.url, "GET", "/v1/bundle", [*sent.items()]))
    assert (reply.headers.get("content-encoding") == "gzip") == compressed
    assert (gzip.decompress(reply.body) if compressed else reply.body) == engine.bundle.data
    tag = reply.headers["etag"]
    assert engine.revision in tag
    again = connections.send(Request(server.url, "GET", "/v1/bundle", [*sent.items(), ("If-None-Match", tag)]))
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    # A tag is of one coding: who has the bytes of another lacks these.
    other = f'"{engine.revision}"' if compressed else f'"{engine.revision}-gzip"'
    assert (
        connections.send(Request(server.url, "GET", "/v1/bundle", [*sent.items(), ("If-None-Match", other)])).status
        == 200
    )
    connections.close()


# Who may read the bundle.

CALLERS = """
callers:
  reader: {objectives: [windows, choices], bundle: true, traffic: synthetic}
  asker: {objectives: [windows]}
"""


@pytest.fixture(scope="module")
def granting(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    root = tmp_path_factory.mktemp("rules")
    for path in RULES.rglob("*.yaml"):
        copy = root / path.relative_to(RULES)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (root / "callers.yaml").write_text(CALLERS)
    return load_bundle(compile_directory(root))


@pytest.mark.parametrize(("is_open", "caller", "reads"), [
    (False, "reader", True), (False, "asker", False), (False, "nobody", False), (False, None, False),
    (True, "reader", True), (True, "asker", True), (True, "nobody", False), (True, None, False),
])  # fmt: skip
def test_only_who_is_granted_the_bundle_reads_it(
    granting: Engine, is_open: bool, caller: str | None, reads: bool
) -> None:
    server = Server(MemoryEngineSource(granting))
    with listening(server_app(server, is_bundle_open=is_open)) as served:
        client = Client(f"http://127.0.0.1:{served.port}", caller=caller)
        if reads:
            assert client.decide("windows").objective == "windows"
        else:
            with pytest.raises(RefusedError):
                client.decide("windows")
        assert {status for _, status in server.asked} == {200 if reads else 403}


@pytest.mark.parametrize("listed", [True, False])
def test_everyone_reads_the_bundle_of_a_stack_whose_rules_list_no_callers(
    engine: Engine, granting: Engine, listed: bool
) -> None:
    server = Server(MemoryEngineSource(granting if listed else engine))
    with listening(server_app(server, is_bundle_open_unlisted=True)) as served:
        for path in ("/v1/bundle", "/v1/shards"):
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
            connection.request("GET", path, headers={"Tidegate-Caller": "asker"})
            assert connection.getresponse().status == (403 if listed else 200)
            connection.close()


def test_without_callers_the_bundle_is_for_operators(engine: Engine) -> None:
    server = Server(MemoryEngineSource(engine))
    with listening(server_app(server)) as served:
        url = f"http://127.0.0.1:{served.port}"
        with pytest.raises(RefusedError, match=r"no callers\.yaml"):
            Client(url).decide("windows")
        operator = Client(url, headers={"Tidegate-Operator": TOKEN})
        assert operator.decide("windows") == engine.decide("windows", {})


@pytest.mark.parametrize("decide", ["bundle", "resolver"])
def test_grants_of_objectives_hold(granting: Engine, decide: str) -> None:
    server = Server(MemoryEngineSource(granting))
    with listening(server_app(server)) as served:
        client = Client(f"http://127.0.0.1:{served.port}", caller="reader", decide=decide)
        assert client.decide("choices", {"member_id": "1"}).objective == "choices"
        for objective in ("sets", "nothing"):
            with pytest.raises(RefusedError, match=f"may not use '{objective}'"):
                client.decide(objective)


# Resolvers.


def test_a_decision_is_asked_for_once_for_all_that_its_rules_cannot_distinguish(server: Server, tmp_path: Path) -> None:
    rules = "[{id: home, when: {country: SE}, serve: one}, {id: all, serve: other}]"
    write_rules(tmp_path, {"alpha": 1}, {"one": ["alpha"], "other": ["alpha"]}, plain="one", split=rules)
    engine = server.engines.live = load_bundle(compile_directory(tmp_path))
    assert (engine.depends_on("plain"), engine.depends_on("split")) == ((), ("country",))
    client = Client(server.url, decide="resolver")
    for number in range(20):
        context = {"country": f"country {number}", "undeclared": number}
        assert client.decide("plain", context).target.name == "one"
        assert client.decide("split", {**context, "country": "SE"}).target.name == "one"
        assert client.decide("split", {**context, "country": "NO"}).target.name == "other"
    assert server.count("/v1/objectives/plain/resolve", 200) == 1
    assert server.count("/v1/objectives/split/resolve", 200) == 2
    # Another type is another question, whatever the rules look at.
    with pytest.raises(ContextError):
        client.decide("plain", {"country": 1, "undeclared": 0})


def test_a_resolver_that_fails_is_bridged_for_a_while(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(server.url, decide="resolver", stale_s=KEPT_MS / 1000)
    expected = client.decide("numbers", {"age": 14})
    impatient = Client(server.url, decide="resolver", stale_s=0)
    impatient.decide("numbers", {"age": 14})
    for each in (client, impatient):
        each._resolver._url = f"http://127.0.0.1:{refusing_port()}"
        each._resolver._kept = {
            key: kept._replace(until_s=time.monotonic() - 1.0) for key, kept in each._resolver._kept.items()
        }
    assert client.decide("numbers", {"age": 14}) == expected
    for each, context in ((client, {"age": 15}), (impatient, {"age": 14})):
        with pytest.raises(UnavailableError, match="resolver does not answer"):
            each.decide("numbers", context)


@pytest.mark.parametrize("decide", ["bundle", "resolver"])
@pytest.mark.parametrize(
    ("objective", "context", "error"),
    [
        ("nothing", {}, UnknownObjectiveError),
        ("a/b?c", {}, UnknownObjectiveError),
        ("texts", {}, ContextError),
        ("texts", {"tenant": object()}, ContextError),
        ("strict", {"member_id": "1", "plan": "basic", "tags": [], "app": "1", "is_new": True, "weight": 1}, NoRuleError),
    ],
)  # fmt: skip
def test_errors_are_the_engines(
    server: Server, decide: str, objective: str, context: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        Client(server.url, decide=decide).decide(objective, context)


@pytest.mark.parametrize("body", [b"\x00\xff no text", b"[" * 200_000, b"[]", b"{}", b'{"shards": 1, "decision": {}}'])
@pytest.mark.parametrize("decide", ["bundle", "resolver"])
def test_what_is_no_answer_of_a_gateway_is_an_error_of_the_library(decide: str, body: bytes) -> None:
    async def other(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"etag", b'"1"')]})
        await send({"type": "http.response.body", "body": body})

    with listening(other) as served:
        client = Client(f"http://127.0.0.1:{served.port}", decide=decide)
        with pytest.raises((StoreError, UnavailableError)):
            client.decide("texts", {"tenant": "a"})


def test_a_child_process_decides_whatever_threads_of_its_parent_did(server: Server) -> None:
    """Each child decides although a thread that does not live there may have held a lock."""
    script = """
import os, signal, sys, threading, time
from tidegate.client import Client
client = Client(sys.argv[1], poll_s=0.01)
def decide():
    return client.decide("texts", {"tenant": "a"}).rule
decide()
ends = threading.Event()
def decide_on():
    while not ends.is_set():
        decide()
threads = [threading.Thread(target=decide_on) for _ in range(4)]
for each in threads:
    each.start()
states = []
for _ in range(10):
    child = os.fork()
    if not child:
        signal.alarm(20)
        for _ in range(5):
            decide()
            time.sleep(0.01)
        os._exit(0)
    states.append(os.waitpid(child, 0)[1])
    if states[-1]:
        break
ends.set()
print(states)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, server.url], capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "functions")},
    )  # fmt: skip
    assert done.stdout.split() == str([0] * 10).split(), done.stderr


# Options.


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("127.0.0.1:8080", {}, "not the URL of a server"),
        ("http://127.0.0.1:8080/v2", {}, "without a path"),
        ("http://a", {"poll_s": 0}, "poll_s"),
        ("http://a", {"timeout_ms": float("nan")}, "timeout_ms"),
        ("http://a", {"stale_s": -1}, "stale_s"),
        ("http://a", {"max_age_s": 3, "poll_s": 2}, r"max_age_s must be at least twice poll_s \(2\), got 3"),
        ("http://a", {"headers": {"Authorization": "Bearer x\r\nA: b"}}, "'Authorization' must be printable ASCII"),
        ("http://a", {"proxy": "http://b", "shards": {}}, "exclude each other"),
        ("http://a", {"shards": {"alpha": ["10.0.0.1:8000"]}}, "not the URL of a server"),
        (
            "http://a",
            {"shards": {"alpha": "http://b:80"}},
            r"a list of addresses for 'alpha', such as \['http://b:80'\]",
        ),
        ("http://a", {"shards": {"alpha": ["http://10.0.0.1:8000"]}, "protocol": "grpc"}, "not an address for gRPC"),
        ("http://a", {"shards": "/nowhere.json"}, "cannot be read"),
        ("http://a", {"decide": "gateway"}, "decide must be bundle or resolver, got 'gateway'"),
        ("http://a", {"protocol": "GRPC"}, "protocol must be http or grpc, got 'GRPC'"),
        ("http://a", {"decide": "resolver", "protocol": "grpc"}, "no addresses for gRPC: give shards or proxy"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(url: str, options: Mapping[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Client(url, **options)


def test_a_bundle_is_loaded_as_it_was_compiled(engine: Engine) -> None:
    assert unpack(engine.bundle.data) == engine.bundle
    assert engine.bundle.data == compile_directory(RULES)
    assert json.loads(engine.bundle.lines[0])["format"] == "tidegate-bundle"
