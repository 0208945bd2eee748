"""The processes that do the local gateway's heavy work, so that its event loop is never held up by one caller's request."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from dataclasses import dataclass

from tidegate.bootstrap.frames import COUNT, SIZE, frame
from tidegate.errors import OverloadedError

_log = logging.getLogger(__name__)

_SLICE_BYTES = 256 * 1024
_LONGEST_S = 30.0
_MOST_WAITING = 256
_HIDDEN = ("TIDEGATE_", "AWS_")


class Workers:
    """A `tidegate.ports.Offload` over processes that are started when they are needed. One event loop uses it.

    A worker that fails, takes too long or is abandoned is ended, and another is started for the next piece of work.

    Args:
        most: how many processes there are at most (at least 1).
    """

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._waiting = 0

    async def run(self, work: str, *parts: bytes | memoryview) -> bytes:
        """Do some work in another process.

        Raises:
            OverloadedError: too much waits already, or the worker did not answer.
        """
        if self._waiting >= _MOST_WAITING:
            raise OverloadedError("too many large requests wait to be read")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._run([work.encode(), *parts])
        finally:
            self._free.release()

    async def aclose(self) -> None:
        """End all of them."""
        for worker in (*self._idle, *self._busy):
            worker.kill()
        self._idle.clear()

    async def _run(self, parts: list[bytes | memoryview]) -> bytes:
        worker = self._idle.pop() if self._idle else await _start()
        self._busy.add(worker)
        try:
            async with asyncio.timeout(_LONGEST_S):
                answer = await worker.ask(parts)
        except (OSError, EOFError, TimeoutError) as error:
            _log.warning("a worker did not answer (%s), and is ended", type(error).__name__)
            raise OverloadedError("the request takes too much to be read: send it in parts") from None
        else:
            self._idle.append(worker)
            return answer
        finally:
            self._busy.discard(worker)
            if worker not in self._idle:
                worker.kill()


@dataclass(eq=False, slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, parts: list[bytes | memoryview]) -> bytes:
        self.writer.write(frame(parts))
        for part in parts:
            view = memoryview(part)
            for start in range(0, len(view), _SLICE_BYTES):
                self.writer.write(view[start : start + _SLICE_BYTES])
                await self.writer.drain()
        head = await self.reader.readexactly(COUNT.size + SIZE.size)
        return await self.reader.readexactly(SIZE.unpack_from(head, COUNT.size)[0])

    def kill(self) -> None:
        self.writer.close()
        self.process.kill()
        # Killed: it does not take long.
        self.process.wait()


async def _start() -> _Worker:
    ours, theirs = socket.socketpair()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_HIDDEN)}
    with theirs:
        process = subprocess.Popen(  # noqa: S603  # this program's own module
            [sys.executable, "-m", "tidegate.bootstrap.worker", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            env=environment,
        )
    reader, writer = await asyncio.open_connection(sock=ours, limit=_SLICE_BYTES)
    return _Worker(process, reader, writer)
