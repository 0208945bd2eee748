"""`GET /metrics` of a running stack with real model servers, as Prometheus reads it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric as Read
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from tidegate.metrics import Emitter, Metric

from tests.docs.blocks import blocks
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules
from tests.triton.misbehaving import write_model

RULES = """[
  {id: picky, when: {country: [FR]}, serve: choosy, fallback: [sound]},
  {id: alone, when: {country: [DE]}, serve: choosy},
  {id: rest, serve: sound}]"""
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
SECRET = "a-country-that-is-nobodys-business"
OUTCOMES = Counter({"answered": 3, "fallback": 2, "server_error": 1, "client_error": 1})


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    root = tmp_path_factory.mktemp("stack")
    models = make_repository(root / "models", "versioned", "versioned_pipeline")
    # Without samples, so that the stack sends no request of its own to try what it prints at its start.
    write_model(models, "sound", samples={})
    write_model(
        models,
        "choosy",
        check="assert x.min() > 5",
        samples={"a": {"inputs": {"X": [6.0, 7.0]}}},
        value="x * np.float32(2)",
    )
    on = {name: ["a"] for name in ("sound", "choosy", "versioned_pipeline")}
    rules = write_rules(root / "rules", {"a": 1}, on, main=RULES, timed="versioned_pipeline")
    with running_stack(rules, models, root / "errors") as running:
        for country, values, status in (
            (SECRET, [1.0, 2.0], 200),
            (SECRET, [1.0, 2.0], 200),
            (None, [1.0, 2.0], 200),
            ("FR", [1.0, 2.0], 200),
            ("FR", [1.0, 2.0], 200),
            ("DE", [1.0, 2.0], 500),
            (SECRET, [1.0, 2.0, 3.0], 400),
        ):
            assert infer(running, country, values) == status
        assert running.post("/v2/models/nothing/infer", {"inputs": []})[0] in (400, 404)
        for _ in range(2):
            running.version("timed", sleep_ms=20)
        yield running


def infer(stack: RunningStack, country: str | None, values: list[float]) -> int:
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, len(values)], "data": values}
    context = {} if country is None else {"country": country}
    return stack.post("/v2/models/main/infer", {"inputs": [tensor]}, {"Tidegate-Context": json.dumps(context)})[0]


class Scrape:
    """The samples of an answer."""

    def __init__(self, families: Iterator[Read]) -> None:
        self.families = {family.name: family for family in families}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        """Return the sum of the samples of a name with some labels; None if there is none."""
        found = [each.value for each in self.samples if each.name == name and labels.items() <= each.labels.items()]
        return sum(found) if found else None

    def outcomes(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for each in self.samples:
            if each.name == "tidegate_requests_total" and each.labels["objective"] == "main":
                found[each.labels["outcome"]] += int(each.value)
        return +found


def get(stack: RunningStack, accept: str = "", token: str | None = None) -> tuple[int, Mapping[str, str], str]:
    connection = http.client.HTTPConnection(stack.url.removeprefix("http://"), timeout=60)
    credentials = stack.known.operator_token if token is None else token
    headers = {"Authorization": f"Bearer {credentials}"} if credentials else {}
    try:
        connection.request("GET", "/metrics", headers=headers | ({"Accept": accept} if accept else {}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
    finally:
        connection.close()


def scrape(stack: RunningStack) -> Scrape:
    status, headers, text = get(stack)
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return Scrape(read_text(text))


def test_only_operators_get_metrics(stack: RunningStack) -> None:
    for token in ("", "wrong"):
        status, headers, text = get(stack, token=token)
        assert status == 401
        assert headers["www-authenticate"].startswith("Bearer")
        assert "tidegate_" not in text


def test_requests_are_counted_by_their_outcome(stack: RunningStack) -> None:
    found = eventually(lambda: (seen := scrape(stack)).outcomes() == OUTCOMES and seen)
    assert found, scrape(stack).outcomes()
    assert found.value("tidegate_requests_total", rule="picky", model="sound", outcome="fallback") == 2
    assert found.value("tidegate_requests_total", rule="alone", shard="a", model="choosy", outcome="server_error") == 1
    assert found.value("tidegate_failed_attempts_total", rule="picky") == 2
    count = found.value("tidegate_request_duration_seconds_count", objective="main")
    assert count == sum(OUTCOMES.values())
    assert found.value("tidegate_request_duration_seconds_bucket", objective="timed", le="0.01") == 0
    assert found.value("tidegate_request_duration_seconds_bucket", objective="timed", le="+Inf") == 2
    assert 0.04 <= (found.value("tidegate_request_duration_seconds_sum", objective="timed") or 0) < 60
    last = found.value("tidegate_last_request_timestamp_seconds", rule="alone")
    assert last is not None
    assert time.time() - 600 < last <= time.time()


def test_requests_over_http_are_counted_by_route_and_status(stack: RunningStack) -> None:
    name, labels = "http_server_request_duration_seconds_count", {"http_route": "/v2/models/{objective}/infer"}
    found = eventually(lambda: (seen := scrape(stack)).value(name, **labels, http_request_method="POST") == 10 and seen)
    statuses = {
        each.labels["http_response_status_code"]: each.value
        for each in found.samples
        if each.name == name and labels.items() <= each.labels.items()
    }
    assert (statuses.pop("404", 0) or statuses.pop("400")) >= 1
    assert statuses["200"] == 7
    assert statuses["500"] == 1


def test_the_steps_of_an_ensemble_are_those_of_the_servers(stack: RunningStack) -> None:
    """The first answers of each model are its golden requests."""
    found = eventually(
        lambda: (seen := scrape(stack)).value("tidegate_model_step_requests_total", model="versioned") and seen
    )
    assert found
    (server,) = {
        each.labels["endpoint"] for each in found.samples if each.name == "tidegate_model_step_executions_total"
    }
    assert server.startswith("http://127.0.0.1:")
    step = {"model": "versioned", "version": "2", "endpoint": server, "shard": "a"}
    assert (found.value("tidegate_model_step_requests_total", **step, result="success") or 0) >= 2
    assert (found.value("tidegate_model_step_compute_infer_seconds_total", **step) or 0) >= 0.04
    assert found.value("tidegate_model_step_queue_seconds_total", **step) is not None
    failed = found.value("tidegate_model_step_requests_total", model="choosy", result="fail")
    assert failed is not None
    assert failed >= 3, "twice before a fallback answered, and once alone"


def test_the_stack_and_its_processes_are_described(stack: RunningStack) -> None:
    # What is read of the servers may be of two seconds ago.
    found = eventually(lambda: (seen := scrape(stack)).value("tidegate_endpoint_up") and seen)
    assert found.value("tidegate_healthy") == 1
    assert found.value("tidegate_endpoints", shard="a", state="ready") == 1
    assert found.value("tidegate_endpoints", shard="a", state="down") == 0
    assert found.value("tidegate_endpoint_up", shard="a") == 1
    assert found.value("tidegate_breaker_open", model="sound") == 0
    assert found.value("tidegate_follow_state", state="following") == 1
    assert found.value("tidegate_gateway_up") == 1
    assert found.value("tidegate_publishes_under_way") == 0
    assert (found.value("tidegate_rules_age_seconds") or 0) < 300
    (rules,) = found.families["tidegate_rules_info"].samples
    assert rules.labels["revision"] == stack.get("/v1/fleet")["revision"]
    for process in ("gateway", "control"):
        assert (found.value("tidegate_process_resident_memory_bytes", process=process) or 0) > 10_000_000
        assert (found.value("tidegate_process_open_fds", process=process) or 0) > 3
        assert (found.value("tidegate_process_cpu_seconds_total", process=process) or 0) > 0
        assert found.value("tidegate_event_loop_lag_seconds", process=process) is not None


def test_every_sample_is_in_the_table_and_has_its_labels(stack: RunningStack) -> None:
    found = scrape(stack)
    stacks = [metric.exposed for metric in Metric if metric.exposed and Emitter.STACK in metric.exposed.emitters]
    known = {exposed.sample: exposed for exposed in stacks}
    for family in found.families.values():
        for sample in family.samples:
            name = sample.name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")
            assert set(sample.labels) - {"le"} == set(known[name].labels), sample.name


def test_openmetrics_has_the_same(stack: RunningStack) -> None:
    status, headers, text = get(stack, OPENMETRICS)
    assert (status, headers["cache-control"]) == (200, "no-store")
    assert headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    found = Scrape(read_openmetrics(text))
    assert found.families["tidegate_request_duration_seconds"].unit == "seconds"
    assert found.outcomes() == OUTCOMES


def test_the_request_of_the_page_is_answered(stack: RunningStack, tmp_path: Path) -> None:
    (command,) = [block.text for block in blocks("docs/metrics.md") if block.language == "sh"]
    (tmp_path / "tidegate.token").write_text(stack.known.operator_token + "\n")
    command = command.replace("http://127.0.0.1:8080", stack.url)
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert Scrape(read_text(done.stdout)).outcomes() == OUTCOMES


def test_no_value_of_a_context_is_in_the_metrics(stack: RunningStack) -> None:
    for accept in ("", OPENMETRICS):
        assert SECRET not in get(stack, accept)[2]


def test_the_operators_socket_has_the_same(stack: RunningStack) -> None:
    path = stack.known.socket
    assert path is not None
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: local\r\nAccept: text/plain\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    head, _, text = answer.partition("\r\n\r\n")
    assert "Content-Type: text/plain; version=0.0.4" in head
    assert Scrape(read_text(text)).outcomes() == OUTCOMES


def test_counters_do_not_fall_when_the_gateway_is_replaced(stack: RunningStack) -> None:
    assert eventually(lambda: scrape(stack).outcomes() == OUTCOMES)
    pid: Any = stack.get("/v1/fleet")["gateway"]["pid"]
    os.kill(pid, signal.SIGKILL)
    # Its socket is kept, so this waits for the next gateway.
    assert infer(stack, None, [1.0, 2.0]) == 200
    more = OUTCOMES + Counter(answered=1)
    assert eventually(lambda: scrape(stack).outcomes() == more), scrape(stack).outcomes()
    assert eventually(lambda: scrape(stack).value("tidegate_gateway_restarts_total") == 1)
