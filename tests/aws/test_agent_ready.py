"""The real agent of a shard: ready once its server is filled, and then whatever becomes of the stores."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.provision import provision
from tidegate.aws.registry import DynamoRegistry
from tidegate.ports import EndpointState, LiveEntry, ModelLoad

from tests.control.rules import bundle
from tests.support.aws import LocalAws, local_server, names
from tests.support.fake_servers import FakeServer, fake_server
from tests.support.stack import ROOT, eventually

HELD = ModelLoad("popular", (1,), '{"version_policy": {"specific": {"versions": [1]}}}')
OUTAGE_S = 4.0
"""Many times longer than the agent takes to notice: it tells the registry of itself each fifth of a second."""


def status(port: int) -> int:
    """What `GET /ready` answers; 0 where nothing does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Agent:
    """A running agent beside a fake server, the stores that it uses, and the port of its `/ready`."""

    process: subprocess.Popen[bytes]
    port: int
    server: FakeServer
    aws: LocalAws
    log: Path

    @property
    def errors(self) -> str:
        return self.log.read_text()


@contextlib.contextmanager
def running_agent(log: Path, **settings: str) -> Iterator[Agent]:
    """An agent that is ready: what is live is loaded on its server."""
    with fake_server() as server, local_server() as url:
        aws = names(url)
        server.loaded["popular"] = {"1"}

        async def publish() -> None:
            await provision(aws.clients(), aws.bucket, aws.table)
            store = S3BundleStore(aws.objects())
            revision = await store.put_bundle(bundle(main="popular"))
            await store.put_assignment(revision, {"b": (HELD,)})
            await store.flip(LiveEntry(revision, 1, "tests", time.time()), None)

        asyncio.run(publish())
        variables = {
            "TIDEGATE_SHARD": "b",
            "TIDEGATE_BUCKET": aws.bucket,
            "TIDEGATE_REGISTRY_TABLE": aws.table,
            "TIDEGATE_AWS_ENDPOINT_URL": url,
            "TIDEGATE_AWS_REGION": "us-east-1",
            "TIDEGATE_REPORT_INTERVAL_S": "0.2",
            "TIDEGATE_STORE_TIMEOUT_S": "0.2",
            "TIDEGATE_SELF_TEST_INTERVAL_S": "0",
            "PYTHONPATH": str(ROOT / "functions"),
        } | {f"TIDEGATE_{name.upper()}": value for name, value in settings.items()}
        others = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        port = free_port()
        command = [sys.executable, "-m", "tidegate.cli", "shard-agent", "--host", "127.0.0.1", "--port", str(port)]
        with log.open("wb") as errors:
            process = subprocess.Popen([*command, f"--http-port={server.port}"], env=others | variables, stderr=errors)
        try:
            assert eventually(lambda: status(port) == 200, 60), log.read_text()
            yield Agent(process, port, server, aws, log)
        finally:
            process.terminate()
            process.wait(20)


def test_a_filled_server_stays_ready_while_the_stores_are_down(tmp_path: Path) -> None:
    with running_agent(tmp_path / "errors") as agent:
        aws = agent.aws
        registry = DynamoRegistry(aws.clients(), aws.table)
        (entry,) = asyncio.run(registry.endpoints("b"))
        assert entry.state is EndpointState.READY
        aws.clients()._client("dynamodb").delete_table(TableName=aws.table)
        aws.s3().delete_object(Bucket=aws.bucket, Key="live/pointer.json")
        until = time.monotonic() + OUTAGE_S
        answers = set()
        while time.monotonic() < until:
            answers.add(status(agent.port))
            time.sleep(0.1)
        assert answers == {200}
        assert "cannot be registered" in agent.errors
        assert agent.server.loaded == {"popular": {"1"}}
        asyncio.run(provision(aws.clients(), aws.bucket, aws.table))
        assert eventually(lambda: len(asyncio.run(registry.endpoints("b"))) == 1, 30)
        assert status(agent.port) == 200


def test_a_server_that_answers_nothing_is_not_ready_and_is_given_up_with_its_agent_after_a_while(
    tmp_path: Path,
) -> None:
    with running_agent(tmp_path / "errors", hung_after_s="6") as agent:
        agent.server.stopped = True
        assert eventually(lambda: status(agent.port) == 503)
        agent.server.stopped = False
        assert eventually(lambda: status(agent.port) == 200)
        agent.server.stopped = True
        assert agent.process.wait(40) == 1
        assert "answered nothing for 6 s" in agent.errors
