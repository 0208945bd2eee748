"""In-memory implementations of the ports, for tests, benchmarks and simulations only.

They have the faults that a store or a server can have, without a process, a socket or a wait. `tests/ports_contract` and
`tests/aws` run the same cases against them and the real ones.
"""

from __future__ import annotations

from tidegate.testing.faults import StoreFaults
from tidegate.testing.fleet import (
    FleetEvent,
    MemoryFaults,
    MemoryGoldenRequests,
    MemoryModelRepository,
    MemoryModelServer,
    MemoryScratchServers,
    MemoryServerLauncher,
)
from tidegate.testing.gateway import MemoryEndpointDirectory, MemoryEngineSource, MemoryTransport
from tidegate.testing.model_store import MemoryModelStore
from tidegate.testing.models import MemoryModel, MemoryModelCatalog
from tidegate.testing.stores import MemoryBundleStore, MemoryRegistry

__all__ = [
    "FleetEvent",
    "MemoryBundleStore",
    "MemoryEndpointDirectory",
    "MemoryEngineSource",
    "MemoryFaults",
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
    "StoreFaults",
]
