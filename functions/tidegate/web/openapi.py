"""The OpenAPI 3.1 description of both APIs (https://spec.openapis.org/oas/v3.1.1.html), stored beside this module."""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def openapi_document() -> bytes:
    """Return the description as JSON. The first call reads it from disk."""
    return Path(__file__).with_name("openapi.json").read_bytes()
