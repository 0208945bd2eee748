"""Runs one scenario under load, and evaluates what callers saw."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chaos.place import FALLBACK, PREFERRED
from chaos.scenarios import AnyPlace, Scenario
from tests.support.quiet_client import Answered

BEFORE_S = 1.0
AFTER_S = 6.0
BACK_WITHIN_S = 5.0
CUT_OFF = ("BrokenPipeError", "Connection", "UNAVAILABLE", '503 {"error":"upstream connect error')
"""How outcomes begin of requests whose connection ended or was refused."""


@dataclass(frozen=True, slots=True)
class Result:
    """What callers saw of a harm.

    Attributes:
        requests: how many were sent.
        failed: how many were not answered with 200, by what happened instead.
        by_fallback: how many were answered by the fallback.
        worst_ms: the longest time until an answer or a failure, from when the request was due.
        back_after_s: seconds from when the preferred target could serve again until the fallback's last answer, or the last
            failure; 0 where it served throughout.
    """

    requests: int
    failed: Counter[str]
    by_fallback: int
    worst_ms: float
    back_after_s: float

    def is_good(self, scenario: Scenario[Any]) -> bool:
        """Whether no request failed otherwise than the scenario makes it, and the preferred target got its requests back in time."""
        failed = [each for each in self.failed if not (scenario.cuts_off and each.startswith(CUT_OFF))]
        return not failed and self.back_after_s <= BACK_WITHIN_S


def run(place: AnyPlace, scenario: Scenario[AnyPlace]) -> Result:
    """Harm a whole stack under load, and wait until all that follows is over."""
    place.wait_whole()
    with place.callers() as clients:
        time.sleep(BEFORE_S)
        returned_s = scenario.harm(place)
        time.sleep(AFTER_S)
        answered = [each for client in clients for each in client.stop().answered]
    return evaluate(answered, returned_s)


def evaluate(answered: Sequence[Answered], returned_s: float) -> Result:
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
