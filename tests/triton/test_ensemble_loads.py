"""Ensembles are loaded with their config alone, whatever the repository has, on the real Triton."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tidegate.models.catalog import plan_directory
from tidegate.ports import HttpRequest, ModelLoad
from tidegate.rules import Target
from tidegate.triton.installation import Installation, find_installation
from tidegate.triton.server import TritonServer

from tests.support.parts import need
from tests.support.stack import ROOT, make_repository
from tests.triton.test_server import serve

REQUEST = {"inputs": [{"name": "SLEEP_MS", "shape": [1], "datatype": "INT32", "data": [1]}]}


@pytest.fixture(scope="module")
def installation() -> Installation:
    need("pytriton")
    return find_installation(cache_dir=ROOT / ".cache" / "tidegate")


def pinned(load: ModelLoad, version: int) -> ModelLoad:
    """The load of an ensemble with another version of its step."""
    assert load.config is not None
    config = json.loads(load.config)
    config["ensemble_scheduling"]["step"][0]["model_version"] = version
    return replace(load, config=json.dumps(config))


def test_an_ensemble_needs_no_folder_by_either_door(installation: Installation, tmp_path: Path) -> None:
    models = make_repository(tmp_path, "versioned", "versioned_pipeline")

    async def use(server: TritonServer, models: Path) -> None:
        step, ensemble = await plan_directory(
            models, [Target("p", "versioned_pipeline", 1, ()), Target("v", "versioned", 3, ())]
        )
        assert ensemble.steps == ("versioned",)
        shutil.rmtree(models / "versioned_pipeline")
        await server.repository.load(step, 20)
        for repository in (server.repository, replace(server.repository, grpc_port=None)):
            await repository.load(ensemble, 5)
            assert await answer(server) == 2
            assert (await repository.loaded())["versioned_pipeline"] == {1}
            await repository.unload("versioned_pipeline")
            assert not await repository.model_ready("versioned_pipeline")

    serve(installation, models, use)


def test_an_ensemble_is_reloaded_under_requests_and_comes_back_with_its_step(
    installation: Installation, tmp_path: Path
) -> None:
    models = make_repository(tmp_path, "versioned", "versioned_pipeline")

    async def use(server: TritonServer, models: Path) -> None:
        step, ensemble = await plan_directory(
            models, [Target("p", "versioned_pipeline", 1, ()), Target("v", "versioned", 3, ())]
        )
        await server.repository.load(step, 20)
        await server.repository.load(ensemble, 5)
        answers: list[int] = []

        async def ask() -> None:
            while True:
                answers.append(await answer(server))

        asking = asyncio.create_task(ask())
        for version in (3, 2, 3):
            await server.repository.load(pinned(ensemble, version), 5)
            assert await answer(server) == version
        assert not asking.done()
        asking.cancel()
        assert set(answers) <= {2, 3}
        await server.repository.unload("versioned")
        assert not await server.repository.model_ready("versioned_pipeline")
        await server.repository.load(step, 20)
        assert await answer(server) == 3

    serve(installation, models, use)


async def answer(server: TritonServer) -> int:
    """The version of the step that the ensemble calls."""
    request = HttpRequest(
        "POST",
        "/v2/models/versioned_pipeline/infer",
        ((b"content-type", b"application/json"),),
        json.dumps(REQUEST).encode(),
    )
    response = await server.repository.transport.send(server.endpoint, request, 5.0)
    assert response.status == 200, response.body
    return int(json.loads(response.body)["outputs"][0]["data"][0])
