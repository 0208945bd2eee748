"""A publish that fails burns no name: nothing is pushed before the rest has passed, and what was never live is replaced."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tidegate.bootstrap.rules_sources import GivenRules
from tidegate.control.plane import ControlPlane
from tidegate.control.publish import PublishRequest, PublishResult, publish_rules
from tidegate.control.reconcile import reconcile_fleet
from tidegate.control.steps import StepEvent
from tidegate.errors import ConflictError, ImmutableError, PublishError, RulesError, StackError, TidegateError
from tidegate.ports import Claim, ClaimStage, EndpointState, ModelCatalog, ModelLoad
from tidegate.testing import MemoryModel, MemoryModelCatalog

from tests.control.plane import MODELS, Plane, clock
from tests.control.rules import bundle
from tests.support.model_folders import write_model
from tests.support.virtual_time import run

NEW = {"new/config.pbtxt": b"as first written", "new/1/model.py": b"one", "new/samples/a.json": b"{}"}


def rules_of(**rules: str) -> bytes:
    return bundle({"new": ["a"]}, **rules)


class Folder:
    """A folder of models as a `ModelsSource`. Its catalog, as that of a store, plans with the config that it finds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def catalog(self) -> ModelCatalog:
        return MemoryModelCatalog({**MODELS, "new": MemoryModel()})

    def folder(self, model: str) -> Path | None:
        return self.path / model if (self.path / model).is_dir() else None

    async def size_bytes(self, model: str, version: int) -> int | None:
        return None

    async def check(self, models: object) -> tuple[str, ...]:
        return ()


class Draft:
    """A fleet that serves, and a folder with a model that is new to it."""

    def __init__(self, tmp_path: Path) -> None:
        self.plane = Plane()
        self.plane.catalog = _Pushed(self.plane)
        self.plane.in_folders = {("new", None), ("new", 1), ("new", 2)}
        self.folder = Folder(write_model(tmp_path / "models", NEW))

    async def start(self) -> Draft:
        await self.plane.add("a")
        await self.plane.add("b")
        await self.plane.publish(main="popular")
        return self

    async def publish(self, process: ControlPlane | None = None, announce: Any = None, **rules: str) -> PublishResult:
        self.plane.have_pushed()
        request = PublishRequest(rules=GivenRules(rules_of(**(rules or {"main": "new"}))), models=self.folder, by="ana")
        process = process or self.plane.process()
        return await publish_rules(process, request, announce or self.plane.events.append)

    async def fails(self, **rules: str) -> PublishError:
        with pytest.raises(PublishError) as caught:
            await self.publish(**rules)
        return caught.value

    def write(self, files: Mapping[str, bytes]) -> None:
        write_model(self.folder.path, files)


class _Pushed(MemoryModelCatalog):
    """The models of the fleet; of one from a folder the config is what was pushed."""

    def __init__(self, plane: Plane) -> None:
        super().__init__(MODELS)
        self._plane = plane

    async def plan(self, targets: Any, steps: Any) -> tuple[ModelLoad, ...]:
        config = self._plane.models.contents.get(("new", "config.pbtxt"), b"").decode()
        self.models = {**MODELS, **({"new": MemoryModel()} if ("new", 1) in self._plane.models.units else {})}
        loads = await super().plan(targets, steps)
        return tuple(
            ModelLoad(each.model, each.versions, f'{{"said": "{config}", "version_policy": {{}}}}', each.steps)
            if each.model == "new"
            else each
            for each in loads
        )

    async def resolve(self, targets: Any, settled: Any) -> Any:
        self.models = {**MODELS, "new": MemoryModel()}
        return await super().resolve(targets, settled)


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    return Draft(tmp_path)


def test_what_fails_before_the_push_has_pushed_nothing(draft: Draft) -> None:
    class Failing(GivenRules):
        async def test(self, checked: object) -> str:
            raise RulesError([])

    async def work() -> None:
        await draft.start()
        with pytest.raises(PublishError) as caught:
            await publish_rules(
                draft.plane.process(),
                PublishRequest(rules=Failing(rules_of(main="new")), models=draft.folder, by="ana"),
                lambda _: None,
            )
        assert caught.value.step == "test"
        assert not draft.plane.models.drafts

    run(work())


def test_models_that_do_not_fit_are_not_pushed(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise StackError("the models do not fit on the shards")

    async def work() -> None:
        await draft.start()
        monkeypatch.setattr("tidegate.control.publish.assign", full)
        assert (await draft.fails()).step == "assign"
        assert not draft.plane.models.drafts

    run(work())


def test_of_several_models_none_is_pushed_where_one_is_refused(draft: Draft) -> None:
    async def work() -> None:
        await draft.start()
        draft.write({"popular/1/model.py": b"changed"})
        failure = await draft.fails(main="new", other="popular")
        assert failure.step == "push"
        assert isinstance(failure.__cause__, ImmutableError)
        assert not draft.plane.models.drafts

    run(work())


def test_a_model_that_failed_is_mended_under_its_name_and_version(draft: Draft) -> None:
    async def work() -> None:
        await draft.start()
        plane = draft.plane
        plane.golden.wrong["new"] = "0.5 is not 0.7"
        assert "0.5 is not 0.7" in str(await draft.fails())
        assert plane.models.drafts.keys() == {("new", None), ("new", 1)}
        plane.golden.wrong.clear()
        draft.write({"new/config.pbtxt": b"mended", "new/1/model.py": b"mended"})
        result = await draft.publish()
        assert [each.replaced for each in result.pushed] == [(None, 1)]
        assert plane.live() == result.revision
        assert plane.models.contents["new", "1/model.py"] == b"mended"
        assert {server.repository.holds["new"].config for server in plane.launcher.running("a")} == {
            '{"said": "mended", "version_policy": {}}'
        }, "the assignment of the revision, which is the same, was made anew"
        assert not plane.models.drafts, "it is live now, and never changes"
        draft.write({"new/1/model.py": b"again"})
        assert isinstance((await draft.fails()).__cause__, ImmutableError)
        assert not plane.violations

    run(work())


def test_another_process_loads_what_was_mended(draft: Draft) -> None:
    """One that has read the assignment while the first publish claimed it."""

    async def work() -> None:
        await draft.start()
        plane, other = draft.plane, draft.plane.process()

        plane.golden.wrong["new"] = "wrong"
        with pytest.raises(PublishError):
            await draft.publish()
        revision = next(iter(plane.bundles.assignments.keys() - {plane.live()}))
        await plane.bundles.claim(Claim("1-x-1-x", revision, "eve", clock() + 60, ClaimStage.PROVED))
        assert any(load.model == "new" for load in (await other.reader.read()).plans["a"])
        await plane.bundles.release("1-x-1-x")
        plane.golden.wrong.clear()
        draft.write({"new/config.pbtxt": b"mended"})
        await draft.publish()
        for load in (await other.reader.read()).plans["a"]:
            if load.model == "new":
                assert load.config == '{"said": "mended", "version_policy": {}}'
        server = await plane.add("a", EndpointState.READY)
        await reconcile_fleet(other, "carl")
        assert server.repository.holds["new"].config == '{"said": "mended", "version_policy": {}}'

    run(work())


def test_a_draft_that_another_publish_claims_is_not_replaced(draft: Draft) -> None:
    async def work() -> None:
        await draft.start()
        plane = draft.plane
        plane.golden.wrong["new"] = "wrong"
        await draft.fails()
        plane.golden.wrong.clear()
        revision = next(iter(plane.bundles.assignments.keys() - {plane.live()}))
        await plane.bundles.claim(Claim("1-x-1-x", revision, "eve", clock() + 60))
        draft.write({"new/1/model.py": b"mended"})
        failure = await draft.fails()
        assert (failure.step, type(failure.__cause__)) == ("push", ConflictError)
        assert plane.models.contents["new", "1/model.py"] == b"one"

    run(work())


@pytest.mark.parametrize("step", ["claim", "load", "validate"])
@pytest.mark.parametrize("content", [b"other", b"one"])
def test_what_was_replaced_while_it_was_published_does_not_go_live(draft: Draft, step: str, content: bytes) -> None:
    """Not even where its bytes are those of before again: a server may have loaded the others."""

    async def work() -> None:
        await draft.start()
        live = draft.plane.live()
        replaced = False

        def announce(event: StepEvent) -> None:
            nonlocal replaced
            if event.step == step and event.state == "done" and not replaced:
                replaced = True
                for data in (b"other", content):
                    draft.write({"new/1/model.py": data})
                    draft.plane.models.push_now("new", draft.folder.path / "new")

        with pytest.raises(PublishError) as caught:
            await draft.publish(announce=announce)
        assert caught.value.step == "flip"
        assert draft.plane.live() == live
        assert draft.plane.models.drafts.keys() == {("new", None), ("new", 1)}, "it is still a draft"
        await draft.publish()
        assert draft.plane.models.contents["new", "1/model.py"] == content
        assert not draft.plane.violations

    run(work())


def test_what_is_sealed_stays_sealed_where_the_flip_fails(draft: Draft) -> None:
    async def work() -> None:
        await draft.start()
        draft.plane.bundles.faults.failing["flip"] = "no answer"
        assert (await draft.fails()).step == "flip"
        draft.plane.bundles.faults.failing.clear()
        assert not draft.plane.models.drafts
        draft.write({"new/1/model.py": b"other"})
        assert isinstance((await draft.fails()).__cause__, ImmutableError)
        draft.write({"new/1/model.py": b"one"})
        assert (await draft.publish()).status == "published"

    run(work())


def test_a_store_that_cannot_seal_keeps_it_from_going_live(draft: Draft) -> None:
    async def work() -> None:
        await draft.start()
        live = draft.plane.live()
        for faults in (draft.plane.models.faults.failing, draft.plane.models.faults.lost):
            faults["seal"] = "no answer"
            failure: TidegateError = await draft.fails()
            assert failure.step == "flip"
            assert draft.plane.live() == live
            faults.clear()
        assert (await draft.publish()).status == "published", "what was sealed by the lost call is in nobody's way"

    run(work())


def test_a_dry_run_says_what_would_be_replaced_or_refused(draft: Draft) -> None:
    async def work() -> None:
        await draft.start()
        plane = draft.plane
        plane.golden.wrong["new"] = "wrong"
        await draft.fails()
        draft.write({"new/1/model.py": b"mended"})
        request = PublishRequest(rules=GivenRules(rules_of(main="new")), models=draft.folder, by="ana", dry_run=True)
        result = await publish_rules(plane.process(), request, lambda _: None)
        assert [each.replaced for each in result.pushed] == [(1,)]
        assert plane.models.contents["new", "1/model.py"] == b"one"
        plane.golden.wrong.clear()
        await draft.publish()
        draft.write({"new/1/model.py": b"again"})
        with pytest.raises(PublishError) as caught:
            await publish_rules(plane.process(), request, lambda _: None)
        assert isinstance(caught.value.__cause__, ImmutableError)

    run(work())
