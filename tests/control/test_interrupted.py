"""Whoever ends at any call, and stores that fail at any call: live is always one whole revision that is served, and the
next publish or reconcile heals what is left."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable

import pytest
from tidegate.control.config import ControlConfig
from tidegate.control.plane import ControlPlane
from tidegate.control.reconcile import reconcile_fleet
from tidegate.errors import PublishError, StoreError
from tidegate.rules import Target

from tests.control.mortal import Death, Interference, Killed, Outage
from tests.control.plane import Plane
from tests.support.virtual_time import run

FIRST = {"main": "scorer/1", "other": "popular"}
SECOND = {"main": "pipeline", "other": "popular"}
THIRD = {"main": "scorer/3", "other": "[{id: us, when: {country: US}, serve: fresh}, {id: rest, serve: popular}]"}
EXPIRED_S = 30.0
"""Longer than any claim lasts."""

FEWEST_CALLS = 12
"""What each act takes at least, so that a test which ends early is found out."""

Act = Callable[[Plane, ControlPlane], Awaitable[object]]


async def publish(plane: Plane, process: ControlPlane) -> None:
    await plane.publish(process, by="mortal", **THIRD)


async def roll_back(plane: Plane, process: ControlPlane) -> None:
    await plane.roll_back(process=process, by="mortal")


async def roll_back_far(plane: Plane, process: ControlPlane) -> None:
    """Back to a revision whose models are not loaded any more."""
    first = plane.bundles.history[0].revision
    await plane.roll_back(first, process=process, by="mortal")


async def reconcile(plane: Plane, process: ControlPlane) -> None:
    """One server came back empty, another has what nobody needs and lacks what is needed."""
    first, second, _ = plane.launcher.running()
    first.repository.holds.clear()
    second.repository.holds.pop("features")
    (stray,) = await plane.catalog.plan([Target("scorer/2", "scorer", 2, ())], {})
    second.repository.holds["scorer"] = stray
    await reconcile_fleet(process, "mortal")


ACTS: dict[str, Act] = {
    "publish": publish,
    "roll back": roll_back,
    "roll back far": roll_back_far,
    "reconcile": reconcile,
}


async def published() -> Plane:
    """Three revisions have been published, and the models of the first are not loaded any more."""
    plane = Plane(config=ControlConfig(keep_revisions=1))
    for shard in ("a", "a", "b"):
        await plane.add(shard)
    for rules in (FIRST, {"main": "fresh", "other": "popular"}, SECOND):
        await plane.publish(**rules)
    await asyncio.sleep(EXPIRED_S)
    await plane.reconcile()
    return plane


async def healed(plane: Plane) -> None:
    """A reconcile leaves just what the stores say, and the next publish succeeds and is served."""
    await asyncio.sleep(EXPIRED_S)
    await plane.reconcile()
    assert (await plane.reconcile()).converged
    result = await plane.publish(main="scorer/2")
    assert plane.live() == result.revision
    assert plane.broken() == []
    await asyncio.sleep(2 * EXPIRED_S)
    await plane.reconcile()
    assert (await plane.reconcile()).converged
    assert await plane.bundles.claims() == []


def each_call(
    act: str, make: Callable[[int], Interference], ends: type[BaseException] | tuple[type[BaseException], ...]
) -> None:
    """Do the same again and again, interfering with one call after the other, until there is none left."""

    async def once(nth: int) -> bool:
        plane = await published()
        flips = len(plane.bundles.history)
        interference = make(nth)
        with contextlib.suppress(ends):
            await ACTS[act](plane, plane.process(interference))
        assert len(plane.bundles.history) <= flips + 1
        if act != "reconcile":
            # At once, as an operator would try again.
            await ACTS[act](plane, plane.process())
            assert plane.broken() == []
        await healed(plane)
        if act != "reconcile":
            assert plane.violations == []
        return interference.came

    for nth in itertools.count(1):
        if not run(once(nth)):
            assert nth > FEWEST_CALLS
            return


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("act", ACTS)
def test_a_process_may_end_at_any_call(act: str, after: bool) -> None:
    each_call(act, lambda nth: Death(nth, after=after), Killed)


@pytest.mark.parametrize("lost", [False, True], ids=["failing", "lost"])
@pytest.mark.parametrize("act", ACTS)
def test_the_stores_may_fail_at_any_call(act: str, lost: bool) -> None:
    each_call(act, lambda nth: Outage(nth, 2, lost=lost), (PublishError, StoreError))
