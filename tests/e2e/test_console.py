"""The console's backend over HTTP, on a running stack with real model servers."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules

RULES = """[
  {id: abroad, when: {country: [US, CA]}, split: {versioned/2: 90, versioned/3: 10}},
  {id: past, when: {country: XX}, active: {until: "2020-01-01T00:00:00Z"}, serve: versioned/1},
  {id: rest, serve: versioned/3}]"""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    stack: RunningStack,
    path: str,
    body: Any = None,
    token: str | None = "",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask as an operator does; `token` None: without one."""
    sent = {} if token is None else {"Authorization": f"Bearer {token or stack.known.operator_token}"}
    data = None
    if body is not None:
        data, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
    request = urllib.request.Request(stack.url + path, data=data, headers={**sent, **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return Answer(response.status, _lower(response.headers), response.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, _lower(error.headers), error.read())


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    root = tmp_path_factory.mktemp("stack")
    models = make_repository(root / "models", "versioned")
    rules = write_rules(root / "rules", {"a": 2}, {"versioned": ["a"]}, main=RULES)
    with running_stack(rules, models, root / "errors") as running:
        yield running


def test_everything_of_operators_needs_their_token(stack: RunningStack) -> None:
    for path in ("/v1/overview", "/v1/events", "/metrics"):
        for token in (None, "wrong"):
            answer = ask(stack, path, token=token)
            assert answer.status == 401, path
            assert answer.json["type"] == "urn:tidegate:problem:operators-only"
            assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_overview_shows_the_whole_stack(stack: RunningStack) -> None:
    answer = ask(stack, "/v1/overview")
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json
    assert found["stack"]["writes"] is False
    assert found["live"]["flip"] == 1
    assert found["live"]["why"] == "the stack was started"
    assert found["publishing"] == []
    assert [each["name"] for each in found["objectives"]] == ["main"]
    (shard,) = found["shards"]
    assert {key: shard[key] for key in ("name", "endpoints", "ready", "problem")} == {
        "name": "a", "endpoints": 2, "ready": 2, "problem": None,
    }  # fmt: skip
    ended = [each for each in found["attention"] if each["kind"] == "window-expiring"]
    assert [(each["severity"], each["page"]) for each in ended] == [("info", "/console/rules/main")]


def test_a_killed_server_is_in_the_overview_within_seconds(stack: RunningStack) -> None:
    def shard() -> Any:
        return ask(stack, "/v1/overview").json["shards"][0]

    assert eventually(lambda: shard()["ready"] == 2)
    victim = stack.servers()[0]
    os.killpg(victim.pid, signal.SIGKILL)
    seen = eventually(lambda: (found := shard())["ready"] < 2 and found, 60, 0.2)
    assert seen["problem"].startswith("1 of 2 servers is not ready")
    down = [each for each in ask(stack, "/v1/overview").json["attention"] if each["kind"] == "endpoint-down"]
    assert down or shard()["ready"] == 2
    assert eventually(lambda: shard()["ready"] == 2), "it was replaced"
