"""docs/checking.md: what the page shows is what the commands print, and the hooks work."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.blocks import ROOT, blocks
from tests.support.commands import typed

PAGE = blocks("docs/checking.md")
FILES = {
    block.text.splitlines()[0].removeprefix("# "): block.text
    for block in PAGE
    if block.language == "yaml" and block.text.startswith("# ")
}
CHECK, EXPLAIN = (block.text.removeprefix("$ ").strip() for block in PAGE if block.language == "console")
(OUTPUT,) = (block.text for block in PAGE if block.language == "text")
(REPORT,) = (json.loads(block.text) for block in PAGE if block.language == "json")
(PYTHON,) = (block for block in PAGE if block.language == "python")
HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
USED = next(yaml.safe_load(block.text) for block in PAGE if block.text.startswith("repos:"))["repos"][0]["hooks"]


def without_revision(text: str) -> str:
    return re.sub(r"revision [0-9a-f]{12}", "revision", text)


@pytest.fixture(name="example")
def example_rules(tmp_path: Path) -> Path:
    (tmp_path / "objectives").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_example_gives_the_output_that_is_shown(example: Path) -> None:
    done = typed(CHECK, folder=example)
    assert done.returncode == 1
    assert without_revision(done.stdout) == without_revision(OUTPUT)


def test_the_context_that_is_shown_is_refused(example: Path) -> None:
    context = json.dumps(REPORT["objectives"][0]["unserved"]["context"])
    assert context in OUTPUT
    assert context in EXPLAIN
    done = typed(EXPLAIN, folder=example)
    assert done.returncode == 1
    for rule in ("teenagers", "big-screen", "tv-2026", "hand-held", "spring"):
        assert rule in done.stdout


def test_the_report_that_is_shown_is_the_examples(example: Path) -> None:
    report = json.loads(typed(f"{CHECK} --json", folder=example).stdout)
    assert list(report) == list(REPORT)
    assert [report[key] for key in ("ok", "at", "steps", "objectives")] == [
        REPORT[key] for key in ("ok", "at", "steps", "objectives")
    ]
    (shown,) = REPORT["findings"]
    (told,) = [each for each in report["findings"] if each["kind"] == shown["kind"]]
    assert list(told) == list(shown)
    for key, value in shown.items():
        assert re.fullmatch(re.escape(str(value)).replace("…", ".*"), str(told[key])), key


def test_the_pages_python_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(PYTHON.text, str(PYTHON), "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == ""


def command_of(hook: dict[str, Any], used: dict[str, Any]) -> str:
    """What pre-commit runs: the entry, then the arguments that are set where the hook is used, else its own."""
    assert hook["pass_filenames"] is False
    return shlex.join([*shlex.split(hook["entry"]), *used.get("args", hook["args"])])


@pytest.mark.parametrize("used", USED, ids=lambda used: used["id"])
def test_a_hook_keeps_broken_rules_out_of_a_commit(used: dict[str, Any], tmp_path: Path) -> None:
    hook = HOOKS[used["id"]]
    for name in ("routing_rules/fleet.yaml", "routing_rules/objectives/a.yaml", "routing_rules/cases/a.yml"):
        assert re.search(hook["files"], name)
    assert not re.search(hook["files"], "docs/fleet.yaml")
    assert (
        typed(
            "git init -q . && git config user.name a && git config user.email a@example.org", folder=tmp_path
        ).returncode
        == 0
    )
    script = tmp_path / ".git/hooks/pre-commit"
    script.write_text(f"#!/bin/sh\nexec {command_of(hook, used)}\n")
    script.chmod(0o755)
    assert (
        typed(f"cp -r {ROOT / 'routing_rules'} . && git add . && git commit -qm sound", folder=tmp_path).returncode == 0
    )
    cases = tmp_path / "routing_rules/cases/title_ranking.yaml"
    cases.write_text(cases.read_text() + "- {name: broken, context: {}, expect: {rule: nowhere}}\n")
    objective = tmp_path / "routing_rules/objectives/title_ranking.yaml"
    objective.write_text(objective.read_text() + "  - {id: below, serve: title_ranking_popularity}\n")
    refused = typed("git commit -qam broken", folder=tmp_path)
    assert refused.returncode == 1
    assert "title_ranking.yaml" in refused.stdout + refused.stderr
    assert typed("git log --format=%s", folder=tmp_path).stdout == "sound\n"


def test_every_hook_is_shown() -> None:
    assert [used["id"] for used in USED] == list(HOOKS)
