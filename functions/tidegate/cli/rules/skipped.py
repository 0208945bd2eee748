"""The lines of a log that were not used, by why."""

from __future__ import annotations

from typing import Any

FIRST_LINES = 5


class Skipped:
    """Counts lines by the reason for which they were not used, and keeps the numbers of the first few of each."""

    def __init__(self) -> None:
        self._lines: dict[str, list[int]] = {}
        self._counts: dict[str, int] = {}

    def add(self, line: int, reason: str) -> None:
        """Count a line."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        lines = self._lines.setdefault(reason, [])
        if len(lines) < FIRST_LINES:
            lines.append(line)

    def as_list(self) -> list[dict[str, Any]]:
        """The reasons as plain JSON values, the most frequent first."""
        ordered = sorted(self._counts, key=lambda reason: (-self._counts[reason], reason))
        return [
            {"reason": reason, "lines": self._counts[reason], "first_lines": self._lines[reason]} for reason in ordered
        ]

    def words(self) -> str:
        """The reasons in one line."""
        return "; ".join(
            f"{each['lines']:,} line{'' if each['lines'] == 1 else 's'} skipped: {each['reason']}, "
            f"first in line {each['first_lines'][0]}"
            for each in self.as_list()
        )
