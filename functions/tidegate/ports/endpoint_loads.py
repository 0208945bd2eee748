"""What a gateway knows of the endpoints that it uses, as it shows it to operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PlaceLoad:
    """A model on an endpoint.

    Attributes:
        model: its name.
        in_flight: requests that it has, those included that were cut off.
        limit: how many it may have; it follows what the model sustains.
        usual_ms: what it takes now; None before the first answer.
        is_open: whether its breaker is open, so that it gets no requests.
        share: the share (0–1) of its requests that it gets: below 1 in slow start, 0 while it is ejected.
        ejected_until: until when it gets no requests while others serve, in Unix seconds; None: it is not ejected.
    """

    model: str
    in_flight: int
    limit: int
    usual_ms: float | None
    is_open: bool
    share: float
    ejected_until: float | None


@dataclass(frozen=True, slots=True)
class EndpointLoad:
    """An endpoint.

    Attributes:
        shard: its shard.
        url: its address.
        outstanding: requests that it has or that wait for it, of all models.
        is_down: whether it gets no requests until it answers for its health.
        queue: requests that waited in the server's own queues lately, on average; None: unknown.
        places: its models that got requests.
    """

    shard: str
    url: str
    outstanding: int
    is_down: bool
    queue: float | None
    places: tuple[PlaceLoad, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, members: Mapping[str, Any]) -> EndpointLoad:
        """Decode the result of `as_dict`. Raises `ValueError`, `TypeError` or `KeyError` for anything else."""
        places = tuple(
            PlaceLoad(
                str(each["model"]),
                int(each["in_flight"]),
                int(each["limit"]),
                _number(each["usual_ms"]),
                bool(each["is_open"]),
                float(each["share"]),
                _number(each["ejected_until"]),
            )
            for each in members["places"]
        )
        return cls(
            str(members["shard"]),
            str(members["url"]),
            int(members["outstanding"]),
            bool(members["is_down"]),
            _number(members["queue"]),
            places,
        )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
