"""Work that runs beside other work on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


@contextlib.contextmanager
def first_failure() -> Iterator[None]:
    """Raise the first failure of a task group in place of the group."""
    try:
        yield
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0]  # noqa: B904  # its cause is its own


async def run_all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run everything concurrently and return the results in order. The first failure cancels the rest and is raised."""
    with first_failure():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    return [task.result() for task in tasks]


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks, and wait until they have ended, however they end."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def spawn(running: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    """Start a task, which is in `running` until it ends."""
    task = asyncio.create_task(work)
    running.add(task)
    task.add_done_callback(running.discard)


async def wait_at_most(event: asyncio.Event, timeout_s: float) -> None:
    """Wait until an event is set, or `timeout_s` seconds have passed."""
    # Not wait_for, which loses a cancellation that comes just when what it waits for is done.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


async def end_process(process: asyncio.subprocess.Process, within_s: float) -> None:
    """Ask a process to end, and wait for its end; one that takes longer than `within_s` is killed."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(within_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
