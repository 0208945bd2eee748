"""The directory of the endpoints that may be sent requests, while the registry comes and goes."""

from __future__ import annotations

import asyncio

import pytest
from tidegate.fleet.directory import RegistryDirectory
from tidegate.ports import Endpoint, EndpointState, RegisteredEndpoint
from tidegate.testing import MemoryRegistry

from tests.control.plane import clock
from tests.support.virtual_time import run

SILENCE_S = 15.0
FIRST, SECOND = Endpoint("a", "memory", 1), Endpoint("a", "memory", 2)


def test_endpoints_that_were_silent_while_the_registry_was_down_still_get_requests() -> None:
    async def work() -> None:
        registry = MemoryRegistry(clock=clock, timeout_s=SILENCE_S)
        directory = RegistryDirectory(registry)

        async def tell(endpoint: Endpoint, state: EndpointState) -> list[Endpoint]:
            await registry.register(RegisteredEndpoint(endpoint, state, clock()))
            await directory.refresh()
            return list(directory.endpoints("a"))

        assert await tell(FIRST, EndpointState.READY) == [FIRST]
        assert await tell(SECOND, EndpointState.READY) == [FIRST, SECOND]
        await asyncio.sleep(SILENCE_S + 1)
        await directory.refresh()
        assert list(directory.endpoints("a")) == [FIRST, SECOND]
        assert await tell(FIRST, EndpointState.LOADING) == [FIRST, SECOND]
        assert await tell(FIRST, EndpointState.READY) == [FIRST]
        assert await tell(SECOND, EndpointState.READY) == [FIRST, SECOND]

    run(work())


def test_an_endpoint_that_has_ended_gets_none_whatever_the_registry_says() -> None:
    async def work() -> None:
        registry = MemoryRegistry(clock=clock, timeout_s=SILENCE_S)
        directory = RegistryDirectory(registry)
        await registry.register(RegisteredEndpoint(FIRST, EndpointState.READY, clock()))
        await directory.refresh()
        directory.drop(FIRST)
        assert list(directory.endpoints("a")) == []
        await asyncio.sleep(SILENCE_S + 1)
        await directory.refresh()
        await registry.register(RegisteredEndpoint(SECOND, EndpointState.LOADING, clock()))
        await directory.refresh()
        assert list(directory.endpoints("a")) == []

    run(work())


@pytest.mark.parametrize("turns", range(4))
def test_a_follower_that_is_cancelled_just_when_it_is_poked_ends(turns: int) -> None:
    async def work() -> None:
        directory = RegistryDirectory(MemoryRegistry(clock=clock))
        following = asyncio.create_task(directory.follow(1000))
        await asyncio.sleep(1)
        directory.poke()
        for _ in range(turns):
            await asyncio.sleep(0)
        following.cancel()
        await asyncio.wait([following], timeout=5)
        assert following.done()

    run(work())


def test_who_follows_is_told_every_change_at_once_and_nothing_else() -> None:
    async def work() -> None:
        registry = MemoryRegistry(clock=clock)
        directory = RegistryDirectory(registry)
        told: list[dict[str, list[Endpoint]]] = []
        directory.subscribe(lambda shards: told.append({shard: list(group) for shard, group in shards.items()}))
        for endpoint in (FIRST, SECOND):
            await registry.register(RegisteredEndpoint(endpoint, EndpointState.READY, clock()))
            await directory.refresh()
        await directory.refresh()
        directory.drop(FIRST)
        assert told == [{}, {"a": [FIRST]}, {"a": [FIRST, SECOND]}, {"a": [SECOND]}]

    run(work())
