"""Reconciling servers in memory: what is missing is loaded, what nobody needs is unloaded, and nothing else is touched."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tidegate.control.reconcile import reconcile_fleet
from tidegate.control.status import read_status
from tidegate.errors import StoreError
from tidegate.fleet.directory import RegistryDirectory
from tidegate.fleet.probe import probe
from tidegate.ports import Endpoint, EndpointState, HttpRequest, HttpResponse, ModelLoad, RegisteredEndpoint
from tidegate.testing import MemoryFaults, MemoryModel, MemoryModelRepository, MemoryTransport

from tests.control.mortal import Hold, Interference
from tests.control.plane import Plane, clock
from tests.support.virtual_time import run

RULES = {"main": "pipeline", "other": "popular"}


async def started(models: dict[str, MemoryModel] | None = None, **rules: str) -> Plane:
    plane = Plane(models)
    for shard in ("a", "a", "b"):
        await plane.add(shard)
    await plane.publish(**(rules or RULES))
    return plane


def load(model: str, *versions: int) -> ModelLoad:
    return ModelLoad(model, versions, '{"version_policy": {"specific": {"versions": []}}}')


def test_a_server_that_came_back_empty_is_filled_and_the_others_are_left_alone() -> None:
    async def work() -> None:
        plane = await started()
        first, second, third = plane.launcher.running()
        first.repository.holds.clear()
        done = len(plane.changes())
        result = await plane.reconcile()
        assert {(each.url, each.action, each.model) for each in result.actions} == {
            (first.endpoint.url, "load", "features"),
            (first.endpoint.url, "load", "scorer"),
            (first.endpoint.url, "load", "pipeline"),
        }
        assert len(plane.changes()) == done + 3
        assert plane.broken() == []
        assert second.repository.holds and third.repository.holds
        assert (await plane.reconcile()).converged

    run(work())


def test_a_step_that_was_unloaded_by_hand_is_loaded_again_with_its_ensemble() -> None:
    async def work() -> None:
        plane = await started()
        server = plane.launcher.running("a")[0]
        await server.repository.unload("features")
        assert plane.broken() != []
        await plane.reconcile()
        assert plane.broken() == []

    run(work())


def test_what_nobody_needs_is_unloaded_ensembles_before_steps_and_versions_are_narrowed() -> None:
    async def work() -> None:
        plane = await started(main="pipeline", other="popular")
        for target in ("scorer/2", "scorer/3", "fresh", "fresh"):
            await plane.publish(main=target, other="popular")
        await plane.publish(main="features", other="popular")
        server = plane.launcher.running("a")[0]
        assert plane.held("a")[0] == {"features/2", "scorer/2,3", "fresh/1"}
        unloads = [
            each.model
            for each in plane.launcher.history
            if each.action == "unloaded" and each.endpoint == server.endpoint
        ]
        assert unloads == ["pipeline"]
        assert (await plane.reconcile()).converged

    run(work())


def test_a_whole_ensemble_goes_before_its_steps() -> None:
    async def work() -> None:
        plane = await started()
        for target in ("fresh", "popular", "features/1", "scorer/2"):
            await plane.publish(main=target if target != "popular" else "scorer/3", other="popular")
        order = [
            each.model for each in plane.launcher.history if each.action == "unloaded" and each.endpoint.shard == "a"
        ]
        assert order.index("pipeline") < len(order)
        assert "features" not in order or order.index("pipeline") < order.index("features")

    run(work())


def test_a_model_that_somebody_loaded_by_hand_is_unloaded() -> None:
    async def work() -> None:
        plane = await started()
        server = plane.launcher.running("b")[0]
        await server.repository.load(load("stray", 1), 10)
        result = await plane.reconcile()
        assert [(each.action, each.model) for each in result.actions] == [("unload", "stray")]

    run(work())


def test_a_dry_run_says_what_it_would_do_and_writes_nothing() -> None:
    async def work() -> None:
        plane = await started()
        server = plane.launcher.running("b")[0]
        await server.repository.load(load("stray", 1), 10)
        plane.launcher.running("a")[0].repository.holds.pop("pipeline")
        done = plane.changes()
        result = await plane.reconcile(dry_run=True)
        assert [(each.shard, each.action, each.model) for each in result.actions] == [
            ("a", "load", "pipeline"),
            ("b", "unload", "stray"),
        ]
        assert plane.changes() == done
        assert result.as_dict()["converged"] is False

    run(work())


def test_a_hanging_endpoint_stops_nobody_else() -> None:
    class Silent(Interference):
        async def around(self, port: str, method: str, call: object) -> object:
            if port == "endpoint":
                await asyncio.sleep(1e6)
            return await call()  # type: ignore[operator]

    async def work() -> None:
        plane = await started()
        first, second, _ = plane.launcher.running()
        first.repository.holds.clear()
        second.repository.holds.clear()
        process = plane.process()
        silent = plane.process(Silent()).ports.repository_of
        plain = process.ports.repository_of

        def of(entry: RegisteredEndpoint) -> object:
            return silent(entry) if entry.endpoint == first.endpoint else plain(entry)

        object.__setattr__(process.ports, "repository_of", of)
        began = asyncio.get_running_loop().time()
        result = await reconcile_fleet(process, "carl")
        assert asyncio.get_running_loop().time() - began < 10
        assert list(result.unreachable) == [first.endpoint.url]
        assert "did not answer within 5 s" in result.unreachable[first.endpoint.url]
        assert second.repository.ready("pipeline")

    run(work())


def test_a_load_that_is_refused_is_tried_more_and_more_rarely_and_holds_up_no_other() -> None:
    async def work() -> None:
        plane = await started()
        process = plane.process()
        for server in plane.launcher.running("a"):
            server.repository.holds.clear()
        plane.faults.refused["features"] = "the feature store is down"

        def refusals() -> int:
            return sum(each.action == "refused" for each in plane.launcher.history)

        result = await reconcile_fleet(process, "carl")
        assert {(each.model, each.error) for each in result.failed} == {
            ("features", "refused: the feature store is down"),
            ("pipeline", "its step 'features' is not loaded"),
        }
        assert all(server.repository.ready("scorer") for server in plane.launcher.running("a"))
        (waiting,) = result.waiting
        assert waiting.startswith("model 'features' on shard 'a' is tried again in ")
        tried = []
        for _ in range(60):
            before = refusals()
            await reconcile_fleet(process, "carl")
            tried.append(refusals() - before)
            await asyncio.sleep(1)
        assert 4 <= sum(1 for each in tried if each) <= 8
        plane.faults.refused.clear()
        await asyncio.sleep(60)
        assert not (await reconcile_fleet(process, "carl")).converged
        assert (await reconcile_fleet(process, "carl")).converged
        assert plane.broken() == []

    run(work())


@pytest.mark.parametrize("slow_s", [0.0, 3600.0])
def test_a_load_that_is_refused_says_what_the_models_files_show(slow_s: float) -> None:
    located = "fresh/config.pbtxt:7: error[ensemble-forbidden]: an ensemble has no instance_group"

    async def work() -> None:
        plane = await started()
        await plane.publish(main="fresh")
        for server in plane.launcher.running("a"):
            server.repository.holds.clear()
        plane.faults.refused["fresh"] = "failed to poll from model repository"
        plane.findings["fresh"] = [located]
        plane.diagnosis_s = slow_s
        began = clock()
        result = await plane.reconcile()
        more = "" if slow_s else f"; {located}"
        assert {each.error for each in result.failed} == {f"refused: failed to poll from model repository{more}"}
        assert clock() - began < 60

    run(work())


def test_a_load_that_hangs_wedges_its_endpoint_which_is_left_alone_from_then_on() -> None:
    async def work() -> None:
        plane = await started()
        first, second, _ = plane.launcher.running()
        first.repository.holds.clear()
        first.repository.faults = MemoryFaults(hanging={"scorer"})
        await plane.reconcile()
        states = {entry.endpoint: entry for entry in await plane.registry.endpoints()}
        assert states[first.endpoint].state == "wedged"
        assert "the load of 'scorer' hangs" in states[first.endpoint].note
        assert states[second.endpoint].state == "ready"
        assert (await plane.reconcile()).endpoints == 2

    run(work())


def test_an_endpoint_that_is_not_trusted_is_reported_and_sent_nothing() -> None:
    async def work() -> None:
        plane = await started()
        trusted = [server.endpoint for server in plane.launcher.running("a")]
        stranger = await plane.add("a")
        plane.registry.refused[stranger.endpoint] = "outside the networks"
        plane.golden.asked.clear()
        sent: list[Endpoint] = []
        repository = plane.repository

        def recorded(entry: RegisteredEndpoint) -> MemoryModelRepository:
            sent.append(entry.endpoint)
            return repository(entry)

        async def answer(endpoint: Endpoint, _: HttpRequest) -> HttpResponse:
            sent.append(endpoint)
            return HttpResponse(200, (), b"")

        plane.repository = recorded  # type: ignore[method-assign]
        await plane.publish(main="fresh", other="popular")
        await plane.roll_back()
        assert (await plane.reconcile()).refused == ("outside the networks",)
        report = await read_status(plane.process())
        shown = {each.url: each.state for shard in report.shards for each in shard.endpoints}
        assert shown[stranger.endpoint.url] == "refused"
        assert "outside the networks" in report.problems
        directory = RegistryDirectory(plane.registry)
        await directory.refresh()
        assert (list(directory.endpoints("a")), directory.state(stranger.endpoint)) == (trusted, None)
        await probe(plane.registry, MemoryTransport(answer), 0.1)
        sent += [endpoint for endpoint, _ in plane.golden.asked]
        assert set(sent) == {server.endpoint for server in plane.launcher.running() if server is not stranger}

    run(work())


def test_nothing_is_unloaded_while_not_all_that_must_stay_can_be_read() -> None:
    async def work() -> None:
        plane = await started(main="scorer/1", other="popular")
        await plane.publish(main="scorer/2", other="popular")
        first = plane.bundles.history[0].revision
        plane.bundles.faults.damaged.add(first)
        server = plane.launcher.running("b")[0]
        await server.repository.load(load("stray", 1), 10)
        server.repository.holds.pop("popular")
        result = await plane.reconcile()
        assert [(each.action, each.model) for each in result.actions] == [("load", "popular")]
        (problem,) = result.problems
        assert first[:12] in problem
        assert plane.held("a") == [{"scorer/1,2"}] * 2
        assert "stray" in server.repository.holds

    run(work())


def test_a_store_that_does_not_answer_changes_nothing() -> None:
    async def work() -> None:
        plane = await started()
        plane.launcher.running("a")[0].repository.holds.clear()
        done = plane.changes()
        for method in ("claims", "pointer", "claim"):
            plane.bundles.faults.failing[method] = "down"
            with pytest.raises(StoreError):
                await plane.reconcile()
            plane.bundles.faults.failing.clear()
        assert plane.changes() == done
        await plane.reconcile()
        assert plane.broken() == []

    run(work())


def test_a_repairer_makes_way_for_a_publisher_that_it_does_not_know_of() -> None:
    async def work() -> None:
        plane = await started()
        for server in plane.launcher.running("a"):
            server.repository.holds.clear()
        hold = Hold("endpoint", "load")
        repair = asyncio.create_task(reconcile_fleet(plane.process(hold), "carl"))
        await hold.held.wait()
        publish = asyncio.create_task(plane.publish(main="fresh", other="popular"))
        await asyncio.sleep(5)
        assert not publish.done()
        hold.go.set()
        await asyncio.gather(repair, publish)
        marks = [event.text for event in plane.events if "carl (repairing" in event.text]
        assert len(marks) == 1
        assert plane.broken() == []
        assert (await plane.reconcile()).converged

    run(work())


def test_many_reconcilers_at_once_do_no_harm() -> None:
    async def work() -> None:
        plane = await started()
        for server in plane.launcher.running():
            server.repository.holds.clear()
        await asyncio.gather(*(plane.reconcile() for _ in range(5)))
        assert plane.broken() == []
        assert (await plane.reconcile()).converged

    run(work())


def test_an_endpoint_that_is_not_ready_is_left_to_whoever_fills_it() -> None:
    async def work() -> None:
        plane = await started()
        server = await plane.add("a", EndpointState.LOADING)
        assert (await plane.reconcile()).converged
        (entry,) = (each for each in await plane.registry.endpoints() if each.state == "loading")
        await plane.registry.register(replace(entry, state="ready"))
        await plane.reconcile()
        assert server.repository.ready("pipeline")

    run(work())
