"""Errors of `/v2`: in the protocol's format, with the decision if one was made, and in time."""

from __future__ import annotations

import http.client
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidegate.errors import BundleError
from tidegate.gateway import Dispatcher
from tidegate.ports import Done, Endpoint, HttpRequest, HttpResponse
from tidegate.rules import Engine, compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.web import create_app
from tidegate.web.decided import header_value

from tests.support.processes import refusing_port
from tests.web.conftest import HERE, MAX_BODY_BYTES, FakeTriton, Host, gateway_app, serving

TV = {"Tidegate-Context": '{"member_id": "1", "device": "tv"}'}
GUARDED = "/v2/models/guarded/infer"


@pytest.fixture
def with_spare(engine: Engine, fake: FakeTriton) -> Iterator[Host]:
    """The gateway with both shards on the scripted Triton."""
    with serving(gateway_app(engine, {"main": fake.port, "spare": fake.port})) as host:
        yield host


def test_a_fallback_answers_and_says_so(with_spare: Host, fake: FakeTriton) -> None:
    missing = (404, {"Content-Type": "text/plain"}, b'{"error":"Request for unknown model: \'absent\' is not found"}')
    fake.script = lambda request: missing if "absent" in request.path else (200, {}, b"{}")
    reply = with_spare.ask("POST", GUARDED, b"{}", TV)
    assert reply.status == 200
    assert [request.path for request in fake.received] == ["/v2/models/absent/infer", "/v2/models/backup/infer"]
    shown = {name: reply.headers[f"tidegate-{name}"] for name in ("rule", "model", "shard", "reason")}
    assert shown == {"rule": "tv", "model": "backup", "shard": "spare", "reason": "fallback"}


def test_nobody_answers(engine: Engine) -> None:
    with serving(gateway_app(engine, {"main": refusing_port(), "spare": refusing_port(1)})) as host:
        reply = host.ask("POST", GUARDED, b"{}", TV)
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert "absent on main" in reply.error
    assert "backup on spare" in reply.error
    assert reply.headers["tidegate-rule"] == "tv"
    assert len(reply.headers["tidegate-revision"]) == 64


def test_the_deadline_is_the_smallest_and_holds(fake: FakeTriton, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    shutil.copytree(HERE / "rules", rules)
    file = rules / "objectives" / "guarded.yaml"
    file.write_text(file.read_text().replace("timeout_ms: 10000", "timeout_ms: 200"))
    answered = threading.Event()

    def slow(_: object) -> tuple[int, dict[str, str], bytes]:
        answered.wait(20)
        return 200, {}, b"{}"

    fake.script = slow
    with serving(gateway_app(load_bundle(compile_directory(rules)), {"main": fake.port, "spare": fake.port})) as host:
        for headers, limit_s in ((TV, 0.2), ({**TV, "Tidegate-Timeout-Ms": "60"}, 0.06)):
            started_s = time.monotonic()
            reply = host.ask("POST", GUARDED, b"{}", headers)
            taken_s = time.monotonic() - started_s
            assert (reply.status, reply.headers["tidegate-rule"]) == (504, "tv")
            assert "deadline" in reply.error
            assert limit_s * 0.9 <= taken_s
        # Only now, since both callers already had their answers.
        answered.set()


@pytest.mark.parametrize("timeout", ["", "0", "-1", "soon", "1e3", "nan", "inf", "0.0", "1,000", "10000000000"])
def test_a_malformed_timeout_is_named(scripted: Host, fake: FakeTriton, timeout: str) -> None:
    for reply in (
        scripted.ask("POST", "/v2/models/echoing/infer", b"{}", {"Tidegate-Timeout-Ms": timeout}),
        scripted.get("/v2/models/echoing", Tidegate_Timeout_Ms=timeout),
    ):
        assert reply.status == 400
        assert "Tidegate-Timeout-Ms" in reply.error
    assert fake.received == []


def test_a_body_that_is_too_large(scripted: Host, fake: FakeTriton) -> None:
    path = "/v2/models/echoing/infer"
    assert scripted.ask("POST", path, b"x" * MAX_BODY_BYTES).status == 200
    for headers in ({}, {"Content-Encoding": "gzip"}):
        reply = scripted.ask("POST", path, b"x" * (MAX_BODY_BYTES + 1), headers)
        assert (reply.status, str(MAX_BODY_BYTES) in reply.error) == (413, True)
    chunk = b"%x\r\n%b\r\n" % (MAX_BODY_BYTES, b"x" * MAX_BODY_BYTES)
    assert _chunked(scripted, chunk + chunk + b"0\r\n\r\n") == 413
    assert len(fake.received) == 1


def _chunked(host: Host, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=10)
    connection.putrequest("POST", "/v2/models/echoing/infer")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    connection.send(body)
    status = connection.getresponse().status
    connection.close()
    return status


def test_an_unforeseen_error_has_an_id_and_leaks_nothing(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        async def send(
            self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None = None
        ) -> HttpResponse:
            raise RuntimeError(value)

        def hang_up(self, endpoint: Endpoint) -> None:
            raise RuntimeError(value)

    value = "secret value of a context"

    directory = MemoryEndpointDirectory({"main": (Endpoint("main", "127.0.0.1", 1),)})
    app = create_app(engines=MemoryEngineSource(engine), dispatcher=Dispatcher(Broken(), directory))
    with serving(app) as host, caplog.at_level(logging.ERROR, "tidegate"):
        oip = host.ask("POST", "/v2/models/echoing/infer", b"{}", {"Tidegate-Context": '{"member_id": "secret-m"}'})
        v1 = host.ask("POST", "/v1/objectives/echoing/infer", {"context": {"member_id": "secret-m"}})
    assert (oip.status, v1.status) == (500, 500)
    assert oip.headers["tidegate-rule"] == "default"
    assert v1.problem["correlation_id"] in caplog.text
    assert oip.error.removeprefix("internal error, correlation id ") in caplog.text
    assert "RuntimeError" in caplog.text
    assert "test_oip_errors.py" in caplog.text
    assert "secret" not in caplog.text + oip.error + v1.body.decode()


def test_without_rules_the_gateway_lives_and_is_not_ready() -> None:
    class Nothing:
        def engine(self) -> Engine:
            raise BundleError("no bundle has been loaded yet")

        def catching_up(self) -> None:
            return None

    app = create_app(engines=Nothing(), dispatcher=Dispatcher(None, MemoryEndpointDirectory()))  # type: ignore[arg-type]
    with serving(app) as host:
        assert (host.get("/v2/health/live").status, host.get("/v2/health/live").json) == (200, {"live": True})
        assert host.get("/v2/health/ready").status == 400
        assert host.get("/v2/health/ready").json == {"ready": False}
        described = host.get("/openapi.json").json["paths"]["/v2/health/ready"]["get"]["responses"]["400"]
        jsonschema.validate({"ready": False}, described["content"]["application/json"]["schema"])
        reply = host.ask("POST", "/v2/models/echoing/infer", b"{}")
        assert (reply.status, reply.error) == (503, "no bundle has been loaded yet")
        assert host.get("/v1/objectives").problem["type"] == "urn:tidegate:problem:no-rules"


def test_not_ready_while_an_objective_has_no_endpoint(engine: Engine, fake: FakeTriton) -> None:
    with serving(gateway_app(engine, {"spare": fake.port})) as host:
        assert host.get("/v2/health/ready").status == 400
        assert host.get("/v2/health/live").status == 200


def test_a_server_that_does_not_describe_itself(scripted: Host, fake: FakeTriton) -> None:
    for body in (b"", b"[]", b"{}", b'{"extensions": 7}'):
        fake.script = lambda request, body=body: (200, {}, body)  # type: ignore[misc]
        reply = scripted.get("/v2")
        assert (reply.status, reply.error) == (503, "no server describes itself")


def test_header_values_are_safe() -> None:
    assert header_value("title_ranking@champion") == b"title_ranking@champion"
    assert header_value("50 % é\r\nX: 1") == b"50 %25 %C3%A9%0D%0AX: 1"
    assert len(header_value("é" * 1000)) <= 256


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/echoing%2Finfer", "/v2/models/echoing%2finfer", "/v2%2Fmodels/echoing/infer",
        "/v2/models%2Fechoing/infer", "/v2/models/echoing%252Finfer", "/v2/models/echoing%25252Finfer",
        "/v2/models/echoing%5Cinfer", "/v2/models/%65choing/infer", "/v2/models/x/%2e%2e/echoing/infer",
        "/v2/models/echoing/infer%00", "/v2/models/echoing%3Fx/infer", "/v2/models/echoing%/infer",
        "/v2//models/echoing/infer", "//v2/models/echoing/infer", "/v2/models/echoing//infer", "/v2/models/echoing/infer/",
        "/v2/models/echoing/infer;x=1", "/v2/models/echoing;x=1/infer", "/v2/models/x/../echoing/infer",
        "/v2/./models/echoing/infer", "/v2\\models\\echoing\\infer",
    ],
)  # fmt: skip
def test_a_path_is_read_as_it_was_sent(scripted: Host, fake: FakeTriton, path: str) -> None:
    reply = scripted.ask("POST", path, b"{}")
    assert (reply.status, fake.received) == (404, [])
    assert reply.error if path.startswith("/v2/") else reply.body
    assert "tidegate-rule" not in reply.headers


@pytest.mark.parametrize(
    "path", ["/v1%2Fobjectives", "/v1%2ffleet", "/v1%252Ffleet", "/v1/%6fbjectives", "/v1/x/%2e%2e/objectives",
             "/v1//objectives", "//v1/objectives", "/v1/objectives;x", "/v1/objectives%00", "/v1%5Cobjectives",
             "/v1/objectives%2Fechoing", "/v1/objectives/echoing%2Fresolve", "/openapi%2Ejson"]
)  # fmt: skip
def test_so_is_one_of_v1(scripted: Host, path: str) -> None:
    assert scripted.get(path).problem["status"] == 404
    assert scripted.ask("POST", path, b"{}").problem["status"] == 404


@pytest.mark.parametrize("value", ["x" * 8_001, "x" * 60_000, "\xe9" * 2_700])
def test_a_header_that_triton_would_reset_the_connection_at_is_named(
    scripted: Host, fake: FakeTriton, value: str
) -> None:
    for method, path in (("POST", "/v2/models/echoing/infer"), ("GET", "/v2/models/echoing")):
        reply = scripted.ask(method, path, b"{}" if method == "POST" else None, {"Baggage": value})
        assert (reply.status, "baggage" in reply.error, fake.received) == (431, True, [])
    fake.script = lambda request: (200, {}, b'{"versions":["1"],"inputs":[],"outputs":[]}')
    refused = scripted.ask("POST", "/v1/objectives/echoing/infer", {"inputs": {}}, {"Baggage": value})
    assert (refused.problem["status"], refused.problem["header"]) == (431, "baggage")
    assert all(request.method == "GET" for request in fake.received)
    fake.script = lambda request: (200, {}, b"{}")
    kept = {"Baggage": "x" * 8_000, "X-Anything": "x" * 20_000}
    assert scripted.ask("POST", "/v2/models/echoing/infer", b"{}", kept).status == 200


def test_a_query_may_be_encoded(scripted: Host) -> None:
    path = "/v1/objectives/echoing/resolve?%65xplain=%74rue"
    assert scripted.ask("POST", path, {"context": {}}).json["explanation"]
    assert "/%" in scripted.get("/v1/objectives?x%2F%25=1").problem["detail"]
    assert scripted.ask("POST", "/v2/models/echoing/infer?x=%2F", b"{}").status == 200


header_names = st.sampled_from(
    [
        "Tidegate-Context",
        "Tidegate-Timeout-Ms",
        "Inference-Header-Content-Length",
        "Content-Encoding",
        "X-Country",
        "X-Level",
        "Accept-Encoding",
        "Connection",
        "Tidegate-Param-x",
        "Content-Type",
    ]
)
header_texts = st.one_of(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=40),
    st.sampled_from(["{}", '{"level": 3}', '{"allocations": 3}', '{"allocations": {"123": []}}', "gzip", "12", "0", '{"tags": [1]}']),
)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
NAMES = ["country", "device", "level", "share", "is_kids", "tags", "allocations", "sequence_id", "member_id", "other"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    headers=st.lists(st.tuples(header_names, header_texts), max_size=4),
    body=st.binary(max_size=60)
    | st.fixed_dictionaries(
        {"parameters": st.dictionaries(st.sampled_from(NAMES), json_values, max_size=4) | json_values}
    ),
    tail=st.sampled_from(
        ["infer", "versions/1/infer", "versions/77777777777777777777777/infer", "generate", "ready", ""]
    ),
    objective=st.sampled_from(["echoing", "adding", "guarded", "text_adding", "nobody", "%F0%9F%98%80", "..", "a%0Ab"]),
    method=st.sampled_from(["GET", "POST", "PUT"]),
)
def test_malformed_input_is_never_a_server_error(
    scripted: Host, fake: FakeTriton, headers: list[tuple[str, str]], body: Any, tail: str, objective: str, method: str
) -> None:
    meta = b'{"name":"m","versions":["1"],"inputs":[],"outputs":[]}'
    fake.script = lambda request: (200, {"Content-Type": "application/json"}, meta)
    sent = [(name, value.strip()) for name, value in headers]
    reply = scripted.ask(method, f"/v2/models/{objective}/{tail}".rstrip("/"), body, sent)
    assert reply.status < 500 or reply.status in (501, 504), "504: the header asked for an impossible deadline"
    if reply.status >= 400:
        assert reply.error
