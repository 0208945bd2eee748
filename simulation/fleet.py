"""An hour and more of a large fleet: publishes all the time, failures, the loss of a zone, a rolling replacement, and the restart
of half of all servers at one moment.

The control plane is the real one: planner, publish, reconcile, supervisors, followers. Stores and servers are in memory, and the clock
is simulated. What only watches one server (its pulse, its self-test) is slowed down or left out, as it grows with nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidegate.bootstrap.rules_sources import GivenRules
from tidegate.control.publish import PublishRequest, publish_rules
from tidegate.control.reconcile import reconcile_fleet
from tidegate.errors import RulesError, TidegateError
from tidegate.fleet import pulse, supervisor
from tidegate.gateway.follower import EngineFollower
from tidegate.language.compiler import emit
from tidegate.language.directory import read_directory
from tidegate.rules import Engine
from tidegate.testing import MemoryModel

from simulation.world import ZONES, Agent, Calls, World
from simulation.writing import mermaid_lines
from tests.support import virtual_time

Work = Callable[[], Awaitable[None]]

CHECK_S = 15.0
"""How often the invariants are checked."""

WATCHED_EVERY_S = 10.0
"""How often a supervisor looks at its own server, in place of four times a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A fleet and its day."""

    shards: int = 100
    replicas: int = 10
    ensembles: int = 5_000
    families: int = 200
    objectives: int = 50
    gateways: int = 20
    publish_every_s: float = 288.0
    reconcile_every_s: float = 60.0
    hours: float = 0.6
    zone_at_s: float = 120.0
    replace_at_s: float = 500.0
    replaced_at_once: int = 4
    restart_at_s: float = 1500.0
    ends_every_s: float = 300.0

    @property
    def servers(self) -> int:
        return self.shards * self.replicas


@dataclass(slots=True)
class Outcome:
    """What became of it. Times are in seconds, `ready` has the ready servers at each check."""

    size: Size
    publishes: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    reconciles: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    unserved: Counter[str] = field(default_factory=Counter)
    checks: int = 0
    ready: list[int] = field(default_factory=list)
    recovered: dict[str, float] = field(default_factory=dict)
    calls: dict[str, dict[str, Counter[int]]] = field(default_factory=dict)
    cpu_s: float = 0.0


def models_of(size: Size) -> dict[str, MemoryModel]:
    """Return ensembles of two steps each, which a family shares."""
    steps = {f"step_{number}": MemoryModel((1,)) for number in range(2 * size.families)}
    return steps | {f"ensemble_{number}": _ensemble(size, number) for number in range(size.ensembles)}


def _ensemble(size: Size, number: int) -> MemoryModel:
    family = number % size.families
    return MemoryModel((1,), tuple(f"step_{2 * family + part}/1" for part in (0, 1)))


def rules_of(size: Size, edition: int) -> GivenRules:
    """Return the rules after `edition` changes: each adds an ensemble and takes the place of another with it."""
    memory = 40 * size.ensembles / size.shards + 2 * size.families * 2000 / size.shards
    fleet: dict[str, dict[str, Any]] = {
        "shards": {
            f"shard_{number}": {
                "replicas": size.replicas,
                "memory_mb": int(memory),
                "traffic_per_s": 20 * size.ensembles / size.shards,
            }
            for number in range(size.shards)
        },
        "models": {
            name: {"shards": "auto", "memory_mb": 20, "traffic_per_s": 10}
            for name in (
                *(f"ensemble_{number}" for number in range(size.ensembles)),
                *(f"new_{n}" for n in range(1, edition + 1)),
            )
        },
        "steps": {f"step_{number}": {"memory_mb": 300} for number in range(2 * size.families)},
    }
    served = [f"ensemble_{number}" for number in range(size.ensembles)]
    for number in range(1, edition + 1):
        served[(number * 37) % size.ensembles] = f"new_{number}"
    kept = {*served}
    fleet["models"] = {name: about for name, about in fleet["models"].items() if name in kept}
    with tempfile.TemporaryDirectory() as folder:
        objectives = Path(folder) / "objectives"
        objectives.mkdir()
        (Path(folder) / "fleet.yaml").write_text(json.dumps(fleet))
        each = size.ensembles // size.objectives
        for number in range(size.objectives):
            rules = [
                {"id": f"rule_{at}", "when": {"country": f"c{at}"}, "serve": model}
                for at, model in enumerate(served[number * each : (number + 1) * each])
            ]
            rules.append({"id": "rest", "serve": served[number * each]})
            about = {"summary": "One of many.", "owner": "simulation", "timeout_ms": 100}
            document = {"objective": f"o{number}", **about, "context": {"country": {"type": "string"}}, "rules": rules}
            (objectives / f"o{number}.yaml").write_text(json.dumps(document))
        program, findings = read_directory(folder)
        if findings:
            raise RulesError(findings)
        return GivenRules(emit(program), program.world.demand)


class Run:
    """One run of a fleet."""

    def __init__(self, size: Size, seed: int = 1) -> None:
        self.size = size
        self.world = World(models_of(size), seed)
        self.outcome = Outcome(size)
        self.gateways: list[EngineFollower] = []
        self._began = 0.0
        self._edition = 0

    async def run(self) -> Outcome:
        began = time.process_time()
        size, world = self.size, self.world
        for shard in range(size.shards):
            for replica in range(size.replicas):
                world.start(f"shard_{shard}", replica % ZONES)
        while world.ready() < size.servers:
            await asyncio.sleep(1)
        await self._publish()
        world.launcher.boots_at_once = False
        self._began = asyncio.get_running_loop().time()
        gateways_calls = Calls()
        for number in range(size.gateways):
            ports = world.process(gateways_calls).ports
            follower = EngineFollower(ports.bundles, f"gateway-{number}", ports.registry)
            self.gateways.append(follower)
        tasks = [asyncio.create_task(gateway.run()) for gateway in self.gateways]
        tasks += [
            asyncio.create_task(work)
            for work in (
                self._every(size.publish_every_s, self._publish),
                self._every(size.reconcile_every_s, self._reconcile),
                self._every(CHECK_S, self._check),
                self._every(size.ends_every_s, self._end_one),
                self._at(size.zone_at_s, "the loss of a zone", self._lose_zone),
                self._at(size.replace_at_s, "the replacement of all servers", self._replace_all),
                self._at(size.restart_at_s, "the restart of half of the servers", self._restart_half),
            )
        ]
        await asyncio.sleep(size.hours * 3600)
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                raise task.exception()  # type: ignore[misc]
            task.cancel()
        # Before all agents deregister at once.
        self.outcome.calls = {
            who: {name: Counter(by_second) for name, by_second in calls.by_second.items()}
            for who, calls in (
                ("agents", world.agents_calls),
                ("publisher and reconciler", world.control_calls),
                ("gateways", gateways_calls),
            )
        }
        await asyncio.wait(tasks)
        await asyncio.gather(*(agent.stop() for agent in world.every()))
        self.outcome.cpu_s = time.process_time() - began
        return self.outcome

    async def _every(self, seconds: float, work: Work) -> None:
        while True:
            await asyncio.sleep(seconds)
            await work()

    async def _at(self, at_s: float, name: str, harm: Work) -> None:
        """Do harm, and note how long it takes until every server is ready again."""
        await asyncio.sleep(at_s)
        began = asyncio.get_running_loop().time()
        await harm()
        await asyncio.sleep(1)
        while self.world.ready() < self.size.servers - 1:
            await asyncio.sleep(1)
        self.outcome.recovered[name] = asyncio.get_running_loop().time() - began

    async def _publish(self) -> None:
        began = asyncio.get_running_loop().time()
        if self.world.bundles.history:
            self._edition += 1
            self.world.catalog.models[f"new_{self._edition}"] = _ensemble(
                self.size, self._edition * 37 % self.size.ensembles
            )
        try:
            request = PublishRequest(rules=rules_of(self.size, self._edition), by="simulation")
            await publish_rules(self.world.process(self.world.control_calls), request, lambda _event: None)
        except TidegateError as error:
            self.outcome.failed.append(str(error))
        else:
            self.outcome.publishes.append(asyncio.get_running_loop().time() - began)

    async def _reconcile(self) -> None:
        began = asyncio.get_running_loop().time()
        await reconcile_fleet(self.world.process(self.world.control_calls), "simulation")
        self.outcome.reconciles.append(asyncio.get_running_loop().time() - began)

    async def _check(self) -> None:
        """Check that whatever a gateway may decide now is READY somewhere where its shards have a server at all, and that none that
        is registered ready lacks what it must answer."""
        self.outcome.checks += 1
        self.outcome.ready.append(self.world.ready())
        served = {gateway.revision: gateway.engine() for gateway in self.gateways if gateway.revision is not None}
        for revision, engine in served.items():
            self._check_engine(revision, engine)

    def _check_engine(self, revision: str, engine: Engine) -> None:
        now = asyncio.get_running_loop().time() - self._began
        for target in engine.targets():
            if not any(self.world.serves(shard, target.model, target.version) for shard in target.shards):
                have = sum(
                    entry.state == "ready" for shard in target.shards for entry in self.world.registry.now(shard)
                )
                if have:
                    self.outcome.violations.append(
                        f"at {now:.0f} s: {target.name} of {revision[:8]} is READY on none of {have} servers"
                    )
                else:
                    self.outcome.unserved[f"{', '.join(target.shards)}"] += 1

    async def _end_one(self) -> None:
        running = [server for server in self.world.launcher.servers if server.running]
        self.world.draw.choice(running).end("crashed")

    async def _lose_zone(self) -> None:
        for agent in self.world.every():
            server = agent.server(self.world)
            if agent.zone == 0 and server is not None:
                server.end("its zone was lost")

    async def _restart_half(self) -> None:
        for agent in self.world.every():
            server = agent.server(self.world)
            if server is not None and self.world.draw.random() < 0.5:
                server.end("its machine restarted")

    async def _replace_all(self) -> None:
        """Replace some servers of each shard at a time, each once its successor is ready."""
        every = {shard: list(group) for shard, group in self.world.agents.items()}
        for begin in range(0, self.size.replicas, self.size.replaced_at_once):
            olds = [
                (shard, old)
                for shard, group in every.items()
                for old in group[begin : begin + self.size.replaced_at_once]
            ]
            await asyncio.gather(*(self._replace_one(shard, old) for shard, old in olds))

    async def _replace_one(self, shard: str, old: Agent) -> None:
        new = self.world.start(shard, old.zone)
        while not new.is_ready:
            await asyncio.sleep(1)
        self.world.agents[shard].remove(old)
        await old.retire()


def simulate(size: Size, seed: int = 1) -> Outcome:
    """Run a fleet on a simulated clock. It slows down what only watches a single server, which no other part waits for."""
    logging.getLogger("tidegate").setLevel(logging.CRITICAL)
    kept = pulse.EVERY_S, supervisor.WATCH_S
    pulse.EVERY_S, supervisor.WATCH_S = WATCHED_EVERY_S, WATCHED_EVERY_S
    try:
        return virtual_time.run(Run(size, seed).run(), 1e6, 1 << 62)
    finally:
        pulse.EVERY_S, supervisor.WATCH_S = kept
        logging.getLogger("tidegate").setLevel(logging.NOTSET)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


def run() -> str:
    """Return the section of docs/scale.md."""
    return describe(simulate(Size()))


def describe(outcome: Outcome) -> str:
    size = outcome.size
    seconds = size.hours * 3600
    rows = []
    for who, calls in outcome.calls.items():
        for name, by_second in sorted(calls.items()):
            if by_second.total() >= seconds / 60:
                rows.append(f"| {who} | `{name}` | {by_second.total() / seconds:,.1f} | {max(by_second.values()):,} |")
    recovered = "\n".join(f"| {name} | {seconds:,.0f} |" for name, seconds in outcome.recovered.items())
    step = max(1, len(outcome.ready) // 60)
    line = [float(count) for count in outcome.ready[::step]]
    failed = (
        f"; {len(outcome.failed)} failed: {'; '.join(sorted({each[:120] for each in outcome.failed}))}"
        if outcome.failed
        else ""
    )
    return (
        f"{size.shards} shards, {size.servers:,} servers in {ZONES} zones, {size.ensembles:,} ensembles, {size.objectives} objectives, "
        f"{size.gateways} gateways, for {size.hours:g} hours; a publish every {size.publish_every_s:.0f} s, "
        f"{86400 / size.publish_every_s:.0f} a day. It took {outcome.cpu_s / 60:.1f} minutes of one core.\n\n"
        f"- {outcome.checks:,} checks found {len(outcome.violations)} targets that a gateway could decide for and no server of its "
        f"shards that is registered ready could answer, and {outcome.unserved.total()} whose shards had no server.\n"
        f"- {len(outcome.publishes)} publishes took {_median(outcome.publishes):.0f} s in the median, "
        f"{max(outcome.publishes, default=0):.0f} s at most{failed}.\n"
        f"- {len(outcome.reconciles)} reconciles took {_median(outcome.reconciles):.1f} s in the median, "
        f"{max(outcome.reconciles, default=0):.0f} s at most.\n\n"
        f"| until every server is ready again, s | |\n|---|---:|\n{recovered}\n\n"
        "| calls by | call | a second | most in one second |\n|---|---|---:|---:|\n"
        + "\n".join(rows)
        + "\n\n"
        + mermaid_lines("servers that are ready", ("minutes", 0, size.hours * 60), "servers", [line])
    )
