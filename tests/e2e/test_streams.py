"""A decoupled model on a running stack: published, proved by its golden request, and asked for streams."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.stack import ROOT, RunningStack, eventually, make_repository, running_stack, write_rules

STREAM = "/v2/models/stories/generate_stream"
RULES = """[
  {id: long, when: {country: NL}, serve: storyteller, parameters: {words: 12}},
  {id: default, serve: storyteller}
]
responses: stream"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    root = tmp_path_factory.mktemp("streams")
    models = make_repository(root / "models", "storyteller")
    rules = write_rules(root / "rules", {"a": 1}, {"storyteller": ["a"]}, stories=RULES)
    variables = {"TIDEGATE_REQUIRE_SAMPLES": "true"}
    with running_stack(rules, models, root / "errors", variables=variables) as running:
        yield running


@contextlib.contextmanager
def opened(stack: RunningStack, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(urlsplit(stack.url).netloc, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", STREAM, json.dumps(body))
        yield connection.getresponse()


def test_smoke_asks_a_decoupled_model_its_golden_requests(tmp_path: Path) -> None:
    models = make_repository(tmp_path, "storyteller")
    sample = json.loads((models / "storyteller/samples/king.json").read_text())
    sample["outputs"]["WORD"][2] = "dirty"
    (models / "storyteller/samples/wrong.json").write_text(json.dumps(sample))
    command = [sys.executable, "-m", "tidegate.cli", "models", "smoke", str(models), "storyteller", "--json"]
    environment = os.environ | {"TIDEGATE_CACHE_DIR": str(ROOT / ".cache" / "tidegate")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    report = json.loads(done.stdout)
    assert {(each["kind"], each["file"]) for each in report["findings"]} == {
        ("decoupled", "storyteller/config.pbtxt"),
        ("output-unexpected", "storyteller/samples/wrong.json"),
    }
    assert [each["requests"] for each in report["models"]] == [2]


def words(text: str) -> list[str]:
    return [json.loads(line.removeprefix("data: "))["WORD"] for line in text.splitlines() if line]


def test_curl_reads_a_stream(stack: RunningStack) -> None:
    body = json.dumps({"PROMPT": "the king", "parameters": {"words": 4}})
    done = subprocess.run(["curl", "-sNf", stack.url + STREAM, "-d", body], capture_output=True, text=True, check=True)
    assert words(done.stdout) == ["was", "in", "the", "queen"]


def test_a_rules_parameters_make_the_story_longer(stack: RunningStack) -> None:
    with opened(stack, {"PROMPT": "the king", "parameters": {"country": "NL"}}) as response:
        assert response.headers["tidegate-rule"] == "long"
        assert len(words(response.read().decode())) == 12


def test_plain_json_streams_too(stack: RunningStack) -> None:
    body = {"context": {}, "inputs": {"PROMPT": "the king"}}
    request = ["curl", "-sNf", f"{stack.url}/v1/objectives/stories/stream", "-H", "content-type: application/json"]
    done = subprocess.run([*request, "-d", json.dumps(body)], capture_output=True, text=True, check=True)
    *told, end, _ = done.stdout.split("\n\n")
    assert json.loads(told[0].removeprefix("data: ")) == {"outputs": {"WORD": "was"}}
    assert end.startswith("event: end\ndata: ")
    status, refused = stack.post("/v1/objectives/stories/infer", body)
    assert (status, refused["type"]) == (501, "urn:tidegate:problem:streams-only")


def test_a_caller_that_leaves_frees_the_model(stack: RunningStack) -> None:
    """The model's one instance would be busy for minutes."""
    with opened(stack, {"PROMPT": "the", "parameters": {"words": 500, "pause_s": 0.5}}) as response:
        assert response.readline()
    with opened(stack, {"PROMPT": "the king"}) as response:
        assert len(words(response.read().decode())) == 5


def test_a_server_that_is_killed_within_a_stream_leaves_it_incomplete(stack: RunningStack) -> None:
    with opened(stack, {"PROMPT": "the", "parameters": {"words": 500, "pause_s": 0.1}}) as response:
        first = response.readline()
        (server,) = stack.servers()
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
    *told, error = [line for line in (first + caught.value.partial).split(b"\n") if line]
    assert len(told) >= 1
    assert list(json.loads(error.removeprefix(b"data: "))) == ["error"]

    def answers() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException), opened(stack, {"PROMPT": "the king"}) as again:
            return again.status == 200 and len(words(again.read().decode())) == 5
        return False

    assert eventually(answers)
