"""A server that ends once while it loads does not end a publish; a model that ends its servers does, and costs no more of
them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tidegate.errors import PublishError
from tidegate.fleet.local_fleet import LocalFleet
from tidegate.ports import EndpointState, RegisteredEndpoint
from tidegate.testing import MemoryFaults, MemoryModel, MemoryServerLauncher

from tests.control.plane import MODELS, Plane, clock
from tests.support.virtual_time import run

PROMPT_S = 10.0


@asynccontextmanager
async def kept(plane: Plane) -> AsyncIterator[None]:
    """Keep the servers of a fleet running: two of shard a, and one of b."""
    fleet = asyncio.create_task(LocalFleet(plane.process(), plane.launcher).run())
    try:
        yield
    finally:
        fleet.cancel()
        await asyncio.wait([fleet])


def ended(plane: Plane) -> int:
    return sum(event.action == "ended" for event in plane.launcher.history)


@pytest.mark.parametrize("model", ["features", "popular"], ids=["of two", "alone"])
def test_a_server_that_ends_once_at_the_first_start_is_waited_for(model: str) -> None:
    async def work() -> None:
        plane = Plane()
        async with kept(plane):
            plane.faults.fatal_once = {model}
            await plane.publish(main="pipeline", other="popular")
            assert ended(plane) == 1
            assert plane.held("a") == [{"features/2", "scorer/1", "pipeline/1"}] * 2
            assert plane.held("b") == [{"popular/1"}]
            assert any("waiting for its successor" in event.text for event in plane.events)
            assert plane.violations == []

    run(work())


def test_a_server_that_ends_once_over_a_model_that_was_live_is_waited_for_while_the_others_serve() -> None:
    async def work() -> None:
        plane = Plane()
        async with kept(plane):
            await plane.publish(main="scorer/1", other="popular")
            plane.faults.fatal_once = {"popular"}
            await plane.publish(placement={"popular": ["a", "b"]}, main="popular", other="popular")
            assert ended(plane) == 1
            assert plane.held("a") == [{"scorer/1", "popular/1"}] * 2
            assert plane.violations == []

    run(work())


def test_a_new_model_that_was_loaded_on_one_server_is_loaded_again_where_another_ended() -> None:
    async def work() -> None:
        plane = Plane()
        plane.scratch = MemoryServerLauncher(MemoryFaults())
        async with kept(plane):
            await plane.publish(main="scorer/1", other="popular")
            second = plane.launcher.running("a")[1]
            second.repository.faults = MemoryFaults(fatal={"fresh"})
            await plane.publish(main="fresh", other="popular")
            assert ended(plane) == 1
            assert not second.running
            assert plane.held("a") == [{"scorer/1", "fresh/1"}] * 2
            assert plane.violations == []

    run(work())


@pytest.mark.parametrize(("shard", "servers"), [("a", 2), ("b", 2)])
def test_at_the_first_start_a_model_that_ends_its_servers_is_named_soon(shard: str, servers: int) -> None:
    async def work() -> None:
        plane = Plane({**MODELS, "bad": MemoryModel()})
        plane.faults.fatal = {"bad"}
        async with kept(plane):
            began = clock()
            with pytest.raises(
                PublishError, match=r"while it loaded 'bad': .*if it happens again, it is the model"
            ) as failure:
                await plane.publish(placement={"bad": [shard]}, main="scorer/1", other="bad")
            assert failure.value.step == "load"
            assert clock() - began < PROMPT_S
            # Both at once, or the only one and its successor.
            assert ended(plane) == servers

    run(work())


def test_a_new_model_that_ends_the_first_server_of_those_that_serve_ends_no_other() -> None:
    async def work() -> None:
        plane = Plane({**MODELS, "bad": MemoryModel()})
        plane.scratch = MemoryServerLauncher(MemoryFaults())
        async with kept(plane):
            await plane.publish(main="scorer/1", other="popular")
            plane.faults.fatal = {"bad"}
            began = clock()
            with pytest.raises(PublishError, match="while it loaded 'bad'"):
                await plane.publish(placement={"bad": ["a"]}, main="bad", other="popular")
            assert clock() - began < PROMPT_S
            await asyncio.sleep(30)
            assert ended(plane) == 1
            assert plane.violations == []

    run(work())


def test_a_server_that_nobody_replaces_is_waited_for_as_long_as_for_any_other() -> None:
    async def work() -> None:
        plane = Plane()
        await plane.add("a")
        await plane.add("b")
        plane.faults.fatal_once = {"popular"}
        began = clock()
        with pytest.raises(PublishError, match="while it loaded 'popular'"):
            await plane.publish(main="scorer/1", other="popular")
        assert clock() - began == pytest.approx(plane.config.endpoint_wait_s, abs=PROMPT_S)

    run(work())


def test_a_successor_at_the_same_address_is_recognised() -> None:
    async def work() -> None:
        plane = Plane()
        await plane.add("a")
        lost = await plane.add("b")
        plane.faults.fatal_once = {"popular"}
        publishing = asyncio.create_task(plane.publish(main="scorer/1", other="popular"))
        await asyncio.sleep(2)
        plane.launcher.servers[lost.endpoint.port - 1] = type(lost)(lost.endpoint, plane.faults, plane.launcher.history)
        await plane.registry.register(RegisteredEndpoint(lost.endpoint, EndpointState.READY, clock()))
        await publishing
        assert plane.held("b") == [{"popular/1", "scorer/1"}]

    run(work())
