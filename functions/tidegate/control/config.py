"""What the control plane is given: the ports that it speaks through, and its times and bounds."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tidegate.ports import (
    BundleStore,
    Diagnose,
    GoldenRequests,
    ModelCatalog,
    ModelStore,
    Registry,
    RepositoryOf,
    ScratchServers,
)


async def nothing_known(model: str) -> Sequence[str]:  # noqa: ARG001  # the type's
    """A `Diagnose` for where models' files cannot be read."""
    return ()


async def nothing_wrong() -> str:
    """A `FactsDamage` where there is no table of facts."""
    return ""


FactsDamage = Callable[[], Awaitable[str]]
"""Says what is wrong with the table of facts, in words, and what to do; empty where nothing is known to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPorts:
    """The stores, the endpoints, and the clock (Unix seconds) that all of the control plane goes by.

    `facts_damage` looks at the table of facts.
    `scratch` starts servers to try models on, where this process can start any (None: they are tried on one of the fleet).
    """

    bundles: BundleStore
    models: ModelStore
    registry: Registry
    repository_of: RepositoryOf
    catalog: ModelCatalog
    golden: GoldenRequests
    diagnose: Diagnose = nothing_known
    scratch: ScratchServers | None = None
    facts_damage: FactsDamage = nothing_wrong
    clock: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlConfig:
    """The times and bounds of the control plane. All processes of one fleet must have the same of the first four.

    Attributes:
        keep_revisions: how many revisions that were live before keep their models loaded, so that a rollback to them is
            one write.
        drain_s: how long the models of a revision stay loaded after it was live, for the requests under way.
        claim_ttl_s: how long a claim lasts that is not renewed, in seconds.
        skew_s: how far clocks of different machines may differ, in seconds.
        claim_wait_s: how long a publisher waits for another to end.
        call_timeout_s: time for one call of an endpoint that loads nothing.
        load_timeout_s: time that loading one model may take.
        endpoints_at_once: how many endpoints are worked on at the same time.
        endpoint_wait_s: how long a publisher waits for a shard to have endpoints that answer.
        absent_wait_s: how long a publish waits for a shard that has no server under the live revision either, before it
            goes on without it.
        soak_s: how long a server that models are tried on must stay well once they are loaded.
        settle_s: the longest time between a new server's last look at what it must hold and its being ready.
        hung_after_s: how long a server may answer nothing before it is replaced.
        confirm_s: how long a publisher waits for the gateways to serve what it made live.
        require_samples: whether a publish refuses targets without a golden request, also where it is not asked to.
    """

    keep_revisions: int = 3
    drain_s: float = 10.0
    claim_ttl_s: float = 15.0
    skew_s: float = 5.0
    claim_wait_s: float = 60.0
    call_timeout_s: float = 5.0
    load_timeout_s: float = 30.0
    endpoints_at_once: int = 16
    endpoint_wait_s: float = 45.0
    absent_wait_s: float = 5.0
    soak_s: float = 1.0
    settle_s: float = 3.0
    hung_after_s: float = 10.0
    confirm_s: float = 10.0
    require_samples: bool = False
