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
from tidegate.bootstrap.parent import environment_without_secrets
from tidegate.errors import OverloadedError

_log = logging.getLogger(__name__)

_SLICE_BYTES = 256 * 1024
_LONGEST_S = 30.0
_MOST_WAITING = 256


class Workers:
    """A `tidegate.ports.Offload` over at most `most` processes, started when they are needed. One event loop uses it.

    A worker that fails, takes too long or is abandoned is ended, and another is started for the next piece of work.
    """

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._ending: list[subprocess.Popen[bytes]] = []
        self._waiting = 0

    async def run(self, work: str, *parts: bytes | memoryview) -> bytes:
        """Do some work in another process. Raises `OverloadedError`: too much waits already, or the worker did not answer."""
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
        for worker in (*self._idle, *self._busy):
            self._kill(worker)
        self._idle.clear()
        for process in self._ending:
            process.wait()

    async def _run(self, parts: list[bytes | memoryview]) -> bytes:
        worker = self._living() or await _start()
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
                self._kill(worker)

    def _living(self) -> _Worker | None:
        """An idle worker; those that have ended by themselves, as where memory ran out, cost no request."""
        while self._idle:
            worker = self._idle.pop()
            if worker.process.poll() is None:
                return worker
            self._kill(worker)
        return None

    def _kill(self, worker: _Worker) -> None:
        """End a worker. The event loop does not wait for it, which may have much memory to give back."""
        worker.writer.close()
        worker.process.kill()
        self._ending = [each for each in (*self._ending, worker.process) if each.poll() is None]


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


async def _start() -> _Worker:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(  # noqa: S603  # this program's own module
            # -P: not the modules of whatever folder this was started in.
            [sys.executable, "-P", "-m", "tidegate.bootstrap.worker", str(theirs.fileno()), str(os.getpid())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            env=environment_without_secrets(),
        )
    reader, writer = await asyncio.open_connection(sock=ours, limit=_SLICE_BYTES)
    return _Worker(process, reader, writer)
