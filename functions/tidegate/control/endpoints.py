"""Work on many endpoints at once, where one that hangs holds up nobody but itself."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.plans import Loaded, loaded_versions
from tidegate.errors import EndpointError, EndpointTimeoutError, ModelLoadError, StackError
from tidegate.ports import Diagnose, EndpointState, GoldenResult, ModelLoad, ModelRepository, RegisteredEndpoint
from tidegate.rules import Target

S = TypeVar("S")
T = TypeVar("T")
logger = logging.getLogger(__name__)

SLOW_LOAD_S = 2.0
"""A load longer than this is reported."""

LOAD_GRACE_S = 1.0
"""How long after its own time-out a load is given up that does not keep to it."""

DIAGNOSIS_S = 5.0
"""Longest check of the files of a model whose load failed: a server that is being filled waits for it."""

MOST_LOCATED = 3


class Endpoints:
    """Calls of endpoints, each in bounded time."""

    def __init__(self, ports: ControlPorts, config: ControlConfig) -> None:
        self._ports = ports
        self._config = config

    async def by_shard(self, state: EndpointState = EndpointState.READY) -> dict[str, list[RegisteredEndpoint]]:
        """The registered endpoints in a state, by shard. Raises `StoreError`."""
        found: dict[str, list[RegisteredEndpoint]] = {}
        for entry in await self._ports.registry.endpoints():
            if entry.state is state:
                found.setdefault(entry.endpoint.shard, []).append(entry)
        return found

    async def loaded(self, entry: RegisteredEndpoint) -> Loaded:
        """What is READY on an endpoint. Raises `EndpointError`."""
        try:
            return loaded_versions(await self._bounded(entry, self._ports.repository_of(entry).loaded()))
        except StackError as error:
            raise EndpointError(str(error)) from error

    async def model_ready(self, entry: RegisteredEndpoint, model: str, version: int | None) -> bool:
        """Whether an endpoint can answer calls of a version of a model. Raises `EndpointError`."""
        return await self._bounded(entry, self._ports.repository_of(entry).model_ready(model, version))

    async def golden(self, entry: RegisteredEndpoint, target: Target) -> GoldenResult:
        """What came of a target's golden requests. Raises `EndpointError`."""
        call = self._ports.golden.ask(entry.endpoint, target)
        return await self._bounded(entry, call, self._config.load_timeout_s)

    async def load(self, entry: RegisteredEndpoint, load: ModelLoad) -> None:
        """Load a model on an endpoint: see `load_on`."""
        started = time.monotonic()
        await load_on(self._ports.repository_of(entry), load, self._config.load_timeout_s, self._ports.diagnose)
        took_s = time.monotonic() - started
        if took_s > SLOW_LOAD_S:
            logger.info("loaded %s on %s in %.1f s", load.model, name_of(entry), took_s)

    async def unload(self, entry: RegisteredEndpoint, model: str) -> None:
        """Unload a model from an endpoint. Raises `EndpointError`."""
        try:
            await self._bounded(entry, self._ports.repository_of(entry).unload(model))
        except StackError as error:
            raise EndpointError(str(error)) from error

    async def each(self, items: Iterable[S], work: Callable[[S], Awaitable[T]]) -> list[T | BaseException]:
        """Do some work on endpoints, or on groups of them, `endpoints_at_once` at a time; results and exceptions in their
        order."""
        gate = asyncio.Semaphore(self._config.endpoints_at_once)

        async def one(item: S) -> T:
            async with gate:
                return await work(item)

        return await asyncio.gather(*(one(item) for item in items), return_exceptions=True)

    async def _bounded(self, entry: RegisteredEndpoint, call: Awaitable[T], timeout_s: float | None = None) -> T:
        limit_s = self._config.call_timeout_s if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await call
        except TimeoutError as error:
            raise EndpointTimeoutError(f"{name_of(entry)} did not answer within {limit_s:g} s") from error


async def load_on(repository: ModelRepository, load: ModelLoad, timeout_s: float, diagnose: Diagnose) -> None:
    """Load a model on one server in bounded time.

    Raises:
        ModelLoadError: the model was refused, or its load hangs; `located` says what its files show.
        EndpointError: the server ended or did not answer.
    """
    try:
        try:
            async with asyncio.timeout(timeout_s + LOAD_GRACE_S):
                await repository.load(load, timeout_s)
        except (TimeoutError, EndpointTimeoutError) as error:
            raise ModelLoadError(load.model, f"did not finish loading within {timeout_s:g} s", hung=True) from error
    except ModelLoadError as error:
        error.located = tuple(await located(diagnose, load.model))
        raise


async def located(diagnose: Diagnose, model: str) -> Sequence[str]:
    """What the files of a model show, as `Diagnose`; empty where that takes too long."""
    try:
        async with asyncio.timeout(DIAGNOSIS_S):
            return await diagnose(model)
    except TimeoutError:
        logger.warning("the files of model %r could not be checked within %g s", model, DIAGNOSIS_S)
        return ()


def explained(reason: str, found: Sequence[str]) -> str:
    """Why a load failed, with the first of what the model's files show, in one line for logs and tables."""
    more = [f"and {len(found) - MOST_LOCATED} more"] if len(found) > MOST_LOCATED else []
    return "; ".join((reason, *found[:MOST_LOCATED], *more))


def name_of(entry: RegisteredEndpoint) -> str:
    """An endpoint in words."""
    return f"{entry.endpoint.url} of shard {entry.endpoint.shard!r}"


def raise_first(results: Sequence[object]) -> None:
    """Raise the first exception among results, if there is one."""
    for each in results:
        if isinstance(each, BaseException):
            raise each
