"""What the SDK does with a decision: it calls the model, tries its other places and its fallbacks, and gives its answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tidegate.client import AsyncClient, Client, Inference
from tidegate.client.async_connections import AsyncConnections
from tidegate.client.connections import Connections
from tidegate.client.exchange import Request
from tidegate.client.tensors import http_request, tensors_of
from tidegate.errors import (
    DeadlineError,
    ModelAnswerError,
    ModelRefusedError,
    RefusedError,
    SettingsError,
    StoreError,
    UnavailableError,
)
from tidegate.gateway import Dispatcher
from tidegate.ports import Endpoint
from tidegate.rules import Engine, compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app

from bench.envoy import envoy
from tests.support.listening import listening
from tests.support.parts import need
from tests.support.processes import refusing_port
from tests.web.conftest import FakeTriton, Host, Received

FLEET = """
shards: {main: {replicas: 2}, spare: {replicas: 1}}
models: {first: {shards: [main, spare]}, second: {shards: [spare]}}
"""
OBJECTIVE = """
objective: ranking
summary: Has a fallback.
owner: tests
context: {member_id: {type: string}}
fallback: [second]
timeout_ms: 60000
rules: [{id: all, serve: first, parameters: {top_k: 20, strict: true, mode: x}}]
"""
VECTORS = {"INPUT0": [[*range(16)]], "INPUT1": [[1] * 16]}
Infer = Callable[..., Inference]


@pytest.fixture(scope="module")
def ranking(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    root = tmp_path_factory.mktemp("rules")
    (root / "objectives").mkdir()
    (root / "fleet.yaml").write_text(FLEET)
    (root / "objectives" / "ranking.yaml").write_text(OBJECTIVE)
    return load_bundle(compile_directory(root))


def gateway_of(engine: Engine, shards: Mapping[str, int | None], engines: MemoryEngineSource | None = None) -> Any:
    endpoints = {shard: (Endpoint(shard, "127.0.0.1", port),) for shard, port in shards.items() if port is not None}
    dispatcher = Dispatcher(PooledTransport(), MemoryEndpointDirectory(endpoints))
    return create_app(engines=engines or MemoryEngineSource(engine), dispatcher=dispatcher, is_bundle_open=True)


@pytest.fixture
def url(engine: Engine, triton: Host) -> Iterator[str]:
    """A gateway in front of a real Triton."""
    with listening(gateway_of(engine, {"main": triton.port})) as served:
        yield f"http://127.0.0.1:{served.port}"


@pytest.fixture(params=["sync", "async"])
def infer(request: pytest.FixtureRequest) -> Infer:
    """`infer` of a new client of either kind: its options are given by name, after what `infer` takes."""

    def by_thread(url: str, *arguments: Any, timeout_ms: float | None = None, **options: Any) -> Inference:
        with Client(url, **options) as client:
            return client.infer(*arguments, timeout_ms=timeout_ms)

    def by_loop(url: str, *arguments: Any, timeout_ms: float | None = None, **options: Any) -> Inference:
        async def once() -> Inference:
            async with AsyncClient(url, **options) as client:
                return await client.infer(*arguments, timeout_ms=timeout_ms)

        return asyncio.run(once())

    return by_thread if request.param == "sync" else by_loop


@pytest.mark.parametrize("decide", ["bundle", "resolver"])
def test_a_model_is_called_with_lists_and_with_arrays(url: str, infer: Infer, decide: str) -> None:
    arrays = {name: np.array(value, np.int32) for name, value in VECTORS.items()}
    for inputs in (VECTORS, arrays, {**VECTORS, "INPUT1": arrays["INPUT1"]}):
        answer = infer(url, "adding", inputs, {"country": "NL"}, decide=decide)
        assert answer.outputs["OUTPUT0"] == [[*range(1, 17)]]
        assert answer.array("OUTPUT1").tolist() == [[*range(-1, 15)]]
        assert (answer.decision.rule, answer.target.version, answer.shard, answer.fallback) == ("pinned", 1, "main", 0)


def test_a_time_may_be_a_number_of_numpy(ranking: Engine, fake: FakeTriton, infer: Infer) -> None:
    fake.script = answering()
    with listening(gateway_of(ranking, {"main": fake.port})) as served:
        for timeout_ms in (np.int64(60_000), np.float32(60_000)):
            assert (
                infer(f"http://127.0.0.1:{served.port}", "ranking", ONE, timeout_ms=timeout_ms).target.name == "first"
            )


def test_texts_travel_as_lists_and_as_arrays(url: str, infer: Infer) -> None:
    plain = infer(url, "echoing", {"X": [1.5, 2.5]}, {"country": "SE"})
    assert plain.outputs["Y"] == [[1.5, 2.5]]
    (sent,) = plain.array("PARAMETERS").ravel().tolist()
    for texts in (np.array(["é"]), np.array(["é"], dtype=object), np.array(["é".encode()])):
        assert http_request(tensors_of({"X": texts}, None))[0].endswith(b"\2\0\0\0\xc3\xa9")
    assert json.loads(sent) == json.loads(plain.outputs["PARAMETERS"][0][0])


def test_a_model_gets_the_rules_parameters_and_the_origin(url: str, infer: Infer) -> None:
    answer = infer(url, "echoing", {"X": np.ones((1, 2), np.float32)}, {"country": "SE"})
    parameters = {name.lower(): value for name, value in json.loads(answer.outputs["PARAMETERS"][0][0]).items()}
    wanted = {"top_k": "20", "strict": "true", "greeting": "hello there", "ratio": "0.5", "tidegate_traffic": "real"}
    assert {f"tidegate-param-{name}": value for name, value in wanted.items()}.items() <= parameters.items()


def test_a_model_is_told_no_traffic_class_that_the_client_does_not_know(url: str, infer: Infer) -> None:
    """Of a caller whose class only the resolver knows."""
    answer = infer(url, "echoing", {"X": np.ones((1, 2), np.float32)}, {"country": "SE"}, decide="resolver")
    parameters = {name.lower() for name in json.loads(answer.outputs["PARAMETERS"][0][0])}
    assert "tidegate-param-top_k" in parameters
    assert "tidegate-param-tidegate_traffic" not in parameters


def test_an_input_that_does_not_fit_is_refused_by_name(url: str, infer: Infer) -> None:
    with pytest.raises(RefusedError, match="INPUT9"):
        infer(url, "adding", {"INPUT9": [1]})
    with pytest.raises(ModelRefusedError) as caught:
        infer(url, "adding", {"INPUT0": np.zeros((1, 3), np.int32), "INPUT1": np.zeros((1, 3), np.int32)})
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("inputs", "timeout_ms", "words"),
    [
        ([[1]], None, "inputs must be a mapping of names to values, not a list"),
        ({}, 0, "timeout_ms must be a finite number above 0, not 0"),
        ({}, float("inf"), "timeout_ms must be a finite number above 0, not inf"),
        ({}, "5", "timeout_ms must be a finite number above 0, not '5'"),
    ],
)
def test_what_is_no_request_is_refused(
    ranking: Engine, fake: FakeTriton, infer: Infer, inputs: Any, timeout_ms: Any, words: str
) -> None:
    fake.script = answering()
    with listening(gateway_of(ranking, {"main": fake.port})) as served, pytest.raises(RefusedError, match=words):
        infer(f"http://127.0.0.1:{served.port}", "ranking", inputs, timeout_ms=timeout_ms)


@pytest.mark.parametrize("decide", ["bundle", "resolver"])
def test_a_client_of_another_event_loop_says_so(ranking: Engine, fake: FakeTriton, decide: str) -> None:
    fake.script = answering()
    with listening(gateway_of(ranking, {"main": fake.port})) as served:
        client = AsyncClient(f"http://127.0.0.1:{served.port}", decide=decide)
        answer = asyncio.run(client.infer("ranking", ONE))
        assert repr(answer).startswith("Inference(target='first', fallback=0, shard='main', address='http://127.0.0.1:")
        for again in (client.infer("ranking", ONE), client.close()):
            with pytest.raises(SettingsError, match="belongs to the event loop in which it was used first"):
                asyncio.run(again)


@pytest.mark.parametrize("decide", ["bundle", "resolver"])
def test_a_url_of_something_else_is_named(infer: Infer, decide: str) -> None:
    body = b'{"type": "urn:tidegate:problem:not-found", "detail": "Not Found"}'
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with (
        answering_bytes(answer) as port,
        pytest.raises(UnavailableError, match="is not served at this URL: it must be that of a gateway or a resolver"),
    ):
        infer(f"http://127.0.0.1:{port}", "ranking", ONE, decide=decide)


def test_one_client_serves_many_threads_on_few_connections(url: str) -> None:
    failures: list[BaseException] = []
    with Client(url) as client:

        def work() -> None:
            try:
                for _ in range(20):
                    assert client.infer("adding", VECTORS).outputs["OUTPUT0"] == [[*range(1, 17)]]
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        idle = [len(each) for each in client._connections._idle.values()]
        assert max(idle) <= 8


# Failures, by a scripted Triton.

ANSWER = json.dumps(
    {"model_name": "m", "outputs": [{"name": "Y", "datatype": "INT32", "shape": [1], "data": [7]}]}
).encode()
JSON = {"Content-Type": "application/json"}
ONE = {"X": np.ones(1, np.int32)}


def answering(**by_model: tuple[int, bytes]) -> Callable[[Received], tuple[int, Mapping[str, str], bytes]]:
    def script(request: Received) -> tuple[int, Mapping[str, str], bytes]:
        status, body = by_model.get(request.path.split("/")[3], (200, ANSWER))
        return status, JSON, body

    return script


def error(text: str) -> bytes:
    return json.dumps({"error": text}).encode()


UNSERVED = error("Request for unknown model: 'first' is not found")


@pytest.mark.parametrize(
    ("status", "body", "fallback", "tried"),
    [
        # The shard's other places, and then the fallback.
        (404, UNSERVED, 1, ["first", "first", "second"]),
        (503, error("Exceeds maximum queue size"), 1, ["first", "first", "second"]),
        (502, b"", 1, ["first", "first", "second"]),
        # The model would fail everywhere.
        (500, error("boom"), 1, ["first", "second"]),
    ],
)
def test_the_next_place_is_tried(
    ranking: Engine, fake: FakeTriton, infer: Infer, status: int, body: bytes, fallback: int, tried: list[str]
) -> None:
    fake.script = answering(first=(status, body))
    with listening(gateway_of(ranking, {"main": fake.port, "spare": fake.port})) as served:
        answer = infer(f"http://127.0.0.1:{served.port}", "ranking", ONE)
    assert (answer.outputs, answer.fallback, answer.target.name) == ({"Y": [7]}, fallback, "second")
    assert [request.path.split("/")[3] for request in fake.received] == tried
    assert len(answer.failures) == len(tried) - 1


def test_a_models_own_refusal_is_the_answer(ranking: Engine, fake: FakeTriton, infer: Infer) -> None:
    fake.script = answering(first=(400, error("unexpected shape for input 'X'")))
    with (
        listening(gateway_of(ranking, {"main": fake.port})) as served,
        pytest.raises(ModelRefusedError, match="unexpected shape"),
    ):
        infer(f"http://127.0.0.1:{served.port}", "ranking", ONE)
    assert len(fake.received) == 1


def test_if_every_target_fails_the_first_error_is_raised(ranking: Engine, fake: FakeTriton, infer: Infer) -> None:
    fake.script = answering(first=(500, error("first")), second=(500, error("second")))
    shards = {"main": fake.port, "spare": fake.port}
    with listening(gateway_of(ranking, shards)) as served, pytest.raises(ModelRefusedError, match="first"):
        infer(f"http://127.0.0.1:{served.port}", "ranking", ONE)


def test_servers_that_refuse_connections_are_passed_over(ranking: Engine, fake: FakeTriton, infer: Infer) -> None:
    fake.script = answering()
    with listening(gateway_of(ranking, {"main": refusing_port(), "spare": fake.port})) as served:
        answer = infer(f"http://127.0.0.1:{served.port}", "ranking", ONE)
    assert (answer.target.name, answer.shard, answer.fallback) == ("first", "spare", 0)
    assert "cannot be reached" in answer.failures[0]
    answers = "no server of objective 'ranking' answers: shards main, spare; http://127.0.0.1:.* cannot be reached"
    with (
        listening(gateway_of(ranking, {"main": refusing_port()})) as served,
        pytest.raises(UnavailableError, match=answers),
    ):
        infer(f"http://127.0.0.1:{served.port}", "ranking", ONE)
    for protocol, what in {"http": "address", "grpc": "address for gRPC"}.items():
        words = f"has a known {what}: shards main, spare; where the gateway names none, give shards or proxy"
        with listening(gateway_of(ranking, {})) as served, pytest.raises(UnavailableError, match=words):
            infer(f"http://127.0.0.1:{served.port}", "ranking", ONE, protocol=protocol)


def test_a_server_that_hangs_costs_half_of_the_time(ranking: Engine, fake: FakeTriton, infer: Infer) -> None:
    released = threading.Event()

    def script(request: Received) -> tuple[int, Mapping[str, str], bytes]:
        if "first" in request.path:
            released.wait(60)
        return 200, JSON, ANSWER

    fake.script = script
    try:
        with listening(gateway_of(ranking, {"main": fake.port, "spare": fake.port})) as served:
            url = f"http://127.0.0.1:{served.port}"
            answer = infer(url, "ranking", ONE, timeout_ms=8000.0)
            assert answer.fallback == 1
            assert all("did not answer within" in each for each in answer.failures)
            alone = {"main": [f"http://127.0.0.1:{fake.port}"]}
            with pytest.raises(DeadlineError):
                infer(url, "ranking", ONE, timeout_ms=300.0, shards=alone)
    finally:
        released.set()


def test_requests_that_were_sent_are_retried_within_a_budget(ranking: Engine) -> None:
    """A server that ends each connection with the request under way is not asked twice for every request."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await receive()
        raise ConnectionError

    with listening(app) as broken, listening(gateway_of(ranking, {})) as served:
        shards = {"main": [f"http://127.0.0.1:{broken.port}"], "spare": [f"http://127.0.0.1:{broken.port}"]}
        with Client(f"http://127.0.0.1:{served.port}", shards=shards) as client:
            client._caller._retries = 0.0
            for _ in range(10):
                with pytest.raises((UnavailableError, ModelRefusedError)):
                    client.infer("ranking", ONE)
    assert 10 <= len(seen) <= 10 + 10 * 2


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_request_is_sent_twice_at_most_where_idle_connections_end(kind: str) -> None:
    """Each of them may have ended before the request came, or because of it."""
    with ending_at_the_second(5) as (port, seen):
        request = Request(f"http://127.0.0.1:{port}", "POST", "/", (), b"{}", 60.0)
        if kind == "sync":
            connections = Connections(60.0)
            with ThreadPoolExecutor(5) as pool:
                assert [each.status for each in pool.map(connections.send, [request] * 5)] == [200] * 5
            seen.clear()
            assert connections.send(request).status == 200
            connections.close()
        else:

            async def work() -> None:
                connections = AsyncConnections(60.0)
                await asyncio.gather(*(connections.send(request) for _ in range(5)))
                seen.clear()
                assert (await connections.send(request)).status == 200
                await connections.close()

            asyncio.run(work())
    assert len(seen) == 2


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_rpc_whose_connection_may_have_ended_is_retried_within_the_budget(ranking: Engine, kind: str) -> None:
    seen: list[int] = []

    def unavailable(_request: bytes, context: Any) -> None:
        seen.append(1)
        context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(unavailable)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler}),)
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    options: dict[str, Any] = {"shards": {"main": [address], "spare": [address]}, "protocol": "grpc"}
    try:
        with listening(gateway_of(ranking, {})) as served:
            url = f"http://127.0.0.1:{served.port}"
            if kind == "sync":
                with Client(url, **options) as client:
                    client._caller._retries = 0.0
                    for _ in range(10):
                        with pytest.raises(UnavailableError):
                            client.infer("ranking", ONE)
            else:

                async def work() -> None:
                    async with AsyncClient(url, **options) as client:
                        client._caller._retries = 0.0
                        for _ in range(10):
                            with pytest.raises(UnavailableError):
                                await client.infer("ranking", ONE)

                asyncio.run(work())
    finally:
        server.stop(None).wait()
    assert 10 <= len(seen) <= 12


Script = Callable[[Received], tuple[int, Mapping[str, str], bytes]]


def published_meanwhile(ranking: Engine, folder: Path) -> tuple[MemoryEngineSource, Engine, Script]:
    """The live rules, those that follow them with the first request to a model, and a Triton that has only what the latter name."""
    (folder / "objectives").mkdir()
    (folder / "fleet.yaml").write_text(FLEET)
    (folder / "objectives" / "ranking.yaml").write_text(OBJECTIVE.replace("serve: first", "serve: second/7"))
    engines = MemoryEngineSource(load_bundle(compile_directory(folder)))
    newer, engines.live = engines.live, ranking

    def script(request: Received) -> tuple[int, Mapping[str, str], bytes]:
        # The model is gone, and the rules are what they were after the first request.
        engines.live = newer
        if "/versions/7/" in request.path:
            return 200, JSON, ANSWER
        return 404, JSON, error(f"Request for unknown model: '{request.path.split('/')[3]}' is not found")

    return engines, newer, script


@pytest.mark.parametrize("decide", ["bundle", "resolver"])
def test_rules_that_are_no_longer_live_are_replaced_before_a_request_fails(
    ranking: Engine, fake: FakeTriton, tmp_path: Path, infer: Infer, decide: str
) -> None:
    """A publish may unload what the rules before it name, before the next poll is due."""
    engines, newer, fake.script = published_meanwhile(ranking, tmp_path)
    app = gateway_of(ranking, {"main": fake.port, "spare": fake.port}, engines)
    with listening(app) as served:
        answer = infer(
            f"http://127.0.0.1:{served.port}", "ranking", ONE, decide=decide, poll_s=3600.0, fresh_wait_s=60.0
        )
    assert (answer.target.name, answer.decision.revision) == ("second/7", newer.rules)


def counted(app: Any, asked: list[str]) -> Any:
    async def noted(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await app(scope, receive, send)

    return noted


def every(kind: str, url: str, count: int, together: bool, **options: Any) -> list[Inference | BaseException]:
    """What `count` requests of one client give, which has decided before."""
    if kind == "sync":
        with Client(url, **options) as client, ThreadPoolExecutor(count if together else 1) as pool:
            client.decide("ranking")
            waiting = [pool.submit(client.infer, "ranking", ONE) for _ in range(count)]
            return [each.exception() or each.result() for each in waiting]

    async def work() -> list[Inference | BaseException]:
        async with AsyncClient(url, **options) as client:
            await client.decide("ranking")
            if together:
                return await asyncio.gather(
                    *(client.infer("ranking", ONE) for _ in range(count)), return_exceptions=True
                )
            return [
                (await asyncio.gather(client.infer("ranking", ONE), return_exceptions=True))[0] for _ in range(count)
            ]

    return asyncio.run(work())


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("decide", ["bundle", "resolver"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_requests_that_fail_ask_once_whether_there_are_newer_rules(
    ranking: Engine, kind: str, decide: str, together: bool
) -> None:
    asked: list[str] = []
    with listening(counted(gateway_of(ranking, {"main": refusing_port()}), asked)) as served:
        url = f"http://127.0.0.1:{served.port}"
        found = every(kind, url, 30, together, decide=decide, poll_s=3600.0, fresh_wait_s=60.0)
    assert all(isinstance(each, UnavailableError) for each in found), found
    path = "/v1/bundle" if decide == "bundle" else "/v1/objectives/ranking/resolve"
    assert asked.count(path) == 2


@pytest.mark.parametrize("decide", ["bundle", "resolver"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_requests_that_fail_do_not_ask_again_what_fails(ranking: Engine, kind: str, decide: str) -> None:
    """However often an early question is allowed."""
    asked: list[str] = []
    app = gateway_of(ranking, {"main": refusing_port()})
    path = "/v1/shards" if decide == "bundle" else "/v1/objectives/ranking/resolve"

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        if asked.count(path) < 2:
            return await app(scope, receive, send)
        await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
        return await send({"type": "http.response.body", "body": b""})

    options: dict[str, Any] = {"decide": decide, "poll_s": 3600.0, "fresh_wait_s": 60.0}
    with listening(counted(failing, asked)) as served:
        url = f"http://127.0.0.1:{served.port}"
        if kind == "sync":
            with Client(url, **options) as client:
                for _ in range(10):
                    client._rules._early_s = client._resolver._early_s = 0.0
                    with pytest.raises(UnavailableError, match="no server"):
                        client.infer("ranking", ONE)
        else:

            async def work() -> None:
                async with AsyncClient(url, **options) as client:
                    for _ in range(10):
                        client._rules._early_s = client._resolver._early_s = 0.0
                        with pytest.raises(UnavailableError, match="no server"):
                            await client.infer("ranking", ONE)

            asyncio.run(work())
    assert asked.count(path) == 2


@pytest.mark.parametrize("decide", ["bundle", "resolver"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_requests_that_fail_together_share_the_newer_rules(
    ranking: Engine, fake: FakeTriton, tmp_path: Path, kind: str, decide: str
) -> None:
    asked: list[str] = []
    engines, _, fake.script = published_meanwhile(ranking, tmp_path)
    app = counted(gateway_of(ranking, {"main": fake.port, "spare": fake.port}, engines), asked)
    with listening(app) as served:
        url = f"http://127.0.0.1:{served.port}"
        found = every(kind, url, 20, True, decide=decide, poll_s=3600.0, fresh_wait_s=60.0)
    assert [each.target.name for each in found if isinstance(each, Inference)] == ["second/7"] * 20, found
    path = "/v1/bundle" if decide == "bundle" else "/v1/objectives/ranking/resolve"
    assert asked.count(path) == 2


def test_tags_may_be_weak_and_are_kept_once_their_bodies_are_used(ranking: Engine) -> None:
    """A proxy on the way may make a tag weak, and an answer without addresses is not a change to keep."""
    sent: list[tuple[str, str | None]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        named = dict(scope["headers"]).get(b"if-none-match")
        sent.append((scope["path"], named and named.decode()))
        is_bundle = scope["path"] == "/v1/bundle"
        broken = not is_bundle and len(sent) == 1
        body = ranking.bundle.data if is_bundle else b"{}" if broken else b'{"shards": {}}'
        tag = f'W/"{ranking.revision}"'.encode() if is_bundle else b'"a"'
        headers = [(b"etag", tag), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    with listening(app) as served, Client(f"http://127.0.0.1:{served.port}", poll_s=3600.0) as client:
        for _ in range(3):
            client._rules.next_poll_s = 0.0
            with contextlib.suppress(StoreError):
                client.decide("ranking")
            client._polling.join()
    assert sent == [
        ("/v1/shards", None),
        ("/v1/shards", None),
        ("/v1/bundle", None),
        ("/v1/shards", '"a"'),
        ("/v1/bundle", f'W/"{ranking.revision}"'),
    ]


# Where shards are.


def test_a_proxy_gets_the_shard_in_a_header(ranking: Engine, fake: FakeTriton, infer: Infer) -> None:
    fake.script = answering(first=(404, UNSERVED))
    with listening(gateway_of(ranking, {})) as served:
        proxy = f"http://127.0.0.1:{fake.port}"
        answer = infer(f"http://127.0.0.1:{served.port}", "ranking", ONE, proxy=proxy)
    assert [request.header("tidegate-routing-key") for request in fake.received] == ["main", "spare", "spare"]
    assert (answer.address, answer.shard) == (proxy, "spare")


def test_envoy_routes_by_the_header_and_reads_no_payload(engine: Engine, triton: Host, infer: Infer) -> None:
    need("envoy")
    with (
        envoy(f"http://127.0.0.1:{triton.port}", "main") as port,
        listening(gateway_of(engine, {})) as served,
    ):
        url, proxy = f"http://127.0.0.1:{served.port}", f"http://127.0.0.1:{port}"
        answer = infer(url, "adding", VECTORS, {"country": "NL"}, proxy=proxy)
        assert (answer.outputs["OUTPUT0"], answer.address) == ([[*range(1, 17)]], proxy)


def test_addresses_come_from_a_file_that_may_change(
    ranking: Engine, fake: FakeTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.script = answering()
    file = tmp_path / "shards.json"
    file.write_text(json.dumps({"main": [f"http://127.0.0.1:{refusing_port()}"]}))
    with (
        listening(gateway_of(ranking, {})) as served,
        Client(f"http://127.0.0.1:{served.port}", shards=file) as client,
    ):
        monkeypatch.setattr(client._shard_file, "_LOOK_S", 0.0)
        with pytest.raises(UnavailableError):
            client.infer("ranking", ONE)
        file.write_text(json.dumps({"main": [f"http://127.0.0.1:{fake.port}"]}))
        assert client.infer("ranking", ONE).outputs == {"Y": [7]}
        file.write_text("[]")
        assert client.infer("ranking", ONE).outputs == {"Y": [7]}


def test_without_numpy_arrays_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from tidegate.client.tensors import Outputs
    from tidegate.oip.framing import RawTensor

    outputs = Outputs([RawTensor("Y", "INT32", [1], b"\x07\0\0\0")])
    assert outputs.plain() == {"Y": [7]}
    monkeypatch.setitem(__import__("sys").modules, "tritonclient", None)
    with pytest.raises(ImportError, match=r"pip install tritonclient\[all\]"):
        outputs.array("Y")
    with pytest.raises(KeyError, match="the outputs are Y"):
        outputs.array("Z")


# Servers that do not speak HTTP as they should.

GARBAGE = [
    b"",
    b"\x00\xff\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    b"HTTP/1.1 200 OK\r\nA: " + b"x" * 600_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nInference-Header-Content-Length: x\r\n\r\n{}",
    b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n\xff\xfe",
]


@pytest.mark.parametrize("answer", GARBAGE, ids=lambda each: repr(each[:40]))
def test_garbage_is_an_error_of_the_sdk(ranking: Engine, infer: Infer, answer: bytes) -> None:
    with answering_bytes(answer) as port, listening(gateway_of(ranking, {})) as served:
        shards = {"main": [f"http://127.0.0.1:{port}"]}
        with pytest.raises((UnavailableError, ModelAnswerError, ModelRefusedError)):
            infer(f"http://127.0.0.1:{served.port}", "ranking", ONE, shards=shards)


def test_interim_answers_are_not_the_answer(ranking: Engine, infer: Infer) -> None:
    interim = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    )
    final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
    with answering_bytes(interim + final) as port, listening(gateway_of(ranking, {})) as served:
        shards = {"main": [f"http://127.0.0.1:{port}"]}
        assert infer(f"http://127.0.0.1:{served.port}", "ranking", ONE, shards=shards).outputs == {"Y": [7]}


@contextlib.contextmanager
def ending_at_the_second(together: int) -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers the first request of each connection, once `together` have come, and ends each with the second one. Yields
    its port, and the requests that it gets."""
    seen: list[bytes] = []
    barrier = threading.Barrier(together)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self._request():
                pass

        def _request(self) -> bool:
            first = self.rfile.readline()
            if not first:
                return False
            while (line := self.rfile.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            self.rfile.read(length)
            seen.append(first)
            if self.answered:
                return False
            self.answered = True
            if len(opened) <= together:
                barrier.wait(60)
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            return True

        def setup(self) -> None:
            super().setup()
            self.answered = False
            opened.append(1)

    opened: list[int] = []
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server.server_address[1], seen
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def answering_bytes(answer: bytes) -> Iterator[int]:
    """A server that reads a request's head, and whatever it is, answers the same bytes and closes."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            received = b""
            while b"\r\n\r\n" not in received:
                piece = self.request.recv(65536)
                if not piece:
                    return
                received += piece
            with contextlib.suppress(OSError):
                self.request.sendall(answer)
                self.request.shutdown(socket.SHUT_WR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()
