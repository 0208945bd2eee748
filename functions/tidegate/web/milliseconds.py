"""Milliseconds as text, put together from tables of digits: formatting a float takes five times as long."""

from __future__ import annotations

from typing import Final

_WHOLE: Final = [b"%d" % number for number in range(1000)]
THOUSANDTHS: Final = [b".%03d" % number for number in range(1000)]
"""The three decimals of each number of thousandths."""


def add_ms(parts: list[bytes], took_ms: float) -> None:
    """Add a time of at least 0 as a number with three decimals."""
    took_us = int(took_ms * 1000.0 + 0.5)
    whole = took_us // 1000
    parts.append(_WHOLE[whole] if whole < 1000 else b"%d" % whole)
    parts.append(THOUSANDTHS[took_us % 1000])
