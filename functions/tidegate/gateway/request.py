"""What is known of one request after each of the steps of `gateway/service.py`.

These are classes with a constructor: where they are compiled, making a `NamedTuple` or a dataclass of as many members takes ten to
forty times as long (`assets/compiling.py`).
"""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Sequence as ItemSequence
from typing import Any, Final

from tidegate.gateway.quotas import Lease
from tidegate.gateway.record import Record
from tidegate.rules import Engine
from tidegate.rules.contract import Objective, Traffic
from tidegate.rules.decision import Decision, Shadow, Target


class Ask:
    """A request before its context is read.

    Attributes:
        objective: the objective's name.
        lease: holds what the request takes of its limits. Its protocol releases it when the answer, or a stream, has ended.
        identity: the source of the caller's name, such as the ASGI scope.
        connection: the request's flow (see `Call`) if its caller has no name.
        pins: every `Tidegate-Override` of the request.
        marks: every `Tidegate-Traffic` of the request.
        caller_ms: how long its caller waits for the answer, in milliseconds, if it says so.
        record: gathers what is known of the request, for the log; None: no log.
    """

    def __init__(
        self,
        objective: str,
        lease: Lease,
        identity: Any = None,
        connection: Hashable = None,
        pins: ItemSequence[bytes] = (),
        marks: ItemSequence[bytes] = (),
        caller_ms: float | None = None,
        record: Record | None = None,
    ) -> None:
        self.objective: Final = objective
        self.lease: Final = lease
        self.identity: Final = identity
        self.connection: Final = connection
        self.pins: Final = pins
        self.marks: Final = marks
        self.caller_ms: Final = caller_ms
        self.record: Final = record


class Admitted:
    """A request whose caller may use its objective.

    Attributes:
        ask: the request.
        engine: the live rules.
        objective: the objective in those rules.
        pinned: the target that the caller pins, if any.
        flow: its caller, else its connection; see `Call`.
        caller: its caller's name; None if the rules have no callers.
        traffic: its class.
        waited_s: how long it waited to be admitted, in seconds.
    """

    def __init__(
        self,
        ask: Ask,
        engine: Engine,
        objective: Objective,
        pinned: Target | None,
        flow: Hashable,
        caller: str | None,
        traffic: Traffic,
    ) -> None:
        self.ask: Final = ask
        self.engine: Final = engine
        self.objective: Final = objective
        self.pinned: Final = pinned
        self.flow: Final = flow
        self.caller: Final = caller
        self.traffic: Final = traffic
        self.waited_s = 0.0


class Limits:
    """How long a request may take, in milliseconds: the caller's limit, and what the function has left. None: no limit."""

    def __init__(self, caller_ms: float | None = None, function_ms: float | None = None) -> None:
        self.caller_ms: Final = caller_ms
        self.function_ms: Final = function_ms


class Decided:
    """A decided request.

    `shadows` are those that sampled it. `caller` and `traffic` are its origin, as in `Admitted`. `started_s` and `decided_s` are
    when deciding began and ended, by `Service.now_s`; `deadline_s` is on the dispatcher's clock.
    """

    def __init__(
        self,
        engine: Engine,
        decision: Decision,
        is_pinned: bool,
        shadows: tuple[Shadow, ...],
        flow: Hashable,
        caller: str | None,
        traffic: Traffic,
        deadline_s: float,
        started_s: float,
        decided_s: float,
        record: Record | None,
    ) -> None:
        self.engine: Final = engine
        self.decision: Final = decision
        self.is_pinned: Final = is_pinned
        self.shadows: Final = shadows
        self.flow: Final = flow
        self.caller: Final = caller
        self.traffic: Final = traffic
        self.deadline_s: Final = deadline_s
        self.started_s: Final = started_s
        self.decided_s: Final = decided_s
        self.record: Final = record

    def with_decision(self, decision: Decision, deadline_s: float | None = None) -> Decided:
        """Return the request with another decision, and with another deadline if one is given."""
        return self._changed(decision, self.shadows, self.deadline_s if deadline_s is None else deadline_s)

    def without_shadows(self) -> Decided:
        """Return the request with no shadow that sampled it."""
        return self._changed(self.decision, (), self.deadline_s)

    def _changed(self, decision: Decision, shadows: tuple[Shadow, ...], deadline_s: float) -> Decided:
        return Decided(
            self.engine,
            decision,
            self.is_pinned,
            shadows,
            self.flow,
            self.caller,
            self.traffic,
            deadline_s,
            self.started_s,
            self.decided_s,
            self.record,
        )
