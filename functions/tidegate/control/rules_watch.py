"""Follows the folders that people edit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path


async def follow(folders: Sequence[Path], changed: Callable[[frozenset[Path]], Awaitable[None]]) -> None:
    """Call `changed` after every change below folders, with those of them that changed, one call at a time, until
    cancelled."""
    from watchfiles import awatch

    stop = asyncio.Event()
    resolved = {folder.resolve(): folder for folder in folders}
    try:
        async for changes in awatch(*resolved, stop_event=stop, recursive=True):
            paths = [Path(path) for _, path in changes]
            await changed(
                frozenset(
                    folder for where, folder in resolved.items() if any(path.is_relative_to(where) for path in paths)
                )
            )
    finally:
        stop.set()
