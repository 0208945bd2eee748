"""A file that git ignores is missing in every clone: the check of models says so."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tidegate.cli import main
from tidegate.models.lint.strays import check_ignored

from tests.models.lint.base import write_base
from tests.support.model_folders import write_model


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text("*.bin\n__pycache__/\n/models/picker/facts/\n")
    models = write_base(tmp_path / "models")
    write_model(models / "picker", {"1/weights.bin": b"mine", "facts/a.jsonl": b""})
    return models


def check(repository: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", "check", str(repository), *arguments], catch_exceptions=False)


def test_a_file_that_git_ignores_is_named(repository: Path) -> None:
    write_model(repository / "picker", {"1/__pycache__/model.pyc": b""})
    result = check(repository, "picker")
    assert result.exit_code == 1
    assert "picker/1/weights.bin: warning[artefact-ignored]: " in result.stdout
    assert result.stdout.count("artefact-ignored") == 1, "neither bytecode nor facts are pushed"
    assert "artefact-ignored" not in check(repository, "scorer").stdout


def test_a_file_that_git_has_all_the_same_is_fine(repository: Path) -> None:
    subprocess.run(["git", "-C", repository, "add", "--force", "picker/1/weights.bin"], check=True)
    assert check(repository, "picker").exit_code == 0


def test_a_file_that_a_build_makes_is_fine_until_it_is_changed(repository: Path) -> None:
    digest = hashlib.sha256(b"mine").hexdigest()
    (repository / ".artefacts.json").write_text(json.dumps({"artefacts": {"picker/1/weights.bin": digest}}))
    assert check_ignored(repository, ["picker"]) == ()
    (repository / "picker/1/weights.bin").write_bytes(b"retrained")
    assert [finding.file for finding in check_ignored(repository, ["picker"])] == ["picker/1/weights.bin"]


@pytest.mark.parametrize("stamp", ["", "[]", '{"artefacts": []}', '{"artefacts": {"picker/1/weights.bin": 1}}'])
def test_a_list_of_a_build_that_cannot_be_read_lists_nothing(repository: Path, stamp: str) -> None:
    (repository / ".artefacts.json").write_text(stamp)
    assert len(check_ignored(repository, ["picker"])) == 1


def test_it_can_be_accepted(repository: Path) -> None:
    (repository / "accepted.yaml").write_text(
        "accepted:\n  - {model: picker, kind: artefact-ignored, reason: It is built by its own pipeline.}\n"
    )
    result = check(repository, "picker")
    assert (result.exit_code, "accepted" in result.stdout) == (0, True)


def test_where_there_is_no_git_or_no_work_tree_nothing_is_said(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_ignored(repository, ["picker"]) == ()
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr("tidegate.models.lint.strays.GIT_TIMEOUT_S", 0.2)
    assert check_ignored(repository, ["picker"]) == ()
    slow.write_text("#!/bin/sh\necho fatal: not a git repository >&2; exit 128\n")
    assert check_ignored(repository, ["picker"]) == ()


def test_many_warnings_of_a_kind_are_counted(repository: Path) -> None:
    for number in range(8):
        (repository / "picker/1" / f"{number}.bin").write_bytes(b"")
    (repository / "picker/1/model.py").unlink()
    lines = check(repository).stdout.splitlines()
    assert ": error[" in lines[0], "errors come first"
    assert sum("warning[artefact-ignored]: " in line for line in lines) == 5
    assert any("4 more of warning[artefact-ignored]" in line for line in lines)
    assert sum("warning[artefact-ignored]: " in line for line in check(repository, "-v").stdout.splitlines()) == 9
