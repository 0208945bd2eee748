"""The gateway's function: `/v1` and `/v2`, on events of an HTTP API or a Function URL."""

from __future__ import annotations

from tidegate.bootstrap.functions import prepared_function

handler = prepared_function("gateway")
