"""Sending copies, in virtual time: bounds, order, time-outs, pauses; every copy ends exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tidegate.byte_budget import ByteBudget, ByteLease
from tidegate.errors import EndpointAnswerTooLargeError, EndpointRefusedError, EndpointResetError, EventError
from tidegate.gateway.shadow_lanes import ShadowLanes, ShadowLimits
from tidegate.ports import Endpoint, HttpRequest, HttpResponse
from tidegate.shadows.copy import FORMAT, ShadowCopy, read_copy
from tidegate.shadows.counts import Drop
from tidegate.shadows.exchange import Answer, Exchange, NoAnswer, Pair
from tidegate.testing import MemoryTransport

from tests.support.virtual_time import run

LIMITS = ShadowLimits(timeout_s=2.0, in_flight=2, waiting=3, buffered_bytes=1_000_000)
OK = HttpResponse(200, [], b"ok")


def copy(model: str = "fresh", size_bytes: int = 10) -> ShadowCopy:
    pair = Pair("ranking", "us", "ranker", "ranker", model, model)
    primary = Answer(200, [], b"", 1.0)
    path = f"/v2/models/{model}/infer"
    return ShadowCopy(pair, "r1", 1.0, None, "b", ("b1", 8000), path, [], b"x" * size_bytes, primary)


class Lanes:
    """Lanes over a model that `answer` answers for, and what they finished."""

    def __init__(self, answer: Callable[[], Awaitable[HttpResponse]], limits: ShadowLimits = LIMITS) -> None:
        self.finished: list[Exchange] = []
        self.most = 0
        self._answer = answer
        self._under_way = 0
        self.budget = ByteBudget(limits.buffered_bytes)
        self.transport = MemoryTransport(self._send)
        self.lanes = ShadowLanes(self.transport, limits, self.budget, self._finish)

    async def _send(self, _endpoint: Endpoint, _request: HttpRequest) -> HttpResponse:
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            return await self._answer()
        finally:
            self._under_way -= 1

    def _finish(self, exchange: Exchange, _lease: ByteLease | None) -> None:
        self.finished.append(exchange)

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.lanes.counts)


def taking(seconds: float) -> Callable[[], Awaitable[HttpResponse]]:
    async def answer() -> HttpResponse:
        await asyncio.sleep(seconds)
        return OK

    return answer


def failing(error: Exception) -> Callable[[], Awaitable[HttpResponse]]:
    async def answer() -> HttpResponse:
        raise error

    return answer


def test_a_burst_is_sent_a_few_at_a_time_and_the_rest_is_dropped() -> None:
    async def work() -> Lanes:
        lanes = Lanes(taking(0.5))
        for _ in range(10):
            lanes.lanes.offer(copy())
        await asyncio.sleep(3)
        return lanes

    lanes = run(work())
    assert lanes.most == 2
    assert lanes.counts == {"sent": 5, "answered": 5, "dropped: queue full": 5}
    assert [each.shadow for each in lanes.finished].count(Drop.QUEUE_FULL) == 5
    latencies = [each.shadow.latency_ms for each in lanes.finished if isinstance(each.shadow, Answer)]
    assert latencies == [pytest.approx(500.0)] * 5, "the time in the queue is not the shadow's"
    lanes.finished.clear()
    assert lanes.budget.used_bytes == 0


def test_without_a_queue_as_many_are_sent_as_may_be_in_flight() -> None:
    async def work() -> dict[str, int]:
        lanes = Lanes(taking(0.5), LIMITS._replace(waiting=0))
        assert lanes.lanes.refusing() == {}
        for _ in range(5):
            lanes.lanes.offer(copy())
        assert lanes.lanes.refusing() == {"fresh": Drop.QUEUE_FULL}
        await asyncio.sleep(1)
        return lanes.counts

    assert run(work()) == {"sent": 2, "answered": 2, "dropped: queue full": 3}


def test_a_shadow_that_hangs_holds_up_no_other() -> None:
    async def work() -> tuple[Lanes, float]:
        loop = asyncio.get_running_loop()
        hanging = True

        async def answer() -> HttpResponse:
            if hanging:
                await asyncio.sleep(3600)
            return OK

        lanes = Lanes(answer)
        for _ in range(5):
            lanes.lanes.offer(copy("stuck"))
        await asyncio.sleep(0)
        hanging = False
        began_s = loop.time()
        lanes.lanes.offer(copy("fresh"))
        await asyncio.sleep(0.001)
        assert [each.pair.shadow for each in lanes.finished] == ["fresh"]
        took_s = loop.time() - began_s
        await asyncio.sleep(10)
        return lanes, took_s

    lanes, took_s = run(work())
    assert took_s < 0.01
    assert lanes.counts == {"sent": 3, "answered": 1, "failed: timeout": 2, "dropped: late": 3}


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (EndpointRefusedError("no"), NoAnswer.REFUSED),
        (EndpointResetError("no"), NoAnswer.RESET),
        (EndpointAnswerTooLargeError("no"), NoAnswer.TOO_LARGE),
        (ValueError("a header"), NoAnswer.OTHER),
    ],
)
def test_a_failure_is_told_and_never_sent_again(error: Exception, why: NoAnswer) -> None:
    async def work() -> Lanes:
        lanes = Lanes(failing(error))
        lanes.lanes.offer(copy())
        await asyncio.sleep(60)
        return lanes

    lanes = run(work())
    assert [each.shadow for each in lanes.finished] == [why]
    assert len(lanes.transport.sent) == 1
    assert lanes.transport.sent[0][1].send_once


def test_a_shadow_that_fails_is_left_alone_for_longer_and_longer() -> None:
    async def work() -> Lanes:
        lanes = Lanes(failing(EndpointRefusedError("no")))
        for _ in range(600):
            lanes.lanes.offer(copy())
            await asyncio.sleep(0.1)
        return lanes

    lanes = run(work())
    counts = lanes.counts
    # Three at first, then one after 1, 2, 4, 8, 16 and 30 s.
    assert counts["sent"] == counts["failed: refused"] <= 9
    assert counts["dropped: failing"] == 600 - counts["sent"]


def test_copies_hold_no_more_bytes_than_they_may() -> None:
    async def work() -> Lanes:
        lanes = Lanes(taking(0.5), LIMITS._replace(buffered_bytes=25))
        for _ in range(4):
            lanes.lanes.offer(copy(size_bytes=10))
        await asyncio.sleep(5)
        return lanes

    assert run(work()).counts == {"sent": 2, "answered": 2, "dropped: memory": 2}


@pytest.mark.parametrize("data", [b"", b"x" * 12, b"".join(copy().parts())[:-5], b"".join(copy().parts())[3:]])
def test_what_is_no_copy_is_refused(data: bytes) -> None:
    with pytest.raises(EventError):
        read_copy(data)


def test_a_copy_of_another_format_is_refused() -> None:
    data = b"".join(copy().parts())
    assert read_copy(data) == copy()
    with pytest.raises(EventError):
        read_copy(bytes([FORMAT + 1]) + data[1:])
