"""A part of `make chaos`: no caller fails. Its page has a row for every scenario."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from chaos.__main__ import ALL, REPORT
from chaos.place import Place, running_place
from chaos.run import run
from chaos.scenarios import SCENARIOS


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running_place(tmp_path_factory.mktemp("chaos")) as running:
        yield running
        assert "Traceback" not in running.stack.errors


@pytest.mark.parametrize("name", ["shard-killed", "model-exits"])
def test_no_caller_fails(place: Place, name: str) -> None:
    result = run(place, SCENARIOS[name])
    assert result.requests
    assert not result.failed, result
    assert result.by_fallback, "the harm did nothing"


def test_the_page_has_every_scenario() -> None:
    assert re.findall(r"\(`([a-z-]+)`\)", REPORT.read_text()) == list(ALL)
