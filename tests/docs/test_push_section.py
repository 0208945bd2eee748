"""The commands of "Pushing models" in docs/control-plane.md do what the page says, on the example stack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks
from tests.support.stack import RunningStack

COMMANDS = [
    line.removeprefix("$ ")
    for block in blocks("docs/control-plane.md")
    for line in block.text.splitlines()
    if line.startswith("$ tidegate models push ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_push_finds_what_the_publish_pushed(command: str, example_stack: RunningStack) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command.replace("http://127.0.0.1:8080", example_stack.url)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("4 there already\n"), "the ensemble and its three steps"


def test_the_page_has_pushes() -> None:
    assert len(COMMANDS) == 2
