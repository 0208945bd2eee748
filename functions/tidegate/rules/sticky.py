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
from hashlib import sha256
from math import inf, log
from struct import Struct
from typing import Any

HASH_VERSION = 1
BUCKETS = 10_000
SEPARATOR = "\x1f"

_first_8_bytes = Struct(">Q").unpack_from
_SCALE = 2.0**-64


def unit(salt: str, variant: str, key: str) -> float:
    """The draw of one variant for one key: (first 8 bytes of SHA-256(salt ␟ variant ␟ key) + 0.5) / 2^64, in (0, 1]."""
    return unit_of_prefix(prefix(salt, variant), key.encode())


def prefix(salt: str, variant: str) -> bytes:
    """The bytes that stand before the key in what `unit` hashes."""
    return f"{salt}{SEPARATOR}{variant}{SEPARATOR}".encode()


def unit_of_prefix(before: bytes, key: bytes) -> float:
    """The draw of `unit`, from a prefix made once per variant."""
    return unit_of_number(first_number(before + key))


def first_number(hashed: bytes) -> int:
    """The first 8 bytes of the SHA-256 of `hashed`, as a big-endian integer."""
    number: int = _first_8_bytes(sha256(hashed).digest())[0]
    return number


def unit_of_number(number: int) -> float:
    """The draw that a `first_number` stands for, in (0, 1]."""
    return (number + 0.5) * _SCALE


def choose(variants: Sequence[tuple[bytes, int]], key: bytes) -> int:
    """The index of the variant that wins the race for `key`.

    Args:
        variants: (prefix, weight) of each; at least one weight is positive, and a weight of 0 never wins.
        key: the sticky key's UTF-8 bytes.
    """
    best, winner = inf, 0
    for index, (before, weight) in enumerate(variants):
        if weight:
            (number,) = _first_8_bytes(sha256(before + key).digest())
            score = -log((number + 0.5) * _SCALE) / weight
            if score < best:
                best, winner = score, index
    return winner


def layer_bucket(layer: str, key: str) -> int:
    """The bucket (0–9999) of a key in a layer: floor(h * 10000 / 2^64), h = first 8 bytes of SHA-256(layer ␟ key)."""
    return first_number(f"{layer}{SEPARATOR}{key}".encode()) * BUCKETS >> 64


def key_value(value: Any, default: Any) -> Any:
    """The value of an attribute that keys a sticky choice, or None where there is none.

    An empty text identifies no member, so it counts as absent: otherwise every anonymous request would share one variant.

    Args:
        value: what the context has for the attribute; None: nothing.
        default: the attribute's default; None: it has none.
    """
    if value is None or value == "":
        value = default
    return None if value == "" else value


def key_text(value: object) -> str:
    """The text that is hashed for a sticky attribute's value: text as it is, an integer in decimal."""
    return value if isinstance(value, str) else str(value)
