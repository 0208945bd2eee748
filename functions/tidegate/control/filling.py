"""Filling: a server of this process loads what its shard must hold, proof against models that fail.

Models load one after the other: a load is about 0.1 s, servers load side by side anyway, and so it is certain which model
hung or took the server down.
"""

from __future__ import annotations

import asyncio
import logging

from tidegate.control.failures import Failures
from tidegate.control.plans import Plan, difference, loaded_versions, with_versions
from tidegate.errors import EndpointError, ModelLoadError, StackError
from tidegate.ports import ModelLoad, ModelServer

logger = logging.getLogger(__name__)

LOAD_GRACE_S = 1.0


async def fill(server: ModelServer, plan: Plan, failures: Failures, load_timeout_s: float) -> dict[str, str]:
    """Load what a server lacks of a plan, as far as it goes.

    Returns:
        The models that are not loaded, with the reason.

    Raises:
        StackError: the server has ended, or a load on it hangs, so that it must be replaced. `failures` knows the model,
            and leaves it alone on the next server.
    """
    shard = server.endpoint.shard
    lacking: dict[str, str] = {}
    try:
        loaded = loaded_versions(await server.repository.loaded())
        for load in difference(plan, loaded, {}).missing:
            step = next((step for step in load.steps if step in lacking), None)
            reason = failures.reason(shard, load) if step is None else f"its step {step!r} is not loaded"
            if not reason:
                whole = with_versions(load, {*load.versions, *loaded.get(load.model, ())})
                reason = await _load(server, whole, failures, load_timeout_s)
            if reason:
                lacking[load.model] = reason
    except EndpointError as error:
        raise StackError(f"{server.endpoint.url} does not answer: {error}") from error
    return lacking


async def _load(server: ModelServer, load: ModelLoad, failures: Failures, load_timeout_s: float) -> str:
    """Load one model; why it could not be, empty where it could."""
    shard = server.endpoint.shard
    try:
        async with asyncio.timeout(load_timeout_s + LOAD_GRACE_S):
            await server.repository.load(load, load_timeout_s)
    except (ModelLoadError, TimeoutError) as error:
        hung = isinstance(error, TimeoutError) or error.hung
        reason = str(error) or f"did not finish loading within {load_timeout_s:g} s"
        failures.remember(shard, load, reason, hung=hung)
        logger.warning("%s on shard %s: %s", load.model, shard, reason)
        if hung:
            raise StackError(f"the load of {load.model!r} hangs on {server.endpoint.url}") from error
        return reason
    except EndpointError as error:
        reason = f"the server ended or did not answer while it loaded this model: {error}"
        failures.remember(shard, load, reason, hung=True)
        raise StackError(f"{load.model!r} on {server.endpoint.url}: {reason}") from error
    failures.forget(shard, load.model)
    return ""
