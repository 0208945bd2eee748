"""docs/operations.md: every command is run here, or known to be one that needs an account; every link and table is true."""

from __future__ import annotations

import contextlib
import re
import subprocess
from decimal import Decimal

import pytest
from click.testing import CliRunner
from tidegate.aws.shard_names import label_of
from tidegate.cli import main

from infra.__main__ import main as infra
from tests.docs.blocks import ROOT, blocks
from tests.infra.conftest import Made, project

__all__ = ["project"]

PAGE = "docs/operations.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ ").strip()
    for line in TEXT.splitlines()
    if line.strip().startswith("$ ")
    for line in (line.strip(),)
]
TIDEGATE = [command for command in COMMANDS if command.startswith("tidegate ")]
MAKE = [command for command in COMMANDS if command.startswith("make ")]
NEEDS_AN_ACCOUNT = ("export ", "eval ", "aws ", "docker ", "curl ", "(cd ")
OF_THE_SHELL = {"USER", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
"""Variables that are there before the page sets any; the credentials once `aws configure export-credentials` was run."""


def test_every_command_is_of_a_known_kind() -> None:
    rest = [command for command in COMMANDS if command not in TIDEGATE and command not in MAKE]
    assert all(command.startswith(NEEDS_AN_ACCOUNT) for command in rest), rest
    assert TIDEGATE
    assert MAKE


def test_every_variable_of_a_command_was_set_by_one_before() -> None:
    known = set(OF_THE_SHELL)
    for command in COMMANDS:
        unknown = set(re.findall(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", command)) - known
        assert not unknown, command
        if command.startswith("export "):
            known |= set(re.findall(r"(?:^export|[\w\")]) ([A-Z_]+)=", command))


def test_every_output_that_a_command_reads_is_one_of_the_stacks(project: Made) -> None:
    read = set(re.findall(r"jq -r \.(\w+)\.(\w+) build/infra/dev\.outputs\.json", TEXT))
    assert ("Storage", "BucketName") in read
    for stack, output in read:
        assert output in project.assembly.templates[stack]["Outputs"], (stack, output)


def test_a_label_of_the_page_is_the_shards() -> None:
    pairs = re.findall(r"\(`(\w+)` is `([a-z0-9-]+)`\)", TEXT)
    assert pairs
    assert all(label_of(name) == label for name, label in pairs)


@pytest.mark.parametrize("command", sorted(set(TIDEGATE)))
def test_a_tidegate_command_has_the_options_that_the_page_gives_it(command: str) -> None:
    words = [word for word in command.split()[1:] if not word.startswith("'")]
    options = [word for word in words if word.startswith("--")]
    names = words[: next((at for at, word in enumerate(words) if word.startswith("-")), len(words))]
    # An argument, such as a folder, is no command.
    group, *more = names
    told = CliRunner().invoke(main, [group, *(more[:1] if group in ("facts", "models") else []), "--help"])
    assert told.exit_code == 0, told.output
    for option in options:
        assert option in told.output, option


@pytest.mark.parametrize("command", sorted(set(MAKE)))
def test_a_make_command_would_run_what_the_page_says(command: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{command} --dry-run"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    target = command.split()[1]
    verb = {
        "infra-check": "check",
        "infra": "deploy",
        "infra-amis": "amis",
        "infra-bootstrap": "bootstrap",
        "infra-destroy": "destroy",
        "images": "images",
    }
    assert f"-m infra {verb[target]}" in done.stdout
    for setting in re.findall(r"(?:STAGE|RULES|AGAINST)=(\S+)", command):
        assert setting in done.stdout
    assert verb[target] in infra.commands


def test_the_yaml_of_the_page_is_what_fleet_yaml_and_settings_may_have() -> None:
    import yaml
    from tidegate.language.documents import ShardSpec

    from infra.setting_conflicts import conflicts
    from infra.settings import Settings

    documents = [yaml.safe_load(each) for each in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
    fleets = [each for each in documents if "shards" in each]
    assert [ShardSpec.model_validate(spec).max_replicas for each in fleets for spec in each["shards"].values()] == [6]
    stages = [each for each in documents if "shards" not in each]
    assert stages
    for each in stages:
        assert conflicts(Settings.model_validate(each)) == []


def test_the_costs_are_those_of_the_templates() -> None:
    with contextlib.chdir(ROOT):
        done = CliRunner().invoke(infra, ["costs"], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() in TEXT, "run `python -m infra costs` and put its tables between the marks"


def test_the_costs_add_up() -> None:
    rows = [
        [cell.strip(" *") for cell in line.strip("|").split("|")]
        for line in TEXT.splitlines()
        if re.search(r"\| \**[\d,]+\.\d\d\** \|$", line)
    ]
    *lines, total = [[Decimal(cell.replace(",", "")) for cell in row[2:]] for row in rows if len(row) == 5]
    assert len(lines) > 15
    assert [sum(column) for column in zip(*lines, strict=True)] == total


def test_every_link_to_a_heading_is_one() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in TEXT.splitlines()
        if line.startswith("#")
    }
    linked = set(re.findall(r"\]\(#([a-z0-9-]+)\)", TEXT))
    for file in sorted((ROOT / "infra").rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        linked |= set(re.findall(r"operations\.md#([a-z0-9-]+)", source))
        linked |= set(re.findall(r"_runbook\([\"']([a-z0-9-]+)[\"']\)", source))
    assert {"push-the-images", "a-shard-is-down"} <= linked
    assert linked <= headings


def test_the_page_is_among_those_whose_blocks_are_read() -> None:
    assert blocks(PAGE)
