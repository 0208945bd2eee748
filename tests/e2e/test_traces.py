"""Traces of a running stack with a real Triton, as a collector gets them: one tree for each request, Triton's own spans in it."""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import secrets
import signal
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.docs.blocks import blocks
from tests.support.collector import Collector, Span, collector, outline
from tests.support.model_folders import write_model
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, started_stack, write_rules

MODEL = """import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            values = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            if RAISES:
                raise ValueError("a text that holds what the caller sent")
            time.sleep(float(values[0]))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", values)]))
        return responses
"""
CONFIG = """backend: "python"
max_batch_size: 0
input [{ name: "X" data_type: TYPE_FP32 dims: [ -1 ] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""
RULES = {
    "plain": "base",
    "falling": json.dumps([{"id": "default", "serve": "raiser", "fallback": ["spare"], "shadow": {"base": 100}}]),
    "copied": json.dumps([{"id": "default", "serve": "base", "shadow": {"spare": 100}}]),
    "hedged": json.dumps([{"id": "default", "serve": "base", "hedge_after_ms": 50}]),
    "sturdy": json.dumps([{"id": "default", "serve": "base", "fallback": ["spare"]}]),
    "split": json.dumps([{"id": "canary", "split": {"base": 1, "spare": 0}}]),
    "stories": "[{id: default, serve: storyteller}]\nresponses: stream",
}
SECRET = "context-value-that-nobody-else-has"
INFER = "POST /v2/models/{objective}/infer"
SENT = "POST /v2/models/{model}/infer"


@dataclass(frozen=True, slots=True)
class Traced:
    stack: RunningStack
    collector: Collector
    log: Path

    def infer(
        self, objective: str, sleep_s: float = 0.0, path: str = "infer", **headers: str
    ) -> tuple[int, dict[str, str]]:
        """Infer, and return the status and the headers of the answer."""
        tensor = {"name": "X", "datatype": "FP32", "shape": [1], "data": [sleep_s]}
        return self.post(f"/v2/models/{objective}/{path}", {"inputs": [tensor]}, headers)

    def post(self, path: str, body: Any, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection(urlsplit(self.stack.url).netloc, timeout=120)
        try:
            context = {"Tidegate-Context": json.dumps({"country": SECRET})} if path.startswith("/v2") else {}
            connection.request(
                "POST", path, json.dumps(body), {"Content-Type": "application/json", **context, **headers}
            )
            response = connection.getresponse()
            response.read()
            return response.status, {name.lower(): value for name, value in response.getheaders()}
        finally:
            connection.close()


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    root = tmp_path_factory.mktemp("traces")
    models = make_repository(root / "models", "storyteller")
    for name in ("base", "spare", "raiser"):
        text = MODEL.replace("RAISES", str(name == "raiser"))
        write_model(models / name, {"config.pbtxt": CONFIG.encode(), "1/model.py": text.encode()})
    placement = {"base": ["a"], "raiser": ["b"], "spare": ["b"], "storyteller": ["b"]}
    rules = write_rules(root / "rules", {"a": 2, "b": 1}, placement, **RULES)
    log = root / "requests"
    with collector() as found:
        variables = found.variables(
            TIDEGATE_ACCESS_LOG=str(log),
            OTEL_EXPORTER_OTLP_HEADERS="api-key=secret",
            # A test stops servers, and lets them go on.
            TIDEGATE_HUNG_AFTER_S="120",
        )
        with running_stack(rules, models, root / "errors", "--grpc-port", "0", variables=variables) as stack:
            yield Traced(stack, found, log)


def parent(*, sampled: bool = True) -> tuple[str, str, str]:
    """A caller's trace: its id, the id of its span, and the header."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, f"00-{trace}-{span}-{'01' if sampled else '00'}"


def one(spans: list[Span], name: str) -> Span:
    (found,) = [each for each in spans if each.name == name]
    return found


def test_a_request_is_one_tree_from_its_caller_to_its_model(traced: Traced) -> None:
    trace, caller, header = parent()
    status, headers = traced.infer("split", traceparent=header, tracestate="vendor=1")
    assert status == 200
    spans = traced.collector.wait(trace, INFER, "InferRequest", "base", "compute")
    assert outline(spans) == [
        INFER,
        "  decide",
        "  dispatch",
        f"    {SENT} [first]",
        "      InferRequest",
        "        base",
        "          compute",
    ]
    root = one(spans, INFER)
    assert (root.service, root.kind, root.parent, root.state) == ("tidegate", "server", caller, "vendor=1")
    assert headers["traceresponse"].split("-")[1:3] == [trace, root.id]
    assert {name: root[name] for name in root.attributes if name not in ("tidegate.revision", "tidegate.shard")} == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v2/models/{objective}/infer",
        "network.protocol.version": "1.1",
        "url.path": "/v2/models/split/infer",
        "url.scheme": "http",
        "tidegate.attempts": 1,
        "tidegate.model": "base",
        "tidegate.objective": "split",
        "tidegate.outcome": "answered",
        "tidegate.reason": headers["tidegate-reason"],
        "tidegate.rule": "canary",
        "tidegate.traffic": "real",
        "tidegate.variant": "base",
        "tidegate.version": 1,
    }
    sent = one(spans, SENT)
    address = f"http://127.0.0.1:{sent['server.port']}/v2/models/base/versions/1/infer"
    assert (sent.kind, sent["url.full"]) == ("client", address)
    assert one(spans, "InferRequest").service == "triton"
    assert root.began_ns <= one(spans, "decide").began_ns <= sent.began_ns <= sent.ended_ns <= root.ended_ns


def test_the_log_and_the_headers_have_the_id_of_a_trace_that_begins_here(traced: Traced) -> None:
    status, headers = traced.infer("plain")
    assert status == 200
    trace = headers["traceresponse"].split("-")[1]
    assert one(traced.collector.wait(trace, INFER), INFER).parent == ""

    def logged() -> list[str]:
        lines = [json.loads(line) for line in traced.log.read_text().splitlines()]
        return [each["objective"] for each in lines if each.get("trace_id") == trace]

    assert eventually(logged) == ["plain"]


def test_an_exemplar_of_the_metrics_names_the_trace_of_the_last_request(traced: Traced) -> None:
    trace, _, header = parent()
    assert traced.infer("split", traceparent=header)[0] == 200

    def has_exemplar() -> bool:
        token = traced.stack.known.operator_token
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/openmetrics-text; version=1.0.0"}
        request = urllib.request.Request(f"{traced.stack.url}/metrics", headers=headers)
        with urllib.request.urlopen(request, timeout=120) as response:
            return f'trace_id="{trace}"' in response.read().decode()

    assert eventually(has_exemplar)


def test_an_answer_of_a_fallback_shows_the_attempt_before_it_and_the_copy_for_a_shadow(traced: Traced) -> None:
    trace, _, header = parent()
    assert traced.infer("falling", 0.01, traceparent=header)[0] == 200
    spans = traced.collector.wait(trace, INFER, f"{SENT} [first] failed", f"{SENT} [fallback]", f"{SENT} [shadow]")
    (picture,) = [each.text for each in blocks("docs/tracing.md") if each.text.startswith(INFER)]
    shown = [re.sub(r" {2,}[▏▎▍▌▋▊▉█].*", "", line) for line in picture.splitlines()]
    assert eventually(lambda: outline(traced.collector.trace(trace)) == shown), outline(traced.collector.trace(trace))
    spans = traced.collector.trace(trace)
    failed, answered, copy = sorted((each for each in spans if each.name == SENT), key=lambda each: each.began_ns)
    assert (failed["tidegate.model"], failed["http.response.status_code"], failed["error.type"]) == (
        "raiser",
        500,
        "500",
    )
    assert (answered["tidegate.model"], answered["http.response.status_code"]) == ("spare", 200)
    root = one(spans, INFER)
    assert (root["tidegate.outcome"], root["tidegate.model"], root["tidegate.attempts"]) == ("fallback", "spare", 2)
    assert (copy.parent, copy["tidegate.model"]) == (root.id, "base")


def test_a_hedge_is_a_second_attempt_and_the_other_one_is_cancelled(traced: Traced) -> None:
    trace, _, header = parent()
    status, headers = traced.infer("hedged", 1.0, traceparent=header)
    assert (status, headers["tidegate-hedge"] in ("won", "lost")) == (200, True)
    spans = traced.collector.wait(trace, INFER, f"{SENT} [first]", f"{SENT} [hedge]")
    cancelled = {each["tidegate.attempt"]: bool(each["tidegate.cancelled"]) for each in spans if each.name == SENT}
    assert cancelled == {"first": headers["tidegate-hedge"] == "won", "hedge": headers["tidegate-hedge"] == "lost"}
    assert len({each["server.port"] for each in spans if each.name == SENT}) == 2


def test_a_copy_for_a_shadow_is_a_child_of_the_request(traced: Traced) -> None:
    trace, _, header = parent()
    assert traced.infer("copied", traceparent=header)[0] == 200
    traced.collector.wait(trace, INFER, f"{SENT} [shadow]", "spare", "base")
    # A server may export the span around that of its model later.
    assert eventually(lambda: [each.name for each in traced.collector.trace(trace)].count("InferRequest") == 2)
    spans = traced.collector.trace(trace)
    (copy,), root = [each for each in spans if each["tidegate.attempt"] == "shadow"], one(spans, INFER)
    assert (copy.parent, copy.kind, copy["tidegate.rule"]) == (root.id, "client", "default")
    assert (copy["tidegate.model"], copy["tidegate.version"], copy["http.response.status_code"]) == ("spare", 1, 200)
    # Triton's spans of the copy are below it.
    (received,) = [each for each in spans if each.parent == copy.id]
    assert one(spans, "spare").parent == received.id


def test_the_gateway_and_triton_send_the_headers_that_the_collector_wants(traced: Traced) -> None:
    trace, _, header = parent()
    assert traced.infer("plain", traceparent=header)[0] == 200
    traced.collector.wait(trace, INFER, "InferRequest")
    agents = {each["user-agent"].split("/")[0]: each.get("api-key") for each in traced.collector.headers}
    assert agents == {"OTel-OTLP-Exporter-Python": "secret", "OTel-OTLP-Exporter-Cpp": "secret"}


def tensor() -> triton.InferInput:
    given = triton.InferInput("X", [1], "FP32")
    given.set_data_from_numpy(np.zeros(1, np.float32))
    return given


def test_a_request_over_grpc_is_traced_and_continued_over_grpc(traced: Traced) -> None:
    # Triton's spans of one request over gRPC in twenty are lost on a busy machine: of some requests, one has all.
    asked = [parent() for _ in range(6)]
    with triton.InferenceServerClient(traced.stack.get("/v1/fleet")["gateway"]["grpc"]) as client:
        for _, _, header in asked:
            client.infer("copied", [tensor()], headers={"traceparent": header})
    name = "inference.GRPCInferenceService/ModelInfer"
    shown = (f"{name} [first]", f"{name} [shadow]", "decide", "base", "spare", name)

    def whole() -> tuple[list[Span], str] | None:
        found = ((traced.collector.whole(trace, *shown), caller) for trace, caller, _ in asked)
        return next((each for each in found if [span.name for span in each[0]].count("InferRequest") == 2), None)

    traced_whole = eventually(whole)
    assert traced_whole, [outline(traced.collector.trace(trace)) for trace, _, _ in asked]
    spans, caller = traced_whole
    (root,) = [each for each in spans if each.parent == caller]
    (sent,) = [each for each in spans if each["tidegate.attempt"] == "first"]
    (copy,) = [each for each in spans if each["tidegate.attempt"] == "shadow"]
    for each in (root, sent, copy):
        assert (each.name, each["rpc.system.name"], each["rpc.method"]) == (name, "grpc", name)
        assert each["rpc.response.status_code"] == "OK"
    received = {each.id: each.parent for each in spans if each.name == "InferRequest"}
    assert received[one(spans, "base").parent] == sent.id
    assert (received[one(spans, "spare").parent], copy.parent) == (copy.id, root.id)


def test_each_request_of_a_grpc_stream_is_a_span_of_the_caller(traced: Traced) -> None:
    trace, caller, header = parent()
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with triton.InferenceServerClient(traced.stack.get("/v1/fleet")["gateway"]["grpc"]) as client:
        client.start_stream(lambda result, error: answers.put(error), headers={"traceparent": header})
        for _ in range(2):
            client.async_stream_infer("plain", [tensor()])
        assert [answers.get(timeout=120) for _ in range(2)] == [None, None]
        client.stop_stream()
    name = "inference.GRPCInferenceService/ModelStreamInfer"

    def roots() -> list[Span]:
        return [each for each in traced.collector.trace(trace) if each.parent == caller]

    assert eventually(lambda: len(roots()) == 2), outline(traced.collector.trace(trace))
    assert [(each.name, each["tidegate.stream_end"]) for each in roots()] == [(name, "complete")] * 2
    assert len([each for each in traced.collector.trace(trace) if each.parent in {root.id for root in roots()}]) == 4


def test_a_span_of_a_stream_ends_with_the_stream(traced: Traced) -> None:
    trace, _, header = parent()
    body = {"PROMPT": "the king", "parameters": {"words": 4, "pause_s": 0.05}}
    status, _ = traced.post("/v2/models/stories/generate_stream", body, {"traceparent": header})
    assert status == 200
    name, sent = "POST /v2/models/{objective}/generate_stream", "POST /v2/models/{model}/generate_stream"
    spans = traced.collector.wait(trace, name, f"{sent} [first]", "dispatch", "InferRequest", "storyteller")
    root = one(spans, name)
    assert root["tidegate.stream_end"] == "complete"
    assert one(spans, sent).ended_ns == one(spans, "dispatch").ended_ns
    assert one(spans, sent).ended_ns - one(spans, sent).began_ns >= 4 * 0.05e9


def test_a_caller_that_does_not_sample_is_not_recorded(traced: Traced) -> None:
    unsampled, _, header = parent(sampled=False)
    status, headers = traced.infer("plain", traceparent=header)
    assert (status, headers["traceresponse"].split("-")[1]) == (200, unsampled)
    # Spans are exported in order: those of this later request come after those of the first, if it had any.
    sampled, _, header = parent()
    traced.infer("plain", traceparent=header)
    traced.collector.wait(sampled, INFER, "InferRequest")
    assert traced.collector.trace(unsampled) == []


@pytest.mark.parametrize("header", ["00-0-0-01", f"00-{'0' * 32}-{'1' * 16}-01", f"ff-{'1' * 32}-{'1' * 16}-01"])
def test_an_invalid_parent_begins_a_new_trace(traced: Traced, header: str) -> None:
    status, headers = traced.infer("plain", traceparent=header, tracestate="vendor=1")
    assert status == 200
    trace = headers["traceresponse"].split("-")[1]
    root = one(traced.collector.wait(trace, INFER), INFER)
    assert (root.parent, root.state) == ("", "")


def test_a_refused_request_has_the_class_of_its_error_and_no_text(traced: Traced) -> None:
    trace, _, header = parent()
    status, _ = traced.post("/v2/models/plain/infer", {"inputs": 1}, {"traceparent": header, "Tidegate-Context": "{"})
    assert status == 400
    root = one(traced.collector.wait(trace, INFER), INFER)
    assert (root["tidegate.outcome"], root["error.type"], root.failed) == ("refused", "RefusedError", False)


def test_no_span_has_a_value_of_a_context_or_a_text_of_a_model(traced: Traced) -> None:
    assert traced.infer("falling")[0] == 200
    exported = json.dumps([dict(each.attributes) for each in traced.collector.spans])
    assert SECRET not in exported
    assert "what the caller sent" not in exported


def test_health_requests_and_pages_have_no_spans(traced: Traced) -> None:
    assert traced.stack.get("/v2/health/ready")
    trace, _, header = parent()
    traced.infer("plain", traceparent=header)
    traced.collector.wait(trace, INFER)
    assert {each.name for each in traced.collector.spans if each.kind == "server" and "health" in each.name} == set()


def test_a_shard_that_does_not_answer_is_seen_in_the_failed_attempts(traced: Traced) -> None:
    ports = [each["url"].rpartition(":")[2] for each in traced.stack.fleet()["a"]]
    stopped = [each.pid for each in traced.stack.servers() if serves(each.pid, ports)]
    assert len(stopped) == 2
    trace, _, header = parent()
    try:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        status, headers = traced.infer("sturdy", traceparent=header, **{"Tidegate-Timeout-Ms": "20000"})
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    # The breakers of its servers close when a probe finds them again; the tests after this one ask them too.
    assert eventually(lambda: traced.infer("plain")[0] == 200)
    assert (status, headers["tidegate-reason"]) == (200, "fallback")
    spans = traced.collector.wait(trace, INFER, f"{SENT} [first] failed", f"{SENT} [fallback]")
    failed = next(each for each in spans if each["tidegate.attempt"] == "first")
    assert failed["error.type"] == "EndpointTimeoutError"
    assert one(spans, INFER)["tidegate.attempts"] == len([each for each in spans if each.name == SENT])


def serves(pid: int, ports: list[str]) -> bool:
    given = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return any(f"--http-port={port}" in given for port in ports)


def test_a_dead_collector_costs_no_request_and_is_reported_once(traced: Traced) -> None:
    def reports() -> list[str]:
        return [line for line in traced.stack.errors.splitlines() if "spans were lost" in line]

    with traced.collector.down():
        for _ in range(5):
            began_s = time.monotonic()
            assert traced.infer("plain")[0] == 200
            assert time.monotonic() - began_s < 30
        assert eventually(reports), traced.stack.errors
    trace, _, header = parent()
    assert traced.infer("plain", traceparent=header)[0] == 200
    traced.collector.wait(trace, INFER)
    assert eventually(lambda: "exported again" in reports()[-1] or len(reports()) == 1)
    assert len(reports()) <= 2
    assert all(word not in traced.stack.errors for word in ("Traceback", "Transient error", "Failed to export"))


def test_spans_that_wait_are_exported_at_the_end_of_a_stack(tmp_path: Path) -> None:
    models = make_repository(tmp_path / "models", "simple")
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"simple": ["a"]}, sums="simple")
    trace, _, header = parent()
    with collector() as found:
        variables = found.variables(OTEL_BSP_SCHEDULE_DELAY="600000", OTEL_SERVICE_NAME="tides")
        with running_stack(rules, models, tmp_path / "errors", variables=variables) as stack:
            stack.post("/v1/objectives/sums/infer", {"context": {}, "inputs": {}}, {"traceparent": header})
            assert stack.stop() == 0
            assert one(found.trace(trace), "POST /v1/objectives/{objective}/infer").service == "tides"
            assert "spans were lost" not in stack.errors


def test_without_tracing_nothing_is_exported_and_a_trace_passes_unchanged(tmp_path: Path) -> None:
    models = make_repository(tmp_path / "models", "simple")
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"simple": ["a"]}, sums="simple")
    with collector() as found:
        variables = found.variables(TIDEGATE_TRACING="off")
        with running_stack(rules, models, tmp_path / "errors", variables=variables) as stack:
            tensors = [
                {"name": f"INPUT{each}", "datatype": "INT32", "shape": [1, 16], "data": [each] * 16} for each in (0, 1)
            ]
            request = urllib.request.Request(
                f"{stack.url}/v2/models/sums/infer",
                json.dumps({"inputs": tensors}).encode(),
                {"traceparent": parent()[2], "Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=120) as response:
                assert response.headers["traceresponse"] is None
        assert found.headers == []


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("OTEL_TRACES_SAMPLER", "sometimes", "must be one of always_on"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "must be http/protobuf, not 'grpc'"),
        ("TIDEGATE_TRACING", "jaeger", "must be off or otlp"),
    ],
)
def test_a_stack_that_cannot_export_as_it_is_told_does_not_start(
    tmp_path: Path, name: str, value: str, right: str
) -> None:
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"simple": ["a"]}, sums="simple")
    models = make_repository(tmp_path / "models", "simple")
    variables = {"TIDEGATE_TRACING": "otlp", name: value}
    with started_stack(rules, models, tmp_path / "errors", variables=variables) as stack:
        assert stack.wait_exit() != 0
        assert name in stack.errors
        assert right in stack.errors
        assert "Traceback" not in stack.errors
