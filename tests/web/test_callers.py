"""Who may call, and what they may pin: on `/v1` and `/v2`, and without a callers.yaml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from tidegate.gateway import Call, Dispatcher, Outcome
from tidegate.ports import Endpoint
from tidegate.rules import Engine, compile_directory, load_bundle
from tidegate.rules.decision import Decision
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app

from tests.docs.blocks import ROOT, Block, blocks
from tests.support.processes import refusing_port
from tests.web.conftest import HERE, FakeTriton, Host, Reply, gateway_app, sound_model

CALLERS = """\
callers:
  home: {objectives: [adding, echoing], overrides: [pair_sum, text_sum/1]}
  searcher: {objectives: guarded}
  tests: {objectives: "*", overrides: "*", traffic: synthetic}
"""
ADD, ECHO, GUARDED = (f"/v2/models/{name}/infer" for name in ("adding", "echoing", "guarded"))
ADDING = "/v1/objectives/adding"
ORIGIN = {"tidegate-param-tidegate_traffic", "tidegate-param-tidegate_caller"}


def compiled(root: Path, rules: Path, callers: str) -> Engine:
    for path in rules.rglob("*.yaml"):
        copy = root / path.relative_to(rules)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (root / "callers.yaml").write_text(callers, encoding="utf-8")
    return load_bundle(compile_directory(root))


@pytest.fixture(scope="module")
def granting(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return compiled(tmp_path_factory.mktemp("rules"), HERE / "rules", CALLERS)


def post(host: Host, path: str, caller: str | None = None, pin: str | None = None, **headers: str) -> Reply:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if caller is not None:
        sent["Tidegate-Caller"] = caller
    if pin is not None:
        sent["Tidegate-Override"] = pin
    if path.startswith("/v1"):
        sent["Content-Type"] = "application/json"
    return host.ask("POST", path, b"{}", sent)


@pytest.mark.patches
@pytest.mark.parametrize("path", [ECHO, "/v1/objectives/echoing/infer"])
def test_callers_take_turns_by_name_and_others_by_connection(
    guarded: Host,
    scripted_server: tuple[Any, Host],
    fake: FakeTriton,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    flows: list[object] = []
    dispatch = Dispatcher.dispatch

    async def recorded(self: Dispatcher, decision: Decision, call: Call, deadline_s: float) -> Outcome:
        if call.method == "POST":
            flows.append(call.flow)
        return await dispatch(self, decision, call, deadline_s)

    monkeypatch.setattr(Dispatcher, "dispatch", recorded)
    for caller in ("home", "home", "tests"):
        assert post(guarded, path, caller).status == 200
    assert flows == ["home", "home", "tests"]
    flows.clear()
    slot, _ = scripted_server
    slot.app = gateway_app(engine, {"main": fake.port})
    for _ in range(2):
        assert post(guarded, path).status == 200
    first, second = flows
    assert None not in (first, second)
    assert first != second


def decision_of(reply: Reply) -> tuple[int, str, str, str]:
    shown = (reply.headers.get(f"tidegate-{name}", "") for name in ("rule", "model", "reason"))
    rule, name, reason = shown
    return reply.status, rule, name, reason


@pytest.mark.parametrize("action", ["", "/ready", "/config", "/stats", "/versions/2", "/versions/2/ready"])
def test_a_get_of_a_model_needs_the_grant(guarded: Host, fake: FakeTriton, action: str) -> None:
    path = f"/v2/models/adding{action}"
    assert guarded.get(path, Tidegate_Caller="home").status == 200
    fake.received.clear()
    for headers in ({}, {"Tidegate_Caller": "nobody"}, {"Tidegate_Caller": "searcher"}):
        reply = guarded.get(path, **headers)
        assert reply.status == 403
        assert "callers.yaml" in reply.error
    assert fake.received == []


@pytest.mark.parametrize("path", [ADD, f"{ADDING}/infer", f"{ADDING}/resolve"])
def test_a_request_needs_a_caller_with_the_objective(guarded: Host, fake: FakeTriton, path: str) -> None:
    for caller in ("home", "tests"):
        assert decision_of(post(guarded, path, caller))[:2] == (200, "newest")
    fake.received.clear()
    refusals = {
        None: "the caller's name is missing, and only the callers in callers.yaml may call: send it in the header "
        "Tidegate-Caller",
        "": "the caller's name is missing, and only the callers in callers.yaml may call: send it in the header "
        "Tidegate-Caller",
        "Home": "caller 'Home' is not one of the callers in callers.yaml",
        "searcher": "caller 'searcher' may not use 'adding': `objectives` of the caller in callers.yaml lack it",
    }
    for caller, words in refusals.items():
        reply = post(guarded, path, caller)
        assert reply.status == 403
        if path.startswith("/v2"):
            assert reply.error == words
        else:
            assert (reply.problem["type"], reply.problem["detail"]) == ("urn:tidegate:problem:not-granted", words)
    assert fake.received == []


def test_a_refusal_of_v1_names_the_grant_for_programs(guarded: Host) -> None:
    problem = post(guarded, f"{ADDING}/infer", "searcher").problem
    assert (problem["caller"], problem["grant"], problem["objective"]) == ("searcher", "objectives", "adding")
    problem = post(guarded, f"{ADDING}/infer", "home", "echo").problem
    assert (problem["caller"], problem["grant"], problem["target"]) == ("home", "overrides", "echo")


def test_the_objectives_that_a_caller_sees(guarded: Host) -> None:
    def listed(caller: str) -> set[str]:
        reply = guarded.get("/v1/objectives", Tidegate_Caller=caller)
        return {objective["name"] for objective in reply.json["objectives"]}

    assert listed("home") == {"adding", "echoing"}
    assert listed("searcher") == {"guarded"}
    assert {"adding", "echoing", "guarded", "stepping"} <= listed("tests")
    assert guarded.get("/v1/objectives").status == 403
    assert guarded.get(ADDING, Tidegate_Caller="home").json["name"] == "adding"
    assert guarded.get(ADDING, Tidegate_Caller="searcher").problem["grant"] == "objectives"


@pytest.mark.parametrize("path", ["/v2/models/{}/infer", "/v1/objectives/{}/infer", "/v1/objectives/{}/resolve"])
def test_a_caller_of_some_objectives_learns_no_name_of_the_others(guarded: Host, path: str) -> None:
    """An objective that does not exist is refused like one of another caller."""
    replies = [post(guarded, path.format(name), "home") for name in ("guarded", "guardex")]
    assert [reply.status for reply in replies] == [403, 403]
    forbidden, unknown = (reply.body.decode() for reply in replies)
    assert forbidden.replace("guarded", "guardex") == unknown
    near = post(guarded, path.format("ading"), "home")
    assert (near.status, "did you mean 'adding'?" in near.body.decode()) == (403, True)


def test_an_unknown_objective_is_one_for_a_caller_of_all(guarded: Host) -> None:
    for path in ("/v2/models/{}/infer", "/v1/objectives/{}/infer"):
        reply = post(guarded, path.format("guardex"), "tests")
        assert (reply.status, "did you mean 'guarded'?" in reply.body.decode()) == (404, True)
        reply = post(guarded, path.format("nothing"), "tests")
        assert (reply.status, "did you mean" in reply.body.decode()) == (404, False) or path.startswith("/v1")
    assert post(guarded, "/v2/models/nothing/infer", "nobody").status == 403
    assert post(guarded, "/v1/objectives/nothing/infer", "nobody").status == 403


@pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/health/ready", "/openapi.json"])
def test_what_stays_open(guarded: Host, fake: FakeTriton, path: str) -> None:
    fake.script = lambda _: (200, {}, b'{"name":"triton","version":"1","extensions":[]}')
    assert guarded.get(path).status == 200
    assert guarded.get(path, Tidegate_Caller="nobody").status == 200


@pytest.mark.parametrize("path", [ADD, f"{ADDING}/infer", f"{ADDING}/resolve"])
def test_a_pinned_target_takes_the_place_of_the_rules_choice(guarded: Host, path: str) -> None:
    assert decision_of(post(guarded, path, "home")) == (200, "newest", "pair_sum", "serve")
    assert decision_of(post(guarded, path, "home", "text_sum/1", X_Country="NL")) == (
        200, "pinned", "text_sum", "override",
    )  # fmt: skip
    pinned = post(guarded, path, "tests", "echo")
    assert decision_of(pinned) == (200, "newest", "echo", "override")
    if path.startswith("/v1"):
        decision = pinned.json["decision"]
        assert (decision["target"], decision["reason"], decision["fallbacks"]) == ("echo", "override", [])


def test_a_pinned_target_is_sent_what_the_rules_would_have_sent(guarded: Host, fake: FakeTriton) -> None:
    post(guarded, ECHO, "tests", "pair_sum/2", X_Country="SE", Traceparent="00-1-2-01")
    (sent,) = [request for request in fake.received if request.method == "POST"]
    assert sent.path == "/v2/models/pair_sum/versions/2/infer"
    assert (sent.header("tidegate-param-top_k"), sent.header("traceparent")) == ("20", "00-1-2-01")


@pytest.mark.parametrize("path", [ADD, f"{ADDING}/infer"])
def test_the_model_gets_the_caller_and_its_traffic_class(guarded: Host, fake: FakeTriton, path: str) -> None:
    for caller, traffic in (("home", "real"), ("tests", "synthetic")):
        fake.received.clear()
        spoofed = {"Tidegate_Param_tidegate_traffic": "shadow", "Tidegate_Param_tidegate_caller": "another"}
        assert post(guarded, path, caller, **spoofed).status == 200
        (sent,) = [request for request in fake.received if request.method == "POST"]
        reserved = [value for name, value in sent.headers if name.startswith("tidegate-param-tidegate")]
        assert sorted(reserved) == sorted([caller, traffic])


@pytest.mark.parametrize("path", [ADD, f"{ADDING}/infer"])
def test_neither_header_travels_on(guarded: Host, fake: FakeTriton, path: str) -> None:
    assert post(guarded, path, "home", "pair_sum").status == 200
    assert fake.received
    for request in fake.received:
        assert {name for name, _ in request.headers if "tidegate" in name} <= ORIGIN


def test_gets_follow_the_pin(guarded: Host, fake: FakeTriton) -> None:
    for action in ("", "/ready", "/config", "/stats"):
        reply = guarded.get(f"/v2/models/guarded{action}", Tidegate_Caller="tests", Tidegate_Override="pair_sum/1")
        assert (reply.status, reply.headers["tidegate-reason"]) == (200, "override")
    assert {request.path for request in fake.received} == {
        f"/v2/models/pair_sum/versions/1{action}" for action in ("", "/ready", "/config", "/stats")
    }


def test_a_pinned_request_is_checked_as_any_other(guarded: Host, fake: FakeTriton) -> None:
    missing = post(guarded, GUARDED, "tests", "echo")
    assert missing.status == 400
    assert "member_id" in missing.error
    no_rule = post(guarded, GUARDED, "tests", "echo", Tidegate_Context='{"member_id": "1"}')
    assert no_rule.status == 404
    assert "no rule" in no_rule.error
    assert fake.received == []


def test_nothing_answers_in_place_of_a_pinned_target(guarded: Host, fake: FakeTriton) -> None:
    fake.script = lambda request: (503, {}, b"") if "/echo/" in request.path else (200, {}, b"{}")
    context = '{"member_id": "1", "device": "mobile"}'
    assert decision_of(post(guarded, GUARDED, "tests", None, Tidegate_Context=context))[3] == "fallback"
    fake.received.clear()
    reply = post(guarded, GUARDED, "tests", "echo", Tidegate_Context=context)
    assert reply.status == 503
    assert reply.headers["tidegate-reason"] == "override"
    assert {request.path for request in fake.received} == {"/v2/models/echo/infer"}


def test_the_explanation_tells_what_the_rules_say(guarded: Host) -> None:
    document = post(guarded, f"{ADDING}/resolve?explain=true", "tests", "echo").json
    assert document["decision"]["model"] == "echo"
    assert (document["explanation"]["decision"]["model"], document["explanation"]["decision"]["reason"]) == (
        "pair_sum", "serve",
    )  # fmt: skip
    assert document["path"] == "/v2/models/echo/infer"


@pytest.mark.parametrize(
    "pin",
    ["", "/1", "echo/", "echo/0", "echo/01", "echo/-1", "echo/1/2", "echo/latest", "a b", "adding@best", "é", "*"],
)
def test_a_malformed_override(guarded: Host, fake: FakeTriton, pin: str) -> None:
    words = "the header Tidegate-Override must be sent once and be model or model/version"
    for caller in ("home", "tests"):
        assert (reply := post(guarded, ADD, caller, pin)).status == 400
        assert reply.error == words
    problem = post(guarded, f"{ADDING}/resolve", "tests", pin).problem
    assert (problem["status"], problem["header"]) == (400, "Tidegate-Override")
    assert fake.received == []


def test_headers_that_are_sent_twice(guarded: Host, fake: FakeTriton) -> None:
    for name, values in (("Tidegate-Override", ("echo", "echo")), ("Tidegate-Caller", ("home", "tests"))):
        sent = [(name, value) for value in values]
        if name == "Tidegate-Override":
            sent.append(("Tidegate-Caller", "tests"))
        reply = guarded.ask("POST", ADD, b"{}", sent)
        assert reply.status == 400
        assert f"{name} must be sent once" in reply.error
    assert fake.received == []


@pytest.mark.parametrize(
    ("caller", "pin", "status"),
    [
        ("home", "pair_sum", 200),
        ("home", "pair_sum/1", 200),
        ("home", "pair_sum/2", 200),
        ("home", "pair_sum/7", 404),
        ("home", "text_sum/1", 200),
        ("home", "text_sum", 403),
        ("home", "text_sum/2", 403),
        ("home", "echo", 403),
        ("home", "nobody", 403),
        ("searcher", "pair_sum", 403),
        ("tests", "text_sum/1", 200),
        ("tests", "text_sum/3", 404),
        ("tests", "nobody", 404),
    ],
)
def test_what_may_be_pinned(guarded: Host, caller: str, pin: str, status: int) -> None:
    objective = "guarded" if caller == "searcher" else "adding"
    context = {"Tidegate_Context": '{"member_id": "1", "device": "tv"}'}
    reply = post(guarded, f"/v2/models/{objective}/infer", caller, pin, **context)
    assert reply.status == status
    if status != 200:
        assert f"'{pin}'" in reply.error
        assert "`overrides`" in reply.error
    if status == 403:
        assert f"caller '{caller}'" in reply.error
    if objective == "adding":
        assert post(guarded, f"{ADDING}/resolve", caller, pin).status == status


def test_a_version_that_is_not_loaded_names_those_that_are(guarded: Host) -> None:
    reply = post(guarded, ADD, "home", "pair_sum/7")
    assert "that are loaded are 1, 2" in reply.error
    assert reply.headers["tidegate-reason"] == "override"
    assert post(guarded, f"{ADDING}/infer", "home", "pair_sum/7").problem["target"] == "pair_sum/7"


def test_without_callers_everybody_may_call_and_nobody_may_pin(scripted: Host, fake: FakeTriton) -> None:
    fake.script = sound_model
    for headers in ({}, {"Tidegate_Caller": "anybody"}):
        assert post(scripted, ADD, None, None, **headers).status == 200
    twice = [("Tidegate-Caller", "a"), ("Tidegate-Caller", "b")]
    assert scripted.ask("POST", ADD, b"{}", twice).status == 200
    fake.received.clear()
    for path in (ADD, f"{ADDING}/infer", f"{ADDING}/resolve"):
        reply = post(scripted, path, "anybody", "echo")
        words = reply.error if path == ADD else reply.problem["detail"]
        assert (reply.status, words) == (
            403, "no caller may pin 'echo': the rules have no callers.yaml that grants `overrides`",
        )  # fmt: skip
    assert fake.received == []


NAMING = [
    ("GET", "/v2/models/{}"),
    ("GET", "/v2/models/{}/ready"),
    ("GET", "/v2/models/{}/config"),
    ("GET", "/v2/models/{}/stats"),
    ("GET", "/v2/models/{}/versions/1"),
    ("GET", "/v2/models/{}/versions/1/ready"),
    ("GET", "/v2/models/{}/infer"),
    ("HEAD", "/v2/models/{}"),
    ("PUT", "/v2/models/{}"),
    ("OPTIONS", "/v2/models/{}"),
    ("POST", "/v2/models/{}"),
    ("POST", "/v2/models/{}/infer"),
    ("POST", "/v2/models/{}/versions/1/infer"),
    ("POST", "/v2/models/{}/generate"),
    ("POST", "/v2/models/{}/trace/setting"),
    ("GET", "/v1/objectives/{}"),
    ("HEAD", "/v1/objectives/{}"),
    ("POST", "/v1/objectives/{}"),
    ("GET", "/v1/objectives/{}/infer"),
    ("POST", "/v1/objectives/{}/infer"),
    ("POST", "/v1/objectives/{}/infer?explain=true"),
    ("POST", "/v1/objectives/{}/resolve"),
    ("POST", "/v1/objectives/{}/resolve?explain=true"),
    ("HEAD", "/v1/objectives/{}/resolve"),
]
"""Every path that has an objective's name in it, with methods that it takes and that it does not."""


@pytest.mark.parametrize(("method", "path"), NAMING)
@pytest.mark.parametrize("body", [None, b"{}", b"no JSON", b'{"context": {"x": 1}, "inputs": {}}'])
def test_a_caller_cannot_tell_anothers_objective_from_none(
    guarded: Host, fake: FakeTriton, method: str, path: str, body: bytes | None
) -> None:
    # `addinh` is near `adding`: a suggestion must not reveal more.
    for sent in ({}, {"Tidegate-Caller": "nobody"}, {"Tidegate-Caller": "searcher"}, {"Tidegate-Override": "pair_sum"}):
        headers = {"Content-Type": "application/json", "Tidegate-Caller": "searcher", **sent} if sent else {}
        others, nones = (
            guarded.ask(method, path.format(name), None if method in ("GET", "HEAD") else body, headers)
            for name in ("adding", "addinh")
        )
        passing = {"date", "server"}
        assert others.status == nones.status
        assert others.status >= 400
        assert others.body.replace(b"adding", b"addinh") == nones.body
        assert {name: value for name, value in others.headers.items() if name not in passing} == {
            name: value for name, value in nones.headers.items() if name not in passing
        }
    assert fake.received == []


def test_the_list_of_objectives_has_what_the_caller_may_use_and_no_count_of_others(guarded: Host) -> None:
    listed = guarded.get("/v1/objectives", Tidegate_Caller="searcher").json
    assert [each["name"] for each in listed["objectives"]] == ["guarded"]
    assert set(listed) == {"objectives", "revision"}
    assert guarded.get("/v1/objectives", Tidegate_Caller="nobody").status == 403


def test_the_authorizers_word_is_the_only_one(
    scripted_server: tuple[Any, Host], fake: FakeTriton, granting: Engine
) -> None:
    slot, host = scripted_server
    said: list[str | None] = ["searcher"]
    directory = MemoryEndpointDirectory({"main": (Endpoint("main", "127.0.0.1", fake.port),)})
    dispatcher = Dispatcher(PooledTransport(), directory)
    slot.app = create_app(engines=MemoryEngineSource(granting), dispatcher=dispatcher, caller_of=lambda _: said[0])
    for path in (ADD, f"{ADDING}/resolve"):
        assert post(host, path, "tests").status == 403
        assert "'searcher'" in post(host, path, "tests").body.decode()
    said[0] = None
    reply = post(host, ADD, "tests")
    assert reply.status == 403
    assert reply.error.endswith("no authorizer gave it")
    said[0] = "home"
    assert post(host, ADD, "nobody").status == 200
    assert post(host, ADD, None, "pair_sum").status == 200
    assert fake.received


def test_new_grants_hold_from_the_next_request_on(
    scripted_server: tuple[Any, Host], fake: FakeTriton, granting: Engine, engine: Engine
) -> None:
    slot, host = scripted_server
    directory = MemoryEndpointDirectory({"main": (Endpoint("main", "127.0.0.1", fake.port),)})
    engines = MemoryEngineSource(engine)
    slot.app = create_app(engines=engines, dispatcher=Dispatcher(PooledTransport(), directory))
    assert post(host, ADD).status == 200
    engines.live = granting
    assert post(host, ADD).status == 403


def test_a_pinned_model_really_answers(scripted_server: tuple[Any, Host], triton: Host, granting: Engine) -> None:
    slot, host = scripted_server
    slot.app = gateway_app(granting, {"main": triton.port, "spare": refusing_port()})
    inputs = {"INPUT0": [list(range(16))], "INPUT1": [[1] * 16]}
    sent = {"Content-Type": "application/json", "Tidegate-Caller": "home"}
    for pin, version in (("pair_sum/1", "1"), ("pair_sum/2", "2"), ("pair_sum", None)):
        reply = host.ask("POST", f"{ADDING}/infer", {"inputs": inputs}, {**sent, "Tidegate-Override": pin})
        assert decision_of(reply) == (200, "newest", "pair_sum", "override")
        assert reply.headers.get("tidegate-model-version") == version
        assert reply.json["outputs"]["OUTPUT0"] == [list(range(1, 17))]
    unknown = host.ask("POST", f"{ADDING}/infer", {"inputs": inputs}, {**sent, "Tidegate-Override": "pair_sum/9"})
    assert (unknown.status, unknown.problem["type"]) == (404, "urn:tidegate:problem:unknown-target")
    metadata = host.get("/v2/models/echoing", Tidegate_Caller="tests", Tidegate_Override="pair_sum")
    assert metadata.json["name"] == "pair_sum"


def test_the_openapi_document_has_the_headers_and_the_refusal(guarded: Host) -> None:
    document = guarded.get("/openapi.json").json
    validate(document)
    open_paths = {"/v1/fleet", "/v2", "/v2/health/live", "/v2/health/ready"}
    for path, item in document["paths"].items():
        for method in {"get", "post"} & item.keys():
            referred = [*item.get("parameters", []), *item[method].get("parameters", [])]
            named = {each["$ref"].removeprefix("#/components/parameters/") for each in referred}
            assert named <= document["components"]["parameters"].keys()
            assert ("403" in item[method]["responses"]) == (path not in open_paths)
            assert ("Tidegate-Caller" in named) == (path not in open_paths)
            one = path.startswith("/v2/models") or (method == "post" and path != "/ofrep/v1/evaluate/flags")
            assert ("Tidegate-Override" in named) == one


PAGE = [block for block in blocks("docs/callers.md") if block.language in ("http", "python")]


@pytest.fixture(scope="module")
def pages_engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    (file,) = (block for block in blocks("docs/callers.md") if block.language == "yaml")
    return compiled(tmp_path_factory.mktemp("page"), ROOT / "routing_rules", file.text)


@pytest.mark.parametrize("block", [block for block in PAGE if block.language == "http"], ids=str)
def test_an_exchange_of_the_page(
    block: Block, scripted_server: tuple[Any, Host], fake: FakeTriton, pages_engine: Engine
) -> None:
    slot, host = scripted_server
    slot.app = gateway_app(pages_engine, {"alpha": fake.port, "beta": fake.port})
    fake.script = sound_model
    asked, _, answered = block.text.partition("\n\n")
    (request, *sent), (status, *received) = asked.splitlines(), answered.splitlines()
    method, path = request.split()
    headers = dict(line.split(": ", 1) for line in sent)
    reply = host.ask(method, path, b"{}" if method == "POST" else None, {"Content-Type": "application/json"} | headers)
    assert reply.status == int(status)
    for line in received:
        if line.startswith("{"):
            assert json.loads(line).items() <= reply.json.items()
        else:
            name, value = line.split(": ", 1)
            assert reply.headers[name.lower()] == value


def test_the_pages_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (block,) = (block for block in PAGE if block.language == "python")
    names: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), names)
    event = {"requestContext": {"authorizer": {"jwt": {"claims": {"client_id": "home-screen"}}}}}
    assert names["caller_of"]({"aws.event": event}) == "home-screen"
    assert names["caller_of"]({"aws.event": {"requestContext": {}}}) is None
