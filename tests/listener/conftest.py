"""A listener with the default limits, shared by a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.listener.server import Client, Served, serving


@pytest.fixture(scope="module")
def listener() -> Iterator[Served]:
    """The listener of the module."""
    with serving() as served:
        yield served


@pytest.fixture
def client(listener: Served) -> Iterator[Client]:
    """A connection to it."""
    listener.app.events.clear()
    listener.app.bodies.clear()
    with listener.connect() as found:
        yield found
