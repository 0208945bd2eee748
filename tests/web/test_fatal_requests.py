"""Requests that crash Triton 2.51, or a model in it, are refused, and other callers are not affected."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from tidegate.oip.inflating import MOST_INFLATED_BYTES

from tests.web.conftest import FakeTriton, Host, Received

ECHO = "/v2/models/echoing/infer"
TEXTS = "/v2/models/text_adding/infer"


def tensor(shape: list[Any], name: str = "X", datatype: str = "FP32", **members: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **members}


PAIR = tensor([1, 2], data=[1, 2])
BINARY = {"parameters": {"binary_data_size": 0}}
TEXT_PAIR = [tensor([1, 16], f"INPUT{number}", "BYTES", data=["1"] * 16) for number in (0, 1)]
CLASSES = {"name": "PARAMETERS", "parameters": {"classification": 3}}
NUMBERS = {"name": "Y", "parameters": {"classification": 1}}

OPEN = b'{"inputs":' + b"[" * 300_000
DEEP_DATA = (
    json.dumps({"inputs": [tensor([1, 2], data="?")]}).replace('"?"', "[" * 40_000 + "1,2" + "]" * 40_000).encode()
)

FATAL: dict[str, tuple[str, bytes, str]] = {
    "nested without an end": (ECHO, OPEN, "nested"),
    "nested data": (ECHO, DEEP_DATA, "nested"),
    "nested behind a byte order mark": (ECHO, b"\xef\xbb\xbf" + OPEN, "nested"),
    "nested in a member that nobody reads": (ECHO, b'{"x":' + b'{"x":' * 150_000, "nested"),
    "a product that wraps around": (ECHO, json.dumps({"inputs": [tensor([1, 2**62], **BINARY)]}).encode(), "shape"),
    "one that wraps around in a batch": (ECHO, json.dumps({"inputs": [tensor([8, 2**61], **BINARY)]}).encode(), "shape"),
    "more elements than memory": (ECHO, json.dumps({"inputs": [tensor([1, 2**40], data=[1, 2])]}).encode(), "shape"),
    "many tensors that are each too large": (
        ECHO, json.dumps({"inputs": [tensor([1, 1500], name=f"X{n}", data=[]) for n in range(100)]}).encode(), "shape"),
    "a shape with escapes": (
        ECHO, json.dumps({"inputs": [tensor([1, 2**62], **BINARY)]}).replace("shape", "sh\\u0061pe").encode(), "shape"),
    "hidden by a dimension of 0": (ECHO, json.dumps({"inputs": [tensor([0, 2**62], **BINARY)]}).encode(), "shape"),
    "classes of text": (ECHO, json.dumps({"inputs": [PAIR], "outputs": [CLASSES]}).encode(), "PARAMETERS"),
    "classes of text with escapes": (
        ECHO, json.dumps({"inputs": [PAIR], "outputs": [CLASSES]}).replace("class", "cl\\u0061ss").encode(), "PARAMETERS"),
    "classes of text of another model": (
        TEXTS,
        json.dumps({"inputs": TEXT_PAIR, "outputs": [{"name": "OUTPUT1", "parameters": {"classification": 2**32 + 1}}]})
        .encode(),
        "OUTPUT1",
    ),
    "classes of an empty output": (
        ECHO, json.dumps({"inputs": [tensor([1, 0], data=[])], "outputs": [NUMBERS]}).encode(), "empty"),
    "classes of an empty output with escapes": (
        ECHO,
        json.dumps({"inputs": [tensor([1, 0], data=[])], "outputs": [NUMBERS]}).replace("class", "cl\\u0061ss").encode(),
        "empty",
    ),
    "classes of an empty output in binary": (
        ECHO,
        json.dumps({"inputs": [tensor([0, 2], **BINARY)], "outputs": [NUMBERS], "parameters": {"country": "SE"}}).encode(),
        "empty",
    ),
}  # fmt: skip


@pytest.fixture
def bystander(gateway: Host, triton: Host) -> Callable[[], None]:
    """Another caller of the same server."""

    def ask() -> None:
        assert gateway.ask("POST", ECHO, {"inputs": [PAIR]}).status == 200
        assert gateway.ask("POST", TEXTS, {"inputs": TEXT_PAIR}).status == 200
        assert triton.get("/v2/health/live").status == 200

    return ask


@pytest.mark.parametrize("what", FATAL)
@pytest.mark.parametrize("coding", ["", "gzip", "deflate"])
@pytest.mark.parametrize("context", [{}, {"Tidegate-Context": "{}"}])
def test_a_request_that_ends_a_server_is_refused(
    gateway: Host, bystander: Callable[[], None], what: str, coding: str, context: dict[str, str]
) -> None:
    path, body, named = FATAL[what]
    if coding:
        body = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    reply = gateway.ask("POST", path, body, {**context, **({"Content-Encoding": coding} if coding else {})})
    assert reply.status == 400
    assert named in reply.error
    bystander()


HIDING = {
    "length that does not travel": [
        ("Inference-Header-Content-Length", "0"),
        ("Connection", "Inference-Header-Content-Length"),
    ],
    "length in two values": [("Inference-Header-Content-Length", "0"), ("Inference-Header-Content-Length", "300010")],
    "length in two other values": [
        ("Inference-Header-Content-Length", "300010"),
        ("Inference-Header-Content-Length", "0"),
    ],
    "coding that does not travel": [("Content-Encoding", "gzip"), ("Connection", "content-encoding, keep-alive")],
    "coding that it does not have": [("Content-Encoding", "deflate")],
    "coding in two values": [("Content-Encoding", "identity"), ("Content-Encoding", "gzip")],
    "coding in two other values": [("Content-Encoding", "gzip"), ("Content-Encoding", "identity")],
    "type of another kind": [("Content-Type", "application/octet-stream")],
}


@pytest.mark.parametrize("how", HIDING)
def test_no_header_hides_it(gateway: Host, bystander: Callable[[], None], how: str) -> None:
    reply = gateway.ask("POST", ECHO, OPEN, HIDING[how])
    # Triton treats a body that inflates to nothing as a request without one.
    assert reply.status < 500
    assert reply.status >= 400 or "coding" in how
    bystander()


@pytest.mark.parametrize("outputs", [["Y"], ["Y", "PARAMETERS"]])
def test_classes_of_numbers_are_answered(gateway: Host, outputs: list[str]) -> None:
    wanted = [{"name": "Y", "parameters": {"classification": 1}}, {"name": "PARAMETERS"}]
    reply = gateway.ask("POST", ECHO, {"inputs": [PAIR], "outputs": wanted[: len(outputs)]})
    assert reply.status == 200
    classes = next(output for output in reply.json["outputs"] if output["name"] == "Y")
    assert (classes["datatype"], classes["data"]) == ("BYTES", ["2.000000:1"])


@pytest.mark.parametrize("count", [0, False, -1, "3", 2**32])
def test_what_triton_takes_for_no_classes_is_left_to_it(gateway: Host, triton: Host, count: Any) -> None:
    document = {"inputs": [PAIR], "outputs": [{"name": "PARAMETERS", "parameters": {"classification": count}}]}
    through, direct = gateway.ask("POST", ECHO, document), triton.ask("POST", "/v2/models/echo/infer", document)
    assert (through.status == 200) == (direct.status == 200)


def test_a_tensor_without_elements_is_no_mistake(gateway: Host) -> None:
    assert gateway.ask("POST", ECHO, {"inputs": [tensor([1, 0], data=[])]}).status == 200


def test_a_request_for_classes_has_no_fallback(scripted: Host, fake: FakeTriton) -> None:
    meta = {"name": "m", "versions": ["1"], "inputs": [], "outputs": [{"name": "Y", "datatype": "FP32", "shape": [1]}]}

    def answer(request: Received) -> tuple[int, dict[str, str], bytes]:
        if request.method == "GET":
            return 200, {}, json.dumps(meta).encode()
        return 503, {}, b'{"error":"busy"}'

    fake.script = answer
    document = {"outputs": [{"name": "Y", "parameters": {"classification": 1}}]}
    context = {"Tidegate-Context": '{"member_id": "1", "device": "tv"}'}
    reply = scripted.ask("POST", "/v2/models/guarded/infer", document, context)
    assert (reply.status, reply.headers["tidegate-model"]) == (503, "absent")
    assert {request.path.split("/")[3] for request in fake.received} == {"absent"}


@pytest.mark.parametrize("name", ["tidegate-param-top_k", "Tidegate-Param-x", "TIDEGATE"])
@pytest.mark.parametrize("coding", ["", "gzip"])
def test_a_parameter_of_the_rules_own_is_refused(scripted: Host, fake: FakeTriton, name: str, coding: str) -> None:
    body = json.dumps({"parameters": {name: "1"}, "inputs": []}).encode()
    sent = gzip.compress(body) if coding else body
    for headers in ({}, {"Tidegate-Context": "{}"}):
        reply = scripted.ask("POST", ECHO, sent, {**headers, **({"Content-Encoding": coding} if coding else {})})
        assert (reply.status, name in reply.error, fake.received) == (400, True, [])


def test_a_request_that_inflates_without_end_is_refused_by_all_of_its_bytes(scripted: Host, fake: FakeTriton) -> None:
    head = b'{"inputs":[]}'
    body = gzip.compress(head + bytes(MOST_INFLATED_BYTES))
    headers = {"Content-Encoding": "gzip", "Inference-Header-Content-Length": str(len(head))}
    reply = scripted.ask("POST", ECHO, body, headers)
    assert (reply.status, fake.received) == (400, [])
    assert "inflates to more than" in reply.error
