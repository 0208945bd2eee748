"""The Protocols between the floors, each with an in-memory implementation that ships.

`dispatch/`, `control/` and `web/` depend on these alone; `triton/` and `aws/` implement them. What is held in memory
behaves as the real thing does, without a process, a socket or a wait: whole fleets run in a test or a simulation.
"""

from __future__ import annotations

from tidegate.ports.bundle_store import BadMark, BundleSource, BundleStore, Claim, ClaimStage, LiveEntry, Pointer
from tidegate.ports.memory import MemoryEndpointDirectory, MemoryEngineSource, MemoryFleetStatus, MemoryTransport
from tidegate.ports.memory_fleet import (
    FleetEvent,
    MemoryFaults,
    MemoryGoldenRequests,
    MemoryModelRepository,
    MemoryModelServer,
    MemoryScratchServers,
    MemoryServerLauncher,
)
from tidegate.ports.memory_model_store import MemoryModelStore
from tidegate.ports.memory_models import MemoryModel, MemoryModelCatalog
from tidegate.ports.memory_stores import MemoryBundleStore, MemoryRegistry
from tidegate.ports.model_store import ModelFile, ModelStore, PushOutcome, PushPlan, PushProgress, Unit
from tidegate.ports.observed import Observe, Served
from tidegate.ports.protocols import (
    Diagnose,
    Done,
    Endpoint,
    EndpointDirectory,
    EngineSource,
    FleetStatus,
    GoldenOutcome,
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
    Offload,
    Resolution,
    ScratchServers,
    SelfTestState,
    ServerLauncher,
    Suspect,
    SuspectKind,
    Transport,
)
from tidegate.ports.registry import (
    EndpointListing,
    EndpointState,
    GatewayReport,
    GatewayReports,
    RefusedEndpoint,
    RegisteredEndpoint,
    Registry,
    RepositoryOf,
)
from tidegate.ports.store_faults import StoreFaults
from tidegate.ports.stubs import ended_stub

__all__ = [
    "BadMark",
    "BundleSource",
    "BundleStore",
    "Claim",
    "ClaimStage",
    "Diagnose",
    "Done",
    "Endpoint",
    "EndpointDirectory",
    "EndpointListing",
    "EndpointState",
    "EngineSource",
    "FleetEvent",
    "FleetStatus",
    "GatewayReport",
    "GatewayReports",
    "GoldenOutcome",
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
    "MemoryScratchServers",
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
    "Offload",
    "Pointer",
    "PushOutcome",
    "PushPlan",
    "PushProgress",
    "RefusedEndpoint",
    "RegisteredEndpoint",
    "Registry",
    "RepositoryOf",
    "Resolution",
    "ScratchServers",
    "SelfTestState",
    "Served",
    "ServerLauncher",
    "StoreFaults",
    "Suspect",
    "SuspectKind",
    "Transport",
    "Unit",
    "ended_stub",
]
