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

    def lease(self, size_bytes: int) -> ByteLease | None:
        """Reserve `size_bytes` for as long as the lease is referred to; None where there is no room."""
        return ByteLease(self, size_bytes) if self.take(size_bytes) else None


class ByteLease:
    """Bytes of a budget, given back when nothing refers to the lease any more: so they are, whatever ends a request."""

    __slots__ = ("_budget", "_size_bytes")

    def __init__(self, budget: ByteBudget, size_bytes: int) -> None:
        self._budget = budget
        self._size_bytes = size_bytes

    def grow(self, size_bytes: int) -> bool:
        """Reserve up to `size_bytes` in all; False where there is no room, and the lease stays as it was."""
        if size_bytes > self._size_bytes:
            if not self._budget.take(size_bytes - self._size_bytes):
                return False
            self._size_bytes = size_bytes
        return True

    def __del__(self) -> None:
        self._budget.give(self._size_bytes)
