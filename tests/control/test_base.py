"""A publish goes live in place of what was live when it began, and of nothing else: two publishers, interleaved at every
point, never undo each other's work without a word."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tidegate.bootstrap.rules_sources import GivenRules
from tidegate.control.publish import PublishRequest, publish_rules
from tidegate.errors import PublishError
from tidegate.ports.sources import CheckedRules

from tests.control.mortal import Interference
from tests.control.plane import Plane
from tests.control.rules import bundle
from tests.support.virtual_time import run

OTHER = "[{id: us, when: {country: US}, serve: fresh}, {id: rest, serve: popular}]"


class Pause(Interference):
    """Holds the `nth` call (from 1) of a process before it happens, until `go` is set; `held` is set while it does."""

    def __init__(self, nth: int) -> None:
        self.left = nth
        self.held, self.go = asyncio.Event(), asyncio.Event()

    async def around(self, port: str, method: str, call: Callable[[], Awaitable[Any]]) -> Any:
        self.left -= 1
        if self.left == 0:
            self.held.set()
            await self.go.wait()
        return await call()


class SlowRules:
    """Rules whose check takes until `go` is set."""

    def __init__(self, rules: GivenRules) -> None:
        self.rules, self.checking, self.go = rules, asyncio.Event(), asyncio.Event()

    async def check(self) -> CheckedRules:
        self.checking.set()
        await self.go.wait()
        return await self.rules.check()

    async def test(self, checked: CheckedRules) -> str:
        return await self.rules.test(checked)


async def fleet() -> Plane:
    plane = Plane()
    for shard in ("a", "a", "b"):
        await plane.add(shard)
    await plane.publish(by="eve", main="scorer/1", other="popular")
    return plane


async def once(nth: int) -> bool:
    """Ana is held at her `nth` call; bob publishes meanwhile. Whether she was held at all."""
    plane = await fleet()
    pause = Pause(nth)
    ana = asyncio.create_task(plane.publish(plane.process(pause), by="ana", main="scorer/2", other="popular"))
    held = asyncio.create_task(pause.held.wait())
    await asyncio.wait([ana, held], return_when=asyncio.FIRST_COMPLETED)
    held.cancel()
    began = len(plane.bundles.history)
    bob = asyncio.create_task(plane.publish(by="bob", main="scorer/1", other=OTHER))
    await asyncio.wait([bob], timeout=3)
    pause.go.set()
    results = await asyncio.gather(ana, bob, return_exceptions=True)
    flips = plane.bundles.history[1:]
    for by, result in zip(("ana", "bob"), results, strict=True):
        if isinstance(result, BaseException):
            assert isinstance(result, PublishError), result
            assert f"{flips[0].by} made revision {flips[0].revision[:12]} live" in str(result)
            assert "publish again to go on top of it" in str(result)
        assert isinstance(result, BaseException) == (by not in [flip.by for flip in flips])
    order = [flip.by for flip in flips]
    # Both, only where one of them began once the other's work was live, and so could know of it.
    assert (
        order in (["ana"], ["bob"])
        or (order == ["bob", "ana"] and nth == 1)
        or (order == ["ana", "bob"] and began == 2)
    )
    assert plane.violations == []
    return pause.held.is_set()


def test_two_publishers_interleaved_at_every_call() -> None:
    for nth in itertools.count(1):
        if not run(once(nth)):
            assert nth > 20
            return


def test_who_still_checks_does_not_overwrite_what_became_live_meanwhile() -> None:
    async def work() -> None:
        plane = await fleet()
        slow = SlowRules(GivenRules(bundle(main="scorer/2", other="popular")))
        request = PublishRequest(rules=slow, by="ana")
        ana = asyncio.create_task(publish_rules(plane.process(), request, plane.events.append))
        await slow.checking.wait()
        bob = await plane.publish(by="bob", main="scorer/1", other=OTHER)
        slow.go.set()
        with pytest.raises(PublishError) as failure:
            await ana
        assert plane.live() == bob.revision
        assert "other: rule us" in str(failure.value)
        assert "tidegate rules diff live: " in str(failure.value)

    run(work())


def test_who_made_what_live_is_said_also_where_only_a_newer_tidegate_can_read_it() -> None:
    async def work() -> None:
        plane = await fleet()
        slow = SlowRules(GivenRules(bundle(main="scorer/2", other="popular")))
        ana = asyncio.create_task(publish_rules(plane.process(), PublishRequest(rules=slow, by="ana"), lambda _: None))
        await slow.checking.wait()
        bob = await plane.publish(by="bob", main="scorer/1", other=OTHER)
        newer = plane.bundles.bundles[bob.revision].replace(b'"format_version":1', b'"format_version":2')
        plane.bundles.bundles[bob.revision] = newer
        slow.go.set()
        with pytest.raises(PublishError, match=f"bob made revision {bob.revision[:12]} live"):
            await ana

    run(work())


def test_two_who_publish_the_same_both_succeed() -> None:
    async def work() -> None:
        plane = await fleet()
        results = await asyncio.gather(
            *(plane.publish(by=by, main="scorer/2", other="popular") for by in ("ana", "bob"))
        )
        assert sorted(each.status for each in results) == ["published", "unchanged"]
        assert len(plane.bundles.history) == 2

    run(work())


def test_a_base_can_be_named() -> None:
    async def work() -> None:
        plane = await fleet()
        first = plane.live()
        second = await plane.publish(onto=first[:10].upper(), main="scorer/2", other="popular")
        for onto in (first[:10], "none", "f00", ""):
            with pytest.raises(PublishError) as failure:
                await plane.publish(onto=onto, main="scorer/3", other=OTHER)
            assert f"ana made revision {second.revision[:12]} live" in str(failure.value)
            assert ("scorer/2" in str(failure.value)) == (onto == first[:10]), (
                "what is different is shown where it is known"
            )
        assert plane.live() == second.revision

    run(work())


def test_a_base_of_nothing_can_be_named() -> None:
    async def work() -> None:
        plane = Plane()
        for shard in ("a", "b"):
            await plane.add(shard)
        with pytest.raises(PublishError, match="nothing is live"):
            await plane.publish(onto="f00", main="scorer/2")
        assert (await plane.publish(onto="none", main="scorer/2")).status == "published"

    run(work())
