"""The Protocols of models and model servers: the catalog of models, loading and asking them, and starting servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from enum import StrEnum
from typing import Protocol

from tidegate.ports.requests import Endpoint
from tidegate.rules import Target


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """One model to load on an endpoint.

    `versions` must be READY afterwards, `config` is the config as JSON (None: the one in the model's folder), `steps` are the
    models that an ensemble calls itself.
    """

    model: str
    versions: tuple[int, ...]
    config: str | None = None
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelTimes:
    """What a version of a model did on one server since it was loaded; as the step of an ensemble, too.

    Attributes:
        requests: requests that succeeded.
        total_ns: their time, with that in the queue.
        queue_ns: their time in the queue.
        failed: requests that failed.
        executions: the batches that it executed.
        input_ns, infer_ns, output_ns: time of requests for preparing the inputs, executing the model, and extracting the outputs.
    """

    requests: int
    total_ns: int
    queue_ns: int
    failed: int = 0
    executions: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0

    @property
    def mean_ms(self) -> float | None:
        return self.total_ns / self.requests / 1e6 if self.requests else None

    @property
    def mean_queue_ms(self) -> float | None:
        return self.queue_ns / self.requests / 1e6 if self.requests else None

    def plus(self, other: ModelTimes) -> ModelTimes:
        """Return the sums of two servers."""
        return ModelTimes(*map(sum, zip(astuple(self), astuple(other), strict=True)))


Loaded = Mapping[str, frozenset[int]]
"""The READY versions of an endpoint by model; a model without any is left out."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """The versions of a set of targets, by target name, and of the steps that ensembles leave open, by ensemble and step.

    `notes` explain each choice that was made here. `decoupled` are the models, of these targets and of what they call, that have
    decoupled responses or a step that has: `infer` refuses them. `rankable` are the outputs of each model that can list ids, of the
    models whose config has their outputs.
    """

    versions: Mapping[str, int]
    steps: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...] = ()
    decoupled: frozenset[str] = frozenset()
    rankable: Mapping[str, frozenset[str]] = field(default_factory=dict)


class ModelCatalog(Protocol):
    """The models that could be loaded, and their needs."""

    def learn(self, loads: Iterable[ModelLoad]) -> None:
        """Trust loads that were planned before, without reading their files again. None may be of an ensemble with open steps,
        as the load does not say which these were."""

    def fresh(self) -> ModelCatalog:
        """Return a catalog that reads all models again, since a draft may have been replaced."""

    async def resolve(self, targets: Iterable[Target], settled: Mapping[str, Mapping[str, int]]) -> Resolution:
        """Choose a version for every target and every step that is left open: the highest that the model's version policy
        serves, or the one in `settled` (by ensemble and step), so that an ensemble in use does not change.

        Raises:
            ModelConfigError: a model is missing, or its files cannot be served.
        """

    async def plan(self, targets: Iterable[Target], steps: Mapping[str, Mapping[str, int]]) -> tuple[ModelLoad, ...]:
        """Return the closures of resolved targets as loads without duplicates, steps before the ensembles that call them.

        Each config serves exactly the load's versions, and pins the `steps` that were left open.

        Raises:
            ModelConfigError: a model is missing, or its files cannot be served.
        """


class ModelRepository(Protocol):
    """The models of one endpoint. Every method may raise `EndpointError`."""

    async def loaded(self) -> Loaded:
        """Return the READY models, from the server's memory: cheap enough to call often."""

    async def finished(self) -> Mapping[str, int]:
        """Return the number of requests that each READY model has finished since it was loaded, failed ones included."""

    async def times(self) -> Mapping[tuple[str, int], ModelTimes]:
        """Return what each READY version of a model took since it was loaded, by model and version; as the step of an ensemble, too."""

    async def model_ready(self, model: str, version: int | None = None) -> bool:
        """Return whether a model (a version of it) can be called, its steps included."""

    async def load(self, load: ModelLoad, timeout_s: float) -> None:
        """Load a model and wait until it is READY; versions that `load` does not name are unloaded.

        Raises:
            ModelLoadError: the model was refused, or did not finish loading within `timeout_s` seconds.
        """

    async def unload(self, model: str) -> None:
        """Unload a model, but not its steps."""


class GoldenOutcome(StrEnum):
    """Whether a target answers as it must."""

    PROVED = "proved"
    WRONG = "wrong"
    UNPROVED = "unproved"
    """It has no golden request, and a made-up one proves nothing."""


class SelfTestState(StrEnum):
    """Whether a server computes, according to its answers."""

    UNTESTED = "untested"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """Result of asking a target.

    `reason` says what is wrong with an answer, or why the answers prove nothing; `advice` what to do about an unproved target;
    `ended` is the instance of a Python model whose process has ended, as `oip.error_texts.ended_stub` names it.
    """

    outcome: GoldenOutcome
    self_test: SelfTestState
    reason: str = ""
    advice: str = ""
    ended: str | None = None


class GoldenRequests(Protocol):
    """Sends loaded models the requests whose answers their authors know."""

    async def ask(self, endpoint: Endpoint, target: Target) -> GoldenResult:
        """Send a target's golden requests to an endpoint, or a made-up one if it has none.

        Raises:
            EndpointTimeoutError: a request hangs, and the server may be wedged by it.
            EndpointError: the endpoint did not answer.
        """


Diagnose = Callable[[str], Awaitable[Sequence[str]]]
"""Returns the known errors in the files of a pushed model and of its steps, each with its place. It raises nothing."""


class ModelServer(Protocol):
    """One model server that this process started."""

    @property
    def endpoint(self) -> Endpoint: ...

    @property
    def pid(self) -> int: ...

    @property
    def grpc_port(self) -> int | None: ...

    @property
    def metrics_port(self) -> int | None: ...

    @property
    def repository(self) -> ModelRepository: ...

    async def live(self) -> bool:
        """Ask on a new connection whether it answers at all. A server that hangs may never do: the caller bounds the time."""

    async def wait(self) -> str:
        """Wait until it has ended, and return a text about how."""

    async def stop(self) -> None:
        """Stop it within seconds, and remove its processes and files. It may be called again."""

    async def kill(self) -> None:
        """Stop it at once, and remove its processes and files. It may be called again."""


class ServerLauncher(Protocol):
    async def launch(self, shard: str) -> ModelServer:
        """Start an empty server of a shard and wait until it can load models.

        Raises:
            StackError: it did not become ready.
        """


class ScratchServers(Protocol):
    async def launch(self, loads: Sequence[ModelLoad]) -> ModelServer:
        """Start an empty, unregistered server to try these models on. It ends, and its `wait` says so, once it takes too much
        memory.

        Raises:
            StackError: it did not become ready.
        """
