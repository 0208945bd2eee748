"""What an observer is told of every request that was decided: the source of metrics.

It names objectives, rules and targets, never a value of the context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
