"""What the models of each server took, from Triton's own statistics."""

from __future__ import annotations

import asyncio

from tidegate.control.endpoints import ModelsTimes, Times, times_on
from tidegate.control.plane import ControlPlane
from tidegate.errors import EndpointError, StoreError
from tidegate.ports import EndpointState, RegisteredEndpoint

MOST_S = 1.0
"""The longest wait for the registry, and for the servers, which are asked at the same time. One that does not answer is left out."""


async def read_times(plane: ControlPlane) -> Times:
    """Ask every ready server. Without the registry's answer there is none to ask."""
    try:
        async with asyncio.timeout(MOST_S):
            entries = await plane.ports.registry.endpoints()
    except (StoreError, TimeoutError):
        return {}
    ready = [entry for entry in entries if entry.state is EndpointState.READY]
    found = await asyncio.gather(*(_asked(plane, entry) for entry in ready))
    return {entry.endpoint: times for entry, times in zip(ready, found, strict=True) if times is not None}


async def _asked(plane: ControlPlane, entry: RegisteredEndpoint) -> ModelsTimes | None:
    try:
        async with asyncio.timeout(MOST_S):
            return await times_on(plane, entry)
    except (EndpointError, TimeoutError):
        return None
