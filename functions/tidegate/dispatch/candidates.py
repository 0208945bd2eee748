"""The places that a decision may be carried out at, in the order in which they are tried."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from tidegate.dispatch.call import Attempt
from tidegate.ports import Endpoint, EndpointDirectory
from tidegate.rules.decision import Decision


def candidates(
    decision: Decision, directory: EndpointDirectory, load_of: Callable[[Endpoint], int], turn: int
) -> list[Attempt]:
    """The decision's target on its shards' endpoints, then its fallbacks on theirs, each (model, endpoint) once.

    Within a shard the endpoint with the fewest requests under way or waiting comes first; `turn` rotates the ties.
    """
    found: list[Attempt] = []
    first = True
    for target in (decision.target, *decision.fallbacks):
        for shard in target.shards:
            endpoints = directory.endpoints(shard)
            if len(endpoints) > 1:
                endpoints = _by_load(endpoints, load_of, turn)
            found.extend([Attempt(target, shard, endpoint, first, decision.objective) for endpoint in endpoints])
        first = False
    return found


def sticky_candidate(decision: Decision, directory: EndpointDirectory, sequence_id: str) -> Attempt | None:
    """The one endpoint of the first shard that this sequence belongs to; None when that shard has none.

    Rendezvous hashing (Thaler & Ravishankar 1998): every gateway picks the same endpoint, and when an endpoint goes
    only its own sequences move.
    """
    shard = decision.shards[0]
    endpoints = directory.endpoints(shard)
    if not endpoints:
        return None

    def score(endpoint: Endpoint) -> bytes:
        return hashlib.sha256(f"{sequence_id}\x1f{endpoint.host}:{endpoint.port}".encode()).digest()

    return Attempt(decision.target, shard, max(endpoints, key=score), True, decision.objective)


def _by_load(endpoints: Sequence[Endpoint], load_of: Callable[[Endpoint], int], turn: int) -> Sequence[Endpoint]:
    start = turn % len(endpoints)
    rotated = (*endpoints[start:], *endpoints[:start])
    return sorted(rotated, key=load_of)
