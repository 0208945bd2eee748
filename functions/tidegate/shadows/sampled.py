"""Counts, for each pair, of what a gateway did with the requests that shadows sampled.

They are made where requests are answered, without the sketches of `tallies`, which `Tallies.count` adds them to.
"""

from __future__ import annotations

from typing import Any, Final

from tidegate.shadows.exchange import Pair

SAMPLED: Final = "sampled"

MOST_PAIRS: Final = 256
"""Pairs that are held until `take`; requests of further ones are in no pair."""


class _Counted:
    __slots__ = ("counts", "first_at", "last_at", "revision")

    def __init__(self, revision: str, at: float) -> None:
        self.revision = revision
        self.first_at = at
        self.last_at = at
        self.counts: dict[str, int] = {}


class PairCounts:
    """Counts by pair, under the names of `tidegate.shadows.counts`, until they are taken."""

    def __init__(self) -> None:
        self._pairs: dict[Pair, _Counted] = {}

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def add(self, pair: Pair, revision: str, at: float, name: str, count: int = 1) -> None:
        """Count something of a pair, at a time in Unix seconds."""
        found = self._pairs.get(pair)
        if found is None:
            if len(self._pairs) >= MOST_PAIRS:
                return
            found = self._pairs[pair] = _Counted(revision, at)
        counts = found.counts
        counts[name] = counts.get(name, 0) + count
        found.revision, found.last_at = revision, at

    def merge(self, records: list[Any]) -> None:
        """Add what another one's `take` returned."""
        for pair, revision, first_at, last_at, counts in records:
            key = Pair(*pair)
            for name, count in counts.items():
                self.add(key, revision, first_at, name, count)
                self.add(key, revision, last_at, name, 0)

    def take(self) -> list[Any]:
        """Return what was counted since the last time, as JSON values that `Tallies.count` reads: for each pair a list of the pair,
        the last revision, the times of the first and the last count, and the counts by name."""
        taken, self._pairs = self._pairs, {}
        return [
            [list(pair), found.revision, found.first_at, found.last_at, found.counts] for pair, found in taken.items()
        ]
