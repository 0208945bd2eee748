"""The reconciler among servers that answer oddly, and entries of the registry that are not trusted: it reports them,
sends no secret where it must not, and has every other server hold what it must."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.registry import DynamoRegistry
from tidegate.ports import Endpoint, EndpointState, ModelLoad, RegisteredEndpoint

from tests.control.rules import bundle
from tests.lambdas.conftest import Deployment, Starter
from tests.support.fake_servers import ODD_STATS, STATS, FakeServer, fake_server

SECRET = "a-management-secret"
LOAD = ModelLoad("popular", (1,), '{"version_policy": {"specific": {"versions": [1]}}}')
SCHEDULE = {"source": "aws.events", "detail-type": "Scheduled Event"}
NETWORK = "127.0.0.0/24"
ELSEWHERE = "127.0.1.1"


class Stage:
    """A deployment whose shard `b` must hold a model, and its reconciler."""

    def __init__(self, deployment: Deployment, start: Starter) -> None:
        self.aws = deployment.aws
        variables = deployment.variables({}) | {"TIDEGATE_MANAGEMENT_SECRET": SECRET}
        variables |= {"TIDEGATE_ENDPOINT_NETWORKS": NETWORK, "TIDEGATE_PROBE_INTERVAL_S": "0.1"}
        self._start, self._variables = start, variables
        revision = deployment.publish(bundle(main="popular"))
        asyncio.run(S3BundleStore(self.aws.objects()).put_assignment(revision, {"b": (LOAD,)}))

    def invoke(self, function: str = "reconcile") -> tuple[dict[str, Any], str]:
        """The function's answer to the schedule, and its log."""
        environment = self._start(function, self._variables)
        return environment.invoke(SCHEDULE), environment.log

    def register(self, *servers: FakeServer) -> None:
        registry = DynamoRegistry(self.aws.clients(), self.aws.table)

        async def work() -> None:
            for server in servers:
                entry = RegisteredEndpoint(Endpoint("b", server.host, server.port), EndpointState.READY, time.time())
                await registry.register(entry)

        asyncio.run(work())

    def write(self, partition: str, sort: str, **changes: Any) -> None:
        """Write an item as a shard's agent does, but for `changes`; None leaves an attribute out."""
        life = {"seen_at": {"N": repr(time.time())}, "expires_at": {"N": str(int(time.time()) + 60)}}
        item = {
            "pk": {"S": partition},
            "sk": {"S": sort},
            "state": {"S": "ready"},
            "note": {"S": ""},
            **life,
            **changes,
        }
        found = {name: value for name, value in item.items() if value is not None}
        self.aws.clients().client("dynamodb").put_item(TableName=self.aws.table, Item=found)


@pytest.fixture
def stage(deployment: Deployment, start: Starter) -> Stage:
    return Stage(deployment, start)


@pytest.fixture
def good() -> Iterator[FakeServer]:
    with fake_server() as server:
        yield server


def test_servers_that_answer_oddly_are_reported_while_the_others_converge(stage: Stage, good: FakeServer) -> None:
    with contextlib.ExitStack() as running:
        odd = {name: running.enter_context(fake_server()) for name in ODD_STATS}
        for name, server in odd.items():
            server.stats = (200, ODD_STATS[name])
        failing = running.enter_context(fake_server())
        failing.stats = (500, b'{"error": ' + b"[" * 100_000)
        stage.register(good, failing, *odd.values())
        answer, log = stage.invoke()
    assert [(each["url"], each["action"]) for each in answer["actions"]] == [
        (f"http://127.0.0.1:{good.port}", "load")
    ], answer
    assert good.loaded == {"popular": {"1"}}
    expected = {f"http://127.0.0.1:{server.port}" for server in (failing, *odd.values())}
    assert set(answer["unreachable"]) == expected, expected ^ set(answer["unreachable"])
    for name, server in odd.items():
        assert "answered no statistics of models" in answer["unreachable"][f"http://127.0.0.1:{server.port}"], name
        assert not server.loaded, name
    metrics = [json.loads(line) for line in log.splitlines() if "UnreachableEndpoints" in line and "_aws" in line]
    assert [line["UnreachableEndpoints"] for line in metrics] == [[len(expected)]]


def test_the_secret_goes_nowhere_that_an_untrusted_entry_names(stage: Stage, good: FakeServer) -> None:
    with fake_server(ELSEWHERE) as attacker, fake_server() as near:
        stage.register(good)
        here = f"127.0.0.1:{near.port}"
        stage.write("endpoint#b", f"{ELSEWHERE}:{attacker.port}")
        stage.write("endpoint#b", f"localhost:{near.port}")
        stage.write("endpoint#b", f"127.000.000.001:{near.port}")
        stage.write("endpoint#c", here, shard={"S": "b"})
        stage.write("endpoint#d", here, host={"S": ELSEWHERE})
        stage.write("endpoint#e", here, seen_at=None)
        stage.write("endpoint#f", here, seen_at={"S": "now"})
        stage.write("endpoint#g", here, seen_at={"N": "99999999999"})
        stage.write("endpoint#h", here, state={"S": "excellent"})
        stage.write("endpoint#i", here, metrics_port={"N": "70000"})
        stage.write("endpoint#j", "nonsense")
        # As it was keyed once, and what a role that may write no endpoint can write.
        stage.write("endpoint", f"b/{here}")
        stage.write("gateway", "a-gateway", revision=None)
        answer, log = stage.invoke()
        probed, _ = stage.invoke("probe")
        assert attacker.asked == near.asked == []
    assert good.loaded == {"popular": {"1"}}, answer
    assert {headers["tidegate-management"] for path, headers in good.asked if path == STATS} == {SECRET}
    assert len(answer["refused"]) == 11, answer["refused"]
    assert any(f"{ELSEWHERE} is outside the networks" in reason for reason in answer["refused"])
    assert not answer["converged"]
    assert SECRET not in log
    (metrics,) = [json.loads(line) for line in log.splitlines() if "RefusedEndpoints" in line and "_aws" in line]
    assert metrics["RefusedEndpoints"] == [11]
    assert "gateway a-gateway is malformed" in log
    assert set(probed["shards"]) == {"b"}


def test_a_server_without_metrics_that_can_be_read_counts_as_unreachable(stage: Stage) -> None:
    sample = 'nv_inference_queue_duration_us{model="popular",version="1"} '
    bodies = ["<html>", f"{sample}many\n", f"{sample}NaN\n", f"{sample}-1\n", "nv_inference_queue_duration_us 3\n"]

    with contextlib.ExitStack() as running:
        for text in [*bodies, f"# HELP a b\n{sample}5\n"]:
            server = running.enter_context(fake_server())
            server.metrics = text.encode()
            port = {"N": str(server.port)}
            stage.write("endpoint#b", f"127.0.0.1:{server.port}", metrics_port=port)
        found, _ = stage.invoke("probe")
    assert (found["shards"]["b"]["registered"], found["shards"]["b"]["unreachable"]) == (6, 5)


def test_a_lost_pointer_unloads_nothing_and_is_counted(stage: Stage, good: FakeServer) -> None:
    good.loaded.update(popular={"1"}, other={"1"})
    stage.register(good)
    stage.aws.s3().delete_object(Bucket=stage.aws.bucket, Key="live/pointer.json")
    answer, log = stage.invoke()
    assert good.loaded == {"popular": {"1"}, "other": {"1"}}
    (problem,) = answer["problems"]
    assert "nothing is unloaded" in problem
    (metrics,) = [json.loads(line) for line in log.splitlines() if '"Problems"' in line and "_aws" in line]
    assert metrics["Problems"] == [1]
