"""The gateway's function: both doors, on events of an HTTP API or a Function URL."""

from __future__ import annotations

import functools
import os
from typing import Any

from tidegate.aws.http_function import HttpFunction
from tidegate.bootstrap.functions import build_http_function
from tidegate.settings import Settings


@functools.cache
def _function() -> HttpFunction:
    return build_http_function("gateway", Settings.from_environment(), os.environ)


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Answer one event; the first one wires the function."""
    return _function()(event, context)
