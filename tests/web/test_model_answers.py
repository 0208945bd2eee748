"""Models' answers to callers: error texts are redacted, and answers that are not valid HTTP are refused."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tidegate.gateway import Attempt, Outcome
from tidegate.oip.error_texts import is_tritons_own
from tidegate.ports import Endpoint, HttpResponse
from tidegate.rules import Engine, Target
from tidegate.web.model_answers import ModelAnswers, ModelErrors

from tests.web.conftest import FakeTriton, Host, gateway_app, serving

INFER = "/v2/models/echoing/infer"
V1_INFER = "/v1/objectives/echoing/infer"
INPUT = {"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
META = b'{"name":"m","versions":["1"],"inputs":[],"outputs":[]}'
SECRET = "member 4711 has no history"


@pytest.fixture(scope="module")
def redacting(engine: Engine, triton: Host) -> Iterator[Host]:
    """A gateway that redacts, in front of the real Triton."""
    with serving(gateway_app(engine, {"main": triton.port}, model_errors=ModelErrors.REDACTED)) as host:
        yield host


def failing(how: str) -> dict[str, Any]:
    return {"inputs": [INPUT], "parameters": {how: SECRET}}


@pytest.mark.parametrize("how", ["raise_with", "fail_with"])
def test_an_error_of_a_model_is_redacted_and_logged(
    redacting: Host, gateway: Host, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "tidegate.web"):
        reply = redacting.ask("POST", INFER, failing(how))
        assert reply.status in (400, 500)
        match = re.fullmatch("the model answered with an error, correlation id ([0-9a-f]{16})", reply.error)
        assert match is not None
        (record,) = [each.getMessage() for each in caplog.records if match[1] in each.getMessage()]
        assert SECRET in record
        assert "echo" in record
    assert SECRET in gateway.ask("POST", INFER, failing(how)).json["error"], "passed through where the setting says so"


def test_so_it_is_by_v1(scripted_redacting: Host, fake: FakeTriton) -> None:
    def answer(request: Any) -> tuple[int, dict[str, str], bytes]:
        return (200, {}, META) if request.method == "GET" else (500, {}, json.dumps({"error": SECRET}).encode())

    fake.script = answer
    reply = scripted_redacting.ask("POST", V1_INFER, {"inputs": {}})
    assert (reply.status, SECRET in reply.problem["detail"]) == (500, False)
    assert "correlation id" in reply.problem["detail"]


@pytest.fixture
def scripted_redacting(engine: Engine, fake: FakeTriton) -> Iterator[Host]:
    with serving(gateway_app(engine, {"main": fake.port}, model_errors=ModelErrors.REDACTED)) as host:
        yield host


MISFITS: list[dict[str, Any]] = [
    {"inputs": []},
    {"inputs": [{**INPUT, "name": "Y"}]},
    {"inputs": [{**INPUT, "datatype": "INT32"}]},
    {"inputs": [{**INPUT, "shape": [1, 1, 2]}]},
    {"inputs": [{**INPUT, "shape": [2], "data": [1, 2]}]},
    {"inputs": [{**INPUT, "shape": [9, 2], "data": [1] * 18}]},
    {"inputs": [INPUT, {**INPUT, "name": "Z"}]},
    {"inputs": [INPUT], "outputs": [{"name": "nothing"}]},
    {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2]}]},
    {"inputs": [{**INPUT, "data": ["a", "b"]}]},
    {"inputs": [INPUT], "parameters": {"a": {}}},
    {"inputs": [INPUT], "parameters": {"triton_x": 1}},
    {"inputs": 7},
    {},
]


@pytest.mark.parametrize("number", range(len(MISFITS)))
def test_what_a_caller_mends_its_request_by_passes(redacting: Host, gateway: Host, number: int) -> None:
    through, passed = redacting.ask("POST", INFER, MISFITS[number]), gateway.ask("POST", INFER, MISFITS[number])
    assert 400 <= through.status < 500
    assert (through.status, through.error) == (passed.status, passed.error)


@pytest.mark.parametrize(
    "text",
    [
        "Failed to process the request(s) for model 'm_0_0', message: ValueError: x\n\nAt:\n  /models/m/1/model.py(7): execute\n",
        "Stub process 'm_0_0' is not healthy.",
        "unexpected shape for input '/home/x/secret' for model 'm'. Expected [1]",
        "input byte size mismatch for input 'X' for model 'm'. Expected 8, got 4 in /opt/models/m/1/model.py",
        "inference input 'X' is wrong\nAt: line 7",
        "",
    ],
)
def test_a_text_with_a_path_or_of_code_does_not(text: str) -> None:
    assert not is_tritons_own(text)


def test_many_errors_are_counted_and_not_all_logged(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [0.0]
    answers = ModelAnswers(ModelErrors.REDACTED, lambda: now_s[0])
    attempt = Attempt(Target("ranker", "ranker", None, ("main",)), "main", Endpoint("main", "a", 1), True, "ranking")
    failed = Outcome(HttpResponse(500, [], b"no JSON at all \xff"), attempt, 1.0)
    with caplog.at_level(logging.WARNING, "tidegate.web"):
        for _ in range(60):
            assert b"correlation id" in answers.shown(failed).body
        assert 0 < len(caplog.records) < 60
        unlogged = 60 - len(caplog.records)
        now_s[0] = 1.0
        answers.shown(failed)
    assert f"{unlogged} more" in caplog.records[-1].getMessage()


def test_an_error_within_a_stream_is_not_logged_as_an_answer_of_200(caplog: pytest.LogCaptureFixture) -> None:
    attempt = Attempt(Target("ranker", "ranker", None, ("main",)), "main", Endpoint("main", "a", 1), True, "ranking")
    with caplog.at_level(logging.WARNING, "tidegate.web"):
        ModelAnswers(ModelErrors.REDACTED).text(Outcome(HttpResponse(200, [], b""), attempt, 1.0), SECRET)
    (record,) = [each.getMessage() for each in caplog.records]
    assert "200" not in record
    assert SECRET in record


@pytest.fixture
def raw(engine: Engine) -> Iterator[tuple[Host, list[bytes]]]:
    """A gateway in front of a server that answers every request with the bytes of a list's first element."""
    answers: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                received = b""
                while not received.endswith(b"\r\n\r\n{}"):
                    received += connection.recv(65536) or b"\r\n\r\n{}"
                connection.sendall(answers[0])

    threading.Thread(target=serve, daemon=True).start()
    with serving(gateway_app(engine, {"main": listener.getsockname()[1]})) as host:
        yield host, answers
    # Closing the socket would not wake the thread that waits on it.
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 600 Odd\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Odd: a\x01b\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_an_answer_that_http_cannot_carry_is_a_502_with_words(raw: tuple[Host, list[bytes]], answer: bytes) -> None:
    host, answers = raw
    answers[:] = [answer]
    reply = host.ask("POST", INFER, b"{}")
    assert reply.status in (502, 503), "503: what the parser of HTTP refuses counts as a failed server"
    assert reply.error
    assert "10.0.0.1" not in reply.error + str(reply.headers)
    assert reply.headers["tidegate-rule"] == "default"


@pytest.mark.parametrize(
    "text",
    [
        "unexpected inference input '" + "x" * 5_000 + "' for model 'm'",
        # A caller chooses the names of its inputs, and so what the patterns have to match.
        "unexpected inference input '" + " " * 4_000_000 + "'\n",
        "unexpected inference input '" + " x" * 2_000_000,
    ],
)
def test_a_text_that_is_longer_than_tritons_own_is_redacted_without_a_look(text: str) -> None:
    assert not is_tritons_own(text)


def test_a_large_error_of_a_model_is_not_parsed(scripted_redacting: Host, fake: FakeTriton) -> None:
    fake.script = lambda request: (200, {}, META) if request.method == "GET" else (500, {}, large)
    large = json.dumps({"error": "x" * 200_000}).encode()
    assert "correlation id" in scripted_redacting.ask("POST", INFER, {"inputs": []}).error
    reply = scripted_redacting.ask("POST", V1_INFER, {"inputs": {}})
    assert (reply.status, "correlation id" in reply.problem["detail"]) == (500, True)
