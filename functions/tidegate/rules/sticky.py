"""Sticky choices: weighted rendezvous hashing, and the buckets of experiment layers. Hash version 1.

The choice is an exponential race (Schindelhauer & Schomaker, "Weighted Distributed Hash Tables", SPAA 2005,
https://doi.org/10.1145/1073970.1074008): each variant draws `u` from the hash of salt, variant and key, and the smallest
`-ln(u) / weight` wins. Shares are exact in expectation for any integer weights; raising a weight only moves keys into it.

All arithmetic is IEEE 754 double precision in the order written here, so that any language with SHA-256 and a natural
logarithm recomputes it. The vectors in tests/rules/test_sticky.py are frozen: a change of any of them needs a new
`HASH_VERSION`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log
from struct import Struct
from typing import Any, Final

try:
    # CPython's own SHA-256. That of `hashlib` is OpenSSL's, which takes half as long again for a text of one block.
    from _sha2 import sha256
except ImportError:
    try:
        # Its name before 3.12.
        from _sha256 import sha256
    except ImportError:
        from hashlib import sha256

HASH_VERSION: Final = 1
BUCKETS: Final = 10_000
SEPARATOR: Final = "\x1f"

_first_8_bytes = Struct(">Q").unpack_from
_SCALE: Final = 2.0**-64


def prefix(salt: str, variant: str) -> bytes:
    """Return the bytes before the key in what a variant hashes: salt ␟ variant ␟ key."""
    return f"{salt}{SEPARATOR}{variant}{SEPARATOR}".encode()


def first_number(hashed: bytes) -> int:
    """Return the first 8 bytes of the SHA-256 of `hashed`, as a big-endian integer."""
    number: int = _first_8_bytes(sha256(hashed).digest())[0]
    return number


def unit_of_number(number: int) -> float:
    """Return the draw `u` of a `first_number`: (number + 0.5) / 2^64, in (0, 1]."""
    return (number + 0.5) * _SCALE


def choose(variants: Sequence[tuple[bytes, int]], key: bytes) -> int:
    """Return the index of the variant (prefix, weight) that wins the race for the bytes of a sticky key. At least one weight
    is positive, and a weight of 0 never wins."""
    best, winner = inf, 0
    for index, (before, weight) in enumerate(variants):
        if weight:
            (number,) = _first_8_bytes(sha256(before + key).digest())
            score = -log((number + 0.5) * _SCALE) / weight
            if score < best:
                best, winner = score, index
    return winner


def shadow_prefix(objective: str, rule: str, target: str) -> bytes:
    """Return the bytes before the key in what a shadow hashes: `<objective>/<rule>/shadow` ␟ target as written ␟ key."""
    return prefix(f"{objective}/{rule}/shadow", target)


def is_sampled(u: float, percent: float) -> bool:
    """Return whether a shadow of `percent` (0–100) copies a request with the draw `u`: a higher percentage only adds requests."""
    return u <= percent / 100.0


def layer_bucket(layer: str, key: str) -> int:
    """Return the bucket (0–9999) of a key in a layer: floor(h * 10000 / 2^64), h = first 8 bytes of SHA-256(layer ␟ key)."""
    return first_number(f"{layer}{SEPARATOR}{key}".encode()) * BUCKETS >> 64


def key_value(value: Any, default: Any) -> Any:
    """Return the value of an attribute that keys a sticky choice, or None where the context and the default have none.

    An empty text identifies no member, so it counts as absent: otherwise every anonymous request would share one variant.
    """
    if value is None or value == "":
        value = default
    return None if value == "" else value


def key_text(value: object) -> str:
    """Return the text that is hashed for a sticky attribute's value: text as it is, an integer in decimal."""
    return value if isinstance(value, str) else str(value)
