"""A bound on the bytes that all requests of a process hold together."""

from __future__ import annotations


class ByteBudget:
    """Counts bytes that are held, up to a limit. One event loop uses it; nothing waits.

    Args:
        limit_bytes: the most that may be held (> 0).
    """

    __slots__ = ("limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def take(self, size_bytes: int) -> bool:
        """Reserve `size_bytes` (at least 0) if there is room for all of them; whoever took them gives them back."""
        if self.used_bytes + size_bytes > self.limit_bytes:
            return False
        self.used_bytes += size_bytes
        return True

    def give(self, size_bytes: int) -> None:
        """Return bytes that were taken."""
        self.used_bytes -= size_bytes
