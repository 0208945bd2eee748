"""The catalog: the same plans from a directory, from the store, and from both; open steps pinned; nothing read twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tidegate.errors import ModelConfigError
from tidegate.models.catalog import TritonCatalog, plan_directory
from tidegate.models.folder import DirectoryFiles, ModelFiles, OverlayFiles, StoreFiles
from tidegate.ports import ModelLoad
from tidegate.rules import Target
from tidegate.testing import MemoryModelStore

from tests.support.stack import REPOSITORIES, make_repository

SMALL = REPOSITORIES / "small"
NAMES = ("simple", "simple_pipeline", "versioned", "versioned_pipeline")


def target(model: str, version: int | None = None) -> Target:
    return Target(model if version is None else f"{model}/{version}", model, version, ("a",))


async def pushed(folder: Path, *names: str) -> MemoryModelStore:
    store = MemoryModelStore()
    for name in names:
        await store.push(name, folder / name, lambda *_: None)
    return store


def open_pipeline(folder: Path) -> Path:
    """`versioned_pipeline` with its step left open."""
    models = make_repository(folder, "versioned", "versioned_pipeline")
    config = models / "versioned_pipeline" / "config.pbtxt"
    config.write_text(config.read_text().replace("model_version: 2", "model_version: -1"))
    return models


def step_versions(load: ModelLoad) -> list[int]:
    assert load.config is not None
    return [int(step["model_version"]) for step in json.loads(load.config)["ensemble_scheduling"]["step"]]


@dataclass
class Counted:
    """Files that count what is asked of them."""

    files: ModelFiles
    asked: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        return self.files.where

    async def has(self, model: str) -> bool:
        self.asked.append(f"has {model}")
        return await self.files.has(model)

    async def versions(self, model: str) -> Sequence[int]:
        self.asked.append(f"versions {model}")
        return await self.files.versions(model)

    async def files_of(self, model: str, version: int) -> Collection[str]:
        return await self.files.files(model, version)

    async def read(self, model: str, path: str) -> bytes | None:
        self.asked.append(f"read {model}/{path}")
        return await self.files.read(model, path)


def test_directory_store_and_both_plan_alike() -> None:
    async def run() -> None:
        store = await pushed(SMALL, *NAMES)
        half = await pushed(SMALL, "versioned", "simple")
        targets = [target("simple_pipeline"), target("versioned", 1), target("versioned"), target("versioned_pipeline")]
        wanted = await plan_directory(SMALL, targets)
        for files in (
            DirectoryFiles(SMALL),
            StoreFiles(store),
            OverlayFiles(DirectoryFiles(SMALL), StoreFiles(half)),
        ):
            catalog = TritonCatalog(files)
            resolution = await catalog.resolve(targets, {})
            assert resolution.versions == {
                "simple_pipeline": 1, "versioned": 3, "versioned/1": 1, "versioned_pipeline": 1,
            }  # fmt: skip
            assert resolution.notes == ()
            resolved = [target(each.model, resolution.versions[each.name]) for each in targets]
            assert await catalog.plan(resolved, resolution.steps) == wanted

    asyncio.run(run())


def test_an_open_step_is_pinned_and_told(tmp_path: Path) -> None:
    async def run() -> None:
        catalog = TritonCatalog(DirectoryFiles(open_pipeline(tmp_path)))
        resolution = await catalog.resolve([target("versioned_pipeline")], {})
        assert resolution.steps == {"versioned_pipeline": {"versioned": 3}}
        (note,) = resolution.notes
        assert "'versioned_pipeline' leaves the version of its step 'versioned' open: it gets 3, the highest" in note
        step, ensemble = await catalog.plan([target("versioned_pipeline", 1)], resolution.steps)
        assert step.versions == (3,)
        assert step_versions(ensemble) == [3]

    asyncio.run(run())


def test_an_open_step_that_is_in_use_stays_where_it_is(tmp_path: Path) -> None:
    async def run() -> None:
        catalog = TritonCatalog(DirectoryFiles(open_pipeline(tmp_path)))
        settled = {"versioned_pipeline": {"versioned": 2}}
        resolution = await catalog.resolve([target("versioned_pipeline"), target("versioned")], settled)
        assert resolution.steps == settled
        assert resolution.versions["versioned"] == 3
        (note,) = resolution.notes
        assert "it gets 2, as it has where it serves now, though 3 is there" in note

    asyncio.run(run())


def test_a_later_push_changes_no_pinned_plan_and_the_next_resolution(tmp_path: Path) -> None:
    async def run() -> None:
        models = make_repository(tmp_path, "versioned")
        (models / "versioned" / "3").rename(tmp_path / "later")
        store = await pushed(models, "versioned")
        catalog = TritonCatalog(StoreFiles(store))
        assert (await catalog.resolve([target("versioned")], {})).versions == {"versioned": 2}
        before = await catalog.plan([target("versioned", 2)], {})
        (tmp_path / "later").rename(models / "versioned" / "3")
        await store.push("versioned", models / "versioned", lambda *_: None)
        assert await catalog.plan([target("versioned", 2)], {}) == before
        assert (await catalog.resolve([target("versioned")], {})).versions == {"versioned": 3}

    asyncio.run(run())


def test_what_was_planned_before_is_not_read_again(tmp_path: Path) -> None:
    async def run() -> None:
        store = await pushed(SMALL, *NAMES)
        first = TritonCatalog(StoreFiles(store))
        targets = [target("simple_pipeline", 1), target("versioned", 2)]
        loads = await first.plan(targets, {})
        counted = Counted(StoreFiles(store))
        second = TritonCatalog(counted)  # type: ignore[arg-type]  # `files` is never asked
        second.learn(loads)
        assert await second.plan(targets, {}) == loads
        assert counted.asked == []
        assert (await second.resolve([target("versioned")], {})).versions == {"versioned": 3}
        assert counted.asked == ["read versioned/config.pbtxt", "versions versioned"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (target("absent"), "target 'absent' needs model 'absent', but the model store has none of that name"),
        (
            target("versioned", 9),
            "target 'versioned/9' needs version 9 of model 'versioned', which the model store does not have; .*: 1, 2, 3",
        ),
        (target("no_model_py"), r"the model store/no_model_py/1/model\.py is missing"),
        (target("no_class"), r"the model store/no_class/1/model\.py: there is no class TritonPythonModel"),
    ],
)
def test_what_would_hang_is_refused_and_located(tmp_path: Path, wanted: Target, message: str) -> None:
    async def run() -> None:
        models = make_repository(tmp_path, "versioned", "no_model_py", "no_class")
        catalog = TritonCatalog(StoreFiles(await pushed(models, "versioned", "no_model_py", "no_class")))
        with pytest.raises(ModelConfigError, match=message):
            version = (await catalog.resolve([wanted], {})).versions[wanted.name]
            await catalog.plan([target(wanted.model, version)], {})

    asyncio.run(run())


def test_an_ensemble_whose_step_was_never_pushed_is_refused() -> None:
    async def run() -> None:
        catalog = TritonCatalog(StoreFiles(await pushed(SMALL, "simple_pipeline")))
        with pytest.raises(
            ModelConfigError, match="ensemble 'simple_pipeline' needs model 'simple', but the model store"
        ):
            await catalog.resolve([target("simple_pipeline")], {})

    asyncio.run(run())


def test_an_ensemble_with_a_decoupled_step_is_decoupled_and_its_own_policy_has_no_effect(tmp_path: Path) -> None:
    models = make_repository(tmp_path, *NAMES)
    policy = "model_transaction_policy { decoupled: true }\n"
    for name in ("simple", "versioned_pipeline"):
        config = models / name / "config.pbtxt"
        config.write_text(config.read_text() + policy)

    async def work() -> frozenset[str]:
        return (await TritonCatalog(DirectoryFiles(models)).resolve(map(target, NAMES), {})).decoupled

    assert asyncio.run(work()) == {"simple", "simple_pipeline"}


def test_integers_and_text_can_be_rankings(tmp_path: Path) -> None:
    outputs = " ".join(
        f'{{ name: "{name}" data_type: {kind} dims: [ -1 ] }},'
        for name, kind in (("IDS", "TYPE_INT64"), ("TITLES", "TYPE_STRING"), ("SCORES", "TYPE_FP32"))
    )
    models = make_repository(tmp_path)
    for name, config in (("ranker", f"output [ {outputs.rstrip(',')} ]"), ("bare", "")):
        (models / name / "1").mkdir(parents=True)
        (models / name / "config.pbtxt").write_text(f'name: "{name}" backend: "python" {config}')

    async def work() -> Mapping[str, frozenset[str]]:
        wanted = [target("ranker"), target("bare")]
        return (await TritonCatalog(DirectoryFiles(models)).resolve(wanted, {})).rankable

    assert asyncio.run(work()) == {"ranker": {"IDS", "TITLES"}}, "a model whose config has no outputs may have any"
