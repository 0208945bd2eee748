"""The Protocols between the floors, and the values that cross them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from tidegate.byte_budget import ByteLease
from tidegate.rules import Engine, Target

Headers = Sequence[tuple[bytes, bytes]]
"""HTTP headers in order, names as they came (any case)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One Triton server: `host:port` of its HTTP door, and the shard that it belongs to."""

    shard: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """The endpoint's base address."""
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request to one endpoint: `path` begins with a slash and is percent-encoded, `body` travels untouched.

    `send_once` forbids sending it again on a fresh connection when a pooled one turns out dead. `rest` brings the bytes
    that follow `body`, exactly `rest_bytes` of them; a request that has it is sent once. `apart` asks for a connection of
    its own, which waits for no other request.
    """

    method: str
    path: str
    headers: Headers = ()
    body: bytes = b""
    send_once: bool = False
    rest: AsyncIterator[bytes] | None = None
    rest_bytes: int = 0
    apart: bool = False


Done = Callable[[float | None], None]
"""Called once, when an endpoint is done with a request: with the seconds that a successful response took, or None where
there was none."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole response: header names in lower case, `body` as it came (still compressed where it was).

    `lease` counts a large body in the gateway's `ByteBudget` for as long as it is referred to.
    """

    status: int
    headers: Headers
    body: bytes
    lease: ByteLease | None = field(default=None, compare=False)

    def header(self, name: bytes) -> bytes | None:
        """The first value of the header `name` (lower case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Transport(Protocol):
    """Sends bytes to an endpoint and brings bytes back."""

    async def send(
        self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None = None
    ) -> HttpResponse:
        """Send one request; a pooled connection found dead before any response byte is replaced and retried at once.

        With `done`, a request that nobody waits for any more (time-out, cancellation) is left to its end, since a server
        goes on with what it has begun: `done` is called then, and in every other case before this returns or raises.

        Raises:
            EndpointRefusedError: nothing listens at the endpoint, or it cannot be reached.
            EndpointResetError: the connection ended before a whole response had come.
            EndpointTimeoutError: no whole response within `timeout_s` seconds, or no connection in the time for that.
            EndpointBusyError: no connection was free within `timeout_s` seconds, or responses hold too many bytes together.
            EndpointAnswerTooLargeError: the response is larger than is accepted.
        """
        ...

    def hang_up(self, endpoint: Endpoint) -> None:
        """End every request that is under way at an endpoint with `EndpointTimeoutError`: it is known to answer nothing."""
        ...


class SuspectKind(StrEnum):
    """What a gateway has seen of a model on one endpoint.

    `dead-stub`: the process of a Python model has ended, and Triton does not start another. `hung`: the model does not
    answer in the time that it usually takes.
    """

    DEAD_STUB = "dead-stub"
    HUNG = "hung"


@dataclass(frozen=True, slots=True)
class Suspect:
    """A model on one endpoint that callers cannot use; whoever runs the endpoint looks at it."""

    endpoint: Endpoint
    model: str
    kind: SuspectKind


class Offload(Protocol):
    """Does work whose time grows with a request where it holds up no other request."""

    async def run(self, work: str, *parts: bytes | memoryview) -> bytes:
        """Do some work by its name; what is given and what comes back are bytes alone.

        Raises:
            OverloadedError: it cannot be done now.
        """
        ...


class EndpointDirectory(Protocol):
    """Knows which endpoints a shard has now."""

    def endpoints(self, shard: str) -> Sequence[Endpoint]:
        """The endpoints of a shard that may be sent requests; empty for an unknown shard."""
        ...


class EngineSource(Protocol):
    """Holds the engine of the live bundle."""

    def engine(self) -> Engine:
        """The live engine. One request asks once and keeps the answer."""
        ...

    def catching_up(self) -> Awaitable[None] | None:
        """What a request waits for before it asks for the engine, bounded; None where the engine is recent."""
        ...


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """One model to load on an endpoint.

    `versions` are the versions that must be READY afterwards, `config` the model's config as JSON where the one in its
    folder would not serve them (None: as the folder says), `steps` the models that an ensemble calls itself.
    """

    model: str
    versions: tuple[int, ...]
    config: str | None = None
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelState:
    """One entry of a repository index; `version` None and `state` empty: not loaded, or refused by Triton."""

    model: str
    version: int | None
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What was left open in a set of targets, made concrete.

    `versions` has the version that serves each target, by the target's name. `steps` has the version of every step whose
    ensemble leaves it open, by ensemble and step. `notes` say in words what nobody wrote down and was decided here.
    """

    versions: Mapping[str, int]
    steps: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...] = ()


class ModelCatalog(Protocol):
    """Knows the models that could be loaded, and what they need."""

    def learn(self, loads: Iterable[ModelLoad]) -> None:
        """Take loads that were planned before as true without reading their files again, since these never change. None of
        them may be of an ensemble with open steps, as the load does not say which these were."""
        ...

    def fresh(self) -> ModelCatalog:
        """The same models, with nothing kept of what was read: one that was never live may have been replaced."""
        ...

    async def resolve(self, targets: Iterable[Target], settled: Mapping[str, Mapping[str, int]]) -> Resolution:
        """Give every target and every step of its closure a version.

        A target without one gets the highest that the model's own version policy serves now. So does a step that its
        ensemble leaves open, unless `settled` (by ensemble and step) has it: an ensemble that is in use goes on as it is.

        Raises:
            ModelConfigError: a model is missing or cannot be served as its files stand.
        """
        ...

    async def plan(self, targets: Iterable[Target], steps: Mapping[str, Mapping[str, int]]) -> tuple[ModelLoad, ...]:
        """The closures of resolved targets as loads without duplicates, steps before the ensembles that call them.

        Every load has a config that serves exactly its versions, with the `steps` that were left open pinned.

        Raises:
            ModelConfigError: a model is missing or cannot be served as its files stand.
        """
        ...


class ModelRepository(Protocol):
    """Loads and unloads the models of one endpoint. Every method may raise `EndpointError`."""

    async def server_ready(self) -> bool:
        """Whether the endpoint takes requests."""
        ...

    async def index(self) -> Sequence[ModelState]:
        """The state of every model in the repository, version by version. It costs a listing of the whole repository."""
        ...

    async def loaded(self) -> Sequence[ModelState]:
        """Every version that is READY, and no other, from the server's memory: the way to ask often."""
        ...

    async def finished(self) -> Mapping[str, int]:
        """How many requests each model that is READY has finished since it was loaded, rightly or not."""
        ...

    async def model_ready(self, model: str, version: int | None = None) -> bool:
        """Whether a model (a version of it) can be called, its steps included."""
        ...

    async def load(self, load: ModelLoad, timeout_s: float) -> None:
        """Load a model and wait for it; a loaded model that has not changed is left alone. Of the versions that were
        loaded before, those that `load` does not name are unloaded.

        Raises:
            ModelLoadError: the model was refused, or did not finish loading within `timeout_s` seconds.
        """
        ...

    async def unload(self, model: str) -> None:
        """Unload a model; its steps stay."""
        ...


class GoldenOutcome(StrEnum):
    """Whether a target answers as it must. `unproved`: it has no golden request, which a made-up one cannot replace."""

    PROVED = "proved"
    WRONG = "wrong"
    UNPROVED = "unproved"


class SelfTestState(StrEnum):
    """Whether a server computes. `untested`: nothing has shown it yet, neither way."""

    UNTESTED = "untested"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """Result of asking a target.

    Attributes:
        outcome: whether the target answers as it must.
        self_test: what the answers show of the server.
        reason: what is wrong with an answer, or why the answers prove nothing.
        advice: what to do about an unproved target.
        ended: the instance of a Python model whose process has ended, as `ended_stub` names it; empty where none has.
    """

    outcome: GoldenOutcome
    self_test: SelfTestState
    reason: str = ""
    advice: str = ""
    ended: str = ""


class GoldenRequests(Protocol):
    """Asks a loaded model what its authors know the answer to."""

    async def ask(self, endpoint: Endpoint, target: Target) -> GoldenResult:
        """Send a target's golden requests to an endpoint; where it has none, a made-up one.

        Raises:
            EndpointTimeoutError: a request hangs, and the server may be wedged by it.
            EndpointError: the endpoint did not answer.
        """
        ...


Diagnose = Callable[[str], Awaitable[Sequence[str]]]
"""What is wrong with the files of a pushed model and of what it calls, one located error each; empty where nothing is
known. It raises nothing."""


class ModelServer(Protocol):
    """One model server that this process started."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens."""
        ...

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def grpc_port(self) -> int | None:
        """The port of its gRPC door; None where it has none."""
        ...

    @property
    def metrics_port(self) -> int | None:
        """The port of its metrics; None where it has none."""
        ...

    @property
    def repository(self) -> ModelRepository:
        """Its models."""
        ...

    async def live(self) -> bool:
        """Whether it answers at all, asked on a connection of its own. A server that hangs may never answer: whoever asks
        bounds the time."""
        ...

    async def wait(self) -> str:
        """Wait until it has ended; says how, in words."""
        ...

    async def stop(self) -> None:
        """End it, in bounded time, with everything that it left."""
        ...

    async def kill(self) -> None:
        """End it at once, with everything that it left."""
        ...


class ServerLauncher(Protocol):
    """Starts model servers."""

    async def launch(self, shard: str) -> ModelServer:
        """Start an empty server of a shard and wait until it can load models.

        Raises:
            StackError: it did not become ready.
        """
        ...


class ScratchServers(Protocol):
    """Starts servers that nobody else sees, to try models on."""

    async def launch(self, loads: Sequence[ModelLoad]) -> ModelServer:
        """Start an empty server on which some models will be loaded; `kill` ends it with all that they started.

        It is bounded in memory: a server that takes more is ended, which its `wait` says.

        Raises:
            StackError: it did not become ready.
        """
        ...


class FleetStatus(Protocol):
    """Describes the fleet for people and tools."""

    async def status(self) -> Mapping[str, Any]:
        """The fleet as plain JSON values: see docs/control-plane.md, "Fleet status"."""
        ...
