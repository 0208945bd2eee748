"""The local Triton server and its repository, on the real Triton."""

from __future__ import annotations

import asyncio
import json
import platform
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tidegate.errors import EndpointRefusedError, ModelLoadError, StackError
from tidegate.ports import HttpRequest, ModelLoad
from tidegate.rules import Target
from tidegate.triton.installation import Installation, find_installation
from tidegate.triton.model_directory import ModelDirectory
from tidegate.triton.server import TritonLauncher, TritonServer
from tidegate.triton.transport import PooledTransport

from tests.support.parts import need
from tests.support.stack import ROOT, Server, make_repository
from tests.triton.misbehaving import write_model

Use = Callable[[TritonServer, ModelDirectory], Awaitable[None]]


@pytest.fixture(scope="module")
def installation() -> Installation:
    need("pytriton")
    return find_installation(cache_dir=ROOT / ".cache" / "tidegate")


def serve(installation: Installation, models: Path, use: Use) -> None:
    """Run one server over `models`, let `use` do its work, stop it, and see that nothing is left."""

    async def run() -> None:
        directory, transport = ModelDirectory(models), PooledTransport()
        launcher = TritonLauncher(installation, models, transport, lambda: not directory.complete())
        server = await launcher.launch("a")
        try:
            await use(server, directory)
        finally:
            started = time.monotonic()
            await server.stop()
            await transport.aclose()
        assert time.monotonic() - started < 5
        assert Server(server.pid, server.prefix).leftovers() == []

    asyncio.run(asyncio.wait_for(run(), 60))


def target(model: str, version: int | None = None) -> Target:
    return Target(model if version is None else f"{model}/{version}", model, version, ("a",))


def test_models_are_loaded_described_and_unloaded(installation: Installation, tmp_path: Path) -> None:
    models = make_repository(tmp_path, "versioned")

    async def use(server: TritonServer, directory: ModelDirectory) -> None:
        repository = server.repository
        assert await repository.server_live()
        assert await repository.server_ready()
        assert not await repository.model_ready("versioned")
        (load,) = directory.plan([target("versioned"), target("versioned", 1)])
        await repository.load(load, 20)
        assert await repository.model_ready("versioned", 1)
        assert not await repository.model_ready("versioned", 2)
        assert (await repository.metadata("versioned"))["versions"] == ["1", "3"]
        assert (await repository.config("versioned"))["backend"] == "python"
        assert {(entry.version, entry.state) for entry in await repository.index()} == {(1, "READY"), (3, "READY")}
        await repository.unload("versioned")
        assert not await repository.model_ready("versioned", 1)
        with pytest.raises(StackError, match=r"answered 40[04]: .*versioned"):
            await repository.metadata("versioned")

    serve(installation, models, use)
    assert not list(models.rglob("__pycache__"))


def test_what_is_loaded_is_exactly_what_is_ready(installation: Installation, tmp_path: Path) -> None:
    models = make_repository(tmp_path, "versioned", "versioned_pipeline", "hangs")

    async def use(server: TritonServer, directory: ModelDirectory) -> None:
        repository = server.repository

        async def loaded() -> list[tuple[str, int | None]]:
            states = await repository.loaded()
            assert {each.state for each in states} <= {"READY"}
            return [(each.model, each.version) for each in states]

        assert await loaded() == []
        step, ensemble = directory.plan([target("versioned"), target("versioned", 1), target("versioned_pipeline")])
        await repository.load(step, 20)
        await repository.load(ensemble, 20)
        everything = [("versioned", 1), ("versioned", 2), ("versioned", 3), ("versioned_pipeline", 1)]
        assert await loaded() == everything
        transport = PooledTransport()
        tensor = {"name": "SLEEP_MS", "shape": [1], "datatype": "INT32", "data": [1500]}
        request = HttpRequest(
            "POST", "/v2/models/versioned/versions/1/infer", (), json.dumps({"inputs": [tensor]}).encode()
        )
        under_way = asyncio.create_task(transport.send(server.endpoint, request, timeout_s=10))
        await asyncio.sleep(0.5)
        (narrower,) = directory.plan([target("versioned"), target("versioned", 2)])
        await repository.load(narrower, 20)
        assert not under_way.done()
        assert await loaded() == everything[1:]
        assert (await under_way).status == 200
        await transport.aclose()
        with pytest.raises(ModelLoadError):
            await repository.load(directory.plan([target("hangs")])[0], 0.5)
        assert await loaded() == everything[1:]
        await repository.unload("versioned")
        assert await loaded() == []
        assert not await repository.model_ready("versioned_pipeline", 1)

    serve(installation, models, use)


def test_a_model_that_hangs_or_is_refused_says_so_and_the_server_still_ends(
    installation: Installation, tmp_path: Path
) -> None:
    async def use(server: TritonServer, directory: ModelDirectory) -> None:
        wanted = [target("refused"), target("hangs"), target("simple")]
        loads = {load.model: load for load in directory.plan(wanted)}
        with pytest.raises(ModelLoadError, match=r"Triton refused it: .*damaged on purpose") as refusal:
            await server.repository.load(loads["refused"], 20)
        assert (refusal.value.model, refusal.value.hung) == ("refused", False)
        with pytest.raises(ModelLoadError, match=r"Triton refused it: .*RuntimeError: no weights in ééé") as refusal:
            await server.repository.load(ModelLoad("wordy", (1,)), 20)
        assert len(str(refusal.value)) < 5_000
        with pytest.raises(ModelLoadError, match=r"did not finish loading within 0\.5 s") as hang:
            await server.repository.load(loads["hangs"], 0.5)
        assert hang.value.hung
        await server.repository.load(loads["simple"], 20)

    models = make_repository(tmp_path, "refused", "hangs", "simple")
    write_model(models, "wordy", load='raise RuntimeError("no weights in " + 500_000 * "é")')
    serve(installation, models, use)


def test_inference_does_not_wait_for_a_load(installation: Installation, tmp_path: Path) -> None:
    models = make_repository(tmp_path, "hangs", "simple")
    body = json.dumps(
        {
            "inputs": [
                {"name": name, "shape": [1, 16], "datatype": "INT32", "data": [1] * 16} for name in ("INPUT0", "INPUT1")
            ]
        }
    ).encode()

    async def call(server: TritonServer) -> int:
        # Its own connection: Triton binds each to one of its threads.
        transport = PooledTransport()
        request = HttpRequest("POST", "/v2/models/simple/infer", (), body)
        response = await transport.send(server.endpoint, request, timeout_s=1.5)
        await transport.aclose()
        return response.status

    async def use(server: TritonServer, directory: ModelDirectory) -> None:
        hanging, simple = directory.plan([target("hangs"), target("simple")])
        await server.repository.load(simple, 20)
        load = asyncio.create_task(server.repository.load(hanging, 3))
        await asyncio.sleep(0.5)
        assert set(await asyncio.gather(*(call(server) for _ in range(40)))) == {200}
        assert not load.done()
        with pytest.raises(ModelLoadError):
            await load

    serve(installation, models, use)


def test_a_config_that_triton_must_complete_still_loads(installation: Installation, tmp_path: Path) -> None:
    models = make_repository(tmp_path, "simple")
    config = models / "simple" / "config.pbtxt"
    config.write_text('backend: "python"\nmax_batch_size: 8\n')
    model = models / "simple" / "1" / "model.py"
    model.write_text(
        model.read_text()
        + """
    @staticmethod
    def auto_complete_config(config):
        for name in ("INPUT0", "INPUT1"):
            config.add_input({"name": name, "data_type": "TYPE_INT32", "dims": [16]})
        for name in ("OUTPUT0", "OUTPUT1"):
            config.add_output({"name": name, "data_type": "TYPE_INT32", "dims": [16]})
        return config
"""
    )

    async def use(server: TritonServer, directory: ModelDirectory) -> None:
        await server.repository.load(directory.plan([target("simple")])[0], 20)
        inputs = (await server.repository.metadata("simple"))["inputs"]
        assert [tensor["name"] for tensor in inputs] == ["INPUT0", "INPUT1"]

    serve(installation, models, use)


def test_models_run_on_the_very_python_whose_packages_they_see(installation: Installation, tmp_path: Path) -> None:
    models = make_repository(tmp_path, "simple")
    model = models / "simple" / "1" / "model.py"
    check = f"import platform, ssl\nassert platform.python_version() == {platform.python_version()!r}\n"
    model.write_text(model.read_text().replace("import", f"{check}import", 1))

    async def use(server: TritonServer, directory: ModelDirectory) -> None:
        await server.repository.load(directory.plan([target("simple")])[0], 20)

    serve(installation, models, use)


def test_a_server_that_cannot_start_shows_the_end_of_its_log(installation: Installation, tmp_path: Path) -> None:
    async def run() -> None:
        transport = PooledTransport()
        launcher = TritonLauncher(installation, tmp_path / "nowhere", transport, lambda: True, start_timeout_s=10)
        with pytest.raises(StackError, match=r"shard 'a' ended with exit code 1; the end of its log:\n[^$]*nowhere"):
            await launcher.launch("a")
        await transport.aclose()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_server_that_is_gone_refuses(installation: Installation, tmp_path: Path) -> None:
    async def use(server: TritonServer, _: ModelDirectory) -> None:
        await server.kill()
        assert await server.wait() == "was ended by SIGKILL"
        with pytest.raises(EndpointRefusedError):
            await server.repository.server_ready()

    serve(installation, tmp_path, use)


def test_stacks_that_start_at_once_share_one_built_directory(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: find_installation(cache_dir=tmp_path), range(4)))
    (installation,) = found
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [installation.backend_directory.name, installation.python_bin.parent.name]
    )
    backends = {path.name for path in installation.backend_directory.iterdir()}
    assert backends == {"python", "onnxruntime"}
    assert not any(path.is_symlink() for path in installation.backend_directory.rglob("*"))


def test_a_folder_without_triton_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"bin/tritonserver is missing: .* holds no whole Triton for Python 3\."):
        find_installation(triton_home=tmp_path, cache_dir=tmp_path)
