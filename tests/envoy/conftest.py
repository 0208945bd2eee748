"""Resolvers as `tidegate resolve-server` runs them, over rules that a test makes live in a store of its own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.bootstrap.compiled import find_filter
from tidegate.ports import LiveEntry
from tidegate.rules import compile_directory

from assets.compiling import can_compile
from tests.support.aws import LocalAws
from tests.support.running_command import Command, command
from tests.web.conftest import Reply

# As everywhere without a C compiler, Envoy asks its resolvers about every request there, and the command says so.
collect_ignore = [] if find_filter() is not None or can_compile() else ["test_in_process.py"]

FLEET = """\
shards: {alpha: {replicas: 2}, beta: {}}
models:
  first: {shards: [alpha, beta]}
  second: {shards: [beta]}
"""
RANKING = """\
objective: ranking
context:
  member_id: {type: string, required: true}
  country: {type: string, from: header:X-Country}
sticky_key: member_id
timeout_ms: 2500
fallback: [second/1]
rules:
  - id: north
    when: {country: "NO"}
    split: {first/1: 50, second/2: 50}
    parameters: {top_k: 20}
  - id: default
    serve: first/1
    timeout_ms: 1500
"""
OPEN = """\
objective: open
degraded: second/1
rules: [{id: default, serve: first/1}]
"""
CALLERS = """\
callers:
  web: {objectives: [ranking], overrides: [second/1]}
  slow: {objectives: [ranking], rate_per_s: 0.01}
"""


def write_directory(folder: Path, *, callers: str | None = None, **objectives: str) -> Path:
    """A rules directory; the fleet is `FLEET`."""
    (folder / "objectives").mkdir(parents=True, exist_ok=True)
    (folder / "fleet.yaml").write_text(FLEET)
    if callers is not None:
        (folder / "callers.yaml").write_text(callers)
    for name, text in objectives.items():
        (folder / "objectives" / f"{name}.yaml").write_text(text)
    return folder


@dataclass(slots=True)
class Store:
    """A bucket and a table, in which rules are made live."""

    aws: LocalAws
    sequence: int = 0

    def publish(self, rules: Path) -> str:
        """Make the rules of a directory live; their revision."""

        async def flip() -> str:
            store = S3BundleStore(self.aws.objects())
            revision = await store.put_bundle(compile_directory(rules))
            self.sequence += 1
            await store.flip(LiveEntry(revision, self.sequence, "tests", 1.0, "a test"), await store.pointer())
            return revision

        return asyncio.run(flip())

    def variables(self, url: str | None = None) -> dict[str, str]:
        return {
            "TIDEGATE_BUCKET": self.aws.bucket,
            "TIDEGATE_REGISTRY_TABLE": self.aws.table,
            "TIDEGATE_AWS_ENDPOINT_URL": url or self.aws.url,
            "TIDEGATE_POLL_INTERVAL_S": "0.1",
        }


@pytest.fixture
def store(aws: LocalAws) -> Store:
    return Store(aws)


def ask(
    port: int | Path,
    path: str,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
    body: bytes = b"",
) -> Reply:
    """Ask a server at a port, or at a Unix socket."""
    connection = http.client.HTTPConnection("127.0.0.1", port if isinstance(port, int) else 80, timeout=60)
    if isinstance(port, Path):
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(str(port))
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, found, answer.read())
    finally:
        connection.close()


def context(**values: Any) -> dict[str, str]:
    """The headers of a request with a context."""
    return {"Tidegate-Context": json.dumps(values)}


@contextlib.contextmanager
def resolver(folder: Path, variables: Mapping[str, str], workers: int = 2) -> Iterator[tuple[Command, int]]:
    """Run `tidegate resolve-server` on a free port and a Unix socket (`resolver.sock` of the folder); gives its port."""
    arguments = ["--listen", "127.0.0.1:0", "--listen", f"unix:{folder / 'resolver.sock'}"]
    arguments += ["--state", str(folder / "state"), "--workers", str(workers)]
    with command(folder / "resolver.log", "resolve-server", *arguments, variables=variables) as running:
        place, _ = running.wait_ready()
        yield running, int(place.rpartition(":")[2])
