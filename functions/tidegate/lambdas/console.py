"""The console's function: the operators' page, and what it asks, on events of an HTTP API of its own."""

from __future__ import annotations

import functools
from typing import Any

from tidegate.aws.http_function import HttpFunction
from tidegate.bootstrap.console_function import build_console_function
from tidegate.settings import Settings


@functools.cache
def _wired() -> HttpFunction:
    return build_console_function(Settings.from_environment())


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Answer a request."""
    return _wired()(event, context)
