"""What is known of one request, for its line in the log and its span."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tidegate.errors import DispatchError
from tidegate.ports import Headers, Served, Span
from tidegate.rules import Traffic
from tidegate.rules.contract import Objective
from tidegate.rules.decision import Decision


class Record:
    """A request, as far as it came. Each step adds what it knows.

    Attributes:
        headers: its headers, which have the ids of its trace and of itself; names in lower case.
        began_s: when its headers had come, by `time.perf_counter`.
        span: its span, once it names an objective and if requests are traced.
        objective: the name that was asked for; None for a request that names none.
        caller: its caller's name, once that is admitted.
        traffic: its class, once its caller is admitted.
        waited_s: how long it waited to be admitted, in seconds.
        decision: its decision.
        context: the values of the attributes that its objective lists as `loggable`, and of no other.
        served: what was reported of it, once it was answered or had failed.
        error: the class of the error that it ended with.
        has_failed: whether no target answered it, although it was decided.
    """

    __slots__ = (
        "began_s", "caller", "context", "decision", "error", "has_failed", "headers", "objective", "served", "span", "traffic",
        "waited_s",
    )  # fmt: skip

    def __init__(self, headers: Headers = ()) -> None:
        self.headers = headers
        self.began_s = time.perf_counter()
        self.span: Span | None = None
        self.objective: str | None = None
        self.caller: str | None = None
        self.traffic: Traffic | None = None
        self.waited_s = 0.0
        self.decision: Decision | None = None
        self.context: Mapping[str, Any] = {}
        self.served: Served | None = None
        self.error: str | None = None
        self.has_failed = False

    def decide(self, decision: Decision, objective: Objective, context: Mapping[str, Any]) -> None:
        """Add the decision, and what may be logged of the context."""
        self.decision = decision
        if objective.loggable:
            self.context = {name: context[name] for name in objective.loggable if name in context}

    def fail(self, error: Exception) -> None:
        """Add the error that the request ended with, by its class alone: a message may hold a value of the context."""
        self.error = type(error).__name__
        # Before the decision, such an error says that the process itself has no room.
        self.has_failed = self.decision is not None and isinstance(error, DispatchError)
