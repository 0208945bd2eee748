"""A server that is bounded in memory: it ends with its limit and with its parent, and with all that it started."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tidegate.errors import EndpointError, ModelLoadError, StackError
from tidegate.ports import ModelLoad
from tidegate.testing import MemoryModelStore
from tidegate.triton.bounded import OVER_MEMORY
from tidegate.triton.installation import Installation, find_installation
from tidegate.triton.scratch import ScratchLauncher, available_bytes
from tidegate.triton.server import BOUNDED, TritonLauncher
from tidegate.triton.transport import PooledTransport

from tests.support.parts import need
from tests.support.stack import ROOT, Server, eventually
from tests.triton.misbehaving import write_model

MIB = 2**20
ESCAPES = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(os.getpid(), child.pid, flush=True)
"""
"""Starts a process in a session of its own, and goes on."""


def start(code: str, folder: Path, limit_bytes: int = 1 << 40) -> subprocess.Popen[str]:
    command = [*BOUNDED, str(limit_bytes), "no-such-prefix", str(folder), sys.executable, "-c", code]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("end", ["pipe", "term", "itself"])
def test_whatever_the_command_started_ends_with_it_or_with_its_parent(end: str, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    with start(ESCAPES + ("" if end == "itself" else "time.sleep(600)"), folder) as process:
        assert process.stdin is not None and process.stdout is not None
        pids = list(map(int, process.stdout.readline().split()))
        assert len(pids) == 2
        if end == "pipe":
            process.stdin.close()
        elif end == "term":
            process.terminate()
        assert process.wait(120) == (0 if end == "itself" else -signal.SIGTERM)
        assert all(map(gone, pids))
        assert not folder.exists()


def test_a_command_that_is_killed_is_told_apart(tmp_path: Path) -> None:
    with start("import os; os.kill(os.getpid(), 9)", tmp_path / "none") as process:
        assert process.wait(120) == -signal.SIGKILL


def test_more_memory_than_the_limit_ends_it_and_the_system_would_end_it_first(tmp_path: Path) -> None:
    filling = "print(open('/proc/self/oom_score_adj').read().strip(), flush=True); x = b'x' * (1 << 30); input()"
    with start(filling, tmp_path / "none", 200 * MIB) as process:
        assert process.wait(120) == OVER_MEMORY
        assert process.stdout is not None
        assert process.stdout.readline() == "1000\n"


def test_what_is_left_is_the_least_of_the_machines_and_the_containers(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup/memory").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    assert available_bytes(tmp_path) == 8000 * 1024
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("1000\n")
    (tmp_path / "sys/fs/cgroup/memory.stat").write_text("anon 300\nfile 700\ninactive_file 600\n")
    assert available_bytes(tmp_path) == 8000 * 1024
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("5000\n")
    assert available_bytes(tmp_path) == 4600, "cached files are dropped for what needs memory"
    (tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text("3000\n")
    (tmp_path / "sys/fs/cgroup/memory/memory.usage_in_bytes").write_text("9000\n")
    (tmp_path / "sys/fs/cgroup/memory/memory.stat").write_text("inactive_file 9\ntotal_inactive_file 5000\n")
    assert available_bytes(tmp_path) == 0
    (tmp_path / "sys/fs/cgroup/memory/memory.stat").write_text("inactive_file 9\ntotal_inactive_file 7500\n")
    assert available_bytes(tmp_path) == 1500


LOADS = {
    "kills": "time.sleep(0.5); os.kill(os.getppid(), 9)",
    "fills": "self.kept = [np.ones(1 << 21) for _ in range(10_000)]",
    "hangs": "time.sleep(3600)",
    "exits": "os._exit(3)",
}


def test_a_bounded_triton_leaves_nothing_whatever_its_model_does(tmp_path: Path) -> None:
    need("pytriton")
    for name, load in LOADS.items():
        write_model(tmp_path, name, load=load)
    installation = find_installation(cache_dir=ROOT / ".cache" / "tidegate")
    ended: dict[str, str] = {}

    async def try_one(name: str, transport: PooledTransport) -> None:
        launcher = TritonLauncher(installation, tmp_path, transport, lambda: False, limit_bytes=lambda: 256 * MIB)
        server = await launcher.launch("scratch")
        try:
            with pytest.raises((EndpointError, ModelLoadError)) as failure:
                await server.repository.load(ModelLoad(name, (1,)), 4 if name == "hangs" else 120)
            ended[name] = str(failure.value)
            if isinstance(failure.value, EndpointError):
                ended[name] = await asyncio.wait_for(server.wait(), 120)
        finally:
            began = time.monotonic()
            await server.kill()
            assert time.monotonic() - began < 45
        assert Server(server.pid, server.prefix).leftovers() == []

    async def work() -> None:
        transport = PooledTransport()
        for name in LOADS:
            await try_one(name, transport)
        await transport.aclose()

    asyncio.run(work())
    print(json.dumps(ended))
    assert ended["kills"] == "was ended by SIGKILL"
    assert ended["fills"] == "was ended as it took more than 256 MiB of memory (TIDEGATE_SCRATCH_MEMORY_MB)"
    assert "did not finish loading" in ended["hangs"]
    assert "Stub process" in ended["exits"]


DAEMON = 'import subprocess; daemon = subprocess.Popen(["sleep", "600"], start_new_session=True); '
DAEMON += 'open({file!r}, "w").write(str(daemon.pid)); {then}'
ABOVE = 'above = int(open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[1]); '


@pytest.mark.parametrize(
    ("limit_bytes", "then"),
    [
        (None, "pass"),
        (1 << 40, "os.killpg(os.getpgid(os.getppid()), 9)"),
        (1 << 40, ABOVE + "os.kill(above, 9)"),
    ],
    ids=["in a fleet", "kills its group", "kills what bounds it"],
)
def test_what_a_model_leaves_in_a_session_of_its_own_ends_with_the_server(
    tmp_path: Path, limit_bytes: int | None, then: str
) -> None:
    need("pytriton")
    told = tmp_path / "pid"
    write_model(tmp_path / "models", "escapes", load=DAEMON.format(file=str(told), then=then))
    installation = find_installation(cache_dir=ROOT / ".cache" / "tidegate")

    async def work() -> None:
        transport = PooledTransport()
        limit = None if limit_bytes is None else lambda: limit_bytes
        launcher = TritonLauncher(installation, tmp_path / "models", transport, lambda: False, limit_bytes=limit)
        server = await launcher.launch("scratch")
        try:
            with contextlib.suppress(EndpointError, ModelLoadError):
                await server.repository.load(ModelLoad("escapes", (1,)), 120)
            assert not gone(int(told.read_text()))
        finally:
            await server.kill()
            await transport.aclose()
        assert Server(server.pid, server.prefix).leftovers() == []

    asyncio.run(work())
    assert gone(int(told.read_text()))


PUBLISHER = """
import asyncio, sys
from pathlib import Path
from tidegate.ports import ModelLoad
from tidegate.triton.installation import find_installation
from tidegate.triton.server import TritonLauncher
from tidegate.triton.transport import PooledTransport

async def main():
    installation = find_installation(cache_dir=Path(sys.argv[1]))
    launcher = TritonLauncher(
        installation, Path(sys.argv[2]), PooledTransport(), lambda: False, limit_bytes=lambda: 1 << 40
    )
    server = await launcher.launch("scratch")
    load = asyncio.create_task(server.repository.load(ModelLoad("hangs", (1,)), 600))
    await asyncio.sleep(1)
    print(server.pid, server.prefix, flush=True)
    await load

asyncio.run(main())
"""


def test_a_bounded_triton_that_hangs_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    need("pytriton")
    write_model(tmp_path / "models", "hangs", load=LOADS["hangs"])
    command = [sys.executable, "-c", PUBLISHER, str(ROOT / ".cache" / "tidegate"), str(tmp_path / "models")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "functions")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        pid, prefix = process.stdout.readline().split()
        server = Server(int(pid), prefix)
        assert eventually(lambda: len(server.leftovers()) >= 3), "what bounds it, the server and its model run"
        process.kill()
    assert eventually(lambda: server.leftovers() == [])


class Recorded(TritonLauncher):
    """Starts nothing, and keeps how it would."""

    started: ClassVar[list[tuple[bool, int | None]]] = []

    async def launch(self, shard: str) -> Any:
        self.started.append((self.auto_complete(), None if self.limit_bytes is None else self.limit_bytes()))


TENSOR = '{"name": "X", "data_type": "TYPE_FP32", "dims": [2]}'
WHOLE = f'{{"backend": "python", "input": [{TENSOR}], "output": [{TENSOR}]}}'


@pytest.mark.parametrize(
    ("config", "code", "completed"),
    [
        (WHOLE, "class TritonPythonModel: pass", False),
        (WHOLE, "def auto_complete_config(config): return config", True),
        (WHOLE.replace("output", "parameters"), "", True),
        (WHOLE.replace('"dims": [2]', '"dims": []'), "", True),
        (None, "", True),
    ],
)
def test_a_scratch_server_completes_configs_only_where_there_is_something_to_complete(
    config: str | None, code: str, completed: bool, tmp_path: Path
) -> None:
    (tmp_path / "m/1").mkdir(parents=True)
    (tmp_path / "m/config.pbtxt").write_text('backend: "python"')
    (tmp_path / "m/1/model.py").write_text(code)

    async def work() -> None:
        store = MemoryModelStore()
        await store.push("m", tmp_path / "m", lambda *_: None)
        bare = Recorded(Installation(tmp_path, tmp_path, None, tmp_path), tmp_path, PooledTransport(), lambda: True)
        scratch = ScratchLauncher(lambda: bare, store, 300)
        await scratch.launch([ModelLoad("m", (1,), config)])
        await ScratchLauncher(lambda: bare, store).launch([ModelLoad("m", (1,), config)])

    Recorded.started.clear()
    asyncio.run(work())
    (first, limit_bytes), (second, half_bytes) = Recorded.started
    assert (first, second) == (completed, completed)
    assert limit_bytes == 300 * MIB
    assert half_bytes is not None
    assert 0 < half_bytes < available_bytes()


def test_a_lack_of_memory_is_not_blamed_on_a_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare = Recorded(Installation(tmp_path, tmp_path, None, tmp_path), tmp_path, PooledTransport(), lambda: True)
    monkeypatch.setattr("tidegate.triton.scratch.available_bytes", lambda: 511 * MIB)
    Recorded.started.clear()
    with pytest.raises(StackError, match=r"^not enough memory .* 255 MiB, .* TIDEGATE_SCRATCH_MEMORY_MB"):
        asyncio.run(ScratchLauncher(lambda: bare, MemoryModelStore()).launch([]))
    assert Recorded.started == []
    asyncio.run(ScratchLauncher(lambda: bare, MemoryModelStore(), 300).launch([]))
    assert [limit_bytes for _, limit_bytes in Recorded.started] == [300 * MIB], "whoever sets a bound has it"
