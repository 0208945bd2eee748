"""The Protocols of the registry of model servers and gateways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tidegate.ports.models import ModelRepository
from tidegate.ports.requests import Endpoint


class EndpointState(StrEnum):
    """State of a registered endpoint. `LOADING` takes no requests yet; `WEDGED` must be replaced, as a load on it never ended."""

    LOADING = "loading"
    READY = "ready"
    WEDGED = "wedged"


@dataclass(frozen=True, slots=True)
class RegisteredEndpoint:
    """A model server as the registry knows it; `seen_at` is its last sign of life in Unix seconds."""

    endpoint: Endpoint
    state: EndpointState
    seen_at: float
    grpc_port: int | None = None
    metrics_port: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class RefusedEndpoint:
    """An untrusted entry: it is malformed, or outside the networks of endpoints; `note` says why, `seen_at` when (Unix seconds).

    `address` is text and no `Endpoint`, so that nothing can be sent there.
    """

    shard: str
    address: str
    seen_at: float
    note: str


@dataclass(frozen=True, slots=True)
class EndpointListing:
    """Endpoints and refused entries, each sorted by shard and address."""

    endpoints: tuple[RegisteredEndpoint, ...]
    refused: tuple[RefusedEndpoint, ...]


RepositoryOf = Callable[[RegisteredEndpoint], ModelRepository]
"""Opens the model repository of an endpoint."""


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """A gateway, the revision that it serves, and its last sign of life in Unix seconds."""

    id: str
    revision: str
    seen_at: float


class GatewayReports(Protocol):
    async def report(self, gateway: GatewayReport) -> None:
        """Write which revision a gateway serves. May raise `StoreError`."""


class Registry(GatewayReports, Protocol):
    """The model servers and gateways that gave a recent sign of life. Every method may raise `StoreError`."""

    async def register(self, entry: RegisteredEndpoint) -> None:
        """Write or renew an endpoint. A server that renews itself does not clear a `WEDGED` that another process set."""

    async def deregister(self, endpoint: Endpoint) -> None: ...

    async def mark_wedged(self, endpoint: Endpoint, note: str) -> None: ...

    async def endpoints(self, shard: str | None = None) -> Sequence[RegisteredEndpoint]:
        """Return the trusted endpoints (of a shard), sorted by shard and address."""

    async def listing(self, shard: str | None = None) -> EndpointListing:
        """Return the same endpoints, and the untrusted entries, to report them."""

    async def gateways(self) -> Sequence[GatewayReport]:
        """Return the gateways, sorted by id."""
