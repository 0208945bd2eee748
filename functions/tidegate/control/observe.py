"""Observe: compare what every endpoint holds with what it must hold. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from tidegate.control.desired import Desired
from tidegate.control.endpoints import ModelsTimes, Times, each, loaded_on, times_on, versions_of
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import Difference, difference
from tidegate.control.remains import RECOVER
from tidegate.errors import EndpointError
from tidegate.ports import Endpoint, EndpointState, Loaded, ModelLoad, RefusedEndpoint, RegisteredEndpoint
from tidegate.tasks import cancel

GIVEN_UP_S = 0.1
"""Time between two looks whether the answer of a server is still waited for."""

Late = Callable[[], Collection[Endpoint]]
"""Returns the servers that are known not to answer, so that nothing waits for them."""


class ActionKind(StrEnum):
    """A kind of change to an endpoint. `NARROW`: fewer versions of a model stay loaded."""

    LOAD = "load"
    NARROW = "narrow"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True)
class Action:
    """A change of an endpoint that was made or would be, or that failed with `error`."""

    shard: str
    url: str
    action: ActionKind
    model: str
    versions: tuple[int, ...] = ()
    error: str | None = None

    @classmethod
    def on(
        cls, entry: RegisteredEndpoint, action: ActionKind, model: ModelLoad | str, error: str | None = None
    ) -> Action:
        name, versions = (model, ()) if isinstance(model, str) else (model.model, model.versions)
        return cls(entry.endpoint.shard, entry.endpoint.url, action, name, versions, error)

    def as_dict(self) -> dict[str, Any]:
        versions = {"versions": list(self.versions)} if self.versions else {}
        error = {"error": self.error} if self.error else {}
        return {"shard": self.shard, "url": self.url, "action": self.action, "model": self.model} | versions | error


@dataclass(frozen=True, slots=True)
class Observation:
    """The models that endpoints have loaded, beside those that they must have.

    Attributes:
        unreachable: why some could not be asked, by address.
        times: what the models of those that are ready took, where that was asked for.
        refused: those that are not trusted, and were not asked.
    """

    desired: Desired
    entries: tuple[RegisteredEndpoint, ...]
    loaded: Mapping[RegisteredEndpoint, Loaded]
    differences: Mapping[RegisteredEndpoint, Difference]
    unreachable: Mapping[str, str]
    refused: tuple[RefusedEndpoint, ...] = ()
    times: Times = field(default_factory=dict)

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems of the desired state, and models that are loaded although no publish is known."""
        desired = self.desired
        holding = sum(bool(have) for have in self.loaded.values())
        if not holding or desired.pointer is not None or desired.remains.possible or desired.claims:
            return desired.problems
        return (
            *desired.problems,
            f"{holding} servers hold models, and nothing in the stores says that anything was ever published; nothing is "
            f"unloaded; see whether it is the right bucket, then {RECOVER} or publish",
        )

    def drift(self) -> Iterator[Action]:
        for entry, found in self.differences.items():
            yield from (Action.on(entry, ActionKind.UNLOAD, model) for model in found.surplus)
            yield from (Action.on(entry, ActionKind.LOAD, load) for load in found.missing)
            yield from (Action.on(entry, ActionKind.NARROW, load) for load in found.wider)


async def observe(
    plane: ControlPlane,
    states: Collection[EndpointState] = (EndpointState.READY,),
    *,
    asks: bool = True,
    late: Late = tuple,
    timed: bool = False,
) -> Observation:
    """Compare every endpoint in one of some states with what it must hold; unless `asks`, none is asked what it holds. Those that are
    `late`, or become so while they are asked, are left out of what is loaded. With `timed` each is asked what its models took, whose
    answer also shows what it holds."""
    listing = await plane.ports.registry.listing()
    entries = tuple(entry for entry in listing.endpoints if entry.state in states)
    loaded: dict[RegisteredEndpoint, Loaded] = {}
    unreachable: dict[str, str] = {}
    times: dict[Endpoint, ModelsTimes] = {}
    asked = entries if asks else ()

    async def held(entry: RegisteredEndpoint) -> Loaded:
        if not timed:
            return await loaded_on(plane, entry)
        found = await times_on(plane, entry)
        if entry.state is EndpointState.READY:
            times[entry.endpoint] = found
        return versions_of(found)

    # What is loaded is asked before what should be: its loader had claimed it before.
    for entry, have in zip(asked, await each(plane, asked, partial(_unless_late, held, late)), strict=True):
        if isinstance(have, EndpointError):
            unreachable[entry.endpoint.url] = str(have)
        elif have is not None:
            loaded[entry] = have
    desired = await plane.reader.read()
    found = {entry: await differs(plane, entry, have, desired) for entry, have in loaded.items()}
    return Observation(desired, entries, loaded, found, unreachable, listing.refused, times)


async def _unless_late(
    held: Callable[[RegisteredEndpoint], Awaitable[Loaded]], late: Late, entry: RegisteredEndpoint
) -> Loaded | None:
    """Return what an endpoint holds; None where it is late. Raises `EndpointError`."""
    asking = asyncio.ensure_future(held(entry))
    try:
        while not asking.done():
            if entry.endpoint in late():
                return None
            await asyncio.wait([asking], timeout=GIVEN_UP_S)
        return asking.result()
    finally:
        await cancel(asking)


async def differs(plane: ControlPlane, entry: RegisteredEndpoint, have: Loaded, desired: Desired) -> Difference:
    """Return how far an endpoint is from what it must hold. What could not all be read makes nothing surplus."""
    needed, allowed = desired.needs(entry.endpoint.shard), desired.plan(entry.endpoint.shard)
    found = difference(needed, have, {}, allowed)
    if not desired.complete:
        return Difference(found.missing)
    if len(found.surplus) < 2:
        return found
    return difference(needed, have, await plane.reader.past_steps(), allowed)


def waiting(plane: ControlPlane, seen: Observation) -> tuple[str, ...]:
    missing = {
        (entry.endpoint.shard, load.model) for entry, found in seen.differences.items() for load in found.missing
    }
    return plane.failures.waiting(missing)
