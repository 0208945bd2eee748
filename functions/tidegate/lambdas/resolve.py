"""The resolver's function: decisions alone, for callers that send their payloads to a shard themselves."""

from __future__ import annotations

from tidegate.bootstrap.balancers import resolves
from tidegate.bootstrap.functions import prepared_function

handler = prepared_function("resolve", resolves)
