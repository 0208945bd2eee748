"""Follows the rules directory that people edit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path


async def follow(rules: Path, changed: Callable[[], Awaitable[None]]) -> None:
    """Call `changed` after every change under `rules`, one call at a time, until cancelled."""
    from watchfiles import awatch

    stop = asyncio.Event()
    try:
        async for _ in awatch(rules, stop_event=stop, recursive=True):
            await changed()
    finally:
        stop.set()
