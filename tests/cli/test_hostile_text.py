"""What an author or a log writes is shown as text: no terminal obeys it, and no markup is read into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tidegate.cli import main

from tests.cli.rules_runner import write

HOSTILE = "\x1b[31mRED\x1b]0;title\x07\x9b2J\r\x7f\u202e[red]x[/red]"


def directory(root: Path, text: str) -> Path:
    ranking: dict[str, Any] = {
        "objective": "ranking",
        "summary": text,
        "owner": text,
        "context": {
            "member_id": {"type": "string"},
            "country": {"type": "string"},
            "device": {"type": "string", "values": [text, "tv"]},
            "tags": {"type": "set"},
        },
        "sticky_key": "member_id",
        "rules": [
            {"id": "one", "when": {"country": [text, "SE"], "tags": {"contains_any": [text]}}, "serve": "better"},
            {"id": "two", "when": {"device": text, "country": {"prefix": text}}, "split": {"base": 1, "better": 2}},
            {"id": "gap", "when": {"country": {"not": text}}, "serve": "base"},
        ],
    }
    cases = [
        {"name": text, "context": {"country": text, "member_id": text}, "expect": {"rule": "one", "variant": text}},
        {"name": f"{text} 2", "context": {"device": "web", text: text}, "expect": {"error": text}},
    ]
    files = {"objectives/ranking.yaml": ranking, "cases/ranking.yaml": cases}
    return write(root, {name: yaml.safe_dump(document, sort_keys=False) for name, document in files.items()})


@pytest.mark.parametrize("is_terminal", [False, True])
def test_no_command_prints_what_a_terminal_obeys(is_terminal: bool, tmp_path: Path) -> None:
    one, other = directory(tmp_path / "one", HOSTILE), directory(tmp_path / "other", HOSTILE + "!")
    broken = directory(tmp_path / "broken", HOSTILE)
    with (broken / "objectives/ranking.yaml").open("a") as file:
        file.write(json.dumps(HOSTILE) + ": 1\nfallback: " + json.dumps([HOSTILE]) + "\n")
    log = tmp_path / "log.jsonl"
    contexts = [{"country": HOSTILE, "tags": [HOSTILE], "member_id": HOSTILE}, {"device": HOSTILE + "?"}]
    lines = [{"objective": "ranking", "context": each} for each in contexts] + [{"objective": HOSTILE, "context": {}}]
    log.write_text("".join(json.dumps(each) + "\n" for each in lines))
    context = json.dumps({"country": HOSTILE, "member_id": HOSTILE, "device": HOSTILE})
    for arguments in (
        ["check", one],
        ["check", broken],
        ["test", one],
        ["compile", broken, "-o", tmp_path / "bundle"],
        ["explain", one, "--objective", "ranking", "--context", context],
        ["explain", one, "--objective", "ranking", "--context", "{}"],
        ["explain", one, "--objective", HOSTILE],
        ["explain", one, "--objective", "ranking", "--context", json.dumps({"device": HOSTILE + "?"})],
        ["diff", one, other],
        ["diff", one, other, "--log", log],
        ["replay", one, "--log", log, "--against", other],
        ["graph", one],
        ["new", HOSTILE, "--dir", one],
    ):
        result = CliRunner().invoke(main, ["rules", *map(str, arguments)], color=is_terminal, catch_exceptions=False)
        obeyed = [each for each in result.output if not each.isprintable() and each != "\n"]
        assert not obeyed, (arguments[0], obeyed, result.output)
