"""Shards without a server: a revision goes live without them where nothing is served worse, and says what is missing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tidegate.bootstrap.rules_sources import GivenRules
from tidegate.control.config import ControlConfig
from tidegate.control.presence import gaps
from tidegate.control.publish import PublishRequest, publish_rules
from tidegate.errors import PublishError
from tidegate.ports import EndpointState, RegisteredEndpoint
from tidegate.rules import compile_directory, load_bundle
from tidegate.testing import MemoryModelServer, MemoryServerLauncher

from tests.control.plane import Plane, clock
from tests.control.rules import PLACEMENT, bundle
from tests.support.stack import write_rules
from tests.support.virtual_time import run

ON_BOTH = {"popular": ["a", "b"]}


async def published(*, scratch: bool = True) -> tuple[Plane, MemoryModelServer]:
    """`main` is served from shard a, `other` from shard b, which has one server: it is returned."""
    plane = Plane()
    plane.scratch = MemoryServerLauncher() if scratch else None
    for _ in range(2):
        await plane.add("a")
    server = await plane.add("b")
    await plane.publish(main="fresh", other="popular")
    await plane.publish(main="features", other="popular")
    await asyncio.sleep(60)
    return plane, server


async def lose(plane: Plane, server: MemoryModelServer) -> None:
    """A server has ended, and the registry has forgotten it."""
    server.end()
    await plane.registry.deregister(server.endpoint)


@pytest.mark.parametrize("scratch", [True, False])
def test_a_publish_goes_on_without_a_shard_that_is_dead_under_the_live_revision_too(scratch: bool) -> None:
    async def work() -> None:
        plane, server = await published(scratch=scratch)
        await lose(plane, server)
        began = clock()
        result = await plane.publish(main="pipeline", other="popular")
        assert plane.config.absent_wait_s <= clock() - began < plane.config.absent_wait_s + 10
        assert plane.live() == result.revision
        assert result.activated is not None
        (absent,) = json.loads(json.dumps(result.activated.as_dict()))["absent"]
        assert absent == {"shard": "b", "targets": ["popular"], "rules": ["other/default"]}
        (warning,) = result.activated.warnings
        assert all(word in warning for word in ("'b'", "'popular'", "'other/default'"))
        assert plane.held("a") == [{"features/2", "fresh/1", "scorer/1", "pipeline/1"}] * 2
        late = await plane.add("b", EndpointState.LOADING)
        await plane.registry.register(RegisteredEndpoint(late.endpoint, EndpointState.READY, clock()))
        await plane.reconcile()
        assert plane.held("b") == [{"popular/1"}]

    run(work())


def test_a_shard_whose_rules_have_another_shard_or_a_fallback_is_not_waited_for() -> None:
    async def work() -> None:
        plane, server = await published()
        await plane.publish(placement=ON_BOTH, main="features", other="popular")
        await lose(plane, server)
        rules = "[{id: us, when: {country: US}, serve: scorer/2, fallback: [fresh]}, {id: rest, serve: popular}]"
        placement = {**ON_BOTH, "scorer": ["b"]}
        result = await plane.publish(placement=placement, main="fresh", other=rules)
        assert result.activated is not None
        (absent,) = result.activated.absent
        assert (absent.shard, absent.targets, absent.rules) == ("b", ("popular", "scorer/2"), ())

    run(work())


@pytest.mark.parametrize("split", [False, True])
def test_a_rule_that_would_lose_its_only_server_is_named_and_nothing_goes_live(split: bool) -> None:
    async def work() -> None:
        plane, server = await published()
        before = plane.live()
        await lose(plane, server)
        main = "[{id: ab, split: {features: 99, popular: 1}}]" if split else "popular"
        with pytest.raises(PublishError, match=rf"shard 'b' has no server.*'main/{'ab' if split else 'default'}'"):
            await plane.publish(main=main, other="popular")
        assert plane.live() == before
        assert plane.violations == []

    run(work())


def test_a_shard_whose_server_starts_meanwhile_is_waited_for() -> None:
    async def work() -> None:
        plane, server = await published()
        await lose(plane, server)
        late = await plane.add("b", EndpointState.LOADING)
        publishing = asyncio.create_task(plane.publish(main="pipeline", other="popular"))
        await asyncio.sleep(20)
        assert not publishing.done()
        await plane.registry.register(RegisteredEndpoint(late.endpoint, EndpointState.READY, clock()))
        result = await publishing
        assert result.activated is not None
        assert result.activated.absent == ()
        assert plane.held("b") == [{"popular/1"}]

    run(work())


def test_a_new_model_that_no_server_can_be_tried_on_goes_nowhere() -> None:
    async def work() -> None:
        plane, server = await published(scratch=False)
        await plane.publish(main="features", other="scorer/1", placement={"scorer": ["b"]})
        await lose(plane, server)
        with pytest.raises(PublishError, match="'scorer' was never live, and no server is ready") as failure:
            await plane.publish(main="features", other="scorer/2", placement={"scorer": ["b"]})
        assert failure.value.step == "try"

    run(work())


@pytest.mark.parametrize("forgotten", [True, False])
def test_a_rollback_waits_for_no_shard_that_is_as_dead_now(forgotten: bool) -> None:
    async def work() -> None:
        plane, server = await published()
        server.end()
        if forgotten:
            await plane.registry.deregister(server.endpoint)
        began = clock()
        result = await plane.roll_back()
        assert clock() - began < 1
        assert result.activated is not None
        assert [each.shard for each in result.activated.absent] == ["b"]
        assert "load skipped" in plane.steps()

    run(work())


@pytest.mark.parametrize("forgotten", [True, False])
def test_a_rollback_that_loads_first_does_not_wait_for_it_either(forgotten: bool) -> None:
    async def work() -> None:
        plane, server = await published()
        first = plane.bundles.history[0].revision
        for target in ("pipeline", "scorer/1", "scorer/2", "scorer/3", "features/1"):
            await plane.publish(main=target, other="popular")
        server.end()
        if forgotten:
            await plane.registry.deregister(server.endpoint)
        began = clock()
        await plane.roll_back(first)
        assert plane.live() == first
        assert plane.bundles.history[-1].at - began < 5
        assert {"fresh/1"} <= plane.held("a")[0]

    run(work())


def test_a_rollback_to_what_was_forgotten_needs_no_server_of_a_dead_shard_to_try_it_on() -> None:
    async def work() -> None:
        plane = Plane(config=ControlConfig(keep_revisions=1))
        for _ in range(2):
            await plane.add("a")
        server = await plane.add("b")
        on_b = {"fresh": ["b"]}
        old = await plane.publish(placement=on_b, main="scorer/1", other="popular")
        for version in ("scorer/2", "scorer/3"):
            await plane.publish(placement=on_b, main=version, other="fresh")
            await asyncio.sleep(60)
        await plane.reconcile()
        await lose(plane, server)
        with pytest.raises(PublishError, match="no server is ready that it could be tried on"):
            await plane.publish(placement=on_b, main="scorer/1", other="popular")
        result = await plane.roll_back(old.revision)
        assert plane.live() == old.revision
        assert result.activated is not None
        assert any("'b'" in warning for warning in result.activated.warnings)
        assert any("'popular' could not be tried" in event.text for event in plane.events)

    run(work())


def test_a_rollback_to_rules_that_only_a_dead_shard_serves_is_refused_at_once() -> None:
    async def work() -> None:
        plane, server = await published()
        await plane.publish(placement=ON_BOTH, main="features", other="scorer/1")
        await asyncio.sleep(60)
        await lose(plane, server)
        live, began = plane.live(), clock()
        with pytest.raises(PublishError, match=r"shard 'b' has no server.*'other/default'"):
            await plane.roll_back()
        assert clock() - began < 5
        assert plane.live() == live

    run(work())


def test_a_fresh_shard_that_may_sleep_can_be_published_to_and_fills_itself_when_it_wakes(tmp_path: Path) -> None:
    shards = {"a": 1, "b": {"replicas": 1, "scale_to_zero": True}}
    write_rules(tmp_path, shards, {**PLACEMENT, "scorer": ["a"]}, main="features", other="popular")

    async def work() -> None:
        plane = Plane()
        await plane.add("a")
        await plane.publish(main="features", other="scorer/1", placement={"scorer": ["a"]})
        began = clock()
        request = PublishRequest(rules=GivenRules(compile_directory(tmp_path)), by="ana")
        result = await publish_rules(plane.process(), request, plane.events.append)
        assert clock() - began < plane.config.absent_wait_s + 5
        assert result.activated is not None
        assert [(each.shard, each.rules) for each in result.activated.absent] == [("b", ("other/default",))]
        assert any("'popular' could not be tried" in event.text for event in plane.events)
        await plane.add("b")
        await plane.reconcile()
        assert plane.held("b") == [{"popular/1"}]

    run(work())


@pytest.mark.parametrize(
    ("rule", "absent", "lacks"),
    [
        ("serve: fresh", "b", False),
        ("serve: popular", "b", True),
        ("serve: scorer/1", "b", False),
        ("serve: popular, fallback: [fresh]", "b", False),
        ("serve: fresh, shadow: {popular: 10}", "b", False),
        ("split: {fresh: 1, popular: 0}", "b", True),
        ("split: {fresh: 1, popular: 1}, fallback: [scorer/1]", "b", False),
        ('experiment: {id: "1", allocate: caller, cells: {1: fresh, 2: popular}}', "b", True),
        ('experiment: {id: "1", allocate: caller, cells: {1: fresh, 2: scorer/1}}', "b", False),
    ],
)
def test_a_rule_lacks_a_server_where_one_of_its_decisions_does(rule: str, absent: str, lacks: bool) -> None:
    rules = f"[{{id: first, when: {{country: US}}, {rule}}}, {{id: rest, serve: fresh}}]"
    found = gaps(load_bundle(bundle(main=rules)), {absent})
    assert found == ({"main/first"} if lacks else set())
