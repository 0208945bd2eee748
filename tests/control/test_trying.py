"""A model that hangs, or ends its server, costs the one server that it is tried on, and nobody but its publisher loads it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tidegate.control.fleet import LocalFleet
from tidegate.errors import PublishError
from tidegate.ports import Claim, ClaimStage, MemoryModel

from tests.control.mortal import Hold
from tests.control.plane import MODELS, Plane, clock
from tests.support.virtual_time import run


@pytest.mark.parametrize("fault", ["hanging", "fatal"])
def test_whoever_repairs_or_fills_servers_leaves_alone_what_is_being_tried(fault: str) -> None:
    async def work() -> None:
        plane = Plane({**MODELS, "bad": MemoryModel()})
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
        report = await plane.process().status.read()
        assert [each.reason for each in report.revisions] == ["live", "rollback"]

    run(work())
