"""The real agent of a shard: ready once its server is filled, and then whatever becomes of the stores."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.provision import provision
from tidegate.aws.registry import DynamoRegistry
from tidegate.ports import EndpointState, LiveEntry, ModelLoad

from tests.control.rules import bundle
from tests.support.aws import local_server, names
from tests.support.fake_servers import fake_server
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


def test_a_filled_server_stays_ready_while_the_stores_are_down(tmp_path: Path) -> None:
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
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        port = free_port()
        command = [sys.executable, "-m", "tidegate.cli", "shard-agent", "--host", "127.0.0.1", "--port", str(port)]
        with (tmp_path / "errors").open("wb") as errors:
            agent = subprocess.Popen([*command, f"--http-port={server.port}"], env=others | variables, stderr=errors)
        try:
            assert eventually(lambda: status(port) == 200, 60), (tmp_path / "errors").read_text()
            registry = DynamoRegistry(aws.clients(), aws.table)
            (entry,) = asyncio.run(registry.endpoints("b"))
            assert entry.state is EndpointState.READY
            aws.clients()._client("dynamodb").delete_table(TableName=aws.table)
            aws.s3().delete_object(Bucket=aws.bucket, Key="live/pointer.json")
            until = time.monotonic() + OUTAGE_S
            answers = set()
            while time.monotonic() < until:
                answers.add(status(port))
                time.sleep(0.1)
            assert answers == {200}
            assert "cannot be registered" in (tmp_path / "errors").read_text()
            assert server.loaded == {"popular": {"1"}}
            asyncio.run(provision(aws.clients(), aws.bucket, aws.table))
            assert eventually(lambda: len(asyncio.run(registry.endpoints("b"))) == 1, 30)
            assert status(port) == 200
        finally:
            agent.terminate()
            agent.wait(20)
