"""One stack for all tests of this folder, recovered before each attack, and a client beside each that must notice nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol
from urllib.parse import urlsplit

import pytest

from tests.isolation.place import VARIABLES, Place, infer, write_models, write_rules
from tests.support.quiet_client import quiet_client
from tests.support.stack import running_stack

AFTERMATH_S = 0.5
"""How long the client goes on after an attack, whose effects on others may come late."""


class Bystander(Protocol):
    """Fails a block if a client beside it noticed anything."""

    def __call__(self, objective: str = "quiet", per_s: float = 30) -> AbstractContextManager[None]:
        """Request `objective` `per_s` times a second beside the block."""


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("isolation")
    rules, models = write_rules(root / "rules"), write_models(root / "models")
    with running_stack(rules, models, root / "errors", variables=VARIABLES) as stack:
        port = urlsplit(stack.url).port
        assert port is not None
        yield Place(stack, port)
        assert "Traceback" not in stack.errors
        assert "unforeseen" not in stack.errors


@pytest.fixture
def place(running: Place) -> Place:
    """The stack in its current state."""
    return running


@pytest.fixture
def bystander(place: Place) -> Bystander:
    """A client to run beside an attack; the stack has recovered before."""
    place.wait_whole()

    @contextmanager
    def beside(objective: str = "quiet", per_s: float = 30) -> Iterator[None]:
        with quiet_client(place.port, infer(objective, (0.5,), "bystander"), per_s=per_s) as client:
            yield
            time.sleep(AFTERMATH_S)
            report = client.stop()
        outcomes = report.outcomes()
        print(f"{objective}: {dict(outcomes)}, p99 {report.percentile_ms(99):.0f} ms")
        assert set(outcomes) == {f"200 {objective}"}

    return beside
