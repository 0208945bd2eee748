"""Rolling back from the console: one at a time, answered at the flip, refused with the reason."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest
from tidegate.console.console import Console
from tidegate.console.sources import ConsoleSources
from tidegate.errors import RefusedError, StoreError

from tests.control.mortal import Hold, Interference
from tests.control.plane import Plane
from tests.support.virtual_time import run


def console_of(plane: Plane, *, writes: bool = True, interference: Interference | None = None) -> Console:
    async def status() -> Mapping[str, Any]:
        return {}

    return Console(ConsoleSources(status=status, plane=plane.process(interference), writes=writes))


async def published(*targets: str) -> Plane:
    plane = Plane()
    for shard in ("a", "b"):
        await plane.add(shard)
    for target in targets:
        await plane.publish(main=target)
        await asyncio.sleep(30)
    return plane


def test_it_is_answered_at_the_flip_and_goes_on_until_requests_have_drained(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tidegate.audit")

    async def work() -> None:
        plane = await published("scorer/1", "scorer/2")
        before = plane.bundles.history[0].revision
        console, began_s = console_of(plane), asyncio.get_running_loop().time()
        found = await console.roll_back({"to": "live~1", "why": "slow"}, "ana (console)")
        assert asyncio.get_running_loop().time() - began_s < plane.config.drain_s
        assert (found["ok"], found["status"]) == (True, "rolled back")
        assert before.startswith(found["revision"])
        (*_, last) = plane.bundles.history
        assert (last.by, last.why, last.action) == ("ana (console)", "slow", "rollback")
        # The next one need not wait for the end of this one.
        with pytest.raises(RefusedError, match="was marked bad by ana"):
            await console.roll_back({"to": found["before"], "why": "it was not"}, "ben (console)")
        await asyncio.sleep(60)

    run(work())
    assert "rollback to live~1 asked for by ana (console): slow" in caplog.text


def test_two_at_a_time_are_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tidegate.audit")

    async def work() -> None:
        plane = await published("scorer/1", "scorer/2", "scorer/3")
        console = console_of(plane)
        asked = [console.roll_back({"to": "live~1", "why": "slow"}, f"{name} (console)") for name in ("ana", "ben")]
        done, refused = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(done, dict)
        assert "under way" in str(refused)
        await asyncio.sleep(60)
        assert [each.action for each in plane.bundles.history] == ["publish", "publish", "publish", "rollback"]

    run(work())
    assert "the rollback of ana (console) is done (rolled back)" in caplog.text


def test_the_end_of_one_lets_none_in_beside_the_next_one() -> None:
    async def work() -> None:
        plane = await published("scorer/1", "scorer/2", "scorer/3")
        oldest = plane.bundles.history[0].revision
        hold = Hold("bundles", "flip")
        hold.go.set()
        console = console_of(plane, interference=hold)
        assert (await console.roll_back({"to": "live~1", "why": "slow"}, "ana"))["ok"]
        hold.go.clear()
        hold.held.clear()
        second = asyncio.create_task(console.roll_back({"to": oldest, "why": "slower"}, "ben"))
        await hold.held.wait()
        # The first one has drained long before the console gives up on the second.
        await asyncio.sleep(plane.config.drain_s + 10)
        assert not second.done()
        with pytest.raises(RefusedError, match="a rollback is under way"):
            await console.roll_back({"to": "live~1", "why": "slowest"}, "eve")
        hold.go.set()
        assert (await second)["status"] == "rolled back"
        await asyncio.sleep(60)

    run(work())


def test_one_that_cannot_be_done_says_why_and_the_next_one_may_try() -> None:
    async def work() -> None:
        plane = await published("scorer/1", "scorer/2")
        console = console_of(plane)
        for to, why in (("ffffff", "no revision that was live begins with 'ffffff'"), ("0123456789", "begins with")):
            with pytest.raises(RefusedError, match=why):
                await console.roll_back({"to": to, "why": "slow"}, "ana")
        plane.bundles.faults.failing["pointer"] = "S3 is down"
        with pytest.raises(StoreError, match="S3 is down"):
            await console.roll_back({"to": "live~1", "why": "slow"}, "ana")
        plane.bundles.faults.failing.clear()
        assert (await console.roll_back({"to": "live~1", "why": "slow"}, "ana"))["ok"]
        live = plane.live()
        unchanged = await console.roll_back({"to": live[:16], "why": "slow"}, "ana")
        assert (unchanged["status"], unchanged["activated"]) == ("unchanged", None)
        await asyncio.sleep(60)

    run(work())


def test_the_body_is_checked_before_anything_is_done() -> None:
    async def work() -> None:
        plane = await published("scorer/1", "scorer/2")
        console = console_of(plane)
        for body in (
            {},
            {"to": "live~1"},
            {"to": 1, "why": "x"},
            {"to": "live~1", "why": "x" * 501},
            {"to": "a", "why": "b", "by": "c"},
        ):
            with pytest.raises(RefusedError, match="member"):
                await console.roll_back(body, "ana")
        with pytest.raises(RefusedError, match="only reads"):
            await console_of(plane, writes=False).roll_back({"to": "live~1", "why": "slow"}, "ana")
        assert len(plane.bundles.history) == 2

    run(work())
