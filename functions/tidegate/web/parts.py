"""Dependencies shared by the handlers of `/v1` and `/v2`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tidegate.byte_budget import ByteBudget
from tidegate.dispatch import Dispatcher
from tidegate.ports import EngineSource, Observe, Offload
from tidegate.web.callers import Grants
from tidegate.web.decided import DecisionHeaders
from tidegate.web.http import Scope
from tidegate.web.metadata import MetadataCache
from tidegate.web.model_answers import ModelAnswers

TimeLeft = Callable[[Scope], float | None]
"""What the function that runs the app has left for a request, in milliseconds, or None."""


@dataclass(frozen=True, slots=True)
class DoorParts:
    """The parts and bounds of a gateway that its handlers share; see `create_app`."""

    engines: EngineSource
    dispatcher: Dispatcher
    decided: DecisionHeaders
    metadata: MetadataCache
    grants: Grants
    time_left_ms: TimeLeft
    max_body_bytes: int
    max_json_bytes: int
    stream_above_bytes: int
    max_v1_body_bytes: int
    max_v1_values: int
    offload: Offload
    budget: ByteBudget
    answers: ModelAnswers
    observe: Observe
