"""What the handlers report to an observer about a decided request."""

from __future__ import annotations

import time

from tidegate.dispatch import Outcome
from tidegate.errors import DispatchError
from tidegate.ports import Served
from tidegate.rules.decision import Decision


def unobserved(_served: Served) -> None:
    """Nobody watches."""


def answered(decision: Decision, outcome: Outcome, started_s: float, decided_s: float) -> Served:
    """What is reported to an observer about a request that a target answered."""
    return Served(
        decision,
        outcome.response.status,
        outcome.target,
        outcome.shard,
        len(outcome.failures),
        (decided_s - started_s) * 1000.0,
        (time.perf_counter() - decided_s) * 1000.0,
        outcome.triton_ms,
    )


def unanswered(decision: Decision, error: Exception, status: int, started_s: float, decided_s: float) -> Served:
    """What is reported to an observer about a request that no target answered."""
    return Served(
        decision,
        status,
        failed_attempts=len(error.attempts) if isinstance(error, DispatchError) else 0,
        decide_ms=(decided_s - started_s) * 1000.0,
        dispatch_ms=(time.perf_counter() - decided_s) * 1000.0,
    )
