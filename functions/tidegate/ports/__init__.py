"""The Protocols between the floors, each with an in-memory implementation that ships.

`dispatch/`, `control/` and `web/` depend on these alone; `triton/` and `aws/` implement them. What is held in memory
behaves as the real thing does, without a process, a socket or a wait: whole fleets run in a test or a simulation.
"""

from __future__ import annotations

from tidegate.ports.memory import MemoryEndpointDirectory, MemoryEngineSource, MemoryFleetStatus, MemoryTransport
from tidegate.ports.memory_fleet import (
    FleetEvent,
    MemoryFaults,
    MemoryGoldenRequests,
    MemoryModelRepository,
    MemoryModelServer,
    MemoryServerLauncher,
)
from tidegate.ports.memory_models import MemoryModel, MemoryModelCatalog
from tidegate.ports.memory_stores import MemoryBundleStore, MemoryModelStore, MemoryRegistry, StoreFaults
from tidegate.ports.observed import Observe, Served
from tidegate.ports.protocols import (
    Diagnose,
    Endpoint,
    EndpointDirectory,
    EngineSource,
    FleetStatus,
    GoldenRequests,
    GoldenResult,
    Headers,
    HttpRequest,
    HttpResponse,
    ModelCatalog,
    ModelLoad,
    ModelRepository,
    ModelServer,
    ModelState,
    Resolution,
    ServerLauncher,
    Transport,
)
from tidegate.ports.stores import (
    BundleSource,
    BundleStore,
    Claim,
    GatewayReport,
    GatewayReports,
    LiveEntry,
    ModelFile,
    ModelStore,
    Pointer,
    PushOutcome,
    PushProgress,
    RegisteredEndpoint,
    Registry,
    RepositoryOf,
)

__all__ = [
    "BundleSource",
    "BundleStore",
    "Claim",
    "Diagnose",
    "Endpoint",
    "EndpointDirectory",
    "EngineSource",
    "FleetEvent",
    "FleetStatus",
    "GatewayReport",
    "GatewayReports",
    "GoldenRequests",
    "GoldenResult",
    "Headers",
    "HttpRequest",
    "HttpResponse",
    "LiveEntry",
    "MemoryBundleStore",
    "MemoryEndpointDirectory",
    "MemoryEngineSource",
    "MemoryFaults",
    "MemoryFleetStatus",
    "MemoryGoldenRequests",
    "MemoryModel",
    "MemoryModelCatalog",
    "MemoryModelRepository",
    "MemoryModelServer",
    "MemoryModelStore",
    "MemoryRegistry",
    "MemoryServerLauncher",
    "MemoryTransport",
    "ModelCatalog",
    "ModelFile",
    "ModelLoad",
    "ModelRepository",
    "ModelServer",
    "ModelState",
    "ModelStore",
    "Observe",
    "Pointer",
    "PushOutcome",
    "PushProgress",
    "RegisteredEndpoint",
    "Registry",
    "RepositoryOf",
    "Resolution",
    "Served",
    "ServerLauncher",
    "StoreFaults",
    "Transport",
]
