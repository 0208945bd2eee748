"""A budget that limits the extra load of retries.

It is a token bucket as in Finagle (https://twitter.github.io/finagle/guide/Clients.html#retries): every request deposits a
share of a token, every retry withdraws one, and a small floor allows retries to a process that sees few requests.
"""

from __future__ import annotations


class RetryBudget:
    """Allows retries up to a share of the requests.

    Args:
        ratio: tokens that each request deposits: 0.2 allows one retry for five requests (0–1).
        floor_per_s: tokens that accrue every second regardless of traffic (at least 0).
        burst: the most that the bucket holds, and what it starts with (at least 1).
    """

    __slots__ = ("_burst", "_floor_per_s", "_ratio", "_seen_s", "_tokens")

    def __init__(self, ratio: float, floor_per_s: float, burst: float, now_s: float) -> None:
        self._ratio = ratio
        self._floor_per_s = floor_per_s
        self._burst = burst
        self._tokens = burst
        self._seen_s = now_s

    def deposit(self, now_s: float) -> None:
        """Deposit the tokens of one request; retries deposit none."""
        tokens = self._tokens + self._ratio + (now_s - self._seen_s) * self._floor_per_s
        self._tokens = min(self._burst, tokens)
        self._seen_s = now_s

    @property
    def allows(self) -> bool:
        """Whether one retry is left."""
        return self._tokens >= 1.0

    def withdraw_for_hedge(self) -> bool:
        """Withdraw one retry for a hedge; return False where half of the burst is not left, since retries come first."""
        return self._tokens >= self._burst / 2.0 and self.withdraw()

    def withdraw(self) -> bool:
        """Withdraw one retry; return False when none is left."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
