"""Sequence ids of callers as Triton gets them, so that callers that choose the same id have different sequences.

To Triton, an id of a model is one sequence, for all callers. So the id of a named caller is replaced by another one that follows
from the objective, the caller and the id alone: every process of the gateway replaces it by the same one, and none keeps a table.
A number becomes a number, and a text a text, as a model that reads its ids expects.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Final

from tidegate.gateway.sequences import HARMLESS_SEQUENCE_ID_BYTES

LARGEST_SMALL_ID: Final = 2**31 - 1
"""A prime. Numbers up to it stay different in their lower 32 bits, which are all that a model with ids of 32 bits gets."""

_LONGEST_TEXT_BYTES: Final = 96
"""As many bytes as give a text of 128 in Base64."""

_MOST_KEPT: Final = 4096


class PrivateIds:
    """Replaces the sequence ids of callers.

    Args:
        read_key: returns what makes the ids unpredictable for callers, if it is secret: the same for all gateways before the
            same servers. It is called with the first id, again after an exception, and not after it has returned.
    """

    def __init__(self, read_key: Callable[[], str] = str) -> None:
        self._read_key = read_key
        self._key: str | None = None
        self._shuffles: dict[tuple[str, str], tuple[int, int]] = {}

    def of(self, objective: str, caller: str, given: int | str) -> int | str:
        """Return what Triton gets in place of an id: a number from 1 to 2^63 - 1, or a text of as many bytes, at least 20.

        Args:
            objective: the request's objective.
            caller: the name of its caller.
            given: the id that the caller chose.

        Raises:
            UnavailableError: the key cannot be read now.
        """
        if isinstance(given, str):
            size = max(len(given.encode()), HARMLESS_SEQUENCE_ID_BYTES)
            text = urlsafe_b64encode(self._digest("text", objective, caller, given, _LONGEST_TEXT_BYTES))
            return text[:size].decode()
        hashed = int.from_bytes(self._digest("number", objective, caller, str(given), 8), "big")
        if given <= LARGEST_SMALL_ID:
            factor, offset = self._shuffle(objective, caller)
            low = (factor * given + offset) % LARGEST_SMALL_ID
        else:
            low = (hashed & 0xFFFF_FFFF) % LARGEST_SMALL_ID
        # Neither half is negative as a signed number, and the lower one is not 0, which would be no id.
        return (hashed >> 33) << 32 | low + 1

    def _shuffle(self, objective: str, caller: str) -> tuple[int, int]:
        """Return a factor and an offset, which put the small numbers of a caller in an order of its own."""
        kept = self._shuffles.get((objective, caller))
        if kept is not None:
            return kept
        digest = self._digest("order", objective, caller, "", 16)
        factor = 1 + int.from_bytes(digest[:8], "big") % (LARGEST_SMALL_ID - 1)
        offset = int.from_bytes(digest[8:], "big") % LARGEST_SMALL_ID
        if len(self._shuffles) >= _MOST_KEPT:
            self._shuffles.clear()
        self._shuffles[objective, caller] = factor, offset
        return factor, offset

    def _digest(self, kind: str, objective: str, caller: str, given: str, size: int) -> bytes:
        if self._key is None:
            self._key = self._read_key()
        # None but the last part can hold the separator.
        return hashlib.shake_256("\x1f".join((self._key, kind, objective, caller, given)).encode()).digest(size)
