"""A context value decides the same as JSON, as a parameter's text and as a header; an empty text is not a key."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.web.conftest import Host, Reply

INFER, RESOLVE = "/v2/models/measuring/infer", "/v1/objectives/measuring/resolve"
HEADERS = {"member_id": "X-Member", "account": "X-Account", "amount": "X-Amount", "tags": "X-Tags"}
REFUSED = "(refused)"

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.tuples(st.integers(-(10**20), 10**20), st.integers(0, 9999), st.integers(-400, 400)).map(
        lambda each: f"{each[0]}.{each[1]}e{each[2]}"
    ),
)


def outcome(reply: Reply, rule: str | None) -> str:
    assert reply.status in (200, 400), reply.body
    return str(rule) if reply.status == 200 else REFUSED


def ways(host: Host, name: str, literal: str) -> dict[str, str]:
    """Return the rule for a number, as written in JSON, for each way to send it."""
    context = f'{{"{name}": {literal}}}'
    body = f'{{"context": {context}}}'
    resolved = host.ask("POST", RESOLVE, body, {"Content-Type": "application/json"})
    asked = {
        "header": host.ask("POST", INFER, b"{}", {HEADERS[name]: literal}),
        "context": host.ask("POST", INFER, b"{}", {"Tidegate-Context": context}),
        "parameter": host.ask("POST", INFER, f'{{"parameters": {context}}}'),
        "text": host.ask("POST", INFER, {"parameters": {name: literal}}),
    }
    found = {way: outcome(reply, reply.headers.get("tidegate-rule")) for way, reply in asked.items()}
    document = resolved.json
    return found | {"body": outcome(resolved, document.get("decision", {}).get("rule"))}


@pytest.mark.parametrize(
    ("name", "literal", "rule"),
    [
        ("account", "9223372036854775807", "odd-account"),
        ("account", "9223372036854775806", "split"),
        ("account", "18446744073709551615", "huge-account"),
        ("account", "9" * 400, "huge-account"),
        ("account", "1e3", REFUSED),
        ("account", "1.0", REFUSED),
        ("amount", "9007199254740993", "odd-amount"),
        ("amount", "9007199254740992", "even-amount"),
        ("amount", "9007199254740993.0", "even-amount"),
        ("amount", "9007199254740994", "huge-amount"),
        ("amount", "-0", "zero"),
        ("amount", "-0.0", "zero"),
        ("amount", "0e0", "zero"),
        ("amount", "1e-400", "zero"),
        ("amount", "1e3", "thousand"),
        ("amount", "1E+0003", "thousand"),
        ("amount", "1000", "thousand"),
        ("amount", "1e400", REFUSED),
        ("amount", "9" * 400, REFUSED),
    ],
)
def test_a_number_decides_alike_however_it_comes(scripted: Host, name: str, literal: str, rule: str) -> None:
    assert ways(scripted, name, literal) == dict.fromkeys(("header", "context", "parameter", "text", "body"), rule)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(literal=NUMBERS, name=st.sampled_from(["account", "amount"]))
def test_any_number_decides_alike_however_it_comes(scripted: Host, literal: str, name: str) -> None:
    assert len(set(ways(scripted, name, literal).values())) == 1


@pytest.mark.parametrize("text", ["alpha,beta", "alpha, beta", ",alpha,,beta,", " , alpha ,\t,beta , "])
def test_empty_elements_of_a_list_are_ignored(scripted: Host, text: str) -> None:
    header = scripted.ask("POST", INFER, b"{}", {"X-Tags": text})
    parameter = scripted.ask("POST", INFER, {"parameters": {"tags": text}})
    repeated = scripted.ask("POST", INFER, b"{}", [("X-Tags", each) for each in text.split(",")])
    rules = [reply.headers["tidegate-rule"] for reply in (header, parameter, repeated)]
    assert rules == ["tagged"] * 3


@pytest.mark.parametrize("text", ["", " ", ",", " , ,"])
def test_a_list_of_nothing_is_the_empty_set(scripted: Host, text: str) -> None:
    assert scripted.ask("POST", INFER, b"{}", {"X-Tags": text}).headers["tidegate-rule"] == "split"
    assert scripted.ask("POST", INFER, {"parameters": {"tags": text}}).headers["tidegate-rule"] == "split"


def test_an_empty_key_is_none(scripted: Host) -> None:
    def sent(context: dict[str, Any]) -> tuple[str, str]:
        reply = scripted.ask("POST", INFER, b"{}", {"Tidegate-Context": json.dumps(context)})
        return reply.headers["tidegate-reason"], reply.headers["tidegate-variant"]

    assert sent({"member_id": ""}) == sent({}) == ("no_sticky_key", "echo")
    assert scripted.ask("POST", INFER, b"{}", {"X-Member": ""}).headers["tidegate-reason"] == "no_sticky_key"
    for account in range(20):
        assert sent({"member_id": "", "account": account}) == sent({"account": account})
        assert sent({"account": account})[0] == "split"
