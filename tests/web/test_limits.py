"""The limits of callers.yaml and of objectives over HTTP, and the marks of single requests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tidegate.gateway import Dispatcher
from tidegate.ports import Endpoint
from tidegate.rules import Engine, compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app

from tests.support.stack import write_rules
from tests.web.conftest import FakeTriton, Host, Received, Reply, gateway_app
from tests.web.test_order_of_checks import announce

CALLERS = """\
callers:
  slow: {objectives: "*", rate_per_s: 0.05, burst: 2}
  narrow: {objectives: "*", concurrency: 1}
  marking: {objectives: "*", marks: [replay]}
  tests: {objectives: "*", traffic: synthetic}
"""
V2, V1 = "/v2/models/echoing/infer", "/v1/objectives/echoing/infer"


@pytest.fixture
def limited(scripted_server: tuple[Any, Host], fake: FakeTriton, tmp_path: Path) -> Host:
    slot, host = scripted_server
    rules = write_rules(tmp_path, {"main": 1}, {"pair_sum": ["main"]}, echoing="pair_sum")
    (rules / "callers.yaml").write_text(CALLERS)
    slot.app = gateway_app(load_bundle(compile_directory(rules)), {"main": fake.port})
    return host


def ask(host: Host, caller: str, path: str = V2, **headers: str) -> Reply:
    body = {"inputs": {}} if path == V1 else {}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return host.ask("POST", path, body, {"Tidegate-Caller": caller, "Content-Type": "application/json", **named})


def test_a_caller_above_its_rate_gets_429_with_the_limit_in_the_headers(limited: Host) -> None:
    assert [ask(limited, "slow").status for _ in range(2)] == [200, 200]
    refused = ask(limited, "slow")
    assert refused.status == 429
    assert "rate_per_s" in refused.error
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert refused.headers["ratelimit-policy"] == '"caller-rate";q=1;w=20'
    assert refused.headers["ratelimit"] == f'"caller-rate";r=0;t={refused.headers["retry-after"]}'
    again = ask(limited, "slow", V1)
    assert (again.status, again.problem["type"]) == (429, "urn:tidegate:problem:limited")
    assert (again.problem["limit"], again.headers["ratelimit-policy"]) == ("caller-rate", '"caller-rate";q=1;w=20')
    for path in (V2, V1):
        assert announce(limited, path, {"Tidegate-Caller": "slow"}) == 429, "before the body comes"
    assert ask(limited, "marking").status == 200, "another caller is not refused"


def test_a_process_that_is_full_refuses_before_the_body_comes(
    scripted_server: tuple[Any, Host],
    fake: FakeTriton,
    held: tuple[threading.Semaphore, Callable[[], None]],
    engine: Engine,
) -> None:
    slot, host = scripted_server
    endpoints = {"main": (Endpoint("main", "127.0.0.1", fake.port),)}
    dispatcher = Dispatcher(PooledTransport(), MemoryEndpointDirectory(endpoints))
    slot.app = create_app(engines=MemoryEngineSource(engine), dispatcher=dispatcher, max_active_requests=1)
    arrived, leave = held
    with ThreadPoolExecutor() as pool:
        first = pool.submit(ask, host, "anybody")
        assert arrived.acquire(timeout=10)
        refused = ask(host, "anybody")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert ask(host, "anybody", V1).problem["type"] == "urn:tidegate:problem:overloaded"
        assert announce(host, V2, {"Tidegate-Timeout-Ms": "1"}) == 503
        leave()
        assert first.result().status == 200
    assert ask(host, "anybody").status == 200


@pytest.fixture
def held(fake: FakeTriton) -> Iterator[tuple[threading.Semaphore, Callable[[], None]]]:
    """Let the model hold its answers: a semaphore that counts those that wait, and a function that ends them."""
    arrived, leave = threading.Semaphore(0), threading.Event()

    def hold(request: Received) -> tuple[int, Mapping[str, str], bytes]:
        if request.method == "POST":
            arrived.release()
            assert leave.wait(10)
        return 200, {}, b"{}"

    fake.script = hold
    yield arrived, leave.set
    leave.set()


def test_a_request_counts_until_its_answer(limited: Host, held: tuple[threading.Semaphore, Callable[[], None]]) -> None:
    arrived, leave = held
    with ThreadPoolExecutor() as pool:
        first = pool.submit(ask, limited, "narrow")
        assert arrived.acquire(timeout=10)
        refused = ask(limited, "narrow")
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert refused.headers["ratelimit-policy"] == '"caller-concurrency";q=1;qu="concurrent-requests"'
        leave()
        assert first.result().status == 200
    assert ask(limited, "narrow").status == 200


def test_a_request_whose_caller_leaves_counts_no_longer(
    limited: Host, held: tuple[threading.Semaphore, Callable[[], None]]
) -> None:
    arrived, leave = held
    with socket.create_connection(("127.0.0.1", limited.port), timeout=10) as connection:
        connection.sendall(
            f"POST {V2} HTTP/1.1\r\nHost: x\r\nTidegate-Caller: narrow\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        )
        assert arrived.acquire(timeout=10)
        assert ask(limited, "narrow").status == 429
    leave()
    for _ in range(100):
        if ask(limited, "narrow").status == 200:
            break
    else:
        pytest.fail("the request still counts")


@pytest.mark.parametrize("path", [V2, V1])
def test_failed_requests_give_back_what_they_held(limited: Host, fake: FakeTriton, path: str) -> None:
    fake.script = lambda _: (500, {}, b'{"error": "x"}')
    bad = {"Content-Type": "application/json", "Tidegate-Caller": "narrow"}
    for _ in range(3):
        assert ask(limited, "narrow", path).status in (500, 502)
        assert limited.ask("POST", path, b'{"inputs": 1e', bad).status in (400, 500, 502)
        assert announce(limited, path, {"Tidegate-Caller": "narrow"}, 10**15) == 413


def test_a_request_gets_the_class_that_its_caller_may_give_it(limited: Host, fake: FakeTriton) -> None:
    def mark(caller: str, mark: str) -> int:
        return ask(limited, caller, Tidegate_Traffic=mark).status

    assert [mark("marking", each) for each in ("replay", "real")] == [200, 200]
    seen = [request.header("tidegate-param-tidegate_traffic") for request in fake.received]
    assert seen == ["replay", "real"]
    assert [mark("marking", each) for each in ("synthetic", "shadow", "Replay", "", "replay, real")] == [
        403, 400, 400, 400, 400,
    ]  # fmt: skip
    assert [mark("tests", each) for each in ("synthetic", "real", "replay")] == [200, 403, 403]
    twice = [("Tidegate-Caller", "marking"), ("Tidegate-Traffic", "replay"), ("Tidegate-Traffic", "replay")]
    assert limited.ask("POST", V2, b"{}", twice).status == 400
    refused = ask(limited, "tests", V1, Tidegate_Traffic="real")
    assert (refused.status, refused.problem["grant"]) == (403, "marks")


def test_without_callers_nobody_may_mark_a_request(scripted: Host) -> None:
    headers = {"Tidegate-Context": "{}"}
    for mark, status in (("real", 200), ("synthetic", 403), ("shadow", 400)):
        assert scripted.ask("POST", V2, b"{}", {**headers, "Tidegate-Traffic": mark}).status == status
