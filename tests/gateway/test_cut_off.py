"""Requests that were cut off: what the model may still work on counts against its endpoint, for a bounded time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.errors import OverloadedError
from tidegate.gateway import DispatchConfig, Dispatcher
from tidegate.gateway.cut_off import LONGEST_LEFT_S
from tidegate.gateway.places import Place, Places
from tidegate.ports import Endpoint, HttpRequest, HttpResponse
from tidegate.testing import MemoryEndpointDirectory, MemoryTransport
from tidegate.triton.transport import PooledTransport

from tests.gateway.world import A1, A2, INFER, MAIN, OK, decide
from tests.support import virtual_time
from tests.triton.test_transport import Scripted, read_request

ON_A = replace(MAIN, shards=("a",))


def place_of(usual_s: float | None, now_s: float = 0.0) -> Place:
    place = Places(DispatchConfig(), lambda: now_s).place(A1, "m")
    if usual_s is not None:
        place.limit.sample(usual_s, 1, now_s)
    return place


def cut_off(*waited_s: float, usual_s: float | None) -> list[float]:
    """The times at which a place that was asked at time 0, and cut off after these times, stops counting."""

    async def scenario() -> list[float]:
        place, ends, loop = place_of(usual_s), [], asyncio.get_running_loop()
        for _ in waited_s:
            place.enter(0.0)
        before_s = 0.0
        for each_s in sorted(waited_s):
            await asyncio.sleep(each_s - before_s)
            before_s = each_s
            place.cut_off(each_s, loop.time())
        while place.in_flight:
            counted = place.in_flight
            while place.in_flight == counted:
                await asyncio.sleep(0.001)
            ends += [round(loop.time(), 2)] * (counted - place.in_flight)
        assert place.server.outstanding == 0
        return ends

    return virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("waited_s", "usual_s", "ends_s"),
    [
        (0.01, 0.1, 0.1),  # the caller left early: the model goes on for its usual time
        (0.2, 0.1, 0.4),  # late: who knows when it ends
        (0.01, None, 1.0),  # nothing is known of the model
        (100.0, 0.1, 100.0 + LONGEST_LEFT_S),
    ],
)
def test_one_counts_for_as_long_as_the_model_usually_takes(
    waited_s: float, usual_s: float | None, ends_s: float
) -> None:
    assert cut_off(waited_s, usual_s=usual_s) == [pytest.approx(ends_s, abs=0.01)]


def test_several_count_one_after_the_other() -> None:
    assert cut_off(0.01, 0.01, 0.01, usual_s=0.1) == pytest.approx([0.1, 0.2, 0.3], abs=0.02)


def test_a_later_answer_shows_that_the_server_got_through_them() -> None:
    async def scenario() -> None:
        place, loop = place_of(0.1), asyncio.get_running_loop()
        for _ in range(10):
            place.enter(0.0)
            place.cut_off(0.0, 0.0)
        await asyncio.sleep(0.15)
        assert place.in_flight == 9
        place.enter(0.15)
        await asyncio.sleep(0.1)
        place.leave(0.1, 1, loop.time())
        assert place.in_flight == 0

    virtual_time.run(scenario())


@given(st.integers(0, 10_000))
def test_the_count_is_never_wrong_and_ends(seed: int) -> None:
    """Whatever comes between, no request is counted twice, none for ever."""
    chance = random.Random(seed)

    async def scenario() -> None:
        place, loop, sent = place_of(chance.choice([None, 0.05])), asyncio.get_running_loop(), list[float]()
        for _ in range(60):
            await asyncio.sleep(chance.choice([0.0, 0.001, 0.03, 0.5]))
            now_s = loop.time()
            if chance.random() < 0.6 and place.has_room(now_s):
                place.enter(now_s)
                sent.append(now_s)
            elif sent:
                sent_s = sent.pop(chance.randrange(len(sent)))
                if chance.random() < 0.5:
                    place.cut_off(now_s - sent_s, now_s)
                else:
                    place.leave(chance.choice([None, now_s - sent_s]), 1, now_s)
            assert place.in_flight >= len(sent)
            assert place.server.outstanding == place.in_flight
        await asyncio.sleep(LONGEST_LEFT_S + 0.01)
        assert place.in_flight == place.server.outstanding == len(sent)

    virtual_time.run(scenario())


def on_two(answer: Callable[[Endpoint], float]) -> tuple[Dispatcher, MemoryTransport]:
    async def answers(endpoint: Endpoint, request: HttpRequest) -> HttpResponse:
        if not request.apart:
            await asyncio.sleep(answer(endpoint))
        return OK

    transport = MemoryTransport(answers)
    directory = MemoryEndpointDirectory({"a": (A1, A2)})
    return Dispatcher(transport, directory, clock=lambda: asyncio.get_running_loop().time()), transport


def test_an_endpoint_that_hangs_is_not_taken_for_an_idle_one() -> None:
    """Callers leave an endpoint that answers nothing; the requests that follow go to the other."""

    async def scenario() -> None:
        dispatcher, transport = on_two(lambda endpoint: 1000.0 if endpoint == A1 else 0.01)
        for _ in range(20):
            asking = asyncio.create_task(
                dispatcher.dispatch(decide(target=ON_A), INFER, asyncio.get_running_loop().time() + 9)
            )
            await asyncio.sleep(0.03)
            asking.cancel()
            await asyncio.wait([asking])
        hung = [endpoint for endpoint, request in transport.sent if not request.apart and endpoint == A1]
        assert len(hung) == 1
        dispatcher.close()

    virtual_time.run(scenario())


def test_an_endpoint_that_answers_nothing_is_examined_though_its_callers_left() -> None:
    async def scenario() -> None:
        dispatcher, transport = on_two(lambda _: 1000.0)
        asking = asyncio.create_task(dispatcher.dispatch(decide(target=ON_A), INFER, 9.0))
        await asyncio.sleep(0.03)
        asking.cancel()
        await asyncio.sleep(3)
        assert len([request for _, request in transport.sent if request.apart]) == 1
        dispatcher.close()

    virtual_time.run(scenario())


def test_a_request_that_was_not_sent_yet_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        sent = asyncio.Event()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
            await read_request(reader)
            sent.set()
            await asyncio.Event().wait()

        async with Scripted(script) as server:
            transport = PooledTransport(max_per_endpoint=1)
            shard = server.endpoint.shard
            dispatcher = Dispatcher(transport, MemoryEndpointDirectory({shard: (server.endpoint,)}))
            decision = decide(target=replace(MAIN, shards=(shard,)))
            deadline_s = dispatcher.deadline_s(decision)
            asking = [asyncio.create_task(dispatcher.dispatch(decision, INFER, deadline_s)) for _ in range(2)]
            await sent.wait()
            for number, left in ((1, 1), (0, 1)):
                asking[number].cancel()
                await asyncio.wait([asking[number]])
                (load,) = dispatcher.loads()
                assert load.outstanding == left, "only what was sent may still be worked on"
            dispatcher.close()
            await transport.aclose()

    asyncio.run(scenario())


def test_a_request_that_is_cancelled_as_its_turn_comes_says_nothing_of_the_endpoint() -> None:
    """It waited for longer than an endpoint may be silent; the one after it is under way for less."""

    async def scenario() -> None:
        config = DispatchConfig(initial_in_flight=1, most_in_flight=1, queue_ms=60_000, silent_ms=1_000)
        transport = MemoryTransport(answers)
        directory = MemoryEndpointDirectory({"a": (A1,)})
        loop = asyncio.get_running_loop()
        dispatcher = Dispatcher(transport, directory, config, clock=loop.time)

        async def ask(leaving: list[asyncio.Task[None]]) -> None:
            await dispatcher.dispatch(decide(target=ON_A), INFER, loop.time() + 60)
            for each in leaving:
                each.cancel()

        before = [asyncio.create_task(ask([])) for _ in range(3)]
        leaving: list[asyncio.Task[None]] = []
        before.append(asyncio.create_task(ask(leaving)))
        leaving.append(asyncio.create_task(ask([])))
        after = asyncio.create_task(ask([]))
        await asyncio.gather(*before, after)
        assert leaving[0].cancelled()
        assert [request for _, request in transport.sent if request.apart] == []
        assert len(transport.sent) == 5
        (load,) = dispatcher.loads()
        assert load.outstanding == 0
        dispatcher.close()

    async def answers(_endpoint: Endpoint, request: HttpRequest) -> HttpResponse:
        await asyncio.sleep(0.9)
        return OK

    virtual_time.run(scenario())


def test_a_request_without_a_chance_takes_no_room_from_others() -> None:
    async def scenario() -> None:
        dispatcher, transport = on_two(lambda _: 0.2)
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as warming:
            for _ in range(2):
                warming.create_task(dispatcher.dispatch(decide(target=ON_A), INFER, loop.time() + 9))
                await asyncio.sleep(0.01)
        asking = [
            asyncio.create_task(dispatcher.dispatch(decide(target=ON_A), INFER, loop.time() + 0.02)) for _ in range(40)
        ]
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert len(transport.sent) == 2 + 8, "a few show whether the model has become faster"
        assert {type(each) for each in results} == {OverloadedError}
        dispatcher.close()

    virtual_time.run(scenario())
