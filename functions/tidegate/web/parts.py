"""Dependencies shared by the handlers of `/v1` and `/v2`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tidegate.byte_budget import ByteBudget
from tidegate.gateway.service import Service
from tidegate.ports import CountRequest, Offload
from tidegate.web.access_log import AccessLog
from tidegate.web.decided import DecisionHeaders
from tidegate.web.http import Scope
from tidegate.web.model_answers import ModelAnswers

TimeLeft = Callable[[Scope], float | None]
"""Return the milliseconds that the function running the app has left for a request, or None."""


@dataclass(frozen=True, slots=True)
class HandlerParts:
    """Dependencies and limits shared by the handlers; see `create_app`."""

    service: Service
    decided: DecisionHeaders
    answers: ModelAnswers
    time_left_ms: TimeLeft
    offload: Offload
    budget: ByteBudget
    max_body_bytes: int
    max_json_bytes: int
    stream_above_bytes: int
    max_v1_body_bytes: int
    max_v1_values: int
    streams: bool
    log: AccessLog | None = None
    traces: bool = False
    count: CountRequest | None = None
