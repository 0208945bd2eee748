"""Work of the console that takes long, in child processes: they are few, and are killed where they take too long.

`tidegate.console.child` is what they run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from tidegate.errors import OverloadedError, Refusal, RefusedError, TidegateError

MOST_AT_ONCE = 2
MOST_WAITING = 8
HIDDEN = ("TIDEGATE_", "AWS_", "OTEL_")
"""Beginnings of the variables that a child does not get: settings and credentials, a collector's key included."""

MOST_ANSWER_BYTES = 32 * 1024 * 1024


class Task(StrEnum):
    """The work of a child."""

    DRAFT = "draft"
    """Compile and judge edited rules."""
    DIFF = "diff"
    """Compare two revisions."""
    SPACE = "space"
    """Compute the share of the contexts that each rule of an objective decides."""
    DIRECTORY = "directory"
    """Read the rules directory as it is: lines of the rules, cases, demand."""
    PLACEMENT = "placement"
    """Plan where models are placed."""


class Children:
    """Runs children, at most `MOST_AT_ONCE` at a time."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(MOST_AT_ONCE)
        self._waiting = 0

    async def run(self, task: Task, payload: Mapping[str, Any], timeout_s: float) -> Any:
        """Return what a child answers, as JSON values.

        Args:
            payload: what it gets, as JSON values.
            timeout_s: the longest that it may take, in seconds, its start included.

        Raises:
            RefusedError: it took longer.
            OverloadedError: too many wait already.
            TidegateError: it ended by itself; the message has no text of it, which could hold a value of a context.
        """
        if self._waiting >= MOST_WAITING:
            raise OverloadedError("the console does as much work as it may; ask again soon")
        self._waiting += 1
        try:
            async with self._free:
                return await _run(task, json.dumps(payload).encode(), timeout_s)
        finally:
            self._waiting -= 1


def _environment() -> dict[str, str]:
    """Return the variables of a child: no settings and no credentials, which it needs none of, and where this process imports from, which
    a Lambda function's variables do not say."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


async def _run(task: Task, payload: bytes, timeout_s: float) -> Any:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        # Not the modules of whatever folder this was started in.
        "-P",
        "-c",
        "from tidegate.console.child import main; main()",
        task,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=_environment(),
        # Ctrl-C in a terminal is for the parent, which then ends the child.
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            answer, _ = await process.communicate(payload)
    except TimeoutError:
        raise RefusedError(
            Refusal.TOOK_TOO_LONG,
            f"it took longer than {timeout_s:g} s and was ended: simplify the rules, or use the command line",
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            # To its end, or its pipes would outlive the event loop.
            await asyncio.shield(process.wait())
    if process.returncode != 0 or len(answer) > MOST_ANSWER_BYTES:
        raise TidegateError(f"the work failed: its process ended with exit code {process.returncode}")
    return json.loads(answer)
