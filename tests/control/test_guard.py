"""The guard: an alarm takes back what it is about, once, and nothing else."""

from __future__ import annotations

import asyncio

import pytest
from tidegate.control.guard import BLAMELESS_S, Guarded, guard

from tests.control.mortal import Hold
from tests.control.plane import Plane, clock
from tests.support.virtual_time import run

WINDOW_S = 1800.0


async def published(*targets: str) -> Plane:
    plane = Plane()
    for shard in ("a", "a", "b"):
        await plane.add(shard)
    for target in targets:
        await plane.publish(main=target, other="popular")
        await asyncio.sleep(600)
    return plane


async def alarm(plane: Plane, ago_s: float = 0.0, hold: Hold | None = None) -> Guarded:
    return await guard(plane.process(hold), "the guard", "alarm", WINDOW_S, alarmed_at=clock() - ago_s)


def revisions(plane: Plane) -> list[str]:
    return [entry.revision for entry in plane.bundles.history]


def test_an_alarm_takes_the_last_publish_back_and_marks_it_bad() -> None:
    async def work() -> None:
        plane = await published("scorer/1", "scorer/2")
        first, second = revisions(plane)
        assert await alarm(plane) == Guarded("rolled back", "alarm", first, second)
        pointer = await plane.bundles.pointer()
        assert pointer is not None
        assert [(mark.revision, mark.by, mark.why) for mark in pointer.bad] == [(second, "the guard", "alarm")]

    run(work())


def test_an_alarm_after_a_rollback_changes_nothing() -> None:
    async def work() -> None:
        plane = await published("scorer/1", "scorer/2", "scorer/3")
        await plane.roll_back()
        await asyncio.sleep(600)
        kept = await alarm(plane)
        assert (kept.status, kept.revision) == ("kept", revisions(plane)[1])
        assert "a rollback already" in kept.reason

    run(work())


@pytest.mark.parametrize("since_s", [0.0, BLAMELESS_S - 1.0])
def test_an_alarm_about_what_was_live_before_changes_nothing(since_s: float) -> None:
    """What mends a bad revision was published by hand just before the alarm came, or while it was on its way."""

    async def work() -> None:
        plane = await published("scorer/1", "scorer/2")
        at = clock()
        mended = await plane.publish(main="scorer/3", other="popular")
        await asyncio.sleep(600)
        kept = await alarm(plane, clock() - at - since_s)
        assert (kept.status, kept.revision) == ("kept", mended.revision)
        assert "about what was live before" in kept.reason
        assert plane.live() == mended.revision

    run(work())


def test_an_alarm_long_after_a_publish_changes_nothing() -> None:
    async def work() -> None:
        plane = await published("scorer/1", "scorer/2")
        await asyncio.sleep(WINDOW_S)
        assert (await alarm(plane)).status == "kept"
        assert (await alarm(plane, WINDOW_S - 600)).status == "rolled back", "it is told late, and came in time"

    run(work())


@pytest.mark.parametrize("method", ["pointer", "assignment", "flip"])
def test_of_two_alarms_at_once_one_counts(method: str) -> None:
    async def work() -> None:
        plane = await published("scorer/1", "scorer/2", "scorer/3")
        _, second, third = revisions(plane)
        hold = Hold("bundles", method)
        late = asyncio.create_task(alarm(plane, hold=hold))
        await hold.held.wait()
        assert (await alarm(plane)).status == "rolled back"
        hold.go.set()
        kept = await late
        assert (kept.status, kept.revision) == ("kept", second)
        assert plane.live() == second
        assert revisions(plane)[-2:] == [third, second]

    run(work())


@pytest.mark.parametrize("method", ["pointer", "assignment", "flip"])
def test_an_alarm_and_a_person_at_once_roll_back_once(method: str) -> None:
    async def work() -> None:
        plane = await published("scorer/1", "scorer/2", "scorer/3")
        _, second, third = revisions(plane)
        hold = Hold("bundles", method)
        late = asyncio.create_task(alarm(plane, hold=hold))
        await hold.held.wait()
        await plane.roll_back(by="ben")
        hold.go.set()
        assert (await late).status == "kept"
        assert (await plane.roll_back(by="ana")).status == "already rolled back"
        assert plane.live() == second
        assert revisions(plane)[-2:] == [third, second]

    run(work())
