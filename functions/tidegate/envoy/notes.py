"""What of the rules Envoy does not carry out, and what of a fleet does not fit them, in words."""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.envoy.fleet import Fleet
from tidegate.envoy.plans import RESERVED, shapes
from tidegate.rules import Engine
from tidegate.rules.contract import Limit
from tidegate.rules.nearest import nearest, suggestion

_CHANGED = frozenset({"content-length", "content-type", "te", "x-request-id", "x-forwarded-proto"})
"""Headers of a request that a resolver does not get as they were sent; nor does it get those that are reserved."""


def notes(engine: Engine) -> Iterator[str]:
    """Yield what the rules ask for and only a gateway does."""
    for name, objective in sorted(engine.objectives.items()):
        decisions = list(engine.decisions(name))
        asked = {
            "shadow": any(each.shadows for each in decisions),
            "hedge_after_ms or hedge_at": any(each.hedge_after_ms or each.hedge_at for each in decisions),
            "fault": any(each.fault for each in decisions),
            "limits.concurrency": objective.limit.concurrency is not None,
        }
        for what, is_asked in asked.items():
            if is_asked:
                yield f"objective '{name}' has {what}, which only a gateway carries out"
        for attribute in objective.attributes.values():
            header = attribute.header or ""
            if header in _CHANGED or header.startswith(RESERVED):
                yield f"objective '{name}' has {attribute.name!r} from {header}, which resolvers do not get as it was sent"
    for name, caller in sorted((engine.callers or {}).items()):
        limits: list[Limit] = [caller.limit, *(caller.limits or {}).values()]
        if any(limit.concurrency is not None for limit in limits):
            yield f"caller '{name}' has a limit of concurrency, which only a gateway enforces"


def fleet_notes(engine: Engine, fleet: Fleet) -> Iterator[str]:
    """Yield the shards that the rules lead to and that have no server, and those of which the rules know nothing."""
    for shard in sorted({shard for shape in shapes(engine) for step in shape for shard in step}):
        if not fleet.get(shard):
            yield f"shard '{shard}' has no server in the fleet: what is decided for it alone is a 503"
    for shard in sorted(fleet.keys() - engine.fleet.shards.keys()):
        near = suggestion(nearest(shard, engine.fleet.shards))
        yield f"shard '{shard}' of the fleet is not a shard of the rules{near}"
