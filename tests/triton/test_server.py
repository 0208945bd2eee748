"""The local Triton server and its repository, on the real Triton."""

from __future__ import annotations

import asyncio
import json
import platform
import re
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tidegate.errors import EndpointRefusedError, ModelHangsError, ModelLoadError, StackError
from tidegate.models.catalog import plan_directory
from tidegate.models.folder import are_complete
from tidegate.ports import HttpRequest, ModelLoad
from tidegate.rules import Target
from tidegate.triton.installation import Installation, find_installation
from tidegate.triton.server import TritonLauncher, TritonServer
from tidegate.triton.transport import PooledTransport

from tests.support.parts import need
from tests.support.stack import ROOT, Server, eventually, make_repository
from tests.triton.misbehaving import write_model

Use = Callable[[TritonServer, Path], Awaitable[None]]


@pytest.fixture(scope="module")
def installation() -> Installation:
    need("pytriton")
    return find_installation(cache_dir=ROOT / ".cache" / "tidegate")


def serve(installation: Installation, models: Path, use: Use) -> None:
    """Run one server over `models`, let `use` do its work, stop it, and see that nothing is left."""

    async def run() -> None:
        transport = PooledTransport()
        launcher = TritonLauncher(installation, models, transport, lambda: not are_complete(models))
        server = await launcher.launch("a")
        try:
            await use(server, models)
        finally:
            started = time.monotonic()
            await server.stop()
            await transport.aclose()
        assert time.monotonic() - started < 45
        # The kernel takes a moment to end what was killed.
        assert eventually(lambda: not Server(server.pid, server.prefix).leftovers())

    asyncio.run(asyncio.wait_for(run(), 300))


def target(model: str, version: int | None = None) -> Target:
    return Target(model if version is None else f"{model}/{version}", model, version, ("a",))


def test_models_are_loaded_described_and_unloaded(installation: Installation, tmp_path: Path) -> None:
    models = make_repository(tmp_path, "versioned")

    async def use(server: TritonServer, models: Path) -> None:
        repository = server.repository
        assert await server.live()
        assert await repository.server_ready()
        assert not await repository.model_ready("versioned")
        (load,) = await plan_directory(models, [target("versioned"), target("versioned", 1)])
        await repository.load(load, 120)
        assert await repository.model_ready("versioned", 1)
        assert not await repository.model_ready("versioned", 2)
        assert (await repository.config("versioned"))["backend"] == "python"
        assert await repository.loaded() == {"versioned": {1, 3}}
        await repository.unload("versioned")
        assert not await repository.model_ready("versioned", 1)
        with pytest.raises(StackError, match=r"answered 40[04]: .*versioned"):
            await repository.config("versioned")

    serve(installation, models, use)
    assert not list(models.rglob("__pycache__"))


def test_what_is_loaded_is_exactly_what_is_ready(installation: Installation, tmp_path: Path) -> None:
    models = make_repository(tmp_path, "versioned", "versioned_pipeline", "hangs")

    async def use(server: TritonServer, models: Path) -> None:
        repository = server.repository

        async def loaded() -> list[tuple[str, int]]:
            return sorted((model, each) for model, found in (await repository.loaded()).items() for each in found)

        assert await loaded() == []
        step, ensemble = await plan_directory(
            models, [target("versioned"), target("versioned", 1), target("versioned_pipeline")]
        )
        await repository.load(step, 120)
        await repository.load(ensemble, 120)
        everything = [("versioned", 1), ("versioned", 2), ("versioned", 3), ("versioned_pipeline", 1)]
        assert await loaded() == everything
        transport = PooledTransport()
        tensor = {"name": "SLEEP_MS", "shape": [1], "datatype": "INT32", "data": [6000]}
        request = HttpRequest(
            "POST", "/v2/models/versioned/versions/1/infer", (), json.dumps({"inputs": [tensor]}).encode()
        )
        under_way = asyncio.create_task(transport.send(server.endpoint, request, timeout_s=60))
        await asyncio.sleep(0.5)
        (narrower,) = await plan_directory(models, [target("versioned"), target("versioned", 2)])
        await repository.load(narrower, 120)
        assert not under_way.done()
        assert await server.live()
        assert not await repository.server_ready(), "as long as version 1 is unloading"
        assert await loaded() == everything[1:]
        assert (await under_way).status == 200
        await transport.aclose()
        with pytest.raises(ModelLoadError):
            await repository.load((await plan_directory(models, [target("hangs")]))[0], 0.5)
        assert await loaded() == everything[1:]
        await repository.unload("versioned")
        assert await loaded() == []
        assert not await repository.model_ready("versioned_pipeline", 1)

    serve(installation, models, use)


def test_a_model_that_hangs_or_is_refused_says_so_and_the_server_still_ends(
    installation: Installation, tmp_path: Path
) -> None:
    async def use(server: TritonServer, models: Path) -> None:
        wanted = [target("refused"), target("hangs"), target("simple")]
        loads = {load.model: load for load in await plan_directory(models, wanted)}
        with pytest.raises(ModelLoadError, match=r"Triton refused it: .*damaged on purpose") as refusal:
            await server.repository.load(loads["refused"], 120)
        assert (type(refusal.value), refusal.value.model) == (ModelLoadError, "refused")
        with pytest.raises(ModelLoadError, match=r"Triton refused it: .*RuntimeError: no weights in ééé") as refusal:
            await server.repository.load(ModelLoad("wordy", (1,)), 120)
        assert len(str(refusal.value)) < 5_000
        with pytest.raises(ModelHangsError, match=r"did not finish loading within 0\.5 s"):
            await server.repository.load(loads["hangs"], 0.5)
        await server.repository.load(loads["simple"], 120)

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
        response = await transport.send(server.endpoint, request, timeout_s=8)
        await transport.aclose()
        return response.status

    async def use(server: TritonServer, models: Path) -> None:
        hanging, simple = await plan_directory(models, [target("hangs"), target("simple")])
        await server.repository.load(simple, 120)
        load = asyncio.create_task(server.repository.load(hanging, 10))
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

    async def use(server: TritonServer, models: Path) -> None:
        await server.repository.load((await plan_directory(models, [target("simple")]))[0], 120)
        inputs = (await server.repository.config("simple"))["input"]
        assert [tensor["name"] for tensor in inputs] == ["INPUT0", "INPUT1"]

    serve(installation, models, use)


def test_models_run_on_the_very_python_whose_packages_they_see(installation: Installation, tmp_path: Path) -> None:
    models = make_repository(tmp_path, "simple")
    model = models / "simple" / "1" / "model.py"
    check = f"import platform, ssl\nassert platform.python_version() == {platform.python_version()!r}\n"
    model.write_text(model.read_text().replace("import", f"{check}import", 1))

    async def use(server: TritonServer, models: Path) -> None:
        await server.repository.load((await plan_directory(models, [target("simple")]))[0], 120)

    serve(installation, models, use)


@pytest.mark.parametrize("port", ["grpc", "metrics"])
def test_a_server_whose_port_another_process_takes_meanwhile_starts_at_another(
    installation: Installation, tmp_path: Path, port: str
) -> None:
    async def take(held: socket.socket) -> int | None:
        """Return the port that was taken; None if Triton was faster."""
        while True:
            for line in (path.read_text(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline")):
                if (found := re.search(rf"--{port}-port=(\d+)", line)) and f"={tmp_path}\0" in line:
                    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
                        plain.bind(("127.0.0.1", int(found[1])))
                    try:
                        held.bind(("127.0.0.1", int(found[1])))
                    except OSError:
                        return None
                    held.listen()
                    return int(found[1])
            await asyncio.sleep(0.01)

    async def work() -> bool:
        transport = PooledTransport()
        launcher = TritonLauncher(installation, tmp_path, transport, lambda: False)
        with socket.socket() as listener:
            # Only so can a port be taken that is reserved for Triton.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taking = asyncio.create_task(take(listener))
            server = await launcher.launch("a")
            try:
                taken = await taking
                assert taken not in (server.endpoint.port, server.grpc_port, server.metrics_port)
                assert await server.live()
                assert await server.has_metrics()
                return taken is not None
            finally:
                await server.stop()
                await transport.aclose()

    assert any(asyncio.run(work()) for _ in range(10)), "Triton has its port before anybody can take it"


def test_a_server_that_cannot_start_shows_the_end_of_its_log(installation: Installation, tmp_path: Path) -> None:
    async def run() -> None:
        transport = PooledTransport()
        launcher = TritonLauncher(installation, tmp_path / "nowhere", transport, lambda: True, start_timeout_s=180)
        with pytest.raises(StackError, match=r"shard 'a' ended with exit code 1; the end of its log:\n[^$]*nowhere"):
            await launcher.launch("a")
        await transport.aclose()

    asyncio.run(asyncio.wait_for(run(), 300))


def test_a_server_that_is_gone_refuses(installation: Installation, tmp_path: Path) -> None:
    async def use(server: TritonServer, _: Path) -> None:
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
