"""The commands of docs/facts.md do what the page says, one after the other, on the example stack."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks
from tests.support.aws import local_server
from tests.support.commands import typed
from tests.support.stack import RunningStack, eventually

PAGE = blocks("docs/facts.md")
COMMANDS = [
    line.removeprefix("$ ")
    for block in PAGE
    if block.language == "console"
    for line in block.text.splitlines()
    if line.startswith("$ ")
]


def run(command: str, folder: Path) -> str:
    done = typed(command, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the page's reader is: beside the models, with the page's file."""
    (line,) = (block.text for block in PAGE if block.language == "json")
    (tmp_path / "member_history.jsonl").write_text(line)
    (tmp_path / "triton_models").symlink_to(ROOT / "triton_models")
    return tmp_path


def test_a_seeded_member_is_answered_by_the_new_history(example_stack: RunningStack, folder: Path) -> None:
    seed, ask, elsewhere = COMMANDS
    address = "http://127.0.0.1:8080"

    def titles(command: str) -> list[int]:
        answer = json.loads(run(command.replace(address, example_stack.url), folder))
        assert "outputs" in answer, answer
        found: list[int] = answer["outputs"]["TITLE_IDS"][0]
        return found

    of_nobody = titles(ask.replace("visitor-7", "visitor-8"))
    assert run(seed.replace(address, example_stack.url), folder) == "member_history: 1 facts in table tidegate-facts\n"
    # A look-up that takes over 50 ms, as on a busy machine it may, is answered without a history; the next one is not.
    assert eventually(lambda: titles(ask) != of_nobody)
    with local_server() as url:
        printed = json.loads(run(elsewhere.replace("http://127.0.0.1:5000", url), folder))
    assert printed == {"format_version": 1, "table": "facts", "facts": {"member_history": 943}}


def test_the_pages_defaults_are_the_models() -> None:
    sys.path.insert(0, str(ROOT / "triton_models/title_history/1"))
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        import facts
        import facts_config
    finally:
        sys.path.pop(0)
        sys.dont_write_bytecode = before
    config = facts_config.FactsConfig("f", "t")
    page = " ".join((ROOT / "docs/facts.md").read_text("utf-8").split())
    for words in (
        f"`facts_cache_ttl_s` ({config.cache_ttl_s})",
        f"`facts_cache_size` ({config.cache_size:,}".replace(",", " ") + ")",
        f"`facts_timeout_ms` ({config.timeout_ms})",
        f"{facts.MAX_KEYS} keys per call",
        f"none is tried for {facts.PAUSE_S:g} s",
    ):
        assert words in page, words
    assert (facts.FAILURES_TO_PAUSE, facts_config.CONNECTIONS) == (3, 4)
