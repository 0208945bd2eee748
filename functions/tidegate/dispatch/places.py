"""What a dispatcher knows of the endpoints and of each model on them: load, health, how much they take."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from tidegate.dispatch.concurrency import ConcurrencyLimit
from tidegate.dispatch.config import DispatchConfig
from tidegate.dispatch.fair_queue import FairQueue
from tidegate.errors import EndpointBusyError, EndpointRefusedError
from tidegate.ports import Endpoint

UNKNOWN_USUAL_S = 1.0
"""A model that has not answered yet is taken to need this long."""

SHORTEST_TRIAL_S = 0.1
_MOST_SERVERS = 4096


class Server:
    """One endpoint. `outstanding` counts the requests that it has or that wait for it, abandoned ones included; it has
    answered nothing since `quiet_since_s`."""

    __slots__ = ("endpoint", "is_down", "is_watched", "outstanding", "places", "quiet_since_s")

    def __init__(self, endpoint: Endpoint, now_s: float) -> None:
        self.endpoint = endpoint
        self.outstanding = 0
        self.quiet_since_s = now_s
        self.is_down = False
        self.is_watched = False
        self.places: dict[str, Place] = {}

    def go_down(self) -> None:
        """Take the endpoint out: it gets no more requests until `come_back`, and whoever waits for it is sent on."""
        self.is_down = True
        for place in self.places.values():
            place.turn_away()

    def come_back(self) -> None:
        """The endpoint answers for its health."""
        self.is_down = False


class Place:
    """One model on one endpoint: its breaker, its concurrency limit and the requests that wait for room."""

    __slots__ = (
        "_config",
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
        self._queue = FairQueue()

    @property
    def admits(self) -> bool:
        """Whether callers' requests may be sent: the endpoint is up and the breaker closed."""
        return not self.is_open and not self.server.is_down

    @property
    def is_on_trial(self) -> bool:
        """Whether the model has not answered since its breaker was open."""
        return self._opened > 0

    def has_room(self, now_s: float) -> bool:
        """Whether a request need not wait."""
        return self.in_flight < self.limit.at(now_s) and not self._queue

    @property
    def trial_s(self) -> float:
        """The time that a model on trial may take while another place can serve."""
        return max(SHORTEST_TRIAL_S, 3.0 * (self.limit.usual_s or UNKNOWN_USUAL_S))

    def had_its_time(self, waited_s: float) -> bool:
        """Whether a time-out after `waited_s` says something about the model: it had the time that it usually takes."""
        usual_s = self.limit.usual_s
        return waited_s >= (UNKNOWN_USUAL_S if usual_s is None else 1.5 * usual_s)

    def enter(self, now_s: float) -> None:
        """A request is about to be sent."""
        if not self.server.outstanding:
            self.server.quiet_since_s = now_s
        self.in_flight += 1
        self.server.outstanding += 1

    def leave(self, took_s: float | None, in_flight: int, now_s: float) -> None:
        """The endpoint is done with a request, which was sent when `in_flight` were under way; see `tidegate.ports.Done`."""
        self.in_flight -= 1
        self.server.outstanding -= 1
        self.server.quiet_since_s = now_s
        if took_s is not None:
            self.limit.sample(took_s, in_flight, now_s)
        self._let_in(now_s)

    def _let_in(self, now_s: float) -> None:
        while self._queue and self.in_flight < self.limit.at(now_s):
            waiter = self._queue.pop()
            if waiter is None:
                break
            # The room is taken here, so that nobody comes between.
            self.enter(now_s)
            waiter.set_result(None)

    async def wait(self, flow: object, within_s: float, now_s: float) -> None:
        """Wait for room, and `enter`.

        Args:
            flow: who waits; see `FairQueue`.
            within_s: the time that waiting and the answer may take.
            now_s: the time.

        Raises:
            EndpointBusyError: there will be none in time.
            EndpointRefusedError: the endpoint went down meanwhile.
        """
        # The limit may have risen without a request that left, as a measurement is over.
        self._let_in(now_s)
        if self.has_room(now_s):
            self.enter(now_s)
            return
        most_s = min(self._config.queue_ms / 1000.0, within_s)
        self._make_room(flow, most_s, within_s)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.push(flow, waiter)
        self.server.outstanding += 1
        try:
            async with asyncio.timeout(most_s):
                await waiter
        except TimeoutError:
            self._give_up(waiter, now_s)
            raise EndpointBusyError(f"no room within {most_s * 1000:.0f} ms") from None
        except asyncio.CancelledError:
            self._give_up(waiter, now_s)
            raise
        finally:
            self.server.outstanding -= 1

    def _make_room(self, flow: object, most_s: float, within_s: float) -> None:
        """See to it that a newcomer of a flow can wait: where the queue is full, the one whose turn is last goes, so that
        whoever fills the queue keeps nobody else out of it.

        Raises:
            EndpointBusyError: the newcomer's own turn would be last, or would come too late.
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
        """Send everybody who waits on to the next candidate."""
        while (waiter := self._queue.pop()) is not None:
            waiter.set_exception(EndpointRefusedError("the endpoint stopped answering"))

    def succeeded(self) -> None:
        """The model answered."""
        self._failures = self._opened = 0
        self.is_open = self.has_dead_stub = False

    def failed(self, *, at_once: bool = False) -> float | None:
        """The model failed in a way that is its own. Returns the seconds after which to ask whether it is ready, where the
        breaker opens now; `at_once` opens it whatever came before."""
        self._failures += 1
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
        """The model says that it is ready: requests may be sent. The next failure opens the breaker again."""
        self.is_open = False


class Places:
    """Every endpoint and place that was asked for, by endpoint and model."""

    def __init__(self, config: DispatchConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self.servers: dict[Endpoint, Server] = {}

    def server(self, endpoint: Endpoint) -> Server:
        """The endpoint's."""
        server = self.servers.get(endpoint)
        if server is None:
            if len(self.servers) >= _MOST_SERVERS:
                self.servers = {at: kept for at, kept in self.servers.items() if kept.outstanding or kept.is_watched}
            server = self.servers[endpoint] = Server(endpoint, self._clock())
        return server

    def place(self, endpoint: Endpoint, model: str) -> Place:
        """The place of a model on an endpoint."""
        server = self.server(endpoint)
        place = server.places.get(model)
        if place is None:
            if len(server.places) >= _MOST_SERVERS:
                server.places = {name: kept for name, kept in server.places.items() if kept.in_flight or kept.is_open}
            place = server.places[model] = Place(server, model, self._config, self._clock())
        return place

    def left_alone(self) -> int:
        """How many endpoints and places get no requests now."""
        return sum(
            server.is_down + sum(place.is_open for place in server.places.values()) for server in self.servers.values()
        )
