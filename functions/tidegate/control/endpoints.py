"""Calls of endpoints in bounded time, and work on many at once, where one that hangs does not delay the others."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from tidegate.control.plane import ControlPlane
from tidegate.errors import (
    EndpointError,
    EndpointTimeoutError,
    ModelHangsError,
    ModelLoadError,
    StackError,
    TidegateError,
)
from tidegate.ports import (
    Diagnose,
    Endpoint,
    EndpointState,
    GoldenResult,
    Loaded,
    ModelLoad,
    ModelRepository,
    ModelTimes,
    RegisteredEndpoint,
)
from tidegate.rules import Target
from tidegate.tasks import run_all

S = TypeVar("S")
T = TypeVar("T")
logger = logging.getLogger(__name__)

ModelsTimes = Mapping[tuple[str, int], ModelTimes]
"""What the models of an endpoint took, by name and version."""

Times = Mapping[Endpoint, ModelsTimes]

POLL_S = 0.25
"""Time between two checks while waiting."""

SLOW_LOAD_S = 2.0
"""A longer load is logged."""

LOAD_GRACE_S = 1.0
"""How long after its own time-out a load is abandoned that does not observe it."""

DIAGNOSIS_S = 5.0
"""Longest check of the files of a model whose load failed; it delays the filling of a server."""

MOST_LOCATED = 3


async def by_shard(
    plane: ControlPlane, state: EndpointState = EndpointState.READY
) -> dict[str, list[RegisteredEndpoint]]:
    found: dict[str, list[RegisteredEndpoint]] = {}
    for entry in await plane.ports.registry.endpoints():
        if entry.state is state:
            found.setdefault(entry.endpoint.shard, []).append(entry)
    return found


async def loaded_on(plane: ControlPlane, entry: RegisteredEndpoint) -> Loaded:
    """Return the models that are READY on an endpoint. Raises `EndpointError`."""
    try:
        return await _bounded(entry.endpoint, plane.ports.repository_of(entry).loaded(), plane.config.call_timeout_s)
    except StackError as error:
        raise EndpointError(str(error)) from error


async def times_on(plane: ControlPlane, entry: RegisteredEndpoint) -> ModelsTimes:
    """Return what the models of an endpoint took. Raises `EndpointError`."""
    try:
        return await _bounded(entry.endpoint, plane.ports.repository_of(entry).times(), plane.config.call_timeout_s)
    except StackError as error:
        raise EndpointError(str(error)) from error


def versions_of(times: ModelsTimes) -> Loaded:
    """Return the models that are READY on an endpoint, by what they took."""
    found: dict[str, set[int]] = {}
    for model, version in times:
        found.setdefault(model, set()).add(version)
    return {model: frozenset(versions) for model, versions in found.items()}


async def ask_golden(plane: ControlPlane, endpoint: Endpoint, target: Target) -> GoldenResult:
    """Send a target its golden requests. Raises `EndpointError`."""
    return await _bounded(endpoint, plane.ports.golden.ask(endpoint, target), plane.config.load_timeout_s)


async def load(plane: ControlPlane, entry: RegisteredEndpoint, model: ModelLoad) -> None:
    started = time.monotonic()
    await load_on(plane.ports.repository_of(entry), model, plane.config.load_timeout_s, plane.ports.diagnose)
    took_s = time.monotonic() - started
    if took_s > SLOW_LOAD_S:
        logger.info("loaded %s on %s in %.1f s", model.model, entry.endpoint, took_s)


async def unload(plane: ControlPlane, entry: RegisteredEndpoint, model: str) -> None:
    try:
        await _bounded(entry.endpoint, plane.ports.repository_of(entry).unload(model), plane.config.call_timeout_s)
    except StackError as error:
        raise EndpointError(str(error)) from error


async def each(plane: ControlPlane, items: Iterable[S], work: Callable[[S], Awaitable[T]]) -> list[T | EndpointError]:
    """Work on endpoints, or on groups of them, `endpoints_at_once` at a time.

    All are tried. Then the first error is raised, except that an endpoint which does not answer has its `EndpointError` in
    place of a result.
    """
    gate = asyncio.Semaphore(plane.config.endpoints_at_once)

    async def one(item: S) -> T | TidegateError:
        async with gate:
            try:
                return await work(item)
            except TidegateError as error:
                return error

    results: list[T | EndpointError] = []
    for result in await run_all(one(item) for item in items):
        if isinstance(result, TidegateError) and not isinstance(result, EndpointError):
            raise result
        results.append(result)
    return results


async def _bounded(endpoint: Endpoint, call: Awaitable[T], limit_s: float) -> T:
    try:
        async with asyncio.timeout(limit_s):
            return await call
    except TimeoutError as error:
        raise EndpointTimeoutError(f"{endpoint} did not answer within {limit_s:g} s") from error


async def load_on(repository: ModelRepository, load: ModelLoad, timeout_s: float, diagnose: Diagnose) -> None:
    """Load a model on one server in bounded time.

    Raises:
        ModelLoadError: the model was refused, or its load hangs; `located` has what is wrong with its files.
        EndpointError: the server ended or did not answer.
    """
    try:
        try:
            async with asyncio.timeout(timeout_s + LOAD_GRACE_S):
                await repository.load(load, timeout_s)
        except (TimeoutError, EndpointTimeoutError) as error:
            raise ModelHangsError(load.model, timeout_s) from error
    except ModelLoadError as error:
        error.located = tuple(await located(diagnose, load.model))
        raise


async def load_remembered(
    plane: ControlPlane, endpoint: Endpoint, repository: ModelRepository, load: ModelLoad
) -> None:
    """Load a model on one server as `load_on`. A failure is remembered with all that is known of its cause, so that the load
    is tried again more and more rarely, on whatever server of the shard."""
    shard = endpoint.shard
    try:
        await load_on(repository, load, plane.config.load_timeout_s, plane.ports.diagnose)
    except ModelLoadError as error:
        reason = explained(str(error), error.located)
        plane.failures.remember(shard, load, reason, error)
        logger.warning("%s on %s of shard %s: %s", load.model, endpoint.url, shard, reason)
        raise
    except EndpointError as error:
        lost = f"the server ended or did not answer while it loaded this model: {error}"
        reason = explained(lost, await located(plane.ports.diagnose, load.model))
        plane.failures.remember(shard, load, reason, error)
        raise
    plane.failures.forget(shard, load.model)


async def located(diagnose: Diagnose, model: str) -> Sequence[str]:
    """Return what is wrong with the files of a model, as `Diagnose`; nothing where that takes too long."""
    try:
        async with asyncio.timeout(DIAGNOSIS_S):
            return await diagnose(model)
    except TimeoutError:
        logger.warning("the files of model %r could not be checked within %g s", model, DIAGNOSIS_S)
        return ()


def explained(reason: str, found: Sequence[str]) -> str:
    more = [f"and {len(found) - MOST_LOCATED} more"] if len(found) > MOST_LOCATED else []
    return "; ".join((reason, *found[:MOST_LOCATED], *more))
