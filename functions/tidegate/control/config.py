"""The ports of the control plane, and its time-outs and limits."""

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
    """Return a `Diagnose` for where the files of models cannot be read."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPorts:
    """The stores, the servers and the clock of the control plane.

    Attributes:
        repository_of: opens the model repository of any registered endpoint: how a publisher loads models.
        scratch: starts servers to try models on; None: models are tried on a server of the fleet.
        facts_damage: returns the damage of the table of facts, None if it is intact; None as the port: there is no table.
        clock: the time in Unix seconds.
    """

    bundles: BundleStore
    models: ModelStore
    registry: Registry
    repository_of: RepositoryOf
    catalog: ModelCatalog
    golden: GoldenRequests
    diagnose: Diagnose = nothing_known
    scratch: ScratchServers | None = None
    facts_damage: Callable[[], Awaitable[str | None]] | None = None
    clock: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlConfig:
    """The times and bounds of the control plane. All processes of a fleet must agree on the first four.

    Attributes:
        keep_revisions: how many earlier revisions keep their models loaded, so that a rollback to them is one write.
        drain_s: how long the models of a revision stay loaded after it was live, for the requests under way.
        claim_ttl_s: how long a claim lasts that is not renewed.
        skew_s: how far the clocks of different machines may differ.
        claim_wait_s: how long a publisher waits for another to end.
        call_timeout_s: time for one call of an endpoint that loads nothing.
        endpoint_wait_s: how long a publisher waits for endpoints of a shard to answer.
        absent_wait_s: how long a publish waits for a shard that has no server under the live revision either, before it
            goes on without it.
        soak_s: how long a server that models are tried on must stay healthy once they are loaded.
        settle_s: the longest time between a new server's last look at what it must hold and its being ready.
        hung_after_s: how long a server may answer nothing before it is replaced.
        confirm_s: how long a publisher waits for the gateways to serve what it made live.
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
