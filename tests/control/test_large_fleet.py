"""A large fleet in memory: 50 shards with two replicas each, 2 000 ensembles that share steps, placed by the planner."""

from __future__ import annotations

import asyncio
import functools
import json
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from tidegate.bootstrap.rules_sources import GivenRules
from tidegate.control.config import ControlConfig
from tidegate.control.publish import PublishRequest, publish_rules
from tidegate.control.reconcile import reconcile_fleet
from tidegate.ports import Endpoint, RegisteredEndpoint
from tidegate.rules import compile_directory, load_bundle
from tidegate.testing import MemoryModel

from tests.control.mortal import Interference, interfered
from tests.control.plane import Plane
from tests.support.virtual_time import run

SHARDS, REPLICAS, ENSEMBLES, FAMILIES = 50, 2, 2000, 40
CHANGES = {
    "bundles": {"put_bundle", "put_assignment", "flip", "claim", "release"},
    "models": {"push"},
    "registry": {"register", "deregister", "mark_wedged", "report"},
    "endpoint": {"load", "unload"},
}
"""The calls that change something, by port."""

MODELS = {f"step_{number}": MemoryModel((1,)) for number in range(2 * FAMILIES)} | {
    f"ensemble_{number}": MemoryModel((1,), tuple(f"step_{2 * (number % FAMILIES) + part}/1" for part in (0, 1)))
    for number in range(ENSEMBLES)
}


@functools.cache
def bundle(served: int = ENSEMBLES) -> bytes:
    """Rules that serve the first `served` ensembles, one to each country, wherever the planner puts them."""
    fleet = {
        "shards": {
            f"shard_{number}": {"replicas": REPLICAS, "memory_mb": 3000, "traffic_per_s": 300}
            for number in range(SHARDS)
        },
        "models": {
            f"ensemble_{number}": {"shards": "auto", "memory_mb": 20, "traffic_per_s": 1 + number % 5}
            for number in range(ENSEMBLES)
        },
        "steps": {f"step_{number}": {"memory_mb": 70} for number in range(2 * FAMILIES)},
    }
    rules = [
        {"id": f"rule_{number}", "when": {"country": f"c{number}"}, "serve": f"ensemble_{number}"}
        for number in range(served)
    ]
    objective = {
        "objective": "main",
        "summary": "A test.",
        "owner": "tests",
        "timeout_ms": 100,
        "context": {"country": {"type": "string"}},
        "rules": [*rules, {"id": "rest", "serve": "ensemble_0"}],
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "objectives").mkdir()
        (Path(folder) / "fleet.yaml").write_text(json.dumps(fleet))
        (Path(folder) / "objectives" / "main.yaml").write_text(json.dumps(objective))
        return compile_directory(folder)


class Calls(Interference):
    """Notes every call."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []

    async def around(self, port: str, method: str, call: Callable[[], Awaitable[object]]) -> object:
        self.made.append((port, method))
        return await call()

    @property
    def changes(self) -> list[tuple[str, str]]:
        return [(port, method) for port, method in self.made if method in CHANGES.get(port, ())]


async def published() -> Plane:
    plane = Plane(MODELS, ControlConfig(keep_revisions=0))
    # Looked at in the end, not at every change of one of a hundred servers.
    plane.launcher.history, plane.bundles.history = [], []
    plane.look = lambda: None  # type: ignore[method-assign]
    for shard in range(SHARDS):
        for _ in range(REPLICAS):
            await plane.add(f"shard_{shard}")
    await publish(plane, bundle())
    return plane


async def publish(plane: Plane, rules: bytes) -> None:
    await publish_rules(plane.process(), PublishRequest(rules=GivenRules(rules), by="ana"), plane.events.append)


def test_nothing_is_changed_where_nothing_differs() -> None:
    async def work() -> None:
        plane = await published()
        assert plane.broken() == []
        fleet = load_bundle(plane.bundles.bundles[plane.live()]).fleet
        assert len({shard for model in fleet.models.values() for shard in model}) == SHARDS
        done = len(plane.launcher.history)
        calls = Calls()
        result = await reconcile_fleet(plane.process(calls), "carl")
        assert result.converged
        assert result.endpoints == SHARDS * REPLICAS
        assert calls.changes == []
        assert calls.made.count(("endpoint", "loaded")) == SHARDS * REPLICAS
        assert len(plane.launcher.history) == done
        # The planner itself moves nothing either.
        await publish(plane, bundle())
        assert len(plane.launcher.history) == done

    run(work())


def test_endpoints_that_hang_hold_up_nobody_else() -> None:
    async def work() -> None:
        plane = await published()
        silent = {server.endpoint for server in plane.launcher.running()[::7]}
        emptied = [server for server in plane.launcher.running() if server.endpoint not in silent]
        for server in emptied:
            server.repository.holds.clear()
        process = plane.process()
        plain, hung = process.ports.repository_of, _hanging(plane)
        object.__setattr__(
            process.ports, "repository_of", lambda entry: (hung if entry.endpoint in silent else plain)(entry)
        )
        began = asyncio.get_running_loop().time()
        result = await reconcile_fleet(process, "carl")
        # A few rounds of the calls' time-out, as only so many endpoints are asked at once.
        assert asyncio.get_running_loop().time() - began < 10 * plane.config.call_timeout_s
        assert {_endpoint(plane, url) for url in result.unreachable} == silent
        desired = await plane.process().reader.read()
        for server in emptied:
            assert server.repository.holds.keys() == {load.model for load in desired.plan(server.endpoint.shard)}

    run(work())


def test_a_rule_change_loads_only_what_it_needs() -> None:
    async def work() -> None:
        plane = await published()
        await publish(plane, bundle(ENSEMBLES - 10))
        await asyncio.sleep(60)
        await plane.reconcile()
        done = len(plane.launcher.history)
        await publish(plane, bundle())
        loaded = {event.model for event in plane.launcher.history[done:] if event.action == "loaded"}
        assert {model for model in loaded if model.startswith("ensemble_")} == {
            f"ensemble_{number}" for number in range(ENSEMBLES - 10, ENSEMBLES)
        }
        assert plane.broken() == []

    run(work())


def test_a_publish_asks_each_server_a_few_times_however_many_targets_it_has() -> None:
    async def work() -> None:
        plane = await published()
        await publish(plane, bundle(ENSEMBLES - 10))
        calls = Calls()
        await publish_rules(
            plane.process(calls),
            PublishRequest(rules=GivenRules(bundle(ENSEMBLES - 20)), by="ana"),
            plane.events.append,
        )
        asked = Counter(method for port, method in calls.made if port == "endpoint")
        assert asked.pop("unload") <= 30 * REPLICAS
        assert asked.total() <= 8 * SHARDS * REPLICAS, asked
        assert plane.broken() == []

    run(work())


def _hanging(plane: Plane) -> Callable[[RegisteredEndpoint], object]:
    class Hangs(Interference):
        async def around(self, port: str, method: str, call: Callable[[], Awaitable[object]]) -> object:
            await asyncio.sleep(1e6)
            return await call()

    return interfered(plane.ports(), Hangs()).repository_of


def _endpoint(plane: Plane, url: str) -> Endpoint:
    return next(server.endpoint for server in plane.launcher.servers if server.endpoint.url == url)
