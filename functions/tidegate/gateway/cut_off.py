"""Requests that were cut off, and that their server may still work on."""

from __future__ import annotations

from typing import Final, NamedTuple

LONGEST_LEFT_S: Final = 60.0
"""The longest that a request counts after it was cut off."""


class _CutOff(NamedTuple):
    """It was sent at `sent_s`, and counts until `until_s`, or until `least_s` if a request that was sent later was answered."""

    sent_s: float
    least_s: float
    until_s: float


class CutOffs:
    """The requests of one place that were cut off and still count.

    One counts until the model's usual time is over, and for at least as long again as it was waited for: a server that hangs
    must not look idle. Nor must one with a queue of them: they count one after the other, until the answer to a later request
    shows that the server got through them.
    """

    __slots__ = ("kept",)

    def __init__(self) -> None:
        self.kept: list[_CutOff] = []

    def add(self, waited_s: float, usual_s: float, idle_s: float, now_s: float) -> tuple[float, float]:
        """Count a request that was cut off after `waited_s`. Return when it stops to count, at the earliest and at the latest.

        Args:
            waited_s: from when it was sent.
            usual_s: what the model takes now.
            idle_s: what it takes when it is idle; 0 if that is not known.
            now_s: the current time.
        """
        least_s = now_s + min(max(usual_s - waited_s, waited_s), LONGEST_LEFT_S)
        before_s = self.kept[-1].until_s if self.kept else now_s - waited_s
        until_s = min(max(before_s + idle_s, least_s), now_s + LONGEST_LEFT_S)
        self.kept.append(_CutOff(now_s - waited_s, least_s, until_s))
        return least_s, until_s

    def overtaken(self, sent_s: float) -> None:
        """Note that a request that was sent at `sent_s` was answered."""
        self.kept = [each._replace(until_s=each.least_s) if each.sent_s <= sent_s else each for each in self.kept]

    def end(self, now_s: float) -> int:
        """Return how many requests stop to count now."""
        left = [each for each in self.kept if each.until_s > now_s]
        ended = len(self.kept) - len(left)
        self.kept = left
        return ended
