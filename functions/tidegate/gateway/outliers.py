"""Outliers: places that fail, or take, far more than the same model does on the shard's other endpoints.

The idea, and the growing time of ejection, are Envoy's
(https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier). Its statistics need more endpoints than a
shard has; here each place is compared with the others, by the difference of the error rates and the ratio of the latencies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median_low
from typing import Final

from tidegate.gateway.concurrency import SLACK_S

LEAST_REQUESTS: Final = 20
"""Requests of a place between two looks; with fewer it is not judged."""

ERROR_DIFFERENCE: Final = 0.3
LATENCY_RATIO: Final = 3.0


class Standing:
    """What a place did since the last look, and until when it is ejected.

    `ejections` is how often it was ejected lately: with each, the next ejection lasts longer.
    """

    __slots__ = ("answers", "ejected_until_s", "ejections", "errors", "log_s")

    def __init__(self) -> None:
        self.answers = 0
        self.errors = 0
        self.log_s = 0.0
        self.ejections = 0
        self.ejected_until_s = -math.inf

    def answered(self, took_s: float) -> None:
        """Count an answer; of the latencies the geometric mean is compared, which single stalls hardly change."""
        self.answers += 1
        self.log_s += math.log(max(took_s, 1e-6))

    def failed(self) -> None:
        self.errors += 1

    @property
    def requests(self) -> int:
        return self.answers + self.errors

    @property
    def latency_s(self) -> float | None:
        """The geometric mean; None for too few answers."""
        return math.exp(self.log_s / self.answers) if self.answers >= LEAST_REQUESTS else None

    def forget(self) -> None:
        """Drop what was counted, after a look."""
        self.answers = self.errors = 0
        self.log_s = 0.0


def outliers(standings: Sequence[Standing]) -> list[tuple[int, str]]:
    """Return the places that stand out among those of a model on a shard, the worst first, and why."""
    found: list[tuple[float, int, str]] = []
    for index, own in enumerate(standings):
        others = [each for each in standings if each is not own and each.requests >= LEAST_REQUESTS]
        if own.requests < LEAST_REQUESTS or not others:
            continue
        share = own.errors / own.requests
        others_share = sum(each.errors for each in others) / sum(each.requests for each in others)
        if share - others_share >= ERROR_DIFFERENCE:
            found.append((1e6 * share, index, f"fails {share:.0%} of its requests, the others {others_share:.0%}"))
            continue
        others_s = [each.latency_s for each in others if each.latency_s is not None]
        if own.latency_s is None or not others_s:
            continue
        usual_s = median_low(others_s)
        ratio = own.latency_s / usual_s
        if ratio >= LATENCY_RATIO and own.latency_s - usual_s >= SLACK_S:
            found.append((ratio, index, f"takes {ratio:.1f} times as long as the others"))
    return [(index, why) for _, index, why in sorted(found, reverse=True)]
