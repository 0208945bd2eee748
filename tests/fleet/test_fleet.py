"""Servers in memory that a process supervises: filled before they are ready, replaced when they end or are wedged."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tidegate.bootstrap.rules_sources import GivenRules
from tidegate.control.config import ControlConfig
from tidegate.control.publish import PublishRequest, publish_rules
from tidegate.errors import PublishError
from tidegate.fleet.directory import RegistryDirectory
from tidegate.fleet.local_fleet import LocalFleet
from tidegate.fleet.slot import Turn
from tidegate.fleet.supervisor import Supervisor

from tests.control.mortal import Interference
from tests.control.plane import Plane
from tests.control.rules import compiled
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
        assert not await plane.registry.endpoints()


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


def test_a_self_test_lists_neither_gateways_nor_claims() -> None:
    """Each server of a fleet tests itself every few seconds: with each gateway in every answer, that would be quadratic."""

    class Calls(Interference):
        def __init__(self) -> None:
            self.made: Counter[str] = Counter()

        async def around(self, port: str, method: str, call: Callable[[], Awaitable[Any]]) -> Any:
            self.made[f"{port}.{method}"] += 1
            return await call()

    async def work() -> None:
        plane = Plane()
        server = await plane.add("a")
        await plane.publish(main="pipeline")
        calls = Calls()
        process = plane.process(calls)
        supervisor = Supervisor("a", plane.launcher, process, RegistryDirectory(plane.registry), 10.0, Turn())
        test = supervisor.self_test(repr)
        for _ in range(20):
            await test.round(server.endpoint)
        assert plane.golden.asked.count((server.endpoint, "pipeline/1")) >= 20
        assert calls.made.keys() <= {"bundles.pointer", "bundles.assignment", "golden.ask"}
        assert calls.made["bundles.assignment"] == 1
        # Without a pointer it tests by what else shows what was live.
        plane.bundles.lose_pointer()
        asked = len(plane.golden.asked)
        await test.round(server.endpoint)
        assert len(plane.golden.asked) > asked

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


def test_an_unforeseen_error_ends_neither_a_server_nor_its_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        plane = Plane()
        async with running(plane) as fleet:
            await plane.publish(main="pipeline", other="popular")
            await asyncio.sleep(5)
            before = plane.launcher.running()

            async def unforeseen(*_: object) -> None:
                raise RuntimeError("unforeseen")

            with monkeypatch.context() as broken:
                broken.setattr(plane.bundles, "claims", unforeseen)
                await asyncio.sleep(20)
                assert plane.launcher.running() == before
                before[0].end()
                await asyncio.sleep(20)
            await asyncio.sleep(20)
            assert plane.held("a") == [{"features/2", "scorer/1", "pipeline/1"}] * 2
            assert len(fleet.directory.endpoints("a")) == 2

    run(work())


def test_a_server_that_comes_back_gets_no_requests_before_it_holds_everything() -> None:
    async def work() -> None:
        plane = Plane()
        async with running(plane) as fleet:
            await plane.publish(main="pipeline", other="popular")
            await asyncio.sleep(5)
            lost = fleet.directory.endpoints("a")[0]
            gate = plane.faults.held["pipeline"] = asyncio.Event()
            plane.launcher.server_at(lost).end()
            await asyncio.sleep(5)
            assert len(plane.launcher.running("a")) == 2
            assert len(fleet.directory.endpoints("a")) == 1
            assert lost not in fleet.directory.endpoints("a")
            gate.set()
            await asyncio.sleep(5)
            assert len(fleet.directory.endpoints("a")) == 2
            assert plane.held("a") == [{"features/2", "scorer/1", "pipeline/1"}] * 2

    run(work())


def test_a_server_that_cannot_load_everything_stays_out_until_it_can_while_others_serve() -> None:
    async def work() -> None:
        plane = Plane()
        async with running(plane) as fleet:
            await plane.publish(main="pipeline", other="popular")
            await asyncio.sleep(5)
            plane.faults.refused["features"] = "the feature store is down"
            plane.launcher.running("a")[0].end()
            await asyncio.sleep(60)
            assert len(fleet.directory.endpoints("a")) == 1
            assert plane.broken() == []
            plane.faults.refused.clear()
            await asyncio.sleep(120)
            assert len(fleet.directory.endpoints("a")) == 2
            assert plane.held("a") == [{"features/2", "scorer/1", "pipeline/1"}] * 2

    run(work())


def test_a_new_server_says_what_the_files_of_a_refused_model_show() -> None:
    located = "popular/1/model.py:3: error[python-syntax]: this does not parse"

    async def work() -> None:
        plane = Plane()
        async with running(plane):
            await plane.publish(main="popular")
            await asyncio.sleep(5)
            plane.faults.refused["popular"] = "failed to poll from model repository"
            plane.findings["popular"] = [located, *(f"popular/config.pbtxt:{line}: error" for line in range(1, 10))]
            plane.launcher.running("b")[0].end()
            await asyncio.sleep(30)
            notes = [entry.note for entry in await plane.registry.endpoints() if entry.endpoint.shard == "b"]
            assert any(f"failed to poll from model repository; {located}" in note for note in notes), notes
            assert any("and 7 more" in note for note in notes)

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


def test_a_wedged_server_serves_on_where_its_successor_cannot_hold_what_is_live() -> None:
    async def work() -> None:
        plane = Plane()
        async with running(plane) as fleet:
            await plane.publish(main="popular")
            await asyncio.sleep(5)
            (only,) = fleet.directory.endpoints("b")
            plane.faults.hanging.add("scorer")
            plane.faults.refused["popular"] = "the artefact has been overwritten"
            with pytest.raises(PublishError, match=r"'scorer' on .* of shard 'b'"):
                await _publish(plane, {"b": 1}, {"popular": ["b"], "scorer": ["b"]}, main="popular", other="scorer")
            await asyncio.sleep(60)
            assert fleet.directory.endpoints("b") == (only,)
            assert plane.launcher.server_at(only).repository.ready("popular")

    run(work())


def test_shards_and_replicas_come_and_go_without_a_gap() -> None:
    async def work() -> None:
        plane = Plane(config=ControlConfig(keep_revisions=0))
        async with running(plane) as fleet:
            await plane.publish(main="scorer/1")
            await asyncio.sleep(30)
            (kept,) = fleet.directory.endpoints("b")
            await _publish(plane, {"b": 2, "c": 1}, {"scorer": ["c", "b"]}, main="scorer/1")
            await asyncio.sleep(60)
            assert {shard: len(plane.launcher.running(shard)) for shard in "abc"} == {"a": 0, "b": 2, "c": 1}
            assert kept in fleet.directory.endpoints("b")
            assert fleet.directory.endpoints("a") == ()
            await plane.publish(main="scorer/1")
            await asyncio.sleep(60)
            assert {shard: len(plane.launcher.running(shard)) for shard in "abc"} == {"a": 2, "b": 1, "c": 0}
            assert plane.violations == []

    run(work())


def test_a_fleet_is_stopped_in_the_middle_of_a_publish() -> None:
    async def work() -> None:
        plane = Plane()
        async with running(plane):
            await plane.publish(main="scorer/1")
            await asyncio.sleep(5)
            plane.faults.held["fresh"] = asyncio.Event()
            publishing = asyncio.create_task(plane.publish(main="fresh"))
            await asyncio.sleep(1)
        publishing.cancel()
        await asyncio.wait([publishing])

    run(work())


async def _publish(plane: Plane, shards: dict[str, int], placement: dict[str, list[str]], **objectives: str) -> None:
    """Publish rules that have other shards."""
    placed = tuple((model, tuple(on)) for model, on in placement.items())
    rules = GivenRules(compiled(tuple(shards.items()), placed, tuple(objectives.items())))
    await publish_rules(plane.process(), PublishRequest(rules=rules, by="ana"), plane.events.append)
