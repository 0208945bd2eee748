"""A server that runs and answers nothing: it is sent no requests, comes back by itself, and else is replaced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from tidegate.fleet.pulse import ANSWER_S, MISSES, Pulse
from tidegate.fleet.slot import LONGEST_HOLD_S, RECENT_S, Patience, Turn
from tidegate.ports import EndpointState
from tidegate.testing import MemoryModelServer

from tests.control.plane import Plane
from tests.fleet.test_fleet import running
from tests.support.virtual_time import run

NOTICED_S = 8.0
"""In so many seconds a server that answers nothing is out of the directory."""


async def started(plane: Plane) -> list[MemoryModelServer]:
    await plane.publish(main="pipeline", other="popular")
    await asyncio.sleep(5)
    return plane.launcher.running("a")


async def registered(plane: Plane, server: MemoryModelServer) -> EndpointState:
    (state,) = [entry.state for entry in await plane.registry.endpoints() if entry.endpoint == server.endpoint]
    return state


def test_a_silent_server_is_sent_nothing_and_then_replaced_by_one_that_holds_everything() -> None:
    async def work() -> None:
        plane = Plane()
        async with running(plane) as fleet:
            hung, other = await started(plane)
            hung.stopped = True
            await asyncio.sleep(NOTICED_S)
            assert hung.running
            assert fleet.directory.endpoints("a") == (other.endpoint,)
            await asyncio.sleep(10)
            assert await registered(plane, other) is EndpointState.READY
            assert not hung.running
            assert len(fleet.directory.endpoints("a")) == 2
            assert plane.held("a") == [{"features/2", "scorer/1", "pipeline/1"}] * 2
            (restarts,) = fleet.restarts()
            assert restarts.reason.startswith("answered nothing for 1")

    run(work())


def test_a_server_that_answers_again_comes_back_with_what_was_published_meanwhile() -> None:
    async def work() -> None:
        plane = Plane()
        async with running(plane) as fleet:
            hung, other = await started(plane)
            hung.stopped = True
            await asyncio.sleep(NOTICED_S)
            assert fleet.directory.endpoints("a") == (other.endpoint,)
            assert await registered(plane, hung) is EndpointState.LOADING
            hung.stopped = False
            await asyncio.sleep(NOTICED_S)
            assert set(fleet.directory.endpoints("a")) == {hung.endpoint, other.endpoint}
            assert await registered(plane, hung) is EndpointState.READY
            await asyncio.sleep(60)
            assert plane.launcher.running("a") == [hung, other]
            assert fleet.restarts() == ()

    run(work())


def test_the_only_server_of_a_shard_is_left_out_too_and_is_back_at_once_where_the_registry_is_down() -> None:
    async def work() -> None:
        plane = Plane()
        async with running(plane) as fleet:
            await started(plane)
            (hung,) = plane.launcher.running("b")
            plane.registry.faults.failing["*"] = "down"
            hung.stopped = True
            await asyncio.sleep(NOTICED_S)
            assert fleet.directory.endpoints("b") == ()
            hung.stopped = False
            await asyncio.sleep(NOTICED_S)
            assert fleet.directory.endpoints("b") == (hung.endpoint,)
            plane.registry.faults.failing.clear()
            await asyncio.sleep(NOTICED_S)
            assert plane.launcher.running("b") == [hung]

    run(work())


def test_a_stop_asks_nothing_of_a_silent_server() -> None:
    async def work() -> list[str]:
        plane = Plane()
        async with running(plane):
            silent, other = await started(plane)
            silent.stopped = True
            await asyncio.sleep(6)
        return [await each.wait() for each in (silent, other)]

    assert run(work()) == ["was killed", "was stopped"]


def test_where_every_server_is_silent_one_is_replaced_at_a_time() -> None:
    async def work() -> None:
        plane = Plane()
        async with running(plane) as fleet:
            servers = [*await started(plane), *plane.launcher.running("b")]
            gate = plane.faults.held["pipeline"] = plane.faults.held["popular"] = asyncio.Event()
            for server in servers:
                server.stopped = True
            await asyncio.sleep(30)
            assert sum(server.running for server in servers) == 2, "the first successor is not ready yet"
            gate.set()
            await asyncio.sleep(60)
            assert not any(server.running for server in servers)
            assert {shard: len(fleet.directory.endpoints(shard)) for shard in "ab"} == {"a": 2, "b": 1}

    run(work())


def test_a_successor_that_never_comes_holds_up_the_others_for_a_while_only() -> None:
    async def work() -> None:
        turn = Turn()
        assert turn.take()
        assert not turn.take()
        await asyncio.sleep(LONGEST_HOLD_S)
        assert turn.take()
        turn.leave()
        assert turn.take()

    run(work())


def test_a_place_whose_servers_fall_silent_again_and_again_is_given_more_time() -> None:
    patience = Patience(10)
    limits = []
    for number in range(5):
        limits.append(patience.limit_s(float(number)))
        patience.lose(float(number))
    assert limits == [10, 20, 40, 80, 80]
    assert patience.limit_s(RECENT_S + 5) == 10


def pulse_of(ask: Callable[[], object], for_s: float) -> Pulse:
    async def answer() -> bool:
        found = ask()
        if found is None:
            await asyncio.Event().wait()
        return bool(found)

    async def work() -> Pulse:
        pulse = Pulse(answer)
        task = asyncio.create_task(pulse.run())
        await asyncio.sleep(for_s)
        task.cancel()
        await asyncio.wait([task])
        return pulse

    return run(work())


@pytest.mark.parametrize("answer", [None, False], ids=["no answer", "refused"])
def test_silence_is_counted_in_seconds(answer: bool | None) -> None:
    pulse = pulse_of(lambda: answer, 30)
    assert pulse.is_silent
    assert 25 < pulse.silent_s <= 30


def test_one_lost_answer_is_no_silence() -> None:
    answers = iter([None, True, None, True, None])
    pulse = pulse_of(lambda: next(answers, None), MISSES * ANSWER_S + 1)
    assert not pulse.is_silent


def test_lateness_of_this_process_is_no_silence_of_the_server() -> None:
    """The loop is blocked for longer than an answer may take, while the answer lies ready."""

    async def work() -> Pulse:
        async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def ask() -> bool:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return True

        pulse = Pulse(ask)
        task = asyncio.create_task(pulse.run())
        for _ in range(2):
            await asyncio.sleep(0.01)
            time.sleep(ANSWER_S + 0.2)  # the lateness that is tested
        assert pulse.silent_s == 0
        await asyncio.sleep(0.2)
        assert not pulse.is_silent
        task.cancel()
        server.close()
        await asyncio.wait([task])
        return pulse

    assert asyncio.run(work()).silent_s == 0


def test_a_server_that_stops_while_it_looks_again_at_what_it_must_hold_is_given_the_same_time() -> None:
    async def work() -> None:
        plane = Plane()
        async with running(plane) as fleet:
            hung, _ = await started(plane)
            # Longer than twice the beat, so that each server looks again once the registry answers.
            plane.registry.faults.failing["*"] = "down"
            await asyncio.sleep(30)
            hung.stopped = True
            plane.registry.faults.failing.clear()
            await asyncio.sleep(NOTICED_S)
            assert hung.running
            hung.stopped = False
            await asyncio.sleep(NOTICED_S)
            assert hung.endpoint in fleet.directory.endpoints("a")
            assert fleet.restarts() == ()
            hung.stopped = True
            await asyncio.sleep(30)
            assert not hung.running
            assert len(fleet.directory.endpoints("a")) == 2

    run(work())
