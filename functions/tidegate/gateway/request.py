"""What is known of one request after each of the steps of `gateway/service.py`."""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Sequence as ItemSequence
from typing import Any, NamedTuple

from tidegate.gateway.quotas import Lease
from tidegate.gateway.record import Record
from tidegate.rules import Engine
from tidegate.rules.contract import Objective, Traffic
from tidegate.rules.decision import Decision, Shadow, Target


class Ask(NamedTuple):
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

    objective: str
    lease: Lease
    identity: Any = None
    connection: Hashable = None
    pins: ItemSequence[bytes] = ()
    marks: ItemSequence[bytes] = ()
    caller_ms: float | None = None
    record: Record | None = None


class Admitted(NamedTuple):
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

    ask: Ask
    engine: Engine
    objective: Objective
    pinned: Target | None
    flow: Hashable
    caller: str | None
    traffic: Traffic
    waited_s: float = 0.0


class Limits(NamedTuple):
    """How long a request may take, in milliseconds: the caller's limit, and what the function has left. None: no limit."""

    caller_ms: float | None = None
    function_ms: float | None = None


class Decided(NamedTuple):
    """A decided request.

    `shadows` are those that sampled it. `caller` and `traffic` are its origin, as in `Admitted`. `started_s` and `decided_s` are
    when deciding began and ended, by `Service.now_s`; `deadline_s` is on the dispatcher's clock.
    """

    engine: Engine
    decision: Decision
    is_pinned: bool
    shadows: tuple[Shadow, ...]
    flow: Hashable
    caller: str | None
    traffic: Traffic
    deadline_s: float
    started_s: float
    decided_s: float
    record: Record | None = None
