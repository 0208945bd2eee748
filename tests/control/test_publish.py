"""Publishing on servers in memory: what is live stays untouched until everything that the new rules can reach is READY."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tidegate.bootstrap.rules_sources import GivenRules
from tidegate.control.config import ControlConfig
from tidegate.control.publish import PublishRequest, publish_rules
from tidegate.errors import Finding, ImmutableError, ModelLoadError, PublishError, RulesError, TidegateError
from tidegate.ports import GatewayReport, ModelLoad
from tidegate.ports.sources import CheckedRules
from tidegate.rules import load_bundle
from tidegate.testing import MemoryFaults, MemoryModel

from tests.control.plane import MODELS, Plane, clock
from tests.control.rules import bundle
from tests.support.virtual_time import run

OPEN = {**MODELS, "loose": MemoryModel((1,), ("scorer",))}


async def started(models: dict[str, MemoryModel] | None = None) -> Plane:
    plane = Plane(models)
    for shard in ("a", "a", "b"):
        await plane.add(shard)
    return plane


def test_a_publish_loads_the_closures_everywhere_flips_and_says_each_step() -> None:
    async def work() -> None:
        plane = await started()
        result = await plane.publish(main="pipeline", other="popular")
        assert result.status == "published"
        assert plane.live() == result.revision
        assert plane.held("a") == [{"features/2", "scorer/1", "pipeline/1"}] * 2
        assert plane.held("b") == [{"popular/1"}]
        assert plane.steps() == [
            "check done", "test done", "assign done", "push done", "claim done", "try skipped", "load done", "validate done", "flip done",
            "confirm done", "drain skipped", "unload done",
        ]  # fmt: skip
        assert await plane.bundles.claims() == []
        (entry,) = plane.bundles.history
        assert (entry.by, entry.action, entry.sequence) == ("ana", "publish", 1)

    run(work())


def test_every_target_gets_a_version_and_a_later_push_changes_nothing_live() -> None:
    async def work() -> None:
        plane = await started()
        result = await plane.publish(main="scorer", other="scorer/1")
        targets = {each.name: each.version for each in load_bundle(plane.bundles.bundles[result.revision]).targets()}
        assert targets == {"scorer": 3, "scorer/1": 1}
        plane.catalog.models["scorer"] = MemoryModel((1, 2, 3, 4))
        assert (await plane.reconcile()).converged
        assert plane.held("b") == [{"scorer/1,3"}]
        again = await plane.publish(main="scorer", other="scorer/1")
        assert again.revision != result.revision
        assert plane.held("b") == [{"scorer/1,3,4"}]
        first, second = result.as_dict(), again.as_dict()
        assert (first["revision"], first["resolution"]) != (second["revision"], second["resolution"])
        assert first["revision"] == second["revision"], "the files are the same"
        assert any("resolve to other versions" in event.text for event in plane.events if event.step == "assign")

    run(work())


def test_an_open_step_is_pinned_told_and_stays_while_it_is_in_use() -> None:
    async def work() -> None:
        plane = await started(OPEN)
        rules = {"main": "loose"}
        result = await plane.publish(placement={"loose": ["a"]}, **rules)
        assert any("'loose' leaves the version of step 'scorer' open; it gets 3" in note for note in result.notes)
        plane.catalog.models["scorer"] = MemoryModel((1, 2, 3, 4))
        again = await plane.publish(placement={"loose": ["a"]}, **rules)
        assert again.status == "unchanged"
        other = await plane.publish(placement={"loose": ["a"]}, main="loose", other="popular")
        assert other.status == "published"
        assert plane.held("a") == [{"scorer/3", "loose/1"}] * 2

    run(work())


def test_the_same_rules_again_are_a_cheap_success() -> None:
    async def work() -> None:
        plane = await started()
        first = await plane.publish(main="scorer/1")
        plane.events.clear()
        again = await plane.publish(main="scorer/1")
        assert (again.status, again.revision, again.activated) == ("unchanged", first.revision, None)
        assert plane.steps() == ["check done", "test done", "assign done", "push done"]
        assert len(plane.bundles.history) == 1

    run(work())


def test_a_dry_run_plans_and_writes_nothing() -> None:
    async def work() -> None:
        plane = await started()
        await plane.publish(main="scorer/1")
        done, bundles = plane.changes(), dict(plane.bundles.bundles)
        result = await plane.publish(main="scorer/2", other="fresh", dry_run=True)
        assert result.status == "planned"
        assert result.outlook.loads == {"a": ("fresh/1", "scorer/2"), "b": ("scorer/2",)}
        assert result.outlook.unloads == {}
        assert [(each.kind, each.subject, each.name) for each in result.outlook.changes] == [
            ("changed", "rule", "default"),
            ("added", "objective", "other"),
        ]
        assert (plane.changes(), plane.bundles.bundles) == (done, bundles)
        published = await plane.publish(main="scorer/2", other="fresh")
        assert published.revision == result.revision

    run(work())


def test_a_dry_run_says_what_leaves_with_the_last_revision_that_is_kept() -> None:
    async def work() -> None:
        plane = Plane(config=ControlConfig(keep_revisions=1))
        for shard in ("a", "b"):
            await plane.add(shard)
        for target in ("pipeline", "scorer/2"):
            await plane.publish(main=target)
            await asyncio.sleep(60)
        result = await plane.publish(main="fresh", dry_run=True)
        assert result.outlook.loads == {"a": ("fresh/1",)}
        assert result.outlook.unloads == {"a": ("features/2", "pipeline/1", "scorer/1")}
        back = await plane.publish(main="pipeline", dry_run=True)
        assert (back.outlook.loads, back.outlook.unloads) == ({}, {})
        assert plane.held("a") == [{"features/2", "pipeline/1", "scorer/1,2"}]
        await plane.publish(main="fresh")
        assert plane.held("a") == [{"scorer/2", "fresh/1"}]

    run(work())


def test_golden_requests_are_asked_of_what_is_new_on_every_endpoint() -> None:
    async def work() -> None:
        plane = await started()
        await plane.publish(main="scorer/1", other="popular")
        plane.golden.asked.clear()
        await plane.publish(main="scorer/2", other="popular")
        asked = [(endpoint.shard, target) for endpoint, target in plane.golden.asked]
        assert sorted(asked) == [("a", "scorer/2"), ("a", "scorer/2"), ("b", "scorer/2")]

    run(work())


@pytest.mark.parametrize("fault", ["refused", "hanging", "fatal"])
def test_a_model_that_fails_leaves_live_untouched_and_costs_one_server_at_most(fault: str) -> None:
    async def work() -> None:
        plane = await started()
        first = await plane.publish(main="scorer/1")
        setattr(plane.faults, fault, {"fresh": "no GPU"} if fault == "refused" else {"fresh"})
        with pytest.raises(PublishError) as failure:
            await plane.publish(main="fresh", other="scorer/2")
        assert failure.value.step == "try"
        assert "'fresh'" in str(failure.value)
        assert plane.live() == first.revision
        assert await plane.bundles.claims() == []
        healthy = [held for held in plane.held("a") if "fresh/1" not in held]
        assert {"scorer/1"} in healthy
        wedged = [entry for entry in await plane.registry.endpoints() if entry.state == "wedged"]
        assert len(wedged) == (fault == "hanging")
        assert len(plane.launcher.running("a")) == (1 if fault == "fatal" else 2)
        assert plane.violations == []

    run(work())


def test_a_wrong_answer_leaves_live_untouched_and_unloads_what_was_loaded() -> None:
    async def work() -> None:
        plane = await started()
        first = await plane.publish(main="scorer/1")
        plane.golden.wrong["fresh"] = "output SCORES has 1 row for 2"
        with pytest.raises(PublishError, match=r"target 'fresh' on .*: output SCORES has 1 row for 2") as failure:
            await plane.publish(main="fresh")
        assert failure.value.step == "try"
        assert plane.live() == first.revision
        assert plane.held("a") == [{"scorer/1"}] * 2
        assert (await plane.reconcile()).converged

    run(work())


def test_a_load_that_is_refused_says_what_the_models_files_show() -> None:
    async def work() -> None:
        plane = await started()
        plane.faults.refused = {"fresh": "failed to poll from model repository"}
        plane.findings["fresh"] = ["fresh/config.pbtxt:7: error[ensemble-forbidden]: an ensemble has no instance_group"]
        with pytest.raises(
            PublishError, match=r"failed to poll[^\n]*\nfresh/config.pbtxt:7: error\[ensemble-forbidden\]"
        ):
            await plane.publish(main="fresh")

    run(work())


def test_a_target_that_nothing_proves_goes_live_and_is_told() -> None:
    async def work() -> None:
        plane = await started()
        plane.golden.unproved["fresh"] = "it has no golden request, and a made-up one got status 500"
        result = await plane.publish(main="fresh", other="scorer/1")
        assert result.activated is not None
        assert result.activated.unproved == {"fresh": "it has no golden request, and a made-up one got status 500"}
        assert result.activated.as_dict()["unproved"] == dict(result.activated.unproved)
        validated = next(each.text for each in plane.events if (each.step, each.state) == ("validate", "done"))
        assert "unproved: fresh" in validated
        assert sum("'fresh' is unproved" in each.text for each in plane.events) == 1, "told once, not for each server"

    run(work())


@pytest.mark.parametrize("by_setting", [True, False])
def test_samples_can_be_required_of_every_target(by_setting: bool, tmp_path: Path) -> None:
    async def work() -> None:
        plane = await started()
        plane.config = replace(plane.config, require_samples=by_setting)
        with pytest.raises(PublishError, match=r"without a golden request: fresh, scorer;") as failure:
            await plane.publish(main="fresh", other="scorer/1", require_samples=not by_setting)
        assert failure.value.step == "samples"
        plane.models.units.clear()
        for model in ("fresh", "scorer"):
            folder = tmp_path / model
            (folder / "samples").mkdir(parents=True)
            (folder / "1").mkdir()
            (folder / "1/model.py").write_text("x")
            (folder / "samples/a.json").write_text("{}")
            await plane.models.push(model, folder, lambda *_: None)
        plane.golden.unproved["fresh"] = "its responses are decoupled"
        with pytest.raises(PublishError, match=r"'fresh' is unproved: its responses are decoupled$"):
            await plane.publish(main="fresh", other="scorer/1", require_samples=not by_setting)
        plane.golden.unproved.clear()
        assert (
            await plane.publish(main="fresh", other="scorer/1", require_samples=not by_setting)
        ).status == "published"

    run(work())


def test_a_model_with_decoupled_responses_needs_an_objective_of_streams() -> None:
    async def work() -> None:
        talker = MemoryModel((1,), decoupled=True)
        plane = await started({**MODELS, "talker": talker})
        where = {"talker": ["b"]}
        for dry_run in (True, False):
            with pytest.raises(PublishError, match=r"main serves talker; write `responses: stream`") as failure:
                await plane.publish(main="talker", other="popular", placement=where, dry_run=dry_run)
            assert failure.value.step == "assign"
        shadowed = "[{id: default, serve: popular, shadow: {talker: 10}}]"
        with pytest.raises(PublishError, match="main serves talker"):
            await plane.publish(main=shadowed, placement=where)
        assert plane.held("b") == [set()]
        streamed = "[{id: default, serve: talker, fallback: popular}]\nresponses: stream"
        assert (await plane.publish(main=streamed, placement=where)).status == "published"
        needless = "[{id: default, serve: popular}]\nresponses: stream"
        assert (await plane.publish(main=needless, placement=where)).status == "published"
        notes = [event.text for event in plane.events if "one response" in event.text]
        assert notes == [
            "objective 'main': callers must ask for a stream, though each of its models gives one response"
        ]

    run(work())


def test_a_ranking_that_a_model_does_not_have_is_noted() -> None:
    async def work() -> None:
        ranker = MemoryModel((1,), rankable=frozenset({"IDS"}))
        plane = await started({**MODELS, "ranker": ranker})
        ranked = "[{id: default, serve: ranker, shadow: {popular: 10}}]\nranking: {output: IDS}"
        await plane.publish(main=ranked, placement={"ranker": ["b"]})
        (note,) = (event.text for event in plane.events if "ranks by" in event.text)
        assert "objective 'main' ranks by 'IDS', which is not an output of integers or text of popular:" in note

    run(work())


def test_rules_or_cases_that_fail_end_before_anything_is_written() -> None:
    class Bad(GivenRules):
        async def check(self) -> CheckedRules:
            raise RulesError([Finding("fleet.yaml", 3, "", "no such shard")])

    class Failing(GivenRules):
        async def test(self, checked: CheckedRules) -> str:
            raise TidegateError("cases/main.yaml:4: expected popular, got fresh")

    async def work() -> None:
        plane = await started()
        process = plane.process()
        for rules, step, text in (
            (Bad, "check", "fleet.yaml:3: no such shard"),
            (Failing, "test", "cases/main.yaml:4"),
        ):
            with pytest.raises(PublishError, match=text) as failure:
                await publish_rules(
                    process, PublishRequest(rules=rules(bundle(main="popular")), by="ana"), plane.events.append
                )
            assert failure.value.step == step
        assert plane.bundles.bundles == {}
        assert plane.changes() == []

    run(work())


def test_a_target_that_was_never_pushed_is_refused_at_assign() -> None:
    async def work() -> None:
        plane = await started({"popular": MemoryModel()})
        with pytest.raises(PublishError, match="target 'scorer/1' needs model 'scorer'") as failure:
            await plane.publish(main="scorer/1")
        assert failure.value.step == "assign"

    run(work())


def test_a_shard_without_a_server_is_named_after_a_while() -> None:
    async def work() -> None:
        plane = Plane()
        await plane.add("a")
        with pytest.raises(PublishError, match="shard 'b' has no server that is ready"):
            await plane.publish(main="popular")
        assert plane.bundles.history == []

    run(work())


def test_an_endpoint_that_ends_before_the_flip_is_waited_for_until_the_registry_forgets_it() -> None:
    async def work() -> None:
        plane = await started()
        await plane.publish(main="scorer/1")
        gone = plane.launcher.running("a")[0]
        gone.end()

        async def forget() -> None:
            await asyncio.sleep(20)
            await plane.registry.deregister(gone.endpoint)

        task = asyncio.create_task(forget())
        result = await plane.publish(main="scorer/2")
        assert task.done()
        assert plane.live() == result.revision

    run(work())


def test_an_endpoint_that_never_answers_nor_goes_ends_the_publish() -> None:
    async def work() -> None:
        plane = await started()
        first = await plane.publish(main="scorer/1")
        plane.launcher.running("a")[0].end()
        with pytest.raises(PublishError, match=r"http://memory:1 refused the connection.*see `tidegate status`"):
            await plane.publish(main="scorer/2")
        assert plane.live() == first.revision

    run(work())


def test_a_publish_waits_for_the_gateways_and_says_who_is_late() -> None:
    async def work() -> None:
        plane = await started()
        first = await plane.publish(main="scorer/1")
        for name in ("quick", "late"):
            await plane.registry.report(GatewayReport(name, first.revision, clock()))

        async def follow() -> None:
            while plane.live() == first.revision:
                await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            await plane.registry.report(GatewayReport("quick", plane.live(), clock()))

        task = asyncio.create_task(follow())
        result = await plane.publish(main="scorer/2")
        assert task.done()
        assert result.activated is not None
        assert (result.activated.confirmed, result.activated.unconfirmed) == (("quick",), ("late",))
        assert "gateways that do not serve it yet: late" in result.activated.warnings[0]
        for target in ("scorer/3", "fresh", "popular", "features"):
            await plane.registry.report(GatewayReport("quick", plane.live(), clock()))
            await plane.publish(main=target, other="popular")
        assert plane.held("b")[0] >= {"popular/1"}
        assert any("scorer/1" in model for model in plane.held("a")[0]), "the late gateway still serves it"

    run(work())


@pytest.mark.parametrize(("refusals", "ends_well"), [(1, True), (2, False)])
def test_a_load_that_one_server_refuses_once_after_another_took_it_fails_no_publish(
    refusals: int, ends_well: bool
) -> None:
    """Of the loads of a large fleet one fails where S3 is slow. That says nothing about the model."""

    async def work() -> None:
        plane = await started()
        first = await plane.publish(main="scorer/1")
        second = plane.launcher.running("a")[1]
        load, left = second.repository.load, [refusals]

        async def refused_at_first(model: ModelLoad, timeout_s: float) -> None:
            if model.model == "fresh" and left[0]:
                left[0] -= 1
                raise ModelLoadError("fresh", "refused: failed to poll the repository")
            await load(model, timeout_s)

        second.repository.load = refused_at_first  # type: ignore[method-assign]
        if ends_well:
            result = await plane.publish(main="fresh")
            assert plane.live() == result.revision
            assert "fresh/1" in plane.held("a")[1]
        else:
            with pytest.raises(PublishError, match="failed to poll the repository"):
                await plane.publish(main="fresh")
            assert plane.live() == first.revision
        assert plane.violations == []

    run(work())


def test_a_new_model_that_its_first_server_refuses_is_not_tried_again() -> None:
    async def work() -> None:
        plane = await started()
        await plane.publish(main="scorer/1")
        plane.faults.refused["fresh"] = "broken"
        with pytest.raises(PublishError, match="broken"):
            await plane.publish(main="fresh")
        assert [event.action for event in plane.launcher.history if event.model == "fresh"] == ["refused"]

    run(work())


def test_of_many_gateways_that_are_late_a_few_are_named() -> None:
    async def work() -> None:
        plane = await started()
        first = await plane.publish(main="scorer/1")
        for number in range(2000):
            await plane.registry.report(GatewayReport(f"gateway-{number:04}", first.revision, clock()))
        result = await plane.publish(main="scorer/2")
        assert result.activated is not None
        assert len(result.activated.unconfirmed) == 2000
        assert "gateway-0004 and 1995 more; see" in result.activated.warnings[0]

    run(work())


def test_what_follows_the_flip_fails_no_publish() -> None:
    async def work() -> None:
        plane = await started()
        await plane.publish(main="scorer/1")
        plane.registry.faults.failing["gateways"] = "down"
        with pytest.raises(PublishError):
            await plane.publish(main="scorer/2")
        plane.registry.faults.failing.clear()
        flip = plane.bundles.flip

        async def flip_and_lose(*arguments: object) -> object:
            pointer = await flip(*arguments)  # type: ignore[arg-type]
            plane.registry.faults.failing["gateways"] = "down"
            return pointer

        plane.bundles.flip = flip_and_lose  # type: ignore[method-assign, assignment]
        result = await plane.publish(main="scorer/2")
        assert plane.live() == result.revision
        assert result.activated is not None
        assert "the next reconcile does the rest" in result.activated.warnings[0]

    run(work())


def test_a_flip_whose_answer_is_lost_counts() -> None:
    async def work() -> None:
        plane = await started()
        plane.bundles.faults.lost["flip"] = "connection reset"
        result = await plane.publish(main="scorer/1")
        assert result.status == "published"
        assert plane.live() == result.revision

    run(work())


def test_a_publish_mends_a_damaged_live_revision() -> None:
    async def work() -> None:
        plane = await started()
        first = await plane.publish(main="scorer/1")
        plane.bundles.faults.damaged.add(first.revision)
        result = await plane.publish(main="scorer/2")
        assert plane.live() == result.revision
        assert plane.held("b") == [{"scorer/1,2"}]

    run(work())


def test_with_nothing_kept_the_old_models_go_after_the_drain() -> None:
    async def work() -> None:
        from tidegate.control.config import ControlConfig

        plane = Plane(config=ControlConfig(keep_revisions=0, drain_s=7))
        await plane.add("a")
        await plane.add("b")
        await plane.publish(main="scorer/1")
        began = clock()
        await plane.publish(main="scorer/2")
        assert 7 <= clock() - began < 9
        assert "drain done" in plane.steps()
        assert plane.held("a") == [{"scorer/2"}]

    run(work())


class Folder:
    """A `ModelsSource` of a test."""

    def __init__(self, plane: Plane, path: Path) -> None:
        self.catalog = plane.catalog
        self.path = path
        self.checked: list[str] = []
        for model in path.iterdir():
            plane.in_folders |= {(model.name, None), *((model.name, int(each.name)) for each in model.iterdir())}

    async def size_bytes(self, model: str, version: int) -> int | None:
        return None

    def folder(self, model: str) -> Path | None:
        path = self.path / model
        return path if path.is_dir() else None

    async def check(self, models: object) -> tuple[str, ...]:
        self.checked += list(models)  # type: ignore[call-overload]
        return ("scorer has no samples",)


def test_what_the_targets_need_of_the_folder_is_checked_and_pushed(tmp_path: Path) -> None:
    for name in ("scorer", "features", "fresh"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.py").write_text("pass")

    async def work() -> None:
        plane = await started()
        folder = Folder(plane, tmp_path)
        request = PublishRequest(rules=GivenRules(bundle(main="pipeline")), models=folder, by="ana")
        planned = await publish_rules(
            plane.process(),
            PublishRequest(rules=request.rules, models=folder, by="ana", dry_run=True),
            plane.events.append,
        )
        assert {each.model for each in planned.pushed} == {"scorer", "features"}
        assert not plane.models.drafts
        result = await publish_rules(plane.process(), request, plane.events.append)
        assert {(each.model, each.versions) for each in result.pushed} == {("scorer", (1,)), ("features", (1,))}
        assert folder.checked[:2] == ["features", "scorer"]
        assert any(event.text == "scorer has no samples" for event in plane.events)
        (tmp_path / "scorer" / "1" / "model.py").write_text("changed")
        with pytest.raises(PublishError) as failure:
            await publish_rules(plane.process(), request, plane.events.append)
        assert failure.value.step == "push"
        assert isinstance(failure.value.__cause__, ImmutableError)

    run(work())


def test_what_was_pushed_is_checked_again_only_with_a_step_that_is_not(tmp_path: Path) -> None:
    for name in ("pipeline/1", "scorer/1", "features/2"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "model.py").write_text("pass")

    async def work() -> None:
        plane = await started()
        folder = Folder(plane, tmp_path)

        async def publish(**targets: str) -> list[str]:
            folder.checked.clear()
            request = PublishRequest(rules=GivenRules(bundle(**targets)), models=folder, by="ana")
            await publish_rules(plane.process(), request, plane.events.append)
            return sorted(folder.checked)

        assert await publish(main="pipeline") == ["features", "pipeline", "scorer"]
        assert await publish(main="pipeline", other="pipeline") == []
        (tmp_path / "features" / "2" / "model.py").write_text("changed")
        with pytest.raises(PublishError):
            await publish(main="pipeline")
        assert sorted(folder.checked) == ["features", "pipeline"]

    run(work())


def test_a_fault_on_one_endpoint_alone_is_found_before_the_flip() -> None:
    async def work() -> None:
        plane = await started()
        first = await plane.publish(main="scorer/1")
        plane.launcher.running("a")[1].repository.faults = MemoryFaults(refused={"fresh": "no GPU here"})
        with pytest.raises(PublishError, match="'fresh' on http://memory:2 of shard 'a': refused: no GPU here"):
            await plane.publish(main="fresh")
        assert plane.live() == first.revision
        assert plane.held("a") == [{"scorer/1"}] * 2

    run(work())
