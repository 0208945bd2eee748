"""The known name that an unknown one was meant to be. The standard library alone: gateways suggest names too."""

from __future__ import annotations

from collections.abc import Iterable

LONGEST_NAME = 128
"""Longer words are no misspelt name; comparing them would take long."""


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name that is most like `word`; None where none is near."""
    if len(word) > LONGEST_NAME:
        return None
    from difflib import get_close_matches  # by the request that needs it alone

    return next(iter(get_close_matches(word, sorted(names), n=1)), None)


def suggestion(near: str | None, opening: str = "; ") -> str:
    """A near name as the end of a message; empty without one."""
    return "" if near is None else f"{opening}did you mean {near!r}?"
