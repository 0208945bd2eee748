"""Suggests the known name for a misspelt one. Only the standard library, since gateways suggest names too."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST_NAME = 128
"""Longer words are not misspelt names, and comparing them would take long."""


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that is most similar to `word`; None if none is similar."""
    if len(word) > LONGEST_NAME:
        return None
    from difflib import get_close_matches  # by the request that needs it alone

    return next(iter(get_close_matches(word, sorted(names), n=1)), None)


def suggestion(near: str | None, opening: str = "; ") -> str:
    """Return a similar name as the end of a message; empty without one."""
    return "" if near is None else f"{opening}did you mean {near!r}?"
