"""Tasks that run beside others, and end with them."""

from __future__ import annotations

import asyncio
from typing import Any


async def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and wait until it has ended, however it ends."""
    task.cancel()
    await asyncio.wait([task])
