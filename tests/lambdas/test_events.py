"""Events that are odd, malformed or no HTTP requests: always an answer in a form that the platform takes, never an error."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from awslambdaric.lambda_runtime_marshaller import to_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidegate.aws.http_event import MOST_RESPONSE_BYTES, fits

from tests.lambdas.conftest import EVENTS, Deployment, Starter, ask, http_event, read
from tests.lambdas.test_gateway import PAIR, RULES
from tests.support.lambda_runtime import Environment
from tests.web.conftest import FakeTriton, fake, fake_server

__all__ = ["fake", "fake_server"]

INFER = "/v2/models/adding/infer"


@pytest.fixture
def gateway(deployment: Deployment, start: Starter, shards: dict[str, int]) -> Environment:
    deployment.publish(RULES)
    return start("gateway", deployment.variables(shards))


@pytest.fixture
def scripted(deployment: Deployment, start: Starter, fake: FakeTriton) -> Environment:
    """The gateway in front of the scripted Triton."""
    deployment.publish(RULES)
    return start("gateway", deployment.variables({"main": fake.port, "spare": fake.port}))


def changed(field: str, value: Any, kind: str = "http_api") -> dict[str, Any]:
    """A good event with one field, by its path, of another value; `...` leaves the field out."""
    event = http_event(INFER, PAIR, kind=kind)
    *parents, name = field.split("/")
    place = event
    for parent in parents:
        place = place[parent]
    if value is ...:
        place.pop(name, None)
    else:
        place[name] = value
    return event


@pytest.mark.parametrize("kind", ["http_api", "function_url"])
def test_fields_that_the_platform_may_leave_odd_do_not_matter(gateway: Environment, kind: str) -> None:
    for field, value in (
        ("headers/x-forwarded-port", "443, 443"),
        ("headers/x-forwarded-port", ""),
        ("headers/x-forwarded-port", "none"),
        ("headers/host", "[2001:db8::1]:443"),
        ("headers/host", "example.com:"),
        ("headers/host", ""),
        ("headers/host", None),
        ("headers", None),
        ("headers", ...),
        ("headers/x-anything", None),
        ("headers/tidegate-timeout-ms", "9000 \t"),
        ("headers/x-forwarded-proto", "gopher"),
        ("cookies", None),
        ("cookies", []),
        ("cookies", ["a=1", "b=2"]),
        ("rawQueryString", None),
        ("rawQueryString", ...),
        ("isBase64Encoded", None),
        ("isBase64Encoded", ...),
        ("rawPath", ...),
        ("rawPath", None),
        ("pathParameters", None),
        ("stageVariables", None),
        ("routeKey", None),
        ("requestContext/authorizer", None),
        ("requestContext/authorizer", "odd"),
        ("requestContext/authorizer", {"jwt": "odd", "iam": []}),
        ("requestContext/requestId", None),
        ("requestContext/http/path", None),
        ("requestContext/http/sourceIp", None),
        ("requestContext/http/sourceIp", ...),
        ("requestContext/http/userAgent", None),
    ):
        answer = read(gateway.invoke(changed(field, value, kind)))
        assert answer.status == 200, (field, value, answer.body)


WRONG: list[tuple[str, Any, str]] = [
    ("headers", "x", "headers"),
    ("headers", [], "headers"),
    ("headers", "", "headers"),
    ("headers", False, "headers"),
    ("cookies", "", "cookies"),
    ("cookies", {}, "cookies"),
    ("headers/x-odd", 7, "headers.x-odd"),
    ("headers/x-odd", ["a"], "headers.x-odd"),
    ("headers/x-odd", "\ud800", "headers.x-odd"),
    ("headers/x-odd", "a\r\nb", "header"),
    ("headers/", "a", "header"),
    ("headers/x-é", "a", "header"),
    ("cookies", "a=1", "cookies"),
    ("cookies", [1], "cookies"),
    ("rawQueryString", 7, "rawQueryString"),
    ("rawPath", 7, "rawPath"),
    ("body", {"inputs": []}, "body"),
    ("body", "\ud800", "body"),
    ("isBase64Encoded", "true", "isBase64Encoded"),
    ("requestContext/http", None, "requestContext.http"),
    ("requestContext/http", ..., "requestContext.http"),
    ("requestContext/http/method", None, "method"),
    ("requestContext/http/method", 7, "method"),
    ("requestContext/http/sourceIp", 7, "sourceIp"),
    ("requestContext", None, "HTTP request"),
    ("requestContext", [], "HTTP request"),
    ("version", "1.0", "HTTP request"),
    ("version", ..., "HTTP request"),
    ("version", 2, "HTTP request"),
]
NO_BASE64 = ["@@@", "a", "é", "YQ", "YQ==YQ==", "=", "YQ==\n", "Y Q==", "-_8="]


def test_a_field_of_another_type_is_named(scripted: Environment, fake: FakeTriton) -> None:
    wrong = [(changed(field, value), named) for field, value, named in WRONG]
    wrong += [(http_event(INFER) | {"body": body, "isBase64Encoded": True}, "base64") for body in NO_BASE64]
    for event, named in wrong:
        answer = read(scripted.invoke(event))
        assert (answer.status, fake.received) == (400, []), (named, event)
        assert named in answer.json.get("error", answer.json.get("detail"))
    assert scripted.log.count("refused an event") == len(wrong)


@pytest.mark.parametrize("function", ["gateway", "resolve"])
def test_an_event_that_is_no_request_is_refused(deployment: Deployment, start: Starter, function: str) -> None:
    running = start(function, deployment.variables({}))
    by_balancer = {
        "requestContext": {
            "elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/t/1"}
        },
        "httpMethod": "POST",
        "path": INFER,
        "queryStringParameters": {},
        "headers": {"host": "example.com"},
        "body": "{}",
        "isBase64Encoded": False,
    }
    by_rest_api = by_balancer | {"resource": "/{proxy+}", "requestContext": {"identity": {"sourceIp": "203.0.113.10"}}}
    others = [json.loads(file.read_text()) for file in EVENTS.glob("*.json") if file.stem not in RECORDED]
    odd: list[Any] = [None, [], "text", 7, True, {}, {"requestContext": {}}, [{"version": "2.0"}]]
    for event in (*odd, *others, by_balancer, by_rest_api, by_rest_api | {"version": "1.0"}):
        answer = read(running.invoke(event))
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
        assert "not an HTTP request" in answer.json["detail"]


def test_an_encoded_path_is_refused_whichever_field_shows_it(scripted: Environment, fake: FakeTriton) -> None:
    plain = "/v2/models/adding/infer"
    for raw, path in (
        ("/v2/models/adding%2Finfer", "/v2/models/adding%2Finfer"),
        ("/v2/models/adding%2finfer", plain),
        (plain, "/v2/models/adding%2Finfer"),
        ("/v2%2Fmodels/adding/infer", "/v2/models/adding/infer"),
        ("/v2/models/adding%252Finfer", "/v2/models/adding%2Finfer"),
        ("/v2/models/%61dding/infer", "/v2/models/%61dding/infer"),
        ("/v2/models/adding%5Cinfer", "/v2/models/adding\\infer"),
        ("/v2/models/x/%2e%2e/adding/infer", "/v2/models/x/%2e%2e/adding/infer"),
        ("/v2/models/adding/infer%00", "/v2/models/adding/infer\0"),
        ("//v2/models/adding/infer", "//v2/models/adding/infer"),
    ):
        event = http_event(plain, PAIR) | {"rawPath": raw}
        event["requestContext"]["http"]["path"] = path
        answer = read(scripted.invoke(event))
        assert (answer.status, fake.received) == (404, []), (raw, answer.body)
    assert ask(scripted, "/v1%2Ffleet", method="GET").status == 404
    assert ask(scripted, "/v1%252Ffleet", method="GET").status == 404


def test_a_header_of_the_model_in_latin_1_is_encoded_and_the_model_runs_once(
    scripted: Environment, fake: FakeTriton
) -> None:
    fake.script = lambda request: (200, {"X-Model": "r\xe4ksm\xf6rg\xe5s", "Content-Type": "application/json"}, b"{}")
    answer = ask(scripted, INFER, PAIR, {"cloudfront-viewer-city": "Malmö"})
    assert (answer.status, answer.headers["x-model"], len(fake.received)) == (200, "r%E4ksm%F6rg%E5s", 1)
    assert fake.received[0].header("cloudfront-viewer-city") is None


@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_an_answer_is_as_large_as_the_runtime_makes_it(
    deployment: Deployment, start: Starter, fake: FakeTriton, python: str
) -> None:
    deployment.publish(RULES)
    variables = deployment.variables({"main": fake.port, "spare": fake.port})
    gateway = start("gateway", {**variables, "AWS_EXECUTION_ENV": f"AWS_Lambda_python{python}"})
    refused = 0
    for text, count in (("漢", 1_100_000), ('"', 2_000_000), ("ab", 900_000), ("😀", 530_000), ("\x01", 1_100_000)):
        for length in (count, count // 4):
            value: Any = [text] * length if len(text) > 1 else text * length
            body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
            fake.script = lambda request, body=body: (200, {"Content-Type": "application/json"}, body)  # type: ignore[misc]
            answer = ask(gateway, INFER, PAIR)
            packed = json.dumps(body.decode(), ensure_ascii=python == "3.11").encode()
            if len(packed) > MOST_RESPONSE_BYTES:
                refused += 1
                assert answer.status == 413
                assert "resolve" in answer.json["error"]
            else:
                assert (answer.status, answer.body) == (200, body)
            assert gateway.response_bytes <= MOST_RESPONSE_BYTES
    assert refused == (5 if python == "3.11" else 3), "beyond ASCII, later runtimes pack UTF-8"


@pytest.mark.parametrize(
    ("python", "text", "packed_bytes"),
    [("3.11", "a", 1), ("3.11", '"', 2), ("3.11", "漢", 6), ("3.11", "😀", 12), ("3.13", "漢", 3), ("3.13", "\x01", 6)],
)
def test_the_limit_is_exact(monkeypatch: pytest.MonkeyPatch, python: str, text: str, packed_bytes: int) -> None:
    monkeypatch.setenv("AWS_EXECUTION_ENV", f"AWS_Lambda_python{python}")
    empty = {"statusCode": 200, "headers": {"x-model": "é" * 9}, "body": "", "isBase64Encoded": False}
    count, rest = divmod(MOST_RESPONSE_BYTES - len(to_json(empty).encode()), packed_bytes)
    body = "a" * rest + text * count
    assert fits(empty | {"body": body})
    assert not fits(empty | {"body": body + "a"})


def test_cookies_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EXECUTION_ENV", "AWS_Lambda_python3.13")
    empty = {"statusCode": 200, "headers": {}, "body": "", "isBase64Encoded": False, "cookies": ["", ""]}
    room = MOST_RESPONSE_BYTES - len(to_json(empty).encode())
    assert fits(empty | {"cookies": ["a" * (room - 9), "b" * 9]})
    assert not fits(empty | {"cookies": ["a" * (room - 9), "b" * 10]})


@pytest.mark.parametrize("size", [4_700_000, 4_800_000])
def test_so_is_one_that_is_binary(scripted: Environment, fake: FakeTriton, size: int) -> None:
    fake.script = lambda request: (200, {"Content-Type": "application/octet-stream"}, b"\xff" * size)
    answer = ask(scripted, INFER, PAIR)
    assert answer.status == (200 if size * 4 / 3 < MOST_RESPONSE_BYTES - 4096 else 413)
    assert scripted.response_bytes <= MOST_RESPONSE_BYTES


ODD = st.sampled_from(
    [None, "", " ", "é", "\ud800", "\r\n", "\0", "443, 443", "[::1]:80", "host:", "%2F", "%", "//", "@@@", "YQ==", 0, -1,
     1.5, True, False, [], [None], ["a"], {}, {"a": None}, {"a": []}, "x" * 300, "1e400", "POST", "HEAD", "2.0"]
)  # fmt: skip
SERVED = [("GET", path) for path in ("/", "/v2", "/v2/health/ready", "/v2/models/adding", "/v2/models/adding/ready", "/v1/fleet",
                                     "/v1/objectives", "/v1/objectives/adding", "/openapi.json")] + [
          ("POST", path) for path in ("/v2/models/adding/infer", "/v2/models/echoing/infer", "/v2/models/adding/versions/1/infer",
                                      "/v1/objectives/adding/infer", "/v1/objectives/echoing/resolve")]  # fmt: skip
ANY = st.lists(
    st.sampled_from(["v1", "v2", "models", "objectives", "adding", "infer", "fleet", "versions", "1", "", "..", "%2F",
                     "%252F", "%", "é", ";", "\\", "\0", "\ud800"]), max_size=6
).map(lambda parts: "/" + "/".join(parts))  # fmt: skip
ROUTES = (
    st.sampled_from(SERVED * 4)
    | st.sampled_from(SERVED[9:])
    | st.tuples(st.sampled_from(["POST", "GET", "HEAD", "PUT"]), ANY)
)
TEXTS = st.sampled_from(["", " ", "identity", "gzip", "0", "2", "443, 443", "[::1]:80", "host:", "keep-alive", "baggage",
                         "{}", '{"country": "NL"}', "pair_sum/1", "é", "漢", "a=1; b", "1e400", "%", "application/json"]) | st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=8)  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from(["host", "Host", "x-forwarded-port", "content-length", "content-encoding", "content-type", "connection",
                     "tidegate-context", "tidegate-timeout-ms", "tidegate-override", "inference-header-content-length",
                     "baggage", "traceparent", "x-country", "cookie", "accept-encoding"]),
    TEXTS, max_size=3,
)  # fmt: skip
BODIES = [json.dumps(PAIR), "{}", "", '{"context": {}}', "{", '{"inputs": {"INPUT0": [], "INPUT1": 1e400}}']


def places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every field of an event."""
    for name, inner in value.items():
        yield (*path, name)
        if isinstance(inner, dict):
            yield from places(inner, (*path, name))


RECORDED = {name: json.loads((EVENTS / f"{name}.json").read_text()) for name in ("http_api", "function_url")}


@st.composite
def events(draw: st.DrawFn) -> Any:
    """A recorded event whose path, headers and body vary, and some of whose fields are odd or missing."""
    event = copy.deepcopy(RECORDED[draw(st.sampled_from(sorted(RECORDED)))])
    method, path = draw(ROUTES)
    event["rawPath"] = path
    event["requestContext"]["http"] |= {"path": path, "method": method}
    event["headers"] |= draw(HEADERS)
    event["body"] = draw(st.sampled_from(BODIES))
    event["isBase64Encoded"] = draw(st.booleans())
    if event["isBase64Encoded"]:
        event["body"] = base64.b64encode(event["body"].encode() + draw(st.binary(max_size=4))).decode()
    event["rawQueryString"] = draw(st.sampled_from(["", "explain=true", "a=%2F&&=", "é", "%"]))
    for place in draw(st.lists(st.sampled_from(sorted(set(places(event)))), max_size=2)):
        *parents, name = place
        inner = event
        for parent in parents:
            inner = inner.get(parent) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            if draw(st.booleans()):
                inner[name] = draw(ODD)
            else:
                inner.pop(name, None)
    return event


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(event=events())
def test_whatever_the_event_the_answer_is_well_formed(gateway: Environment, event: Any) -> None:
    answer = gateway.invoke(event)
    assert 200 <= answer["statusCode"] < 600
    assert "internal error" not in answer["body"], "a 500 is Triton's own"
    assert set(answer) <= {"statusCode", "headers", "body", "isBase64Encoded", "cookies"}
    for name, value in answer["headers"].items():
        assert isinstance(value, str)
        assert (name + value).isascii()
        assert (name + value).isprintable()
    body = answer["body"].encode()
    if answer["isBase64Encoded"]:
        body = base64.b64decode(body, validate=True)
    if answer["statusCode"] >= 400 and body:
        assert {"error"} <= json.loads(body).keys() or {"detail", "status"} <= json.loads(body).keys()
