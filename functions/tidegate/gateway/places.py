"""A dispatcher's state of each endpoint, and of each model on it: load, health and concurrency limit."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

from tidegate.errors import EndpointBusyError, EndpointRefusedError
from tidegate.gateway.concurrency import LEAST, ConcurrencyLimit
from tidegate.gateway.config import DispatchConfig
from tidegate.gateway.cut_off import CutOffs
from tidegate.gateway.fair_queue import FairQueue
from tidegate.gateway.outliers import Standing
from tidegate.ports import Endpoint

UNKNOWN_USUAL_S: Final = 1.0
"""The assumed latency of a model that has not answered yet."""

SHORTEST_TRIAL_S: Final = 0.1
_MOST_SERVERS: Final = 4096


class Server:
    """One endpoint.

    Attributes:
        outstanding: the requests that it has or that wait for it, those included that were cut off and may still be worked on.
        quiet_since_s: the time of the last answer, or of the first request since; None: every request was answered.
        added_s: when it was first seen.
        returned_s: when it joined the shard's others or came back.
        queue: how many requests waited in the server's own queues lately, on average; None: unknown.
    """

    __slots__ = (
        "added_s", "endpoint", "is_down", "is_watched", "outstanding", "places", "queue", "quiet_since_s", "returned_s", "unsettled",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, added_s: float, returned_s: float) -> None:
        self.endpoint = endpoint
        self.added_s = added_s
        self.outstanding = 0
        self.returned_s = returned_s
        self.queue: float | None = None
        self.quiet_since_s: float | None = None
        self.unsettled: list[Place] = []
        self.is_down = False
        self.is_watched = False
        self.places: dict[str, Place] = {}

    @property
    def is_congested(self) -> bool:
        """Whether requests wait for room at any of its models."""
        return any(place.is_waited_for for place in self.places.values())

    def go_down(self) -> None:
        """Take the endpoint out: it gets no requests until `come_back`, and waiting ones move to the next candidate."""
        self.is_down = True
        for place in self.places.values():
            place.turn_away()

    def come_back(self, now_s: float) -> None:
        """Admit requests again, as the endpoint is healthy."""
        if self.is_down:
            self.is_down, self.returned_s = False, now_s
        self.quiet_since_s = now_s if self.outstanding else None

    def settle(self, now_s: float) -> None:
        """Stop counting the requests that were cut off and will have ended by now."""
        for place in tuple(self.unsettled):
            place.settle(now_s)


class Place:
    """One model on one endpoint: its breaker, its concurrency limit and the requests that wait for room."""

    __slots__ = (
        "_config",
        "_cut_off",
        "_failures",
        "_opened",
        "_queue",
        "has_dead_stub",
        "in_flight",
        "is_open",
        "limit",
        "model",
        "reported_at_s",
        "server",
        "standing",
    )  # fmt: skip

    def __init__(self, server: Server, model: str, config: DispatchConfig, now_s: float) -> None:
        self.server = server
        self.model = model
        self.in_flight = 0
        self.is_open = False
        self.has_dead_stub = False
        self.reported_at_s = -math.inf
        self.limit = ConcurrencyLimit(config.initial_in_flight, config.most_in_flight, now_s)
        self._config = config
        self._failures = 0
        self._opened = 0
        self._cut_off = CutOffs()
        self.standing = Standing()
        self._queue = FairQueue()

    @property
    def admits(self) -> bool:
        """Whether requests may be sent: the endpoint is up and the breaker closed."""
        return not self.is_open and not self.server.is_down

    @property
    def is_waited_for(self) -> bool:
        """Whether requests wait for room."""
        return bool(self._queue)

    @property
    def is_on_trial(self) -> bool:
        """Whether the model has not answered since its breaker opened."""
        return self._opened > 0

    def has_room(self, now_s: float) -> bool:
        """Return whether a request can be sent without waiting."""
        if self._cut_off.kept:
            self.settle(now_s)
        return self.in_flight < self.limit.at(now_s) and not self._queue.waiting

    def takes(self, limit_s: float, now_s: float) -> bool:
        """Return whether a request can be sent without waiting that has to be answered within `limit_s`.

        Of requests that have less than half of the model's usual time, a few may be under way, in case it has become faster. More
        would be work without a caller, since most servers go on with what was cut off.
        """
        if not self.has_room(now_s):
            return False
        if self.in_flight < LEAST:
            return True
        usual_s = self.limit.usual_s
        return usual_s is None or 2.0 * limit_s >= usual_s

    @property
    def trial_s(self) -> float:
        """The time limit for a model on trial while another place can serve, in seconds."""
        return max(SHORTEST_TRIAL_S, 3.0 * (self.limit.usual_s or UNKNOWN_USUAL_S))

    def had_its_time(self, waited_s: float) -> bool:
        """Return whether the model had its usual time, so that a time-out after `waited_s` counts against it."""
        usual_s = self.limit.usual_s
        return waited_s >= (UNKNOWN_USUAL_S if usual_s is None else 1.5 * usual_s)

    def enter(self, now_s: float) -> None:
        """Count a request that is about to be sent."""
        if self.server.quiet_since_s is None:
            self.server.quiet_since_s = now_s
        self.in_flight += 1
        self.server.outstanding += 1

    def leave(self, took_s: float | None, in_flight: int, now_s: float) -> None:
        """Count the end of a request that was sent with `in_flight` in flight, and admit waiters; see `tidegate.ports.Done`."""
        self.in_flight -= 1
        self.server.outstanding -= 1
        self.server.quiet_since_s = now_s if self.server.outstanding else None
        if took_s is not None:
            self.limit.sample(took_s, in_flight, now_s)
            self.standing.answered(took_s)
            if self._cut_off.kept:
                self._cut_off.overtaken(now_s - took_s)
                self.settle(now_s)
        self.let_in(now_s)

    def cut_off(self, waited_s: float, now_s: float) -> None:
        """Go on counting a request that was cut off after `waited_s`, for as long as the model may still work on it; see `CutOffs`."""
        usual_s, idle_s = self.limit.usual_s, self.limit.idle_s
        if usual_s is None or idle_s is None:
            usual_s, idle_s = UNKNOWN_USUAL_S, 0.0
        if waited_s > usual_s:
            self.standing.answered(waited_s)
        self.limit.took_longer(waited_s, now_s)
        if not self._cut_off.kept:
            self.server.unsettled.append(self)
        # For requests that wait while no other comes, which would settle too.
        loop = asyncio.get_running_loop()
        for at_s in self._cut_off.add(waited_s, usual_s, idle_s, now_s):
            loop.call_later(at_s - now_s, self.settle, at_s)

    def settle(self, now_s: float) -> None:
        """See `Server.settle`."""
        ended = self._cut_off.end(now_s)
        if not ended:
            return
        if not self._cut_off.kept:
            self.server.unsettled.remove(self)
        self.in_flight -= ended
        self.server.outstanding -= ended
        self.let_in(now_s)

    def let_in(self, now_s: float) -> None:
        """Enter on behalf of waiting requests, as far as there is room."""
        while self._queue.waiting and self.in_flight < self.limit.at(now_s):
            waiter = self._queue.pop()
            if waiter is None:
                break
            # Entered on behalf of the waiter, so that no other request takes its place first.
            self.enter(now_s)
            waiter.set_result(None)

    async def wait(self, flow: object, within_s: float, clock: Callable[[], float]) -> None:
        """Wait until a request can be sent, and `enter`.

        Args:
            flow: who waits; see `FairQueue`.
            within_s: the time that waiting and the answer may take together.
            clock: the clock of the times that are given to it.

        Raises:
            EndpointBusyError: the request cannot be sent in time.
            EndpointRefusedError: the endpoint went down meanwhile.
        """
        now_s = clock()
        # A measurement that times out raises the limit without a request that ends.
        self.let_in(now_s)
        if self.takes(within_s, now_s):
            self.enter(now_s)
            return
        most_s = min(self._config.queue_ms / 1000.0, within_s)
        self._make_room(flow, most_s, within_s)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.push(flow, waiter)
        self.server.outstanding += 1
        try:
            try:
                async with asyncio.timeout(most_s):
                    await waiter
            finally:
                self.server.outstanding -= 1
        except TimeoutError:
            self._give_up(waiter, clock())
            raise EndpointBusyError(f"no room within {most_s * 1000:.0f} ms") from None
        except asyncio.CancelledError:
            self._give_up(waiter, clock())
            raise

    def _make_room(self, flow: object, most_s: float, within_s: float) -> None:
        """Make room in the queue for a new waiter of a flow.

        If the queue is full, the waiter whose turn is last is displaced, so that a caller that fills the queue does not keep
        the others out.

        Raises:
            EndpointBusyError: the new waiter's turn would be last, or would come too late.
        """
        waiting = len(self._queue)
        usual_s = self.limit.usual_s or 0.0
        turn_s = usual_s / self.limit.sustained
        expected_s = (waiting + 1) * turn_s
        busy = f"{self.in_flight} requests are under way and {waiting} wait"
        if turn_s + usual_s > within_s:
            raise EndpointBusyError(busy)
        if waiting >= self._config.queue_most or expected_s > most_s:
            displaced = self._queue.displace(flow)
            if displaced is None:
                raise EndpointBusyError(busy)
            displaced.set_exception(EndpointBusyError("others, who have sent less, were served first"))
        elif expected_s + usual_s > within_s and not self._queue.precedes(flow):
            raise EndpointBusyError(busy)

    def _give_up(self, waiter: asyncio.Future[None], now_s: float) -> None:
        if waiter.done() and not waiter.cancelled():
            if waiter.exception() is None:
                self.leave(None, 0, now_s)
        else:
            waiter.cancel()
            self._queue.forget()

    def turn_away(self) -> None:
        """Move all waiters on to their next candidate."""
        while (waiter := self._queue.pop()) is not None:
            waiter.set_exception(EndpointRefusedError("the endpoint stopped answering"))

    def succeeded(self) -> None:
        """Close the breaker and reset its failures, as the model answered."""
        self._failures = self._opened = 0
        self.is_open = self.has_dead_stub = False

    def failed(self, *, at_once: bool = False) -> float | None:
        """Count a failure of the model; `at_once` opens the breaker regardless of the failures before.

        Return the seconds after which to ask whether the model is ready if the breaker opens now, else None.
        """
        self._failures += 1
        self.standing.failed()
        if self.is_open or (self._failures < self._config.breaker_failures and not at_once and not self._opened):
            return None
        config = self._config
        wait_ms = max(
            config.breaker_open_ms, min(config.breaker_open_ms * 2.0**self._opened, config.breaker_longest_ms)
        )
        self.is_open = True
        self._opened = min(self._opened + 1, 30)
        return wait_ms / 1000.0

    def try_again(self) -> None:
        """Admit requests on trial, as the model says that it is ready. The next failure opens the breaker again."""
        self.is_open = False


class Places:
    """The endpoints and places in use, created on first use."""

    def __init__(self, config: DispatchConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self.servers: dict[Endpoint, Server] = {}

    def server(self, endpoint: Endpoint) -> Server:
        """Return the state of an endpoint."""
        server = self.servers.get(endpoint)
        if server is None:
            if len(self.servers) >= _MOST_SERVERS:
                self.servers = {at: kept for at, kept in self.servers.items() if kept.outstanding or kept.is_watched}
            now_s = self._clock()
            server = self.servers[endpoint] = Server(endpoint, now_s, self._returned_s(endpoint.shard, now_s))
        return server

    def _returned_s(self, shard: str, now_s: float) -> float:
        """Return from when an endpoint that is new to this process gets a growing share: from now, if others of its shard are known
        for longer; else it gets all of it at once."""
        known_s = now_s - self._config.slow_start_ms / 1000.0
        is_late = any(each.endpoint.shard == shard and each.added_s < known_s for each in self.servers.values())
        return now_s if is_late else -math.inf

    def place(self, endpoint: Endpoint, model: str) -> Place:
        """Return the place of a model on an endpoint."""
        server = self.server(endpoint)
        place = server.places.get(model)
        if place is None:
            if len(server.places) >= _MOST_SERVERS:
                server.places = {name: kept for name, kept in server.places.items() if kept.in_flight or kept.is_open}
            place = server.places[model] = Place(server, model, self._config, self._clock())
        return place

    def left_alone(self) -> int:
        """Count the endpoints and places that get no requests now."""
        return sum(
            server.is_down + sum(place.is_open for place in server.places.values()) for server in self.servers.values()
        )
