"""The sources of a request's context on `/v2`, and what is forwarded to Triton."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from typing import Any

import pytest

from tests.web.conftest import FakeTriton, Host, Reply

INFER = "/v2/models/echoing/infer"


def ask(host: Host, context: str | None = None, parameters: Any = None, **headers: str) -> Reply:
    body: dict[str, Any] = {"inputs": []}
    if parameters is not None:
        body["parameters"] = parameters
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if context is not None:
        sent["Tidegate-Context"] = context
    return host.ask("POST", INFER, body, sent)


@pytest.mark.parametrize(
    ("context", "rule"),
    [
        ({"is_kids": True}, "kids"),
        ({"level": 10}, "deep"),
        ({"share": 0.6}, "shared"),
        ({"tags": ["alpha", "beta"]}, "tagged"),
        ({"allocations": {"123": 1}}, "allocated"),
        ({"country": "SE"}, "tuned"),
        ({"unheard_of": {"deep": [1]}}, "default"),
        ({}, "default"),
    ],
)
def test_the_context_header(scripted: Host, context: dict[str, Any], rule: str) -> None:
    reply = ask(scripted, json.dumps(context))
    assert (reply.status, reply.headers["tidegate-rule"]) == (200, rule)


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        ({"is_kids": True}, "kids"),
        ({"is_kids": "true"}, "kids"),
        ({"level": 11}, "deep"),
        ({"level": "11"}, "deep"),
        ({"share": "0.75"}, "shared"),
        ({"tags": "alpha, beta"}, "tagged"),
        ({"allocations": '{"123": 1}'}, "allocated"),
        ({"country": "SE", "binary_data_output": True, "unheard_of": 1}, "tuned"),
    ],
)
def test_parameters_of_the_request(scripted: Host, parameters: dict[str, Any], rule: str) -> None:
    reply = ask(scripted, None, parameters)
    assert (reply.status, reply.headers["tidegate-rule"]) == (200, rule)


def test_declared_headers_come_last(scripted: Host) -> None:
    assert ask(scripted, X_Country="SE").headers["tidegate-rule"] == "tuned"
    assert ask(scripted, X_Level="12").headers["tidegate-rule"] == "deep"
    assert ask(scripted, '{"country": "NL"}', X_Country="SE").headers["tidegate-rule"] == "default"
    assert ask(scripted, None, {"country": "NL"}, X_Country="SE").headers["tidegate-rule"] == "default"
    assert ask(scripted, '{"member_id": "1"}', X_Country="SE").headers["tidegate-rule"] == "tuned"


def test_parameters_count_only_without_the_context_header(scripted: Host) -> None:
    assert ask(scripted, "{}", {"is_kids": True}).headers["tidegate-rule"] == "default"


def test_only_the_json_part_of_a_binary_body_is_read(scripted: Host) -> None:
    head = json.dumps({"parameters": {"country": "SE"}, "inputs": []}).encode()
    tail = b'{"parameters":{"is_kids":true}}\x00\xff'
    length = {"Inference-Header-Content-Length": str(len(head))}
    assert scripted.ask("POST", INFER, head + tail, length).headers["tidegate-rule"] == "tuned"
    raw = {"Inference-Header-Content-Length": "0"}
    assert scripted.ask("POST", INFER, head, raw).headers["tidegate-rule"] == "default"


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_the_context_of_a_compressed_body_counts_and_the_body_stays_compressed(
    scripted: Host, fake: FakeTriton, coding: str, pack: Any
) -> None:
    body = pack(json.dumps({"parameters": {"is_kids": True}}).encode())
    reply = scripted.ask("POST", INFER, body, {"Content-Encoding": coding})
    assert reply.headers["tidegate-rule"] == "kids"
    assert (fake.received[0].body, fake.received[0].header("content-encoding")) == (body, coding)
    head = json.dumps({"parameters": {"level": 10}}).encode()
    binary = pack(head + b'{"parameters":{"is_kids":true}}')
    sent = {"Content-Encoding": coding, "Inference-Header-Content-Length": str(len(head))}
    assert scripted.ask("POST", INFER, binary, sent).headers["tidegate-rule"] == "deep"


@pytest.mark.parametrize("where", ["start", "end"])
def test_the_context_of_a_large_body_counts_wherever_it_is(scripted: Host, fake: FakeTriton, where: str) -> None:
    inputs = b'"inputs": [{"name": "parameters", "data": [%b]}]' % b",".join([b'"{"'] * 60_000)
    members = [b'"parameters": {"is_kids": true}', inputs]
    text = b"{%b}" % b", ".join(members if where == "start" else members[::-1])
    for body, coding in ((text, {}), (gzip.compress(text), {"Content-Encoding": "gzip"})):
        assert scripted.ask("POST", INFER, body, coding).headers["tidegate-rule"] == "kids"
        assert fake.received[-1].body == body
    cut = text[: -len(members[0])] if where == "end" else text[:-1]
    reply = scripted.ask("POST", INFER, cut)
    assert (reply.status, "cannot be read" in reply.error) == (400, True)
    twice = text[:-1] + b', "par\\u0061meters": {}}'
    assert (scripted.ask("POST", INFER, twice).status, len(fake.received)) == (400, 2)


def test_a_compressed_body_that_is_none_is_tritons_to_complain_about(scripted: Host, fake: FakeTriton) -> None:
    body = gzip.compress(b'{"parameters": {"is_kids": true}}')[:-12]
    for sent in (b"no gzip", body):
        scripted.ask("POST", INFER, sent, {"Content-Encoding": "gzip"})
    assert [received.body for received in fake.received][:1] == [b"no gzip"]


@pytest.mark.parametrize("coding", ["identity", "Identity", "", " ", ",", "identity, identity", "identity,"])
def test_a_body_without_a_coding_is_read_and_goes_on_without_one(scripted: Host, fake: FakeTriton, coding: str) -> None:
    fake.script = lambda request: (503, {}, b"")
    reply = ask(scripted, None, {"is_kids": True, "sequence_id": 7}, Content_Encoding=coding)
    assert reply.headers["tidegate-rule"] == "kids"
    (received,) = fake.received
    assert received.header("content-encoding") is None


@pytest.mark.parametrize(
    ("sent", "forwarded"),
    [
        (["GZIP"], "gzip"),
        (["x-gzip"], "gzip"),
        (["identity, deflate"], "deflate"),
        (["identity", "Deflate"], "deflate"),
        (["gzip", "identity"], "gzip"),
        (["gzip", "br"], "gzip, br"),
        (["zstd, gzip"], "zstd, gzip"),
        (["hallå"], "hall%C3%A5"),
    ],
)
def test_a_coding_goes_on_as_triton_reads_it(scripted: Host, fake: FakeTriton, sent: list[str], forwarded: str) -> None:
    headers = [("Content-Encoding", value.encode("utf-8").decode("latin-1")) for value in sent]
    assert (
        scripted.ask("POST", INFER, b'{"parameters":{"is_kids":true}}', headers).headers["tidegate-rule"] == "default"
    )
    assert [value for name, value in fake.received[0].headers if name == "content-encoding"] == [forwarded]


@pytest.mark.parametrize(
    "key", ["par\\u0061meters", "\\u0070\\u0061\\u0072ameters", "paramete\\u0072s", "para\\u006Deters"]
)
def test_a_key_may_be_spelled_with_escapes(scripted: Host, fake: FakeTriton, key: str) -> None:
    body = f'{{"inputs": [], "{key}": {{"is\\u005fkids": true}}}}'.encode()
    assert scripted.ask("POST", INFER, body).headers["tidegate-rule"] == "kids"
    fake.script = lambda request: (503, {}, b"")
    fake.received.clear()
    sequence = f'{{"inputs": [], "{key}": {{"sequence\\u005fid": 7}}}}'.encode()
    assert scripted.ask("POST", INFER, sequence, {"Tidegate-Context": "{}"}).status == 503
    assert len(fake.received) == 1, "a sequence is sent once"


def test_escapes_elsewhere_do_not_have_a_body_read(scripted: Host, fake: FakeTriton) -> None:
    body = b'{"id": "caf\\u00e9 par\\u0061meter \xe9"}'
    assert scripted.ask("POST", INFER, body).headers["tidegate-rule"] == "default"
    assert fake.received[0].body == body


@pytest.mark.parametrize("body", [b'{"parameters": 3}', b'["parameters"]', b'{"inputs":', b"\xe9", b"[" * 30])
def test_what_holds_no_context_is_tritons_to_complain_about(scripted: Host, fake: FakeTriton, body: bytes) -> None:
    assert scripted.ask("POST", INFER, body).headers["tidegate-rule"] == "default"
    assert fake.received[0].body == body


PARAMETERS = b'"parameters": {"is_kids": true}'


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"parameters":', "column 15"),
        (b'{"parameters": {"x": NaN', "column 25"),
        (b"{%b}\0" % PARAMETERS, "column 34"),
        (b'{%b, "id": "caf\xe9"}' % PARAMETERS, "byte 44 is not UTF-8"),
        (b'{%b, "x": %b}' % (PARAMETERS, b"[" * 5000 + b"]" * 5000), "nested"),
        (b'{%b, "x": %b}' % (PARAMETERS, b"1" * 5000), "number"),
    ],
)
def test_json_that_may_hold_context_and_does_not_parse_is_refused(
    scripted: Host, fake: FakeTriton, body: bytes, why: str
) -> None:
    reply = scripted.ask("POST", INFER, body)
    assert (reply.status, fake.received) == (400, [])
    assert why in reply.error
    assert "is_kids" not in reply.error
    sequence = body.replace(b'"is_kids": true', b'"sequence_id": 1')
    if b"sequence_id" in sequence:
        assert scripted.ask("POST", INFER, sequence, {"Tidegate-Context": "{}"}).status == 400


def test_blanks_around_a_headers_value_are_no_part_of_it(scripted: Host, fake: FakeTriton) -> None:
    for blank in (" ", "\t", " \t "):
        assert ask(scripted, X_Country=f"SE{blank}").headers["tidegate-rule"] == "tuned"
        assert ask(scripted, X_Level=f"12{blank}").headers["tidegate-rule"] == "deep"
        reply = ask(
            scripted, Tidegate_Timeout_Ms=f"900{blank}", Accept_Encoding=f"gzip{blank}", Tracestate=f"a=b{blank}"
        )
        assert (reply.status, fake.received[-1].header("accept-encoding")) == (200, "gzip")
        assert fake.received[-1].header("tracestate") == "a=b"


@pytest.mark.parametrize(
    "context",
    [
        "",
        "{",
        "[]",
        "7",
        '"text"',
        "null",
        "{'a': 1}",
        "[" * 5000,
        '{"a":' + "1" * 5000 + "}",
        '{"country": "SE", "country": "NL"}',
        '{"allocations": {"1": 1, "1": 2}}',
        '{"share": NaN}',
        '{"share": Infinity}',
        '{"unheard_of": -Infinity}',
    ],
)
def test_a_malformed_context_header_is_named(scripted: Host, fake: FakeTriton, context: str) -> None:
    reply = ask(scripted, context)
    assert (reply.status, fake.received) == (400, [])
    assert "Tidegate-Context" in reply.error
    assert scripted.get("/v2/models/echoing", Tidegate_Context=context).status == 400


@pytest.mark.parametrize(
    "body",
    [
        b'{"parameters": {"country": "SE", "country": "NL"}}',
        b'{"parameters": {"country": "SE"}, "parameters": {}}',
        b'{"parameters": {"sequence_id": 1, "sequence_id": 2}}',
    ],
)
def test_parameters_that_stand_there_twice_are_refused(scripted: Host, fake: FakeTriton, body: bytes) -> None:
    reply = scripted.ask("POST", INFER, body)
    assert (reply.status, "duplicated" in reply.error, fake.received) == (400, True, [])


def test_the_context_header_is_utf_8_and_stands_there_once(scripted: Host) -> None:
    one = ("Tidegate-Context", '{"country": "SE"}')
    assert scripted.ask("POST", INFER, b"{}", [one, one]).status == 400
    assert scripted.ask("POST", INFER, b"{}", [("Tidegate-Context", '{"country": "Å"}')]).status == 400


@pytest.mark.parametrize(
    ("given", "attribute"),
    [
        ({"context": '{"level": "secret-7"}'}, "level"),
        ({"context": '{"is_kids": 1}'}, "is_kids"),
        ({"context": '{"device": "secret-fridge"}'}, "device"),
        ({"context": '{"tags": "secret-tag"}'}, "tags"),
        ({"parameters": {"level": "secret-7"}}, "level"),
        ({"parameters": {"device": "secret-fridge"}}, "device"),
        ({"parameters": {"allocations": "secret"}}, "allocations"),
        ({"parameters": {"allocations": '{"123": NaN}'}}, "allocations"),
        ({"parameters": {"share": math.nan}}, "share"),
        ({"parameters": {"share": "Infinity"}}, "share"),
        ({"X_Level": "secret-7"}, "level"),
    ],
)
def test_a_context_that_is_not_usable_names_the_attribute_and_never_the_value(
    scripted: Host, fake: FakeTriton, given: dict[str, Any], attribute: str, caplog: pytest.LogCaptureFixture
) -> None:
    reply = ask(scripted, **given)
    assert (reply.status, fake.received) == (400, [])
    assert attribute in reply.error
    assert "secret" not in reply.error
    assert "secret" not in caplog.text


def test_a_required_attribute_and_a_context_that_no_rule_matches(scripted: Host) -> None:
    path = "/v2/models/guarded/infer"
    missing = scripted.ask("POST", path, b"{}")
    assert (missing.status, "member_id" in missing.error) == (400, True)
    unmatched = scripted.ask("POST", path, b"{}", {"Tidegate-Context": '{"member_id": "1"}'})
    assert (unmatched.status, "guarded" in unmatched.error) == (404, True)
    assert scripted.get("/v2/models/guarded").headers["tidegate-rule"] == "known", "metadata needs no context"


@pytest.mark.parametrize("length", ["abc", "-1", "5x", "99", "", "1_0", "9" * 30])
def test_a_length_of_the_json_part_that_cannot_be(scripted: Host, length: str) -> None:
    reply = scripted.ask("POST", INFER, b'{"inputs":[]}', {"Inference-Header-Content-Length": length})
    assert reply.status == 400
    assert reply.error.startswith("inference header size should be in range (0, 13), got: ")


def test_what_travels_on_and_what_stays(scripted: Host, fake: FakeTriton) -> None:
    sent = {
        "Content-Type": "application/octet-stream",
        "Accept-Encoding": "gzip",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=b",
        "X-Request-Id": "r7",
        "Authorization": "Bearer secret",
        "Cookie": "session=secret",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "hop",
        "TE": "trailers",
        "Proxy-Authorization": "secret",
        "Tidegate-Timeout-Ms": "900.5",
        "Tidegate-Context": '{"country": "SE"}',
        "Tidegate-Param-top_k": "99",
        "tidegate-param-Evil": "99",
        "Tidegate-Param-tidegate_traffic": "shadow",
        "Tidegate-Param-tidegate_caller": "somebody",
        "X-Tidegate-Param-Evil": "99",
        "Tidegate-Anything": "x",
        "CloudFront-Viewer-City": "Malm\xf6",
        "X-Forwarded-For": "203.0.113.10",
        "User-Agent": "x" * 9000,
    }
    body = bytes(range(256))
    assert scripted.ask("POST", INFER, body, sent).status == 200
    (received,) = fake.received
    assert (received.method, received.path, received.body) == ("POST", "/v2/models/echo/infer", body)
    assert sorted(received.headers) == sorted(
        [
            ("host", f"127.0.0.1:{fake.port}"),
            ("content-length", "256"),
            ("content-type", "application/octet-stream"),
            ("accept-encoding", "gzip"),
            ("traceparent", sent["traceparent"]),
            ("tracestate", "a=b"),
            ("x-request-id", "r7"),
            ("tidegate-param-top_k", "20"),
            ("tidegate-param-strict", "true"),
            ("tidegate-param-greeting", "hello there"),
            ("tidegate-param-ratio", "0.5"),
            ("tidegate-param-tidegate_traffic", "real"),
        ]
    )


def test_what_travels_is_ascii(scripted: Host, fake: FakeTriton) -> None:
    fake.script = lambda request: (200, {"X-Model": "r\xe4ksm\xf6rg\xe5s", "X-Plain": "50%"}, b"{}")
    for path in (INFER, "/v2/models/echoing/config"):
        method = "POST" if path == INFER else "GET"
        body = b"{}" if path == INFER else None
        reply = scripted.ask(method, path, body, {"Baggage": "city=Malm\xf6", "Tracestate": "a=1%"})
        assert (reply.headers["x-model"], reply.headers["x-plain"]) == ("r%E4ksm%F6rg%E5s", "50%")
        assert fake.received[-1].header("baggage") == "city=Malm%F6"
        assert fake.received[-1].header("tracestate") == "a=1%"


def test_a_control_character_does_not_travel(scripted: Host, fake: FakeTriton) -> None:
    meta = {"name": "m", "versions": ["1"], "inputs": [], "outputs": []}
    fake.script = lambda _: (200, {}, json.dumps(meta).encode())
    for path, body in ((INFER, b"{}"), ("/v1/objectives/echoing/infer", {"inputs": {}})):
        scripted.ask("POST", path, body, {"Baggage": "a\tb"})
        assert fake.received[-1].header("baggage") == "a%09b"


def test_a_cells_parameters(scripted: Host, fake: FakeTriton) -> None:
    reply = ask(scripted, '{"allocations": {"123": 2}}')
    assert (reply.headers["tidegate-cell"], reply.headers["tidegate-reason"]) == ("2", "experiment")
    assert fake.received[0].header("tidegate-param-cell") == "two"


@pytest.mark.parametrize("parameters", [{"sequence_id": 7}, {"sequence_id": "seven", "sequence_start": True}])
@pytest.mark.parametrize("context", [None, "{}"])
def test_a_sequence_is_sent_once(scripted: Host, fake: FakeTriton, parameters: Any, context: str | None) -> None:
    fake.script = lambda request: (503, {}, b"")
    assert ask(scripted, context, parameters).status == 503
    assert len(fake.received) == 1


def test_a_header_names_a_sequence_that_the_body_must_agree_with(scripted: Host, fake: FakeTriton) -> None:
    fake.script = lambda request: (503, {}, b"")
    for parameters in ({}, {"sequence_id": 7}):
        fake.received.clear()
        assert ask(scripted, "{}", parameters, Tidegate_Sequence="7").status == 503
        assert len(fake.received) == 1, "a request of a sequence is sent once"
        assert fake.received[0].header("tidegate-sequence") is None
    for wrong in ("8", "", "x" * 129):
        assert ask(scripted, "{}", {"sequence_id": 7}, Tidegate_Sequence=wrong).status == 400
