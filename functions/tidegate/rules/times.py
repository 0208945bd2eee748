"""Times as authors and logs write them: ISO 8601 text, and Unix seconds in between."""

from __future__ import annotations

from datetime import UTC, datetime

EARLIEST = -62_135_596_800
LATEST = 253_402_300_799
"""The last second of the year 9999. A fraction more would round up to a time that `datetime` does not have."""

EXPECTED_TIME = 'write ISO 8601 in the years 1 to 9999 (UTC), such as "2026-11-01T00:00:00Z"'


def parse_time(text: str) -> float:
    """Convert ISO 8601 text to Unix seconds, in UTC where it has no offset.

    Raises:
        ValueError: it is not such a text, or the time in UTC is outside the years 1 to 9999.
    """
    moment = datetime.fromisoformat(text)
    # Subtracting needs no time in UTC, which text at either end of the calendar with an offset does not have.
    seconds = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    if not EARLIEST <= seconds <= LATEST:
        raise ValueError("outside the years 1 to 9999")
    return seconds


def utc_text(seconds: float) -> str:
    """Convert Unix seconds from `EARLIEST` to `LATEST` to ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
