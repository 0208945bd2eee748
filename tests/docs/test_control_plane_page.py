"""The commands of docs/control-plane.md do what the page says, on the example stack."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tidegate.control.rules_archive import validate_archive

from tests.docs.blocks import ROOT, blocks
from tests.support.aws import LocalAws
from tests.support.commands import typed
from tests.support.stack import RunningStack, eventually

PAGE = "docs/control-plane.md"
COMMANDS = [
    line.removeprefix("$ ")
    for block in blocks(PAGE)
    for line in block.text.splitlines()
    if line.startswith("$ ") and not line.startswith("$ tidegate models push ")
]
ARCHIVED = [command for command in COMMANDS if "--archive" in command]
FOLLOWING = [command for command in COMMANDS if command.startswith("tidegate follow")]
READING = [
    command
    for command in COMMANDS
    if not command.startswith("tidegate rollback") and command not in (*ARCHIVED, *FOLLOWING)
]

SILENT = ("tidegate reconcile", "tidegate rules test")
"""They name no revision."""


def run(command: str, stack: RunningStack, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return typed(f"{command} --stack {stack.url}", folder=folder)


def live(stack: RunningStack) -> str:
    revision: str = stack.get("/v1/fleet")["revision"]
    return revision


def test_the_page_has_each_command() -> None:
    found = {command.split()[1] for command in COMMANDS}
    assert found == {"publish", "follow", "rollback", "reconcile", "recover", "history", "status", "rules"}


@pytest.mark.parametrize("command", READING)
def test_a_documented_command_succeeds_on_a_healthy_fleet(command: str, example_stack: RunningStack) -> None:
    # A server may just have been replaced.
    assert eventually(lambda: (fleet := example_stack.get("/v1/fleet"))["healthy"] and fleet["drift"] == [])
    done = run(command, example_stack)
    assert done.returncode == 0, done.stdout + done.stderr
    assert command.startswith(SILENT) or eventually(lambda: live(example_stack)[:12] in done.stdout)


def test_the_documented_commands_pause_following_and_resume_it(example_stack: RunningStack) -> None:
    status, pause, resume = FOLLOWING
    assert run(resume, example_stack).returncode == 0, "whatever other tests did by hand"
    for command, state, code in (
        (status, "following", 0),
        (pause, "paused", 0),
        (status, "paused", 1),
        (resume, "following", 0),
    ):
        done = run(command, example_stack)
        assert done.returncode == code, done.stdout + done.stderr
        assert eventually(lambda state=state: example_stack.get("/v1/fleet")["follow"]["state"] == state)


def test_the_documented_rollback_takes_a_publish_back(example_stack: RunningStack, tmp_path: Path) -> None:
    (command,) = (each for each in COMMANDS if each.startswith("tidegate rollback"))
    before = example_stack.get("/v1/fleet")["revision"]
    rules = shutil.copytree(ROOT / "routing_rules", tmp_path / "rules")
    page = rules / "objectives" / "title_ranking.yaml"
    page.write_text(page.read_text().replace("summary: ", "summary: Changed. ", 1))
    assert run(f"tidegate publish --rules {rules}", example_stack).returncode == 0
    done = run(f"{command} --json", example_stack)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["revision"] == before
    assert eventually(lambda: example_stack.get("/v1/fleet")["revision"] == before)


def test_the_documented_publish_of_an_archive_publishes_what_was_validated(
    example_stack: RunningStack, tmp_path: Path
) -> None:
    (command,) = ARCHIVED
    shutil.make_archive(str(tmp_path / "homepage"), "zip", ROOT / "routing_rules")
    data, control = (tmp_path / "homepage.zip").read_bytes(), example_stack.get("/v1/fleet")["control"]
    s3 = LocalAws(control["endpoint_url"].rstrip("/"), control["bucket"], control["registry_table"]).s3()
    s3.put_object(Bucket=control["bucket"], Key="rules/homepage.zip", Body=data)
    verdict = json.dumps(validate_archive(data, at=0).as_dict())
    s3.put_object(Bucket=control["bucket"], Key="verdicts/homepage.json", Body=verdict)
    done = run(command, example_stack, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert eventually(lambda: live(example_stack)[:12] in done.stdout)


def test_every_key_of_the_status_is_documented(example_stack: RunningStack) -> None:
    page = (ROOT / "docs" / "json.md").read_text(encoding="utf-8").partition("\n## `status`")[2].partition("\n## ")[0]
    fleet = example_stack.get("/v1/fleet")
    shard = fleet["shards"][0]
    keys = {*fleet, *shard, *shard["endpoints"][0], *shard["endpoints"][0]["models"][0], *fleet["revisions"][0]}
    missing = [key for key in keys if not any(f"`{key}{end}" in page for end in ("`", "[", "."))]
    assert missing == []
