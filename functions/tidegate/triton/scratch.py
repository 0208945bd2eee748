"""Scratch servers: Tritons with limited memory on this machine, on which new models are tried."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tidegate.errors import StackError, StoreError
from tidegate.ports import ModelLoad, ModelStore
from tidegate.triton.server import LIMIT_SETTING, TritonLauncher, TritonServer

SHARD = "scratch"
MIB = 2**20

LEAST_BYTES = 256 * MIB
"""The least memory for a trial: with less, a server that ends would prove nothing about its models."""

_CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
"""For versions 2 and 1 of control groups: the files of the limit, the use and its statistics, and the name in the last one of
cached files, which the kernel drops first."""


@dataclass(frozen=True, slots=True)
class ScratchLauncher:
    """`ScratchServers` over the pushed models.

    Args:
        launcher: returns what starts servers, apart from the completion of configs and the limit.
        memory_mb: the limit on all processes of a server together, in MiB; None: half of what is available on this machine.
    """

    launcher: Callable[[], TritonLauncher]
    models: ModelStore
    memory_mb: int | None = None

    async def launch(self, loads: Sequence[ModelLoad]) -> TritonServer:
        """See `ScratchServers.launch`. Raises `StackError` also if too little memory is available."""
        limit_bytes = await asyncio.to_thread(self._limit_bytes)
        completes = not await self._complete(loads)
        launcher = replace(self.launcher(), auto_complete=lambda: completes, limit_bytes=lambda: limit_bytes)
        return await launcher.launch(SHARD)

    def _limit_bytes(self) -> int:
        if self.memory_mb is not None:
            return self.memory_mb * MIB
        half_bytes = available_bytes() // 2
        if half_bytes < LEAST_BYTES:
            raise StackError(
                f"not enough memory to try models on this machine: half of what is left is {half_bytes // MIB} MiB, and "
                f"a server needs {LEAST_BYTES // MIB}; free some, or set {LIMIT_SETTING} to what it may take"
            )
        return half_bytes

    async def _complete(self, loads: Sequence[ModelLoad]) -> bool:
        """Return whether all configs are complete, so that Triton need not start every model twice."""
        for load in loads:
            config = json.loads(load.config or "{}")
            tensors = [*config.get("input", ()), *config.get("output", ())]
            whole = config.get("input") and config.get("output") and (config.get("backend") or config.get("platform"))
            if not whole or not all(
                each.get("name") and each.get("data_type") and each.get("dims") for each in tensors
            ):
                return False
            if config.get("backend") == "python" and await self._completes_itself(load):
                return False
        return True

    async def _completes_itself(self, load: ModelLoad) -> bool:
        try:
            sources = [await self.models.read(load.model, f"{version}/model.py") for version in load.versions]
        except StoreError:
            return True
        return any(b"def auto_complete_config" in source for source in sources if source is not None)


def available_bytes(root: Path = Path("/")) -> int:
    """Return the bytes that processes can take before the kernel swaps or kills. `root` contains `proc` and `sys`."""
    return min(_left(root))


def _left(root: Path) -> Iterator[int]:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            yield 1024 * int(line.split()[1])
    for *names, cached in _CGROUPS:
        try:
            limit, used, parts = ((root / "sys/fs/cgroup" / name).read_text().strip() for name in names)
        except OSError:
            continue
        if limit != "max":
            sizes = dict(line.split(maxsplit=1) for line in parts.splitlines())
            yield max(0, int(limit) - max(0, int(used) - int(sizes.get(cached, 0))))
