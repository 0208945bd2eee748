"""Words of messages about names. They need the standard library alone: the checks of models share them."""

from __future__ import annotations

from collections.abc import Collection

from tidegate.rules.nearest import nearest
from tidegate.rules.values import SHOWN_CHARACTERS

SHOWN_NAMES = 12


def did_you_mean(word: str, known: Collection[str], noun: str) -> str:
    """Suggest a correction of an unknown `word`."""
    names = sorted(known)
    near = nearest(word, names)
    if near is not None:
        return f"did you mean {quoted(near)}?"
    if not names:
        return f"no {noun} is declared"
    shown = ", ".join(map(shortened, names[:SHOWN_NAMES])) + (", …" if len(names) > SHOWN_NAMES else "")
    return f"known {noun}s: {shown}"


def quoted(text: str) -> str:
    """Return a text of a file in quotes, shortened where it is long."""
    return repr(shortened(text))


def shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
