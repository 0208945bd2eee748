"""One stack for the whole folder, whole again before each attack, and a client beside each that must notice nothing."""

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
"""What an attack does to others may show once it is over."""


class Bystander(Protocol):
    """Makes a block fail where a client beside it noticed anything."""

    def __call__(self, objective: str = "quiet", per_s: float = 30) -> AbstractContextManager[None]:
        """The client asks for `objective`, `per_s` times a second."""


@pytest.fixture(scope="session")
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
    """The stack as it is."""
    return running


@pytest.fixture
def bystander(place: Place) -> Bystander:
    """Beside an attack; the stack is whole before it."""
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
