"""Hands copies of requests to a process of their own, which sends them and compares the answers.

So a shadow costs the gateway a message: its connections, its answers, its failures and the comparison are elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from tidegate.bootstrap.frames import COUNT, SIZE
from tidegate.bootstrap.parent import environment_without_secrets
from tidegate.gateway.shadow_lanes import ShadowLimits
from tidegate.shadows.copy import ShadowCopy
from tidegate.shadows.counts import Drop, dropped
from tidegate.shadows.exchange import Pair
from tidegate.shadows.sampled import PairCounts
from tidegate.tasks import cancel

_log = logging.getLogger(__name__)

_FLUSH_S = 0.002
"""Copies are written together, since each write costs a request more than the copy does."""

_RESTART_S = 5.0
_ENDING_S = 0.5

OnReport = Callable[[Counter[str], bytes], None]
"""Gets what was counted since the last report, and the tallies since then as JSON; empty: none."""


class LinkedShadows:
    """A `tidegate.ports.ShadowSink` over a process that starts with the first copy. One event loop uses it.

    Args:
        limits: the limits of the process; copies that it has not read yet count in `buffered_bytes` too.
        connect_timeout_ms: the longest that it waits for a connection.
        most_response_bytes: the largest answer that it takes.
        report: see `OnReport`.
        lost: counts the copies of each pair that the process had, and that are in no tallies, when it ended.
        tracing: the setting of that name.
    """

    takes_rpcs = True

    def __init__(
        self,
        limits: ShadowLimits,
        connect_timeout_ms: int,
        most_response_bytes: int,
        report: OnReport,
        lost: PairCounts,
        tracing: str = "off",
    ) -> None:
        self._limits = limits
        self._arguments = [*limits, connect_timeout_ms, most_response_bytes, tracing]
        self._report = report
        self._lost = lost
        self._untold: Counter[Pair] = Counter()
        self._revision = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._running: asyncio.Task[None] | None = None
        self._started_s = -_RESTART_S
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._flushing: asyncio.TimerHandle | None = None
        self._unfinished = 0
        self._is_ending = False
        self._refusing: dict[str, Drop] = {}
        self._room = limits.in_flight + limits.waiting
        self._under_way: dict[str, int] = {}
        # The pairs of the copies that the process has not said it saw, in their order.
        self._unseen: deque[Pair] = deque()

    def refusal(self, pair: Pair) -> Drop | None:
        model = pair.shadow_model
        reason = self._refusing.get(model)
        # A process that the kernel gives no time says nothing either.
        return Drop.QUEUE_FULL if reason is None and self._under_way.get(model, 0) >= self._room else reason

    def offer(self, copy: ShadowCopy) -> Drop | None:
        written = 0 if self._writer is None else self._writer.transport.get_write_buffer_size()
        if self._pending_bytes + written + copy.size_bytes > self._limits.buffered_bytes:
            return Drop.MEMORY
        if self._running is None:
            now_s = time.monotonic()
            if now_s - self._started_s < _RESTART_S:
                return Drop.LOST
            self._started_s = now_s
            self._running = asyncio.create_task(self._run())
        parts = copy.parts()
        size_bytes = sum(map(len, parts))
        self._pending += [SIZE.pack(size_bytes), *parts]
        self._pending_bytes += size_bytes
        self._unfinished += 1
        model = copy.pair.shadow_model
        self._under_way[model] = self._under_way.get(model, 0) + 1
        self._untold[copy.pair] += 1
        self._unseen.append(copy.pair)
        self._revision = copy.revision
        if self._flushing is None and self._writer is not None:
            self._flushing = asyncio.get_running_loop().call_later(_FLUSH_S, self._flush)
        return None

    async def aclose(self) -> None:
        """End the process, which first reports what it counted last; copies under way are lost."""
        running, self._is_ending = self._running, True
        if running is None:
            return
        if self._writer is not None and not self._writer.is_closing():
            self._flush()
            self._writer.write_eof()
            await asyncio.wait([running], timeout=_ENDING_S)
        await cancel(running)

    def _flush(self) -> None:
        self._flushing = None
        if self._writer is not None and not self._writer.is_closing() and self._pending:
            self._writer.writelines(self._pending)
            self._pending, self._pending_bytes = [], 0

    async def _run(self) -> None:
        """Run one process until it has ended."""
        try:
            reader, self._writer = await self._start()
            self._flush()
            while True:
                told, tallies = await read_frame(reader)
                counts, refusing, done, freed, seen, unread = json.loads(told)
                self._refusing = {model: Drop(reason) for model, reason in refusing.items()}
                self._free(freed)
                self._see(seen, unread)
                if counts or tallies:
                    self._finished(Counter(counts), {Pair(*pair): count for pair, count in done}, tallies)
        except (OSError, EOFError, ValueError) as error:
            if not self._is_ending:
                _log.error("the process that sends shadows ended (%s)", type(error).__name__)
        finally:
            self._end()

    async def _start(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # this program's own module
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "tidegate.bootstrap.shadow_process",
                    str(theirs.fileno()),
                    str(os.getpid()),
                    json.dumps(self._arguments),
                ],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env=environment_without_secrets(),
            )
        return await asyncio.open_connection(sock=ours)

    def _free(self, freed: Mapping[str, int]) -> None:
        """Take copies that have ended from those under way."""
        for model, count in freed.items():
            left = self._under_way.pop(model, 0) - count
            if left > 0:
                self._under_way[model] = left

    def _see(self, count: int, unread: Sequence[int]) -> None:
        """Take `count` copies from those that the process has not seen; it could not read those at the places `unread` of them."""
        pairs = [self._unseen.popleft() for _ in range(count)]
        for place in unread:
            pair = pairs[place]
            self._free({pair.shadow_model: 1})
            self._untold -= Counter({pair: 1})
            self._lost.add(pair, self._revision, time.time(), dropped(Drop.LOST))

    def _finished(self, counts: Counter[str], done: Mapping[Pair, int], tallies: bytes) -> None:
        self._untold = Counter(
            {pair: left for pair, count in self._untold.items() if (left := count - done.get(pair, 0)) > 0}
        )
        self._unfinished -= sum(
            count for name, count in counts.items() if name == "answered" or name.startswith(("failed", "dropped"))
        )
        self._report(counts, tallies)

    def _end(self) -> None:
        """Forget the process, and count the copies that it had."""
        writer, self._writer, self._running = self._writer, None, None
        if writer is not None:
            writer.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        lost, self._unfinished, self._refusing, self._under_way = self._unfinished, 0, {}, {}
        self._pending, self._pending_bytes = [], 0
        self._unseen.clear()
        for pair, count in self._untold.items():
            self._lost.add(pair, self._revision, time.time(), dropped(Drop.LOST), count)
        self._untold.clear()
        if lost:
            self._report(Counter({dropped(Drop.LOST): lost}), b"")


async def read_frame(reader: asyncio.StreamReader) -> list[bytes]:
    """Return the parts of the next frame. Raises `EOFError` at the end."""
    (count,) = COUNT.unpack(await reader.readexactly(COUNT.size))
    sizes = [SIZE.unpack(await reader.readexactly(SIZE.size))[0] for _ in range(count)]
    return [await reader.readexactly(size) for size in sizes]
