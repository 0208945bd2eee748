"""What Envoy does when callers would take more memory or connections than it may use.

https://www.envoyproxy.io/docs/envoy/latest/configuration/operations/overload_manager/overload_manager
"""

from __future__ import annotations

from typing import Final

from tidegate.envoy.filters import TYPES, Json

OWN_BYTES: Final = 256 * 1024 * 1024
"""The heap that Envoy has for itself, besides what it holds of requests and answers."""

_HEAP: Final = "envoy.resource_monitors.fixed_heap"
_CONNECTIONS: Final = "envoy.resource_monitors.global_downstream_max_connections"
_LEAST_TRACKED_BITS: Final = 20
"""A stream that holds less than 2^20 bytes is not reset."""


def overload_manager(most_connections: int, most_buffered_bytes: int) -> Json:
    """Return the member `overload_manager` of a bootstrap configuration."""
    return {
        "refresh_interval": "0.25s",
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": _LEAST_TRACKED_BITS},
        "resource_monitors": [
            _monitor(_HEAP, "fixed_heap.v3.FixedHeapConfig", {"max_heap_size_bytes": OWN_BYTES + most_buffered_bytes}),
            _monitor(
                _CONNECTIONS,
                "downstream_connections.v3.DownstreamConnectionsConfig",
                {"max_active_downstream_connections": most_connections},
            ),
        ],
        "actions": [
            _action("shrink_heap", {"threshold": {"value": 0.85}}),
            # A 503, before the streams that hold most are ended.
            _action("stop_accepting_requests", {"threshold": {"value": 0.9}}),
            _action("reset_high_memory_stream", {"scaled": {"scaling_threshold": 0.92, "saturation_threshold": 0.98}}),
        ],
    }


def _monitor(name: str, kind: str, config: Json) -> Json:
    return {"name": name, "typed_config": {"@type": f"{TYPES}/envoy.extensions.resource_monitors.{kind}", **config}}


def _action(name: str, trigger: Json) -> Json:
    return {"name": f"envoy.overload_actions.{name}", "triggers": [{"name": _HEAP, **trigger}]}
