"""What the console is made from: the control plane, what was counted, and the rules and models as they are written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.console.traffic_reads import TrafficReads
from tidegate.control.plane import ControlPlane

Status = Callable[[], Awaitable[Mapping[str, Any]]]
"""Returns the fleet as `GET /v1/fleet` has it, in bounded time."""

Pairs = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
"""Returns the pairs of `tidegate shadow report`, as its JSON has them."""

Metrics = Callable[[str], Awaitable[tuple[str, bytes]]]
"""Returns the media type and the text of the metrics, in a format that the header `Accept` names."""


Flipped = Callable[[], Awaitable[None]]
"""Has the followers of the pointer look at it at once, and waits for that, in bounded time. Raises nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSources:
    """The dependencies of the console.

    Attributes:
        traffic: reads what was counted; None: nothing counts.
        metrics: renders what was counted, for Prometheus; None: nothing does.
        pairs: reads the comparisons of shadows; None: there are none.
        rules: the rules directory that is followed; None: rules come from elsewhere, and are shown as their bundle has them.
        models: the name of the folder of models, for people; None: there is none.
        writes: whether the console may change what is live.
        asks: whether this process may ask the servers.
        flipped: called after a flip of the console; None: nothing else follows it.
        stops_after_answers: whether this process does nothing between two requests, as a function.
    """

    status: Status
    plane: ControlPlane
    traffic: TrafficReads | None = None
    metrics: Metrics | None = None
    pairs: Pairs | None = None
    rules: Path | None = None
    models: Path | None = None
    writes: bool = False
    asks: bool = True
    flipped: Flipped | None = None
    stops_after_answers: bool = False
