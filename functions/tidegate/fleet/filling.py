"""Filling: a server of this process loads what its shard must hold, whatever single models do.

This is how a shard's own agent, or the local stack, loads models; a publisher loads them on registered endpoints instead, see
`control/rollout.py`. Both speak through a `ModelRepository`.

Models load one after the other: a load takes about 0.1 s, servers load side by side anyway, and so it is certain which model
hung or took the server down.
"""

from __future__ import annotations

import logging

from tidegate.control.endpoints import load_remembered
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import Plan, difference, with_versions
from tidegate.errors import EndpointError, EndpointTimeoutError, ModelHangsError, ModelLoadError, StackError
from tidegate.ports import ModelLoad, ModelServer

logger = logging.getLogger(__name__)


async def fill(plane: ControlPlane, server: ModelServer, plan: Plan) -> dict[str, str]:
    """Load what a server lacks of a plan, as far as possible. Return the models that are not loaded, with the reason.

    Raises:
        StackError: the server has ended, or a load on it hangs, so that it must be replaced. The plane's `failures` has the
            model, which is left alone on the next server.
        EndpointTimeoutError: the server did not say in time what it has loaded.
    """
    shard, url = server.endpoint.shard, server.endpoint.url
    lacking: dict[str, str] = {}
    try:
        loaded = await server.repository.loaded()
        missing = difference(plan, loaded, {}).missing
        for number, load in enumerate(missing, 1):
            logger.info("%s of shard %s: loading %s (%d of %d)", url, shard, load.model, number, len(missing))
            step = next((step for step in load.steps if step in lacking), None)
            reason = plane.failures.reason(shard, load) if step is None else f"its step {step!r} is not loaded"
            if reason is None:
                reason = await _load(plane, server, with_versions(load, {*load.versions, *loaded.get(load.model, ())}))
            if reason is not None:
                lacking[load.model] = reason
    except EndpointTimeoutError:
        raise
    except EndpointError as error:
        raise StackError(f"{url} does not answer: {error}") from error
    return lacking


async def _load(plane: ControlPlane, server: ModelServer, load: ModelLoad) -> str | None:
    shard, url = server.endpoint.shard, server.endpoint.url
    try:
        await load_remembered(plane, server.endpoint, server.repository, load)
    except ModelLoadError as error:
        if isinstance(error, ModelHangsError):
            raise StackError(f"the load of {load.model!r} hangs on {url}") from error
    except EndpointError as error:
        raise StackError(f"{load.model!r} on {url}: {plane.failures.known(shard, load.model)}") from error
    return plane.failures.known(shard, load.model)
