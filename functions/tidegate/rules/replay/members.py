"""Counting each member once, in constant memory.

A member that comes back does not make a split's shares more certain, so shares are counted over distinct sticky keys. They
are remembered in a Bloom filter (B. H. Bloom, "Space/Time Trade-offs in Hash Coding with Allowable Errors", CACM 13, 1970,
https://doi.org/10.1145/362686.362692) that never forgets a key, and takes a new key for an old one where the others
happen to have set its three bits. With `n` distinct keys, summed over all splits and experiments, the share of keys that
go uncounted for this is the mean of (1 - exp(-3 x / 2^28))^3 over x from 0 to n: less than one key in a million up to a
million keys, 0.03 % at 10 million, 10 % at 100 million. Which key goes uncounted depends on its hash here, which has
nothing to do with the hash of the sticky choice: what is counted stays a fair sample of all members, and a test of it
stays valid.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct

FILTER_BYTES = 1 << 25
"""32 MiB; memory that no key has touched yet is not used."""

_PLACES = FILTER_BYTES - 1
_three_numbers = Struct("<3I").unpack_from


class Members:
    """Which keys of which splits and experiments have been counted."""

    __slots__ = ("_filter",)

    def __init__(self) -> None:
        self._filter = bytearray(FILTER_BYTES)

    def is_new(self, prefix: bytes, key: bytes) -> bool:
        """Whether a key has not been seen with this prefix, which tells splits apart (see `prefix_of`); remembers it."""
        one, two, three = _three_numbers(sha256(prefix + key).digest())
        # The same of the 8 bits in each of three bytes, as if there were 8 filters; the number's other bits say where.
        bit = 1 << (one >> 29)
        one, two, three = one & _PLACES, two & _PLACES, three & _PLACES
        seen = self._filter
        if seen[one] & seen[two] & seen[three] & bit:
            return False
        seen[one] |= bit
        seen[two] |= bit
        seen[three] |= bit
        return True


def prefix_of(objective: str, rule: str) -> bytes:
    """What tells the keys of a rule apart; no sticky choice hashes a text that begins so."""
    return f"\x1fmember\x1f{objective}/{rule}\x1f".encode()
