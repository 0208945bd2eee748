"""A fleet in memory: servers that load models, refuse them, hang on them or end, as they are told.

Nothing waits on the clock: a load that hangs reports at once that its time has passed. Every call gives way to other
tasks once, so that servers load side by side as real ones do, and the same calls always give the same history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tidegate.errors import EndpointRefusedError, EndpointResetError, EndpointTimeoutError, ModelLoadError, StackError
from tidegate.ports.memory_models import pinned_steps
from tidegate.ports.protocols import Endpoint, GoldenOutcome, GoldenResult, ModelLoad, ModelState, SelfTestState
from tidegate.rules import Target

SCRATCH = "scratch"
"""The shard of servers that models are tried on."""

HOST = "memory"
"""The host of every endpoint here; ports count up from 1."""


CALL_S = 5.0
"""How long a call of a server that is stopped takes."""

STOPPED_S = 0.05
"""How often a server that is stopped looks whether it goes on."""


class FleetEvent(NamedTuple):
    """Something that a server did; `model` is empty where it is about the server itself."""

    endpoint: Endpoint
    action: Literal["launched", "loaded", "refused", "hung", "unloaded", "ended"]
    model: str = ""
    versions: tuple[int, ...] = ()


@dataclass(slots=True)
class MemoryFaults:
    """What goes wrong, from the next call on.

    Attributes:
        refused: models whose load is refused, with the reason.
        hanging: models whose load never ends. It wedges its server: every later load there hangs too.
        held: models whose load waits until the event is set, and then goes its way.
        fatal: models whose load ends the server.
        shards: shards where no server starts, with the reason.
    """

    refused: dict[str, str] = field(default_factory=dict)
    hanging: set[str] = field(default_factory=set)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    fatal: set[str] = field(default_factory=set)
    shards: dict[str, str] = field(default_factory=dict)


class MemoryModelRepository:
    """The `ModelRepository` of a `MemoryModelServer`.

    It keeps a server's rules: an ensemble is refused until its steps are READY, and is UNAVAILABLE once one of them is
    gone. `holds` is what is loaded, by model, `done` the requests that models have finished. `faults` may be replaced to make one server differ from the others.
    """

    def __init__(self, server: MemoryModelServer, faults: MemoryFaults) -> None:
        self.faults = faults
        self.holds: dict[str, ModelLoad] = {}
        self.done: dict[str, int] = {}
        self._server = server
        self._wedged = ""

    def ready(self, model: str, version: int | None = None) -> bool:
        """Whether the server runs and can answer calls of a model (a version of it), its steps included."""
        load = self.holds.get(model)
        if not self._server.running or load is None or (version is not None and version not in load.versions):
            return False
        return all(self.ready(step, version) for step, version in _steps_of(load))

    async def server_ready(self) -> bool:
        """True while the server runs, even where a load hangs."""
        await self._reach()
        return True

    async def index(self) -> Sequence[ModelState]:
        """Every loaded version, sorted by model; the model whose load hangs is LOADING."""
        await self._reach()
        states = [
            ModelState(name, version, "READY" if self.ready(name) else "UNAVAILABLE")
            for name, load in self.holds.items()
            for version in load.versions
        ]
        if self._wedged and self._wedged not in self.holds:
            states.append(ModelState(self._wedged, 1, "LOADING"))
        return sorted(states, key=lambda state: (state.model, state.version))

    async def loaded(self) -> Sequence[ModelState]:
        """Every version that is READY, sorted by model."""
        return [state for state in await self.index() if state.state == "READY"]

    async def finished(self) -> Mapping[str, int]:
        """What `done` has."""
        await self._reach()
        return dict(self.done)

    async def model_ready(self, model: str, version: int | None = None) -> bool:
        """Whether a model (a version of it) can be called, its steps included."""
        await self._reach()
        return self.ready(model, version)

    async def load(self, load: ModelLoad, timeout_s: float) -> None:
        """Load a model, unless it is told otherwise; a loaded model that has not changed is left alone.

        Raises:
            EndpointRefusedError: the server has ended.
            ModelLoadError: the model is refused, one of its steps is not READY, or the load hangs.
        """
        await self._reach()
        if self.holds.get(load.model) == load:
            return
        if load.model in self.faults.held:
            await self.faults.held[load.model].wait()
            await self._reach()
        if load.model in self.faults.fatal:
            self._server.end(f"was ended by the load of {load.model!r}")
            await self._reach()
        if self._wedged or load.model in self.faults.hanging:
            self._wedged = self._wedged or load.model
            self._server.note("hung", load)
            raise ModelLoadError(load.model, f"did not finish loading within {timeout_s:g} s", hung=True)
        refusal = self.faults.refused.get(load.model) or self._missing_step(load)
        if refusal:
            self._server.note("refused", load)
            raise ModelLoadError(load.model, f"refused: {refusal}")
        self.holds[load.model] = load
        self._server.note("loaded", load)

    async def unload(self, model: str) -> None:
        """Unload a model.

        Raises:
            EndpointRefusedError: the server has ended.
            EndpointTimeoutError: a load hangs, and the server does no more of this.
        """
        await self._reach()
        if self._wedged:
            raise EndpointTimeoutError(
                f"{self._server.endpoint.url} did not answer: the load of {self._wedged!r} hangs"
            )
        load = self.holds.pop(model, None)
        if load is not None:
            self._server.note("unloaded", load)

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
    """The steps of an ensemble, each with its version where the load's config gives one."""
    return pinned_steps(load.config) or tuple((step, None) for step in load.steps) if load.steps else ()


class MemoryModelServer:
    """A `ModelServer` without a process; `history` is shared by all servers of a launcher. `stopped` may be set: then it
    answers nothing until it is cleared."""

    def __init__(self, endpoint: Endpoint, faults: MemoryFaults, history: list[FleetEvent]) -> None:
        self.endpoint = endpoint
        self.repository = MemoryModelRepository(self, faults)
        self._history = history
        self.stopped = False
        self._how = ""
        self._ended = asyncio.Event()
        self.note("launched")

    @property
    def pid(self) -> int:
        """A number of its own: the port."""
        return self.endpoint.port

    @property
    def grpc_port(self) -> None:
        """It has no such door."""
        return

    @property
    def metrics_port(self) -> None:
        """It has no metrics."""
        return

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._how

    async def live(self) -> bool:
        """Whether it runs; never answered where it is stopped."""
        while self.stopped and self.running:
            await asyncio.sleep(STOPPED_S)
        return self.running

    async def wait(self) -> str:
        """Wait until it has ended; says how, in words."""
        await self._ended.wait()
        return self._how

    async def stop(self) -> None:
        """End it; safe to call again."""
        self.end("was stopped")
        await asyncio.sleep(0)

    async def kill(self) -> None:
        """End it; safe to call again."""
        self.end("was killed")
        await asyncio.sleep(0)

    def end(self, how: str = "ended by itself") -> None:
        """End it from outside, as a crash does; `how` is what `wait` says."""
        if self.running:
            self._how = how
            self._ended.set()
            self.note("ended")

    def note(
        self,
        action: Literal["launched", "loaded", "refused", "hung", "unloaded", "ended"],
        load: ModelLoad | None = None,
    ) -> None:
        """Write down what it did."""
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
        """What `wrong` and `unproved` have for the target's model."""
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
    """`ScratchServers` in memory: what `launcher` launches, as servers of a shard that no rule has."""

    def __init__(self, launcher: MemoryServerLauncher) -> None:
        self.launcher = launcher

    async def launch(self, loads: Sequence[ModelLoad]) -> MemoryModelServer:  # noqa: ARG002  # the Protocol's
        """Start an empty server.

        Raises:
            StackError: the launcher's faults have the shard `SCRATCH`.
        """
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
        """Start an empty server.

        Raises:
            StackError: `faults.shards` has the shard.
        """
        await asyncio.sleep(0)
        if shard in self.faults.shards:
            raise StackError(f"a server of shard {shard!r} did not start: {self.faults.shards[shard]}")
        server = MemoryModelServer(Endpoint(shard, HOST, len(self.servers) + 1), self.faults, self.history)
        self.servers.append(server)
        return server

    def running(self, shard: str | None = None) -> list[MemoryModelServer]:
        """The servers (of a shard) that have not ended, in the order of their launch."""
        return [each for each in self.servers if each.running and shard in (None, each.endpoint.shard)]

    def server_at(self, endpoint: Endpoint) -> MemoryModelServer:
        """The server behind an endpoint of this launcher."""
        return self.servers[endpoint.port - 1]
