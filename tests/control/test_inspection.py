"""A status says what of the live revision is lost or answers nothing, also where the process remembers how it was."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tidegate.control.inspection import EVERY_S, MOST_ASKED, WAIT_S
from tidegate.control.plane import ControlPlane
from tidegate.control.status import FleetReport

from tests.control.plane import Plane, clock
from tests.support.virtual_time import run


async def healthy(plane: Plane) -> ControlPlane:
    """A fleet with nothing wrong, and a process that has seen it."""
    for shard in ("a", "a", "b"):
        await plane.add(shard)
    await plane.publish(main="pipeline", other="popular")
    process = plane.process()
    report = await process.status.read()
    assert report.well, report.problems
    assert report.inspected_at == clock()
    await asyncio.sleep(EVERY_S)
    return process


async def problem(process: ControlPlane) -> str:
    report: FleetReport = await process.status.read()
    assert not report.well
    (found,) = report.problems
    return found


def test_a_damaged_bundle_is_told_by_who_remembers_it() -> None:
    async def work() -> None:
        plane = Plane()
        process = await healthy(plane)
        plane.bundles.bundles[plane.live()] += b"x"
        assert "publish them again" in await problem(process)
        await plane.publish(process, main="pipeline", other="popular")
        assert (await process.status.read()).well, "what was found is looked at again at once"

    run(work())


def test_an_assignment_that_is_lost_is_told_by_who_remembers_it() -> None:
    async def work() -> None:
        plane = Plane()
        process = await healthy(plane)
        plane.bundles._assignments.clear()
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
        assert (await process.status.read()).well, "no model declares facts"
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
        report = await process.status.read()
        assert not report.well
        urls = [server.endpoint.url for server in plane.launcher.running("a")]
        assert len(report.problems) == len(urls)
        for text, url in zip(sorted(report.problems), sorted(urls), strict=True):
            assert "pipeline" in text
            assert url in text
            assert "the stub has ended" in text
        plane.golden.wrong.clear()
        assert (await process.status.read()).well

    run(work())


def test_models_are_asked_seldom() -> None:
    async def work() -> None:
        plane = Plane()
        process = await healthy(plane)
        await process.status.read()
        asked = len(plane.golden.asked)
        for _ in range(5):
            assert (await process.status.read()).well
        assert len(plane.golden.asked) == asked
        assert asked < MOST_ASKED

    run(work())


def test_a_look_that_takes_long_holds_no_status_up() -> None:
    async def work() -> None:
        plane = Plane()
        process = await healthy(plane)
        plane.models.faults.held["models"] = asyncio.Event()
        began = clock()
        report = await process.status.read()
        assert clock() - began <= WAIT_S
        assert report.inspected_at is not None
        assert report.inspected_at < began
        plane.models.faults.held["models"].set()
        await asyncio.sleep(1)
        assert (await process.status.read()).well

    run(work())
