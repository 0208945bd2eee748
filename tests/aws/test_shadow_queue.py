"""The sender of copies and of counts: what goes into which message, and what a queue that does not answer costs."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from tidegate.aws.shadow_queue import COUNTS_EVERY_S, MOST_COUNT_BYTES, ShadowQueue, copy_in
from tidegate.aws.wire import Wire, WireResponse
from tidegate.errors import StoreError
from tidegate.shadows.copy import ShadowCopy, read_copy
from tidegate.shadows.counts import Drop
from tidegate.shadows.exchange import Answer, Pair
from tidegate.shadows.sampled import SAMPLED, PairCounts

PAIR = Pair("main", "all", "base", "base/1", "ahead", "ahead/1")


class Service:
    """A wire that keeps the requests that SQS got; `fails` makes it answer nothing."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.fails = False

    def send(self, method: str, path: str, body: bytes = b"", **_: Any) -> WireResponse:
        if self.fails:
            raise StoreError("no answer")
        self.requests.append(json.loads(body) if path == "/" else {})
        return WireResponse(200, {}, b"")

    def messages(self) -> list[dict[str, Any]]:
        taken, self.requests = self.requests, []
        return [json.loads(each["MessageBody"]) for each in taken]


class World:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.sqs = Service()
        wire = cast("Wire", self.sqs)
        self.queue = ShadowQueue(wire, "http://queue", wire, "bucket", lambda: self.now_s)

    def flush(self, *copies: ShadowCopy, sampled: int = 0, pair: Pair = PAIR) -> dict[str, int]:
        counted = PairCounts()
        if sampled:
            counted.add(pair, "r", 1.0, SAMPLED, sampled)
        for each in copies:
            assert self.queue.offer(each) is None
        return dict(self.queue.flush(counted))


@pytest.fixture
def world() -> World:
    return World()


def copy_for(pair: Pair = PAIR) -> ShadowCopy:
    return ShadowCopy(pair, "r", 1.0, None, "a", ("h", 1), "/", [], b"{}", Answer(200, [], b"{}", 1.0))


def sampled_in(message: dict[str, Any]) -> int:
    return sum(counts[SAMPLED] for *_, counts in message.get("counts", []))


def test_counts_go_with_the_first_copy(world: World) -> None:
    counts = world.flush(copy_for(), copy_for(PAIR._replace(shadow_model="other/1")), sampled=2)
    assert counts == {"tried": 2, "queued": 2}
    groups = [each["MessageGroupId"] for each in world.sqs.requests]
    assert len(set(groups)) == 2, "the copies of one shadow do not hold up those of another"
    first, second = world.sqs.messages()
    assert (sampled_in(first), "counts" in second) == (2, False)
    assert first["id"] != second["id"]
    data = copy_in(first)
    assert data is not None
    assert read_copy(data).pair == PAIR


def test_counts_without_a_copy_wait_for_one_but_not_for_long(world: World) -> None:
    assert world.flush(sampled=3) == {}
    world.now_s += COUNTS_EVERY_S - 1
    assert world.flush(sampled=4) == {}
    assert world.sqs.messages() == []
    world.now_s += 1
    world.flush(sampled=5)
    (message,) = world.sqs.messages()
    assert (sampled_in(message), copy_in(message)) == (12, None)
    world.now_s += COUNTS_EVERY_S
    assert world.flush() == {}
    assert world.sqs.messages() == []
    world.flush(sampled=1)
    world.queue.send_counts()
    assert [sampled_in(each) for each in world.sqs.messages()] == [1]


def test_what_a_queue_does_not_take_is_counted_in_its_pair_and_told_later(world: World) -> None:
    world.sqs.fails = True
    assert world.flush(copy_for(), copy_for(), sampled=2) == {"tried": 1, "dropped: unreachable": 2}
    assert world.queue.refusal(PAIR) is Drop.UNREACHABLE
    world.now_s += COUNTS_EVERY_S + 1
    world.flush(sampled=1)
    world.sqs.fails = False
    world.now_s += COUNTS_EVERY_S + 1
    world.flush()
    (message,) = world.sqs.messages()
    ((pair, revision, _, _, counts),) = message["counts"]
    assert (pair, revision, counts) == (list(PAIR), "r", {SAMPLED: 3, "dropped: unreachable": 2})


def test_many_counts_have_a_message_of_their_own(world: World) -> None:
    counted = PairCounts()
    for number in range(MOST_COUNT_BYTES // 100):
        counted.add(PAIR._replace(rule=f"{'x' * 100}{number}"), "r", 1.0, SAMPLED)
    world.queue.offer(copy_for())
    world.queue.flush(counted)
    assert ["copy" in each for each in world.sqs.messages()] == [False, True]
