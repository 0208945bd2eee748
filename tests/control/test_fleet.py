"""Servers in memory that a process supervises: filled before they are ready, replaced when they end or are wedged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tidegate.control.fleet import LocalFleet

from tests.control.plane import Plane
from tests.support.virtual_time import run


@contextlib.asynccontextmanager
async def running(plane: Plane) -> AsyncIterator[LocalFleet]:
    """A fleet that runs as long as the block; afterwards nothing runs on."""
    fleet = LocalFleet(plane.process(), plane.launcher)
    task = asyncio.create_task(fleet.run())
    try:
        yield fleet
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert plane.launcher.running() == []
        assert await plane.registry.endpoints() == []


def test_the_first_publish_brings_up_the_servers_that_the_rules_ask_for() -> None:
    async def work() -> None:
        plane = Plane()
        async with running(plane) as fleet:
            await plane.publish(main="pipeline", other="popular")
            await asyncio.sleep(5)
            assert plane.held("a") == [{"features/2", "scorer/1", "pipeline/1"}] * 2
            assert plane.held("b") == [{"popular/1"}]
            assert len(fleet.directory.endpoints("a")) == 2

    run(work())


def test_a_server_that_ends_is_replaced_and_filled() -> None:
    async def work() -> None:
        plane = Plane()
        async with running(plane) as fleet:
            await plane.publish(main="pipeline", other="popular")
            await asyncio.sleep(5)
            plane.launcher.running("a")[0].end()
            await asyncio.sleep(5)
            assert plane.held("a") == [{"features/2", "scorer/1", "pipeline/1"}] * 2
            assert len(fleet.directory.endpoints("a")) == 2

    run(work())


def test_a_load_that_hangs_fails_the_publish_and_its_server_is_replaced() -> None:
    async def work() -> None:
        plane = Plane()
        async with running(plane) as fleet:
            first = await plane.publish(main="scorer/1")
            await asyncio.sleep(5)
            before = fleet.directory.endpoints("a")
            plane.faults.hanging.add("fresh")
            with contextlib.suppress(Exception):
                await plane.publish(main="fresh", other="scorer/1")
            assert plane.live() == first.revision
            await asyncio.sleep(30)
            after = fleet.directory.endpoints("a")
            assert len(after) == 2
            assert len(set(after) & set(before)) == 1
            assert plane.held("a") == [{"scorer/1"}] * 2

    run(work())
