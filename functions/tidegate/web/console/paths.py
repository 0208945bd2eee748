"""The paths that the control plane answers, as the gateway's route table has them too."""

from __future__ import annotations

PAGE = "/console"
BELOW_PAGE = "/console/{path:path}"
METRICS = "/metrics"
OVERVIEW = "/v1/overview"
EVENTS = "/v1/events"
FLEET = "/v1/fleet"
"""The gateway of a local stack answers this one itself."""

TRAFFIC = "/v1/objectives/{objective}/traffic"
CASES = "/v1/objectives/{objective}/cases"
SOURCE = "/v1/objectives/{objective}/source"
DRAFTS = "/v1/drafts"
GRAPH = "/v1/graph"
REVISIONS = "/v1/revisions"
DIFF = "/v1/revisions/diff"
ROLLBACK = "/v1/rollback"
MODELS = "/v1/models"
MODEL = "/v1/models/{model}"
PLACEMENT = "/v1/placement"

PATHS = (
    PAGE, BELOW_PAGE, METRICS, OVERVIEW, TRAFFIC, CASES, SOURCE, DRAFTS, GRAPH, REVISIONS, DIFF, ROLLBACK, MODELS, MODEL, PLACEMENT,
)  # fmt: skip
"""The paths whose answers are whole, which the gateway passes on."""
