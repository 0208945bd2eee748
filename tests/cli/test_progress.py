"""A command that takes long shows on a terminal what it does, and nothing of it is left afterwards."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.replayed import line, write_rules
from tests.support.terminal import on_terminal

GOOD = line("ranking", {"member_id": "1", "country": "SE"}).encode() + b"\n"
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"


@pytest.fixture
def replay(tmp_path: Path) -> list[object]:
    """A command that works until its standard input ends."""
    return ["rules", "replay", write_rules(tmp_path / "rules"), "--log", "-"]


def test_what_a_command_does_is_shown_and_json_is_left_alone(replay: list[object]) -> None:
    with on_terminal(*replay, "--json", stdin=subprocess.PIPE) as (process, terminal):
        assert process.stdin is not None
        process.stdin.write(GOOD * 20_000)
        process.stdin.flush()
        terminal.wait_for("reading standard input, ")
        out, _ = process.communicate(timeout=300)
    assert json.loads(out)["decided"] == 20_000
    assert process.returncode == 0
    assert terminal.screen == []
    assert terminal.shown.rstrip().endswith(SHOW) or terminal.shown.count(HIDE) == terminal.shown.count(SHOW)


def test_it_is_erased_before_results_are_printed(replay: list[object]) -> None:
    with on_terminal(*replay, stdin=subprocess.PIPE, stdout=None) as (process, terminal):
        assert process.stdin is not None
        process.stdin.write(GOOD)
        process.stdin.flush()
        terminal.wait_for("reading standard input, ")
        process.stdin.close()
        process.wait(300)
    assert terminal.screen[0].startswith("standard input: 1 context in 1 line")
    assert not [line for line in terminal.screen if "reading" in line]


def test_ctrl_c_erases_it(replay: list[object]) -> None:
    with on_terminal(*replay, "--json", stdin=subprocess.PIPE) as (process, terminal):
        assert process.stdin is not None
        process.stdin.write(GOOD)
        process.stdin.flush()
        terminal.wait_for("reading standard input, ")
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 130
    assert terminal.screen == []
    assert terminal.shown.count(HIDE) == terminal.shown.count(SHOW)


def test_a_share_is_shown_of_what_can_be_counted(tmp_path: Path) -> None:
    """Six objectives are proved one by one."""
    for number in range(6):
        conditions = "".join(
            f"  - {{id: r{each}, when: {{country: C{each % 500}, age: {{gte: {each}}}}}, serve: base}}\n"
            for each in range(1500)
        )
        text = (
            f"objective: o{number}\nsummary: A test.\nowner: tests\n"
            f"context: {{country: {{type: string}}, age: {{type: integer}}}}\n"
            f"rules:\n{conditions}  - {{id: default, serve: base}}\n"
        )
        (tmp_path / "objectives").mkdir(exist_ok=True)
        (tmp_path / "objectives" / f"o{number}.yaml").write_text(text)
    (tmp_path / "fleet.yaml").write_text("shards: {a: {replicas: 1}}\nmodels: {base: {shards: [a]}}\n")
    with on_terminal("rules", "check", tmp_path, "--json") as (process, terminal):
        out, _ = process.communicate(timeout=300)
    assert json.loads(out)["format_version"]
    assert "proving o" in terminal.text
    assert "%" in terminal.text
    assert terminal.screen == []


@pytest.mark.parametrize("how", [{"TERM": "dumb"}, {}])
def test_nothing_is_shown_where_nothing_can_be_erased(replay: list[object], how: dict[str, str]) -> None:
    streams: dict[str, Any] = {"stderr": subprocess.PIPE} if not how else {}
    with on_terminal(*replay, stdin=subprocess.PIPE, variables=how, **streams) as (process, terminal):
        assert process.stdin is not None
        process.stdin.write(GOOD)
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        process.stdin.close()
        process.stdin = None
        _, errors = process.communicate(timeout=300)
    assert (errors or b"", terminal.text) == (b"", "")
