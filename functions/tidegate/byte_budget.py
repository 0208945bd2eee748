"""A limit on the bytes that all requests of a process hold together, for use on one event loop."""

from __future__ import annotations

from typing import Final

UNCOUNTED_BYTES: Final = 65_536
"""An answer, or what is held of one, is counted in a budget only above this size."""

FULL: Final = "the gateway holds as many bytes of other requests as it may (max_buffered_bytes)"
"""The error text where a budget has no room."""


class ByteBudget:
    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def take(self, size_bytes: int) -> bool:
        """Reserve bytes until `give`; return False if there is no room."""
        if self.used_bytes + size_bytes > self.limit_bytes:
            return False
        self.used_bytes += size_bytes
        return True

    def count(self, size_bytes: int) -> None:
        """Count bytes until `give` that are held in any case, even beyond the limit."""
        self.used_bytes += size_bytes

    def give(self, size_bytes: int) -> None:
        self.used_bytes -= size_bytes

    def lease(self, size_bytes: int) -> ByteLease | None:
        """Reserve bytes while the returned lease is referenced; return None if there is no room."""
        return ByteLease(self, size_bytes) if self.take(size_bytes) else None


class ByteLease:
    """Reserved bytes, which are given back with the last reference, however the request ends."""

    def __init__(self, budget: ByteBudget, size_bytes: int) -> None:
        self._budget = budget
        self._size_bytes = size_bytes

    def grow(self, size_bytes: int) -> bool:
        """Grow to `size_bytes` in all; return False if there is no room."""
        if size_bytes > self._size_bytes:
            if not self._budget.take(size_bytes - self._size_bytes):
                return False
            self._size_bytes = size_bytes
        return True

    def __del__(self) -> None:
        self._budget.give(self._size_bytes)
