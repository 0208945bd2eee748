"""`generate` and `generate_stream` through the gateway, in front of a real Triton with a decoupled model."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tidegate.rules import Engine
from tidegate.web.model_answers import ModelErrors

from tests.web.conftest import Host, gateway_app, serving

GENERATE = "/v2/models/tallying/generate"
STREAM = "/v2/models/tallying/generate_stream"
TUNED = {"Tidegate-Context": '{"country": "SE"}'}
ORIGIN = {"Tidegate-Param-tidegate_traffic": "real"}
OF_THE_RULE = {**ORIGIN, "Tidegate-Param-top_k": "20", "Tidegate-Param-greeting": 'hello "there"'}


@pytest.fixture(scope="module")
def redacting(engine: Engine, triton: Host) -> Iterator[Host]:
    with serving(gateway_app(engine, {"main": triton.port}, model_errors=ModelErrors.REDACTED)) as host:
        yield host


def events(body: bytes) -> list[dict[str, Any]]:
    parts = body.decode().split("\n\n")
    assert parts.pop() == "", "every event ends with a blank line"
    return [json.loads(part.removeprefix("data: ")) for part in parts]


def numbers(body: bytes) -> list[int]:
    return [event["NUMBER"] for event in events(body)]


@contextlib.contextmanager
def opened(host: Host, path: str, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", path, json.dumps(body))
        yield connection.getresponse()


@pytest.mark.parametrize("action", ["generate", "generate_stream"])
def test_an_answer_is_tritons_with_the_decision_in_its_headers(gateway: Host, triton: Host, action: str) -> None:
    body = {"COUNT": 1, "id": "42", "parameters": {"temperature": 0.5}, "other": True}
    direct = triton.ask("POST", f"/v2/models/tally/{action}", {**body, **ORIGIN})
    reply = gateway.ask("POST", f"/v2/models/tallying/{action}", body)
    assert (reply.status, reply.body) == (direct.status, direct.body) == (200, direct.body)
    assert reply.headers["content-type"] == direct.headers["content-type"]
    assert reply.headers["tidegate-rule"] == "default"
    assert {"decide", "dispatch", "triton"} <= {
        each.strip().split(";")[0] for each in reply.headers["server-timing"].split(",")
    }


@pytest.mark.parametrize(
    "body", ['{"COUNT":1}', ' {"COUNT" : 1 , "parameters":{"a":1}} \n', '{"COUNT":1,"parameters":{}}']
)  # fmt: skip
def test_a_rules_parameters_reach_the_model_under_the_names_of_infer(gateway: Host, body: str) -> None:
    reply = gateway.ask("POST", GENERATE, body, TUNED)
    found = json.loads(reply.json["PARAMETERS"])
    assert found.pop("a", 1) == 1
    assert found == OF_THE_RULE


def test_the_context_is_read_from_the_parameters(gateway: Host) -> None:
    reply = gateway.ask("POST", STREAM, {"COUNT": 2, "parameters": {"country": "SE"}})
    assert reply.headers["tidegate-rule"] == "tuned"
    assert [json.loads(event["PARAMETERS"]) for event in events(reply.body)] == [{"country": "SE", **OF_THE_RULE}] * 2
    beside = gateway.ask("POST", STREAM, {"COUNT": 1, "country": "SE"})
    assert beside.headers["tidegate-rule"] == "default"


def test_events_come_as_the_model_sends_them(gateway: Host) -> None:
    with opened(gateway, STREAM, {"COUNT": 20, "SCRIPT": "slow"}) as response:
        first = response.readline()
        first_s = time.monotonic()
        rest = response.read()
    assert numbers(first + rest) == list(range(20))
    assert time.monotonic() - first_s > 0.5, "the model takes three seconds for the rest"


def test_a_stream_without_responses_is_empty(gateway: Host) -> None:
    reply = gateway.ask("POST", STREAM, {"COUNT": 0})
    assert (reply.status, reply.body) == (200, b"")


def test_a_fallback_streams_where_the_target_is_not_served(gateway: Host) -> None:
    reply = gateway.ask("POST", STREAM, {"COUNT": 3}, {"Tidegate-Context": '{"country": "NO"}'})
    assert numbers(reply.body) == [0, 1, 2]
    assert (reply.headers["tidegate-model"], reply.headers["tidegate-reason"]) == ("tally", "fallback")


def test_a_caller_that_leaves_cancels_the_model(gateway: Host) -> None:
    def cancelled() -> int:
        found: int = gateway.ask("POST", GENERATE, {"COUNT": 1, "SCRIPT": "cancelled"}).json["NUMBER"]
        return found

    before = cancelled()
    with opened(gateway, STREAM, {"COUNT": 200, "SCRIPT": "slow"}) as response:
        assert response.readline()
    # The model's one instance works on this request, too. What was left would take it longer than this may wait.
    assert cancelled() == before + 1


def test_an_error_within_a_stream_is_redacted_like_any_other(gateway: Host, redacting: Host, triton: Host) -> None:
    body = {"COUNT": 5, "SCRIPT": "fail"}
    assert (
        gateway.ask("POST", STREAM, body).body
        == triton.ask("POST", STREAM.replace("tallying", "tally"), {**body, **ORIGIN}).body
    )
    *sent, error = events(redacting.ask("POST", STREAM, body).body)
    assert [event["NUMBER"] for event in sent] == [0, 1]
    assert list(error) == ["error"]
    assert "correlation id" in error["error"]
    assert "secret" not in error["error"]


@pytest.mark.parametrize("action", ["generate", "generate_stream"])
def test_an_error_before_the_first_response_has_the_form_of_infer(gateway: Host, redacting: Host, action: str) -> None:
    path, body = f"/v2/models/tallying/{action}", {"COUNT": 5, "SCRIPT": "raise"}
    assert "secret of the model" in gateway.ask("POST", path, body).error
    reply = redacting.ask("POST", path, body)
    assert (reply.status, "correlation id" in reply.error) == (500, True)


def test_generate_says_that_the_model_gives_more_than_one_response(redacting: Host) -> None:
    reply = redacting.ask("POST", GENERATE, {"COUNT": 2})
    assert (reply.status, "use generate stream" in reply.error) == (400, True)


@pytest.mark.parametrize(
    "body",
    [
        b"no json", b"[1]", b'{"COUNT":1,"COUNT":2}', b'{"parameters":[]}', b'{"parameters":{"tidegate-param-x":1}}',
        b'{"Tidegate-Param-top_k":"1"}', b'{"Tidegate\\u002dParam-top_k":"1"}', b'{"COUNT":1,"x":{"y":1}}',
        b'{"COUNT":"many"}', b'{"COUNT":[1,2]}', b"{}", b'{"COUNT":1,"id":7}', b'{"parameters":{"COUNT":"x"}}', b"",
        b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("action", ["generate", "generate_stream"])
def test_malformed_requests_are_the_callers_mistake(redacting: Host, action: str, body: bytes) -> None:
    reply = redacting.ask("POST", f"/v2/models/tallying/{action}", body)
    assert reply.status == 400
    assert "correlation id" not in reply.error, "the error names what is wrong"


def test_a_compressed_body_is_refused(gateway: Host) -> None:
    assert gateway.ask("POST", STREAM, b"x", {"Content-Encoding": "gzip"}).status == 415


def test_a_model_with_one_response_streams_it(gateway: Host) -> None:
    reply = gateway.ask("POST", "/v2/models/adding/generate_stream", {"INPUT0": [1] * 16, "INPUT1": [2] * 16})
    (event,) = events(reply.body)
    assert event["OUTPUT0"] == [3] * 16


def test_an_objective_of_streams_has_no_infer(gateway: Host) -> None:
    for path in ("/v2/models/tallying/infer", "/v2/models/tallying/versions/1/infer"):
        refused = gateway.ask("POST", path, b"{}")
        assert (refused.status, "generate_stream" in refused.error) == (501, True)
    plain = gateway.ask("POST", "/v1/objectives/tallying/infer", {"context": {}, "inputs": {"COUNT": 1}})
    assert (plain.status, plain.problem["type"]) == (501, "urn:tidegate:problem:streams-only")
    assert gateway.get("/v1/objectives/tallying").json["responses"] == "stream"
    resolved = gateway.ask("POST", "/v1/objectives/tallying/resolve", {"context": {}})
    assert resolved.json["path"] == "/v2/models/tally/generate_stream"


def test_a_version_is_pinned_as_for_infer(gateway: Host) -> None:
    assert gateway.ask("POST", "/v2/models/tallying/versions/1/generate", {"COUNT": 1}).status == 200
    assert gateway.ask("POST", "/v2/models/tallying/versions/7/generate_stream", {"COUNT": 1}).status == 404


def test_a_gateway_that_sends_only_whole_answers_refuses_streams(engine: Engine, triton: Host) -> None:
    with serving(gateway_app(engine, {"main": triton.port}, streams=False)) as host:
        reply = host.ask("POST", STREAM, {"COUNT": 1})
        assert (reply.status, "Lambda" in reply.error) == (501, True)
        assert host.ask("POST", GENERATE, {"COUNT": 1}).status == 200
