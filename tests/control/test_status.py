"""The status of a fleet in memory: what is live, what every server holds and why, and what is not as it should be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tidegate.bootstrap.fleet_reports import STATUS_S, FleetReports
from tidegate.bootstrap.incidents import Incidents
from tidegate.bootstrap.local_stack import LocalStack
from tidegate.control.status import FleetReport, read_status
from tidegate.errors import StackError
from tidegate.fleet.local_fleet import LocalFleet
from tidegate.ports import GatewayReport, ModelLoad
from tidegate.settings import Settings

from tests.control.plane import Plane, clock
from tests.fleet.test_fleet import running
from tests.support.virtual_time import run


async def _served(plane: Plane) -> FleetReport:
    """A fleet where `scorer/2` is live and `pipeline` was before."""
    for shard in ("a", "a", "b"):
        await plane.add(shard)
    await plane.publish(main="pipeline")
    await asyncio.sleep(30)
    await plane.publish(main="scorer/2")
    await asyncio.sleep(30)
    return await read_status(plane.process())


def test_a_fleet_that_is_well_says_what_is_loaded_where_and_for_what() -> None:
    async def work() -> None:
        plane = Plane()
        report = await _served(plane)
        assert report.healthy
        assert report.drift == ()
        assert [each.reason for each in report.revisions] == ["live", "rollback"]
        assert report.live is not None
        assert (report.live.revision, report.live.by) == (plane.live(), "ana")
        assert [each.revision for each in report.history] == [each.revision for each in report.revisions]
        assert [(shard.name, shard.replicas, len(shard.endpoints)) for shard in report.shards] == [
            ("a", 2, 2),
            ("b", 1, 1),
        ]
        models = {
            f"{each.name}/{each.version}": each.needed_by
            for shard in report.shards
            for endpoint in shard.endpoints
            for each in endpoint.models
            if each.state == "READY"
        }
        assert models == {
            "features/2": ("rollback",),
            "pipeline/1": ("rollback",),
            "scorer/1": ("rollback",),
            "scorer/2": ("live",),
        }

    run(work())


def test_what_is_missing_is_told_and_not_well() -> None:
    async def work() -> None:
        plane = Plane()
        await _served(plane)
        first = plane.launcher.running("a")[0]
        await first.repository.unload("scorer")
        report = await read_status(plane.process())
        assert not report.healthy
        assert [(each.action, each.model, each.url) for each in report.drift] == [
            ("load", "scorer", first.endpoint.url),
            ("load", "pipeline", first.endpoint.url),
        ]
        (endpoint,) = (each for each in report.shards[0].endpoints if each.url == first.endpoint.url)
        assert {(each.name, each.version) for each in endpoint.models if each.state == "UNAVAILABLE"} == {
            ("pipeline", 1),
            ("scorer", 1),
            ("scorer", 2),
        }
        assert [each.state for each in report.shards[0].endpoints] == ["ready", "ready"]

    run(work())


def test_a_server_that_does_not_answer_or_is_not_there_is_told() -> None:
    async def work() -> None:
        plane = Plane()
        await _served(plane)
        gone = plane.launcher.running("b")[0]
        gone.end()
        report = await read_status(plane.process())
        (endpoint,) = report.shards[1].endpoints
        assert (endpoint.state, report.healthy) == ("down", False)
        assert "refused the connection" in endpoint.note
        await plane.registry.deregister(gone.endpoint)
        later = await read_status(plane.process())
        assert (later.shards[1].endpoints, later.shards[1].short, later.healthy) == ((), 1, False)

    run(work())


def test_what_is_loaded_and_not_needed_is_drift_and_harms_nobody() -> None:
    async def work() -> None:
        plane = Plane()
        await _served(plane)
        server = plane.launcher.running("a")[0]
        await server.repository.load(ModelLoad("fresh", (1,)), 1.0)
        report = await read_status(plane.process())
        assert [(each.action, each.model) for each in report.drift] == [("unload", "fresh")]
        assert report.healthy

    run(work())


def test_a_publisher_at_work_and_the_gateways_are_told() -> None:
    async def work() -> None:
        plane = Plane()
        before = await _served(plane)
        assert before.live is not None
        await plane.registry.report(GatewayReport("gate", before.live.revision, clock()))
        plane.faults.held["popular"] = asyncio.Event()
        publishing = asyncio.create_task(plane.publish(by="ben", main="popular"))
        await asyncio.sleep(1)
        report = await read_status(plane.process())
        (claim,) = report.claims
        assert claim.by == "ben"
        assert [each.reason for each in report.revisions] == ["live", "trying", "rollback"]
        assert report.revisions[1].by == "ben"
        assert [(each.id, each.revision) for each in report.gateways] == [("gate", before.live.revision)]
        plane.faults.held["popular"].set()
        await publishing

    run(work())


def test_nothing_published_is_not_well_and_everything_is_json() -> None:
    async def work() -> None:
        plane = Plane()
        report = await read_status(plane.process())
        told = report.as_dict()
        assert (told["revision"], told["since"], told["healthy"], told["shards"]) == (None, None, False, [])
        full = (await _served(plane)).as_dict()
        assert full["since"] > "2023-11-14"
        assert full["shards"][0]["endpoints"][0]["models"][0]["needed_by"] == ["rollback"]

    run(work())


def test_a_stack_tells_what_a_report_found_that_came_too_late_for_whoever_asked() -> None:
    async def work() -> None:
        plane = Plane()
        await _served(plane)
        process = plane.process()

        async def slow() -> FleetReport:
            await asyncio.sleep(2 * STATUS_S)
            return await read_status(process)

        reports = FleetReports(slow)
        first = await reports.latest()
        assert (first["shards"], first["problems"]) == ([], ["the stores or a server did not answer within 2 s"])
        await asyncio.sleep(30)
        later = await reports.latest()
        assert [shard["name"] for shard in later["shards"]] == ["a", "b"]
        assert later["as_of"] in later["problems"][0]

    run(work())


def test_a_server_that_is_stopped_is_known_within_three_seconds_and_delays_no_report() -> None:
    async def work() -> None:
        plane = Plane()
        async with running(plane) as fleet:
            await plane.publish(main="pipeline", other="popular")
            await asyncio.sleep(5)
            reports = FleetReports(lambda: read_status(plane.process(), late=fleet.unanswered_s))
            await reports.latest()
            (stopped, _) = plane.launcher.running("a")
            stopped.stopped = True
            # As somebody asks just then.
            loop, began_s = asyncio.get_running_loop(), asyncio.get_running_loop().time()
            await reports.latest()
            await asyncio.sleep(began_s + 2.0 - loop.time())
            assert fleet.unanswered_s().keys() == {stopped.endpoint}
            began_s = loop.time()
            report = await reports.latest()
            assert loop.time() - began_s < 0.5
            assert report["problems"] == []
            (states,) = [
                [each["state"] for each in shard["endpoints"]] for shard in report["shards"] if shard["name"] == "a"
            ]
            assert states == ["ready", "ready"], "the registry does not know it yet"
            stopped.stopped = False
            await asyncio.sleep(3)
            assert not fleet.unanswered_s()

    run(work())


def test_who_asks_as_a_report_ends_takes_nothing_from_who_has_waited_for_it() -> None:
    async def work() -> None:
        plane = Plane()
        await _served(plane)
        process = plane.process()
        ends = asyncio.Event()

        async def read() -> FleetReport:
            report = await read_status(process)
            ends.set()
            return report

        reports = FleetReports(read)

        async def late() -> Mapping[str, Any]:
            await ends.wait()
            return await reports.latest()

        first, second = await asyncio.gather(reports.latest(), late())
        assert first["problems"] == second["problems"] == []

    run(work())


class IdleGateway:
    async def run(self) -> None:
        await asyncio.sleep(3600)


def test_a_stack_whose_servers_nobody_looks_after_any_more_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        plane = Plane()
        process = plane.process()
        fleet = LocalFleet(process, plane.launcher)
        stack = LocalStack(
            Settings(), process, fleet, tmp_path, tmp_path, has_temporary_stores=True, incidents=Incidents()
        )
        stack.gateway = IdleGateway()  # type: ignore[assignment]
        stack.serve()
        stack.supervise()
        waiting = asyncio.create_task(stack.wait())
        await asyncio.sleep(60)
        assert not waiting.done()

        async def unforeseen(_shard: str | None) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(plane.registry, "endpoints", unforeseen)
        with pytest.raises(StackError, match="the servers are not kept running any more"):
            await waiting
        await stack.stop_serving()

    run(work())
