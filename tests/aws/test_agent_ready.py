"""The real agent of a shard: ready once its server is filled, and then whatever becomes of the stores."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.provision import provision
from tidegate.aws.registry import DynamoRegistry
from tidegate.models.catalog import plan_directory
from tidegate.ports import EndpointState, HttpRequest, LiveEntry, ModelLoad
from tidegate.rules import Target
from tidegate.rules.bundle import revision_of
from tidegate.triton.installation import find_installation
from tidegate.triton.server import TritonLauncher, TritonServer
from tidegate.triton.transport import PooledTransport

from tests.control.rules import bundle
from tests.support.aws import LocalAws
from tests.support.fake_servers import FakeServer, fake_server
from tests.support.parts import need
from tests.support.processes import reserve_port
from tests.support.stack import ROOT, eventually
from tests.triton.dying import EXIT, SOUND, request, write_mortal

HELD = ModelLoad("popular", (1,), '{"version_policy": {"specific": {"versions": [1]}}}')
SECRET = "a-secret-of-this-test"  # of a server of this test
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


def metrics(port: int) -> dict[tuple[str, str], float]:
    """What `GET /metrics` answers: the sums of the samples by name and model ("" for those without one)."""
    found: dict[tuple[str, str], float] = defaultdict(float)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        for family in text_string_to_metric_families(answer.read().decode()):
            for sample in family.samples:
                found[sample.name, sample.labels.get("model", "")] += sample.value
    return found


@dataclass(frozen=True, slots=True)
class Agent:
    """A running agent, and the port of its `/ready`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def errors(self) -> str:
        return self.log.read_text()


@contextlib.contextmanager
def running_agent(aws: LocalAws, log: Path, held: ModelLoad, *doors: str, **settings: str) -> Iterator[Agent]:
    """An agent that is ready: what is live is loaded on its server, which the options `doors` name."""

    async def publish() -> None:
        store = S3BundleStore(aws.objects())
        revision = await store.put_bundle(bundle(main="popular"))
        await store.put_assignment(revision, {"b": (held,)})
        await store.flip(LiveEntry(revision, 1, "tests", time.time()), None)

    asyncio.run(publish())
    variables = {
        "TIDEGATE_SHARD": "b",
        "TIDEGATE_BUCKET": aws.bucket,
        "TIDEGATE_REGISTRY_TABLE": aws.table,
        "TIDEGATE_AWS_ENDPOINT_URL": aws.url,
        "TIDEGATE_AWS_REGION": "us-east-1",
        "TIDEGATE_REPORT_INTERVAL_S": "0.2",
        "TIDEGATE_STORE_TIMEOUT_S": "5",
        "TIDEGATE_SELF_TEST_INTERVAL_S": "0",
        # A healthy server of a busy machine is not taken for one that hangs.
        "TIDEGATE_HUNG_AFTER_S": "120",
        "PYTHONPATH": str(ROOT / "functions"),
    } | {f"TIDEGATE_{name.upper()}": value for name, value in settings.items()}
    others = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    port = reserve_port()
    command = [sys.executable, "-m", "tidegate.cli", "shard-agent", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as errors:
        process = subprocess.Popen([*command, *doors], env=others | variables, stderr=errors)
    try:
        assert eventually(lambda: status(port) == 200), log.read_text()
        yield Agent(process, port, log)
    finally:
        process.terminate()
        process.wait(120)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server() as fake:
        fake.loaded["popular"] = {"1"}
        yield fake


def test_a_filled_server_stays_ready_while_the_stores_are_down(
    aws: LocalAws, server: FakeServer, tmp_path: Path
) -> None:
    with running_agent(aws, tmp_path / "errors", HELD, f"--http-port={server.port}") as agent:
        registry = DynamoRegistry(aws.clients(), aws.table)
        assert eventually(
            lambda: [each.state for each in asyncio.run(registry.endpoints("b"))] == [EndpointState.READY]
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{agent.port}/pointer", timeout=5) as answer:
            (entry,) = json.load(answer)["entries"]
            assert (entry["revision"], answer.headers["Age"].isdecimal()) == (revision_of(bundle(main="popular")), True)
        aws.clients().client("dynamodb").delete_table(TableName=aws.table)
        aws.s3().delete_object(Bucket=aws.bucket, Key="live/pointer.json")
        until = time.monotonic() + OUTAGE_S
        answers = set()
        while time.monotonic() < until:
            answers.add(status(agent.port))
            time.sleep(0.1)
        assert answers == {200}
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{agent.port}/pointer", timeout=5)
        assert "cannot be registered" in agent.errors
        assert server.loaded == {"popular": {"1"}}
        asyncio.run(provision(aws.clients(), aws.bucket, aws.table))
        assert eventually(lambda: len(asyncio.run(registry.endpoints("b"))) == 1)
        assert status(agent.port) == 200


def test_a_server_that_answers_nothing_is_not_ready_and_is_given_up_with_its_agent_after_a_while(
    aws: LocalAws, server: FakeServer, tmp_path: Path
) -> None:
    with running_agent(aws, tmp_path / "errors", HELD, f"--http-port={server.port}", hung_after_s="10") as agent:
        server.stopped = True
        assert eventually(lambda: status(agent.port) == 503, most_s=0.1)
        assert metrics(agent.port)["tidegate_server_ready", ""] == 0
        server.stopped = False
        assert eventually(lambda: status(agent.port) == 200)
        server.stopped = True
        assert agent.process.wait(300) == 1
        assert "answered nothing for " in agent.errors


def test_a_model_whose_process_has_ended_is_reloaded_by_the_self_test_alone_and_counted(
    aws: LocalAws, tmp_path: Path
) -> None:
    need("pytriton")
    models = tmp_path / "models"
    write_mortal(models, "popular")
    installation = find_installation(cache_dir=ROOT / ".cache" / "tidegate")
    (held,) = asyncio.run(plan_directory(models, [Target("popular/1", "popular", 1, ("b",))]))

    async def work() -> None:
        transport = PooledTransport()
        launcher = TritonLauncher(installation, models, transport, lambda: False, secret=SECRET)
        triton = await launcher.launch("b")
        try:
            await asyncio.to_thread(use, triton, transport, asyncio.get_running_loop())
        finally:
            await triton.kill()
            await transport.aclose()

    def use(triton: TritonServer, transport: PooledTransport, loop: asyncio.AbstractEventLoop) -> None:
        def ask(first: float) -> int:
            http = HttpRequest("POST", "/v2/models/popular/infer", body=json.dumps(request(first)).encode())
            sending = transport.send(triton.endpoint, http, 10)
            return asyncio.run_coroutine_threadsafe(sending, loop).result().status

        doors = (f"--http-port={triton.endpoint.port}", f"--grpc-port={triton.grpc_port}")
        settings = {"self_test_interval_s": "0.5", "management_secret": SECRET}
        with running_agent(aws, tmp_path / "errors", held, *doors, **settings) as agent:
            assert ask(SOUND) == 200
            assert ask(EXIT) == 500
            assert eventually(lambda: ask(SOUND) == 200), agent.errors
            assert "its process had ended; reloaded" in agent.errors
            assert eventually(lambda: status(agent.port) == 200)
            found = eventually(
                lambda: (seen := metrics(agent.port))["tidegate_model_reloads_total", "popular"] == 1 and seen
            )
            # Since the reload: the golden requests, and the one above.
            assert found["tidegate_model_step_requests_total", "popular"] >= 1
            assert found["tidegate_model_step_compute_infer_seconds_total", "popular"] > 0
            assert found["tidegate_server_ready", ""] == 1
            assert found["tidegate_process_resident_memory_bytes", ""] > 10_000_000

    asyncio.run(work())
