"""What a dispatcher knows about one endpoint: requests under way, and whether it is worth asking."""

from __future__ import annotations


class Breaker:
    """Opens after consecutive failures, lets one probe through once it has been open for a while.

    Args:
        failures_to_open: consecutive failures that open it (at least 1).
        open_s: seconds it stays open before one probe may try (> 0).
    """

    __slots__ = ("_failures", "_failures_to_open", "_open_s", "_open_until_s", "_probing", "outstanding")

    def __init__(self, failures_to_open: int, open_s: float) -> None:
        self.outstanding = 0
        self._failures = 0
        self._failures_to_open = failures_to_open
        self._open_s = open_s
        self._open_until_s: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether the endpoint is being left alone (a probe may be under way)."""
        return self._open_until_s is not None

    def would_admit(self, now_s: float) -> bool:
        """Whether a request may be sent now."""
        return self._open_until_s is None or (now_s >= self._open_until_s and not self._probing)

    def enter(self) -> None:
        """A request is being sent; when the breaker is open, it is the probe."""
        self.outstanding += 1
        if self._open_until_s is not None:
            self._probing = True

    def leave(self, now_s: float, succeeded: bool | None) -> None:
        """A request has ended. None says nothing about the endpoint (the caller went away)."""
        self.outstanding -= 1
        if succeeded:
            self._failures = 0
            self._open_until_s = None
            self._probing = False
            return
        if succeeded is None:
            self._probing = False
            return
        self._failures += 1
        if self._failures >= self._failures_to_open:
            self._open_until_s = now_s + self._open_s
            self._probing = False
