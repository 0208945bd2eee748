"""Values that no rule mentions, as plausible as can be: what counter-examples are made of."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from itertools import count
from typing import Any

from tidegate.rules.values import accepts, version_key

COUNTRIES = ("US", "JP", "BR", "SE", "IN", "DE", "FR", "GB", "CA", "MX", "AU", "ES", "IT", "NL", "PL", "KR")
FILLERS = "xzqjkvw~^|_·"


def other_texts(name: str, literals: Collection[Any], used: Collection[str], prefix: str, suffix: str) -> Iterator[str]:
    """Texts that begin and end as required, more plausible ones first. Some may be mentioned or have longer affixes: the
    caller looks. Endlessly many have neither, since their middle begins and ends with a character not in `used`.
    """
    yield prefix + suffix
    if not prefix and not suffix:
        if "country" in name or (literals and all(isinstance(text, str) and len(text) == 2 for text in literals)):
            yield from COUNTRIES
        elif not name.endswith("id"):
            yield "other"
    filler = next((each for each in FILLERS if each not in used), None)
    if filler is None:
        filler = next(chr(code) for code in count(0x2460) if chr(code) not in used)
    plain = not any(character.isdigit() for character in used) and not prefix and not suffix
    for number in count(1):
        yield str(number) if plain else f"{prefix}{filler}{number}{filler}{suffix}"


def integers_between(low: int | None, high: int | None) -> Iterator[int]:
    """The whole numbers strictly between two bounds (None: no bound), from the lower one up, or down to no bound."""
    if low is not None:
        yield from count(low + 1) if high is None else range(low + 1, high)
    elif high is not None:
        yield from count(high - 1, -1)
    else:
        yield from count(1)


def number_between(low: float | None, high: float | None) -> float | None:
    """A number strictly between two bounds (None: no bound), or None where there is none: whole where possible."""
    candidates: list[float] = []
    if low is not None:
        candidates += [math.floor(low) + 1]
        if high is not None and math.isfinite(float_of(low)) and math.isfinite(float_of(high)):
            candidates += [round((float_of(low) + float_of(high)) / 2, digits) for digits in (1, 2, 4)]
        candidates += [math.nextafter(float_of(low), math.inf)]
    elif high is not None:
        candidates += [0, math.ceil(high) - 1, math.nextafter(float_of(high), -math.inf)]
    else:
        candidates += [1]
    for candidate in candidates:
        if accepts("number", candidate) and (low is None or candidate > low) and (high is None or candidate < high):
            return candidate
    return None


def float_of(value: float) -> float:
    """The nearest double; a whole number too large for one becomes infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def version_between(low: str | None, high: str | None) -> str | None:
    """A version strictly between two (None: no bound), or None where there is none: a short one where possible.

    Next above a pre-release stands only the same with `.0` appended; above a release there is always another before
    any later version, with enough zeros; the lowest of all is `0-0`.
    """
    if low is None and high is None:
        return "1.0"
    candidates: list[str] = []
    if low is None:
        candidates += ["1.0", "0.1", "0.0.1", "0", "0-0"]
    else:
        numbers, release = version_key(low)
        parts = [str(number) for number in numbers] or ["0"]
        if release[0] == 0:
            text = ".".join(parts)
            tail = ".".join(str(each[1]) if each[0] == 0 else each[2] for each in release[1])
            candidates += [text, f"{text}-{tail}.1", f"{text}-{tail}.0"]
        else:
            major, *minor = [int(part) for part in parts]
            candidates += [str(major + 1)] if not minor else [f"{major}.{minor[0] + 1}"]
            candidates += [".".join([*parts, "1"])]
            zeros = 1 + len(version_key(high)[0]) if high is not None else 1
            candidates += [".".join([*parts, *["0"] * zeros, "1"])]
    for candidate in candidates:
        if accepts("version", candidate):
            key = version_key(candidate)
            if (low is None or key > version_key(low)) and (high is None or key < version_key(high)):
                return candidate
    return None
