"""The registries, in memory and in DynamoDB, give the same guarantees."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tidegate.aws.registry import DynamoRegistry
from tidegate.errors import StoreError
from tidegate.ports import Endpoint, EndpointState, GatewayReport, RegisteredEndpoint, Registry
from tidegate.testing import MemoryRegistry

from tests.support.aws import LocalAws, closed_port, failing_server

TIMEOUT_S = 30.0
START = 1_760_000_000.123456


@dataclass
class Clock:
    now: float = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "dynamodb"])
def registry(request: pytest.FixtureRequest, clock: Clock) -> Registry:
    if request.param == "memory":
        return MemoryRegistry(clock=clock, timeout_s=TIMEOUT_S)
    aws: LocalAws = request.getfixturevalue("aws")
    return DynamoRegistry(aws.clients(), aws.table, TIMEOUT_S, clock)


def server(port: int, state: str = "ready", shard: str = "main", **fields: Any) -> RegisteredEndpoint:
    return RegisteredEndpoint(Endpoint(shard, "127.0.0.1", port), EndpointState(state), **{"seen_at": START, **fields})


def test_endpoints_come_back_sorted_as_they_were_registered(registry: Registry) -> None:
    async def work() -> None:
        assert list(await registry.endpoints()) == []
        entries = [
            server(9, shard="spare", grpc_port=10, metrics_port=11),
            server(100, "loading", note="new"),
            server(20),
        ]
        for entry in entries:
            await registry.register(entry)
        assert list(await registry.endpoints()) == [entries[2], entries[1], entries[0]]
        await registry.register(server(100))
        assert list(await registry.endpoints()) == [entries[2], server(100), entries[0]]
        await registry.deregister(entries[0].endpoint)
        await registry.deregister(entries[0].endpoint)
        assert list(await registry.endpoints()) == [entries[2], server(100)]

    asyncio.run(work())


def test_who_is_silent_is_forgotten_until_it_is_heard_again(registry: Registry, clock: Clock) -> None:
    async def work() -> None:
        await registry.register(server(1))
        await registry.report(GatewayReport("gateway", "r1", START))
        clock.now = START + TIMEOUT_S
        assert len(await registry.endpoints()) == len(await registry.gateways()) == 1
        clock.now += 0.5
        assert len(await registry.endpoints()) == len(await registry.gateways()) == 0
        await registry.register(server(1, seen_at=clock.now))
        await registry.report(GatewayReport("gateway", "r2", clock.now))
        assert list(await registry.endpoints()) == [server(1, seen_at=clock.now)]
        assert list(await registry.gateways()) == [GatewayReport("gateway", "r2", clock.now)]

    asyncio.run(work())


def test_a_server_does_not_take_back_that_it_is_wedged(registry: Registry, clock: Clock) -> None:
    async def work() -> None:
        await registry.register(server(1))
        await registry.mark_wedged(server(1).endpoint, "the load of 'm' hangs")
        clock.now += 10
        await registry.register(server(1, seen_at=clock.now, note="fine", grpc_port=7))
        expected = server(1, "wedged", seen_at=clock.now, note="the load of 'm' hangs", grpc_port=7)
        assert list(await registry.endpoints()) == [expected]
        # Replaced by its owner, it begins anew.
        await registry.deregister(server(1).endpoint)
        await registry.register(server(1, "loading", seen_at=clock.now))
        assert list(await registry.endpoints()) == [server(1, "loading", seen_at=clock.now)]

    asyncio.run(work())


def test_a_wedged_server_that_was_silent_for_long_begins_anew(registry: Registry, clock: Clock) -> None:
    async def work() -> None:
        await registry.register(server(1, "wedged", note="said by itself"))
        clock.now += TIMEOUT_S + 1
        await registry.register(server(1, seen_at=clock.now))
        assert list(await registry.endpoints()) == [server(1, seen_at=clock.now)]

    asyncio.run(work())


def test_marking_an_unknown_endpoint_makes_none(registry: Registry) -> None:
    async def work() -> None:
        await registry.mark_wedged(server(1).endpoint, "who?")
        assert list(await registry.endpoints()) == []

    asyncio.run(work())


def test_heartbeats_that_race_with_the_mark_do_not_undo_it(registry: Registry) -> None:
    async def work() -> None:
        await registry.register(server(1))
        beats = [registry.register(server(1, seen_at=START + number)) for number in range(5)]
        await asyncio.gather(*beats[:3], registry.mark_wedged(server(1).endpoint, "hangs"), *beats[3:])
        (entry,) = await registry.endpoints()
        assert replace(entry, seen_at=START) == server(1, "wedged", note="hangs")

    asyncio.run(work())


def test_gateways_come_back_sorted(registry: Registry) -> None:
    async def work() -> None:
        reports = [GatewayReport(name, "r" * 64, START) for name in ("b", "a")]
        for report in reports:
            await registry.report(report)
        assert list(await registry.gateways()) == reports[::-1]

    asyncio.run(work())


# What only the real table can have.


def test_more_than_one_page_comes_back_whole(aws: LocalAws, clock: Clock) -> None:
    async def work() -> None:
        registry = DynamoRegistry(aws.clients(), aws.table, TIMEOUT_S, clock)
        note = "n" * 300_000
        for port in range(1, 6):
            await registry.register(server(port, note=note))
        assert [entry.endpoint.port for entry in await registry.endpoints()] == [1, 2, 3, 4, 5]

    asyncio.run(work())


def test_the_table_forgets_by_itself(aws: LocalAws, clock: Clock) -> None:
    async def work() -> None:
        await DynamoRegistry(aws.clients(), aws.table, TIMEOUT_S, clock).register(server(1))
        dynamodb = aws.clients().client("dynamodb")
        (item,) = dynamodb.scan(TableName=aws.table)["Items"]
        assert int(item["expires_at"]["N"]) == pytest.approx(START + TIMEOUT_S, abs=1)
        described = dynamodb.describe_time_to_live(TableName=aws.table)["TimeToLiveDescription"]
        assert described == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}

    asyncio.run(work())


@pytest.mark.parametrize("down", [closed_port, lambda: failing_server(500)])
def test_a_registry_that_is_down_is_an_error(aws: LocalAws, down: Callable[[], Any]) -> None:
    async def work() -> None:
        with down() as url:
            registry = DynamoRegistry(aws.clients(url, timeout_s=0.2), aws.table)
            for call in (registry.endpoints(), registry.register(server(1))):
                with pytest.raises(StoreError, match=f"^DynamoDB at {url} "):
                    await call

    asyncio.run(work())


def test_a_table_that_is_missing_is_named(aws: LocalAws) -> None:
    async def work() -> None:
        for call in (
            DynamoRegistry(aws.clients(), "no-such").gateways(),
            DynamoRegistry(aws.clients(), "no-such").report(GatewayReport("g", "r", 1)),
        ):
            with pytest.raises(StoreError, match=r"^there is no table 'no-such'; create it, or name another$"):
                await call

    asyncio.run(work())


def test_a_damaged_item_is_named_and_hides_no_other(aws: LocalAws, clock: Clock) -> None:
    async def work() -> None:
        registry = DynamoRegistry(aws.clients(), aws.table, TIMEOUT_S, clock)
        item = {"pk": {"S": "endpoint#main"}, "sk": {"S": "127.0.0.1:1\x1b[2J"}, "seen_at": {"N": repr(START)}}
        aws.clients().client("dynamodb").put_item(TableName=aws.table, Item=item)
        await registry.register(server(2))
        gateway = {"pk": {"S": "gateway"}, "sk": {"S": "g"}, "revision": {"S": "r"}, "seen_at": {"N": "1e100"}}
        aws.clients().client("dynamodb").put_item(TableName=aws.table, Item=gateway)
        assert await registry.gateways() == []
        assert list(await registry.endpoints()) == [server(2)]
        listing = await registry.listing()
        (refused,) = listing.refused
        assert (listing.endpoints, refused.shard) == ((server(2),), "main")
        assert "the item endpoint#main 127.0.0.1:1\\x1b[2J" in refused.note

    asyncio.run(work())


def test_an_endpoint_outside_the_networks_is_refused(aws: LocalAws, clock: Clock) -> None:
    async def work() -> None:
        networks = [ipaddress.ip_network("10.42.0.0/16"), ipaddress.ip_network("fd00::/8")]
        registry = DynamoRegistry(aws.clients(), aws.table, TIMEOUT_S, clock, networks)
        hosts = ["10.42.3.4", "fd00::7", "10.43.0.1", "::ffff:10.42.3.4", "169.254.169.254", "example.com", ""]
        for host in hosts:
            await registry.register(replace(server(1), endpoint=Endpoint("main", host, 8000)))
        listing = await registry.listing()
        assert {entry.endpoint.host for entry in listing.endpoints} == set(hosts[:2])
        assert {entry.address.removesuffix(":8000") for entry in listing.refused} == set(hosts[2:])
        assert tuple(await registry.endpoints("main")) == listing.endpoints

    asyncio.run(work())


def test_a_shard_is_a_partition_of_its_own(aws: LocalAws, clock: Clock) -> None:
    async def work() -> None:
        registry = DynamoRegistry(aws.clients(), aws.table, TIMEOUT_S, clock)
        await registry.register(server(1, shard="a"))
        await registry.register(server(2, shard="ab"))
        assert [each.endpoint.shard for each in await registry.endpoints("a")] == ["a"]
        items = aws.clients().client("dynamodb").scan(TableName=aws.table)["Items"]
        assert {item["pk"]["S"] for item in items} == {"endpoint#a", "endpoint#ab"}

    asyncio.run(work())
