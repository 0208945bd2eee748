"""A long text as `sequence_id` crashes Triton 2.51 if its model takes numbers as ids, so it is refused."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tidegate.gateway.sequences import HARMLESS_SEQUENCE_ID_BYTES, LONGEST_SEQUENCE_ID_BYTES
from tidegate.rules import compile_directory, load_bundle

from tests.support.stack import write_rules
from tests.web.conftest import FakeTriton, Host, Received, gateway_app, serving

INPUT = '{"name":"X","datatype":"FP32","shape":[1,2],"data":[1,2]}'
REQUEST = '{"inputs":[%s],"parameters":{"sequence_start":true,"sequence_end":true,"sequence_id":%s}}'
LONG = "x" * (HARMLESS_SEQUENCE_ID_BYTES + 1)
HIDDEN = [
    REQUEST % (INPUT, json.dumps(LONG)),
    REQUEST % (INPUT, json.dumps("x" * 128)),
    REQUEST % (INPUT, '"' + "\\u00e4" * 11 + '"'),
    (REQUEST % (INPUT, json.dumps(LONG))).replace("sequence_id", "\\u0073equence_id"),
    (REQUEST % (INPUT, json.dumps(LONG))).replace("sequence_id", "sequence\\u005Fid").replace("para", "\\u0070ara"),
    REQUEST % (INPUT, json.dumps(LONG)) + "\0",
]
INFER = "/v2/models/counting/infer"
UUID = "3f2b8c1e-5f0a-4e4e-9d6b-0d6f3f1c2a77"


def config_of(model: str, data_type: str | None = None, *steps: str) -> bytes:
    """A model's configuration as Triton describes it."""
    control = {"kind": "CONTROL_SEQUENCE_CORRID", "data_type": data_type}
    document: dict[str, Any] = {"name": model}
    if data_type is not None:
        document["sequence_batching"] = {"control_input": [{"name": "ID", "control": [control]}]}
    if steps:
        document["ensemble_scheduling"] = {"step": [{"model_name": step} for step in steps]}
    return json.dumps(document).encode()


NUMERIC = config_of("in_sequence", "TYPE_UINT64")


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rules(tmp_path_factory.mktemp("rules"), {"main": 1}, {"in_sequence": ["main"]}, counting="in_sequence")


@pytest.fixture(scope="module")
def counting(triton: Host, rules: Path) -> Iterator[Host]:
    """The gateway in front of a model that takes numbers as ids."""
    assert triton.ask("POST", "/v2/repository/models/in_sequence/load", {}).status == 200
    with serving(gateway_app(load_bundle(compile_directory(rules)), {"main": triton.port})) as host:
        yield host


@pytest.fixture
def silent(fake: FakeTriton, rules: Path) -> Iterator[Host]:
    """The gateway in front of a scripted server."""

    def answer(request: Received) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, NUMERIC if request.path.endswith("/config") else b"{}"

    fake.script = answer
    with serving(gateway_app(load_bundle(compile_directory(rules)), {"main": fake.port})) as host:
        yield host


@pytest.mark.parametrize("value", ["7", '"seven"', json.dumps("x" * HARMLESS_SEQUENCE_ID_BYTES), str(2**64 - 1)])
def test_a_sequence_id_within_the_limit_is_answered(counting: Host, triton: Host, value: str) -> None:
    for _ in range(5):
        assert counting.ask("POST", INFER, REQUEST % (INPUT, value)).status == 200
    assert triton.get("/v2/health/live").status == 200


@pytest.mark.parametrize("number", range(len(HIDDEN)))
def test_a_longer_one_is_refused_with_the_limit_and_ends_no_server(counting: Host, triton: Host, number: int) -> None:
    reply = counting.ask("POST", INFER, HIDDEN[number])
    assert reply.status == 400
    assert "sequence_id" in reply.error
    assert f"{HARMLESS_SEQUENCE_ID_BYTES} bytes" in reply.error or number == len(HIDDEN) - 1
    assert LONG not in reply.error
    assert triton.get("/v2/health/live").status == 200


@pytest.mark.parametrize("context", [{}, {"Tidegate-Context": "{}"}])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "X-GZIP", "identity, gzip"])
@pytest.mark.parametrize("text", HIDDEN)
def test_a_longer_one_is_refused_in_a_compressed_request_too(
    silent: Host, fake: FakeTriton, coding: str, text: str, context: dict[str, str]
) -> None:
    reply = silent.ask("POST", INFER, packed(text, coding), {"Content-Encoding": coding, **context})
    assert (reply.status, infers(fake)) == (400, 0)
    assert "sequence_id" in reply.error


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_compressed_request_of_a_sequence_is_sent_once(silent: Host, fake: FakeTriton, coding: str) -> None:
    fake.script = lambda request: (503, {}, b"")
    reply = silent.ask("POST", INFER, packed(REQUEST % (INPUT, 7), coding), {"Content-Encoding": coding})
    assert (reply.status, len(fake.received)) == (503, 1)


def infers(fake: FakeTriton) -> int:
    """Count the inferences that the server received."""
    return sum(request.path.endswith("/infer") for request in fake.received)


def packed(text: str, coding: str) -> bytes:
    return zlib.compress(text.encode()) if coding == "deflate" else gzip.compress(text.encode())


def test_only_the_json_part_is_looked_at(silent: Host, fake: FakeTriton) -> None:
    head = b'{"inputs":[{"name":"X","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":99}}]}'
    tail = REQUEST.encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    for body, coding in ((head + tail, {}), (gzip.compress(head + tail), {"Content-Encoding": "gzip"})):
        assert silent.ask("POST", INFER, body, {**length, **coding}).status == 200
    assert len(fake.received) == 2


def test_a_small_body_that_inflates_without_end_is_refused(silent: Host, fake: FakeTriton) -> None:
    body = gzip.compress(b" " * 70_000_000)
    reply = silent.ask("POST", INFER, body, {"Content-Encoding": "gzip"})
    assert (reply.status, fake.received) == (400, [])
    assert "inflates to more than" in reply.error


def test_an_id_beyond_tritons_limit_or_of_half_a_pair_asks_nobody(silent: Host, fake: FakeTriton) -> None:
    for value in (json.dumps("x" * (LONGEST_SEQUENCE_ID_BYTES + 1)), '"\\ud800"', '"a\\udfffb"'):
        reply = silent.ask("POST", INFER, REQUEST % (INPUT, value))
        assert (reply.status, fake.received) == (400, [])
        assert "sequence_id" in reply.error


@pytest.mark.parametrize(
    ("configs", "status"),
    [
        ({"in_sequence": config_of("in_sequence", "TYPE_STRING")}, 200),
        ({"in_sequence": config_of("in_sequence")}, 200),
        ({"in_sequence": config_of("in_sequence", None, "a", "b"), "a": config_of("a"), "b": config_of("b")}, 200),
        ({"in_sequence": config_of("in_sequence", None, "a"), "a": config_of("a", "TYPE_INT32")}, 400),
        ({"in_sequence": config_of("in_sequence", None, "a"), "a": config_of("a", None, "in_sequence")}, 200),
        ({"in_sequence": config_of("in_sequence", None, "a")}, 502),
        ({"in_sequence": b'{"sequence_batching": 7}'}, 502),
        ({"in_sequence": b"[]"}, 502),
        ({"in_sequence": b"{"}, 502),
    ],
)
def test_a_uuid_goes_where_no_step_takes_numbers(
    silent: Host, fake: FakeTriton, configs: dict[str, bytes], status: int
) -> None:
    def answer(request: Received) -> tuple[int, dict[str, str], bytes]:
        if not request.path.endswith("/config"):
            return 200, {}, b"{}"
        config = configs.get(request.path.split("/")[3])
        return (400, {}, b'{"error":"unknown"}') if config is None else (200, {}, config)

    fake.script = answer
    assert silent.ask("POST", INFER, REQUEST % (INPUT, json.dumps(UUID))).status == status
    assert infers(fake) == (status == 200)
    before = len(fake.received)
    silent.ask("POST", INFER, REQUEST % (INPUT, json.dumps(UUID)))
    assert status == 502 or len(fake.received) - before == (status == 200), "what is known is not asked again at once"


def test_a_uuid_is_answered_by_a_real_model_without_numeric_ids(gateway: Host, triton: Host) -> None:
    for _ in range(3):
        reply = gateway.ask("POST", "/v2/models/echoing/infer", REQUEST % (INPUT, json.dumps(UUID)))
        assert reply.status == 200
        assert UUID in reply.body.decode()
    assert triton.get("/v2/health/live").status == 200
