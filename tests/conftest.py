"""What many tests need: a local AWS, and the options that say how much is tried and what may be missing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tidegate.aws.provision import provision

from tests.support import effort, schedule
from tests.support.aws import LocalAws, local_server, names
from tests.support.parts import missing_module


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tidegate")
    group.addoption(
        "--full", action="store_true", help="every example of the property tests, and what is marked slow: hours count"
    )
    group.addoption(
        "--require-all", action="store_true", help="a test that is skipped, as what it needs is not installed, fails"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: runs only with --full")
    effort.choose(full=config.getoption("--full"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not effort.is_full():
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=slow)
    items.sort(key=lambda item: schedule.start(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return schedule.scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    call = getattr(report, "call", None)
    if report.outcome == "failed" and call and (reason := missing_module(call.excinfo.value)):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: {reason}")
    return _judged(report, collector.config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.outcome == "failed" and call.excinfo and (reason := missing_module(call.excinfo.value)):
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"Skipped: {reason}")
    return _judged(report, item.config)


def _judged(report: Any, config: pytest.Config) -> Any:
    """The report, a failure instead of a skip where nothing may be missing."""
    if report.outcome == "skipped" and config.getoption("--require-all") and not hasattr(report, "wasxfail"):
        _, _, reason = report.longrepr
        report.outcome, report.longrepr = "failed", f"{report.nodeid}: with --require-all nothing is skipped. {reason}"
    return report


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
