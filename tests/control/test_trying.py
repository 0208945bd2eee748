"""A model that hangs, or ends its server, costs the one server that it is tried on, and nobody but its publisher loads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from tidegate.bootstrap.rules_sources import GivenRules
from tidegate.control.publish import PublishRequest, publish_rules
from tidegate.control.status import read_status
from tidegate.control.trying import TRY_KEPT_S
from tidegate.errors import PublishError
from tidegate.fleet.local_fleet import LocalFleet
from tidegate.ports import Claim, ClaimStage, Endpoint, EndpointState, GoldenResult, ModelLoad
from tidegate.rules import Target
from tidegate.testing import MemoryFaults, MemoryGoldenRequests, MemoryModel, MemoryServerLauncher

from tests.control.mortal import Hold
from tests.control.plane import MODELS, Plane, clock
from tests.control.rules import bundle
from tests.support.virtual_time import run

FAULTS = ["refused", "hanging", "fatal", "wrong", "hangs when asked", "ends when asked"]
WITH_BAD = {**MODELS, "bad": MemoryModel()}
ON_ALL = {"bad": ["a", "b"]}


def misbehave(plane: Plane, fault: str, model: str = "bad") -> None:
    """Make a model misbehave wherever it is loaded or asked."""
    everywhere = (plane.faults,) if plane.scratch is None else (plane.faults, plane.scratch.faults)
    for faults in everywhere:
        faults.refused = {model: "no licence file"} if fault == "refused" else {}
        faults.hanging = {model} if fault == "hanging" else set()
        faults.fatal = {model} if fault == "fatal" else set()
    plane.golden.wrong = {model: "1 row for 2"} if fault == "wrong" else {}
    plane.golden.hanging = {model} if fault == "hangs when asked" else set()
    plane.golden.fatal = {model} if fault == "ends when asked" else set()


@asynccontextmanager
async def supervised(*, scratch: bool) -> AsyncIterator[Plane]:
    """A fleet that keeps its servers, where `scorer/1` and `popular` are live; shard b has one server."""
    plane = Plane(WITH_BAD)
    plane.scratch = MemoryServerLauncher(MemoryFaults()) if scratch else None
    fleet = asyncio.create_task(LocalFleet(plane.process(), plane.launcher).run())
    try:
        await plane.publish(main="scorer/1", other="popular")
        await asyncio.sleep(30)
        yield plane
    finally:
        fleet.cancel()
        await asyncio.wait([fleet])


@pytest.mark.parametrize("fault", FAULTS)
def test_on_a_scratch_server_a_model_harms_nothing_that_is_live(fault: str) -> None:
    async def work() -> None:
        async with supervised(scratch=True) as plane:
            assert plane.scratch is not None
            done, launched = plane.changes(), len(plane.launcher.servers)
            misbehave(plane, fault)
            before = plane.live()
            with pytest.raises(PublishError, match="'bad'") as failure:
                await plane.publish(placement=ON_ALL, main="bad", other="scorer/2")
            assert failure.value.step == "try"
            assert plane.live() == before
            await asyncio.sleep(60)
            assert (plane.changes(), len(plane.launcher.servers)) == (done, launched), "the fleet saw nothing of it"
            assert plane.scratch.running() == []
            assert plane.violations == []

    run(work())


@pytest.mark.parametrize("fault", FAULTS)
def test_on_the_fleet_a_model_costs_one_server_of_the_largest_shard_and_the_next_publish_tells_its_own_reason(
    fault: str,
) -> None:
    async def work() -> None:
        async with supervised(scratch=False) as plane:
            launched = len(plane.launcher.servers)
            misbehave(plane, fault)
            before = plane.live()
            with pytest.raises(PublishError, match="'bad'") as failure:
                await plane.publish(placement=ON_ALL, main="bad", other="popular")
            assert failure.value.step == "try"
            assert plane.live() == before
            (note,) = [event.text for event in plane.events if event.text.startswith("trying bad on")]
            assert note.endswith("of shard 'a'")
            tried = {event.endpoint for event in plane.launcher.history if event.model == "bad"}
            assert len(tried) == (fault != "fatal")
            # At once, with what has come of the server.
            misbehave(plane, "refused", "fresh")
            began = clock()
            with pytest.raises(PublishError, match=r"'fresh'.*no licence file"):
                await plane.publish(main="fresh", other="popular")
            assert clock() - began < 10
            await asyncio.sleep(30)
            costly = fault in ("hanging", "fatal", "hangs when asked", "ends when asked")
            assert len(plane.launcher.servers) == launched + costly
            assert plane.held("a") == [{"scorer/1"}] * 2
            assert plane.held("b") == [{"popular/1", "scorer/1"}]
            ready = [entry for entry in await plane.registry.endpoints() if entry.state is EndpointState.READY]
            assert len(ready) == 3
            assert plane.violations == []

    run(work())


@pytest.mark.parametrize("fault", ["hanging", "fatal", "hangs when asked", "ends when asked"])
def test_the_one_server_of_a_shard_is_back_promptly_and_the_next_model_is_refused_for_its_own_reason(
    fault: str,
) -> None:
    async def work() -> None:
        async with supervised(scratch=False) as plane:
            misbehave(plane, fault)
            with pytest.raises(PublishError, match="'bad'"):
                await plane.publish(placement={"bad": ["b"]}, main="scorer/1", other="bad")
            misbehave(plane, "refused")
            began = clock()
            with pytest.raises(PublishError, match=r"'bad'.*no licence file"):
                await plane.publish(placement={"bad": ["b"]}, main="scorer/1", other="bad")
            assert clock() - began < 10
            await asyncio.sleep(plane.config.drain_s + 5)
            assert plane.held("b") == [{"popular/1", "scorer/1"}]
            assert plane.violations == []

    run(work())


@pytest.mark.parametrize("fault", ["hanging", "fatal", "wrong", "ends when asked"])
def test_a_model_that_fails_on_the_second_server_alone_is_not_loaded_on_the_third(fault: str) -> None:
    async def work() -> None:
        plane = Plane(WITH_BAD)
        plane.scratch = MemoryServerLauncher(MemoryFaults())
        servers = [await plane.add("a") for _ in range(3)] + [await plane.add("b")]
        await plane.publish(main="scorer/1", other="popular")
        second = servers[1].repository
        second.faults = MemoryFaults(
            hanging={"bad"} if fault == "hanging" else set(), fatal={"bad"} if fault == "fatal" else set()
        )

        class Asked(MemoryGoldenRequests):
            async def ask(self, endpoint: Endpoint, target: Target) -> GoldenResult:
                here = endpoint == servers[1].endpoint
                self.wrong = {"bad": "1 row for 2"} if here and fault == "wrong" else {}
                self.fatal = {"bad"} if here and fault == "ends when asked" else set()
                return await super().ask(endpoint, target)

        plane.golden = Asked(end=plane.golden.end)
        with pytest.raises(PublishError, match=r"'bad' on http://memory:2|memory:2 .*'bad'") as failure:
            await plane.publish(placement={"bad": ["a"]}, main="bad", other="popular")
        assert failure.value.step == "load"
        assert "bad" not in servers[2].repository.holds
        assert not any(
            event.model == "bad" and event.endpoint == servers[2].endpoint for event in plane.launcher.history
        )
        assert plane.violations == []

    run(work())


def test_only_what_never_was_live_is_tried_with_what_it_calls() -> None:
    async def work() -> None:
        plane = Plane()
        plane.scratch = MemoryServerLauncher()
        for shard in ("a", "a", "b"):
            await plane.add(shard)

        async def tried(**rules: str) -> list[tuple[str, tuple[int, ...]]]:
            assert plane.scratch is not None
            plane.scratch.history.clear()
            plane.events.clear()
            await plane.publish(**rules)
            return [(event.model, event.versions) for event in plane.scratch.history if event.action == "loaded"]

        assert await tried(main="scorer/1", other="popular") == [], "nothing was live"
        assert await tried(main="scorer/2", other="popular") == [("scorer", (2,))]
        assert plane.scratch.running() == []
        whole = [("features", (2,)), ("scorer", (1,)), ("pipeline", (1,))]
        assert await tried(main="pipeline", other="popular") == whole
        rules = "[{id: us, when: {country: US}, serve: pipeline}, {id: rest, serve: scorer/2}]"
        assert await tried(main=rules, other="popular") == []
        assert "try skipped" in plane.steps()
        assert [server.endpoint.shard for server in plane.scratch.servers] == ["scratch"] * 2

    run(work())


def test_whoever_publishes_again_by_hand_has_it_tried_again_and_whoever_follows_files_does_not() -> None:
    async def work() -> None:
        async with supervised(scratch=True) as plane:
            assert plane.scratch is not None
            process = plane.process()
            misbehave(plane, "hanging")

            async def tries(*, retries: bool) -> int:
                assert plane.scratch is not None
                before = len(plane.scratch.servers)
                request = PublishRequest(rules=GivenRules(bundle(ON_ALL, main="bad")), by="ana", retries=retries)
                with pytest.raises(PublishError, match="'bad' on a scratch server: did not finish loading"):
                    await publish_rules(process, request, plane.events.append)
                return len(plane.scratch.servers) - before

            assert [await tries(retries=retries) for retries in (False, False, True, False)] == [1, 0, 1, 0]
            await asyncio.sleep(TRY_KEPT_S)
            assert await tries(retries=False) == 1, "what was wrong may have been the machine"
            assert len(process.failed_tries) == 1
            await asyncio.sleep(TRY_KEPT_S)
            request = PublishRequest(rules=GivenRules(bundle(ON_ALL, main="bad", spare="bad")), by="ana")
            with pytest.raises(PublishError, match="'bad' on a scratch server"):
                await publish_rules(process, request, plane.events.append)
            assert len(process.failed_tries) == 1, "one that is too old to count is forgotten"
            misbehave(plane, "")
            request = PublishRequest(rules=GivenRules(bundle(ON_ALL, main="bad")), by="ana")
            assert (await publish_rules(process, request, plane.events.append)).status == "published"

    run(work())


def test_a_scratch_server_that_does_not_start_ends_the_publish_and_says_why() -> None:
    async def work() -> None:
        async with supervised(scratch=True) as plane:
            assert plane.scratch is not None
            plane.scratch.faults.shards["scratch"] = "no memory"
            with pytest.raises(PublishError, match="no memory") as failure:
                await plane.publish(placement=ON_ALL, main="bad")
            assert failure.value.step == "try"

    run(work())


def test_that_no_scratch_server_started_is_not_held_against_a_model() -> None:
    async def work() -> None:
        async with supervised(scratch=True) as plane:
            assert plane.scratch is not None
            process = plane.process()
            request = PublishRequest(rules=GivenRules(bundle(main="scorer/2")), by="ana", retries=False)
            plane.scratch.faults.shards["scratch"] = "not ready within 30 s"
            with pytest.raises(PublishError, match="not ready"):
                await publish_rules(process, request, plane.events.append)
            plane.scratch.faults.shards.clear()
            assert (await publish_rules(process, request, plane.events.append)).status == "published"

    run(work())


def test_what_a_publish_that_ended_left_loaded_is_loaded_again_as_its_files_may_have_been_replaced() -> None:
    async def work() -> None:
        plane = Plane()
        plane.scratch = MemoryServerLauncher()
        server = await plane.add("a")
        await plane.add("b")
        await plane.publish(main="scorer/1", other="popular")
        (draft,) = await plane.catalog.plan([Target("fresh", "fresh", 1, ())], {})
        loads: list[str] = []
        load = server.repository.load

        async def counted(wanted: ModelLoad, timeout_s: float) -> None:
            loads.append(wanted.model)
            await load(wanted, timeout_s)

        server.repository.load = counted  # type: ignore[method-assign]
        server.repository.holds["fresh"] = draft
        await plane.publish(main="fresh", other="popular")
        assert loads == ["fresh"]

    run(work())


@pytest.mark.parametrize("fault", ["hanging", "fatal"])
def test_whoever_repairs_or_fills_servers_leaves_alone_what_is_being_tried(fault: str) -> None:
    async def work() -> None:
        plane = Plane(WITH_BAD)
        fleet = asyncio.create_task(LocalFleet(plane.process(), plane.launcher).run())
        try:
            await plane.publish(main="scorer/1")
            await asyncio.sleep(30)
            launched = len(plane.launcher.servers)
            hold = Hold("endpoint", "load")
            publishing = asyncio.create_task(
                plane.publish(plane.process(hold), placement={"bad": ["a"]}, main="bad", other="scorer/2")
            )
            await hold.held.wait()
            setattr(plane.faults, fault, {"bad"})
            # The fleet reconciles several times, and a server that has ended is replaced and filled.
            plane.launcher.running("b")[0].end()
            await asyncio.sleep(20)
            assert [event.model for event in plane.launcher.history if event.action in ("hung", "refused")] == []
            assert len(plane.launcher.servers) == launched + 1
            assert plane.held("a") == [{"scorer/1"}] * 2
            assert plane.held("b") == [{"scorer/1"}]
            hold.go.set()
            with pytest.raises(PublishError, match="'bad'"):
                await publishing
            await asyncio.sleep(60)
            assert len(plane.launcher.servers) == launched + 2, "one more server had to be replaced"
            assert plane.held("a") == [{"scorer/1"}] * 2
            assert plane.violations == []
        finally:
            fleet.cancel()
            await asyncio.wait([fleet])

    run(work())


def test_what_is_being_tried_is_not_unloaded_and_not_loaded_and_what_is_proved_is() -> None:
    async def work() -> None:
        plane = Plane()
        first, second = await plane.add("a"), await plane.add("a")
        await plane.add("b")
        await plane.publish(main="fresh", other="scorer/1")
        planned = await plane.publish(main="pipeline", other="scorer/2", dry_run=True)
        hold = Hold("bundles", "flip")
        publishing = asyncio.create_task(plane.publish(plane.process(hold), main="pipeline", other="scorer/2"))
        await hold.held.wait()
        (claim,) = await plane.bundles.claims()
        assert (claim.revision, claim.stage) == (planned.revision, ClaimStage.PROVED)
        whole = {"fresh/1", "scorer/1,2", "features/2", "pipeline/1"}
        second.repository.holds.pop("pipeline")
        await plane.reconcile()
        assert plane.held("a") == [whole, whole]
        trying = replace(claim, stage=ClaimStage.TRYING)
        await plane.bundles.claim(trying)
        second.repository.holds.clear()
        (stray,) = [load for load in first.repository.holds.values() if load.model == "features"]
        second.repository.holds["features"] = stray
        await plane.reconcile()
        assert plane.held("a") == [whole, {"fresh/1", "scorer/1", "features/2"}]
        assert (await plane.reconcile()).converged
        hold.go.set()
        await publishing

    run(work())


def test_a_revision_that_was_live_counts_as_proved_whoever_claims_it() -> None:
    async def work() -> None:
        plane = Plane()
        await plane.add("a")
        await plane.add("b")
        before = await plane.publish(main="fresh", other="popular")
        await plane.publish(main="scorer/1", other="popular")
        await plane.bundles.claim(Claim("0-000000000000-1-0", before.revision, "ana", clock() + 15))
        plane.launcher.running("a")[0].repository.holds.clear()
        await plane.reconcile()
        assert plane.held("a") == [{"fresh/1", "scorer/1"}]
        report = await read_status(plane.process())
        assert [each.reason for each in report.revisions] == ["live", "rollback"]

    run(work())
