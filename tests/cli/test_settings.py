"""`tidegate settings`, and the page that is made of it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from tidegate.cli import main

from tests.support.stack import ROOT


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["settings", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_page_is_what_the_settings_are() -> None:
    assert (ROOT / "docs" / "settings.md").read_text() == run("--markdown"), "make it anew: see its first lines"


def test_what_is_set_is_shown_and_a_secret_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_POLL_INTERVAL_S", "0.5")
    monkeypatch.setenv("TIDEGATE_MANAGEMENT_SECRET", "hush-hush-hush")
    rows = {row["variable"]: row for row in json.loads(run("--json"))["settings"]}
    assert (rows["TIDEGATE_POLL_INTERVAL_S"]["value"], rows["TIDEGATE_POLL_INTERVAL_S"]["default"]) == (0.5, 2.0)
    assert rows["TIDEGATE_MANAGEMENT_SECRET"]["value"] == "…"
    assert "hush" not in run()
    assert "TIDEGATE_POLL_INTERVAL_S = 0.5 (default 2.0)" in run()


def test_a_malformed_secret_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_MANAGEMENT_SECRET", "hush")
    result = CliRunner().invoke(main, ["settings"])
    assert result.exit_code == 1
    assert "TIDEGATE_MANAGEMENT_SECRET must be a secret" in result.output
    assert "hush" not in result.output
