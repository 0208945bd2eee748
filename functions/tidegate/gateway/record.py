"""What is known of one request, for its line in the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.errors import DispatchError
from tidegate.ports import Served
from tidegate.rules import Traffic
from tidegate.rules.contract import Objective
from tidegate.rules.decision import Decision


class Record:
    """A request, as far as it came. Each step adds what it knows.

    Attributes:
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

    __slots__ = ("caller", "context", "decision", "error", "has_failed", "objective", "served", "traffic", "waited_s")

    def __init__(self) -> None:
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
