"""What the infrastructure and the code that runs on it agree on: names that stand on both sides.

Handlers are in `tidegate.lambdas`, variables are those of `tidegate.settings`, metrics are emitted by the functions.
"""

from __future__ import annotations

from typing import Final

from tidegate.aws.layout import POINTER

HANDLER: Final = "tidegate.lambdas.{name}.handler"
AGENT_COMMAND: Final = ("python", "-m", "tidegate.cli", "shard-agent")
"""Loads what a shard must hold on the Triton beside it, and keeps its entry in the registry alive."""

LIVE: Final = POINTER.rpartition("/")[0] + "/"
"""Where the pointer is."""

HTTP_PORT: Final = 8000
GRPC_PORT: Final = 8001
METRICS_PORT: Final = 8002
AGENT_PORT: Final = 8003
DCGM_PORT: Final = 9400
AGENT_READY_PATH: Final = "/ready"
"""Answers 200 only while Triton is ready and holds everything that its shard must hold."""

REFUSED_PATHS: Final = (
    "/v2/repository*",
    "/v2/systemsharedmemory*",
    "/v2/cudasharedmemory*",
    "/v2/trace*",
    "/v2/logging*",
    "/v2/models/*/trace*",
)
"""Triton's management paths; no caller may reach them."""

SERVED_PATHS: Final = ("/v2", "/v2/health/*", "/v2/models/*")

SERVICE_DIMENSION: Final = "service"
"""Dimension of the functions' metrics, which Powertools sets to POWERTOOLS_SERVICE_NAME, here the function's short name."""
SHARD_DIMENSION: Final = "Shard"

REQUESTS: Final = "Requests"
FALLBACKS: Final = "Fallbacks"
ROLLBACKS: Final = "Rollbacks"
CHANGES: Final = "Changes"
FAILED_LOADS: Final = "FailedLoads"
BUNDLE_AGE: Final = "BundleAgeSeconds"
PROBLEMS: Final = "Problems"
QUEUE_TIME_RATIO: Final = "QueueTimeRatio"
READY_ENDPOINTS: Final = "ReadyEndpoints"
GPU_UTILISATION: Final = "GpuUtilisation"
GPU_MEMORY_USED: Final = "GpuMemoryUsed"
GPU_FAULTS: Final = "GpuFaults"
