"""The faults of rules: synthetic requests get them, and no other request ever does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from tidegate.rules import compile_directory, load_bundle

from tests.support.stack import write_rules
from tests.web.conftest import FakeTriton, Host, gateway_app, serving, sound_model
from tests.web.test_callers import post

CALLERS = """\
callers:
  tests: {objectives: "*", overrides: "*", traffic: synthetic}
  home: {objectives: "*", overrides: "*"}
"""
V2, V1 = "/v2/models/main/infer", "/v1/objectives/main/infer"

Serve = Callable[..., AbstractContextManager[Host]]


@pytest.fixture
def serve(fake: FakeTriton, tmp_path: Path) -> Serve:
    """The gateway with one rule that has a fault."""

    @contextmanager
    def serve(fault: str, callers: str | None = CALLERS, timeout_ms: int = 20_000) -> Iterator[Host]:
        fake.script = sound_model
        rule = f"[{{id: default, serve: pair_sum, timeout_ms: {timeout_ms}, fault: {fault}}}]"
        rules = write_rules(tmp_path / "rules", {"main": 1}, {"pair_sum": ["main"]}, main=rule)
        (rules / "callers.yaml").unlink(missing_ok=True)
        if callers is not None:
            (rules / "callers.yaml").write_text(callers)
        with serving(gateway_app(load_bundle(compile_directory(rules)), {"main": fake.port})) as host:
            yield host

    return serve


@pytest.mark.parametrize("path", [V2, V1])
def test_a_synthetic_request_gets_the_status_and_the_rule_that_sets_it(
    serve: Serve, fake: FakeTriton, path: str
) -> None:
    with serve("{abort_status: 429}") as host:
        reply = post(host, path, "tests")
    assert (reply.status, reply.headers["tidegate-rule"]) == (429, "default")
    assert b"default" in reply.body
    assert [request for request in fake.received if request.method == "POST"] == []


def test_a_delay_comes_before_the_answer_and_ends_at_the_deadline(serve: Serve) -> None:
    began_s = time.monotonic()
    with serve("{delay_ms: 60}") as host:
        assert post(host, V2, "tests").status == 200
    assert time.monotonic() - began_s >= 0.06
    with serve("{delay_ms: 600000}", timeout_ms=200) as host:
        assert post(host, V2, "tests").status == 504


def test_real_requests_pins_and_reads_get_no_fault(serve: Serve) -> None:
    with serve("{abort_status: 500}") as host:
        assert post(host, V2, "home").status == 200
        assert post(host, V2, "tests", "pair_sum").status == 200
        assert host.get("/v2/models/main/config", Tidegate_Caller="tests").status == 200
    with serve("{abort_status: 500}", None) as host:
        assert post(host, V2, "tests").status == 200, "without callers.yaml every request is real"


def test_a_share_of_the_synthetic_requests_gets_it(serve: Serve) -> None:
    with serve("{abort_status: 503, percent: 50}") as host:
        assert {post(host, V2, "tests").status for _ in range(40)} == {200, 503}
