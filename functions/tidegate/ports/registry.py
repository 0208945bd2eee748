"""The Protocols of the registry: which model servers and gateways there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tidegate.ports.protocols import Endpoint, ModelRepository


class EndpointState(StrEnum):
    """State of a registered endpoint: `loading` is not yet to be sent requests; `wedged`: a load on it never ended, so it
    must be replaced."""

    LOADING = "loading"
    READY = "ready"
    WEDGED = "wedged"


@dataclass(frozen=True, slots=True)
class RegisteredEndpoint:
    """A model server as the registry knows it.

    `grpc_port` and `metrics_port` are None where it has none. `seen_at` is its last sign of life in Unix seconds.
    """

    endpoint: Endpoint
    state: EndpointState
    seen_at: float
    grpc_port: int | None = None
    metrics_port: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class RefusedEndpoint:
    """An entry of the registry that is not trusted: it is malformed, or outside the networks that endpoints may be in.

    `address` is a text for people, not an `Endpoint`, so that nothing can be sent there. `note` says why it is refused, and
    `seen_at` is when (Unix seconds).
    """

    shard: str
    address: str
    seen_at: float
    note: str


@dataclass(frozen=True, slots=True)
class EndpointListing:
    """The endpoints of a registry, and the entries that it refuses, each sorted by shard and address."""

    endpoints: tuple[RegisteredEndpoint, ...]
    refused: tuple[RefusedEndpoint, ...]


RepositoryOf = Callable[[RegisteredEndpoint], ModelRepository]
"""Gives the model repository of an endpoint, whoever started its server."""


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """A gateway as the registry knows it: the revision that it serves, and its last sign of life (Unix seconds)."""

    id: str
    revision: str
    seen_at: float


class GatewayReports(Protocol):
    """Is told which revision each gateway serves. The method may raise `StoreError`."""

    async def report(self, gateway: GatewayReport) -> None:
        """A gateway says which revision it serves."""
        ...


class Registry(GatewayReports, Protocol):
    """Knows which model servers and gateways there are. Every method may raise `StoreError`."""

    async def register(self, entry: RegisteredEndpoint) -> None:
        """Write or renew an endpoint. A server that renews itself does not take back `wedged` said by another."""
        ...

    async def deregister(self, endpoint: Endpoint) -> None:
        """Forget an endpoint."""
        ...

    async def mark_wedged(self, endpoint: Endpoint, note: str) -> None:
        """Say that a load on an endpoint never ended; whoever runs it replaces it."""
        ...

    async def endpoints(self, shard: str | None = None) -> Sequence[RegisteredEndpoint]:
        """Every trusted endpoint, or those of a shard, that gave a sign of life within the registry's own time-out, sorted by
        shard and address."""
        ...

    async def listing(self, shard: str | None = None) -> EndpointListing:
        """The same endpoints, and beside them the entries that are not trusted, to report them."""
        ...

    async def gateways(self) -> Sequence[GatewayReport]:
        """Every gateway that gave a sign of life within the registry's own time-out."""
        ...
