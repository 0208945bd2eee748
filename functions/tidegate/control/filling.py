"""Filling: a server of this process loads what its shard must hold, proof against models that fail.

Models load one after the other: a load is about 0.1 s, servers load side by side anyway, and so it is certain which model
hung or took the server down.
"""

from __future__ import annotations

import logging

from tidegate.control.endpoints import explained, load_on, located
from tidegate.control.failures import Failures
from tidegate.control.plans import Plan, difference, loaded_versions, with_versions
from tidegate.errors import EndpointError, EndpointTimeoutError, ModelLoadError, StackError
from tidegate.ports import Diagnose, ModelLoad, ModelServer

logger = logging.getLogger(__name__)


async def fill(
    server: ModelServer, plan: Plan, failures: Failures, load_timeout_s: float, diagnose: Diagnose
) -> dict[str, str]:
    """Load what a server lacks of a plan, as far as it goes.

    Returns:
        The models that are not loaded, with the reason.

    Raises:
        StackError: the server has ended, or a load on it hangs, so that it must be replaced. `failures` knows the model,
            and leaves it alone on the next server.
        EndpointTimeoutError: the server did not say in time what it has loaded.
    """
    shard = server.endpoint.shard
    lacking: dict[str, str] = {}
    try:
        loaded = loaded_versions(await server.repository.loaded())
        missing = difference(plan, loaded, {}).missing
        for number, load in enumerate(missing, 1):
            logger.info(
                "%s of shard %s: loading %s (%d of %d)", server.endpoint.url, shard, load.model, number, len(missing)
            )
            step = next((step for step in load.steps if step in lacking), None)
            reason = failures.reason(shard, load) if step is None else f"its step {step!r} is not loaded"
            if not reason:
                whole = with_versions(load, {*load.versions, *loaded.get(load.model, ())})
                reason = await _load(server, whole, failures, load_timeout_s, diagnose)
            if reason:
                lacking[load.model] = reason
    except EndpointTimeoutError:
        raise
    except EndpointError as error:
        raise StackError(f"{server.endpoint.url} does not answer: {error}") from error
    return lacking


async def _load(
    server: ModelServer, load: ModelLoad, failures: Failures, load_timeout_s: float, diagnose: Diagnose
) -> str:
    """Load one model; why it could not be, empty where it could."""
    shard = server.endpoint.shard
    try:
        await load_on(server.repository, load, load_timeout_s, diagnose)
    except ModelLoadError as error:
        reason = explained(str(error), error.located)
        failures.remember(shard, load, reason, hung=error.hung)
        logger.warning("%s on shard %s: %s", load.model, shard, reason)
        if error.hung:
            raise StackError(f"the load of {load.model!r} hangs on {server.endpoint.url}") from error
        return reason
    except EndpointError as error:
        lost = f"the server ended or did not answer while it loaded this model: {error}"
        reason = explained(lost, await located(diagnose, load.model))
        failures.remember(shard, load, reason, hung=True)
        raise StackError(f"{load.model!r} on {server.endpoint.url}: {reason}") from error
    failures.forget(shard, load.model)
    return ""
