"""A status says what of the live revision is lost or answers nothing, also where the process remembers how it was."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tidegate.control.inspection import EVERY_S, FOUND_S, MOST_ASKED, WAIT_S
from tidegate.control.plane import ControlPlane
from tidegate.control.status import FleetReport, read_status
from tidegate.ports import Endpoint, GoldenOutcome, GoldenResult, SelfTestState
from tidegate.rules import Target

from tests.control.plane import Plane, clock
from tests.support.virtual_time import run


async def healthy(plane: Plane) -> ControlPlane:
    """A fleet with nothing wrong, and a process that has seen it."""
    for shard in ("a", "a", "b"):
        await plane.add(shard)
    await plane.publish(main="pipeline", other="popular")
    process = plane.process()
    report = await read_status(process)
    assert report.healthy, report.problems
    assert report.inspected_at == clock()
    await asyncio.sleep(EVERY_S)
    return process


async def problem(process: ControlPlane) -> str:
    report: FleetReport = await read_status(process)
    assert not report.healthy
    (found,) = report.problems
    return found


def test_a_damaged_bundle_is_told_by_who_remembers_it() -> None:
    async def work() -> None:
        plane = Plane()
        process = await healthy(plane)
        plane.bundles.bundles[plane.live()] += b"x"
        assert "publish them again" in await problem(process)
        await plane.publish(process, main="pipeline", other="popular")
        await asyncio.sleep(FOUND_S)
        assert (await read_status(process)).healthy, "what was found is looked at again soon"

    run(work())


def test_an_assignment_that_is_lost_is_told_by_who_remembers_it() -> None:
    async def work() -> None:
        plane = Plane()
        process = await healthy(plane)
        plane.bundles.assignments.clear()
        assert "publish them again" in await problem(process)

    run(work())


def test_a_manifest_that_is_lost_is_told_with_its_model() -> None:
    async def work() -> None:
        plane = Plane()
        process = await healthy(plane)
        del plane.models.units["popular", 1]
        text = await problem(process)
        assert "popular/1" in text
        assert "tidegate models push" in text

    run(work())


def test_a_table_of_facts_that_is_lost_is_told_where_a_model_looks_facts_up() -> None:
    async def work() -> None:
        plane = Plane()

        async def damage() -> str:
            return "there is no table 'facts'"

        process = await healthy(plane)
        process = ControlPlane(replace(process.ports, facts_damage=damage), plane.config)
        assert (await read_status(process)).healthy, "no model declares facts"
        plane.models.contents["popular", "config.pbtxt"] = b'parameters { key: "facts" value { string_value: "x" } }'
        process = ControlPlane(replace(process.ports, facts_damage=damage), plane.config)
        text = await problem(process)
        assert "no table 'facts'" in text
        assert "popular" in text

    run(work())


def test_a_model_that_answers_nothing_is_told_with_each_server_until_it_does() -> None:
    async def work() -> None:
        plane = Plane()
        process = await healthy(plane)
        plane.golden.wrong["pipeline"] = "the stub has ended"
        report = await read_status(process)
        assert not report.healthy
        urls = [server.endpoint.url for server in plane.launcher.running("a")]
        assert len(report.problems) == len(urls)
        for text, url in zip(sorted(report.problems), sorted(urls), strict=True):
            assert "pipeline" in text
            assert url in text
            assert "the stub has ended" in text
        asked = len(plane.golden.asked)
        assert (await read_status(process)).problems == report.problems
        assert len(plane.golden.asked) == asked, "what is wrong is not asked for by each status"
        plane.golden.wrong.clear()
        await asyncio.sleep(FOUND_S)
        assert (await read_status(process)).healthy

    run(work())


def test_a_model_that_hangs_when_asked_is_told_with_its_server() -> None:
    async def work() -> None:
        plane = Plane()
        process = await healthy(plane)
        plane.golden.hanging = {"popular"}
        text = await problem(process)
        assert "popular" in text
        assert "of shard 'b' does not answer as it must" in text

    run(work())


def test_models_are_asked_seldom() -> None:
    async def work() -> None:
        plane = Plane()
        process = await healthy(plane)
        await read_status(process)
        asked = len(plane.golden.asked)
        for _ in range(5):
            assert (await read_status(process)).healthy
        assert len(plane.golden.asked) == asked
        assert asked < MOST_ASKED

    run(work())


def test_a_look_that_takes_long_holds_no_status_up() -> None:
    async def work() -> None:
        plane = Plane()
        process = await healthy(plane)
        plane.models.faults.held["models"] = asyncio.Event()
        began = clock()
        report = await read_status(process)
        assert clock() - began <= WAIT_S
        assert report.inspected_at is not None
        assert report.inspected_at < began
        plane.models.faults.held["models"].set()
        await asyncio.sleep(1)
        assert (await read_status(process)).healthy

    run(work())


def test_a_wrong_golden_request_is_told_though_no_server_fails_for_it() -> None:
    class Changed:
        async def ask(self, _endpoint: Endpoint, _target: Target) -> GoldenResult:
            return GoldenResult(GoldenOutcome.WRONG, SelfTestState.UNTESTED, "differs from what is expected")

    async def work() -> None:
        plane = Plane()
        process = await healthy(plane)
        report = await read_status(ControlPlane(replace(process.ports, golden=Changed()), plane.config))
        assert not report.healthy
        assert all("does not answer as it must: differs" in each for each in report.problems)

    run(work())


class Slow:
    """`GoldenRequests` that take 25 s; the first version of `scorer` answers wrongly."""

    def __init__(self) -> None:
        self.asked = 0

    async def ask(self, _endpoint: Endpoint, target: Target) -> GoldenResult:
        self.asked += 1
        await asyncio.sleep(25)
        if (target.model, target.version) == ("scorer", 1):
            return GoldenResult(GoldenOutcome.WRONG, SelfTestState.FAILED, "it is the first")
        return GoldenResult(GoldenOutcome.PROVED, SelfTestState.PASSED)


async def slowly_asked(plane: Plane, **rules: str) -> tuple[Slow, ControlPlane]:
    """A fleet that serves some rules, and a process whose looks take 25 s."""
    for shard in ("a", "a", "b"):
        await plane.add(shard)
    await plane.publish(**rules)
    slow = Slow()
    return slow, ControlPlane(replace(plane.ports(), golden=slow), plane.config)


def test_a_model_that_is_slow_is_well_and_what_a_long_look_found_is_kept() -> None:
    async def work() -> None:
        slow, process = await slowly_asked(Plane(), main="scorer/2", other="popular")
        began = clock()
        assert (await read_status(process)).inspected_at is None
        await asyncio.sleep(30)
        asked = slow.asked
        report = await read_status(process)
        assert report.healthy, report.problems
        assert report.inspected_at == began
        assert slow.asked == asked, "it was found a moment ago"

    run(work())


def test_what_was_wrong_with_the_revision_before_is_not_said_of_the_next() -> None:
    async def work() -> None:
        plane = Plane()
        _, process = await slowly_asked(plane, main="scorer/1", other="popular")
        await read_status(process)
        await plane.publish(main="scorer/2", other="popular")
        report = await read_status(process, inspection_s=60)
        assert report.inspected_at is not None
        assert report.problems == ()
        await plane.publish(main="scorer/1", other="popular")
        assert "it is the first" in (await read_status(process, inspection_s=60)).problems[0]

    run(work())
