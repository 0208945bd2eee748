"""Publishers, rollbacks and reconcilers at the same time, slow stores, processes that are killed and servers that end:
whatever the order, live is served by every server that is ready, and in the end the fleet holds what the stores say."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.control.reconcile import reconcile_fleet
from tidegate.errors import PublishError, StoreError
from tidegate.fleet.local_fleet import LocalFleet
from tidegate.testing import MemoryModel, MemoryServerLauncher

from tests.control.mortal import Delays, Killed
from tests.control.plane import MODELS, Plane
from tests.support.effort import examples
from tests.support.virtual_time import run

TARGETS = ["features", "features/1", "scorer", "scorer/1", "scorer/2", "pipeline", "popular", "fresh", "bad"]
"""`bad` fails wherever it is loaded."""
SETTLED_S = 150.0


@dataclass(frozen=True)
class Deed:
    """What one process does, when it begins, and when it is killed (None: it is not)."""

    act: str
    targets: tuple[str, ...]
    at_s: float
    killed_after_s: float | None


deeds = st.builds(
    Deed,
    st.sampled_from(["publish", "publish", "publish", "roll back", "reconcile", "crash"]),
    st.lists(st.sampled_from(TARGETS), min_size=1, max_size=3, unique=True).map(tuple),
    st.sampled_from([0.0, 0.0, 0.5, 1.0, 3.0, 10.0, 25.0]),
    st.sampled_from([None, None, None, 0.1, 0.7, 2.0, 6.0]),
)


async def do(plane: Plane, deed: Deed, chance: random.Random) -> None:
    await asyncio.sleep(deed.at_s)
    if deed.act == "crash":
        running = plane.launcher.running()
        if running:
            chance.choice(running).end()
        return
    delays = Delays(chance)
    process = plane.process(delays)
    task = asyncio.create_task(_act(plane, process, deed))
    if deed.killed_after_s is not None:
        await asyncio.wait([task], timeout=deed.killed_after_s)
        delays.dead = True
    with contextlib.suppress(PublishError, StoreError, Killed):
        await task


async def _act(plane: Plane, process: object, deed: Deed) -> None:
    if deed.act == "publish":
        rules = {f"o{number}": target for number, target in enumerate(deed.targets)}
        await plane.publish(process, placement={"bad": ["a"]}, **rules)  # type: ignore[arg-type]
    elif deed.act == "roll back":
        await plane.roll_back(process=process)  # type: ignore[arg-type]
    else:
        await reconcile_fleet(process, "carl")  # type: ignore[attr-defined]


async def play(seed: int, fault: str, planned: Sequence[Deed]) -> None:
    plane, chance = Plane({**MODELS, "bad": MemoryModel()}), random.Random(seed)
    setattr(plane.faults, fault, {"bad": "damaged"})
    # Half of the time publishers can start servers to try models on, which misbehave alike.
    plane.scratch = MemoryServerLauncher(plane.faults) if seed % 2 else None
    fleet = asyncio.create_task(LocalFleet(plane.process(), plane.launcher).run())
    try:
        await plane.publish(first="pipeline", second="popular")
        await asyncio.sleep(20)
        await asyncio.gather(*(do(plane, deed, chance) for deed in planned))
        await asyncio.sleep(SETTLED_S)
        assert plane.violations == []
        assert (await plane.reconcile()).converged
        assert await plane.bundles.claims() == []
        ready = [entry for entry in await plane.registry.endpoints() if entry.state == "ready"]
        assert len(ready) == len(plane.launcher.running())
        result = await plane.publish(first="scorer/2", second="fresh")
        assert plane.live() == result.revision
        assert plane.violations == []
    finally:
        fleet.cancel()
        await asyncio.wait([fleet])
    assert plane.launcher.running() == []
    assert plane.scratch is None or plane.scratch.running() == []


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["refused", "hanging", "fatal"]), st.lists(deeds, min_size=1, max_size=7))
def test_live_is_served_whatever_happens_at_the_same_time(seed: int, fault: str, planned: list[Deed]) -> None:
    run(play(seed, fault, planned))
