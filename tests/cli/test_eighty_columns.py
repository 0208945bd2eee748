"""What commands print for people fits 80 columns: nothing that is copied from it is broken, and the headline is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tidegate.cli import main
from tidegate.cli.columns import show_table, wrapped
from tidegate.cli.status import fleet_view

from tests.cli.rules_runner import RANKING, RULES, write
from tests.docs.blocks import ROOT
from tests.docs.test_json_page import commands

MODELS = ROOT / "tests" / "repositories" / "small"
BROKEN = ROOT / "tests" / "repositories" / "broken"
COPIED = re.compile(r"https?://\S+[\w/]|\b[0-9a-f]{12,}\b|\S+\.ya?ml:\d+")
DIGEST = "3f9a2c4b5d6e" + "0" * 52


def run(columns: int, *arguments: object) -> str:
    result = CliRunner(env={"COLUMNS": str(columns)}).invoke(main, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code in (0, 1), result.output
    return result.output


def assert_fits(narrow: str, wide: str, columns: int = 80) -> None:
    """Every line fits, but for one that a word fills or that is a command to paste; what is copied is whole."""
    for line in narrow.splitlines():
        words = line.split()
        assert len(line) <= columns or len(words) == 1 or words[0] in ("tidegate", "$"), line
    lost = set(COPIED.findall(wide)) - set(COPIED.findall(narrow))
    assert not lost


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "log"
    contexts = ({"member_id": str(number), "country": "SE", "app_version": "9.0"} for number in range(200))
    file.write_text("".join(json.dumps({"objective": "title_ranking", "context": each}) + "\n" for each in contexts))
    return file


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The shipped rules with other shares, and with a mistake beside them."""
    import shutil

    folder = shutil.copytree(
        RULES, tmp_path / "a folder with a rather long name, as people have them" / "routing_rules"
    )
    page = folder / "objectives" / "title_ranking.yaml"
    page.write_text(page.read_text().replace("95, title_ranking_svd: 5", "50, title_ranking_svd: 50"))
    return folder


COMMANDS: dict[str, list[str]] = {
    "rules check": ["rules", "check", "{rules}"],
    "rules check with findings": ["rules", "check", "{broken}"],
    "rules test": ["rules", "test", "{rules}"],
    "rules diff": ["rules", "diff", "{rules}", "{other}"],
    "rules replay": ["rules", "replay", "{rules}", "--against", "{other}", "--log", "{log}"],
    "rules explain": ["rules", "explain", "{rules}", "--objective", "title_ranking", "--context", '{"member_id": "1"}'],
    "models check": ["models", "check", "{models}"],
    "models check with findings": ["models", "check", "{broken_models}"],
    "fleet plan": ["fleet", "plan", "--rules", "{rules}"],
    "settings": ["settings"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_prints_fits(command: str, log: Path, other: Path, tmp_path: Path) -> None:
    broken = write(tmp_path / "broken", {"objectives/ranking.yaml": RANKING.replace("serve: base}", "serve: bsae}")})
    places = {"rules": RULES, "other": other, "log": log, "models": MODELS, "broken": broken, "broken_models": BROKEN}
    arguments = [re.sub(r"^\{(\w+)\}$", lambda match: str(places[match[1]]), each) for each in COMMANDS[command]]
    narrow, wide = run(80, *arguments), run(400, *arguments)
    assert_fits(narrow, wide)
    assert narrow.split() and len(narrow.split()) >= len(wide.split()) * 0.9, "nothing is left out"


def fleet(**changes: Any) -> dict[str, Any]:
    model = {"name": "title_ranking_svd", "version": 1, "state": "READY", "needed_by": ["live", "rollback"]}
    endpoint = {"url": "http://127.0.0.1:42931", "pid": 123456, "state": "ready", "note": "", "models": [model] * 9}
    entry = {
        "revision": DIGEST,
        "resolution": "8" * 64,
        "by": "ana@a-machine-with-a-name",
        "at": "2026-11-29T00:02:50+00:00",
    }
    return {
        "healthy": True, "revision": DIGEST, "resolution": "8" * 64, "since": "2026-11-29T00:02:50+00:00", "objectives": 3,
        "shards": [{"name": "alpha", "replicas": 2, "endpoints": [endpoint, endpoint | {"state": "down", "note": "x " * 90}]}],
        "revisions": [entry | {"reason": "live", "why": "the canary is better than what was there before, by far"}],
        "problems": ["http://127.0.0.1:42931: it gives no answer that can be read, and has not for a long while " * 2],
    } | changes  # fmt: skip


@pytest.mark.parametrize("models", [False, True])
def test_a_fleet_is_a_list_under_its_headline(models: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(columns: int) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        from tidegate.cli.columns import console

        out = console()
        with out.capture() as captured:
            out.print(fleet_view(fleet(), models=models))
        return captured.get()

    narrow = shown(80)
    assert_fits(narrow, shown(400))
    assert narrow.startswith("healthy; revision 3f9a2c4b5d6e, live since 2026-11-29")


def test_one_revision_that_is_live_and_marked_bad_is_shown_with_its_resolution() -> None:
    from tidegate.cli.columns import console

    out = console()
    mark = {"revision": DIGEST, "resolution": "9" * 64, "by": "ben", "at": "2026-11-29T00:02:50+00:00", "why": "worse"}
    with out.capture() as captured:
        out.print(fleet_view(fleet(bad=[mark])))
    assert captured.get().startswith("healthy; revision 3f9a2c4b5d6e.888888, live since")
    assert "marked bad: 3f9a2c4b5d6e.999999 by ben" in captured.get()


def test_a_command_in_backquotes_stays_whole() -> None:
    text = "the rules directory is no longer followed: correct it, then `tidegate follow resume`"
    assert list(wrapped(text, 80)) == [text.partition(" `")[0], "  `tidegate follow resume`"]


def test_the_headline_says_that_saved_rules_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from tidegate.cli.columns import console

    out = console()
    with out.capture() as captured:
        out.print(fleet_view(fleet(rules={"last_rejected": {"at": "2026-11-29T00:02:50+00:00", "findings": ["x"]}})))
    assert captured.get().startswith("healthy, but the rules as saved are refused; revision 3f9a2c4b5d6e")


def test_a_table_is_a_list_where_it_is_too_wide(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("1", DIGEST, "because it is better " * 3), ("2", DIGEST, "")]
    for width, expected in ((200, f"{DIGEST}   because"), (80, f"flip 1, revision {DIGEST}")):
        monkeypatch.setenv("COLUMNS", str(width))
        show_table(("flip", "revision", "why"), rows, ("flip",))
        text = capsys.readouterr().out
        assert expected in " ".join(text.split(" ")) or expected in " ".join(text.split())
        assert all(len(line) <= width for line in text.splitlines() if DIGEST not in line)


def test_words_are_never_broken() -> None:
    assert list(wrapped("  loading http://127.0.0.1:42931/v2/a-model-with-a-name now", 30)) == [
        "  loading", "    http://127.0.0.1:42931/v2/a-model-with-a-name", "    now",
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["", *(name for name, _ in commands())])
def test_the_help_of_a_command_fits(command: str) -> None:
    text = run(80, *command.split(), "--help")
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("\n\n") >= 2, "it has a description"
