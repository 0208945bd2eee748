"""Runs commands of `tidegate` that go on until they are stopped, as a user does."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tidegate.envoy.config import BOOTSTRAP
from tidegate.envoy.routes import RESOLVER

from tests.support.processes import end, listener_pids, reserve_port
from tests.support.stack import ROOT

READY_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60


class Command:
    """A command of `tidegate` that runs until it is stopped, and prints one line when it is ready."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def errors(self) -> str:
        return self._log.read_text()

    def wait_ready(self) -> list[str]:
        """Wait for the line `ready …`; its other words."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], READY_TIMEOUT_S)
        words = self.process.stdout.readline().decode().split() if readable else []
        assert words[:1] == ["ready"], (words, self.errors)
        return words[1:]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(STOP_TIMEOUT_S)


@contextlib.contextmanager
def command(log: Path, *arguments: str, variables: Mapping[str, str]) -> Iterator[Command]:
    """Run a command of `tidegate`; it is gone afterwards."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    environment |= {"PYTHONPATH": str(ROOT / "functions"), **variables}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tidegate.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            cwd=ROOT,
        )
    try:
        yield Command(process, log)
    finally:
        end(process, STOP_TIMEOUT_S)


def resolvers_of(state: Path) -> list[int]:
    """The processes that decide for the Envoy of `tidegate envoy run`: those that listen, by its configuration in `state`."""
    clusters = json.loads((state / BOOTSTRAP).read_text())["static_resources"]["clusters"]
    (found,) = [each for each in clusters if each["name"] == RESOLVER]
    endpoints = found["load_assignment"]["endpoints"][0]["lb_endpoints"]
    ports = [each["endpoint"]["address"]["socket_address"]["port_value"] for each in endpoints]
    return sorted(pid for port in ports for pid in listener_pids(port))


@contextlib.contextmanager
def envoy_beside(
    url: str, folder: Path, variables: Mapping[str, str] | None = None, workers: int = 2, options: Sequence[str] = ()
) -> Iterator[tuple[Command, int]]:
    """Run `tidegate envoy run` beside a stack, with its state in `folder`; gives Envoy's port."""
    port = reserve_port()
    arguments = ["--port", str(port), "--state", str(folder), "--workers", str(workers), "--stack", url, *options]
    # A resolver on a busy machine is slow, and no less right.
    own = {
        "TIDEGATE_POLL_INTERVAL_S": "0.2",
        "TIDEGATE_RESOLVER_TIMEOUT_MS": "60000",
        "TIDEGATE_CONNECT_TIMEOUT_MS": "20000",
        **(variables or {}),
    }
    with command(folder.with_suffix(".log"), "envoy", "run", *arguments, variables=own) as running:
        assert running.wait_ready() == [f"http://127.0.0.1:{port}"], running.errors
        yield running, port
