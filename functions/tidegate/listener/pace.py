"""How long the rest of a body may take."""

from __future__ import annotations


class BodyPace:
    """A credit of time: waiting uses it up, and each byte that arrives adds what it may take, up to the whole again.

    So a body may pause for up to `timeout_s`, and may not stay below `min_bytes_per_s` for much longer than that.
    """

    __slots__ = ("_left_s", "_min_bytes_per_s", "_since_s", "_timeout_s")

    def __init__(self, timeout_s: float, min_bytes_per_s: int) -> None:
        self._timeout_s = timeout_s
        self._min_bytes_per_s = min_bytes_per_s
        self._left_s = timeout_s
        self._since_s = 0.0

    def start(self, now_s: float) -> float:
        """Begin with a body; return how long its next byte may take."""
        self._left_s = self._timeout_s
        return self.resume(now_s)

    def resume(self, now_s: float) -> float:
        """Go on after a pause of the server's own, which costs the caller nothing; return as `start` does."""
        self._since_s = now_s
        return self._left_s

    def arrived(self, size_bytes: int, now_s: float) -> float:
        """Count what has arrived; return as `start` does."""
        earned_s = size_bytes / self._min_bytes_per_s
        self._left_s = min(self._timeout_s, self._left_s - (now_s - self._since_s) + earned_s)
        return self.resume(now_s)
