"""Scratch servers: a Triton on this machine that models are tried on, bounded in memory, before any other server has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tidegate.errors import StackError, StoreError
from tidegate.ports import ModelLoad, ModelStore
from tidegate.triton.memory import available_bytes
from tidegate.triton.server import LIMIT_SETTING, TritonLauncher, TritonServer

SHARD = "scratch"
MIB = 2**20

LEAST_BYTES = 256 * MIB
"""Less memory is not tried with: a server that ended for the lack of it would say nothing of its models."""


@dataclass(frozen=True, slots=True)
class ScratchLauncher:
    """`ScratchServers` over the pushed models.

    Args:
        launcher: gives what starts servers; how they complete configs and what bounds them is decided here.
        models: the pushed models.
        memory_mb: most memory that all processes of a server may have together, in MiB; None: half of what is left on
            this machine when it starts.
    """

    launcher: Callable[[], TritonLauncher]
    models: ModelStore
    memory_mb: int | None = None

    async def launch(self, loads: Sequence[ModelLoad]) -> TritonServer:
        """See `ScratchServers.launch`. Raises `StackError` also where too little memory is left."""
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
        """Whether Triton needs to complete no config, which would start every model twice."""
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
