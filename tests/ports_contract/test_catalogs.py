"""`ModelCatalog`: what targets need, from the files of models and from models in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tidegate.errors import ModelConfigError
from tidegate.models.catalog import TritonCatalog
from tidegate.models.folder import DirectoryFiles
from tidegate.ports import ModelCatalog, ModelLoad
from tidegate.rules import Target
from tidegate.testing import MemoryModel, MemoryModelCatalog

from tests.support.stack import make_repository

Make = Callable[[str], ModelCatalog]
PIPELINE = "versioned_pipeline"


@pytest.fixture(params=["memory", "files"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes a catalog of `versioned` (1, 2, 3) and an ensemble that calls it: `versioned/2`, or `versioned` for any."""

    def in_memory(step: str) -> ModelCatalog:
        return MemoryModelCatalog({"versioned": MemoryModel((1, 2, 3)), PIPELINE: MemoryModel((1,), (step,))})

    def in_files(step: str) -> ModelCatalog:
        models = make_repository(tmp_path, "versioned", PIPELINE)
        config = models / PIPELINE / "config.pbtxt"
        version = step.partition("/")[2] or "-1"
        config.write_text(config.read_text().replace("model_version: 2", f"model_version: {version}"))
        return TritonCatalog(DirectoryFiles(models))

    return in_memory if request.param == "memory" else in_files


def target(model: str, version: int | None = None) -> Target:
    return Target(model if version is None else f"{model}/{version}", model, version, ("a",))


def config_of(load: ModelLoad) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(load.config or "{}")
    return config


def served(load: ModelLoad) -> list[int]:
    """The versions that the config of a load serves."""
    return [int(version) for version in config_of(load)["version_policy"]["specific"]["versions"]]


def called(load: ModelLoad) -> list[int]:
    """The versions of the steps that an ensemble calls."""
    return [int(step["model_version"]) for step in config_of(load)["ensemble_scheduling"]["step"]]


def test_a_target_without_a_version_gets_the_highest(make: Make) -> None:
    targets = [target("versioned"), target("versioned", 1), target(PIPELINE)]
    resolution = asyncio.run(make("versioned/2").resolve(targets, {}))
    assert resolution.versions == {"versioned": 3, "versioned/1": 1, PIPELINE: 1}
    assert (dict(resolution.steps), resolution.notes) == ({}, ())


def test_steps_come_before_their_ensemble_in_the_versions_that_are_needed(make: Make) -> None:
    targets = [target(PIPELINE, 1), target("versioned", 1)]
    step, ensemble = asyncio.run(make("versioned/2").plan(targets, {}))
    assert (step.model, step.versions, step.steps) == ("versioned", (1, 2), ())
    assert (ensemble.model, ensemble.versions, ensemble.steps) == (PIPELINE, (1,), ("versioned",))
    assert (served(step), served(ensemble), called(ensemble)) == ([1, 2], [1], [2])


@pytest.mark.parametrize(("settled", "version"), [({}, 3), ({PIPELINE: {"versioned": 2}}, 2)])
def test_an_open_step_is_pinned_to_what_is_in_use_else_to_the_highest(
    make: Make, settled: dict[str, dict[str, int]], version: int
) -> None:
    catalog = make("versioned")
    resolution = asyncio.run(catalog.resolve([target(PIPELINE)], settled))
    assert resolution.steps == {PIPELINE: {"versioned": version}}
    (note,) = resolution.notes
    assert "leaves the version of" in note
    step, ensemble = asyncio.run(catalog.plan([target(PIPELINE, 1)], resolution.steps))
    assert (step.versions, called(ensemble)) == ((version,), [version])


@pytest.mark.parametrize("missing", [target("unknown"), target("versioned", 9)])
def test_what_is_missing_is_named(make: Make, missing: Target) -> None:
    with pytest.raises(ModelConfigError, match=missing.model):
        asyncio.run(make("versioned/2").resolve([missing], {}))


def test_what_a_catalog_learns_and_keeps_changes_no_plan(make: Make) -> None:
    catalog = make("versioned/2")
    plan = asyncio.run(catalog.plan([target(PIPELINE, 1)], {}))
    catalog.learn(plan)
    for each in (catalog, catalog.fresh()):
        assert asyncio.run(each.plan([target(PIPELINE, 1)], {})) == plan
