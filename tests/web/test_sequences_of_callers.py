"""Sequences of named callers, in every form of a request over HTTP: each caller has its own, and keeps the target."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from tidegate.rules import Engine

from tests.web.conftest import HERE, FakeTriton, Host, Received, Reply, gateway_app, sound_model
from tests.web.test_callers import compiled

CALLERS = """\
callers:
  home: {objectives: "*", overrides: [pair_sum, text_sum/1, text_sum/2]}
  shop: {objectives: "*"}
"""
ADD = "/v2/models/adding/infer"
CONTEXT = {"Tidegate-Context": "{}"}
FORMS = ["json", "binary", "gzip", "deflate", "header"]


@pytest.fixture(scope="module")
def granting(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return compiled(tmp_path_factory.mktemp("rules"), HERE / "rules", CALLERS)


def ask(
    host: Host, form: str, sequence_id: Any = 7, *, caller: str = "home", pin: str | None = None, **flags: bool
) -> Reply:
    """Send a request of a sequence in one of `FORMS`."""
    headers = {"Tidegate-Caller": caller, **CONTEXT}
    if pin is not None:
        headers["Tidegate-Override"] = pin
    tensor: dict[str, Any] = {"name": "X", "datatype": "FP32", "shape": [1]}
    document: dict[str, Any] = {"parameters": {"sequence_id": sequence_id, **flags}, "inputs": [tensor]}
    if form == "header":
        headers["Tidegate-Sequence"] = str(document["parameters"].pop("sequence_id"))
    if form == "binary":
        tensor["parameters"] = {"binary_data_size": 4}
        body = json.dumps(document).encode()
        headers["Inference-Header-Content-Length"] = str(len(body))
        return host.ask("POST", ADD, body + b"\0\0\x80?", headers)
    tensor["data"] = [1.0]
    body = json.dumps(document).encode()
    if form in ("gzip", "deflate"):
        headers["Content-Encoding"] = form
        body = gzip.compress(body) if form == "gzip" else zlib.compress(body)
    return host.ask("POST", ADD, body, headers)


def infers(fake: FakeTriton) -> list[str]:
    """The paths of the inferences that the server got, since the last call."""
    paths = [request.path for request in fake.received if request.path.endswith("/infer")]
    fake.received.clear()
    return paths


@pytest.mark.parametrize("form", FORMS)
def test_a_sequence_cannot_be_moved_to_another_target_by_a_pin(guarded: Host, fake: FakeTriton, form: str) -> None:
    assert ask(guarded, form, pin="text_sum/1", sequence_start=True).status == 200
    assert infers(fake) == ["/v2/models/text_sum/versions/1/infer"]
    for pin in ("pair_sum", "text_sum/2"):
        reply = ask(guarded, form, pin=pin)
        assert reply.status == 409
        assert reply.error == (
            f"the request pins '{pin}', but its sequence began on 'text_sum/1', which alone has its state: pin that or nothing, or "
            "start the sequence again, with sequence_start"
        )
        assert infers(fake) == []
    for pin_again in ("text_sum/1", None):
        reply = ask(guarded, form, pin=pin_again)
        assert (reply.status, reply.headers["tidegate-model"]) == (200, "text_sum")
        assert infers(fake) == ["/v2/models/text_sum/versions/1/infer"]
    assert ask(guarded, form, pin="pair_sum", sequence_start=True).status == 200
    assert ask(guarded, form, pin="pair_sum").headers["tidegate-model"] == "pair_sum"
    assert ask(guarded, form, pin="text_sum/1").status == 409


@pytest.mark.parametrize("form", FORMS)
def test_a_pin_without_a_version_names_the_one_that_the_sequence_has(
    guarded: Host, fake: FakeTriton, form: str
) -> None:
    assert ask(guarded, form, pin="pair_sum/2", sequence_start=True).status == 200
    assert ask(guarded, form, pin="pair_sum").status == 200
    assert infers(fake) == ["/v2/models/pair_sum/versions/2/infer"] * 2


def test_a_version_in_the_path_moves_no_sequence_either(guarded: Host, fake: FakeTriton) -> None:
    assert ask(guarded, "json", pin="text_sum/1", sequence_start=True).status == 200
    infers(fake)
    body = '{"parameters": {"sequence_id": 7}, "inputs": []}'
    for version, status in ((1, 200), (2, 403)):
        path = f"/v2/models/adding/versions/{version}/infer"
        reply = guarded.ask("POST", path, body, {"Tidegate-Caller": "home", **CONTEXT})
        assert (reply.status, len(infers(fake))) == (status, status == 200)


def sent(fake: FakeTriton) -> tuple[dict[str, Any], bytes, Received]:
    """The JSON and the binary tensors of the one inference that the server got since the last call, and all of it."""
    (request,) = [each for each in fake.received if each.path.endswith("/infer")]
    fake.received.clear()
    assert request.header("content-encoding") is None
    assert int(request.header("content-length") or "") == len(request.body)
    length = int(request.header("inference-header-content-length") or len(request.body))
    return json.loads(request.body[:length]), request.body[length:], request


@pytest.mark.parametrize("given", [1, 7, 2**31 - 1, 2**31, 2**63, 2**64 - 1, "a", "ü" * 30, "x" * 20, "y" * 128])
@pytest.mark.parametrize("form", ["json", "binary", "gzip", "deflate"])
def test_a_model_gets_an_id_that_is_one_callers_alone(
    guarded: Host, fake: FakeTriton, form: str, given: int | str
) -> None:
    found: dict[str, Any] = {}
    for caller in ("home", "shop"):
        ids = []
        for flags in ({"sequence_start": True}, {}, {"sequence_end": True}):
            reply = ask(guarded, form, given, caller=caller, **flags)
            assert reply.status == 200
            document, tail, _ = sent(fake)
            parameters = document.pop("parameters")
            ids.append(parameters.pop("sequence_id"))
            assert parameters == flags
            tensor = {"name": "X", "datatype": "FP32", "shape": [1]}
            binary = {"parameters": {"binary_data_size": 4}}
            assert document == {"inputs": [tensor | (binary if form == "binary" else {"data": [1.0]})]}
            assert tail == (b"\0\0\x80?" if form == "binary" else b"")
        assert len(set(ids)) == 1
        found[caller] = ids[0]
    assert found["home"] != found["shop"]
    for each in found.values():
        assert type(each) is type(given)
        if isinstance(given, str):
            assert len(each) == max(20, len(given.encode()))
            assert each.isascii()
        else:
            assert 0 < each < 2**63
            assert 0 < each & 0xFFFF_FFFF < 2**31


@pytest.mark.parametrize("form", ["json", "binary", "gzip", "deflate"])
@pytest.mark.parametrize("is_long", [False, True])
def test_so_it_is_in_large_requests(guarded: Host, fake: FakeTriton, form: str, is_long: bool) -> None:
    """Requests whose JSON is large, or whose binary tensors are passed on while they arrive, alike in all other bytes."""
    count = 150_000
    tensor: dict[str, Any] = {"name": "X", "datatype": "FP32", "shape": [count]}
    headers = {"Tidegate-Caller": "home", **CONTEXT}
    tail = b""
    if form == "binary":
        tensor["parameters"] = {"binary_data_size": 4 * count}
        tail = bytes(range(256)) * (4 * count // 256) + bytes(4 * count % 256)
    else:
        tensor["data"] = [1] * count
    template = '{"parameters" : {"first":[1,2], "sequence\\u005fid" : %s ,"last":{}}, "inputs" : [%s]} '
    given = json.dumps("ü" * 20 if is_long else 7)
    head = (template % (given, json.dumps(tensor))).encode()
    body = head + tail
    if form == "binary":
        headers["Inference-Header-Content-Length"] = str(len(head))
    if form in ("gzip", "deflate"):
        headers["Content-Encoding"] = form
        body = gzip.compress(body) if form == "gzip" else zlib.compress(body)
    fake.script = configured
    assert guarded.ask("POST", ADD, body, headers).status == 200
    document, got, request = sent(fake)
    given_id = document["parameters"]["sequence_id"]
    assert given_id not in (7, "ü" * 20)
    assert got == tail
    expected = (template % (json.dumps(given_id), json.dumps(tensor))).encode()
    assert request.body[: len(request.body) - len(tail)] == expected


def configured(request: Received) -> tuple[int, Mapping[str, str], bytes]:
    return (200, {}, b'{"name":"m"}') if request.path.endswith("/config") else sound_model(request)


def test_objectives_have_sequences_of_their_own(guarded: Host, fake: FakeTriton) -> None:
    found = set()
    for objective in ("adding", "echoing"):
        body = json.dumps({"parameters": {"sequence_id": 7, "sequence_start": True}, "inputs": []})
        headers = {"Tidegate-Caller": "home", **CONTEXT}
        assert guarded.ask("POST", f"/v2/models/{objective}/infer", body, headers).status == 200
        found.add(sent(fake)[0]["parameters"]["sequence_id"])
    assert len(found) == 2


def test_another_process_gives_the_same_ids_if_it_has_the_same_key(
    scripted_server: tuple[Any, Host], fake: FakeTriton, granting: Engine
) -> None:
    slot, host = scripted_server
    fake.script = sound_model
    found = []
    for key in ("", "a-key-of-the-tests", "a-key-of-the-tests", "another-key-of-the-tests"):
        slot.app = gateway_app(granting, {"main": fake.port, "spare": fake.port}, sequence_key=key)
        ask(host, "json", sequence_start=True)
        found.append(sent(fake)[0]["parameters"]["sequence_id"])
    assert found[1] == found[2]
    assert len(set(found)) == 3


def test_a_sequence_that_only_a_header_names_has_no_id_to_replace(guarded: Host, fake: FakeTriton) -> None:
    body = b'{"inputs": [], "parameters" : {"sequence_start":true}}'
    headers = {"Tidegate-Caller": "home", "Tidegate-Sequence": "a-name", **CONTEXT}
    assert guarded.ask("POST", ADD, body, headers).status == 200
    assert sent(fake)[2].body == body


@pytest.mark.parametrize("coding", ["", "gzip"])
def test_without_callers_a_request_is_passed_on_as_it_is(scripted: Host, fake: FakeTriton, coding: str) -> None:
    plain = b'{"inputs": [], "parameters" : {"sequence_id":7, "sequence_start":true}}'
    body = gzip.compress(plain) if coding else plain
    assert scripted.ask("POST", ADD, body, {"Content-Encoding": coding, **CONTEXT}).status == 200
    (request,) = fake.received
    assert request.body == body


@pytest.mark.parametrize("given", [True, 1.5, 7.0, -1, 2**64, [7], {"a": 1}])
@pytest.mark.parametrize("form", ["json", "binary", "gzip"])
def test_what_is_no_id_is_refused(guarded: Host, fake: FakeTriton, form: str, given: Any) -> None:
    reply = ask(guarded, form, given, sequence_start=True)
    assert (reply.status, infers(fake)) == (400, [])
    assert reply.error == "Unable to parse 'sequence_id': attempt to access JSON non-string as string"


@pytest.mark.parametrize("count", [1, 150_000])
def test_a_body_whose_end_is_missing_is_refused_as_the_server_would(
    guarded: Host, fake: FakeTriton, count: int
) -> None:
    tensor = {"name": "X", "datatype": "FP32", "shape": [count], "data": [1] * count}
    whole = gzip.compress(json.dumps({"parameters": {"sequence_id": 7}, "inputs": [tensor]}).encode())
    headers = {"Tidegate-Caller": "home", "Content-Encoding": "gzip", **CONTEXT}
    reply = guarded.ask("POST", ADD, whole[:-4], headers)
    assert (reply.status, infers(fake)) == (400, [])
    assert reply.error == "the body cannot be decompressed as its Content-Encoding says"
