"""Numbers as people read them, for the terminal and for pictures."""

from __future__ import annotations

from decimal import Decimal


def plain(number: float) -> str:
    """Return a number in decimal notation, however small."""
    return f"{number:g}" if number == 0 or abs(number) >= 0.0001 else f"{Decimal(repr(number)):f}"


def percent(share: float) -> str:
    """Return a share (0–1) in percent, with two decimals, or four where it is smaller than two show.

    Only nothing is 0.00 % and only all is 100.00 %: a share that would round to either is below or above a bound.
    """
    value = 100 * share
    if 0 < value < 0.0001:
        return "<0.0001 %"
    if 0 < value < 0.01:
        return f"{value:.4f} %"
    return ">99.99 %" if 99.995 <= value < 100 else f"{value:.2f} %"
