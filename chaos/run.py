"""Runs one scenario under load, and evaluates what callers saw."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from chaos.place import FALLBACK, PREFERRED, Place, request
from chaos.scenarios import Scenario
from tests.support.quiet_client import Answered, quiet_client

PER_S = 50
CONNECTIONS = 16
"""Enough that requests go on at their rate while some of them wait for a time-out."""

BEFORE_S = 1.0
AFTER_S = 6.0
BACK_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Result:
    """What callers saw of a harm.

    Attributes:
        requests: how many were sent.
        failed: how many were not answered with 200, by what happened instead.
        by_fallback: how many were answered by the fallback.
        worst_ms: the longest time until an answer, from when the request was due.
        back_after_s: seconds from when the preferred target could serve again until the fallback's last answer; 0 where
            it served throughout.
    """

    requests: int
    failed: Counter[str]
    by_fallback: int
    worst_ms: float
    back_after_s: float

    @property
    def is_good(self) -> bool:
        """Whether no request failed, and the preferred target got its requests back in time."""
        return not self.failed and self.back_after_s <= BACK_WITHIN_S


def run(place: Place, scenario: Scenario) -> Result:
    """Harm a whole stack under load, and wait until all that follows is over."""
    place.wait_whole()
    with quiet_client(place.port, request(), per_s=PER_S, connections=CONNECTIONS) as client:
        time.sleep(BEFORE_S)
        returned_s = scenario.harm(place)
        time.sleep(AFTER_S)
        answered = client.stop().answered
    return evaluate(answered, returned_s)


def evaluate(answered: tuple[Answered, ...], returned_s: float) -> Result:
    """Evaluate what a client saw of a target that could serve again at `returned_s` of the monotonic clock."""
    good = {f"200 {PREFERRED}", f"200 {FALLBACK}"}
    elsewhere_s = [each.due_s for each in answered if each.outcome != f"200 {PREFERRED}"]
    return Result(
        len(answered),
        Counter(each.outcome for each in answered if each.outcome not in good),
        sum(each.outcome == f"200 {FALLBACK}" for each in answered),
        max(each.took_ms for each in answered),
        max([0.0, *(due_s - returned_s for due_s in elsewhere_s)]),
    )
