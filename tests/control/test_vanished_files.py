"""A file that vanishes while folders are read ends nothing; where following does end, the status says so."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tidegate.bootstrap.incidents import Incidents
from tidegate.bootstrap.local_stack import LocalStack
from tidegate.bootstrap.model_sources import FolderModels
from tidegate.cli.serve import follow_changes
from tidegate.control.following import FollowMode
from tidegate.settings import Settings
from tidegate.testing import MemoryModelStore

from tests.control.plane import Plane

PATIENCE_S = 120.0


def stack_of(folder: Path) -> LocalStack:
    """A stack without servers, whose folders exist."""
    rules, models = folder / "rules", folder / "models"
    for each in (rules, models):
        each.mkdir()
    missing: Any = None
    plane = Plane().process()
    return LocalStack(Settings(), plane, missing, rules, models, has_temporary_stores=True, incidents=Incidents())


async def touched(path: Path, stack: LocalStack, state: str) -> None:
    """Write a file until the stack says something of its rules."""
    async with asyncio.timeout(PATIENCE_S):
        while stack.last_rejected is None and stack.follow_status()["state"] != state:
            path.write_text(os.urandom(8).hex())
            await asyncio.sleep(0.1)


def test_the_size_of_a_folder_leaves_out_what_vanishes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "scorer" / "1"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "model.onnx").write_bytes(b"four")
    (folder / ".model.swp").write_bytes(b"")
    stat = Path.stat

    def look_and_lose(path: Path, **options: Any) -> os.stat_result:
        found = stat(path, **options)
        if path.name == ".model.swp":
            path.unlink()
        return found

    monkeypatch.setattr(Path, "stat", look_and_lose)
    assert asyncio.run(FolderModels(tmp_path, MemoryModelStore()).size_bytes("scorer", 1)) == 4


def test_a_change_that_cannot_be_read_is_refused_and_following_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: Any, **_options: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory", "rules/.fleet.yaml.swp")

    async def work() -> None:
        stack = stack_of(tmp_path)
        serving: asyncio.Future[LocalStack] = asyncio.get_running_loop().create_future()
        serving.set_result(stack)
        following = asyncio.create_task(follow_changes(stack.rules, stack.models, serving, FollowMode.CHECKED))
        await touched(stack.rules / "fleet.yaml", stack, "ended")
        assert stack.last_rejected is not None
        assert any(".fleet.yaml.swp" in line for line in stack.last_rejected.findings)
        stack.last_rejected = None
        await touched(stack.rules / "fleet.yaml", stack, "ended")
        assert stack.last_rejected is not None, "the next change is tried"
        assert stack.follow_status()["state"] == "following"
        following.cancel()
        await asyncio.wait([following])

    monkeypatch.setattr(LocalStack, "publish", lost)
    asyncio.run(work())


def test_a_status_says_that_following_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **_options: Any) -> None:
        raise LookupError("nobody expects this")

    async def work() -> None:
        stack = stack_of(tmp_path)
        serving: asyncio.Future[LocalStack] = asyncio.get_running_loop().create_future()
        serving.set_result(stack)
        following = asyncio.create_task(follow_changes(stack.rules, stack.models, serving, FollowMode.CHECKED))
        await touched(stack.rules / "fleet.yaml", stack, "ended")
        await following
        assert stack.follow_status()["state"] == "ended"
        assert "nobody expects this" in stack.follow_status()["ended"]

    monkeypatch.setattr(LocalStack, "publish", broken)
    asyncio.run(work())
