"""`ScratchServers`: a server in memory and a real Triton, empty until a model is tried on it, and gone after `kill`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from tidegate.errors import StackError
from tidegate.models.catalog import plan_directory
from tidegate.ports import ScratchServers
from tidegate.rules import Target
from tidegate.testing import MemoryModelStore, MemoryScratchServers, MemoryServerLauncher
from tidegate.triton.installation import find_installation
from tidegate.triton.scratch import ScratchLauncher
from tidegate.triton.server import TritonLauncher
from tidegate.triton.transport import PooledTransport

from tests.support.parts import need
from tests.support.stack import ROOT, make_repository

Make = Callable[[Path, bool], AbstractAsyncContextManager[ScratchServers]]


@asynccontextmanager
async def in_memory(_: Path, starts: bool) -> AsyncIterator[ScratchServers]:
    launcher = MemoryServerLauncher()
    if not starts:
        launcher.faults.shards["scratch"] = "not enough memory"
    yield MemoryScratchServers(launcher)


@asynccontextmanager
async def on_triton(models: Path, starts: bool) -> AsyncIterator[ScratchServers]:
    need("pytriton")
    transport = PooledTransport()
    installation = find_installation(cache_dir=ROOT / ".cache" / "tidegate")
    launcher = TritonLauncher(installation, models, transport, lambda: False)
    # A server needs more than 1 MiB.
    yield ScratchLauncher(lambda: launcher, MemoryModelStore(), memory_mb=512 if starts else 1)
    await transport.aclose()


@pytest.mark.parametrize("make", [in_memory, on_triton])
def test_a_server_is_empty_takes_a_model_and_ends(make: Make, tmp_path: Path) -> None:
    models = make_repository(tmp_path, "simple")

    async def work() -> None:
        loads = await plan_directory(models, [Target("simple", "simple", 1, ())])
        async with make(models, True) as servers:
            server = await servers.launch(loads)
            assert server.endpoint.shard == "scratch"
            assert not await server.repository.loaded()
            await server.repository.load(loads[0], 20)
            assert await server.repository.model_ready("simple", 1)
            await server.kill()
            assert not await server.live()

    asyncio.run(asyncio.wait_for(work(), 60))


@pytest.mark.parametrize("make", [in_memory, on_triton])
def test_a_server_that_does_not_start_is_an_error(make: Make, tmp_path: Path) -> None:
    async def work() -> None:
        async with make(tmp_path, False) as servers:
            with pytest.raises(StackError):
                await servers.launch(())

    asyncio.run(asyncio.wait_for(work(), 60))
