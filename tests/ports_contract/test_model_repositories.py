"""`ServerLauncher`, `ModelServer` and `ModelRepository`: a real Triton and a server in memory, through the life of a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from tidegate.errors import EndpointRefusedError, ModelLoadError
from tidegate.models.catalog import TritonCatalog
from tidegate.models.folder import DirectoryFiles, are_complete
from tidegate.ports import ModelLoad, ModelRepository, ModelServer
from tidegate.rules import Target
from tidegate.testing import MemoryServerLauncher
from tidegate.triton.installation import find_installation
from tidegate.triton.server import TritonLauncher
from tidegate.triton.transport import PooledTransport

from tests.support.parts import need
from tests.support.stack import ROOT, make_repository

Launch = Callable[[Path], AbstractAsyncContextManager[ModelServer]]


@asynccontextmanager
async def in_memory(_models: Path) -> AsyncIterator[ModelServer]:
    launcher = MemoryServerLauncher()
    launcher.faults.refused["broken"] = "its files are damaged"
    yield await launcher.launch("a")


@asynccontextmanager
async def on_triton(models: Path) -> AsyncIterator[ModelServer]:
    need("pytriton")
    transport = PooledTransport()
    installation = find_installation(cache_dir=ROOT / ".cache" / "tidegate")
    launcher = TritonLauncher(installation, models, transport, lambda: not are_complete(models))
    server = await launcher.launch("a")
    try:
        yield server
    finally:
        await server.stop()
        await transport.aclose()


async def loaded(repository: ModelRepository) -> list[tuple[str, int]]:
    return sorted((model, each) for model, found in (await repository.loaded()).items() for each in found)


@pytest.mark.parametrize("launch", [in_memory, on_triton])
def test_models_are_loaded_narrowed_and_unloaded_until_their_server_ends(launch: Launch, tmp_path: Path) -> None:
    models = make_repository(tmp_path, "versioned", "versioned_pipeline")
    (models / "broken" / "1").mkdir(parents=True)
    (models / "broken" / "config.pbtxt").write_text('backend: "none"')

    async def plan(*targets: Target) -> tuple[ModelLoad, ...]:
        return await TritonCatalog(DirectoryFiles(models)).plan(targets, {})

    async def work() -> None:
        ensemble_target = Target("p", "versioned_pipeline", 1, ())
        step, ensemble = await plan(ensemble_target, Target("v", "versioned", 3, ()))
        (narrower,) = await plan(Target("v", "versioned", 2, ()))
        async with launch(models) as server:
            repository = server.repository
            assert server.endpoint.shard == "a"
            assert await server.live()
            assert await loaded(repository) == []
            assert not await repository.model_ready("versioned")

            await repository.load(step, 20)
            await repository.load(ensemble, 20)
            both = [("versioned", 2), ("versioned", 3), ("versioned_pipeline", 1)]
            assert await loaded(repository) == both
            assert await repository.model_ready("versioned", 2)
            assert not await repository.model_ready("versioned", 1)
            assert set(await repository.finished()) <= {"versioned", "versioned_pipeline"}
            await repository.load(step, 20)
            assert await loaded(repository) == both, "a load that changes nothing is left alone"

            with pytest.raises(ModelLoadError) as refusal:
                await repository.load(ModelLoad("broken", (1,)), 20)
            assert (type(refusal.value), refusal.value.model) == (ModelLoadError, "broken")
            assert await loaded(repository) == both

            await repository.load(narrower, 20)
            assert await loaded(repository) == [("versioned", 2), ("versioned_pipeline", 1)]
            await repository.unload("versioned")
            assert await loaded(repository) == [], "an ensemble cannot be called without its step"
            assert not await repository.model_ready("versioned_pipeline", 1)

            ended = asyncio.create_task(server.wait())
            await server.kill()
            assert await asyncio.wait_for(ended, 5)
            assert not await server.live()
            with pytest.raises(EndpointRefusedError):
                await repository.loaded()

    asyncio.run(asyncio.wait_for(work(), 60))
