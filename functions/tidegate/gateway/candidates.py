"""The places that can serve a decision, in the order in which they are tried."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from collections.abc import Sequence as ItemSequence

from tidegate.gateway.bindings import Sequence
from tidegate.gateway.call import Attempt
from tidegate.ports import Endpoint, EndpointDirectory
from tidegate.rules.decision import Decision


def candidates(
    decision: Decision,
    directory: EndpointDirectory,
    ranked: Callable[[ItemSequence[Endpoint], str], ItemSequence[Endpoint]],
) -> list[Attempt]:
    """Return the decision's target on its shards' endpoints, followed by its fallbacks on theirs.

    `ranked` orders the endpoints of a shard for a model.
    """
    found: list[Attempt] = []
    first = True
    for target in (decision.target, *decision.fallbacks):
        for shard in target.shards:
            endpoints = ranked(directory.endpoints(shard), target.model)
            found.extend([Attempt(target, shard, endpoint, first, decision.objective) for endpoint in endpoints])
        first = False
    return found


def sequence_candidates(decision: Decision, directory: EndpointDirectory, sequence: Sequence) -> list[Attempt]:
    """Return the places of a sequence: the endpoint that it is bound to, while that is there, else all of its target, in the
    order in which its first request tries them.

    Rendezvous hashing (Thaler & Ravishankar 1998): the order is the same in every gateway, and an endpoint that joins or leaves
    does not change the order of the others.
    """

    def score(endpoint: Endpoint) -> bytes:
        return hashlib.sha256(f"{sequence.id}\x1f{endpoint.host}:{endpoint.port}".encode()).digest()

    return [
        Attempt(decision.target, shard, endpoint, True, decision.objective)
        for shard in decision.shards
        for endpoint in sorted(directory.endpoints(shard), key=score, reverse=True)
        if sequence.endpoint is None or endpoint == sequence.endpoint
    ]
