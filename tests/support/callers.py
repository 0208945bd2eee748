"""Callers that go on while something else happens to the stack."""

from __future__ import annotations

import threading
import time
from typing import Any

from tests.support.stack import RunningStack


class Callers:
    """Callers that ask for an objective at a constant rate, and keep what was not answered with 200.

    Each request has its time by a clock that does not wait for answers, so that a slow answer is not hidden by the
    requests that were not sent meanwhile.
    """

    THREADS = 5

    def __init__(self, stack: RunningStack, objective: str, per_s: int = 20, **context: Any) -> None:
        self.failures: list[str] = []
        self.answers: list[int] = []
        self.first: dict[int, float] = {}
        self._stack, self._objective, self._context = stack, objective, context
        self._interval_s = self.THREADS / per_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(n,)) for n in range(self.THREADS)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self, number: int) -> None:
        due = time.monotonic() + self._interval_s * number / self.THREADS
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += self._interval_s
            try:
                version = self._stack.version(self._objective, **self._context)
            except (AssertionError, OSError) as error:
                self.failures.append(repr(error))
            else:
                self.answers.append(version)
                self.first.setdefault(version, time.monotonic())
