"""`/v1`: plain JSON in and out, the contract, decisions alone, and problem documents."""

from __future__ import annotations

import http.client
import json
import math
import shutil
import struct
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidegate.gateway import Dispatcher
from tidegate.rules import Engine, compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app

from tests.web.conftest import (
    AS_OPERATOR,
    HERE,
    MAX_BODY_BYTES,
    OPERATOR,
    FakeTriton,
    Host,
    Received,
    gateway_app,
    serving,
)

JSON = {"Content-Type": "application/json"}


def infer(host: Host, objective: str, inputs: Any, context: Any = None, query: str = "") -> Any:
    body = {"inputs": inputs, **({} if context is None else {"context": context})}
    return host.ask("POST", f"/v1/objectives/{objective}/infer{query}", body, JSON)


def test_inputs_and_outputs_are_nested_lists(gateway: Host) -> None:
    reply = infer(gateway, "adding", {"INPUT0": [list(range(16)), [0] * 16], "INPUT1": [[1] * 16, [2] * 16]})
    assert reply.status == 200
    assert reply.json["outputs"] == {
        "OUTPUT0": [list(range(1, 17)), [2] * 16],
        "OUTPUT1": [list(range(-1, 15)), [-2] * 16],
    }
    decision = reply.json["decision"]
    assert (decision["objective"], decision["rule"], decision["model"]) == ("adding", "newest", "pair_sum")
    assert decision["served_by"] == {"model": "pair_sum", "version": None, "shard": "main", "fallback": False}
    assert (reply.headers["tidegate-rule"], reply.headers["tidegate-shard"]) == ("newest", "main")
    assert "triton;dur=" in reply.headers["server-timing"]


def test_missing_leading_dimensions_and_optional_inputs(gateway: Host) -> None:
    outputs = infer(gateway, "stepping", {"X": 2.5}).json["outputs"]
    assert outputs["X"] == [[2.5]]
    assert outputs["FLAG"] == [[False]]
    outputs = infer(gateway, "stepping", {"X": [1, 2, 3], "FLAG": True}).json["outputs"]
    assert outputs["X"] == [[1, 2, 3]]
    assert outputs["FLAG"] == [[True]]


def test_every_kind_of_value(gateway: Host) -> None:
    inputs = {"X": [0.1, -1e30, 3], "HALF": [0.5, -65504, 1], "TEXT": ["", "hallå", "\u0000"], "FLAG": True}
    outputs = infer(gateway, "stepping", inputs).json["outputs"]
    assert outputs["HALF"] == [[0.5, -65504, 1]]
    assert outputs["TEXT"] == [["", "hallå", "\u0000"]]
    assert outputs["X"][0] == pytest.approx([0.1, -1e30, 3], rel=1e-6)
    assert infer(gateway, "stepping", {"X": [[]]}).json["outputs"]["X"] == [[]], "one empty row, if a caller says so"


def test_a_rules_parameters_reach_the_model(gateway: Host) -> None:
    outputs = infer(gateway, "echoing", {"X": [1]}, {"country": "SE"}).json["outputs"]
    assert json.loads(outputs["PARAMETERS"][0][0])["Tidegate-Param-top_k"] == "20"


@pytest.mark.parametrize(
    ("inputs", "name", "words"),
    [
        ({"INPUT0": [1, 2]}, "INPUT0", ["the shape [2]", "[-1, 16]", "INT32"]),
        ({"INPUT0": [[[1] * 16]]}, "INPUT0", ["more than 2 dimensions"]),
        ({"INPUT0": [[1] * 16, [1] * 15]}, "INPUT0", ["ragged", "[1]"]),
        ({"INPUT0": [[1] * 16, 3]}, "INPUT0", ["ragged", "[1]"]),
        ({"INPUT0": [1] * 15 + ["secret"]}, "INPUT0", ["[15]", "text", "integers"]),
        ({"INPUT0": [1] * 15 + [1.5]}, "INPUT0", ["[15]", "a number"]),
        ({"INPUT0": [[1] * 16, [1] * 15 + [True]]}, "INPUT0", ["[1][15]", "a boolean"]),
        ({"INPUT0": [1] * 15 + [None]}, "INPUT0", ["[15]", "null"]),
        ({"INPUT0": [1] * 15 + [2**31]}, "INPUT0", ["[15]", "out of range"]),
        ({"INPUT0": {}}, "INPUT0", ["an object"]),
        ({"NOPE": 1}, "NOPE", ["unknown input", "'INPUT0'", "'INPUT1'"]),
    ],
)
def test_a_value_that_does_not_fit_names_the_input_and_the_place(
    gateway: Host, inputs: dict[str, Any], name: str, words: list[str]
) -> None:
    reply = infer(gateway, "adding", inputs)
    assert (reply.status, reply.problem["input"]) == (400, name)
    for word in words:
        assert word in reply.problem["detail"]
    assert "secret" not in reply.problem["detail"]
    assert reply.headers["tidegate-rule"] == "newest"


@pytest.mark.parametrize(
    "inputs", [{"X": "1"}, {"X": True}, {"X": 1e39}, {"X": 1, "HALF": 1e6}, {"X": 1, "TEXT": 7}, {"X": 1, "FLAG": 1}]
)
def test_values_of_the_wrong_kind(gateway: Host, inputs: dict[str, Any]) -> None:
    assert infer(gateway, "stepping", inputs).problem["input"] == list(inputs)[-1]


@pytest.mark.parametrize("value", [[], [[]], [[[]]]])
@pytest.mark.parametrize("shape", [(-1, 2), (-1, -1), (-1, -1, -1), (-1,)])
def test_an_empty_list_must_say_which_dimension_is_empty(
    scripted: Host, fake: FakeTriton, value: Any, shape: tuple[int, ...]
) -> None:
    fake.script = model = Model(shape=shape)
    reply = infer(scripted, "echoing", {"X": value})
    depth = str(value).count("[")
    if depth == len(shape) and shape[-1] == -1:
        assert (reply.status, model.sent) == (200, ([1] * (depth - 1) + [0], b""))
    else:
        assert (reply.status, reply.problem["input"], model.sent) == (400, "X", None)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([[1, 2], []], "[1]"),
        ([[], [1, 2]], "[1]"),
        ([[1, 2], [1]], "[1]"),
        ([[1, 2], 3], "[1]"),
        ([1, [2]], "[1]"),
        ([[1, [2]]], "[0][1]"),
        ([[1, None]], "[0][1]"),
        ([[1, {}]], "[0][1]"),
    ],
)
def test_a_ragged_list_names_the_place(scripted: Host, fake: FakeTriton, value: Any, place: str) -> None:
    fake.script = model = Model()
    problem = infer(scripted, "echoing", {"X": value}).problem
    assert (problem["status"], problem["input"], model.sent) == (400, "X", None)
    assert f"at {place} " in problem["detail"]


INTEGERS = {name: (0 if name[0] == "U" else -(2 ** (bits - 1)), 2 ** (bits - (name[0] != "U")) - 1)
            for bits in (8, 16, 32, 64) for name in (f"INT{bits}", f"UINT{bits}")}  # fmt: skip
LARGEST = {
    "FP16": 65504.0,
    "BF16": 3.3895313892515355e38,
    "FP32": 3.4028234663852886e38,
    "FP64": 1.7976931348623157e308,
}
"""The largest finite value of each datatype; from half a unit in the last place above it, values round to infinity."""
INFINITE = {
    "FP16": ["65520", "65520.0", "-65520", "1e5"],
    "BF16": ["3.4e38", "-3.4e38", "3.3961775292304601e38", "1e39"],
    "FP32": ["3.4028236e38", "-3.5e38", "1e39"],
    "FP64": ["1.8e308", "-1e309"],
}


@pytest.mark.parametrize(
    ("datatype", "text"),
    [
        *((name, str(value)) for name, (low, high) in INTEGERS.items() for value in (low - 1, high + 1, 10**30)),
        *((name, text) for name in INTEGERS for text in ("1.0", "1e0", "true", "null", '"1"', "[]", "{}", "1e400")),
        *((name, text) for name, texts in INFINITE.items() for text in texts),
        *((name, text) for name in INFINITE for text in ("1e400", "-1e400", "1" + "0" * 400, "NaN", "Infinity")),
        *((name, text) for name in INFINITE for text in ("true", "null", '"1"', "{}")),
        *(("BOOL", text) for text in ("0", "1", "1.0", "null", '"true"', "{}")),
        *(("BYTES", text) for text in ("0", "1.5", "true", "null", "{}", '"\\ud800"')),
        ("FP8", "1"),
    ],
)
def test_a_value_that_its_datatype_cannot_hold_is_refused(
    scripted: Host, fake: FakeTriton, datatype: str, text: str
) -> None:
    fake.script = model = Model(datatype)
    body = f'{{"inputs": {{"X": [[{"true" if datatype == "BOOL" else chr(34) * 2 if datatype == "BYTES" else 1}, {text}]]}}}}'
    reply = scripted.ask("POST", "/v1/objectives/echoing/infer", body, JSON)
    assert (reply.status, model.sent) == (400, None), reply.body
    if text not in ("NaN", "Infinity"):
        assert reply.problem["input"] == "X"


@pytest.mark.parametrize("datatype", [*INTEGERS, *LARGEST])
def test_the_largest_and_the_smallest_values_are_held(scripted: Host, fake: FakeTriton, datatype: str) -> None:
    fake.script = model = Model(datatype)
    low, high = INTEGERS.get(datatype) or (-LARGEST[datatype], LARGEST[datatype])
    assert infer(scripted, "echoing", {"X": [[low, high]]}).status == 200
    assert model.sent is not None
    assert decoded(datatype, model.sent[1]) == [low, high]


def decoded(datatype: str, data: bytes) -> list[Any]:
    """The elements of a tensor, by numpy."""
    if datatype == "BF16":
        wide = np.frombuffer(data, "<u2").astype("<u4") << 16
        return wide.view("<f4").tolist()  # type: ignore[no-any-return]
    kind = {"F": "f", "U": "u", "I": "i"}[datatype[0]]
    width = int(datatype.lstrip("UINTFP")) // 8
    return np.frombuffer(data, f"<{kind}{width}").tolist()  # type: ignore[no-any-return]


BFLOAT16 = (np.arange(0x7F80, dtype="<u4") << 16).view("<f4").astype(float)
"""Every finite bfloat16 that is not negative."""


def nearest_bfloat16(number: float) -> float:
    """Return the nearest finite bfloat16; of two that are equally near, the one whose last bit is 0."""
    distances = abs(BFLOAT16 - number)
    nearest = np.flatnonzero(distances == distances.min())
    return float(BFLOAT16[next((each for each in nearest if each % 2 == 0), nearest[0])])


@pytest.mark.parametrize("datatype", list(LARGEST))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2),
    shrink=st.sampled_from([1.0, 1e-30, 1e-36, 1e-270, 1e-300]),
)
def test_a_number_is_rounded_to_the_nearest_value_or_refused(
    scripted: Host, fake: FakeTriton, datatype: str, numbers: list[float], shrink: float
) -> None:
    fake.received.clear()
    fake.script = model = Model(datatype)
    numbers = [number * shrink for number in numbers]
    reply = infer(scripted, "echoing", {"X": [numbers]})
    with np.errstate(over="ignore"):
        if datatype == "BF16":
            nearest = [math.copysign(nearest_bfloat16(abs(number)), number) for number in numbers]
            fits = all(abs(number) < 3.3961775292304601e38 for number in numbers)
        else:
            nearest = np.array(numbers).astype(f"f{int(datatype[2:]) // 8}").tolist()
            fits = all(map(math.isfinite, nearest))
    assert reply.status == (200 if fits else 400)
    if fits:
        assert model.sent is not None
        assert decoded(datatype, model.sent[1]) == nearest


BETWEEN = [
    math.nextafter(tie, towards) * sign
    for tie in (1.00390625, 1.01171875, 257.0, 5e-39, 2.0**-134, 3.3961775292304601e38)
    for towards in (0.0, tie, math.inf)
    for sign in (1, -1)
    if not (tie > 1e38 and towards >= tie)
]
"""Numbers at, just below and just above the middle of two bfloat16s, which are all the same single-precision number."""


@pytest.mark.parametrize(
    "number", [*BETWEEN, 2**80 + 2**72, 2**80 + 2**72 + 1, 2**80 + 2**72 - 1, -(2**80 + 2**72 + 1)]
)
def test_a_number_is_rounded_to_bfloat16_once(scripted: Host, fake: FakeTriton, number: float) -> None:
    fake.received.clear()
    fake.script = model = Model("BF16")
    assert infer(scripted, "echoing", {"X": [[number, 1]]}).status == 200
    assert model.sent is not None
    distances = [abs(Fraction(each) - abs(Fraction(number))) for each in bfloat16s_around(abs(number))]
    nearest = [
        each
        for each, distance in zip(bfloat16s_around(abs(number)), distances, strict=True)
        if distance == min(distances)
    ]
    even = next((each for each in nearest if not int(np.float32(each).view("<u4")) >> 16 & 1), nearest[0])
    assert decoded("BF16", model.sent[1]) == [math.copysign(even, number), 1.0]


def bfloat16s_around(number: float) -> list[float]:
    """Return the bfloat16s around a number."""
    at = int(np.searchsorted(BFLOAT16, float(number)))
    return [float(each) for each in BFLOAT16[max(0, at - 2) : at + 2]]


def test_what_the_model_refuses_is_reported_in_its_words(gateway: Host) -> None:
    reply = infer(gateway, "adding", {"INPUT0": [1] * 16})
    assert (reply.status, reply.problem["type"]) == (400, "urn:tidegate:problem:model-error")
    assert "INPUT1" in reply.problem["detail"]
    assert infer(gateway, "adding", {}).status == 400


def test_an_objectives_contract(gateway: Host) -> None:
    listed = gateway.get("/v1/objectives").json
    assert {"name": "adding", "summary": "Add two vectors.", "owner": "tests"} in listed["objectives"]
    described = gateway.get("/v1/objectives/echoing").json
    assert (described["name"], described["summary"][:13], described["owner"]) == ("echoing", "Echo a vector", "tests")
    attributes = {attribute["name"]: attribute for attribute in described["attributes"]}
    assert sorted(attributes["device"]["values"]) == ["mobile", "tv"]
    assert attributes["country"] == {
        "name": "country", "type": "string", "required": False, "values": None, "default": None, "header": "x-country",
    }  # fmt: skip
    assert described["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, -1]}]
    assert [output["name"] for output in described["outputs"]] == ["Y", "PARAMETERS"]
    assert gateway.get("/v1/objectives/nobody").problem["objective"] == "nobody"


def test_a_contract_holds_without_its_model(engine: Engine) -> None:
    with serving(gateway_app(engine, {})) as host:
        described = host.get("/v1/objectives/adding").json
        assert (described["inputs"], described["summary"]) == (None, "Add two vectors.")


def test_resolve_gives_the_decision_alone(scripted: Host, fake: FakeTriton) -> None:
    body = {"context": {"member_id": "7", "device": "tv"}}
    reply = scripted.ask("POST", "/v1/objectives/guarded/resolve", body, JSON)
    assert reply.status == 200
    document = reply.json
    assert document["decision"]["rule"] == "tv"
    assert (document["routing_key"], document["path"]) == ("main", "/v2/models/absent/infer")
    assert document["endpoints"] == [{"shard": "main", "url": f"http://127.0.0.1:{fake.port}"}]
    assert [fallback["target"] for fallback in document["fallbacks"]] == ["backup"]
    assert document["fallbacks"][0]["routing_key"] == "spare"
    assert document["revision"] == document["decision"]["revision"] == reply.headers["tidegate-revision"]
    assert document["cache_ttl_ms"] > 0
    assert document["vary"] == ["device"]
    assert "explanation" not in document
    assert fake.received == [], "no model is asked"


def test_a_decision_may_be_kept_until_a_window_begins_or_ends(fake: FakeTriton, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    shutil.copytree(HERE / "rules", rules)
    file = rules / "objectives/adding.yaml"
    begins = datetime.fromtimestamp(time.time() + 3, UTC).isoformat()
    file.write_text(file.read_text().replace("  - id: pinned\n", f"  - id: pinned\n    active: {{from: '{begins}'}}\n"))
    with serving(gateway_app(load_bundle(compile_directory(rules)), {"main": fake.port})) as host:
        # A slow machine may ask when the window has begun, after which nothing changes.
        ttl_ms = host.ask("POST", "/v1/objectives/adding/resolve", {"context": {}}, JSON).json["cache_ttl_ms"]
        assert 0 <= ttl_ms <= 3000 or ttl_ms == 5000


@pytest.mark.parametrize(("percent", "shown"), [("10", b"10"), ("10.0", b"10"), ("0.5", b"0.5")])
def test_a_shadow_of_a_whole_percent_has_no_point(fake: FakeTriton, tmp_path: Path, percent: str, shown: bytes) -> None:
    rules = tmp_path / "rules"
    shutil.copytree(HERE / "rules", rules)
    file = rules / "objectives/guarded.yaml"
    file.write_text(file.read_text().replace("timeout_ms: 10000", f"shadow: {{echo: {percent}}}"))
    with serving(gateway_app(load_bundle(compile_directory(rules)), {"main": fake.port})) as host:
        body = {"context": {"member_id": "7", "device": "tv"}}
        reply = host.ask("POST", "/v1/objectives/guarded/resolve", body, JSON)
    assert b'"percent":%b}' % shown in reply.body


@pytest.mark.parametrize("action", ["infer", "resolve"])
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("explain=TRUE", "true or false"),
        ("explain=1", "true or false"),
        ("explain=", "true or false"),
        ("explain", "true or false"),
        ("explain=true&explain=true", "once"),
        ("explian=true", "only explain"),
        ("explain=true&x=1", "'x'"),
    ],
)
def test_a_query_that_is_not_understood_is_refused(
    scripted: Host, fake: FakeTriton, action: str, query: str, words: str
) -> None:
    reply = scripted.ask("POST", f"/v1/objectives/echoing/{action}?{query}", {"context": {}}, JSON)
    assert (reply.problem["status"], words in reply.problem["detail"], fake.received) == (400, True, [])


def test_explaining_takes_no_time_from_the_model(
    scripted_server: tuple[Any, Host], fake: FakeTriton, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    explain = Engine.explain

    def slow(*arguments: Any) -> Any:
        time.sleep(2)
        return explain(*arguments)

    monkeypatch.setattr(Engine, "explain", slow)
    slot, host = scripted_server
    slot.app = gateway_app(engine, {"main": fake.port})
    meta = {"name": "m", "versions": ["1"], "inputs": [], "outputs": []}
    fake.script = lambda request: (200, {}, json.dumps(meta if request.method == "GET" else {"outputs": []}).encode())
    headers = {**JSON, "Tidegate-Timeout-Ms": "1800"}
    reply = host.ask("POST", "/v1/objectives/echoing/infer?explain=true", {"inputs": {}}, headers)
    assert (reply.status, "explanation" in reply.json) == (200, True)


def test_explain_may_be_declined(scripted: Host) -> None:
    reply = scripted.ask("POST", "/v1/objectives/echoing/resolve?explain=false", {"context": {}}, JSON)
    assert (reply.status, "explanation" in reply.json) == (200, False)


@pytest.mark.parametrize("path", ["/v1/objectives", "/v1/objectives/echoing", "/v1/fleet"])
def test_what_takes_no_query_refuses_one(scripted: Host, path: str) -> None:
    assert "takes no query" in scripted.get(f"{path}?explain=true").problem["detail"]


@pytest.mark.parametrize("action", ["infer", "resolve"])
def test_the_context_header_of_v2_is_refused(scripted: Host, fake: FakeTriton, action: str) -> None:
    sent = {**JSON, "Tidegate-Context": '{"is_kids": true}'}
    reply = scripted.ask("POST", f"/v1/objectives/echoing/{action}", {"context": {}}, sent)
    assert (reply.problem["status"], reply.problem["header"], fake.received) == (400, "Tidegate-Context", [])
    assert "'context'" in reply.problem["detail"]


def test_explain_tells_why(scripted: Host, gateway: Host) -> None:
    path = "/v1/objectives/echoing/resolve?explain=true"
    explanation = scripted.ask("POST", path, {"context": {"country": "SE"}}, JSON).json["explanation"]
    assert explanation["decision"]["rule"] == "tuned"
    rules = {rule["rule"]: rule for rule in explanation["rules"]}
    assert (rules["kids"]["matched"], rules["kids"]["failed"]) == (False, "is_kids")
    assert rules["tuned"]["matched"]
    assert (
        infer(gateway, "echoing", {"X": [1]}, {}, "?explain=true").json["explanation"]["decision"]["rule"] == "default"
    )
    unmatched = scripted.ask(
        "POST", "/v1/objectives/guarded/resolve?explain=true", {"context": {"member_id": "1"}}, JSON
    )
    assert unmatched.problem["type"] == "urn:tidegate:problem:no-rule"
    assert [rule["matched"] for rule in unmatched.problem["explanation"]["rules"]] == [False, False]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        (b"", 400, "not JSON"),
        (b"[" * 50_000, 400, "not JSON"),
        (b'{"inputs": {"X": NaN}}', 400, "finite"),
        (b"[]", 400, "object"),
        (b'{"input": {}}', 400, "'inputs'"),
        (b'{"context": []}', 400, "'context'"),
        (b'{"inputs": [1]}', 400, "'inputs'"),
        (b'{"inputs": {"X": 1, "X": 2}}', 400, "duplicated"),
        (b'{"inputs": {}, "inputs": {}}', 400, "duplicated"),
        (b'{"context": {"country": "SE", "country": "NL"}}', 400, "duplicated"),
        (b"x" * (MAX_BODY_BYTES + 1), 413, str(MAX_BODY_BYTES)),
    ],
)
def test_a_malformed_body(scripted: Host, fake: FakeTriton, body: bytes, status: int, words: str) -> None:
    reply = scripted.ask("POST", "/v1/objectives/echoing/infer", body, JSON)
    assert (reply.status, words in reply.problem["detail"]) == (status, True)
    assert fake.received == []


def test_media_types(scripted: Host) -> None:
    path, body = "/v1/objectives/echoing/resolve", b'{"context": {}}'
    for accepted in ("application/json; charset=utf-8", "application/cloudevents+json"):
        assert scripted.ask("POST", path, body, {"Content-Type": accepted}).status == 200
    assert scripted.ask("POST", path, body).status == 200
    assert scripted.ask("POST", path, body, {"Content-Type": "text/plain"}).problem["status"] == 415
    for coding in ("gzip", "GZIP", "identity, br", "unheard-of"):
        refused = scripted.ask("POST", path, body, {**JSON, "Content-Encoding": coding})
        assert (refused.problem["status"], refused.headers["accept-encoding"]) == (415, "identity")
    for coding in ("identity", "Identity", "", "identity, identity", ","):
        assert scripted.ask("POST", path, body, {**JSON, "Content-Encoding": coding}).status == 200


def test_context_errors_name_the_attribute_and_not_the_value(scripted: Host) -> None:
    path = "/v1/objectives/echoing/resolve"
    for context, attribute in (
        ({"level": "secret"}, "level"),
        ({"device": "secret"}, "device"),
        ({"tags": [1]}, "tags"),
    ):
        problem = scripted.ask("POST", path, {"context": context}, JSON).problem
        assert (problem["status"], problem["attribute"]) == (400, attribute)
        assert "secret" not in json.dumps(problem)
    assert scripted.ask("POST", path, {}, {**JSON, "X-Level": "secret"}).problem["attribute"] == "level"
    assert scripted.ask("POST", path, {}, {**JSON, "X-Country": "SE"}).json["decision"]["rule"] == "tuned"
    assert (
        scripted.ask("POST", path, {}, {**JSON, "Tidegate-Timeout-Ms": "0"}).problem["header"] == "Tidegate-Timeout-Ms"
    )


def test_paths_and_methods(scripted: Host) -> None:
    for path in ("/v1", "/v1/objectives/", "/v1/objectives/echoing/foo", "/favicon.ico", "/v1/fleet", "/v22"):
        assert scripted.get(path).problem["status"] == 404
    refused = scripted.get("/v1/objectives/echoing/infer")
    assert (refused.problem["status"], refused.headers["allow"]) == (405, "POST")
    assert scripted.ask("DELETE", "/v1/objectives").problem["status"] == 405
    assert scripted.ask("POST", "/v1/objectives/nobody/infer", {}, JSON).problem["status"] == 404
    assert scripted.ask("HEAD", "/v1/objectives").status == 200


def test_the_fleet(engine: Engine) -> None:
    class Fleet:
        async def status(self) -> Mapping[str, Any]:
            return {"shards": [{"name": "main"}]}

    with serving(gateway_app(engine, {}, fleet=Fleet())) as host:
        assert host.ask("GET", "/v1/fleet", None, AS_OPERATOR).json == {"shards": [{"name": "main"}]}
        assert host.ask("GET", "/v1/fleet", None, {"Tidegate-Operator": OPERATOR}).status == 200
        for sent in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {OPERATOR}"},
            {"Tidegate-Operator": ""},
        ):
            for method in ("GET", "HEAD"):
                refused = host.ask(method, "/v1/fleet", None, sent)
                assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Bearer realm="tidegate"')
                assert b"main" not in refused.body
            assert host.ask("GET", "/v1/fleet", None, sent).problem["type"] == "urn:tidegate:problem:operators-only"


def test_a_gateway_without_a_token_has_no_operators(engine: Engine) -> None:
    class Fleet:
        async def status(self) -> Mapping[str, Any]:
            return {"shards": [{"name": "main"}]}

    dispatcher = Dispatcher(PooledTransport(), MemoryEndpointDirectory({}))
    with serving(create_app(engines=MemoryEngineSource(engine), dispatcher=dispatcher, fleet=Fleet())) as host:
        for token in ("", "None"):
            assert host.ask("GET", "/v1/fleet", None, {"Authorization": f"Bearer {token}"}).status == 401


class Model:
    """A scripted model whose metadata and answer may change."""

    def __init__(self, datatype: str = "FP32", shape: tuple[int, ...] = (-1, 2)) -> None:
        self.datatype, self.shape = datatype, list(shape)
        self.output: tuple[str, list[int], bytes] = ("FP32", [1, 2], struct.pack("<2f", 1, 2))
        self.refusal: bytes | None = None
        self.asked: list[str] = []
        self.sent: tuple[list[int], bytes] | None = None

    def __call__(self, request: Received) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(request.method)
        if request.method == "GET":
            tensors = [{"name": "X", "datatype": self.datatype, "shape": self.shape}]
            return 200, {}, json.dumps({"name": "m", "versions": ["1"], "inputs": tensors, "outputs": []}).encode()
        length = int(request.header("inference-header-content-length") or 0)
        head = json.loads(request.body[:length])
        if not head["inputs"]:
            return 400, {}, b'{"error":"expected 1 inputs but got 0 inputs for model \'m\'"}'
        if head["inputs"][0]["datatype"] != self.datatype:
            return 400, {}, b"{\"error\":\"inference input 'X' data-type is 'A', but model 'm' expects 'B'\"}"
        self.sent = head["inputs"][0]["shape"], request.body[length:]
        if self.refusal is not None:
            return 400, {}, self.refusal
        datatype, shape, data = self.output
        parameters = {"binary_data_size": len(data)}
        output = {"name": "Y", "datatype": datatype, "shape": shape, "parameters": parameters}
        answer = json.dumps({"outputs": [output]}).encode()
        return 200, {"Inference-Header-Content-Length": str(len(answer))}, answer + data


def test_metadata_is_kept_and_asked_again_when_the_model_has_changed(scripted: Host, fake: FakeTriton) -> None:
    fake.script = model = Model()
    for _ in range(3):
        assert infer(scripted, "echoing", {"X": [1, 2]}).json["outputs"] == {"Y": [[1, 2]]}
    assert model.asked == ["GET", "POST", "POST", "POST"]
    model.datatype = "FP64"
    model.asked.clear()
    assert infer(scripted, "echoing", {"X": [1, 2]}).status == 200
    assert model.asked == ["POST", "GET", "POST"]
    model.refusal = b'{"error":"the index is empty"}'
    model.asked.clear()
    assert infer(scripted, "echoing", {"X": [1, 2]}).problem["detail"] == "the index is empty"
    assert model.asked == ["POST"]


def test_a_refusal_goes_by_what_the_model_says_now(
    engine: Engine, fake: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.web.v1_infer.REFUSAL_MAX_AGE_S", 0.0)
    fake.script = model = Model("FP16")
    with serving(gateway_app(engine, {"main": fake.port})) as host:
        assert infer(host, "echoing", {"X": [1, 2]}).status == 200
        model.datatype = "FP64"
        model.asked.clear()
        assert infer(host, "echoing", {"X": [1, 1e300]}).status == 200
        assert model.asked == ["GET", "POST"]
        assert infer(host, "echoing", {"X": [1, "text"]}).status == 400
        assert model.asked == ["GET", "POST", "GET"]


@pytest.mark.parametrize(
    ("output", "detail"),
    [
        (("FP32", [1, 2], struct.pack("<2f", 1, math.nan)), "NaN"),
        (("FP32", [1, 2], struct.pack("<2f", 1, -math.inf)), "NaN or infinity"),
        (("FP16", [2], struct.pack("<2e", 1, math.inf)), "NaN or infinity"),
        (("FP32", [3], struct.pack("<2f", 1, 2)), "2 elements"),
        (("BYTES", [1], b"\x02\x00\x00\x00\xff\xfe"), "UTF-8"),
        (("BYTES", [1], b"\x03\x00\x00\x00ab"), "within an element"),
    ],
)
def test_an_answer_that_json_cannot_carry_names_the_output(
    scripted: Host, fake: FakeTriton, output: tuple[str, list[int], bytes], detail: str
) -> None:
    fake.script = model = Model()
    model.output = output
    problem = infer(scripted, "echoing", {"X": [1, 2]}).problem
    assert (problem["status"], problem["output"]) == (502, "Y")
    assert detail in problem["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b'{"outputs": 3}',
        b'{"outputs": [{}]}',
        b'{"outputs": [{"name": "Y", "datatype": "FP32", "shape": [1], "parameters": null, "data": [1]}]}',
        b'{"outputs": [{"name": "Y", "datatype": "FP32", "shape": [1], "data": [1' + b"0" * 400 + b"]}]}",
        b"[" * 90_000,
    ],
)
def test_an_answer_that_is_none(scripted: Host, fake: FakeTriton, body: bytes) -> None:
    fake.script = model = Model()
    assert infer(scripted, "echoing", {"X": [1, 2]}).status == 200
    fake.script = lambda request: model(request) if request.method == "GET" else (200, {}, body)
    assert infer(scripted, "echoing", {"X": [1, 2]}).problem["status"] == 502
    fake.script = lambda request: (500, {}, body)
    assert infer(scripted, "echoing", {"X": [1, 2]}).problem["status"] == 502


def test_outputs_in_json_form_and_empty_ones(scripted: Host, fake: FakeTriton) -> None:
    fake.script = model = Model()
    model.output = ("FP32", [2, 0, 3], b"")
    assert infer(scripted, "echoing", {"X": [1, 2]}).json["outputs"] == {"Y": [[], []]}
    model.output = ("BF16", [], b"\x80\x3f")
    assert infer(scripted, "echoing", {"X": [1, 2]}).json["outputs"] == {"Y": 1.0}
    answer = {"outputs": [{"name": "Y", "datatype": "INT64", "shape": [2, 1], "data": [4, 5]}]}
    fake.script = lambda request: model(request) if request.method == "GET" else (200, {}, json.dumps(answer).encode())
    assert infer(scripted, "echoing", {"X": [1, 2]}).json["outputs"] == {"Y": [[4], [5]]}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=40)
    | st.fixed_dictionaries(
        {},
        optional={
            "context": st.dictionaries(st.text(max_size=5) | st.sampled_from(["tags", "level", "allocations"]), st.none() | st.integers() | st.text(max_size=4) | st.lists(st.integers()), max_size=3),
            "inputs": st.dictionaries(
                st.sampled_from(["X", "Z"]),
                st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3), max_leaves=6),
                max_size=2,
            ),
        },
    ),
    objective=st.sampled_from(["echoing", "guarded", "%00", "nobody"]),
    action=st.sampled_from(["infer", "resolve", "infer?explain=true", "resolve?explain=true"]),
)  # fmt: skip
def test_malformed_input_is_never_a_server_error(
    scripted: Host, fake: FakeTriton, body: Any, objective: str, action: str
) -> None:
    fake.script = Model()
    reply = scripted.ask("POST", f"/v1/objectives/{objective}/{action}", body, JSON)
    assert reply.status < 500
    if reply.status >= 400:
        assert reply.problem["detail"]


def test_a_client_that_goes_away_disturbs_nobody(scripted: Host, fake: FakeTriton) -> None:
    for _ in range(5):
        connection = http.client.HTTPConnection("127.0.0.1", scripted.port, timeout=5)
        connection.putrequest("POST", "/v2/models/echoing/infer")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"half")
        connection.close()
    assert scripted.ask("POST", "/v2/models/echoing/infer", b"{}").status == 200


@pytest.mark.parametrize("path", ["resolve", "infer"])
def test_an_explanation_names_the_attributes_that_were_ignored(scripted: Host, path: str) -> None:
    document = {"context": {"coutry": "secret", "level": 10}} | ({"inputs": {}} if path == "infer" else {})
    reply = scripted.ask("POST", f"/v1/objectives/echoing/{path}?explain=true", document)
    ignored = reply.json.get("explanation", {}).get("ignored")
    assert ignored == [{"name": "coutry", "did_you_mean": "country"}] or (path, reply.status) == ("infer", 502)
    assert "secret" not in reply.body.decode()


@pytest.mark.parametrize(
    "path", ["/v1/objectives/{}", "/v1/objectives/{}/resolve", "/v2/models/{}", "/v2/models/{}/infer"]
)
def test_a_misspelt_objective_gets_a_suggestion(scripted: Host, path: str) -> None:
    method, body = ("POST", {"context": {}}) if path.count("/") > 3 else ("GET", None)
    for name, near in (("ecoing", True), ("xyz", False)):
        reply = scripted.ask(method, path.format(name), body)
        assert (reply.status, "did you mean 'echoing'?" in reply.body.decode()) == (404, near)


def test_an_objective_that_refuses_what_it_does_not_declare(fake: FakeTriton, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    shutil.copytree(HERE / "rules", rules)
    file = rules / "objectives/echoing.yaml"
    file.write_text(file.read_text().replace("sticky_key:", "unknown_attributes: refuse\nsticky_key:"))
    app = gateway_app(load_bundle(compile_directory(rules)), {"main": fake.port, "spare": fake.port})
    infer = "/v2/models/echoing/infer"
    with serving(app) as host:
        refused = host.ask("POST", "/v1/objectives/echoing/resolve", {"context": {"coutry": "secret"}})
        assert (refused.status, refused.problem["attribute"]) == (400, "coutry")
        assert "'coutry' (did you mean 'country'?)" in refused.problem["detail"]
        header = {"Tidegate-Context": '{"coutry": "secret"}'}
        for reply in (refused, host.ask("POST", infer, b"{}", header)):
            assert (reply.status, "coutry" in reply.body.decode(), "secret" in reply.body.decode()) == (
                400,
                True,
                False,
            )
        assert host.ask("POST", infer, {"parameters": {"coutry": 1}}).status == 200, "a parameter may be the model's"
        assert host.get("/v1/objectives/echoing").json["unknown_attributes"] == "refuse"
