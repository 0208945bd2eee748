"""Callers that time out, overload a model or hold connections do not affect other callers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.isolation.conftest import Bystander
from tests.isolation.place import Order, Place, infer
from tests.support.stack import eventually
from tests.support.wire import Wire, ask

ATTACK_S = 3.0


class Noise:
    """Callers that repeat one request as fast as they are answered, and count the answers."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()


@contextmanager
def noise(port: int, request: bytes, connections: int, pause_s: float = 0.0) -> Iterator[Noise]:
    """Repeat a request over kept connections for as long as a block lasts."""
    heard, stopped = Noise(), threading.Event()

    def go_on() -> None:
        wire = None
        while not stopped.wait(pause_s):
            try:
                wire = wire or Wire(port)
                reply = wire.send(request).reply()
            except OSError:
                reply = None
            heard.statuses[reply.status if reply is not None else 0] += 1
            if wire is not None and (reply is None or reply.headers.get("connection") == "close"):
                wire.socket.close()
                wire = None
        if wire is not None:
            wire.socket.close()

    threads = [threading.Thread(target=go_on) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield heard
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    print(dict(heard.statuses))


def test_a_caller_at_ten_times_its_limit_costs_nobody_else_an_answer(place: Place, bystander: Bystander) -> None:
    with bystander():
        began = time.monotonic()
        with noise(place.port, infer("quiet", (0.5,), "limited"), 8, pause_s=8 / 200) as heard:
            time.sleep(ATTACK_S)
        took_s = time.monotonic() - began
    assert set(heard.statuses) == {200, 429}
    assert heard.statuses[200] <= 20 * took_s + 5
    assert heard.statuses[200] >= 20 * ATTACK_S / 2, "its own limit is served"
    assert heard.statuses[429] > heard.statuses[200]


def test_a_header_that_a_server_would_refuse_costs_nobody_else_one(place: Place, bystander: Bystander) -> None:
    with bystander():
        for name in ("traceparent", "Content-Type", "X-Unknown", "Tidegate-Context", "X-City"):
            for size in (8_100, 9_000, 16_000):
                value = '{"country": "' + "a" * size + '"}' if name == "Tidegate-Context" else "a" * size
                request = infer("fragile", (0.5,), "attacker", (name, value))
                statuses = {place.ask(request).status for _ in range(6)}
                assert statuses <= ({431} if name in ("traceparent", "Content-Type") else {200, 431}), (name, size)
                assert place.ask(infer("fragile")).status == 200


def test_callers_without_patience_make_no_server_look_ill(place: Place, bystander: Bystander) -> None:
    impatient = infer("slow", (0.5,), "attacker", ("Tidegate-Timeout-Ms", "25"))
    with bystander(), bystander("slow", per_s=4), noise(place.port, impatient, 1, pause_s=0.1) as heard:
        time.sleep(ATTACK_S)
    assert set(heard.statuses) <= {503, 504}


def test_a_full_queue_of_one_model_is_no_ill_health_of_its_server(place: Place, bystander: Bystander) -> None:
    with bystander(), noise(place.port, infer("queue"), 12, pause_s=0.1) as heard:
        time.sleep(ATTACK_S)
    assert set(heard.statuses) <= {200, 503}
    assert heard.statuses[200] > 0


@pytest.mark.parametrize("order", [Order.RAISE, Order.END_STUB], ids=["raises", "ends"])
def test_a_model_that_fails_takes_no_other_with_it(place: Place, bystander: Bystander, order: Order) -> None:
    before = place.server_pids()
    with bystander(), noise(place.port, infer("fragile", (order,)), 2, pause_s=0.05) as heard:
        time.sleep(ATTACK_S)
    assert 200 not in heard.statuses
    assert place.server_pids() == before
    assert eventually(lambda: place.answers("fragile"))


def test_many_connections_get_no_false_503(place: Place) -> None:
    with noise(place.port, infer("quiet"), 200) as heard:
        assert eventually(lambda: heard.statuses.total() > 400)
    assert set(heard.statuses) == {200}


def test_an_overloaded_model_serves_what_it_can_and_recovers_with_the_end_of_the_load(
    place: Place, bystander: Bystander
) -> None:
    with bystander(), noise(place.port, infer("slow"), 100, pause_s=0.05) as heard:
        time.sleep(ATTACK_S)
    assert set(heard.statuses) <= {200, 503, 504}
    assert heard.statuses[200] > 0
    # Answered within the deadline only if abandoned requests are not computed first.
    last = ask(place.port, infer("slow", (0.5,), "attacker", ("Tidegate-Timeout-Ms", "4000")))
    assert last is not None
    assert last.status == 200


def test_callers_that_leave_cost_nobody_else_an_answer(place: Place, bystander: Bystander) -> None:
    with bystander(), bystander("slow", per_s=2):
        for number in range(300):
            with Wire(place.port) as wire:
                wire.send(infer("quiet" if number % 10 else "slow"))
                if number % 2:
                    wire.socket.shutdown(1)


def test_a_server_that_others_keep_busy_is_hedged(place: Place) -> None:
    """What keeps the server busy does not come from this gateway, which therefore goes on choosing it."""
    hedged = infer("slow", (0.5,), "attacker", ("Tidegate-Context", '{"country": "SE"}'))
    place.wait_whole()
    # Hedges leave half of the retry budget alone, which the tests before this one may have used up.
    with Wire(place.port) as wire:
        for _ in range(250):
            assert (reply := wire.send(infer("quiet")).reply()) is not None
            assert reply.status == 200
    port = urlsplit(place.stack.fleet()["a"][0]["url"]).port
    assert port is not None
    # Two connections leave no gap between two of these requests in which the hedged one would be answered.
    with noise(port, infer("slow", (Order.SLEEP_MS, 2000.0)), 2) as heard:
        assert eventually(lambda: place.ask(hedged).headers.get("tidegate-hedge") == "won")
    assert set(heard.statuses) == {200}
