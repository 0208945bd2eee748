"""Rolling back on servers in memory: one write where the models are still loaded, else loaded and validated first."""

from __future__ import annotations

import asyncio

import pytest
from tidegate.control.config import ControlConfig
from tidegate.errors import PublishError

from tests.control.mortal import Hold
from tests.control.plane import Plane, clock
from tests.support.virtual_time import run

RULES = ("scorer/1", "scorer/2", "scorer/3", "fresh", "features")


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


def test_again_goes_forward_again() -> None:
    async def work() -> None:
        plane, revisions = await published(3)
        await plane.roll_back()
        assert (await plane.roll_back()).revision == revisions[2]

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
        assert plane.held("a") == [{"features/2", "scorer/1"}] * 2
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
        with pytest.raises(PublishError, match=r"ben made revision .* live meanwhile \(rollback\)"):
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
