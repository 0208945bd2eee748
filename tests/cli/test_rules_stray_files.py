"""A file that somebody put into a rules directory is read or refused, never passed over: `tidegate rules check` shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.rules_runner import RANKING, rules, rules_json, write

CALLERS = "callers: {web: {objectives: [ranking]}}\n"
OTHER = RANKING.replace("objective: ranking", "objective: other")
CASES = "cases: [{name: a, context: {member_id: '1'}, expect: {rule: default}}]\n"

NULL_DOCUMENTS = {
    "empty": "",
    "comments": "# callers: none yet\n",
    "marker": "---\n# nothing\n",
    "tilde": "~\n",
    "null": "null\n",
    "end": "---\n...\n",
    "bom": "\ufeff",
}


@pytest.mark.parametrize("text", NULL_DOCUMENTS.values(), ids=NULL_DOCUMENTS)
@pytest.mark.parametrize("file", ["fleet.yaml", "layers.yaml", "callers.yaml", "objectives/ranking.yaml"])
def test_a_file_without_a_value_is_refused(file: str, text: str, tmp_path: Path) -> None:
    told = rules("check", write(tmp_path, {file: text}))
    assert told.exit_code == 1
    assert f"{file}:" in told.output
    assert "empty" in told.output


@pytest.mark.parametrize("text", NULL_DOCUMENTS.values(), ids=NULL_DOCUMENTS)
def test_a_file_of_cases_without_a_value_is_refused(text: str, tmp_path: Path) -> None:
    told = rules("test", write(tmp_path, {"cases/ranking.yaml": text}))
    assert told.exit_code == 1
    assert "cases/ranking.yaml:" in told.output


REFUSED = {
    "callers.YAML": CALLERS,
    "callers.Yml": CALLERS,
    "Callers.yaml": CALLERS,
    "callers.json": '{"callers": {"web": {"objectives": "*"}}}',
    "callers": CALLERS,
    "callers.yaml.bak": CALLERS,
    "callers.toml": "",
    ".callers.yaml": CALLERS,
    "caller.yaml": CALLERS,
    "layers.YML": "{}",
    "ranking.yaml": RANKING,
    "objectives/other.YAML": OTHER,
    "objectives/other.json": "{}",
    "objectives/other": OTHER,
    "objectives/.other.yaml": OTHER,
    "objectives/sub/other.yaml": OTHER,
    "objectives/sub/deeper/other.yml": OTHER,
    "Objectives/other.yaml": OTHER,
    "objective/other.yaml": OTHER,
    "cases/sub/ranking.yaml": CASES,
    "cases/ranking.JSON": CASES,
    "schema/callers.yaml": CALLERS,
    "readme.yaml": CALLERS,
    "LICENSE.json": "{}",
    "owners.plates": CALLERS,
    "objectives/Owners.JSON": OTHER,
    "objectives/license/other.yaml": OTHER,
}


@pytest.mark.parametrize("file", REFUSED)
def test_a_file_that_nothing_reads_is_refused(file: str, tmp_path: Path) -> None:
    told = rules("check", write(tmp_path, {file: REFUSED[file]}))
    assert told.exit_code == 1
    assert f"{file}: error[author-error]" in told.output


@pytest.mark.parametrize(
    "file",
    [
        ".#callers.yaml",
        ".callers.yaml.swp",
        "callers.yaml~",
        "#callers.yaml#",
        "objectives/.#ranking.yaml",
        "objectives/.ranking.yaml.swp",
        "objectives/ranking.yaml~",
        "cases/.ranking.yaml.swo",
        ".DS_Store",
        ".git/config",
        "..2026_11_28/callers.yaml",
        "README.md",
        "objectives/README",
        "OWNERS",
        "LICENSE.txt",
        "images/CODEOWNERS",
        "schema/objective.json",
    ],
)
def test_files_of_editors_and_prose_are_skipped(file: str, tmp_path: Path) -> None:
    told = rules("check", write(tmp_path, {file: "\0 no YAML: ["}), "--strict", "--json")
    assert '"findings": [' in told.output
    assert Path(file).name not in told.output


@pytest.mark.parametrize("name", ["license.yaml", "owners.yml", "Owners.plates.yaml", "readme.yaml"])
def test_rules_and_cases_that_are_named_as_prose_is_are_read(name: str, tmp_path: Path) -> None:
    write(tmp_path, {f"objectives/{name}": OTHER})
    report = rules_json("check", tmp_path, "--strict")
    assert {each["objective"] for each in report["objectives"]} == {"ranking", "other"}
    write(tmp_path, {f"objectives/{name}": "no: objective\n", f"cases/{name}": "[]: no case\n"})
    assert f"objectives/{name}:1" in rules("check", tmp_path).output
    (tmp_path / "objectives" / name).unlink()
    assert f"cases/{name}:1" in rules("test", tmp_path).output


def test_an_editors_lock_is_skipped_although_it_leads_nowhere(tmp_path: Path) -> None:
    write(tmp_path, {})
    (tmp_path / "objectives" / ".#ranking.yaml").symlink_to("author@host.1234:1")
    told = rules("check", tmp_path)
    assert told.exit_code == 0, told.output


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere.yaml")


def _looping(path: Path) -> None:
    path.symlink_to(path.name)


def _directory(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5 * 1024 * 1024)


IRREGULAR = [_dangling, _looping, _directory, _pipe, _device, _huge]


@pytest.mark.parametrize("make", IRREGULAR)
@pytest.mark.parametrize(
    "file", ["callers.yaml", "layers.yml", "fleet.yaml", "objectives/more.yaml", "images/more.yaml"]
)
def test_what_is_no_readable_file_is_refused(file: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path, {})
    (tmp_path / "images").mkdir()
    (tmp_path / file).unlink(missing_ok=True)
    make(tmp_path / file)
    told = rules("check", tmp_path)
    assert told.exit_code == 1
    assert f"{file}: error[author-error]" in told.output


@pytest.mark.parametrize("make", IRREGULAR)
def test_cases_that_are_no_readable_file_are_refused(make: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path, {"cases/ranking.yaml": CASES})
    make(tmp_path / "cases" / "more.yaml")
    told = rules("test", tmp_path)
    assert told.exit_code == 1
    assert "cases/more.yaml" in told.output


def test_rules_mounted_as_links_are_read(tmp_path: Path) -> None:
    write(tmp_path / "..data", {"callers.yaml": "callers: {web: {objectives: [nowhere]}}\n"})
    for name in ("fleet.yaml", "callers.yaml", "objectives"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    told = rules("check", tmp_path)
    assert told.exit_code == 1
    assert "unknown objective 'nowhere'" in told.output


def test_a_link_to_a_folder_that_nothing_reads_is_refused_and_not_followed(tmp_path: Path) -> None:
    write(tmp_path, {})
    (tmp_path / "everything").symlink_to("/")
    (tmp_path / "objectives" / "again").symlink_to("..")
    told = rules("check", tmp_path)
    assert told.exit_code == 1
    assert "everything: error" in told.output
    assert "objectives/again: error" in told.output


def test_the_wrong_directory_is_told_without_listing_all_of_it(tmp_path: Path) -> None:
    write(tmp_path, {f"junk/{number}": "" for number in range(300)})
    told = rules("check", tmp_path)
    assert told.exit_code == 1
    assert len(told.output.splitlines()) < 150


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    write(tmp_path, {})
    (tmp_path / "objectives" / os.fsdecode(b"caf\xe9\n.yaml")).write_text("~")
    command = [Path(sys.executable).parent / "tidegate", "rules", "check", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    assert "objectives/caf" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_revision_in_git_is_read_like_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "rules", {"callers.YAML": CALLERS, "README.md": "# Rules\n"})
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"],
    ):
        subprocess.run(["git", *arguments], check=True)
    told = rules("diff", "HEAD:rules", "HEAD:rules")
    assert told.exit_code == 1
    assert "callers.YAML" in told.output
