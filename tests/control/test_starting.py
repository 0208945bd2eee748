"""A publish that waits for servers which are starting."""

from __future__ import annotations

import asyncio

import pytest
from tidegate.control.config import ControlConfig
from tidegate.errors import PublishError
from tidegate.ports import EndpointState, RegisteredEndpoint

from tests.control.plane import Plane, clock
from tests.support.virtual_time import run

WAIT_S = 10.0
CONFIG = ControlConfig(endpoint_wait_s=WAIT_S)


def test_a_server_that_loads_for_long_is_waited_for_as_long_as_it_gets_further() -> None:
    async def work() -> None:
        plane = Plane(config=CONFIG)
        server = await plane.add("a", EndpointState.LOADING)
        await plane.add("b")
        publishing = asyncio.create_task(plane.publish(main="pipeline", other="popular"))
        await asyncio.sleep(1)
        (claim,) = [each for each in await plane.bundles.claims() if each.revision]
        for load in (await plane.bundles.assignment(claim.revision))["a"]:
            await asyncio.sleep(WAIT_S * 0.9)
            await server.repository.load(load, 1)
        assert not publishing.done()
        await plane.registry.register(RegisteredEndpoint(server.endpoint, EndpointState.READY, clock()))
        await publishing
        assert plane.held("a") == [{"features/2", "scorer/1", "pipeline/1"}]

    run(work())


def test_a_server_that_gets_no_further_is_given_up() -> None:
    async def work() -> None:
        plane = Plane(config=CONFIG)
        await plane.add("a", EndpointState.LOADING)
        await plane.add("b")
        began = clock()
        with pytest.raises(PublishError, match="shard 'a' has no server that is ready"):
            await plane.publish(main="pipeline", other="popular")
        assert clock() - began < 3 * WAIT_S

    run(work())
