"""What the doors tell an observer of every request that was decided: the source of metrics and of access logs.

It names objectives, rules and targets, never a value of the context.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tidegate.dispatch import Outcome
from tidegate.errors import DispatchError
from tidegate.rules.decision import Decision, Target


@dataclass(frozen=True, slots=True)
class Served:
    """One decided request.

    `target` and `shard` answered it (None: none did), `status` is the answer's HTTP status, `failed_attempts` counts the
    attempts before it. Times are in milliseconds: `decide_ms` reading the context and deciding, `dispatch_ms` everything
    after it, `triton_ms` the part of it that the answering attempt took (0 where none answered).
    """

    decision: Decision
    status: int
    target: Target | None = None
    shard: str | None = None
    failed_attempts: int = 0
    decide_ms: float = 0.0
    dispatch_ms: float = 0.0
    triton_ms: float = 0.0

    @property
    def is_fallback(self) -> bool:
        """Whether another target than the decision's own answered."""
        return self.target is not None and self.target != self.decision.target


Observe = Callable[[Served], None]


def unobserved(_served: Served) -> None:
    """Nobody watches."""


def answered(decision: Decision, outcome: Outcome, started_s: float, decided_s: float) -> Served:
    """What an observer is told of a request that a target answered."""
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
    """What an observer is told of a request that no target answered."""
    return Served(
        decision,
        status,
        failed_attempts=len(error.attempts) if isinstance(error, DispatchError) else 0,
        decide_ms=(decided_s - started_s) * 1000.0,
        dispatch_ms=(time.perf_counter() - decided_s) * 1000.0,
    )
