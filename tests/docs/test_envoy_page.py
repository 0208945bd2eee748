"""docs/envoy.md: its commands work, and its example prints titles."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tidegate.cli import main

from tests.docs.blocks import ROOT, blocks
from tests.envoy.conftest import ask
from tests.support.running_command import command, envoy_beside
from tests.support.stack import RunningStack

PAGE = "docs/envoy.md"
BLOCKS = blocks(PAGE)
(EXAMPLE,) = (block.text for block in BLOCKS if block.language == "python")
COMMANDS = [
    line.removeprefix("$ ") for block in BLOCKS if block.language == "console" for line in block.text.splitlines()
]
STATE = "/var/lib/tidegate/envoy"


def documented(start: str) -> list[str]:
    """The words of the one command of the page that begins so."""
    (found,) = (each for each in COMMANDS if each.startswith(start))
    return shlex.split(found)


@pytest.fixture(scope="module")
def plane(example_stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """The port of Envoy beside the example stack, and the folder of its state."""
    folder = tmp_path_factory.mktemp("envoy") / "state"
    assert documented("tidegate envoy run")[1:] == ["envoy", "run", "--state", STATE, "--port", "8088"]
    with envoy_beside(example_stack.url, folder) as (_, port):
        yield port, folder


def test_every_command_is_run_here() -> None:
    assert len(COMMANDS) == 4


def test_the_example_prints_titles(plane: tuple[int, Path]) -> None:
    assert EXAMPLE.count("127.0.0.1:8088") == 1
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(EXAMPLE.replace("127.0.0.1:8088", f"127.0.0.1:{plane[0]}"), names)
    names["client"].close()
    assert printed.getvalue().startswith("[[b'")


def test_the_administration_interface_gives_figures(plane: tuple[int, Path]) -> None:
    words = [word.replace(STATE, str(plane[1])) for word in documented("curl")]
    done = subprocess.run([*words, "-s"], capture_output=True, text=True, timeout=60, check=True)
    assert "envoy_cluster_upstream_rq_total" in done.stdout
    assert "`metrics.txt`" in (ROOT / PAGE).read_text()
    assert "\ntidegate_rules_age_seconds " in (plane[1] / "metrics.txt").read_text()


def test_the_configuration_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "routing_rules").symlink_to(ROOT / "routing_rules")
    server = next(part for part in (ROOT / PAGE).read_text().split("`") if part.startswith('{"alpha"'))
    (tmp_path / "fleet.json").write_text(server)
    assert json.loads(server)["alpha"][0]["http_port"] == 8000
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, documented("tidegate envoy config")[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "envoy" / "envoy.json").exists()


def test_a_resolver_is_ready(example_stack: RunningStack, tmp_path: Path) -> None:
    _, *words = documented("tidegate resolve-server")
    words = [
        {"127.0.0.1:8090": "127.0.0.1:0", "/var/lib/tidegate/resolver": str(tmp_path / "state")}.get(word, word)
        for word in words
    ]
    with command(tmp_path / "log", *words, "--stack", example_stack.url, variables={}) as running:
        (place,) = running.wait_ready()
        headers = {"Tidegate-Context": '{"member_id": "42"}'}
        assert ask(int(place.rpartition(":")[2]), "/authorize/v2/models/title_ranking/infer", headers).status == 200
