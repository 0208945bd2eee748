"""A fleet in memory: servers that load models, refuse them, hang on them or end, by the faults they are given.

Nothing waits on the clock: a load that hangs reports at once that its time has passed. Every call yields to other tasks once,
so that servers load side by side, and the same calls always give the same history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from tidegate.errors import (
    EndpointRefusedError,
    EndpointResetError,
    EndpointTimeoutError,
    ModelHangsError,
    ModelLoadError,
    StackError,
)
from tidegate.ports.models import GoldenOutcome, GoldenResult, Loaded, ModelLoad, ModelTimes, SelfTestState
from tidegate.ports.requests import Endpoint
from tidegate.rules import Target
from tidegate.testing.models import pinned_steps

SCRATCH = "scratch"
"""The shard of servers that models are tried on."""

HOST = "memory"
"""The host of every endpoint here; ports count up from 1."""

CALL_S = 5.0
"""Time-out of a call, in seconds."""

STOPPED_S = 0.05
"""How often a stopped server checks whether it may answer, in seconds."""


class FleetAction(StrEnum):
    LAUNCHED = "launched"
    LOADED = "loaded"
    REFUSED = "refused"
    HUNG = "hung"
    UNLOADED = "unloaded"
    ENDED = "ended"


class FleetEvent(NamedTuple):
    endpoint: Endpoint
    action: FleetAction
    model: str = ""
    versions: tuple[int, ...] = ()


@dataclass(slots=True)
class MemoryFaults:
    """Faults from the next call on.

    Attributes:
        refused: models whose load is refused, with the reason.
        hanging: models whose load never ends. It wedges its server: every later load there hangs too.
        held: models whose load waits until the event is set, and then goes its way.
        fatal: models whose load ends the server.
        fatal_once: models whose next load ends its server, and no later one.
        shards: shards where no server starts, with the reason.
    """

    refused: dict[str, str] = field(default_factory=dict)
    hanging: set[str] = field(default_factory=set)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    fatal: set[str] = field(default_factory=set)
    fatal_once: set[str] = field(default_factory=set)
    shards: dict[str, str] = field(default_factory=dict)


class MemoryModelRepository:
    """The `ModelRepository` of a `MemoryModelServer`.

    As on Triton, an ensemble is refused until its steps are READY, and unavailable once one of them is gone. Tests read and
    change `holds` (what is loaded), `done` (finished requests by model) and `faults` (of this server alone).
    """

    def __init__(self, server: MemoryModelServer, faults: MemoryFaults) -> None:
        self.faults = faults
        self.holds: dict[str, ModelLoad] = {}
        self.done: dict[str, int] = {}
        self._server = server
        self._wedged = ""

    def ready(self, model: str, version: int | None = None) -> bool:
        load = self.holds.get(model)
        if not self._server.running or load is None or (version is not None and version not in load.versions):
            return False
        return all(self.ready(step, version) for step, version in _steps_of(load))

    async def loaded(self) -> Loaded:
        await self._reach()
        return {name: frozenset(load.versions) for name, load in self.holds.items() if self.ready(name)}

    async def finished(self) -> Mapping[str, int]:
        await self._reach()
        return dict(self.done)

    async def times(self) -> Mapping[tuple[str, int], ModelTimes]:
        await self._reach()
        # The time of a request in memory is none.
        return {
            (name, version): ModelTimes(self.done.get(name, 0), 0, 0)
            for name, load in self.holds.items()
            for version in load.versions
        }

    async def model_ready(self, model: str, version: int | None = None) -> bool:
        await self._reach()
        return self.ready(model, version)

    async def load(self, load: ModelLoad, timeout_s: float) -> None:
        await self._reach()
        if self.holds.get(load.model) == load:
            return
        if load.model in self.faults.held:
            await self.faults.held[load.model].wait()
            await self._reach()
        if load.model in self.faults.fatal or load.model in self.faults.fatal_once:
            self.faults.fatal_once.discard(load.model)
            self._server.end(f"was ended by the load of {load.model!r}")
            await self._reach()
        if self._wedged or load.model in self.faults.hanging:
            self._wedged = self._wedged or load.model
            self._server.note(FleetAction.HUNG, load)
            raise ModelHangsError(load.model, timeout_s)
        refusal = self.faults.refused.get(load.model) or self._missing_step(load)
        if refusal:
            self._server.note(FleetAction.REFUSED, load)
            raise ModelLoadError(load.model, f"refused: {refusal}")
        self.holds[load.model] = load
        self._server.note(FleetAction.LOADED, load)

    async def unload(self, model: str) -> None:
        await self._reach()
        if self._wedged:
            raise EndpointTimeoutError(
                f"{self._server.endpoint.url} did not answer: the load of {self._wedged!r} hangs"
            )
        load = self.holds.pop(model, None)
        if load is not None:
            self._server.note(FleetAction.UNLOADED, load)

    def _missing_step(self, load: ModelLoad) -> str:
        missing = [step for step, version in _steps_of(load) if not self.ready(step, version)]
        return f"its steps {missing} are not READY" if missing else ""

    async def _reach(self) -> None:
        try:
            async with asyncio.timeout(CALL_S):
                await self._server.live()
        except TimeoutError as error:
            raise EndpointTimeoutError(f"{self._server.endpoint.url} did not answer within {CALL_S:g} s") from error
        await asyncio.sleep(0)
        if not self._server.running:
            raise EndpointRefusedError(f"{self._server.endpoint.url} refused the connection: the server has ended")


def _steps_of(load: ModelLoad) -> tuple[tuple[str, int | None], ...]:
    return pinned_steps(load.config) or tuple((step, None) for step in load.steps) if load.steps else ()


class MemoryModelServer:
    """A `ModelServer` without a process. While `stopped` is set, it does not answer."""

    grpc_port = metrics_port = None

    def __init__(self, endpoint: Endpoint, faults: MemoryFaults, history: list[FleetEvent]) -> None:
        self.endpoint = endpoint
        self.repository = MemoryModelRepository(self, faults)
        self._history = history
        self.stopped = False
        self._how = ""
        self._ended = asyncio.Event()
        self.note(FleetAction.LAUNCHED)

    @property
    def pid(self) -> int:
        return self.endpoint.port

    @property
    def running(self) -> bool:
        return not self._how

    async def live(self) -> bool:
        while self.stopped and self.running:
            await asyncio.sleep(STOPPED_S)
        return self.running

    async def wait(self) -> str:
        await self._ended.wait()
        return self._how

    async def stop(self) -> None:
        self.end("was stopped")
        await asyncio.sleep(0)

    async def kill(self) -> None:
        self.end("was killed")
        await asyncio.sleep(0)

    def end(self, how: str = "ended by itself") -> None:
        """End it from outside, as a crash does; `how` is what `wait` says."""
        if self.running:
            self._how = how
            self._ended.set()
            self.note(FleetAction.ENDED)

    def note(self, action: FleetAction, load: ModelLoad | None = None) -> None:
        model, versions = (load.model, load.versions) if load is not None else ("", ())
        self._history.append(FleetEvent(self.endpoint, action, model, versions))


@dataclass(slots=True)
class MemoryGoldenRequests:
    """`GoldenRequests` whose results are given.

    Attributes:
        wrong: what is wrong with the answers, by model; the server fails its self-test by them.
        unproved: why nothing is proved, by model.
        hanging: models that never answer.
        fatal: models whose first request ends the server, which `end` does.
        end: ends the server of an endpoint.
        self_test: what the answers of unproved models show of the server, by model; passed where it is not given.
        asked: the endpoints and targets that were asked, in order.
    """

    wrong: dict[str, str] = field(default_factory=dict)
    unproved: dict[str, str] = field(default_factory=dict)
    hanging: set[str] = field(default_factory=set)
    fatal: set[str] = field(default_factory=set)
    end: Callable[[Endpoint], object] = repr
    self_test: dict[str, SelfTestState] = field(default_factory=dict)
    asked: list[tuple[Endpoint, str]] = field(default_factory=list)

    async def ask(self, endpoint: Endpoint, target: Target) -> GoldenResult:
        await asyncio.sleep(0)
        self.asked.append((endpoint, target.name))
        if target.model in self.hanging:
            raise EndpointTimeoutError(f"{endpoint.url} did not answer a request of {target.model!r}")
        if target.model in self.fatal:
            self.end(endpoint)
            raise EndpointResetError(f"{endpoint.url} ended a request of {target.model!r}")
        if target.model in self.wrong:
            return GoldenResult(GoldenOutcome.WRONG, SelfTestState.FAILED, self.wrong[target.model])
        if target.model in self.unproved:
            shown = self.self_test.get(target.model, SelfTestState.PASSED)
            return GoldenResult(GoldenOutcome.UNPROVED, shown, self.unproved[target.model])
        return GoldenResult(GoldenOutcome.PROVED, SelfTestState.PASSED)


class MemoryScratchServers:
    """`ScratchServers` by a launcher, in a shard that no rule has."""

    def __init__(self, launcher: MemoryServerLauncher) -> None:
        self.launcher = launcher

    async def launch(self, loads: Sequence[ModelLoad]) -> MemoryModelServer:  # noqa: ARG002  # the Protocol's
        return await self.launcher.launch(SCRATCH)


class MemoryServerLauncher:
    """A `ServerLauncher` of servers in memory.

    Attributes:
        faults: what goes wrong on the servers that it has launched and will launch.
        servers: every server that it ever launched, in order, those that have ended included.
        history: what they did, in order.
    """

    def __init__(self, faults: MemoryFaults | None = None) -> None:
        self.faults = MemoryFaults() if faults is None else faults
        self.servers: list[MemoryModelServer] = []
        self.history: list[FleetEvent] = []

    async def launch(self, shard: str) -> MemoryModelServer:
        await asyncio.sleep(0)
        if shard in self.faults.shards:
            raise StackError(f"a server of shard {shard!r} did not start: {self.faults.shards[shard]}")
        server = MemoryModelServer(Endpoint(shard, HOST, len(self.servers) + 1), self.faults, self.history)
        self.servers.append(server)
        return server

    def running(self, shard: str | None = None) -> list[MemoryModelServer]:
        return [each for each in self.servers if each.running and shard in (None, each.endpoint.shard)]

    def server_at(self, endpoint: Endpoint) -> MemoryModelServer:
        return self.servers[endpoint.port - 1]
