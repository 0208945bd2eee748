"""The example of docs/diff.md gives what the page shows, and `--json` has the documented keys."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks
from tests.support.commands import typed

PAGE = blocks("docs/diff.md")
FILES = {block.text.splitlines()[0].removeprefix("# "): block.text for block in PAGE if block.language == "yaml"}
COMMAND = next(block.text for block in PAGE if block.language == "console").removeprefix("$ ").strip()
OUTPUT = next(block.text for block in PAGE if block.language == "text")
COMMIT = "git init -q . && git add . && git -c user.name=a -c user.email=a@example.com commit -q -m Rules"


@pytest.fixture(name="repository")
def changed_repository(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert typed(COMMIT, folder=tmp_path).returncode == 0
    ranking = tmp_path / "routing_rules/objectives/ranking.yaml"
    text = ranking.read_text(encoding="utf-8")
    raised = text.replace("ranking_v1: 95, ranking_v2: 5", "ranking_v1: 80, ranking_v2: 20")
    ranking.write_text(raised, encoding="utf-8")
    return tmp_path


def without_revisions(text: str) -> list[str]:
    return [re.sub(r"\b[0-9a-f]{12}\b", "…", line.rstrip()) for line in text.splitlines()]


def test_the_example_gives_what_the_page_shows(repository: Path) -> None:
    done = typed(COMMAND, folder=repository)
    assert (done.returncode, done.stderr) == (1, "")
    assert without_revisions(done.stdout) == without_revisions(OUTPUT)
    assert "sankey-beta" in (repository / "moves.md").read_text(encoding="utf-8")


def test_the_keys_of_the_json_are_documented(repository: Path) -> None:
    told = json.loads(typed(f"{COMMAND} --json", folder=repository).stdout)
    page = (ROOT / "docs/diff.md").read_text(encoding="utf-8")
    keys = {*told, *told["objectives"][0], "side", "findings"}
    assert not [key for key in sorted(keys) if f"`{key}`" not in page]


def test_exit_codes(repository: Path) -> None:
    assert typed("tidegate rules diff routing_rules routing_rules", folder=repository).returncode == 0
    assert typed("tidegate rules diff HEAD:nowhere routing_rules", folder=repository).returncode == 2
    (repository / "routing_rules/fleet.yaml").write_text("shards: 3\n", encoding="utf-8")
    broken = typed("tidegate rules diff HEAD:routing_rules routing_rules", folder=repository)
    assert broken.returncode == 1
    assert broken.stderr.startswith("NEW (routing_rules): ")
