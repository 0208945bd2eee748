"""Follows a rules directory: every change is compiled in a child process, so that no request waits for the compiler."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from tidegate.errors import TidegateError


async def compile_rules(rules: Path) -> bytes:
    """Compile a rules directory to a bundle, in a child process.

    Raises:
        TidegateError: it does not compile; the text is the compiler's.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tidegate.rules.compiler",
        str(rules),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        bundle, findings = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    if process.returncode != 0:
        raise TidegateError(findings.decode(errors="replace").strip())
    return bundle


async def follow(rules: Path, changed: Callable[[], Awaitable[None]]) -> None:
    """Call `changed` after every change under `rules`, one call at a time, until cancelled."""
    from watchfiles import awatch

    stop = asyncio.Event()
    try:
        async for _ in awatch(rules, stop_event=stop, recursive=True):
            await changed()
    finally:
        stop.set()
