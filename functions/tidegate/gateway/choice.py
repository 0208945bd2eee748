"""The order in which the endpoints of a shard are tried."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from tidegate.gateway.config import DispatchConfig
from tidegate.gateway.outliers import LEAST_REQUESTS, outliers
from tidegate.gateway.places import Place, Places, Server
from tidegate.ports import Endpoint, EndpointDirectory, EndpointLoad, PlaceLoad

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 5.0
MOST_EJECTED: Final = 1 / 3
"""The largest share of a shard's endpoints that may be ejected for one model; one of two or three may."""

MOST_SHOWN: Final = 64
"""The most endpoints, and models of each, that are shown to operators."""

LEAST_SHARE: Final = 0.1
"""The share of its requests that a returned endpoint gets at first."""


class Choice:
    """Ranks the endpoints of a shard.

    The one with the fewest requests outstanding comes first. Among equals chance decides, so that gateways that start at the
    same time do not all begin with the same endpoint; of the first two, the one with the shorter queue of its own is taken,
    where that is known (Mitzenmacher 2001, "The Power of Two Choices in Randomized Load Balancing").

    An endpoint that came back gets a growing share of its requests (*slow start*), and one whose place is an outlier none for
    a while (*ejection*), as long as others serve: these are ranked last.

    Args:
        places: the state of the endpoints.
        directory: lists the endpoints of each shard.
        config: see `DispatchConfig`.
        clock: seconds that never run backwards.
        chance: gives numbers from 0 to 1.
    """

    def __init__(
        self,
        places: Places,
        directory: EndpointDirectory,
        config: DispatchConfig,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._places = places
        self._directory = directory
        self._slow_start_s = config.slow_start_ms / 1000.0
        self._ejection_s = config.ejection_ms / 1000.0
        self._longest_s = config.longest_ejection_ms / 1000.0
        self._clock = clock
        self._chance = chance
        self._look_at_s = clock() + LOOK_EVERY_S

    def ranked(self, endpoints: Sequence[Endpoint], model: str) -> Sequence[Endpoint]:
        """Return the endpoints of a shard in the order in which a request to `model` tries them."""
        if len(endpoints) < 2:
            return endpoints
        now_s = self._clock()
        if now_s >= self._look_at_s:
            self._look(now_s)
        servers = [self._places.server(endpoint) for endpoint in endpoints]
        shares = [self._settled_share(server, model, now_s) for server in servers]
        # Where all came back at the same time, none is spared.
        most = max(shares)
        order = sorted(
            [
                (shares[i] < most and self._chance() * most >= shares[i], server.outstanding, self._chance(), i)
                for i, server in enumerate(servers)
            ]
        )
        first, second = order[0], order[1]
        if first[:2] == second[:2]:
            queues = servers[first[3]].queue, servers[second[3]].queue
            if queues[0] is not None and queues[1] is not None and queues[1] < queues[0]:
                order[0], order[1] = second, first
        return [endpoints[each[3]] for each in order]

    def share(self, server: Server, place: Place | None, now_s: float) -> float:
        """Return the share (0–1) of its requests that a place gets: less than 1 after it came back, 0 while it is ejected."""
        since_s = server.returned_s
        if place is not None and place.standing.ejected_until_s > since_s:
            since_s = place.standing.ejected_until_s
            if now_s < since_s:
                return 0.0
        if now_s - since_s >= self._slow_start_s:
            return 1.0
        return max(LEAST_SHARE, (now_s - since_s) / self._slow_start_s)

    def loads(self, unix_s: float) -> list[EndpointLoad]:
        """Return the state of the endpoints that got requests, of some if there are many; `unix_s` is the time of day."""
        now_s = self._clock()
        found = []
        for server in list(self._places.servers.values())[-MOST_SHOWN:]:
            server.settle(now_s)
            endpoint, places = server.endpoint, list(server.places.values())[-MOST_SHOWN:]
            if endpoint in self._directory.endpoints(endpoint.shard):
                shown = tuple([self._place_load(place, now_s, unix_s) for place in places])
                found.append(
                    EndpointLoad(
                        endpoint.shard, endpoint.url, server.outstanding, server.is_down, _rounded(server.queue), shown
                    )
                )
        return found

    def _place_load(self, place: Place, now_s: float, unix_s: float) -> PlaceLoad:
        usual_s, until_s = place.limit.usual_s, place.standing.ejected_until_s
        return PlaceLoad(
            place.model,
            place.in_flight,
            place.limit.sustained,
            None if usual_s is None else _rounded(usual_s * 1000.0),
            place.is_open,
            round(self.share(place.server, place, now_s), 3),
            unix_s + until_s - now_s if until_s > now_s else None,
        )

    def _settled_share(self, server: Server, model: str, now_s: float) -> float:
        if server.unsettled:
            server.settle(now_s)
        return self.share(server, server.places.get(model), now_s)

    def _look(self, now_s: float) -> None:
        """Eject the outliers of each model on each shard."""
        self._look_at_s = now_s + LOOK_EVERY_S
        groups: dict[tuple[str, str], list[Place]] = {}
        for server in self._places.servers.values():
            for place in server.places.values():
                groups.setdefault((server.endpoint.shard, place.model), []).append(place)
        for (shard, _), group in groups.items():
            known = self._directory.endpoints(shard)
            present = [place for place in group if place.server.endpoint in known]
            if self._ejection_s > 0.0:
                self._eject(present, len(known), now_s)
            for place in group:
                place.standing.forget()

    def _eject(self, group: Sequence[Place], endpoints: int, now_s: float) -> None:
        standings = [place.standing for place in group]
        ejected = sum(each.ejected_until_s > now_s for each in standings)
        most = min(max(1, int(endpoints * MOST_EJECTED)), endpoints - 1)
        found = [(index, why) for index, why in outliers(standings) if standings[index].ejected_until_s <= now_s]
        standing_out = {index for index, _ in found}
        for index, standing in enumerate(standings):
            if index not in standing_out and standing.ejections and standing.requests >= LEAST_REQUESTS:
                standing.ejections -= 1
        for index, why in found[: max(0, most - ejected)]:
            place, standing = group[index], standings[index]
            standing.ejections += 1
            lasts_s = min(self._ejection_s * standing.ejections, self._longest_s)
            standing.ejected_until_s = now_s + lasts_s
            logger.warning(
                "model %s on %s %s; it gets no requests for %.0f s while others serve",
                place.model,
                place.server.endpoint,
                why,
                lasts_s,
            )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
