"""Every command and every snippet of the README and of docs/gateway.md does what the page says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests.docs.blocks import ROOT, Block, blocks
from tests.support.parts import PARTS, need
from tests.support.stack import RunningStack

PAGES = ("README.md", "docs/gateway.md")
BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [
    (block, line.removeprefix("$ "))
    for block in BLOCKS
    if block.language == "console"
    for line in block.text.splitlines()
    if line.startswith("$ ")
]
OFFLINE = [command for _, command in COMMANDS if command.startswith("tidegate ")]
REQUESTS = [(block, command) for block, command in COMMANDS if command.startswith("curl ")]
MAKE = [command.partition("#")[0].strip() for _, command in COMMANDS if command.startswith("make ")]
PYTHON = [block for block in BLOCKS if block.language == "python"]
(CLIENT,) = (block for block in BLOCKS if block.language == "sh" and "openapi-python-client" in block.text)


def run(command: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def test_every_documented_command_is_of_a_kind_that_is_run_here() -> None:
    assert len(OFFLINE) + len(REQUESTS) + len(MAKE) == len(COMMANDS)
    assert MAKE == ["make up", "make demo"]  # `make up` is what `example_stack` runs


@pytest.mark.parametrize("command", OFFLINE)
def test_a_documented_tidegate_command_succeeds(command: str) -> None:
    need("onnx", "example models")
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def shown_output(block: Block, command: str) -> list[str]:
    """The pieces of what a block shows below a command; `…` is what is left out between them."""
    below = block.text.partition(f"$ {command}\n")[2].partition("$ ")[0]
    return [text for piece in below.replace("\n", "…").split("…") if (text := piece.strip())]


@pytest.mark.parametrize(("block", "command"), REQUESTS, ids=[str(block) for block, _ in REQUESTS])
def test_a_documented_request_is_answered_as_shown(block: Block, command: str, example_stack: RunningStack) -> None:
    done = run(command.replace("http://127.0.0.1:8080", example_stack.url) + " --fail-with-body")
    assert done.returncode == 0, done.stdout
    assert '"outputs"' in done.stdout
    assert '"decision"' in done.stdout
    left = done.stdout
    for piece in shown_output(block, command):
        _, found, left = left.partition(piece)
        assert found, piece


def test_the_first_commands_of_the_readme_end_with_an_answer() -> None:
    first = next(block for block in blocks("README.md") if block.language == "console")
    commands = [line for line in first.text.splitlines() if line.startswith("$ ")]
    assert len(commands) <= 10
    assert shown_output(first, commands[-1].removeprefix("$ ")), "and the answer is shown"


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_documented_client_is_answered(block: Block, example_stack: RunningStack) -> None:
    program = block.text.replace("127.0.0.1:8080", example_stack.url.removeprefix("http://"))
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "(19" in done.stdout, "titles with their years are printed"


def test_the_documented_client_is_generated_and_answered(example_stack: RunningStack, tmp_path: Path) -> None:
    need("openapi-python-client")
    path = f"{PARTS['openapi-python-client'].path.parent}:{os.environ['PATH']}"
    script = CLIENT.text.replace("http://127.0.0.1:8080", example_stack.url)
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rule, _, title = done.stdout.splitlines()[-1].partition(" ")
    assert rule == "default"
    assert "(19" in title
    assert (tmp_path / "title_models.py").exists()


@pytest.mark.parametrize("objective", sorted(path.stem for path in (ROOT / "routing_rules/objectives").glob("*.yaml")))
def test_an_example_objective_answers_as_its_document_says(objective: str, example_stack: RunningStack) -> None:
    need("schemathesis")
    import schemathesis
    from schemathesis.specs.openapi import checks

    # What may follow from valid values: lists that are ragged, numbers that are no FP32.
    left_out = [checks.positive_data_acceptance]
    document = example_stack.get(f"/openapi.json?objective={objective}")
    assert document["components"]["schemas"]["Inputs"]["required"]
    statuses: Counter[int] = Counter()
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        if operation.path.endswith("/stream"):
            continue

        @seed(1)
        @given(operation.as_strategy())
        @settings(max_examples=10, database=None, deadline=None, suppress_health_check=list(HealthCheck))
        def each(case: schemathesis.Case) -> None:
            # A time-out of a microsecond passes, and grants and marks are refused.
            case.headers = {}
            reply = case.call(base_url=example_stack.url)
            statuses[reply.status_code] += 1
            case.validate_response(reply, excluded_checks=left_out)

        each()
    assert statuses[200] >= 15, statuses


def test_make_demo_shows_every_kind_of_rule_and_survives_a_killed_shard() -> None:
    done = run("make demo", timeout_s=600)
    assert done.returncode == 0, done.stdout + done.stderr
    promised = (
        "no request can reach this rule",
        "published",
        "Rolled back",
        "experiment",
        "split",
        "fallback",
        "title_search_semantic",
        "title_playlist",
    )
    for shown in (*promised, "purchase_propensity_gbdt", "@ beta"):
        assert shown in " ".join(done.stdout.split()), shown
    assert "Traceback" not in done.stderr
    # Make names its directory where another make runs the tests.
    lines = [line for line in done.stdout.splitlines() if not line.startswith("make[")]
    assert lines[-1].startswith("Stopped")
    assert 24 <= len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_the_readmes_rules_are_those_of_the_file_that_they_name() -> None:
    (block,) = (block for block in blocks("README.md") if block.language == "yaml")
    comment, _, text = block.text.partition("\n")
    assert text in (ROOT / comment.removeprefix("# ")).read_text(encoding="utf-8")


def test_make_help_lists_every_target() -> None:
    done = run("make help")
    assert done.returncode == 0
    for target in ("demo", "test", "up", "bench", "lint", "models", "env"):
        assert f"make {target} " in done.stdout
