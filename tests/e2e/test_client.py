"""The SDK beside a real stack: it follows a publish, and notices neither a lost server nor a lost gateway."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from tidegate.client import Client

from tests.support.stack import eventually, make_repository, running_stack, write_rules

INPUTS = {"SLEEP_MS": [0]}


class Asking:
    """Threads that infer without a pause, and keep what was answered and what failed."""

    THREADS = 3

    def __init__(self, client: Client) -> None:
        self.versions: list[list[int]] = [[] for _ in range(self.THREADS)]
        self.failures: list[str] = []
        self._client = client
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(each,)) for each in self.versions]

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, versions: list[int]) -> None:
        while not self._stop.wait(0.02):
            try:
                answer = self._client.infer("ranking", INPUTS, {"country": "SE"}, timeout_ms=60_000)
                versions.append(answer.outputs["VERSION"][0])
            except Exception as error:  # noqa: BLE001
                self.failures.append(repr(error))

    def answered(self, version: int, more: int = 20) -> bool:
        """Wait for further answers of a version."""
        before = self._count(version)
        return bool(eventually(lambda: self._count(version) >= before + more or self.failures))

    def _count(self, version: int) -> int:
        return sum(each.count(version) for each in self.versions)


def test_the_sdk_goes_on_whatever_ends_and_follows_what_is_published(tmp_path: Path) -> None:
    models = make_repository(tmp_path / "models", "versioned")
    with (models / "versioned" / "config.pbtxt").open("a") as config:
        config.write("version_policy: { all {} }\n")
    rules = write_rules(tmp_path / "rules", {"a": 2}, {"versioned": ["a"]}, ranking="versioned/1")
    with (
        running_stack(rules, models, tmp_path / "log") as stack,
        Client(stack.url, cache_dir=tmp_path / "kept") as client,
    ):
        first = client.decide("ranking")
        gateway = stack.get("/v1/fleet")["gateway"]["pid"]
        with Asking(client) as asking:
            assert asking.answered(1)
            # The local stack follows its directory.
            write_rules(rules, {"a": 2}, {"versioned": ["a"]}, ranking="versioned/2")
            assert asking.answered(2), stack.errors
            victim, *_ = stack.servers()
            os.kill(victim.pid, signal.SIGKILL)
            assert asking.answered(2, more=100)
            os.kill(gateway, signal.SIGKILL)
            assert asking.answered(2, more=100)
        assert asking.failures == []
        assert all(each == sorted(each) for each in asking.versions)
        assert client.decide("ranking").revision != first.revision
        assert eventually(lambda: client.decide("ranking") and (client.rules_age_s or 60) < 10)
