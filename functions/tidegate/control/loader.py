"""Starting a server and loading models on it, proof against loads that hang.

Models load one after the other: a load is about 0.1 s, shards load in parallel anyway, and so it is certain which model
hung.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tidegate.control.assignment import Plan
from tidegate.errors import EndpointError, ModelLoadError, StackError
from tidegate.ports import Endpoint, ModelLoad, ModelRepository, ModelServer, ServerLauncher

logger = logging.getLogger(__name__)

SLOW_LOAD_S = 2.0
"""A load longer than this is reported."""


@dataclass(slots=True)
class Loading:
    """How far an endpoint has come: the models that are READY, and those that cannot be, with the reason."""

    loaded: dict[str, ModelLoad] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


async def bring_up(launcher: ServerLauncher, shard: str, plan: Plan, timeout_s: float, loading: Loading) -> ModelServer:
    """Start a server and load `plan` on it, as far as it goes; `loading` says how far while it goes on.

    A model that hangs, or that takes the server down, costs the server: another one is started without that model. So
    a model that fails keeps only itself, and the ensembles that call it, from being served.

    Raises:
        StackError: no server could be started, or each ended again.
    """
    for _ in range(len(plan) + 3):
        loading.loaded.clear()
        server = await launcher.launch(shard)
        try:
            if await _load_all(server, plan, timeout_s, loading):
                return server
        except BaseException:
            await server.kill()
            raise
        await server.kill()
    raise StackError(f"the servers of shard {shard!r} keep ending while they load; the last reasons: {loading.failed}")


async def _load_all(server: ModelServer, plan: Plan, timeout_s: float, loading: Loading) -> bool:
    """Load what has not failed yet; False where the server is lost."""
    for load in plan:
        if load.model in loading.failed or blocked(load, loading.failed):
            loading.failed.setdefault(load.model, blocked(load, loading.failed))
            continue
        try:
            await load_model(server.repository, server.endpoint, load, timeout_s)
            loading.loaded[load.model] = load
        except ModelLoadError as error:
            loading.failed[load.model] = str(error)
            logger.warning("%s on shard %s: %s", load.model, server.endpoint.shard, error)
            if error.hung:
                return False
        except EndpointError as error:
            loading.failed[load.model] = f"the server ended or did not answer while it loaded this model: {error}"
            logger.warning("%s on shard %s: %s", load.model, server.endpoint.shard, loading.failed[load.model])
            return False
    try:
        missing = await not_ready(server.repository, loading.loaded.values())
    except EndpointError:
        return False
    for model, reason in missing.items():
        del loading.loaded[model]
        loading.failed[model] = reason
    return True


async def load_model(repository: ModelRepository, endpoint: Endpoint, load: ModelLoad, timeout_s: float) -> None:
    """Load one model and report it where it takes long. Raises what `ModelRepository.load` raises."""
    started = time.monotonic()
    await repository.load(load, timeout_s)
    took_s = time.monotonic() - started
    if took_s > SLOW_LOAD_S:
        logger.info("loaded %s on shard %s in %.1f s", load.model, endpoint.shard, took_s)


async def not_ready(repository: ModelRepository, loads: Collection[ModelLoad]) -> Mapping[str, str]:
    """The models that should be READY in every version of theirs and are not, with the reason in words."""
    entries = {(entry.model, entry.version): entry for entry in await repository.index()}
    reasons: dict[str, str] = {}
    for load in loads:
        for version in load.versions:
            entry = entries.get((load.model, version))
            if entry is None or entry.state != "READY":
                state = "absent" if entry is None else f"{entry.state} {entry.reason}".strip()
                reasons[load.model] = f"version {version} is {state} after loading"
    return reasons


def blocked(load: ModelLoad, failed: Mapping[str, str]) -> str:
    """Why a model cannot be loaded because of a step that cannot; empty where all its steps are well."""
    for step in load.steps:
        if step in failed:
            return f"its step {step!r} is not loaded: {failed[step]}"
    return ""
