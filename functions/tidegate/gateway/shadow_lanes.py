"""Sends copies of requests to shadows: a few at a time to each, never twice, each within its own time."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from tidegate.byte_budget import ByteBudget, ByteLease
from tidegate.errors import (
    EndpointAnswerTooLargeError,
    EndpointError,
    EndpointRefusedError,
    EndpointResetError,
    EndpointTimeoutError,
)
from tidegate.gateway.spans import answered, copy_span, end_with
from tidegate.ports import Endpoint, HttpRequest, Tracer, Transport
from tidegate.ports.tracing import continued
from tidegate.shadows.copy import ShadowCopy
from tidegate.shadows.counts import Drop, dropped
from tidegate.shadows.exchange import Answer, Exchange, NoAnswer
from tidegate.tasks import spawn
from tidegate.trace_context import trace_parent

FAILURES = 3
"""Failures in a row after which a shadow gets no copies for a while."""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0

_WHY: tuple[tuple[type[EndpointError], NoAnswer], ...] = (
    (EndpointRefusedError, NoAnswer.REFUSED),
    (EndpointResetError, NoAnswer.RESET),
    (EndpointTimeoutError, NoAnswer.TIMEOUT),
    (EndpointAnswerTooLargeError, NoAnswer.TOO_LARGE),
)


class ShadowLimits(NamedTuple):
    """The limits of a process that sends copies.

    Attributes:
        timeout_s: how long a copy may wait, and again how long its answer may take.
        in_flight: the most copies that each shadow has at a time, among them those whose answer did not come, for another `timeout_s`.
        waiting: the most copies that wait for each shadow.
        buffered_bytes: the most bytes of copies, answers included.
    """

    timeout_s: float
    in_flight: int
    waiting: int
    buffered_bytes: int


Finished = Callable[[Exchange, ByteLease | None], None]
"""Gets each copy with its answer, or why there is none, and the lease of its bytes; None if there was no room for both answers, or
none was sent."""


class _Waiting(NamedTuple):
    copy: ShadowCopy
    lease: ByteLease
    until_s: float


class _Lane:
    """One shadow: the copies that wait, and how many are with the endpoints."""

    __slots__ = ("closed_until_s", "failures", "in_flight", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[_Waiting] = deque()
        self.in_flight = 0
        self.failures = 0
        self.closed_until_s = 0.0

    def is_full(self, limits: ShadowLimits) -> bool:
        return self.in_flight >= limits.in_flight and len(self.waiting) >= limits.waiting

    def is_used(self, now_s: float) -> bool:
        return bool(self.waiting or self.in_flight or now_s < self.closed_until_s)


class ShadowLanes:
    """Sends copies on one event loop.

    Args:
        transport: connections that no request uses.
        limits: see `ShadowLimits`.
        budget: counts the bytes of copies.
        finished: see `Finished`.
        tracer: continues the traces of the requests that were copied; None: copies are not traced.
    """

    def __init__(
        self,
        transport: Transport,
        limits: ShadowLimits,
        budget: ByteBudget,
        finished: Finished,
        tracer: Tracer | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._transport = transport
        self._limits = limits
        self._budget = budget
        self._finished = finished
        self._tracer = tracer
        self._lanes: dict[str, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def refusing(self) -> dict[str, Drop]:
        """Return the shadows, by their models, that take no copy now, and why."""
        now_s = self._loop.time()
        return {
            name: Drop.FAILING if now_s < lane.closed_until_s else Drop.QUEUE_FULL
            for name, lane in self._lanes.items()
            if now_s < lane.closed_until_s or lane.is_full(self._limits)
        }

    def offer(self, copy: ShadowCopy) -> None:
        """Send a copy now or in turn, or drop it."""
        name, now_s = copy.pair.shadow_model, self._loop.time()
        lane = self._lanes.get(name)
        if lane is None:
            self._lanes = {key: each for key, each in self._lanes.items() if each.is_used(now_s)}
            lane = self._lanes[name] = _Lane()
        if now_s < lane.closed_until_s:
            self._drop(copy, Drop.FAILING)
        elif lane.is_full(self._limits):
            self._drop(copy, Drop.QUEUE_FULL)
        elif (lease := self._budget.lease(copy.size_bytes)) is None:
            self._drop(copy, Drop.MEMORY)
        else:
            lane.waiting.append(_Waiting(copy, lease, now_s + self._limits.timeout_s))
            self._send_waiting(lane)

    def _send_waiting(self, lane: _Lane) -> None:
        while lane.waiting and lane.in_flight < self._limits.in_flight:
            waiting = lane.waiting.popleft()
            now_s = self._loop.time()
            if now_s < lane.closed_until_s:
                self._drop(waiting.copy, Drop.FAILING)
            elif now_s >= waiting.until_s:
                self._drop(waiting.copy, Drop.LATE)
            else:
                lane.in_flight += 1
                spawn(self._tasks, self._sent(lane, waiting))

    async def _sent(self, lane: _Lane, waiting: _Waiting) -> None:
        copy, timeout_s = waiting.copy, self._limits.timeout_s
        self.counts["sent"] += 1
        try:
            shadow = await send_copy(self._transport, copy, timeout_s, self._tracer)
        except asyncio.CancelledError:
            lane.in_flight -= 1
            raise
        self._note(lane, shadow)
        if shadow is NoAnswer.TIMEOUT:
            # The server may still work on it. A shadow that hangs must not collect ever more copies.
            self._loop.call_later(timeout_s, self._leave, lane)
        else:
            self._leave(lane)
        lease: ByteLease | None = waiting.lease
        if isinstance(shadow, Answer) and not waiting.lease.grow(copy.size_bytes + len(shadow.body)):
            lease = None
        self._finished(copy.exchange(shadow), lease)

    def _leave(self, lane: _Lane) -> None:
        lane.in_flight -= 1
        self._send_waiting(lane)

    def _note(self, lane: _Lane, shadow: Answer | NoAnswer) -> None:
        if isinstance(shadow, Answer):
            self.counts["answered" if shadow.status == 200 else f"failed: status {shadow.status}"] += 1
            lane.failures = 0
            return
        self.counts[f"failed: {shadow}"] += 1
        lane.failures += 1
        if lane.failures >= FAILURES:
            lane.closed_until_s = self._loop.time() + pause_s(lane.failures)

    def _drop(self, copy: ShadowCopy, reason: Drop) -> None:
        self.counts[dropped(reason)] += 1
        self._finished(copy.exchange(reason), None)


def pause_s(failures: int) -> float:
    """Return how long a shadow gets no copies after so many failures in a row, in seconds."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - FAILURES, 10))


async def send_copy(
    transport: Transport, copy: ShadowCopy, timeout_s: float, tracer: Tracer | None = None
) -> Answer | NoAnswer:
    """Send a copy once, and return the answer or why there is none. Its span continues the trace of the request, if that is recorded."""
    loop = asyncio.get_running_loop()
    is_rpc, headers, span = copy.primary.is_rpc, copy.headers, None
    if tracer is not None and trace_parent(headers) is not None:
        span = copy_span(tracer, copy)
        headers = continued(headers, span)
    request = HttpRequest("POST", copy.path, headers, copy.body, True, is_rpc=is_rpc)
    began_s = loop.time()
    try:
        response = await transport.send(Endpoint(copy.shard, *copy.address), request, timeout_s)
    except BaseException as error:
        if span is not None:
            end_with(span, error)
        if isinstance(error, EndpointError):
            return next((why for kind, why in _WHY if isinstance(error, kind)), NoAnswer.OTHER)
        if isinstance(error, ValueError):
            # A header that cannot be sent.
            return NoAnswer.OTHER
        raise
    if span is not None:
        answered(span, response, is_rpc)
    return Answer(response.status, response.headers, response.body, (loop.time() - began_s) * 1000.0, is_rpc)
