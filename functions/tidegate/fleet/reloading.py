"""Reloading: which models of a closure an ended process belongs to, and how to load these again while whatever else the server
has goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping

from tidegate.control.endpoints import load_on
from tidegate.control.plans import Plan, with_versions
from tidegate.errors import EndpointError, EndpointTimeoutError, StackError
from tidegate.ports import Diagnose, Loaded, ModelLoad, ModelRepository

UNLOAD_S = 5.0

Sick = Mapping[str, frozenset[int]]
"""Models to reload, each with the versions that do not answer."""


def owners(instance: str, members: Plan) -> Plan:
    """Return the models that an instance may belong to: an instance is `<instance group>_<number>`, and a group without a name is
    `<model>_<number>`. Empty where it belongs to none of them."""
    group = instance.rpartition("_")[0]
    return tuple(load for load in members if group in _groups(load))


def computing(members: Plan) -> Plan:
    """Return the models that compute something themselves, unlike ensembles."""
    return tuple(load for load in members if not load.steps)


def _groups(load: ModelLoad) -> Iterator[str]:
    if load.steps:
        return
    declared = json.loads(load.config).get("instance_group") if load.config else None
    if not declared:
        # Triton's own group has the model's name where no config has one, and a number where the model completes its config.
        yield from (load.model, f"{load.model}_0")
        return
    for number, group in enumerate(declared):
        yield group.get("name") or f"{load.model}_{number}"


async def reload(
    repository: ModelRepository,
    load: ModelLoad,
    sick: frozenset[int],
    loaded: Loaded,
    limit_s: float,
    diagnose: Diagnose,
) -> None:
    """Unload a model and load it as it was, in bounded time. Versions of it that are not `sick` serve meanwhile: the others are
    removed and added again.

    Raises:
        ModelLoadError: the model was refused, or its load hangs.
        EndpointError: the server ended or did not answer.
    """
    whole = load if load.config is None else with_versions(load, {*load.versions, *loaded.get(load.model, ())})
    others = loaded.get(load.model, frozenset()) - sick
    if others and whole.config is not None:
        await load_on(repository, with_versions(whole, others), limit_s, diagnose)
    else:
        await _unload(repository, load.model)
    await load_on(repository, whole, limit_s, diagnose)


async def _unload(repository: ModelRepository, model: str) -> None:
    try:
        async with asyncio.timeout(UNLOAD_S):
            await repository.unload(model)
    except TimeoutError as error:
        raise EndpointTimeoutError(f"model {model!r} was not unloaded within {UNLOAD_S:g} s") from error
    except StackError as error:
        raise EndpointError(str(error)) from error
