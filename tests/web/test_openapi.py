"""`/openapi.json`: of both APIs, and of one objective with its types."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate
from tidegate import __version__
from tidegate.gateway import Dispatcher
from tidegate.ports import Endpoint
from tidegate.rules import Engine, compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app

from tests.support.processes import refusing_port
from tests.web.conftest import FakeTriton, Host, Received, Reply, gateway_app

JSON = {"Content-Type": "application/json"}
FLEET = """
shards: {main: {replicas: 1}, spare: {replicas: 1}}
models: {title_ranking: {shards: [main]}, playlist: {shards: [main]}, absent: {shards: [spare]}}
"""
RANKING = """
objective: title_ranking
summary: Rank titles for a member's home row.
owner: personalization
context:
  member_id: {type: string, required: true}
  device: {type: string, values: [tv, mobile, web], default: tv}
  country: {type: string, from: header:X-Country, required: true}
  region: {type: string, from: header:X-Region, default: EU}
  level: {type: integer, values: [1, 2]}
  weight: {type: number, values: [0.5, 1]}
  app_version: {type: version, values: ["8.2", "9.0"]}
  is_kids: {type: boolean, default: false}
  tags: {type: set, values: [new, old]}
unknown_attributes: refuse
rules:
  - {id: absent, when: {device: web}, serve: absent}
  - {id: ab, experiment: {id: "12", allocate: caller, cells: {1: title_ranking, 2: title_ranking}}}
  - {id: known, when: {device: [tv]}, serve: title_ranking}
"""
PLAYLIST = """
objective: title_playlist
summary: Write a playlist.
owner: personalization
responses: stream
rules: [{id: default, serve: playlist}]
"""
CALLERS = """
callers:
  home-screen: {objectives: [title_ranking]}
  search-bar: {objectives: "*", rate_per_s: 1, burst: 1}
  operator: {objectives: "*"}
"""
METADATA: dict[str, Any] = {
    "name": "title_ranking",
    "versions": ["1"],
    "inputs": [
        {"name": "TOP_K", "datatype": "INT32", "shape": [-1, 1]},
        {"name": "HISTORY", "datatype": "BYTES", "shape": [-1, -1]},
        {"name": "VECTOR", "datatype": "FP32", "shape": [2, 3]},
        {"name": "LEVEL", "datatype": "UINT8", "shape": []},
        {"name": "FLAG", "datatype": "BOOL", "shape": [1]},
    ],
    "outputs": [
        {"name": "TITLE_IDS", "datatype": "BYTES", "shape": [-1, -1]},
        {"name": "SCORES", "datatype": "FP32", "shape": [-1, -1]},
    ],
}
MEMBER = {"member_id": "42", "country": "SE"}
HISTORY = {"HISTORY": "a"}
METHODS = {"get", "post", "put", "delete", "patch"}


def rules_of(folder: Path, callers: str = "", **objectives: str) -> Engine:
    (folder / "objectives").mkdir()
    (folder / "fleet.yaml").write_text(FLEET)
    if callers:
        (folder / "callers.yaml").write_text(callers)
    for name, text in objectives.items():
        (folder / "objectives" / f"{name}.yaml").write_text(text)
    return load_bundle(compile_directory(folder))


@pytest.fixture(scope="module")
def titles(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return rules_of(tmp_path_factory.mktemp("rules"), title_ranking=RANKING, title_playlist=PLAYLIST)


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("rules")
    return rules_of(folder, CALLERS, title_ranking=RANKING, title_playlist=PLAYLIST)


def described(request: Received) -> tuple[int, Mapping[str, str], bytes]:
    inputs = [{"name": each["name"], "optional": each["name"] != "HISTORY"} for each in METADATA["inputs"]]
    document = {"input": inputs} if request.path.endswith("/config") else METADATA
    return 200, JSON, json.dumps(document).encode()


@pytest.fixture
def ranking(scripted_server: tuple[Any, Host], fake: FakeTriton, titles: Engine) -> Host:
    """A gateway whose models have `METADATA`."""
    slot, host = scripted_server
    slot.app = gateway_app(titles, {"main": fake.port, "spare": refusing_port()})
    fake.script = described
    return host


def parts_of(document: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(document, dict):
        yield document
    for each in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from parts_of(each)


def validated(reply: Reply) -> Any:
    """The document of a reply, checked to be one that generators of clients can use."""
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    document = reply.json
    validate(document)
    assert document["openapi"].startswith("3.1")
    assert document["info"]["version"] == __version__
    for part in parts_of(document):
        kind = part.get("type")
        if kind == "array" or (isinstance(kind, list) and "array" in kind):
            assert "items" in part, part
    return document


def schema(document: Any, name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**document, "$ref": f"#/components/schemas/{name}"})


def test_the_document_is_valid(scripted: Host) -> None:
    validated(scripted.get("/openapi.json"))


def test_the_document_has_the_routes_of_the_app(scripted: Host, engine: Engine) -> None:
    documented = {
        (method.upper(), path)
        for path, item in scripted.get("/openapi.json").json["paths"].items()
        for method in item.keys() & METHODS
    }
    routes = {
        (method, route.path) for route in gateway_app(engine, {}).routes for method in route.methods - {"HEAD"}
    }  # fmt: skip
    assert {(method, path) for method, path in documented if path.startswith(("/v1", "/ofrep"))} == routes - {
        ("GET", "/openapi.json"),
        ("GET", "/"),
    }
    for method, path in documented:
        asked = path.format(objective="echoing", version=1)
        if path != "/v1/fleet":
            assert scripted.ask(method, asked).status not in (404, 405), f"{method} {path}"
        assert scripted.ask("GET" if method == "POST" else "POST", asked).status == 405, f"{method} {path}"


def examples(titles: Engine, called: Engine, fake: FakeTriton, app_of: Any) -> Iterator[tuple[str, str, Reply]]:
    """The answers that the document has as examples, by response and name."""

    def ask(path: str, body: Any = None, engine: Engine = titles, **headers: str) -> Reply:
        host = app_of(engine)
        sent = {**JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return host.ask("GET" if body is None else "POST", f"/v1/objectives/{path}", body, sent)

    def infer(inputs: Any, device: str = "tv", **headers: str) -> Reply:
        return ask("title_ranking/infer", {"context": {**MEMBER, "device": device}, "inputs": inputs}, **headers)

    fake.script = described
    asked = {"context": {**MEMBER, "device": "radio"}}
    yield "ProblemMalformed", "context", ask("title_ranking/resolve", asked)
    yield "ProblemMalformed", "input", infer({"TOP": 5})
    yield "ProblemForbidden", "objective", ask("title_playlist", None, called, Tidegate_Caller="home-screen")
    yield "ProblemUnknown", "objective", ask("title_rankin")
    yield "ProblemUnknown", "rule", ask("title_ranking/resolve", {"context": {**MEMBER, "device": "mobile"}})
    yield "ProblemTooLarge", "values", infer({"HISTORY": ["a"] * 101})
    yield "ProblemMediaType", "media_type", ask("title_ranking/resolve", asked, Content_Type="text/plain")
    host = app_of(called)
    replies = (host.get("/v1/objectives/title_ranking", Tidegate_Caller="search-bar") for _ in range(1000))
    yield "ProblemLimited", "rate", next(reply for reply in replies if reply.status == 429)
    yield "ProblemNotOffered", "stream", ask("title_playlist/infer", {})
    yield "ProblemUnavailable", "unavailable", infer({}, "web")

    def broken(request: Received) -> tuple[int, Mapping[str, str], bytes]:
        if request.method == "GET":
            return described(request)
        output = {"name": "SCORES", "datatype": "FP32", "shape": [1, 1], "parameters": {"binary_data_size": 4}}
        head = json.dumps({"model_name": "m", "outputs": [output]}).encode()
        return 200, {"Inference-Header-Content-Length": str(len(head))}, head + struct.pack("<f", float("nan"))

    fake.script = broken
    yield "ProblemBadAnswer", "output", infer({})
    left = threading.Event()

    def slow(request: Received) -> tuple[int, Mapping[str, str], bytes]:
        left.wait(60)
        return described(request)

    fake.script = slow
    yield "ProblemDeadline", "deadline", infer({}, Tidegate_Timeout_Ms="300")
    left.set()


def test_the_examples_are_answers(
    scripted_server: tuple[Any, Host], fake: FakeTriton, titles: Engine, called: Engine
) -> None:
    slot, host = scripted_server

    def app_of(engine: Engine) -> Host:
        ports = {"main": fake.port, "spare": refusing_port()}
        directory = MemoryEndpointDirectory(
            {shard: (Endpoint(shard, "127.0.0.1", port),) for shard, port in ports.items()}
        )
        dispatcher = Dispatcher(PooledTransport(), directory)
        slot.app = create_app(engines=MemoryEngineSource(engine), dispatcher=dispatcher, max_v1_values=100)
        return host

    answers = {(response, name): reply for response, name, reply in examples(titles, called, fake, app_of)}
    document = host.get("/openapi.json").json
    documented = {
        (response, name): example["value"]
        for response, part in document["components"]["responses"].items()
        for media in part.get("content", {}).values()
        for name, example in media.get("examples", {}).items()
    }
    given = {key: reply.problem for key, reply in answers.items()}
    # A busy machine may pass the deadline elsewhere.
    late = ("ProblemDeadline", "deadline")
    for each in (documented[late], given[late]):
        assert each.pop("detail").startswith("no target answered before the deadline")
        assert isinstance(each.pop("attempts"), list)
    assert documented == given
    codes = {
        each["$ref"].rpartition("/")[2]: code
        for item in document["paths"].values()
        for method in item.keys() & METHODS
        for code, each in item[method]["responses"].items()
        if "$ref" in each
    }
    for (response, _), reply in answers.items():
        assert codes[response] == str(reply.status)
        schema(document, "Problem").validate(reply.problem)


def test_the_types_of_an_objective(ranking: Host) -> None:
    document = validated(ranking.get("/openapi.json?objective=title_ranking"))
    assert list(document["paths"]) == [f"/v1/objectives/title_ranking{part}" for part in ("", "/infer", "/resolve")]
    assert "Rank titles" in document["info"]["description"]
    assert "unavailable" not in document["info"]["description"]
    context = document["components"]["schemas"]["Context"]
    assert context["required"] == ["member_id"], "a header may give the country"
    assert context["properties"]["device"] == {"type": "string", "enum": ["mobile", "tv", "web"], "default": "tv"}
    assert "default" not in context["properties"]["region"], "a client that sends it would overrule the header"
    accepts = schema(document, "InferRequest").is_valid
    for right in (
        {}, {"device": "tv", "level": 2, "weight": 0.5, "app_version": "8.2.0", "is_kids": True, "tags": ["new"]}, {"tags": []},
        {"allocations": {"12": 1}}, {"allocations": {"12": "1"}},
    ):  # fmt: skip
        body = {"context": {**MEMBER, **right}}
        assert accepts({**body, "inputs": HISTORY}), right
        assert ranking.ask("POST", "/v1/objectives/title_ranking/resolve", body, JSON).status == 200
    for wrong in (
        {"device": "radio"}, {"level": 3}, {"level": "1"}, {"weight": 2}, {"app_version": "new"}, {"is_kids": 1}, {"tags": ["x"]},
        {"tags": "new"}, {"member_id": 42}, {"other": 1}, {"allocations": {"12": 1.5}}, {"device": None},
    ):  # fmt: skip
        body = {"context": {**MEMBER, **wrong}}
        assert not accepts({**body, "inputs": HISTORY}), wrong
        assert ranking.ask("POST", "/v1/objectives/title_ranking/resolve", body, JSON).status == 400
    assert not accepts({"context": {}, "inputs": HISTORY})
    assert not accepts({"context": MEMBER})
    assert not accepts({"context": MEMBER, "inputs": {}})
    assert schema(document, "ResolveRequest").is_valid({"context": MEMBER})


def test_inputs_are_described_as_they_are_accepted(ranking: Host) -> None:
    document = ranking.get("/openapi.json?objective=title_ranking").json
    accepts = schema(document, "Inputs").is_valid
    rows = [[1, 2, 3], [4, 5, 6]]
    for right in (
        {}, {"TOP_K": 5}, {"TOP_K": [5]}, {"TOP_K": [[5], [6]]}, {"HISTORY": "a"}, {"HISTORY": ["a"]}, {"HISTORY": [[]]}, {"VECTOR": rows},
        {"LEVEL": 255}, {"FLAG": True}, {"FLAG": [True]},
    ):  # fmt: skip
        assert accepts({**HISTORY, **right}), right
        assert refused(ranking, right) is None
    for wrong in (
        {"TOP_K": "5"}, {"TOP_K": []}, {"TOP_K": [[5, 6]]}, {"TOP_K": [[[5]]]}, {"TOP_K": 1.5}, {"HISTORY": []}, {"VECTOR": rows[:1]},
        {"VECTOR": rows[0]}, {"LEVEL": 256}, {"LEVEL": [1]}, {"FLAG": 1}, {"OTHER": 1}, {"FLAG": None},
    ):  # fmt: skip
        assert not accepts({**HISTORY, **wrong}), wrong
        assert refused(ranking, wrong) == next(iter(wrong))


def refused(host: Host, inputs: Any) -> str | None:
    """The input that the gateway refuses; None where the model was asked."""
    body = {"context": {**MEMBER, "device": "tv"}, "inputs": inputs}
    return host.ask("POST", "/v1/objectives/title_ranking/infer", body, JSON).problem.get("input")


def test_a_stream_is_described_as_one(ranking: Host) -> None:
    document = validated(ranking.get("/openapi.json?objective=title_playlist"))
    assert list(document["paths"]) == [f"/v1/objectives/title_playlist{part}" for part in ("", "/stream", "/resolve")]
    outputs = schema(document, "Outputs")
    outputs.validate({"TITLE_IDS": "a", "SCORES": [0.5, 1]})
    assert not outputs.is_valid({"TITLE_IDS": "a"})


def test_types_follow_the_model(ranking: Host, fake: FakeTriton, titles: Engine, scripted_server: Any) -> None:
    slot, _ = scripted_server
    slot.app = gateway_app(titles, {"main": refusing_port(), "spare": refusing_port()})
    untyped = validated(ranking.get("/openapi.json?objective=title_ranking"))
    assert "model is unavailable now" in untyped["info"]["description"]
    assert "properties" not in untyped["components"]["schemas"]["Inputs"]
    assert schema(untyped, "InferRequest").is_valid({"context": MEMBER, "inputs": {"ANY": [1]}})
    assert not schema(untyped, "InferRequest").is_valid({"context": {}})
    slot.app = gateway_app(titles, {"main": fake.port, "spare": refusing_port()})
    typed = validated(ranking.get("/openapi.json?objective=title_ranking"))
    assert "unavailable" not in typed["info"]["description"]
    assert "TOP_K" in typed["components"]["schemas"]["Inputs"]["properties"]
    again = ranking.get("/openapi.json?objective=title_ranking")
    assert again.json == typed
    assert len(fake.received) == 2, "the model's metadata and its configuration are asked for once"


def test_without_the_models_configuration_nothing_is_typed(ranking: Host, fake: FakeTriton) -> None:
    fake.script = lambda request: (503, JSON, b"{}") if request.path.endswith("/config") else described(request)
    untyped = validated(ranking.get("/openapi.json?objective=title_ranking"))
    assert "model is unavailable now" in untyped["info"]["description"]
    fake.script = described
    typed = validated(ranking.get("/openapi.json?objective=title_ranking"))
    assert typed["components"]["schemas"]["Inputs"]["required"] == ["HISTORY"]


def test_only_objectives_that_the_caller_may_use_are_described(
    scripted_server: tuple[Any, Host], fake: FakeTriton, called: Engine
) -> None:
    slot, host = scripted_server
    slot.app = gateway_app(called, {"main": fake.port, "spare": fake.port})
    fake.script = described

    def ask(objective: str, caller: str) -> Reply:
        return host.get(f"/openapi.json?objective={objective}", Tidegate_Caller=caller)

    validated(ask("title_ranking", "home-screen"))
    hidden, unknown = ask("title_playlist", "home-screen"), ask("title_playlists", "home-screen")
    assert hidden.status == 403
    assert hidden.problem["type"] == unknown.problem["type"] == "urn:tidegate:problem:not-granted"
    masked = {**unknown.problem, "detail": unknown.problem["detail"].replace("playlists", "playlist")}
    assert hidden.problem == {**masked, "objective": "title_playlist"}
    assert ask("title_playlists", "operator").problem["did_you_mean"] == "title_playlist"
    assert ask("title_ranking", "nobody").status == 403
    validated(host.get("/openapi.json"))


def test_one_document_describes_one_objective(ranking: Host) -> None:
    for query in ("objective=title_ranking&objective=title_playlist", "objectives=title_ranking"):
        assert ranking.get(f"/openapi.json?{query}").problem["type"] == "urn:tidegate:problem:malformed-request"
    assert ranking.get("/openapi.json?objective=").status == 404
    assert ranking.ask("HEAD", "/openapi.json?objective=title_ranking").body == b""


@pytest.mark.parametrize("objective", ["adding", "echoing", "measuring", "stepping", "tallying", "text_adding"])
def test_every_objective_is_described(gateway: Host, objective: str) -> None:
    document = validated(gateway.get(f"/openapi.json?objective={objective}"))
    schemas = document["components"]["schemas"]
    assert schemas["Outputs"]["required"]
    if objective == "stepping":
        assert schemas["Inputs"]["required"] == ["X"]
