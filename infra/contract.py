"""Names that the infrastructure and the code that runs on it share.

Handlers are in `tidegate.lambdas`, variables are those of `tidegate.settings`, metrics those of `tidegate.metrics`.
"""

from __future__ import annotations

from typing import Final

from tidegate.aws.layout import POINTER
from tidegate.web.console.paths import PAGE

HANDLER: Final = "tidegate.lambdas.{name}.handler"
AGENT_COMMAND: Final = ("python", "-m", "tidegate.cli", "shard-agent")
"""Loads what a shard must hold on the Triton beside it, and keeps its entry in the registry alive."""

ENVOY_PORT: Final = 8088
ENVOY_STATE: Final = "/var/lib/tidegate"
"""A writable folder of Envoy's task: the last live rules, and Envoy's configuration."""

ENVOY_COMMAND: Final = (
    *("python", "-m", "tidegate.cli", "envoy", "run"),
    *("--host", "0.0.0.0", "--port", str(ENVOY_PORT), "--state", ENVOY_STATE),  # noqa: S104  # the task's own interface
)
"""Runs Envoy and its resolvers, which follow the live rules and the servers of the registry."""

ENVOY_READY_PATH: Final = "/v2/health/ready"
ENVOY_LIVE_PATH: Final = "/v2/health/live"

RPC_PATHS: Final = "/inference.GRPCInferenceService/*"
CALLER_PATHS: Final = ("/v2", "/v2/*", "/v1/objectives", "/v1/objectives/*", "/openapi.json")
"""What callers reach through Envoy over HTTP."""

SECRET_VARIABLE: Final = "TIDEGATE_MANAGEMENT_SECRET"  # noqa: S105  # a variable's name

LIVE: Final = POINTER.rpartition("/")[0] + "/"
"""The key of the pointer."""

HTTP_PORT: Final = 8000
GRPC_PORT: Final = 8001
METRICS_PORT: Final = 8002
AGENT_PORT: Final = 8003
DCGM_PORT: Final = 9400
AGENT_READY_PATH: Final = "/ready"
"""Answers 200 only while Triton is ready and holds everything that its shard must hold."""

AGENT_POINTER_PATH: Final = "/pointer"
"""Answers with the pointer to the live revision, for functions that poll it here and not in S3."""

PLAYGROUND_PATHS: Final = (
    ("/v1/objectives", "GET"),
    ("/v1/objectives/{objective}", "GET"),
    ("/v1/objectives/{objective}/resolve", "POST"),
    ("/v1/objectives/{objective}/infer", "POST"),
)
"""What the gateway's function answers, for the console's playground: operators need a grant of callers.yaml, as every caller does."""

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

PAGE_ROUTES: Final = (f"GET {PAGE}", f"GET {PAGE}/{{path+}}")
"""The console's page: files of this project, which a browser gets without a token."""
