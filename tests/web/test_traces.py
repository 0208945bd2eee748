"""What a gateway sends to a server of the trace that it records, and what it exports, attempt by attempt."""

from __future__ import annotations

import dataclasses
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tidegate.gateway import Dispatcher
from tidegate.ports import Endpoint, Served
from tidegate.rules import compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.tracing.otlp import OtlpTracer
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app

from tests.support.collector import Collector, Span, collector
from tests.support.stack import write_rules
from tests.web.conftest import FakeTriton, Host, refusing_port

INFER = "/v2/models/echoing/infer"
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01"
RULES = """[
  {id: back, when: {country: SE}, serve: away, fallback: [pair_sum]},
  {id: lost, when: {country: NO}, serve: away},
  {id: rest, serve: pair_sum}]"""


@dataclasses.dataclass(slots=True)
class Traced:
    """A gateway whose spans are exported as soon as `spans` asks for them."""

    host: Host
    fake: FakeTriton
    tracer: OtlpTracer
    collector: Collector
    reports: list[str]
    served: list[Served]

    def infer(self, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.host.ask("POST", INFER, b"{}", named)

    def spans(self, trace: str = TRACE) -> list[Span]:
        self.tracer.flush(60.0)
        return self.collector.trace(trace)


@pytest.fixture
def found() -> Iterator[Collector]:
    with collector() as each:
        yield each


@pytest.fixture
def traced(
    scripted_server: tuple[Any, Host],
    fake: FakeTriton,
    found: Collector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Traced]]:
    begun: list[OtlpTracer] = []

    def start(**variables: str) -> Traced:
        for name, value in {
            "OTEL_EXPORTER_OTLP_ENDPOINT": found.url,
            "OTEL_BSP_SCHEDULE_DELAY": "600000",
            **variables,
        }.items():
            monkeypatch.setenv(name, value)
        slot, host = scripted_server
        rules = write_rules(tmp_path, {"main": 1, "gone": 1}, {"pair_sum": ["main"], "away": ["gone"]}, echoing=RULES)
        endpoints = {
            "main": (Endpoint("main", "127.0.0.1", fake.port),),
            "gone": (Endpoint("gone", "127.0.0.1", refusing_port()),),
        }
        reports: list[str] = []
        served: list[Served] = []
        tracer = OtlpTracer(os.environ, reports.append)
        begun.append(tracer)
        slot.app = create_app(
            engines=MemoryEngineSource(load_bundle(compile_directory(rules))),
            dispatcher=Dispatcher(PooledTransport(), MemoryEndpointDirectory(endpoints)),
            observe=served.append,
            tracer=tracer,
        )
        return Traced(host, fake, tracer, found, reports, served)

    yield start
    for each in begun:
        # What hangs, hangs in a thread that ends with the process.
        each.close(1.0)


def sent(traced: Traced, name: str) -> Any:
    return traced.fake.received[-1].header(name)


def test_each_attempt_is_the_parent_of_what_its_server_does(traced: Callable[..., Traced]) -> None:
    gateway = traced()
    assert gateway.infer(Traceparent=PARENT, Tidegate_Context='{"country": "SE"}').status == 200
    first, second = sorted((each for each in gateway.spans() if each.kind == "client"), key=lambda each: each.began_ns)
    assert (first["tidegate.attempt"], first["error.type"], first.failed) == ("first", "EndpointRefusedError", True)
    assert (second["tidegate.attempt"], second["http.response.status_code"], second.failed) == ("fallback", 200, False)
    assert sent(gateway, "traceparent").split("-")[:3] == ["00", TRACE, second.id]


def test_metrics_get_the_id_of_a_trace_that_is_recorded(traced: Callable[..., Traced]) -> None:
    gateway = traced()
    gateway.infer(Traceparent=PARENT)
    gateway.infer(Traceparent=PARENT.removesuffix("1") + "0")
    assert [each.trace_id for each in gateway.served] == [TRACE, None]


def test_a_trace_that_is_not_sampled_is_not_continued_at_the_server(traced: Callable[..., Traced]) -> None:
    gateway = traced()
    answer = gateway.infer(Traceparent=PARENT.removesuffix("1") + "0", Tracestate="a=1", X_Request_Id="r-1")
    assert answer.headers["traceresponse"].startswith(f"00-{TRACE}-")
    assert answer.headers["traceresponse"].endswith("-00")
    # Triton 2.51 would record it: it does not look at the flag.
    assert (sent(gateway, "traceparent"), sent(gateway, "tracestate"), sent(gateway, "x-request-id")) == (
        None,
        None,
        "r-1",
    )
    assert gateway.spans() == []


@pytest.mark.parametrize(
    ("sampler", "share", "is_recorded"),
    [
        ("parentbased_traceidratio", "0", (True, False)),
        ("parentbased_traceidratio", "1", (True, True)),
        ("traceidratio", "0", (False, False)),
        ("always_off", "", (False, False)),
    ],
)
def test_the_sampler_decides(
    traced: Callable[..., Traced], sampler: str, share: str, is_recorded: tuple[bool, bool]
) -> None:
    gateway = traced(OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG=share)
    gateway.infer(Traceparent=PARENT)
    own = gateway.infer().headers["traceresponse"].split("-")[1]
    assert (bool(gateway.spans()), bool(gateway.spans(own))) == is_recorded


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ("a=1, b=2", "a=1,b=2"),
        ("a=1,a=2", None),
        ("no equals sign", None),
        (",".join(f"k{each}={each}" for each in range(33)), None),
        (
            ",".join(f"k{each}={'v' * 250}" for each in range(30)),
            ",".join(f"k{each}={'v' * 250}" for each in range(30)),
        ),
    ],
)
def test_a_state_that_is_malformed_is_dropped_and_the_trace_goes_on(
    traced: Callable[..., Traced], given: str, passed: str | None
) -> None:
    gateway = traced()
    gateway.infer(Traceparent=PARENT, Tracestate=given)
    assert sent(gateway, "traceparent").split("-")[1] == TRACE
    assert sent(gateway, "tracestate") == passed


def test_a_state_is_dropped_that_is_too_long_for_triton_once_its_headers_are_one(traced: Callable[..., Traced]) -> None:
    gateway = traced()
    halves = [",".join(f"k{half}{each}={'v' * 256}" for each in range(16)) for half in (0, 1)]
    pairs = [("traceparent", PARENT), *(("tracestate", half) for half in halves)]
    assert gateway.host.ask("POST", INFER, b"{}", pairs).status == 200
    assert (sent(gateway, "traceparent").split("-")[1], sent(gateway, "tracestate")) == (TRACE, None)


def test_a_request_that_no_target_answers_fails_with_the_class_of_its_error(traced: Callable[..., Traced]) -> None:
    gateway = traced()
    assert gateway.infer(Traceparent=PARENT, Tidegate_Context='{"country": "NO"}').status == 503
    (root,) = [each for each in gateway.spans() if each.kind == "server"]
    assert (root.failed, root["error.type"], root["tidegate.outcome"]) == (True, "UnavailableError", "failed")
    (dispatch,) = [each for each in gateway.spans() if each.name == "dispatch"]
    assert (dispatch.failed, dispatch["error.type"]) == (True, "UnavailableError")


def test_a_collector_that_refuses_is_reported_with_the_number_of_spans(
    traced: Callable[..., Traced], found: Collector
) -> None:
    gateway = traced()
    found.status = 400
    for _ in range(3):
        assert gateway.infer().status == 200
        gateway.tracer.flush(60.0)
    assert gateway.reports == [
        f"4 spans were lost: {found.url}/v1/traces did not take them in time; requests are answered as before"
    ]
    found.status = 200
    assert gateway.infer().status == 200
    gateway.tracer.flush(60.0)
    assert gateway.reports[1:] == [
        f"8 spans were lost: {found.url}/v1/traces did not take them in time; spans are exported again"
    ]


def test_spans_that_do_not_fit_into_the_queue_are_dropped_and_reported(traced: Callable[..., Traced]) -> None:
    gateway = traced(OTEL_BSP_MAX_QUEUE_SIZE="4", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="4", OTEL_EXPORTER_OTLP_TIMEOUT="1")
    with gateway.collector.down():
        for _ in range(5):
            assert gateway.infer().status == 200
        gateway.tracer.close(60.0)
    assert sum(int(each.partition(" ")[0]) for each in gateway.reports) == 5 * 4


def test_a_flush_waits_for_a_collector_that_hangs_no_longer_than_it_is_told(traced: Callable[..., Traced]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        gateway = traced(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}", OTEL_EXPORTER_OTLP_TIMEOUT="600"
        )
        assert gateway.infer().status == 200
        threads = threading.active_count()
        for _ in range(3):
            began_s = time.monotonic()
            gateway.tracer.flush(0.05)
            assert time.monotonic() - began_s < 60
        assert threading.active_count() <= threads + 1
        gateway.tracer.close(0.05)
    assert [each.partition(" spans")[0] for each in gateway.reports] == ["4"]
