"""Files broken by hand: every `tidegate rules` command that reads a directory tells where, and none shows a traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.rules_runner import FLEET, RANKING, rules, write

FILE = "objectives/ranking.yaml"
COMMANDS: dict[str, tuple[str, ...]] = {
    "check": ("check", "{broken}"),
    "test": ("test", "{broken}"),
    "compile": ("compile", "{broken}", "--output", "{out}"),
    "explain": ("explain", "{broken}", "--objective", "ranking", "--context", '{{"member_id": "1"}}'),
    "graph": ("graph", "{broken}"),
    "diff old": ("diff", "{broken}", "{sound}"),
    "diff new": ("diff", "{sound}", "{broken}"),
    "replay": ("replay", "{broken}", "--log", "{log}"),
    "replay against": ("replay", "{sound}", "--against", "{broken}", "--log", "{log}"),
}


@dataclass(frozen=True)
class Broken:
    """One file broken, where it must be told, and a word that must be."""

    name: str
    text: str | bytes
    place: str
    word: str
    file: str = FILE


def changed(old: str, new: str) -> str:
    assert old in RANKING
    return RANKING.replace(old, new, 1)


BROKEN = [
    Broken("tab", changed("sticky_key: member_id", "sticky_key:\n\tmember_id"), f"{FILE}:4", "tab"),
    Broken("duplicate-key", changed("rules:", "objective: ranking\nrules:"), f"{FILE}:4", "duplicate key 'objective'"),
    Broken("anchor", changed("serve: better", "serve: &m better"), f"{FILE}:5", "anchor"),
    Broken("alias", changed("serve: better", "serve: *m"), f"{FILE}:5", "alias"),
    Broken("merge-key", changed("serve: better", "<<: {serve: better}"), f"{FILE}:5", "merge key"),
    Broken("5-MB", RANKING + "# padding\n" * 500_000, FILE, "larger than 4194304 bytes"),
    Broken("5-MB-fleet", FLEET + "# padding\n" * 500_000, "fleet.yaml", "larger", "fleet.yaml"),
    Broken("wrong-type-of-rules", changed("rules:", "rules: 7\nwere:"), f"{FILE}:4", "rules"),
    Broken("wrong-type-of-weight", changed("better: 10}", "better: ten}"), f"{FILE}:6", "write an integer"),
    Broken("wrong-type-of-file", "- a\n- list\n", f"{FILE}:1", "mapping"),
    Broken("wrong-type-of-fleet", "7\n", "fleet.yaml:1", "mapping", "fleet.yaml"),
    Broken("unknown-key", changed("serve: better", "serv: better"), f"{FILE}:5", "serve"),
    Broken("unknown-key-of-fleet", FLEET + "alises: {}\n", "fleet.yaml:4", "aliases", "fleet.yaml"),
    Broken("unknown-file", "a: 1\n", "fleets.yaml", "fleet.yaml", "fleets.yaml"),
    Broken("not-UTF-8", b"objective: ranking\nsummary: caf\xe9\n", f"{FILE}:2", "UTF-8"),
    Broken("UTF-16", RANKING.encode("utf-16"), f"{FILE}:1", "UTF-8"),
    Broken("binary", b"objective: ranking\nsummary: \x00\x01\n", f"{FILE}:2", "character"),
    Broken("empty", "", f"{FILE}:1", "empty"),
    Broken("empty-fleet", "", "fleet.yaml:1", "empty", "fleet.yaml"),
    Broken("empty-callers", "", "callers.yaml:1", "without the file everybody may call everything", "callers.yaml"),
    Broken("only-a-comment", "# later\n", f"{FILE}:1", "empty"),
    Broken("unclosed", changed("serve: base}", "serve: base"), f"{FILE}:", "not closed"),
    Broken("two-documents", RANKING + "---\n" + RANKING, f"{FILE}:8", "more than one YAML document"),
    Broken("deep", "objective: " + "[" * 5_000 + "]" * 5_000, f"{FILE}:1", "nested deeper"),
]

KINDS = (
    "tab",
    "duplicate-key",
    "anchor",
    "5-MB",
    "wrong-type-of-weight",
    "unknown-key",
    "not-UTF-8",
    "empty",
)


@pytest.fixture(name="arguments")
def command_line(tmp_path: Path) -> Callable[[str, Path], list[str]]:
    """The command line that lets a command read a directory."""
    sound = write(tmp_path / "sound", {})
    log = tmp_path / "log.jsonl"
    log.write_text('{"objective": "ranking", "context": {"member_id": "1"}}\n')

    def made(command: str, broken: Path) -> list[str]:
        places = {"broken": broken, "sound": sound, "log": log, "out": tmp_path / "bundle"}
        return [argument.format(**places) for argument in COMMANDS[command]]

    return made


def check_told(result: Result | subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    told = result.stdout + result.stderr
    assert (result.exit_code if isinstance(result, Result) else result.returncode) == code, told
    assert "Traceback" not in told
    for word in words:
        assert word in told


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_a_broken_file_is_told_where_it_is(
    command: str, case: Broken, tmp_path: Path, arguments: Callable[[str, Path], list[str]]
) -> None:
    broken = write(tmp_path / "broken", {case.file: case.text})
    check_told(rules(*arguments(command, broken)), case.place, case.word)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("file", [FILE, "fleet.yaml", "layers.yaml", "callers.yaml"])
def test_a_directory_in_place_of_a_file_is_told(
    command: str, file: str, tmp_path: Path, arguments: Callable[[str, Path], list[str]]
) -> None:
    broken = write(tmp_path / "broken", {})
    (broken / file).unlink(missing_ok=True)
    (broken / file).mkdir()
    check_told(rules(*arguments(command, broken)), file, "Is a directory")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_in_place_of_the_objectives_folder_is_told(
    command: str, tmp_path: Path, arguments: Callable[[str, Path], list[str]]
) -> None:
    broken = write(tmp_path / "broken", {})
    (broken / FILE).unlink()
    (broken / "objectives").rmdir()
    (broken / "objectives").write_text("")
    check_told(rules(*arguments(command, broken)), "objectives")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["nowhere", "file/below"])
def test_a_directory_that_is_none_is_wrong_usage(
    command: str, name: str, tmp_path: Path, arguments: Callable[[str, Path], list[str]]
) -> None:
    (tmp_path / "file").write_text("text")
    check_told(rules(*arguments(command, tmp_path / name)), name, code=2)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_in_place_of_the_directory_is_wrong_usage(
    command: str, tmp_path: Path, arguments: Callable[[str, Path], list[str]]
) -> None:
    (tmp_path / "file").write_text("text")
    check_told(rules(*arguments(command, tmp_path / "file")), "file", code=2)


@pytest.mark.parametrize("case", [case for case in BROKEN if case.name in KINDS], ids=lambda case: case.name)
def test_the_process_tells_it_too(case: Broken, tmp_path: Path, arguments: Callable[[str, Path], list[str]]) -> None:
    broken = write(tmp_path / "broken", {case.file: case.text})
    command = [Path(sys.executable).parent / "tidegate", "rules", *arguments("check", broken)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    check_told(done, case.place, case.word)
