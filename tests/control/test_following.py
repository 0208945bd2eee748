"""Following a directory: whatever somebody else makes live pauses it, in every process at once, until it is resumed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tidegate.control.following import pause, pause_of
from tidegate.errors import FollowingPausedError, PublishError, TidegateError
from tidegate.ports import FlipAction, LiveEntry

from tests.control.mortal import Hold
from tests.control.plane import Plane, clock
from tests.control.test_vanished_files import stack_of
from tests.support.virtual_time import run

RULES, OTHERS = "host:/rules", "host:/elsewhere"


async def followed(*targets: str) -> Plane:
    plane = Plane()
    for shard in ("a", "a", "b"):
        await plane.add(shard)
    for target in targets:
        await save(plane, target)
    return plane


async def save(plane: Plane, target: str, **fields: object) -> LiveEntry:
    """What a stack that follows `RULES` does when it changes: the flip that it leads to."""
    await plane.publish(by="up", follows=RULES, main=target, other="popular", **fields)  # type: ignore[arg-type]
    return plane.bundles.history[-1]


async def paused(plane: Plane) -> LiveEntry | None:
    return pause_of(await plane.bundles.pointer(), RULES)


async def refused(plane: Plane, target: str) -> str:
    flips = len(plane.bundles.history)
    with pytest.raises(PublishError) as failure:
        await save(plane, target)
    assert isinstance(failure.value.__cause__, FollowingPausedError)
    assert (failure.value.step, len(plane.bundles.history)) == ("check", flips)
    return str(failure.value)


def test_changes_are_published_as_long_as_nobody_else_makes_something_live() -> None:
    async def work() -> None:
        plane = await followed("scorer/1", "scorer/2", "scorer/3")
        assert [entry.follows for entry in plane.bundles.history] == [RULES] * 3
        assert await paused(plane) is None
        assert pause_of(None, RULES) is None, "nothing is live, so nobody's work is undone"

    run(work())


def test_a_rollback_pauses_it() -> None:
    async def work() -> None:
        plane = await followed("scorer/1", "scorer/2")
        await plane.roll_back(why="wrong prices")
        for target in ("scorer/2", "scorer/3"):
            message = await refused(plane, target)
            assert "because ben made revision" in message
            assert "(rollback: wrong prices)" in message

    run(work())


@pytest.mark.parametrize("follows", [None, OTHERS])
def test_a_publish_by_hand_or_of_another_directory_pauses_it(follows: str | None) -> None:
    async def work() -> None:
        plane = await followed("scorer/1")
        result = await plane.publish(follows=follows, resumes=follows is not None, main="fresh", other="popular")
        assert f"ana made revision {result.revision[:12]} live (publish)" in await refused(plane, "scorer/2")

    run(work())


def test_what_somebody_makes_live_meanwhile_is_not_undone() -> None:
    async def work() -> None:
        plane = await followed("scorer/1", "scorer/2")
        hold = Hold("bundles", "put_bundle")
        saving = asyncio.create_task(
            plane.publish(plane.process(hold), by="up", follows=RULES, main="scorer/3", other="popular")
        )
        await hold.held.wait()
        await plane.roll_back()
        hold.go.set()
        with pytest.raises(PublishError, match="ben made revision"):
            await saving
        assert plane.bundles.history[-1].by == "ben"
        assert await paused(plane) is not None

    run(work())


def test_it_is_paused_on_purpose_without_a_change_of_what_is_live() -> None:
    async def work() -> None:
        plane = await followed("scorer/1", "scorer/2")
        live, at = plane.live(), clock()
        entry, is_new = await pause(plane.ports(), by="ben", why="a demo")
        assert (entry.revision, entry.action, is_new) == (live, FlipAction.PAUSE, True)
        assert (await pause(plane.ports(), by="eve", why=""))[1] is False, "it is paused already"
        assert "because ben paused it: a demo" in await refused(plane, "scorer/3")
        pointer = await plane.bundles.pointer()
        assert pointer is not None
        assert pointer.arrival.action == "publish"
        assert pointer.arrival.at <= at, "it is as old as it was, for an alarm"
        assert (await plane.roll_back()).before == live

    run(work())


def test_a_pause_where_nothing_is_live_is_an_error() -> None:
    async def work() -> None:
        with pytest.raises(TidegateError, match="nothing is live"):
            await pause(Plane().ports(), by="ben", why="")

    run(work())


@pytest.mark.parametrize("target", ["scorer/2", "scorer/3"], ids=["what is live", "something else"])
def test_it_goes_on_once_it_is_resumed(target: str) -> None:
    async def work() -> None:
        plane = await followed("scorer/1", "scorer/2")
        await pause(plane.ports(), by="ben", why="")
        entry = await save(plane, target, resumes=True)
        assert (entry.follows, entry.action) == (RULES, "publish")
        assert await paused(plane) is None
        flips = len(plane.bundles.history)
        await save(plane, target)
        assert len(plane.bundles.history) == flips, "a touch of a file that changes nothing"
        await save(plane, "scorer/1")
        assert plane.violations == []

    run(work())


def test_a_directory_that_was_rolled_back_is_resumed_only_if_told_so() -> None:
    async def work() -> None:
        plane = await followed("scorer/1", "scorer/2")
        await plane.roll_back()
        with pytest.raises(PublishError, match="was marked bad by ben"):
            await save(plane, "scorer/2", resumes=True)
        assert await paused(plane) is not None
        entry = await save(plane, "scorer/2", resumes=True, even_if_bad=True)
        assert entry.cleared
        assert await paused(plane) is None

    run(work())


def test_a_machine_that_gets_another_name_follows_the_same_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = stack_of(tmp_path)
    before = stack.directory
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    assert stack.directory == before is not None
