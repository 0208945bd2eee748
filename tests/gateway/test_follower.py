"""A gateway serves the revision that the pointer names, or last named; requests wait for it only after a pause, and briefly."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.provision import provision
from tidegate.bootstrap import build_gateway
from tidegate.errors import BundleError, StoreError
from tidegate.gateway.follower import EngineFollower, FollowerConfig, KnownRules
from tidegate.ports import BundleStore, GatewayReport, LiveEntry, Pointer
from tidegate.rules import compile_directory, load_bundle
from tidegate.settings import Settings
from tidegate.testing import MemoryBundleStore, MemoryEndpointDirectory, MemoryRegistry

from tests.support import virtual_time
from tests.support.aws import LocalAws, local_server, names
from tests.support.processes import reserve_port
from tests.support.stack import ROOT, eventually, write_rules
from tests.web.conftest import AS_OPERATOR, OPERATOR, Host, serving

CONFIG = FollowerConfig(poll_interval_s=2.0, report_interval_s=10.0)


@functools.cache
def bundle(number: int) -> bytes:
    """Return a bundle; another number gives another revision."""
    with tempfile.TemporaryDirectory() as folder:
        rules = write_rules(Path(folder), {"main": 1}, {"m": ["main"]}, ranking=f"m/{number}")
        return compile_directory(rules)


def revision(number: int) -> str:
    return load_bundle(bundle(number)).revision


async def publish(store: BundleStore, number: int) -> Pointer:
    """Make a bundle live."""
    before = await store.pointer()
    sequence = 1 if before is None else before.live.sequence + 1
    return await store.flip(LiveEntry(await store.put_bundle(bundle(number)), sequence, "ann", 1.0), before)


class Fixture:
    """A follower of a store in memory, on the virtual clock."""

    def __init__(self, **options: Any) -> None:
        self.store = MemoryBundleStore()
        self.registry = MemoryRegistry(clock=self.now)
        self.swaps = 0
        options = {"config": CONFIG, "draw": lambda: 0.0} | options
        self.follower = EngineFollower(
            self.store, "gateway-1", self.registry, swapped=self.swapped, clock=self.now, **options
        )

    def now(self) -> float:
        return asyncio.get_event_loop().time()

    def swapped(self) -> None:
        self.swaps += 1

    async def source(self) -> dict[str, Any]:
        source: dict[str, Any] = (await self.follower.status())["source"]
        return source

    async def gateways(self) -> list[GatewayReport]:
        return list(await self.registry.gateways())


def on_virtual_time(work: Coroutine[Any, Any, None]) -> None:
    virtual_time.run(work)


async def following(fixture: Fixture, seconds: float) -> None:
    """Let a follower run for a while."""
    task = asyncio.create_task(fixture.follower.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled(), "nothing ends it but its owner"


def test_a_new_revision_is_served_and_reported_within_the_poll_interval() -> None:
    async def work() -> None:
        fixture = Fixture()
        await publish(fixture.store, 1)
        task = asyncio.create_task(fixture.follower.run())
        for number in (1, 2, 1):
            await publish(fixture.store, number)
            await asyncio.sleep(CONFIG.poll_interval_s + 0.01)
            assert fixture.follower.engine().decide("ranking", {}).version == number
            assert [report.revision for report in await fixture.gateways()] == [revision(number)]
        task.cancel()

    on_virtual_time(work())


def test_before_the_first_publish_there_is_nothing_to_serve_and_it_says_so() -> None:
    async def work() -> None:
        fixture = Fixture()
        with pytest.raises(BundleError, match=r"^the gateway has no rules yet$"):
            fixture.follower.engine()
        await fixture.follower.poll()
        assert (await fixture.follower.status())["revision"] is None
        assert (await fixture.source())["state"] == "empty"
        assert await fixture.gateways() == [], "it serves nothing that it could report"

    on_virtual_time(work())


def test_the_bundle_it_came_with_is_served_until_the_live_one_is_there() -> None:
    async def work() -> None:
        fixture = Fixture(initial=KnownRules(load_bundle(bundle(1)), known_at=-100.0))
        assert fixture.follower.engine().revision == revision(1)
        fixture.store.faults.failing["pointer"] = "the store is down"
        await asyncio.sleep(20)
        await fixture.follower.poll()
        source = await fixture.source()
        assert (source["state"], source["age_s"]) == ("failing", 120.0), "counted from when they were known to be live"
        known = fixture.follower.known
        assert known is not None
        assert known.known_at == -100.0, "and so for the next one that begins with them"
        fixture.store.faults.failing.clear()
        await publish(fixture.store, 1)
        fixture.store.faults.failing["bundle"] = "need not be read, as it is served"
        await fixture.follower.poll()
        assert (fixture.follower.state, fixture.follower.revision) == ("current", revision(1))
        assert fixture.follower.age_s == 0.0

    on_virtual_time(work())


@pytest.mark.parametrize("method", ["pointer", "bundle"])
def test_a_store_that_is_down_changes_nothing_but_the_age(method: str, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        fixture = Fixture()
        await publish(fixture.store, 1)
        await fixture.follower.poll()
        await publish(fixture.store, 2)
        fixture.store.faults.failing[method] = "the network is gone"
        await following(fixture, 61)
        assert fixture.follower.revision == revision(1)
        assert await fixture.source() == {
            "state": "failing", "age_s": 61.0, "failures": 9, "last_error": f"{method}: the network is gone",
        }  # fmt: skip
        fixture.store.faults.failing.clear()
        await following(fixture, 1)
        assert fixture.follower.revision == revision(2)
        source = await fixture.source()
        assert (source["state"], source["last_error"], source["failures"]) == ("current", None, 9)

    with caplog.at_level("INFO", "tidegate.gateway.follower"):
        on_virtual_time(work())
    messages = [record.message for record in caplog.records]
    assert messages == [
        f"serving revision {revision(1)[:12]}",
        f"the live bundle cannot be followed, still serving revision {revision(1)[:12]}: {method}: the network is gone",
        f"serving revision {revision(2)[:12]}, before {revision(1)[:12]}",
        "the live bundle can be followed again",
    ]


def test_a_pointer_that_is_lost_changes_nothing_but_the_age_and_says_what_to_do() -> None:
    async def work() -> None:
        fixture = Fixture()
        await publish(fixture.store, 1)
        await following(fixture, 1)
        fixture.store.lose_pointer()
        await following(fixture, 20)
        assert fixture.follower.revision == revision(1)
        source = await fixture.source()
        assert (source["state"], source["age_s"] >= 15) == ("failing", True)
        assert "tidegate recover" in source["last_error"]
        await publish(fixture.store, 2)
        await following(fixture, 5)
        assert fixture.follower.revision == revision(2)

    on_virtual_time(work())


def test_what_came_with_a_gateway_is_not_reported_as_if_it_had_been_live() -> None:
    async def work() -> None:
        fixture = Fixture(initial=KnownRules(load_bundle(bundle(1)), known_at=0.0))
        await following(fixture, 20)
        assert await fixture.gateways() == []
        await publish(fixture.store, 2)
        await following(fixture, 20)
        assert [each.revision for each in await fixture.gateways()] == [revision(2)]

    on_virtual_time(work())


def test_a_damaged_bundle_is_never_served() -> None:
    async def work() -> None:
        fixture = Fixture()
        await publish(fixture.store, 1)
        await fixture.follower.poll()
        await publish(fixture.store, 2)
        fixture.store.faults.damaged.add(revision(2))
        await following(fixture, 5)
        assert (fixture.follower.revision, fixture.follower.state) == (revision(1), "damaged")
        fixture.store.faults.damaged.clear()
        await following(fixture, 1)
        assert (fixture.follower.revision, fixture.follower.state) == (revision(2), "current")

    on_virtual_time(work())


@pytest.mark.parametrize(
    "data", [b"", b"no bundle", bundle(1)[:-3], bundle(1).replace(b'"format_version":1', b'"format_version":99')]
)
def test_bytes_that_are_no_bundle_are_never_served(data: bytes) -> None:
    async def work() -> None:
        fixture = Fixture()
        first = await publish(fixture.store, 1)
        await fixture.follower.poll()
        await fixture.store.flip(LiveEntry(await fixture.store.put_bundle(data), 2, "eve", 1.0), first)
        await fixture.follower.poll()
        assert (fixture.follower.revision, fixture.follower.state) == (revision(1), "damaged")

    on_virtual_time(work())


def test_a_heartbeat_goes_out_without_a_change_and_waits_for_nobody() -> None:
    async def work() -> None:
        fixture = Fixture()
        await publish(fixture.store, 1)
        await following(fixture, 25)
        (report,) = await fixture.gateways()
        assert report == GatewayReport("gateway-1", revision(1), 20.0)
        # A registry that hangs does not delay the polls.
        fixture.registry.faults.held["report"] = asyncio.Event()
        task = asyncio.create_task(fixture.follower.run())
        await asyncio.sleep(20)
        await publish(fixture.store, 2)
        await asyncio.sleep(2.1)
        assert fixture.follower.revision == revision(2)
        task.cancel()

    on_virtual_time(work())


def test_a_registry_that_was_down_gets_a_report_once_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        fixture = Fixture()
        await publish(fixture.store, 1)
        fixture.registry.faults.failing["report"] = "no table"
        await following(fixture, 9)
        assert fixture.follower.state == "current"
        fixture.registry.faults.failing.clear()
        await following(fixture, CONFIG.report_interval_s)
        assert [report.revision for report in await fixture.gateways()] == [revision(1)]

    on_virtual_time(work())
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["the served revision cannot be reported to the registry: report: no table"]


def test_polls_show_in_the_status_and_swaps_are_called_back() -> None:
    async def work() -> None:
        fixture = Fixture()
        seen: list[tuple[str, float | None, int]] = []

        async def poll() -> None:
            await fixture.follower.poll()
            source = await fixture.source()
            seen.append((source["state"], source["age_s"], fixture.swaps))

        await poll()
        await publish(fixture.store, 1)
        await poll()
        await poll()
        fixture.store.faults.failing["*"] = "down"
        await asyncio.sleep(3)
        await poll()
        assert seen == [("empty", 0.0, 0), ("current", 0.0, 1), ("current", 0.0, 1), ("failing", 3.0, 1)]

    on_virtual_time(work())


def test_a_source_that_misbehaves_does_not_end_the_following() -> None:
    async def work() -> None:
        fixture = Fixture()
        await publish(fixture.store, 1)
        fixture.store.bundles[revision(1)] = None  # type: ignore[assignment]
        await following(fixture, 3)
        source = (await fixture.follower.status())["source"]
        assert (source["state"], source["last_error"]) == ("failing", "TypeError")

    on_virtual_time(work())


class CountedStore(MemoryBundleStore):
    """Notes when the pointer was read."""

    def __init__(self) -> None:
        super().__init__()
        self.read_at: list[float] = []

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        self.read_at.append(asyncio.get_running_loop().time())
        return await super().pointer(known)


def _seeded(store: BundleStore, number: int, config: FollowerConfig) -> EngineFollower:
    now = asyncio.get_running_loop().time
    return EngineFollower(store, f"gateway-{number}", config=config, clock=now, draw=random.Random(number).random)


async def polled_together(config: FollowerConfig, gateways: int, seconds: float, store: CountedStore) -> None:
    """Let gateways that begin at the same time follow a store for a while."""
    followers = [_seeded(store, number, config) for number in range(gateways)]
    tasks = [asyncio.create_task(follower.run()) for follower in followers]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def test_gateways_that_began_together_do_not_poll_together() -> None:
    async def work() -> None:
        store = CountedStore()
        await publish(store, 1)
        await polled_together(CONFIG, 200, 40.0, store)
        late = [at for at in store.read_at if at > 20.0]
        fullest = max(late.count(at) for at in set(late))
        assert fullest <= 5, "of 200 that once polled at the same moment"
        busiest = max(
            sum(begin <= at < begin + 0.1 for at in late) for begin in (20 + step / 10 for step in range(200))
        )
        assert busiest < 60, "as many as there are on average are 11 in a tenth of a second"
        assert len(store.read_at) <= 200 * 40 / (CONFIG.poll_interval_s * (1 - CONFIG.jitter)) + 200

    on_virtual_time(work())


def test_a_store_that_refuses_is_asked_more_and_more_rarely() -> None:
    async def work() -> None:
        store = CountedStore()
        await publish(store, 1)
        store.faults.failing["*"] = "Slow Down"
        await polled_together(CONFIG, 100, 200.0, store)
        before = [at for at in store.read_at if at >= 100.0]
        # Between half of the longest time and all of it, three quarters on average.
        assert 100 * 100 / CONFIG.longest_backoff_s <= len(before) <= 100 * 100 / (CONFIG.longest_backoff_s / 2)

    on_virtual_time(work())


def test_a_store_with_too_few_reads_for_all_still_serves_all_and_is_not_asked_much_more() -> None:
    """Where polls exceed its rate, it refuses the rest (S3: 503 Slow Down). No follower must be left out for long."""

    class Limited(CountedStore):
        most_per_s = 20

        def __init__(self) -> None:
            super().__init__()
            self.served_at: list[float] = []

        async def pointer(self, known: Pointer | None = None) -> Pointer | None:
            now = asyncio.get_running_loop().time()
            if sum(at > now - 1 for at in self.served_at[-self.most_per_s :]) == self.most_per_s:
                self.read_at.append(now)
                raise StoreError("Slow Down")
            self.served_at.append(now)
            return await super().pointer(known)

    async def work() -> None:
        store = Limited()
        await publish(store, 1)
        followers = [_seeded(store, number, CONFIG) for number in range(100)]
        tasks = [asyncio.create_task(follower.run()) for follower in followers]
        await asyncio.sleep(120)
        assert all(follower.revision == revision(1) for follower in followers)
        asked = sum(at > 60 for at in store.read_at) / 60
        assert asked < 45, "without a back-off they would ask 50 times a second and more"
        assert max(follower.age_s or 0.0 for follower in followers) < 60
        for task in tasks:
            task.cancel()

    on_virtual_time(work())


def test_the_age_of_a_cached_answer_counts() -> None:
    async def work() -> None:
        fixture = Fixture(config=FollowerConfig(cached_s=2.0))
        pointer = await publish(fixture.store, 1)
        fixture.store._pointer = replace(pointer, age_s=1.5)
        await fixture.follower.poll()
        assert fixture.follower.age_s == 1.5
        await asyncio.sleep(CONFIG.poll_interval_s)
        assert fixture.follower.catching_up() is None, "late is what is older than interval, cache and half a second"
        await asyncio.sleep(1.1)
        assert await caught_up(fixture) < 0.1
        assert fixture.follower.age_s == 1.5, "it was polled again"

    on_virtual_time(work())


def test_a_registry_that_refuses_reports_gets_no_more_of_them_for_that() -> None:
    async def work() -> None:
        fixture = Fixture()
        await publish(fixture.store, 1)
        fixture.registry.faults.failing["report"] = "throttled"
        tried = 0
        report = fixture.registry.report

        async def counted(sent: GatewayReport) -> None:
            nonlocal tried
            tried += 1
            await report(sent)

        fixture.registry.report = counted  # type: ignore[method-assign]
        await following(fixture, 200)
        assert tried <= 200 / CONFIG.report_interval_s + 5

    on_virtual_time(work())


def test_a_function_polls_with_a_request_when_the_last_poll_is_long_enough_ago() -> None:
    async def work() -> None:
        fixture = Fixture()
        await publish(fixture.store, 1)
        first = fixture.follower.poll_if_due()
        assert first is not None
        assert fixture.follower.poll_if_due() is None, "one is under way"
        await first
        assert fixture.follower.revision == revision(1)
        await publish(fixture.store, 2)
        assert fixture.follower.poll_if_due() is None
        assert fixture.follower.revision == revision(1)
        await asyncio.sleep(CONFIG.poll_interval_s)
        begun = fixture.follower.poll_if_due()
        assert begun is not None
        assert fixture.follower.catching_up() is None, "what is polled in time is waited for by nobody"
        await begun
        assert fixture.follower.revision == revision(2)

    on_virtual_time(work())


async def caught_up(fixture: Fixture) -> float:
    """Let a request wait as `catching_up` requires; return for how many seconds it did."""
    began = fixture.now()
    waiting = fixture.follower.catching_up()
    if waiting is not None:
        await waiting
    return fixture.now() - began


async def paused(fixture: Fixture, seconds: float = 1800.0) -> None:
    """Load revision 1, and be frozen while revision 2 becomes live."""
    await publish(fixture.store, 1)
    await fixture.follower.poll()
    await publish(fixture.store, 2)
    await asyncio.sleep(seconds)


def test_the_first_request_after_a_pause_is_decided_by_what_is_live_then() -> None:
    async def work() -> None:
        fixture = Fixture()
        await paused(fixture)
        assert await caught_up(fixture) < 0.1
        assert (fixture.follower.revision, fixture.follower.age_s) == (revision(2), 0.0)
        assert fixture.follower.catching_up() is None

    on_virtual_time(work())


class LateAnswers:
    """A source whose answers arrive once `arrived` is set, however old they are by then."""

    def __init__(self, store: MemoryBundleStore) -> None:
        self._store = store
        self.arrived = asyncio.Event()
        self.arrived.set()

    async def pointer(self, known_tag: str | None = None) -> Pointer | None:
        found = await self._store.pointer(known_tag)
        await self.arrived.wait()
        return found

    async def bundle(self, revision: str) -> bytes:
        return await self._store.bundle(revision)


@pytest.mark.parametrize("pause_s", [CONFIG.poll_interval_s + 1, 1800.0])
def test_a_poll_from_before_a_pause_tells_nothing_of_what_is_live_after_it(pause_s: float) -> None:
    async def work() -> None:
        fixture = Fixture()
        source = LateAnswers(fixture.store)
        follower = EngineFollower(source, "gateway-1", config=CONFIG, clock=fixture.now)
        await publish(fixture.store, 1)
        await follower.poll()
        await asyncio.sleep(CONFIG.poll_interval_s)
        source.arrived.clear()
        begun = follower.poll_if_due()
        assert begun is not None
        await asyncio.sleep(pause_s)
        await publish(fixture.store, 2)
        source.arrived.set()
        waiting = follower.catching_up()
        assert waiting is not None
        await waiting
        await asyncio.wait([begun])
        assert (follower.revision, follower.age_s) == (revision(2), 0.0)

    on_virtual_time(work())


def test_requests_wait_together_and_no_longer_than_they_may_for_a_store_that_hangs() -> None:
    async def work() -> None:
        fixture = Fixture()
        await paused(fixture)
        answer = fixture.store.faults.held["*"] = asyncio.Event()
        waits = await asyncio.gather(*(caught_up(fixture) for _ in range(5)))
        assert waits == pytest.approx([CONFIG.fresh_wait_s] * 5)
        assert fixture.follower.revision == revision(1), "the known rules stay in use"
        assert fixture.follower.measured_age_s is None, (
            "whether the store answers is not known yet: no reason for an alarm"
        )
        assert await caught_up(fixture) == 0, "the same poll is not waited for again"
        answer.set()
        await asyncio.sleep(0.01)
        assert fixture.follower.revision == revision(2)

    on_virtual_time(work())


@pytest.mark.parametrize("runs", [True, False], ids=["server", "function"])
def test_a_store_that_hangs_under_requests_is_noticed_and_soon_waited_for_by_nobody(
    runs: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        fixture = Fixture()
        await publish(fixture.store, 1)
        await fixture.follower.poll()
        running = asyncio.create_task(fixture.follower.run()) if runs else None
        await asyncio.sleep(0.1)
        fixture.store.faults.held["*"] = asyncio.Event()
        waited: list[float] = []
        for _ in range(300):
            if not runs:
                fixture.follower.poll_if_due()
            waited.append(await caught_up(fixture))
            await asyncio.sleep(0.1)
        assert fixture.follower.state == "failing"
        assert fixture.follower.failures > 1
        assert fixture.follower.measured_age_s == fixture.follower.age_s >= 30.0
        assert sum(waited) <= 2 * CONFIG.fresh_wait_s + 0.01
        assert sum(waited[-200:]) == 0
        fixture.store.faults.held.clear()
        await publish(fixture.store, 2)
        await asyncio.sleep(3)
        if not runs:
            fixture.follower.poll_if_due()
        await caught_up(fixture)
        assert (fixture.follower.state, fixture.follower.revision) == ("current", revision(2))
        if running is not None:
            running.cancel()

    with caplog.at_level("WARNING", "tidegate.gateway.follower"):
        on_virtual_time(work())
    (message,) = (record.message for record in caplog.records)
    assert "did not answer within 2.5 s" in message


def test_a_pause_during_a_poll_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        fixture = Fixture()
        source = LateAnswers(fixture.store)
        follower = EngineFollower(source, "gateway-1", config=CONFIG, clock=fixture.now)
        await publish(fixture.store, 1)
        await follower.poll()
        for _ in range(3):
            await asyncio.sleep(CONFIG.poll_interval_s)
            source.arrived.clear()
            assert follower.poll_if_due() is not None
            await asyncio.sleep(600)
            source.arrived.set()
            waiting = follower.catching_up()
            assert waiting is not None
            await waiting
        assert (follower.state, follower.failures, follower.age_s) == ("current", 0, 0.0)

    with caplog.at_level("WARNING", "tidegate.gateway.follower"):
        on_virtual_time(work())
    assert caplog.records == []


@pytest.mark.parametrize("pause_s", [4.0, 600.0])
def test_a_function_that_is_frozen_between_requests_sees_that_the_store_answers_again(pause_s: float) -> None:
    """A poll that no request waits for never ends there."""

    async def work() -> None:
        fixture = Fixture()
        source = LateAnswers(fixture.store)
        follower = EngineFollower(source, "gateway-1", config=CONFIG, clock=fixture.now)
        await publish(fixture.store, 1)
        await follower.poll()
        await publish(fixture.store, 2)
        source.arrived.clear()
        for _ in range(5):
            await asyncio.sleep(pause_s)
            follower.poll_if_due()
            if (waiting := follower.catching_up()) is not None:
                await waiting
        assert follower.state == "failing"
        assert follower.measured_age_s == follower.age_s > 5 * pause_s
        await asyncio.sleep(pause_s)
        source.arrived.set()
        follower.poll_if_due()
        waiting = follower.catching_up()
        assert waiting is not None
        await waiting
        assert (follower.state, follower.revision) == ("current", revision(2))

    on_virtual_time(work())


def test_nobody_waits_while_the_store_is_known_to_fail_and_it_is_asked_again_after_a_pause() -> None:
    async def work() -> None:
        fixture = Fixture()
        await paused(fixture)
        fixture.store.faults.failing["*"] = "down"
        await caught_up(fixture)
        assert fixture.follower.measured_age_s == 1800.0
        held = fixture.store.faults.held["*"] = asyncio.Event()
        for _ in range(20):
            fixture.follower.poll_if_due()
            assert fixture.follower.catching_up() is None
            await asyncio.sleep(0.5)
        held.set()
        fixture.store.faults.held.clear()
        await asyncio.sleep(0.01)
        fixture.store.faults.failing.clear()
        await asyncio.sleep(600)
        await caught_up(fixture)
        assert fixture.follower.revision == revision(2)

    on_virtual_time(work())


def test_sparse_requests_are_never_decided_by_rules_older_than_the_interval_and_a_second() -> None:
    """A function is frozen after each answer: a poll beside a request ends with the next one."""

    async def work() -> None:
        fixture = Fixture()
        await publish(fixture.store, 1)
        for pause_s in (0.3, 1.9, 2.1, 2.4, 2.6, 2.9, 3.1, 5.0, 60.0) * 3:
            fixture.follower.poll_if_due()
            await caught_up(fixture)
            age_s = fixture.follower.age_s
            assert age_s is not None
            assert age_s <= CONFIG.poll_interval_s + 1
            await asyncio.sleep(pause_s)

    on_virtual_time(work())


def test_a_poll_that_its_event_loop_took_along_is_not_waited_for() -> None:
    store = MemoryBundleStore()
    follower = EngineFollower(store, "gateway-1", config=FollowerConfig(poll_interval_s=0.0))

    async def begin() -> None:
        await publish(store, 1)
        store.faults.held["pointer"] = asyncio.Event()
        assert follower.poll_if_due() is not None
        await asyncio.sleep(0.01)

    abandoned = asyncio.new_event_loop()
    abandoned.run_until_complete(begin())
    store.faults.held.clear()

    async def next_request() -> None:
        begun = follower.poll_if_due()
        assert begun is not None
        await begun

    asyncio.run(next_request())
    assert follower.revision == revision(1)
    for task in asyncio.all_tasks(abandoned):
        task.cancel()
    abandoned.run_until_complete(asyncio.sleep(0))
    abandoned.close()


def test_the_bundle_in_s3_is_followed_past_damage_and_a_store_that_ends() -> None:
    async def work(aws: LocalAws) -> EngineFollower:
        await provision(aws.clients(), aws.bucket, aws.table)
        store = S3BundleStore(aws.objects(timeout_s=1.0))
        follower = EngineFollower(store, "gateway-1")
        await publish(store, 1)
        await follower.poll()
        assert follower.engine().decide("ranking", {}).version == 1
        await publish(store, 2)
        aws.s3().put_object(Bucket=aws.bucket, Key=f"bundles/{revision(2)}", Body=bundle(2)[:-10])
        await follower.poll()
        assert (follower.revision, follower.state) == (revision(1), "damaged")
        await store.put_bundle(bundle(2))
        await follower.poll()
        assert (follower.revision, follower.state) == (revision(2), "current")
        return follower

    with local_server() as url:
        follower = asyncio.run(work(names(url)))
    asyncio.run(follower.poll())
    assert (follower.revision, follower.state) == (revision(2), "failing")


def test_requests_wait_for_nothing_and_the_fleet_status_says_how_well_the_revision_is_known() -> None:
    store = MemoryBundleStore()
    follower = EngineFollower(store, "gateway-1")
    gateway = build_gateway(Settings(operator_token=OPERATOR), follower, MemoryEndpointDirectory(), follower)
    resolve = "/v1/objectives/ranking/resolve"
    with serving(gateway.app) as host:
        refused = host.ask("POST", resolve, b'{"context": {}}')
        assert (refused.status, refused.json["detail"]) == (503, "the gateway has no rules yet")

        async def follow() -> None:
            await publish(store, 1)
            await follower.poll()
            store.faults.held["*"] = asyncio.Event()
            hanging = asyncio.create_task(follower.poll())
            decided = await asyncio.to_thread(host.ask, "POST", resolve, b'{"context": {}}')
            assert (decided.status, decided.json["decision"]["version"]) == (200, 1)
            hanging.cancel()

        asyncio.run(follow())
        fleet = host.ask("GET", "/v1/fleet", None, AS_OPERATOR).json
        assert (fleet["revision"], fleet["source"]["state"]) == (revision(1), "current")


SERVER = """
import asyncio, socket, sys
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.bootstrap import build_gateway
from tidegate.gateway.follower import EngineFollower
from tidegate.listener import Listener, ListenerConfig
from tidegate.testing import MemoryEndpointDirectory
from tidegate.settings import Settings
from tests.support.aws import LocalAws
aws = LocalAws(*sys.argv[1:4])
follower = EngineFollower(S3BundleStore(aws.objects()), "gateway-1")
app = build_gateway(Settings(), follower, MemoryEndpointDirectory(), follower).app
async def main():
    following = asyncio.create_task(follower.run())
    with socket.create_server(("127.0.0.1", int(sys.argv[4]))) as sock:
        await Listener(app, ListenerConfig()).start(sock)
        await following
asyncio.run(main())
"""


def test_a_server_that_was_stopped_decides_by_what_is_live_now() -> None:
    with local_server() as url:
        aws, port = names(url), reserve_port()
        asyncio.run(provision(aws.clients(), aws.bucket, aws.table))
        store = S3BundleStore(aws.objects())
        asyncio.run(publish(store, 1))
        arguments = (aws.url, aws.bucket, aws.table, str(port))
        host = Host(port)
        with subprocess.Popen([sys.executable, "-c", SERVER, *arguments], cwd=ROOT) as process:
            try:
                eventually(lambda: served_revision(host) == revision(1))
                for number in (2, 1, 2):
                    process.send_signal(signal.SIGSTOP)
                    asyncio.run(publish(store, number))
                    time.sleep(2.6)
                    process.send_signal(signal.SIGCONT)
                    assert served_revision(host) == revision(number), "the first request already"
            finally:
                process.kill()


def served_revision(host: Host) -> str | None:
    """Return the revision that a decision comes from; None while there are no rules."""
    with contextlib.suppress(OSError):
        found: str | None = host.ask("POST", "/v1/objectives/ranking/resolve", b'{"context": {}}').json.get("revision")
        return found
    return None
