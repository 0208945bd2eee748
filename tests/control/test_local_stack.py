"""The local fleet under rules that change, models that fail and servers that end, on servers in memory."""

from __future__ import annotations

import asyncio

import pytest
from tidegate.errors import ModelConfigError, StackError
from tidegate.ports import MemoryFaults, MemoryModel

from tests.control.fleet import MODELS, Fleet, engine
from tests.support.virtual_time import run

ONE = {"a": 1, "b": 1}
TWO = {"a": 2, "b": 1}
PIPELINE = engine(TWO, main="pipeline", other="popular")
SCORER_1 = engine(TWO, main="scorer/1")
SCORER_2 = engine(TWO, main="scorer/2")
SCORER_3 = engine(TWO, main="scorer/3")
WITH_FRESH = engine(TWO, main="[{id: us, when: {country: US}, serve: fresh}, {id: rest, serve: scorer/2}]")


def test_a_start_loads_the_closures_of_each_shard_and_nothing_else_with_steps_first() -> None:
    async def work() -> None:
        async with Fleet(PIPELINE).started() as fleet:
            assert fleet.held("a") == [{"features/2", "scorer/1", "pipeline/1"}] * 2
            assert fleet.held("b") == [{"popular/1"}]
            loaded = fleet.events("loaded", "a")
            assert loaded.index("features/2") < loaded.index("pipeline/1")
            assert loaded.index("scorer/1") < loaded.index("pipeline/1")
            status = await fleet.stack.status()
            assert {shard["name"]: shard["replicas"] for shard in status["shards"]} == TWO

    run(work())


def test_a_target_that_no_server_serves_ends_the_start_with_an_error_that_names_it() -> None:
    async def work() -> None:
        fleet = Fleet(PIPELINE)
        fleet.faults.refused["scorer"] = "the artefact is damaged"
        with pytest.raises(StackError, match=r"(?s)target 'pipeline'.*'scorer'.*the artefact is damaged"):
            async with fleet.started():
                pass

    run(work())


def test_a_shard_where_no_server_starts_ends_the_start() -> None:
    async def work() -> None:
        fleet = Fleet(PIPELINE)
        fleet.faults.shards["b"] = "no memory left"
        with pytest.raises(StackError, match=r"shard 'b' did not start: no memory left"):
            async with fleet.started():
                pass

    run(work())


@pytest.mark.parametrize("fault", ["refused", "hanging", "fatal"])
def test_a_model_that_fails_on_one_shard_is_served_by_the_next(fault: str) -> None:
    async def work() -> None:
        fleet = Fleet(engine({"a": 1, "b": 1}, main="scorer/2", other="fresh"))
        bad = MemoryFaults(**{fault: {"scorer": "no GPU"} if fault == "refused" else {"scorer"}})  # type: ignore[arg-type]
        launch = fleet.launcher.launch

        async def launch_with_fault(shard: str) -> object:
            server = await launch(shard)
            if shard == "a":
                server.repository.faults = bad
            return server

        fleet.launcher.launch = launch_with_fault  # type: ignore[method-assign, assignment]
        async with fleet.started():
            assert fleet.held("a") == [{"fresh/1"}]
            assert fleet.held("b") == [{"scorer/2"}]
            (failed,) = [
                model
                for shard in (await fleet.stack.status())["shards"]
                for endpoint in shard["endpoints"]
                for model in endpoint["models"]
                if model["state"] != "READY"
            ]
            assert (failed["name"], failed["state"]) == ("scorer", "UNAVAILABLE")
            assert failed["reason"]

    run(work())


def test_a_change_is_loaded_everywhere_before_the_swap() -> None:
    async def work() -> None:
        async with Fleet(SCORER_1).started() as fleet:
            gate = fleet.faults.held["scorer"] = asyncio.Event()
            change = asyncio.create_task(fleet.stack.apply(SCORER_2))
            await asyncio.sleep(5)
            assert fleet.stack.engines.engine() is SCORER_1
            assert fleet.broken() == []
            gate.set()
            await change
            assert fleet.stack.engines.engine() is SCORER_2
            assert fleet.held("a") == [{"scorer/1,2"}] * 2
            assert fleet.held("b") == [{"scorer/1,2"}]
            await fleet.settle()
            assert fleet.held("a") == [{"scorer/2"}] * 2

    run(work())


def test_what_requests_under_way_may_call_stays_until_they_have_ended() -> None:
    async def work() -> None:
        async with Fleet(PIPELINE).started() as fleet:
            async with fleet.request():
                await fleet.stack.apply(SCORER_3)
                await asyncio.sleep(5)
                assert fleet.held("a") == [{"features/2", "scorer/1,3", "pipeline/1"}] * 2
                assert fleet.events("unloaded") == []
            await fleet.settle()
            assert fleet.held("a") == [{"scorer/3"}] * 2
            assert fleet.held("b") == [{"scorer/3"}]
            unloaded = fleet.events("unloaded", "a")
            assert unloaded.index("pipeline/1") < unloaded.index("features/2")

    run(work())


def test_a_request_that_never_ends_holds_models_only_for_the_drain() -> None:
    async def work() -> None:
        async with Fleet(SCORER_1).started() as fleet, fleet.request():
            await fleet.stack.apply(SCORER_2)
            await fleet.settle()
            assert fleet.held("a") == [{"scorer/2"}] * 2

    run(work())


def test_two_changes_in_a_row_keep_what_requests_from_before_both_may_call() -> None:
    async def work() -> None:
        async with Fleet(SCORER_1).started() as fleet:
            async with fleet.request():
                await fleet.stack.apply(SCORER_2)
                await fleet.stack.apply(SCORER_3)
                assert fleet.held("a") == [{"scorer/1,2,3"}] * 2
            await fleet.settle()
            assert fleet.held("a") == [{"scorer/3"}] * 2

    run(work())


def test_the_second_of_two_changes_at_once_comes_after_the_first() -> None:
    async def work() -> None:
        async with Fleet(SCORER_1).started() as fleet:
            await asyncio.gather(fleet.stack.apply(SCORER_2), fleet.stack.apply(SCORER_3))
            assert fleet.stack.engines.engine() is SCORER_3
            await fleet.settle()
            assert fleet.held("a") == [{"scorer/3"}] * 2

    run(work())


def test_there_and_back_ends_where_it_began() -> None:
    async def work() -> None:
        async with Fleet(SCORER_1).started() as fleet:
            await fleet.stack.apply(PIPELINE)
            await fleet.stack.apply(SCORER_1)
            await fleet.settle()
            assert fleet.held("a") == [{"scorer/1"}] * 2
            assert fleet.held("b") == [{"scorer/1"}]
            assert len(fleet.launcher.servers) == 3

    run(work())


def test_a_model_that_is_refused_changes_nothing_and_says_why() -> None:
    async def work() -> None:
        async with Fleet(SCORER_1).started() as fleet:
            before = fleet.stack.directory.shards
            fleet.faults.refused["fresh"] = "the artefact is damaged"
            with pytest.raises(StackError, match="model 'fresh' on shard 'a': refused: the artefact is damaged"):
                await fleet.stack.apply(WITH_FRESH)
            assert fleet.stack.engines.engine() is SCORER_1
            assert fleet.stack.directory.shards == before
            assert fleet.broken() == []
            await fleet.settle()
            assert fleet.held("a") == [{"scorer/1"}] * 2
            assert fleet.held("b") == [{"scorer/1"}]
            fleet.faults.refused.clear()
            await fleet.stack.apply(WITH_FRESH)
            await fleet.settle()
            assert fleet.held("a") == [{"scorer/2", "fresh/1"}] * 2
            assert fleet.stack.directory.shards == before

    run(work())


def test_a_refusal_does_not_keep_what_an_earlier_change_left_over() -> None:
    async def work() -> None:
        async with Fleet(PIPELINE).started() as fleet:
            await fleet.stack.apply(SCORER_1)
            del fleet.catalog.models["fresh"]
            with pytest.raises(ModelConfigError, match="'fresh'"):
                await fleet.stack.apply(WITH_FRESH)
            await fleet.settle()
            assert fleet.held("a") == [{"scorer/1"}] * 2
            assert fleet.held("b") == [{"scorer/1"}]

    run(work())


def test_a_server_that_ends_after_a_refusal_is_back_at_once_with_the_live_models() -> None:
    async def work() -> None:
        async with Fleet(SCORER_1).started() as fleet, fleet.request():
            fleet.faults.refused["fresh"] = "the artefact is damaged"
            with pytest.raises(StackError):
                await fleet.stack.apply(WITH_FRESH)
            fleet.launcher.running("a")[0].end()
            await asyncio.sleep(1)
            assert len(fleet.stack.directory.endpoints("a")) == 2
            assert fleet.broken() == []

    run(work())


def test_a_server_that_ends_by_itself_is_replaced_and_returns_with_all_its_models() -> None:
    async def work() -> None:
        async with Fleet(PIPELINE).started() as fleet:
            lost = fleet.stack.directory.endpoints("a")[0]
            gate = fleet.faults.held["pipeline"] = asyncio.Event()
            fleet.launcher.server_at(lost).end()
            await asyncio.sleep(5)
            assert len(fleet.launcher.running("a")) == 2
            assert len(fleet.stack.directory.endpoints("a")) == 1
            assert lost not in fleet.stack.directory.endpoints("a")
            gate.set()
            await asyncio.sleep(1)
            assert fleet.held("a") == [{"features/2", "scorer/1", "pipeline/1"}] * 2

    run(work())


def test_a_replacement_that_cannot_load_everything_stays_out_until_it_can() -> None:
    async def work() -> None:
        async with Fleet(PIPELINE).started() as fleet:
            fleet.faults.refused["features"] = "the feature store is down"
            fleet.launcher.running("a")[0].end()
            await fleet.settle()
            assert len(fleet.stack.directory.endpoints("a")) == 1
            assert fleet.broken() == []
            fleet.faults.refused.clear()
            await fleet.settle()
            assert fleet.held("a") == [{"features/2", "scorer/1", "pipeline/1"}] * 2

    run(work())


def test_a_load_that_hangs_replaces_the_server_while_it_goes_on_serving() -> None:
    async def work() -> None:
        async with Fleet(SCORER_1).started() as fleet:
            first = fleet.stack.directory.endpoints("a")
            sizes: set[int] = set()
            fleet.faults.hanging.add("fresh")
            gate = fleet.faults.held["scorer"] = asyncio.Event()
            change = asyncio.create_task(fleet.stack.apply(WITH_FRESH))
            for _ in range(100):
                await asyncio.sleep(0)
                sizes.add(len(fleet.stack.directory.endpoints("a")))
            assert fleet.stack.directory.endpoints("a") == first
            assert fleet.broken() == []
            gate.set()
            while not change.done():
                await asyncio.sleep(0)
                sizes.add(len(fleet.stack.directory.endpoints("a")))
                assert fleet.broken() == []
            with pytest.raises(StackError, match="model 'fresh' on shard 'a': did not finish loading"):
                await change
            assert sizes == {2}
            assert not set(first) & set(fleet.stack.directory.endpoints("a"))
            await fleet.settle()
            assert fleet.held("a") == [{"scorer/1"}] * 2
            assert len(fleet.launcher.running()) == 3

    run(work())


def test_a_wedged_server_serves_on_where_its_replacement_cannot_hold_the_live_models() -> None:
    async def work() -> None:
        async with Fleet(SCORER_1).started() as fleet:
            before = fleet.stack.directory.shards
            fleet.faults.hanging.add("fresh")
            fleet.faults.refused["scorer"] = "the artefact has been overwritten"
            with pytest.raises(StackError):
                await fleet.stack.apply(engine(TWO, main="scorer/1", other="fresh"))
            assert fleet.stack.directory.shards == before
            assert fleet.broken() == []
            await fleet.settle()
            assert fleet.stack.directory.shards == before
            assert fleet.broken() == []
            assert len(fleet.launcher.running()) == 3

    run(work())


def test_shards_and_replicas_come_and_go_without_a_gap() -> None:
    placement = {"scorer": ["c", "b"]}
    wanted = engine({"b": 2, "c": 1}, placement, main="scorer/1")

    async def work() -> None:
        async with Fleet(SCORER_1).started() as fleet:
            kept = fleet.stack.directory.endpoints("b")[0]
            async with fleet.request():
                await fleet.stack.apply(wanted)
                assert fleet.held("b") == [{"scorer/1"}] * 2
                assert fleet.held("c") == [{"scorer/1"}]
                assert kept in fleet.stack.directory.endpoints("b")
                await asyncio.sleep(5)
                assert len(fleet.launcher.running("a")) == 2
                assert len(fleet.stack.directory.endpoints("a")) == 2
            await fleet.settle()
            assert fleet.launcher.running("a") == []
            assert fleet.stack.directory.endpoints("a") == ()
            await fleet.stack.apply(SCORER_1)
            await fleet.settle()
            assert {shard: len(fleet.launcher.running(shard)) for shard in "abc"} == {"a": 2, "b": 1, "c": 0}
            assert fleet.held("a") == [{"scorer/1"}] * 2

    run(work())


def test_a_new_shard_that_cannot_load_a_model_changes_nothing() -> None:
    wanted = engine({"a": 2, "b": 1, "c": 1}, {"scorer": ["a", "b"], "fresh": ["c"]}, main="scorer/1", other="fresh")

    async def work() -> None:
        async with Fleet(SCORER_1).started() as fleet:
            before = fleet.stack.directory.shards
            fleet.faults.refused["fresh"] = "no GPU"
            with pytest.raises(StackError, match=r"model 'fresh' does not load on the new shard 'c'.*no GPU"):
                await fleet.stack.apply(wanted)
            assert fleet.stack.directory.shards == before
            assert fleet.launcher.running("c") == []

    run(work())


def test_a_model_that_cannot_be_planned_is_refused_before_a_server_is_touched() -> None:
    async def work() -> None:
        async with Fleet(SCORER_1, {"scorer": MemoryModel((1,))}).started() as fleet:
            done = list(fleet.launcher.history)
            with pytest.raises(ModelConfigError, match="version 2 of 'scorer'"):
                await fleet.stack.apply(SCORER_2)
            await fleet.settle()
            assert fleet.launcher.history == done

    run(work())


def test_a_fleet_is_stopped_whatever_it_is_doing() -> None:
    async def work() -> None:
        fleet = Fleet(SCORER_1)
        async with fleet.started():
            fleet.faults.held["fresh"] = asyncio.Event()
            change = asyncio.create_task(fleet.stack.apply(WITH_FRESH))
            await asyncio.sleep(1)
            change.cancel()
            await asyncio.wait([change])
        assert fleet.stack.directory.endpoints("a") == ()

    run(work())


def test_the_models_of_this_page_can_all_be_planned() -> None:
    async def work() -> None:
        objectives = {f"o_{name}": name for name in MODELS}
        async with Fleet(engine(ONE, **objectives)).started() as fleet:
            assert fleet.broken() == []
            assert fleet.held("a") == [{"features/2", "scorer/1,3", "pipeline/1", "fresh/1"}]

    run(work())
