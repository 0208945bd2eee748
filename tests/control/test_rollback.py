"""Rolling back on servers in memory: one write where the models are still loaded, else loaded and validated first."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tidegate.control.config import ControlConfig
from tidegate.errors import PublishError
from tidegate.ports import Pointer
from tidegate.rules.bundle import rules_of

from tests.control.mortal import Hold
from tests.control.plane import Plane, clock
from tests.support.virtual_time import run

RULES = ("scorer/1", "scorer/2", "scorer/3", "fresh", "features")


async def pointer(plane: Plane) -> Pointer:
    found = await plane.bundles.pointer()
    assert found is not None
    return found


async def published(count: int, keep: int = 3) -> tuple[Plane, list[str]]:
    plane = Plane(config=ControlConfig(keep_revisions=keep))
    for shard in ("a", "a", "b"):
        await plane.add(shard)
    results = [await plane.publish(main=target, other="popular") for target in RULES[:count]]
    await asyncio.sleep(60)
    await plane.reconcile()
    plane.events.clear()
    return plane, [result.revision for result in results]


def test_the_revision_before_is_live_again_with_one_write_and_no_load() -> None:
    async def work() -> None:
        plane, revisions = await published(3)
        done, began = plane.changes(), clock()
        result = await plane.roll_back(why="errors went up")
        assert clock() - began < 1
        assert (result.revision, result.before) == (revisions[1], revisions[2])
        assert plane.live() == revisions[1]
        assert plane.changes() == done
        entry = plane.bundles.history[-1]
        assert (entry.by, entry.why, entry.action, entry.sequence) == ("ben", "errors went up", "rollback", 4)
        assert "load skipped" in plane.steps()

    run(work())


def test_what_is_left_is_marked_bad() -> None:
    async def work() -> None:
        plane, revisions = await published(3)
        result = await plane.roll_back(why="errors went up")
        assert (result.as_dict()["marked_bad"], result.as_dict()["cleared"]) == (rules_of(revisions[2]), False)
        (mark,) = (await pointer(plane)).bad
        assert (mark.revision, mark.by, mark.why) == (revisions[2], "ben", "errors went up")

    run(work())


def test_the_same_person_again_goes_further_back_and_never_to_a_bad_one() -> None:
    async def work() -> None:
        plane, revisions = await published(4)
        await plane.roll_back()
        assert (await plane.roll_back()).revision == revisions[1]
        assert (await plane.roll_back()).revision == revisions[0]
        with pytest.raises(PublishError, match=r"no revision before .* is left to roll back to") as failure:
            await plane.roll_back()
        assert f"revision {revisions[1][:12]} was marked bad by ben at " in str(failure.value)
        assert plane.live() == revisions[0]

    run(work())


def test_a_publish_after_a_rollback_is_rolled_back_to_what_was_good() -> None:
    async def work() -> None:
        plane, revisions = await published(3)
        await plane.roll_back()
        mended = await plane.publish(main="fresh", other="popular")
        result = await plane.roll_back()
        assert (result.before, result.revision) == (mended.revision, revisions[1])
        assert {mark.revision for mark in (await pointer(plane)).bad} == {revisions[2], mended.revision}

    run(work())


def test_a_rollback_past_a_revision_does_not_come_back_to_it() -> None:
    async def work() -> None:
        plane, revisions = await published(3)
        await plane.roll_back(revisions[0])
        with pytest.raises(PublishError, match="is left to roll back to"):
            await plane.roll_back()
        assert plane.live() == revisions[0]

    run(work())


def test_somebody_else_who_comes_second_goes_no_further() -> None:
    async def work() -> None:
        plane, revisions = await published(4)
        await plane.roll_back(by="the guard")
        second = await plane.roll_back(by="ben")
        assert (second.status, second.revision, second.before) == ("already rolled back", revisions[2], revisions[3])
        assert second.as_dict()["rolled_back_by"] == "the guard"
        assert plane.live() == revisions[2]
        stale = await plane.roll_back(by="ben", leaving=revisions[3][:8])
        assert stale.status == "already rolled back"
        assert plane.live() == revisions[2]
        further = await plane.roll_back(by="ben", leaving=revisions[2][:8])
        assert (further.status, further.revision) == ("rolled back", revisions[1])

    run(work())


def test_what_is_to_be_left_must_be_live() -> None:
    async def work() -> None:
        plane, revisions = await published(3)
        with pytest.raises(PublishError, match=rf"is not live: ana made {revisions[2][:12]} live \(publish\)"):
            await plane.roll_back(leaving=revisions[1])
        assert plane.live() == revisions[2]

    run(work())


def test_a_rollback_of_an_earlier_incident_answers_for_no_later_one() -> None:
    async def work() -> None:
        plane, revisions = await published(2)
        await plane.roll_back(by="the guard", leaving=revisions[1])
        await plane.publish(main=RULES[1], other="popular", even_if_bad=True)
        after = await plane.publish(main="fresh", other="popular")
        with pytest.raises(
            PublishError, match=rf"{revisions[1][:12]} is not live: ana made {after.revision[:12]} live"
        ):
            await plane.roll_back(leaving=revisions[1])
        assert plane.live() == after.revision

    run(work())


def test_who_is_overtaken_by_a_publish_is_not_answered_by_an_earlier_rollback() -> None:
    async def work() -> None:
        plane, revisions = await published(2)
        await plane.roll_back(by="the guard")
        await plane.publish(main=RULES[1], other="popular", even_if_bad=True)
        hold = Hold("bundles", "flip")
        late = asyncio.create_task(plane.roll_back(process=plane.process(hold), leaving=revisions[1]))
        await hold.held.wait()
        after = await plane.publish(main="fresh", other="popular")
        hold.go.set()
        with pytest.raises(PublishError, match=rf"ana made revision {after.revision[:12]} live meanwhile"):
            await late
        assert plane.live() == after.revision

    run(work())


@pytest.mark.parametrize("keep", [3, 0], ids=["at once", "loads first"])
@pytest.mark.parametrize("method", ["pointer", "assignment", "claim", "flip"])
@pytest.mark.parametrize("others", [("eve",), ("eve", "the guard")])
def test_of_rollbacks_at_the_same_instant_one_counts(keep: int, method: str, others: tuple[str, ...]) -> None:
    """Whoever comes later, wherever it was then, goes no further than the first."""

    async def work() -> None:
        plane, revisions = await published(4, keep)
        hold = Hold("bundles", method)
        tasks = [asyncio.create_task(plane.roll_back(process=plane.process(hold), by="ben"))]
        tasks += [asyncio.create_task(plane.roll_back(by=name)) for name in others]
        await asyncio.sleep(3)
        hold.go.set()
        results = await asyncio.gather(*tasks)
        counts = Counter(each.status for each in results)
        assert counts == {"rolled back": 1, "already rolled back": len(others)}
        assert {(each.revision, each.before) for each in results} == {(revisions[2], revisions[3])}
        assert plane.live() == revisions[2]
        assert [mark.revision for mark in (await pointer(plane)).bad] == [revisions[3]]
        assert plane.violations == []

    run(work())


def test_a_rollback_elsewhere_meanwhile_is_an_error_that_says_so() -> None:
    async def work() -> None:
        plane, revisions = await published(4)
        hold = Hold("bundles", "flip")
        late = asyncio.create_task(plane.roll_back(revisions[1], process=plane.process(hold)))
        await hold.held.wait()
        await plane.roll_back(by="the guard")
        hold.go.set()
        with pytest.raises(PublishError, match=r"the guard rolled revision .* back meanwhile"):
            await late
        assert plane.live() == revisions[2]

    run(work())


def test_a_publish_meanwhile_is_not_rolled_back() -> None:
    async def work() -> None:
        plane, _ = await published(2)
        hold = Hold("bundles", "flip")
        late = asyncio.create_task(plane.roll_back(process=plane.process(hold)))
        await hold.held.wait()
        mended = await plane.publish(main="fresh")
        hold.go.set()
        with pytest.raises(PublishError, match=r"ana made revision .* live meanwhile \(publish\)"):
            await late
        assert plane.live() == mended.revision

    run(work())


def test_a_bad_revision_is_published_only_if_told_so() -> None:
    async def work() -> None:
        plane, revisions = await published(2)
        await plane.roll_back(why="wrong prices")
        for dry_run in (True, False):
            with pytest.raises(PublishError, match=r"was marked bad by ben at .*: wrong prices; .*--even-if-bad"):
                await plane.publish(main=RULES[1], other="popular", dry_run=dry_run)
        assert plane.live() == revisions[0]
        result = await plane.publish(main=RULES[1], other="popular", even_if_bad=True)
        assert plane.live() == result.revision == revisions[1]
        assert result.activated is not None
        assert result.activated.entry.cleared
        assert (await pointer(plane)).bad == ()

    run(work())


def test_a_rollback_is_taken_back_only_if_told_so() -> None:
    async def work() -> None:
        plane, revisions = await published(3)
        await plane.roll_back(why="wrong prices")
        with pytest.raises(PublishError, match=r"was marked bad by ben at .*: wrong prices; .*--even-if-bad"):
            await plane.roll_back(revisions[2])
        result = await plane.roll_back(revisions[2], even_if_bad=True)
        assert plane.live() == revisions[2]
        assert (result.as_dict()["marked_bad"], result.as_dict()["cleared"]) == (None, True)
        assert (await pointer(plane)).bad == ()

    run(work())


def test_from_one_bad_revision_to_another_both_stay_known() -> None:
    async def work() -> None:
        plane, revisions = await published(2)
        await plane.roll_back()
        worse = await plane.publish(main="fresh", other="popular")
        result = await plane.roll_back(revisions[1], even_if_bad=True)
        assert result.as_dict()["marked_bad"] == rules_of(worse.revision)
        assert [mark.revision for mark in (await pointer(plane)).bad] == [worse.revision]

    run(work())


def test_the_models_of_a_bad_revision_are_unloaded_once_drained() -> None:
    async def work() -> None:
        plane, _ = await published(2)
        assert "scorer/1,2" in plane.held("a")[0]
        await plane.roll_back()
        await asyncio.sleep(60)
        await plane.reconcile()
        assert plane.held("a") == [{"scorer/1"}] * 2
        assert plane.violations == []

    run(work())


def test_bad_revisions_do_not_take_the_place_of_those_that_are_kept() -> None:
    async def work() -> None:
        plane, revisions = await published(2, keep=1)
        await plane.publish(main="scorer/3", other="popular")
        await plane.roll_back()
        await plane.publish(main="fresh", other="popular")
        await plane.roll_back()
        await asyncio.sleep(60)
        await plane.reconcile()
        assert plane.live() == revisions[1]
        assert plane.held("a") == [{"scorer/1,2"}] * 2
        plane.events.clear()
        await plane.roll_back()
        assert plane.live() == revisions[0]
        assert "load skipped" in plane.steps()

    run(work())


def test_a_named_revision_by_its_first_digits() -> None:
    async def work() -> None:
        plane, revisions = await published(4)
        result = await plane.roll_back(revisions[0][:10].upper())
        assert plane.live() == result.revision == revisions[0]

    run(work())


def test_a_revision_whose_models_are_gone_is_loaded_and_validated_first() -> None:
    async def work() -> None:
        plane, revisions = await published(5, keep=1)
        assert plane.held("a") == [{"fresh/1", "features/2"}] * 2
        await plane.roll_back(revisions[0])
        assert plane.live() == revisions[0]
        assert "load done" in plane.steps()
        assert plane.held("a") == [{"scorer/1", "fresh/1"}] * 2, "with the last revision that is not bad"
        assert plane.violations == []

    run(work())


def test_a_revision_that_cannot_be_loaded_any_more_leaves_live_untouched() -> None:
    async def work() -> None:
        plane, revisions = await published(5, keep=1)
        plane.faults.refused["scorer"] = "out of memory"
        with pytest.raises(PublishError, match=r"'scorer'.*out of memory"):
            await plane.roll_back(revisions[0])
        assert plane.live() == revisions[4]

    run(work())


def test_where_a_server_has_lost_a_model_it_is_loaded_first() -> None:
    async def work() -> None:
        plane, revisions = await published(3)
        del plane.launcher.running("a")[1].repository.holds["scorer"]
        await plane.roll_back()
        assert plane.live() == revisions[1]
        assert plane.broken() == []

    run(work())


def test_an_endpoint_that_does_not_answer_holds_up_no_rollback_while_another_serves() -> None:
    async def work() -> None:
        plane, revisions = await published(3)
        plane.launcher.running("a")[0].end()
        began = clock()
        await plane.roll_back()
        assert clock() - began < 1
        assert plane.live() == revisions[1]

    run(work())


def test_a_rollback_does_not_wait_for_a_publisher_which_is_told() -> None:
    async def work() -> None:
        plane, revisions = await published(2)
        hold = Hold("endpoint", "load")
        publish = asyncio.create_task(plane.publish(plane.process(hold), by="ana", main="fresh"))
        await hold.held.wait()
        await plane.roll_back(by="ben")
        assert plane.live() == revisions[0]
        hold.go.set()
        with pytest.raises(PublishError, match=r"ben made revision .* live at .* \(rollback\)"):
            await publish
        assert plane.violations == []

    run(work())


@pytest.mark.parametrize(
    ("count", "wanted", "message"),
    [
        (0, None, "nothing was ever published"),
        (1, None, "no other revision was ever live"),
        (2, "xyz", "no revision that was live begins with 'xyz'; the last ones are "),
        (2, "", "begins 2 revisions .*; give more of it"),
    ],
)
def test_what_cannot_be_found_is_said(count: int, wanted: str | None, message: str) -> None:
    async def work() -> None:
        plane, _ = await published(count)
        with pytest.raises(PublishError, match=message) as failure:
            await plane.roll_back(wanted)
        assert failure.value.step == "find"

    run(work())


def test_the_live_revision_is_no_change() -> None:
    async def work() -> None:
        plane, revisions = await published(2)
        result = await plane.roll_back(revisions[1])
        assert result.activated is None
        assert result.as_dict()["status"] == "unchanged"
        assert len(plane.bundles.history) == 2

    run(work())


def test_a_damaged_revision_is_said_to_be_so() -> None:
    async def work() -> None:
        plane, revisions = await published(2)
        plane.bundles.faults.damaged.add(revisions[0])
        with pytest.raises(PublishError, match=r"damaged.*; roll back to another revision, or publish its rules again"):
            await plane.roll_back()

    run(work())
