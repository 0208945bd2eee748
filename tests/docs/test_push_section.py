"""The commands of "Pushing models" in docs/control-plane.md do what the page says, on the example stack."""

from __future__ import annotations

import pytest

from tests.docs.blocks import blocks
from tests.support.commands import typed
from tests.support.stack import RunningStack

COMMANDS = [
    line.removeprefix("$ ")
    for block in blocks("docs/control-plane.md")
    for line in block.text.splitlines()
    if line.startswith("$ tidegate models push ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_push_finds_what_the_publish_pushed(command: str, example_stack: RunningStack) -> None:
    done = typed(command.replace("http://127.0.0.1:8080", example_stack.url))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("4 there already\n"), "the ensemble and its three steps"


def test_the_page_has_pushes() -> None:
    assert len(COMMANDS) == 2
