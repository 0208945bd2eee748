"""What a run's time went to: a table of the folders of tests at its end, with the slowest files of each.

Times are those of the workers, so that with three of them the sum is up to three times the time that passes. Where more workers than
cores run, a test mostly waits for the others: its CPU time, with that of the processes that it has waited for, says what it costs. A
process that serves several files counts where it ends.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

PREPARATION = "PREPARATION_S"
"""The environment variable in which `make test` says how many seconds it took to prepare what tests need."""

SLOWEST = 2
"""How many files of a folder are named."""


@dataclass(slots=True)
class _Folder:
    tests: set[str] = field(default_factory=set)
    files_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    cpu_s: float = 0.0

    @property
    def took_s(self) -> float:
        return sum(self.files_s.values())

    def slowest(self) -> str:
        named = sorted(self.files_s.items(), key=lambda each: -each[1])[:SLOWEST]
        return ", ".join(f"{file} {took_s:.0f}" for file, took_s in named if took_s >= 1)


class Timing:
    """The plugin that adds up what each folder of tests took, where reports come together."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._folders: defaultdict[str, _Folder] = defaultdict(_Folder)
        self._cpu_s = _cpu_s()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, None]:
        """Add to each report what its worker used since the one before; reports are sent with all of their attributes."""
        outcome = yield
        before, self._cpu_s = self._cpu_s, _cpu_s()
        outcome.get_result().cpu_s = self._cpu_s - before

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.partition("::")[0]
        folder, _, name = file.removeprefix("tests/").partition("/")
        found = self._folders[folder if name else "tests"]
        found.tests.add(report.nodeid)
        found.files_s[name or folder] += report.duration
        found.cpu_s += getattr(report, "cpu_s", 0.0)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if len(self._folders) < 2:
            return
        terminalreporter.section("time of the workers and their CPU time, in seconds, and the slowest files")
        for line in self._lines():
            terminalreporter.write_line(line)
        waited = f"{time.monotonic() - self._began:.0f} s of tests"
        if preparation_s := os.environ.get(PREPARATION):
            waited = f"{preparation_s} s of preparation, then {waited}"
        terminalreporter.write_line(waited)

    def _lines(self) -> Iterator[str]:
        for name, folder in sorted(self._folders.items(), key=lambda each: -each[1].took_s):
            line = f"{name:<14}{len(folder.tests):>6} tests {folder.took_s:>6.0f} s {folder.cpu_s:>6.0f} of CPU  {folder.slowest()}"
            yield line.rstrip()


def _cpu_s() -> float:
    """The CPU time of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
