"""Vectors of the parts of an engine: hashes, the order of versions, and values that arrive as text."""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from typing import Any, get_args

from tidegate.errors import ContextError
from tidegate.rules.contract import Attribute, AttributeType
from tidegate.rules.sticky import SEPARATOR, choose, first_number, layer_bucket, prefix, unit_of_number
from tidegate.rules.text import parse_text
from tidegate.rules.values import accepts, version_key

KEYS = [
    "42",
    "0",
    "-7",
    "18446744073709551616",
    "member-1",
    "m229303",
    "m54235",
    "Zo\u00eb",
    "Zoe\u0308",
    "日本",
    "\U0001f600",
    "a\u001fb",
    " ",
    "x" * 100,
]
RACES: list[tuple[str, dict[str, int]]] = [
    ("ranking/canary", {"ranker@champion": 95, "ranker_v2": 5}),
    ("ranking/even", {"a": 1, "b": 1, "c": 1, "d": 1}),
    ("12345", {"1": 1, "2": 2, "3": 0}),
    ("12401", {"A": 1, "é": 3}),
    ("ranking/huge", {"a": 1_000_000, "b": 1}),
]  # fmt: skip
VERSIONS = [
    "0", "0.0.1-0", "0.0.1", "8-alpha", "8", "8.2-0", "8.2", "8.2.1--", "8.2.1-0", "8.2.1-1", "8.2.1-01", "8.2.1-2", "8.2.1-10", "8.2.1-A", "8.2.1-alpha",
    "8.2.1-alpha.1", "8.2.1-alpha.beta", "8.2.1-beta", "8.2.1-rc.2", "8.2.1-rc.10", "8.2.1-99999999999999999999999", "8.2.1", "8.2.1+build.7", "8.2.1.0",
    "8.10", "9.0.0.1", "2026.11.23", "999999999999999999",
]  # fmt: skip
NO_VERSIONS = [
    "",
    " 8",
    "8 ",
    "v8",
    "8.",
    ".8",
    "8..2",
    "8.2-",
    "8.2+",
    "8.2-a..b",
    "8.2-é",
    "٨",
    "1" * 19,
    "1." * 128 + "1",
    "8,2",
    "-1",
]
TEXTS = [
    "", " ", "0", "-0", "+7", "007", "1.0", "1.", ".5", "1e3", "1E-3", "1e400", "-1.5", "0x10", "1_000", "NaN", "Infinity", "9007199254740993", "true",
    "TRUE", "False", "1 ", "yes", "8.2", "8.2.1-rc.1", "a,b", " a , b ,,", ",", "日本", "٣",
]  # fmt: skip


def hashes() -> Iterator[dict[str, Any]]:
    """Yield buckets of layers, and races with the draw of each variant."""
    for layer in ("home", "page", "日本"):
        for key in KEYS:
            number = first_number(f"{layer}{SEPARATOR}{key}".encode())
            yield {"layer": layer, "key": key, "first_8_bytes": f"{number:016x}", "bucket": layer_bucket(layer, key)}
    for salt, weights in RACES:
        variants = [(prefix(salt, variant), weight) for variant, weight in weights.items()]
        for key in KEYS:
            draws = [_draw(salt, variant, weight, key) for variant, weight in weights.items()]
            winner = list(weights)[choose(variants, key.encode())]
            yield {"salt": salt, "key": key, "draws": draws, "winner": winner}


def _draw(salt: str, variant: str, weight: int, key: str) -> dict[str, Any]:
    number = first_number(prefix(salt, variant) + key.encode())
    u = unit_of_number(number)
    score = -log(u) / weight if weight else None
    return {"variant": variant, "weight": weight, "first_8_bytes": f"{number:016x}", "u": u, "score": score}


def versions() -> Iterator[dict[str, Any]]:
    """Yield every pair of versions with how they compare (-1, 0, 1), and texts that are none."""
    keys = [version_key(text) for text in VERSIONS]
    for left, one in zip(VERSIONS, keys, strict=True):
        for right, other in zip(VERSIONS, keys, strict=True):
            yield {"left": left, "right": right, "order": (one > other) - (one < other)}
    for text in NO_VERSIONS:
        assert not accepts("version", text)
        yield {"text": text, "is_version": False}


def texts() -> Iterator[dict[str, Any]]:
    """Yield texts of a header with the value that each is for each type, or that it is none."""
    for kind in get_args(AttributeType):
        for text in TEXTS:
            try:
                value = parse_text(Attribute("a", kind), text)
            except ContextError:
                yield {"type": kind, "text": text, "error": True}
            else:
                yield {"type": kind, "text": text, "value": value}
