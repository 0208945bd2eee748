"""A pointer that is deleted or damaged, a bucket that is emptied or another's: what serves goes on serving, everybody says
so, nobody publishes as if nothing had been live, and `recover` makes the pointer again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tidegate.aws.formats import decode_pointer
from tidegate.bootstrap.rules_sources import GivenRules
from tidegate.control.desired import StateReader
from tidegate.control.guard import guard
from tidegate.control.plane import ControlPlane
from tidegate.control.publish import PublishRequest, publish_rules
from tidegate.control.reconcile import reconcile_fleet
from tidegate.control.recover import plan_recovery, recover_pointer
from tidegate.control.remains import Remains
from tidegate.control.status import read_status
from tidegate.errors import ConflictError, DamagedError, PublishError
from tidegate.fleet.local_fleet import LocalFleet
from tidegate.ports import BadMark, Claim, GatewayReport, LiveEntry
from tidegate.ports.sources import CheckedRules
from tidegate.testing import MemoryBundleStore

from tests.control.mortal import Interference
from tests.control.plane import Plane, clock
from tests.control.rules import bundle
from tests.support.virtual_time import run

LONG_S = 60.0


async def published(plane: Plane) -> ControlPlane:
    """Two publishes; a process that has seen them."""
    for shard in ("a", "a", "b"):
        await plane.add(shard)
    await plane.publish(main="pipeline", other="popular")
    await plane.publish(main="scorer/2", other="fresh")
    await asyncio.sleep(LONG_S)
    process = plane.process()
    await reconcile_fleet(process, "carl")
    await plane.registry.report(GatewayReport("one", plane.live(), clock()))
    return process


def empty(plane: Plane) -> None:
    """Put another bucket in the place of the fleet's, with nothing in it."""
    history = plane.bundles.history
    plane.bundles = MemoryBundleStore()
    assert history


def unloaded(plane: Plane) -> list[tuple[str, str]]:
    return [each for each in plane.changes() if each[0] == "unloaded"]


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "long-running"])
def test_without_a_pointer_nothing_is_unloaded_and_everybody_says_so(fresh: bool) -> None:
    async def work() -> None:
        plane = Plane()
        process = await published(plane)
        held, before = [plane.held("a"), plane.held("b")], len(unloaded(plane))
        plane.bundles.lose_pointer()
        process = plane.process() if fresh else process
        result = await reconcile_fleet(process, "carl")
        assert [plane.held("a"), plane.held("b")] == held
        assert len(unloaded(plane)) == before
        assert result.undone
        assert any("tidegate recover" in problem and plane.live()[:12] in problem for problem in result.problems)
        report = await read_status(process)
        assert not report.healthy
        assert any("tidegate recover" in problem for problem in report.problems)

    run(work())


def test_a_damaged_pointer_says_once_what_to_do() -> None:
    with pytest.raises(DamagedError) as damaged:
        decode_pointer(b"{", "tag")
    problem = Remains(damage=str(damaged.value)).problem
    assert problem is not None
    assert problem.count("see `tidegate recover`") == 1


def test_a_server_that_is_replaced_is_filled_by_what_was_live() -> None:
    async def work() -> None:
        plane = Plane()
        async with local_fleet(plane):
            await plane.publish(main="pipeline", other="popular")
            held, servers = [plane.held("a"), plane.held("b")], len(plane.launcher.running())
            plane.bundles.lose_pointer()
            await asyncio.sleep(LONG_S)
            plane.launcher.running("a")[0].end()
            await asyncio.sleep(LONG_S)
            assert len(plane.launcher.running()) == servers
            assert [plane.held("a"), plane.held("b")] == held
            assert plane.violations == []

    run(work())


def test_an_assignment_that_is_lost_retires_no_server() -> None:
    async def work() -> None:
        plane = Plane()
        async with local_fleet(plane) as process:
            await plane.publish(main="pipeline", other="popular")
            held = [plane.held("a"), plane.held("b")]
            plane.bundles.assignments.clear()
            process.reader = StateReader(process.ports, process.config)
            await asyncio.sleep(LONG_S)
            assert [plane.held("a"), plane.held("b")] == held
            report = await read_status(process)
            assert not report.healthy
            assert any("assignment" in problem and "publish" in problem for problem in report.problems)

    run(work())


def test_a_fleet_whose_bucket_is_emptied_keeps_its_servers_and_their_models() -> None:
    async def work() -> None:
        plane = Plane()
        async with local_fleet(plane) as process:
            await plane.publish(main="pipeline", other="popular")
            await plane.registry.report(GatewayReport("one", plane.live(), clock()))
            held = [plane.held("a"), plane.held("b")]
            store = plane.bundles
            store.lose_pointer()
            store.bundles.clear()
            store.history.clear()
            store.assignments.clear()
            await asyncio.sleep(LONG_S)
            assert [plane.held("a"), plane.held("b")] == held
            report = await read_status(process)
            assert not report.healthy
            assert any("gateways serve" in problem for problem in report.problems)
            with pytest.raises(PublishError, match=r"tidegate recover.*--start-over"):
                await plane.publish(main="pipeline", other="popular")

    run(work())


def test_in_another_bucket_nothing_is_unloaded_nor_published() -> None:
    async def work() -> None:
        plane = Plane()
        await published(plane)
        held, gateway = plane.held("a"), plane.live()[:12]
        empty(plane)
        process = plane.process()
        result = await reconcile_fleet(process, "carl")
        assert plane.held("a") == held
        assert any(gateway in problem for problem in result.problems)
        with pytest.raises(PublishError, match=gateway):
            await plane.publish(main="pipeline")

    run(work())


def test_models_that_nothing_accounts_for_stay_and_are_told() -> None:
    async def work() -> None:
        plane = Plane()
        await published(plane)
        plane.registry.reports.clear()
        held = plane.held("a")
        empty(plane)
        process = plane.process()
        result = await reconcile_fleet(process, "carl")
        assert plane.held("a") == held
        assert "right bucket" in result.problems[0]
        assert not (await read_status(process)).healthy

    run(work())


def test_a_first_publish_that_failed_can_be_repeated() -> None:
    async def work() -> None:
        plane = Plane()
        for shard in ("a", "b"):
            await plane.add(shard)
        plane.faults.refused["scorer"] = "no"
        with pytest.raises(PublishError):
            await plane.publish(main="scorer/2", other="popular")
        plane.faults.refused.clear()
        await asyncio.sleep(LONG_S)
        result = await plane.publish(main="scorer/2", other="popular")
        assert plane.live() == result.revision

    run(work())


@pytest.mark.parametrize("reason", ["AccessDenied", "SlowDown"])
def test_where_the_history_cannot_be_read_nobody_publishes_as_if_nothing_had_been_live(reason: str) -> None:
    async def work() -> None:
        plane = Plane()
        await published(plane)
        plane.registry.reports.clear()
        plane.bundles.lose_pointer()
        plane.bundles.faults.failing["flips"] = reason
        flips = len(plane.bundles.history)
        with pytest.raises(PublishError, match=rf"unknown.*{reason}.*--start-over"):
            await plane.publish(main="scorer/3", other="fresh")
        with pytest.raises(PublishError, match=reason):
            await plane.roll_back()
        kept = await guard(plane.process(), "the guard", "an alarm", 1e9, alarmed_at=clock())
        assert reason in kept.reason
        assert any(reason in problem for problem in (await plane.reconcile()).problems)
        assert not (await read_status(plane.process())).healthy
        assert (await plane.process().reader.read()).serves, "what may serve is treated with care"
        assert len(plane.bundles.history) == flips
        result = await plane.publish(main="scorer/3", other="fresh", start_over=True)
        assert result.status == "published"

    run(work())


def test_a_publish_that_learns_of_its_history_only_later_is_refused() -> None:
    """The pointer was never there; what gateways serve is reported while the rules are tested."""

    async def work() -> None:
        plane = Plane()
        await published(plane)
        live = plane.live()
        plane.registry.reports.clear()
        empty(plane)

        class Rules(GivenRules):
            async def test(self, checked: CheckedRules) -> str:
                await plane.registry.report(GatewayReport("one", live, clock()))
                return await super().test(checked)

        request = PublishRequest(rules=Rules(bundle(main="scorer/3", other="fresh")), by="ana")
        with pytest.raises(PublishError, match="tidegate recover") as failure:
            await publish_rules(plane.process(), request, plane.events.append)
        assert failure.value.step == "assign"
        assert plane.bundles.history == []

    run(work())


class LosesPointer(Interference):
    """Loses the pointer before the `nth` call (from 1) of a process."""

    def __init__(self, plane: Plane, nth: int) -> None:
        self._plane, self.left = plane, nth

    async def around(self, port: str, method: str, call: Callable[[], Awaitable[Any]]) -> Any:
        self.left -= 1
        if self.left == 0:
            self._plane.bundles.lose_pointer()
        return await call()


Work = Callable[[Plane, ControlPlane], Awaitable[Any]]


async def _publish(plane: Plane, process: ControlPlane) -> Any:
    return await plane.publish(process, main="scorer/3", other="fresh")


async def _roll_back(plane: Plane, process: ControlPlane) -> Any:
    return await plane.roll_back(process=process)


@pytest.mark.parametrize("gateways", [True, False], ids=["gateways", "none"])
@pytest.mark.parametrize("work", [_publish, _roll_back])
def test_a_pointer_that_is_lost_at_any_point_is_not_overwritten(work: Work, gateways: bool) -> None:
    async def once(nth: int) -> bool:
        plane = Plane()
        await published(plane)
        plane.bundles.faults.failing["flips"] = "SlowDown"
        if not gateways:
            plane.registry.reports.clear()
        process, flips = plane.process(interference := LosesPointer(plane, nth)), len(plane.bundles.history)
        try:
            await work(plane, process)
        except PublishError as error:
            assert "tidegate recover" in str(error)
            assert len(plane.bundles.history) == flips
        else:
            assert plane.bundles.history[-1].sequence == flips + 1, "it was lost after the flip, if at all"
        return interference.left <= 0

    for nth in itertools.count(1):
        if not run(once(nth)):
            assert nth > 10
            return


async def nothing_is_published(plane: Plane) -> None:
    flips = len(plane.bundles.history)
    with pytest.raises(PublishError, match="tidegate recover"):
        await plane.publish(main="pipeline", other="popular")
    with pytest.raises(PublishError, match="tidegate recover"):
        await plane.roll_back()
    kept = await guard(plane.process(), "the guard", "an alarm", 1e9, alarmed_at=clock())
    assert "tidegate recover" in kept.reason
    assert len(plane.bundles.history) == flips


def test_recover_makes_the_pointer_again_with_its_marks() -> None:
    async def work() -> None:
        plane = Plane()
        await published(plane)
        await mark_bad(plane)
        before = await plane.bundles.pointer()
        assert before is not None
        assert before.bad
        plane.bundles.lose_pointer()
        await nothing_is_published(plane)
        process = plane.process()
        planned = await plan_recovery(process, "ann")
        assert planned.status == "planned"
        assert await plane.bundles.pointer() is None, "nothing is written before it is asked for"
        await recover_pointer(process, planned)
        now = await plane.bundles.pointer()
        assert now is not None
        assert (now.entries, now.bad) == (before.entries, before.bad)
        assert (await plan_recovery(plane.process(), "ann")).status == "unchanged"
        assert (await plane.reconcile()).problems == ()
        result = await plane.publish(main="pipeline", other="popular")
        assert plane.live() == result.revision

    run(work())


async def mark_bad(plane: Plane) -> BadMark:
    """Roll back, and mark what was live as bad."""
    base = await plane.bundles.pointer()
    assert base is not None
    target = next(each.revision for each in base.entries if each.revision != base.live.revision)
    sequence = base.live.sequence + 1
    entry = LiveEntry(target, sequence, "ben", clock(), "errors", "rollback", marked_bad=base.live.revision)
    return (await plane.bundles.flip(entry, base)).bad[0]


def test_recover_does_not_overwrite_what_somebody_else_wrote() -> None:
    async def work() -> None:
        plane = Plane()
        await published(plane)
        plane.bundles.lose_pointer()
        first, second = (plane.process() for _ in range(2))
        planned = [await plan_recovery(each, "ann") for each in (first, second)]
        await recover_pointer(first, planned[0])
        with pytest.raises(ConflictError):
            await recover_pointer(second, planned[1])

    run(work())


def test_recover_goes_by_gateways_where_the_history_is_gone_too() -> None:
    async def work() -> None:
        plane = Plane()
        await published(plane)
        live = plane.live()
        plane.bundles.lose_pointer()
        plane.bundles.history.clear()
        process = plane.process()
        planned = await plan_recovery(process, "ann")
        found = await recover_pointer(process, planned)
        assert found.pointer is not None
        assert (found.pointer.live.revision, found.pointer.live.by, found.pointer.live.action) == (
            live,
            "ann",
            "recover",
        )

    run(work())


def test_a_revision_that_only_gateways_knew_can_be_rolled_back() -> None:
    async def work() -> None:
        plane = Plane()
        await published(plane)
        first = plane.bundles.history[0].revision
        plane.bundles.lose_pointer()
        plane.bundles.history.pop()
        await recovered(plane)
        assert (await plane.roll_back()).revision == first

    run(work())


async def recovered(plane: Plane, revision: str | None = None) -> None:
    process = plane.process()
    await recover_pointer(process, await plan_recovery(process, "ann", revision))


def test_what_a_person_recovered_is_not_held_to_have_been_published() -> None:
    async def work() -> None:
        plane = Plane()
        await published(plane)
        chosen, left = plane.live(), await plane.publish(main="scorer/3", other="fresh")
        await asyncio.sleep(LONG_S)
        plane.bundles.lose_pointer()
        await recovered(plane, chosen)
        await asyncio.sleep(10 * LONG_S)
        kept = await guard(plane.process(), "the guard", "an alarm", 1e9, alarmed_at=clock())
        assert (kept.status, kept.revision) == ("kept", chosen)
        pointer = await plane.bundles.pointer()
        assert pointer is not None
        assert pointer.bad == ()
        result = await plane.roll_back()
        assert result.revision not in (chosen, left.revision), "what was left is newer, and was left on purpose"

    run(work())


def test_recover_refuses_a_revision_that_lacks_something_and_takes_another() -> None:
    async def work() -> None:
        plane = Plane()
        await published(plane)
        first, last = plane.bundles.history[0].revision, plane.live()
        plane.bundles.lose_pointer()
        del plane.bundles.bundles[last]
        process = plane.process()
        refused = await plan_recovery(process, "ann")
        assert refused.status == "impossible"
        assert first[:12] in refused.reason
        assert "no bundle" in refused.reason
        planned = await plan_recovery(process, "ann", first[:8])
        found = await recover_pointer(process, planned)
        assert found.pointer is not None
        assert [entry.revision for entry in found.pointer.entries] == [first, last, first]

    run(work())


def test_recover_says_what_to_do_where_nothing_is_left() -> None:
    async def work() -> None:
        plane = Plane()
        found = await plan_recovery(plane.process(), "ann")
        assert found.status == "impossible"
        assert "--start-over" in found.reason

    run(work())


def test_a_damaged_claim_holds_up_a_publisher_for_a_while_only_and_goes() -> None:
    async def work() -> None:
        plane = Plane()
        await published(plane)
        await plane.bundles.claim(
            Claim("00-x", None, "somebody", clock(), damaged="the claim claims/00-x.json is damaged")
        )
        report = await read_status(plane.process())
        assert not report.healthy
        assert any("claims/00-x.json is damaged" in problem and "counts for" in problem for problem in report.problems)
        began = clock()
        result = await plane.publish(main="pipeline", other="popular")
        assert plane.live() == result.revision
        assert plane.config.claim_ttl_s <= clock() - began < LONG_S
        assert any("00-x is damaged" in event.text for event in plane.events if event.state == "note")
        report = await read_status(plane.process())
        assert any("deletes it 60 s after it was written" in problem for problem in report.problems)
        await asyncio.sleep(2 * LONG_S)
        await plane.reconcile()
        assert (await read_status(plane.process())).healthy

    run(work())


@contextlib.asynccontextmanager
async def local_fleet(plane: Plane) -> AsyncIterator[ControlPlane]:
    process = plane.process()
    local = LocalFleet(process, plane.launcher)
    running: asyncio.Task[Any] = asyncio.create_task(local.run())
    try:
        yield process
    finally:
        running.cancel()
        await asyncio.wait([running])


@pytest.mark.parametrize("what", ["bundle", "assignment"])
def test_publishing_what_is_live_stores_what_is_lost_of_it_again_and_says_so(what: str) -> None:
    async def work() -> None:
        plane = Plane()
        process = await published(plane)
        live = plane.live()
        (plane.bundles.bundles if what == "bundle" else plane.bundles.assignments).pop(live)
        assert not (await read_status(plane.process())).healthy
        planned = await plane.publish(process, dry_run=True, main="scorer/2", other="fresh")
        assert any(what in note and "would be stored again" in note for note in planned.notes)
        result = await plane.publish(process, main="scorer/2", other="fresh")
        assert result.status == "unchanged"
        assert any(what in note and "stored again" in note for note in result.notes)
        assert (await read_status(plane.process())).healthy
        assert (await plane.publish(process, main="scorer/2", other="fresh")).notes == ()

    run(work())


def test_publishing_other_rules_over_a_bundle_that_is_lost_says_that_the_changes_are_not_known() -> None:
    async def work() -> None:
        plane = Plane()
        await published(plane)
        plane.bundles.bundles.pop(plane.live())
        result = await plane.publish(main="pipeline", other="fresh")
        assert result.status == "published"
        assert any("not known" in note for note in result.notes)

    run(work())
