"""The process that sends copies of requests to shadows and has their answers compared, beside a local gateway:

    python -P -m tidegate.bootstrap.shadow_process FD PARENT LIMITS

It reads copies from its socket and reports counts and tallies on it, once a second. It ends with the other end of the socket,
and with its parent.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import socket
import sys
from collections import Counter
from collections.abc import Sequence

import uvloop

from tidegate.bootstrap import build_tracer
from tidegate.bootstrap.copy_reader import CopyReader
from tidegate.bootstrap.frames import frame
from tidegate.bootstrap.parent import end_with_parent
from tidegate.bootstrap.workers import Workers
from tidegate.byte_budget import ByteBudget, ByteLease
from tidegate.errors import EventError, TidegateError
from tidegate.gateway.shadow_lanes import ShadowLanes, ShadowLimits
from tidegate.ports import Done, Endpoint, HttpRequest, HttpResponse, Offload, Transport
from tidegate.settings import Settings
from tidegate.shadows.counts import Drop
from tidegate.shadows.exchange import Answer, Exchange, worker_parts
from tidegate.shadows.tallies import Tallies
from tidegate.shadows.tensors import MOST_BYTES
from tidegate.triton.connection import ResponseLimits
from tidegate.triton.transport import PooledTransport
from tidegate.web.heavy import result

REFUSING_S = 0.05
"""How often the gateway hears which shadows take no copies now, so that it makes none for them."""

FREED_AT_ONCE = 32
"""Copies that have ended are told to the gateway at once if they are as many, and else with the next tick."""

TICKS_OF_A_REPORT = 20
NICENESS = 15
"""The gateway and the model servers go first where there are too few cores."""

TRACES_S = 0.3
"""How long the last spans may take at the end of the process."""

MOST_COMPARED = 32
"""Pairs of answers that a worker compares at a time."""

MOST_COMPARED_BYTES = 2 * MOST_BYTES
"""Bytes of the answers that a worker compares at a time, decompressed: seconds, of the 30 s after which it is ended."""

MOST_UNCOMPARED = 512
_MOST_INFLATION = 1032
"""The most bytes that a byte of deflate can become: https://zlib.net/zlib_tech.html."""

_Leased = tuple[Exchange, ByteLease | None]
_log = logging.getLogger(__name__)


class Comparer:
    """Has answers compared in another process, and keeps the tallies. Those for which there is no time are only counted."""

    def __init__(self, offload: Offload) -> None:
        self.tallies = Tallies()
        self.counts: Counter[str] = Counter()
        self._offload = offload
        self._waiting: list[_Leased] = []
        self._work = asyncio.Event()

    def add(self, exchange: Exchange, lease: ByteLease | None) -> None:
        if not isinstance(exchange.shadow, Answer):
            self.tallies.add(exchange)
        elif lease is not None and len(self._waiting) < MOST_UNCOMPARED:
            self._waiting.append((exchange, lease))
            self._work.set()
        else:
            self._leave([exchange])

    def _leave(self, exchanges: Sequence[Exchange]) -> None:
        """Count answers that are not compared."""
        self.counts["not compared"] += len(exchanges)
        for each in exchanges:
            self.tallies.add_uncompared(each)

    async def run(self) -> None:
        try:
            while True:
                await self._work.wait()
                await self._compare(self._next())
        finally:
            self._leave([exchange for exchange, _ in self._waiting])

    def _next(self) -> list[_Leased]:
        """Take the pairs of the next piece of work: at least one, and as many as are compared in seconds."""
        sizes = itertools.accumulate(_most_bytes(exchange) for exchange, _ in self._waiting[:MOST_COMPARED])
        count = max(1, sum(size_bytes <= MOST_COMPARED_BYTES for size_bytes in sizes))
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        if not self._waiting:
            self._work.clear()
        return batch

    async def _compare(self, batch: list[_Leased]) -> None:
        left = [exchange for exchange, _ in batch]
        try:
            found = await self._offload.run("compare_shadows", *worker_parts(left))
            self.tallies.merge(Tallies.from_json(result(found)))
            left.clear()
        except (OSError, TidegateError) as error:
            _log.warning("answers of shadows were not compared: %s: %s", type(error).__name__, error)
        finally:
            self._leave(left)
            # The leases and the answers end here, whatever still holds these lists, such as the traceback of a failure.
            batch.clear()
            left.clear()

    def take(self) -> Tallies:
        """Return the tallies since the last time."""
        taken, self.tallies = self.tallies, Tallies()
        return taken


def _most_bytes(exchange: Exchange) -> int:
    """Return the most bytes that the answers to compare can have, decompressed."""
    answers = [each for each in (exchange.primary, exchange.shadow) if isinstance(each, Answer)]
    return sum(
        min(MOST_BYTES, len(each.body) * (1 if each.header(b"content-encoding") is None else _MOST_INFLATION))
        for each in answers
    )


class CopyTransport:
    """A `Transport` of copies: over HTTP, and with the first one that came over gRPC over that, too. The port of an endpoint is the one
    that a copy goes to."""

    def __init__(self, http: Transport, limits: ResponseLimits) -> None:
        self._http = http
        self._limits = limits
        self._rpc: Transport | None = None

    async def send(
        self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None = None
    ) -> HttpResponse:
        if not request.is_rpc:
            return await self._http.send(endpoint, request, timeout_s, done)
        if self._rpc is None:
            # Nothing else needs grpc, which takes 50 ms to import.
            from tidegate.triton.rpc_transport import RpcTransport

            self._rpc = RpcTransport(self._http, lambda each: each.port, self._limits)
        return await self._rpc.send(endpoint, request, timeout_s, done)

    def hang_up(self, endpoint: Endpoint) -> None:
        self._http.hang_up(endpoint)
        if self._rpc is not None:
            self._rpc.hang_up(endpoint)


async def serve(
    connection: socket.socket, limits: ShadowLimits, connect_timeout_ms: int, most_bytes: int, tracing: str
) -> None:
    budget = ByteBudget(limits.buffered_bytes)
    response_limits = ResponseLimits(most_bytes, budget)
    http = PooledTransport(
        connect_timeout_s=connect_timeout_ms / 1000,
        max_idle_per_endpoint=limits.in_flight,
        limits=response_limits,
    )
    transport = CopyTransport(http, response_limits)
    workers = Workers(1)
    comparer = Comparer(workers)
    tracer = build_tracer(Settings(tracing=tracing), _report)
    refusing: dict[str, Drop] = {}
    freed: Counter[str] = Counter()
    # The gateway knows by their order which copies cannot be read.
    unread: list[int] = []
    seen_before = 0

    def tell(counts: Counter[str], tallies: Tallies) -> None:
        nonlocal seen_before
        done = [[pair, tally.carried_out] for pair, tally in tallies.pairs.items()]
        data = tallies.to_json() if tallies.pairs or tallies.left_out else b""
        places = [number - seen_before - 1 for number in unread]
        parts = [json.dumps([counts, refusing, done, freed, reader.seen - seen_before, places]).encode(), data]
        seen_before = reader.seen
        freed.clear()
        unread.clear()
        writer.writelines([frame(parts), *parts])

    def finished(exchange: Exchange, lease: ByteLease | None) -> None:
        comparer.add(exchange, lease)
        freed[exchange.pair.shadow_model] += 1
        if freed.total() >= FREED_AT_ONCE:
            tell(Counter(), Tallies())

    def unreadable(error: EventError) -> None:
        print(error, file=sys.stderr, flush=True)
        lanes.counts["failed: other"] += 1
        unread.append(reader.seen)

    lanes = ShadowLanes(transport, limits, budget, finished, tracer)
    reader = CopyReader(lanes.offer, unreadable)
    writer, _ = await asyncio.get_running_loop().create_connection(lambda: reader, sock=connection)

    def counted() -> Counter[str]:
        counts = lanes.counts + comparer.counts
        lanes.counts.clear()
        comparer.counts.clear()
        return counts

    async def report() -> None:
        nonlocal refusing
        for tick in itertools.count(1):
            await asyncio.sleep(REFUSING_S)
            before, refusing = refusing, lanes.refusing()
            counts: Counter[str] = Counter()
            tallies = Tallies()
            if tick % TICKS_OF_A_REPORT == 0:
                counts, tallies = counted(), comparer.take()
            if counts or tallies.pairs or freed or unread or refusing != before:
                tell(counts, tallies)

    try:
        # Whichever of them fails, the process ends, and the gateway starts another.
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(comparer.run()), group.create_task(report())]
            await reader.ended.wait()
            for task in tasks:
                task.cancel()
        refusing = {}
        tell(counted(), comparer.take())
        writer.close()
        await reader.closed.wait()
    finally:
        if tracer is not None:
            await asyncio.to_thread(tracer.close, TRACES_S)
        await workers.aclose()


def _report(text: str) -> None:
    """Report what became of spans that were lost, as this process does what it cannot read: it has no log."""
    print(text, file=sys.stderr, flush=True)


def main(descriptor: str, parent: str, arguments: str) -> None:
    end_with_parent(int(parent))
    os.nice(NICENESS)
    timeout_s, in_flight, waiting, buffered_bytes, connect_timeout_ms, most_bytes, tracing = json.loads(arguments)
    limits = ShadowLimits(timeout_s, in_flight, waiting, buffered_bytes)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(socket.socket(fileno=int(descriptor)), limits, connect_timeout_ms, most_bytes, tracing))


if __name__ == "__main__":
    main(*sys.argv[1:])
