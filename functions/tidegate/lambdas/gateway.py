"""The gateway's function: `/v1` and `/v2`, on events of an HTTP API or a Function URL."""

from __future__ import annotations

import os
from typing import Any

from tidegate.aws.http_function import HttpFunction
from tidegate.bootstrap.functions import build_http_function, everything
from tidegate.bootstrap.snapshots import PreparedFunction
from tidegate.control.follower import EngineFollower, KnownRules
from tidegate.settings import Settings


def _build(fallback: KnownRules | None) -> tuple[HttpFunction, EngineFollower]:
    return build_http_function("gateway", Settings.from_environment(), os.environ, everything, fallback)


_function = PreparedFunction(_build, os.environ)


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Answer one event; the first one wires the function, or its snapshot was taken wired."""
    return _function(event, context)
