"""Model folders that a test writes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from tidegate.ports import ModelStore


def write_model(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write a model's files by path; a path that ends in a slash is an empty folder."""
    for path, content in files.items():
        target = folder / path
        if path.endswith("/"):
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return folder


def seal_all(store: ModelStore, model: str) -> None:
    """Make all of a model immutable, as a publish does before it makes it live."""

    async def work() -> None:
        units = [(model, version) for version in (None, *await store.versions(model))]
        await store.seal(await store.pin(units))

    asyncio.run(work())
