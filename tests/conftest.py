"""What many tests need: a local AWS, and the options that say how much is tried and what may be missing."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from tidegate.aws.provision import provision

from tests.support import effort, parts, schedule
from tests.support.aws import LocalAws, local_server, names
from tests.support.timing import Timing


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tidegate")
    group.addoption(
        "--full", action="store_true", help="every example of the property tests, and what is marked slow: hours count"
    )
    group.addoption(
        "--require-all", action="store_true", help="a test that is skipped, as what it needs is not installed, fails"
    )


def pytest_configure(config: pytest.Config) -> None:
    # What commands print is not broken for whoever reads it here, also where a terminal has exported its width.
    os.environ.pop("COLUMNS", None)
    config.addinivalue_line("markers", "slow: runs only with --full")
    # Where stacks and the commands that look for them meet; not the user's own.
    os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="tidegate-tests-")
    # The hooks of a conftest.py are not asked about folders below it, whose own conftest.py may lack a part.
    config.pluginmanager.register(parts)
    config.pluginmanager.register(Timing())
    effort.choose(full=config.getoption("--full"))


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["XDG_RUNTIME_DIR"], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not effort.is_full():
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)
    items.sort(key=lambda item: schedule.start(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return schedule.scheduler(config, log)


@pytest.fixture(scope="session")
def aws_url() -> Iterator[str]:
    """The address of one local AWS for all tests."""
    with local_server() as url:
        yield url


@pytest.fixture
def aws(aws_url: str) -> LocalAws:
    """The local AWS with a bucket and a table of the test's own."""
    local = names(aws_url)
    asyncio.run(provision(local.clients(), local.bucket, local.table))
    return local
