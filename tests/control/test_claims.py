"""Two at a time: whoever changes the fleet, and whoever trusts what it finds there, keep out of each other's way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from tidegate.control.claims import RENEWALS_PER_TTL, publishing
from tidegate.control.reconcile import reconcile_fleet
from tidegate.errors import PublishError, StoreError
from tidegate.fleet.local_fleet import LocalFleet
from tidegate.ports import Claim, ClaimStage, EndpointState, RegisteredEndpoint

from tests.control.mortal import Hold, Interference
from tests.control.plane import Plane, clock
from tests.support.virtual_time import run


async def started(**rules: str) -> Plane:
    plane = Plane()
    for shard in ("a", "b"):
        await plane.add(shard)
    await plane.publish(**rules)
    return plane


class CutOff(Hold):
    """While a call is held, claims cannot be renewed."""

    async def around(self, port: str, method: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if method == "claim" and self.held.is_set() and not self.go.is_set():
            raise StoreError("the network is down")
        return await super().around(port, method, call)


def test_a_publisher_does_not_trust_what_a_repairer_is_about_to_unload() -> None:
    async def work() -> None:
        plane = await started(main="scorer/1", other="fresh")
        server = plane.launcher.running("a")[0]
        fresh = server.repository.holds["fresh"]
        for rules in ("scorer/2", "scorer/3", "features", "features/1"):
            await plane.publish(main=rules)
        await plane.reconcile()
        server.repository.holds["fresh"] = fresh
        hold = Hold("endpoint", "unload")
        repair = asyncio.create_task(reconcile_fleet(plane.process(hold), "carl"))
        await hold.held.wait()
        publish = asyncio.create_task(plane.publish(main="fresh"))
        await asyncio.sleep(5)
        assert not publish.done()
        assert any("waiting for carl (repairing the fleet) to end" in event.text for event in plane.events)
        hold.go.set()
        await publish
        await repair
        assert plane.broken() == []
        assert plane.violations == []

    run(work())


def test_a_repairer_that_a_publisher_does_not_wait_for_leaves_alone_what_that_needs() -> None:
    async def work() -> None:
        plane = await started(main="scorer/1")
        hold = Hold("bundles", "flip")
        publish = asyncio.create_task(plane.publish(plane.process(hold), main="fresh"))
        await hold.held.wait()
        await plane.reconcile()
        hold.go.set()
        await publish
        assert plane.broken() == plane.violations == []

    run(work())


def test_of_two_publishers_one_wins_and_the_other_is_told_who_won_and_what_to_do() -> None:
    async def work() -> None:
        plane = await started(main="scorer/1")
        first, second = plane.process(), plane.process()
        results = await asyncio.gather(
            plane.publish(first, by="ana@one", main="scorer/2"),
            plane.publish(second, by="ben@two", main="scorer/3"),
            return_exceptions=True,
        )
        (error,) = (each for each in results if isinstance(each, PublishError))
        (won,) = (each for each in results if not isinstance(each, BaseException))
        assert plane.live() == won.revision
        winner = plane.bundles.history[-1].by
        assert error.step == "claim"
        assert f"{winner} made revision {won.revision[:12]} live at " in str(error)
        assert "publish again to go on top of it" in str(error)
        assert await plane.bundles.claims() == []
        assert plane.violations == []

    run(work())


def test_publishers_that_need_other_versions_of_a_model_do_not_load_at_the_same_time() -> None:
    async def work() -> None:
        plane = await started(main="scorer/1")
        hold = Hold("endpoint", "load")
        slow = asyncio.create_task(plane.publish(plane.process(hold), by="ana", main="scorer/2"))
        await hold.held.wait()
        quick = asyncio.create_task(plane.publish(by="ben", main="scorer/3"))
        await asyncio.sleep(5)
        assert not quick.done()
        assert any("waiting for ana (publishing" in event.text for event in plane.events)
        hold.go.set()
        await slow
        with pytest.raises(PublishError, match="ana made revision"):
            await quick
        assert plane.broken() == plane.violations == []

    run(work())


def test_the_second_publisher_goes_on_where_the_first_fails() -> None:
    async def work() -> None:
        plane = await started(main="scorer/1")
        hold = Hold("endpoint", "load")
        first = asyncio.create_task(plane.publish(plane.process(hold), by="ana", main="fresh"))
        await hold.held.wait()
        second = asyncio.create_task(plane.publish(by="ben", main="scorer/3"))
        await asyncio.sleep(5)
        plane.faults.refused["fresh"] = "damaged"
        hold.go.set()
        with pytest.raises(PublishError, match="damaged"):
            await first
        won = await second
        assert plane.live() == won.revision
        assert plane.broken() == plane.violations == []

    run(work())


def test_a_publisher_that_waits_in_vain_says_for_whom() -> None:
    async def work() -> None:
        plane = await started(main="scorer/1")
        hold = Hold("bundles", "flip")
        slow = asyncio.create_task(plane.publish(plane.process(hold), by="ana", main="scorer/2"))
        await hold.held.wait()
        with pytest.raises(PublishError, match=r"ana \(publishing [0-9a-f]{12}\) has not ended in 60 s; wait for it"):
            await plane.publish(by="ben", main="scorer/3")
        slow.cancel()
        await asyncio.wait([slow])

    run(work())


def test_a_claim_of_the_dead_holds_up_the_next_until_it_expires() -> None:
    async def work() -> None:
        plane = await started(main="scorer/1")
        await plane.bundles.claim(Claim("0-000000000000-1-0", plane.live(), "the dead", clock() + 15))
        began = clock()
        await plane.publish(main="scorer/2")
        assert 15 < clock() - began < 25

    run(work())


def test_a_claim_of_a_process_of_this_machine_that_has_ended_holds_up_nobody() -> None:
    async def work() -> None:
        from tidegate.control.claimant import origin

        plane = await started(main="scorer/1")
        machine = origin().rpartition("-")[0]
        await plane.bundles.claim(Claim(f"0-{machine}-999999999-0", plane.live(), "the dead", clock() + 15))
        began = clock()
        await plane.publish(main="scorer/2")
        assert clock() - began < 5

    run(work())


def test_a_claim_that_lapses_is_made_again_and_everything_is_validated_again() -> None:
    async def work() -> None:
        plane = await started(main="scorer/1")
        cut_off = CutOff("golden", "ask")
        publish = asyncio.create_task(plane.publish(plane.process(cut_off), main="fresh"))
        await cut_off.held.wait()
        await asyncio.sleep(25)
        # Its claim has expired meanwhile, and somebody tidies up.
        await plane.reconcile()
        assert plane.held("a") == [{"scorer/1"}]
        cut_off.go.set()
        await publish
        assert any("the claim has lapsed meanwhile" in event.text for event in plane.events)
        assert plane.broken() == plane.violations == []

    run(work())


class SlowWrites(Interference):
    """Writes of claims take a while, so that renewals meet whatever else is written."""

    async def around(self, port: str, method: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if method in ("claim", "release"):
            await asyncio.sleep(2.0)
        return await call()


def test_a_renewal_under_way_takes_nothing_from_the_proof_of_a_claim() -> None:
    async def work() -> None:
        plane = await started(main="scorer/1")
        process = plane.process(SlowWrites())
        base = await plane.bundles.pointer()
        async with publishing(process, plane.live(), "ana", base, lambda _line: None) as held:
            every_s = process.config.claim_ttl_s / RENEWALS_PER_TTL
            # The first one was written 2 s after the heartbeat began.
            await asyncio.sleep(every_s - 1.0)
            assert held.writing.locked(), "a renewal is under way"
            await held.prove()
            for _ in range(3):
                (stored,) = await plane.bundles.claims()
                assert stored.stage is held.claim.stage is ClaimStage.PROVED
                await asyncio.sleep(every_s)
        assert await plane.bundles.claims() == []

    run(work())


def test_a_server_that_looked_before_the_claim_does_not_turn_ready_unseen() -> None:
    async def work() -> None:
        plane = Plane()
        fleet = LocalFleet(plane.process(), plane.launcher)
        task = asyncio.create_task(fleet.run())
        await plane.publish(main="scorer/1")
        await asyncio.sleep(20)
        # A server that looks now, and is registered ready just before it would have to look again.
        late = await plane.launcher.launch("a")
        await plane.registry.register(RegisteredEndpoint(late.endpoint, EndpointState.LOADING, clock()))
        (load,) = plane.launcher.running("a")[0].repository.holds.values()
        await late.repository.load(load, 10)
        publish = asyncio.create_task(plane.publish(main="scorer/2"))
        await asyncio.sleep(2.9)
        await plane.registry.register(RegisteredEndpoint(late.endpoint, EndpointState.READY, clock()))
        await publish
        assert plane.broken() == plane.violations == []
        assert any("waiting for a server that is starting" in event.text for event in plane.events)
        task.cancel()
        await asyncio.wait([task])

    run(work())


def test_claims_left_by_the_dead_are_cleared_away() -> None:
    async def work() -> None:
        plane = await started(main="scorer/1")
        dead = Claim("0-000000000000-1-0", plane.live(), "the dead", clock() + 15)
        await plane.bundles.claim(dead)
        await plane.bundles.claim(replace(dead, id="1-000000000000-1-0", revision=""))
        await asyncio.sleep(50)
        assert (await plane.reconcile()).converged
        assert len(await plane.bundles.claims()) == 2
        await asyncio.sleep(50)
        await plane.reconcile()
        assert await plane.bundles.claims() == []

    run(work())
