"""Paths of the protocol's endpoints and of Triton's model repository extension.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote

SERVER_LIVE = "/v2/health/live"
SERVER_READY = "/v2/health/ready"
STATISTICS = "/v2/models/stats"
REPOSITORY_INDEX = "/v2/repository/index"


@lru_cache(maxsize=1024)
def model_path(model: str, version: int | None = None, suffix: str = "") -> str:
    """Return a path of a model or of one version: `suffix` is for example `/infer`; without one it is the metadata's."""
    pinned = "" if version is None else f"/versions/{version}"
    return f"/v2/models/{quote(model, safe='')}{pinned}{suffix}"


def load_path(model: str) -> str:
    return f"/v2/repository/models/{quote(model, safe='')}/load"


def unload_path(model: str) -> str:
    return f"/v2/repository/models/{quote(model, safe='')}/unload"
