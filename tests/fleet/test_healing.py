"""A model that does not answer on one server is reloaded there, exactly, and more and more rarely where that does not help."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from tidegate.fleet.healing import ASKS, LONGEST_BACKOFF_S, LONGEST_HELPED_S, MOST_LEFT
from tidegate.fleet.local_fleet import LocalFleet
from tidegate.fleet.reloading import owners
from tidegate.ports import Endpoint, GoldenOutcome, GoldenResult, ModelLoad, SelfTestState, Suspect, SuspectKind
from tidegate.rules import Target
from tidegate.testing import FleetEvent, MemoryGoldenRequests

from tests.control.plane import Plane
from tests.fleet.test_fleet import running
from tests.support.virtual_time import run

DEAD, HUNG = SuspectKind.DEAD_STUB, SuspectKind.HUNG


class Patients(MemoryGoldenRequests):
    """Golden requests of models of which some are dead or hung on a server until they are loaded again there.

    Attributes:
        dead: the models, with their targets (`model/version`) that answer by it, and the first instance.
        incurable: models that are as dead after a load as before.
        stuck: models that do not answer.
    """

    def __init__(self, plane: Plane) -> None:
        super().__init__()
        self.plane = plane
        self.dead: dict[str, set[str]] = {}
        self.incurable: set[str] = set()
        self.stuck: set[str] = set()
        self.turns: dict[str, int] = {}

    async def ask(self, endpoint: Endpoint, target: Target) -> GoldenResult:
        self.asked.append((endpoint, target.name))
        await asyncio.sleep(0.1)
        if target.model in self.stuck:
            await asyncio.sleep(3600)
        for model, through in self.dead.items():
            if target.name in through and self.turns.get(model, 0) > 0:
                self.turns[model] -= 1
            elif target.name in through:
                reason = f"Stub process '{model}_0_0' is not healthy."
                return GoldenResult(GoldenOutcome.WRONG, SelfTestState.FAILED, reason, ended=f"{model}_0_0")
        return GoldenResult(GoldenOutcome.PROVED, SelfTestState.PASSED)

    def heed(self, event: FleetEvent) -> None:
        """A model that is loaded is well again."""
        if event.action == "loaded" and event.model not in self.incurable:
            self.dead.pop(event.model, None)
            self.stuck.discard(event.model)


class Ward:
    """A fleet that serves `pipeline` from shard a and two versions of `scorer` from b, whose models fall ill."""

    def __init__(self) -> None:
        self.plane = Plane()
        self.patients = self.plane.golden = Patients(self.plane)
        self.context = running(self.plane)
        self.fleet: LocalFleet

    async def __aenter__(self) -> Ward:
        self.fleet = await self.context.__aenter__()
        await self.plane.publish(
            main="pipeline", other="scorer/1", third="scorer/2", placement={"pipeline": ["a"], "scorer": ["b"]}
        )
        await asyncio.sleep(5)
        history = self.plane.launcher.history
        self.begin = len(history)
        append = history.append

        def heed(event: FleetEvent) -> None:
            self.patients.heed(event)
            append(event)

        history.append = heed  # type: ignore[method-assign]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.context.__aexit__(None, None, None)

    def endpoint(self, shard: str) -> Endpoint:
        return self.plane.launcher.running(shard)[0].endpoint

    def suspect(self, model: str, kind: SuspectKind = DEAD, shard: str = "a") -> None:
        self.fleet.healer.suspect(Suspect(self.endpoint(shard), model, kind))

    def done(self, shard: str = "a") -> list[tuple[str, str, tuple[int, ...]]]:
        """What the first server of a shard has loaded and unloaded since."""
        place = self.endpoint(shard)
        events = self.plane.launcher.history[self.begin :]
        return [(each.action, each.model, each.versions) for each in events if each.endpoint == place]


def test_of_an_ensemble_the_step_whose_process_ended_is_reloaded_and_nothing_else() -> None:
    async def work() -> None:
        async with Ward() as ward:
            ward.patients.dead["features"] = {"pipeline/1"}
            ward.suspect("pipeline")
            await asyncio.sleep(3)
            assert ward.done() == [("unloaded", "features", (2,)), ("loaded", "features", (2,))]
            assert ward.plane.held("a") == [{"features/2", "scorer/1", "pipeline/1"}] * 2
            (found,) = ward.fleet.healer.reloads()
            assert (found.model, found.count, found.failing) == ("features", 1, None)

    run(work())


def test_another_version_of_the_model_serves_all_the_while() -> None:
    async def work() -> None:
        async with Ward() as ward:
            ward.patients.dead["scorer"] = {"scorer/2"}
            ward.suspect("scorer", shard="b")
            await asyncio.sleep(3)
            assert ward.done("b") == [("loaded", "scorer", (1,)), ("loaded", "scorer", (1, 2))]

    run(work())


def test_one_of_several_instances_is_found_by_asking_again() -> None:
    async def work() -> None:
        async with Ward() as ward:
            ward.patients.dead["features"] = {"pipeline/1"}
            ward.patients.turns["features"] = ASKS - 1
            ward.suspect("pipeline")
            await asyncio.sleep(3)
            assert [each.model for each in ward.fleet.healer.reloads()] == ["features"]

    run(work())


def test_a_suspicion_that_shows_nothing_changes_nothing() -> None:
    async def work() -> None:
        async with Ward() as ward:
            for model, kind in [("pipeline", DEAD), ("pipeline", HUNG), ("features", HUNG), ("unknown", DEAD)]:
                ward.suspect(model, kind)
            ward.fleet.healer.suspect(Suspect(Endpoint("a", "elsewhere", 1), "pipeline", DEAD))
            await asyncio.sleep(60)
            assert ward.done() == []
            assert ward.fleet.healer.reloads() == ()

    run(work())


def test_suspicions_of_all_callers_of_a_step_are_one_reload() -> None:
    async def work() -> None:
        async with Ward() as ward:
            ward.patients.dead["features"] = {"pipeline/1", "features/2"}
            for _ in range(3):
                ward.suspect("pipeline")
                ward.suspect("features")
            await asyncio.sleep(5)
            assert ward.done() == [("unloaded", "features", (2,)), ("loaded", "features", (2,))]

    run(work())


@pytest.mark.parametrize(("incurable", "longest_s"), [(True, LONGEST_BACKOFF_S), (False, LONGEST_HELPED_S)])
def test_the_same_model_is_reloaded_more_and_more_rarely(incurable: bool, longest_s: float) -> None:
    async def work() -> list[float]:
        async with Ward() as ward:
            ward.patients.incurable |= {"features"} if incurable else set()
            times: list[float] = []
            for count in range(9):
                ward.patients.dead["features"] = {"pipeline/1"}
                while sum(each.count for each in ward.fleet.healer.reloads()) == count:
                    ward.suspect("pipeline")
                    await asyncio.sleep(0.1)
                times.append(asyncio.get_running_loop().time())
                await asyncio.sleep(0.5)
            (found,) = ward.fleet.healer.reloads()
            assert found.failing == ("pipeline/1 ended it again" if incurable else None)
            return [later - earlier for earlier, later in itertools.pairwise(times)]

    gaps = run(work())
    assert gaps == pytest.approx(sorted(gaps), abs=1.0)
    assert gaps[0] < 4
    assert gaps[-1] == pytest.approx(longest_s, abs=2.0)


def test_a_model_that_hangs_is_reloaded_and_one_that_is_only_busy_is_not() -> None:
    async def work() -> None:
        async with Ward() as ward:
            ward.patients.stuck |= {"features", "pipeline"}
            repository = ward.plane.launcher.server_at(ward.endpoint("a")).repository
            ward.suspect("pipeline", HUNG)
            for _ in range(80):
                repository.done["features"] = repository.done.get("features", 0) + 1
                repository.done["scorer"] = repository.done.get("scorer", 0) + 1
                await asyncio.sleep(1)
            assert ward.done() == [], "it finishes requests"
            ward.suspect("pipeline", HUNG)
            await asyncio.sleep(80)
            assert ward.done() == [("unloaded", "features", (2,)), ("loaded", "features", (2,))]
            assert [each.reason for each in ward.fleet.healer.reloads()] == ["it did not answer"]

    run(work())


def test_a_server_where_models_hang_again_and_again_is_replaced() -> None:
    async def work() -> None:
        async with Ward() as ward:
            before = ward.endpoint("a")
            for _ in range(MOST_LEFT):
                ward.patients.stuck |= {"features", "pipeline"}
                ward.suspect("pipeline", HUNG)
                await asyncio.sleep(35)
                ward.patients.stuck.discard("pipeline")
                await asyncio.sleep(65)
            assert before not in ward.fleet.directory.endpoints("a")
            assert len(ward.fleet.directory.endpoints("a")) == 2

    run(work())


def test_a_reload_that_hangs_costs_the_server_and_one_that_is_refused_is_tried_again_by_the_reconciler() -> None:
    async def work() -> None:
        async with Ward() as ward:
            ward.patients.dead["features"] = {"pipeline/1"}
            ward.plane.faults.refused["features"] = "the bucket is gone"
            ward.suspect("pipeline")
            await asyncio.sleep(3)
            (found,) = ward.fleet.healer.reloads()
            assert "the bucket is gone" in found.failing
            ward.plane.faults.refused.clear()
            await asyncio.sleep(60)
            assert ward.plane.held("a") == [{"features/2", "scorer/1", "pipeline/1"}] * 2
            before = ward.endpoint("a")
            ward.patients.dead["features"] = {"pipeline/1"}
            ward.plane.faults.hanging.add("features")
            ward.suspect("pipeline")
            await asyncio.sleep(3)
            ward.plane.faults.hanging.clear()
            await asyncio.sleep(60)
            assert before not in ward.fleet.directory.endpoints("a")

    run(work())


def test_a_model_is_said_to_answer_again_only_once_it_does() -> None:
    async def work() -> None:
        async with Ward() as ward:
            ward.patients.dead["features"] = {"pipeline/1"}
            held = ward.plane.faults.held["features"] = asyncio.Event()
            ward.suspect("pipeline")
            await asyncio.sleep(3)
            assert [each.failing for each in ward.fleet.healer.reloads()] == ["it is being loaded"]
            held.set()
            await asyncio.sleep(3)
            assert [each.failing for each in ward.fleet.healer.reloads()] == [None]

    run(work())


def test_a_model_that_could_not_even_be_unloaded_is_not_said_to_answer_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with Ward() as ward:

            async def never(_model: str) -> None:
                await asyncio.sleep(3600)

            monkeypatch.setattr(ward.plane.launcher.server_at(ward.endpoint("a")).repository, "unload", never)
            ward.patients.dead["features"] = {"pipeline/1"}
            ward.suspect("pipeline")
            await asyncio.sleep(20)
            assert ["was not unloaded within" in each.failing for each in ward.fleet.healer.reloads()] == [True]

    run(work())


def test_a_version_that_is_published_while_another_is_healed_is_there_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work() -> None:
        async with Ward() as ward:
            repository = ward.plane.launcher.server_at(ward.endpoint("a")).repository
            unload = repository.unload

            async def publish_and_unload(model: str) -> None:
                await unload(model)
                await ward.plane.publish(
                    main="pipeline",
                    other="scorer/1",
                    third="scorer/2",
                    fourth="features/1",
                    placement={"pipeline": ["a"], "features": ["a"], "scorer": ["b"]},
                )

            monkeypatch.setattr(repository, "unload", publish_and_unload)
            ward.patients.dead["features"] = {"pipeline/1"}
            ward.suspect("pipeline")
            while not (found := ward.fleet.healer.reloads()) or found[0].failing:
                await asyncio.sleep(0.01)
            assert all("features/1,2" in held for held in ward.plane.held("a")), ward.plane.held("a")

    run(work())


@pytest.mark.parametrize(
    ("instance", "found"),
    [
        ("plain_0", ["plain"]),
        ("plain_0_1", ["plain"]),
        ("grouped_0_0", []),
        ("cpu_3", ["grouped"]),
        ("grouped_1_0", ["grouped"]),
        ("ensemble_0_0", []),
        ("other_0_0", []),
        ("", []),
    ],
)
def test_an_instance_is_of_the_model_that_has_its_group(instance: str, found: list[str]) -> None:
    groups = json.dumps({"instance_group": [{"name": "cpu", "count": 4}, {"count": 1}]})
    members = (
        ModelLoad("plain", (1,), "{}"),
        ModelLoad("grouped", (1,), groups),
        ModelLoad("ensemble", (1,), "{}", ("plain", "grouped")),
    )
    assert [load.model for load in owners(instance, members)] == found
