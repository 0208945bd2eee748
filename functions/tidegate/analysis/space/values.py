"""Values that represent a class: a piece of a number line, texts that no condition mentions, a smallest set."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, count, product
from typing import Any

from tidegate.rules.conditions import Predicate, comparable
from tidegate.rules.contract import Attribute, AttributeType
from tidegate.rules.values import accepts, version_key

COUNTRIES = ("US", "JP", "BR", "SE", "IN", "DE", "FR", "GB", "CA", "MX", "AU", "ES", "IT", "NL", "PL", "KR")
FILLERS = "xzqjkvw~^|_·"

Cut = tuple[Any, int]
"""A place on a line: just below a value (its comparable form, 0) or just above it (its comparable form, 1)."""

_SIDES = {"gte": (0,), "lt": (0,), "gt": (1,), "lte": (1,)}


def closed_domain(attribute: Attribute) -> Sequence[Any] | None:
    """Return the closed domain of an attribute; None: it is open."""
    if attribute.values is None and attribute.type == "boolean":
        return (False, True)
    return attribute.values


def cuts_of(term: Predicate) -> Iterator[tuple[Any, Sequence[int]]]:
    """Yield the values at which a condition cuts a line, and the sides of each (see `Cut`) that it cuts at."""
    if term.operator != "present":
        for value in term.operand if isinstance(term.operand, tuple) else (term.operand,):
            yield value, _SIDES.get(term.operator, (0, 1))


def values_of_piece(
    kind: AttributeType, low: Cut | None, high: Cut | None, written: Mapping[Any, Any]
) -> Iterator[Any]:
    """Yield values of an ordered type between two neighbouring cuts (None: no bound): first those that conditions mention.

    `written` has the value of every cut, by its comparable form.
    """
    ends = [low[0]] if low is not None and low[1] == 0 else []
    if high is not None and high[1] == 1 and high[0] not in ends:
        ends.append(high[0])
    yield from (written[key] for key in ends)
    if low is None or high is None or low[0] != high[0]:
        yield from values_between(kind, *(None if cut is None else written[cut[0]] for cut in (low, high)))


def values_between(kind: AttributeType, low: Any, high: Any) -> Iterator[Any]:
    """Yield values strictly between two bounds (None: no bound): all integers, but one number or version, short if possible."""
    match kind:
        case "integer" if low is not None:
            yield from count(low + 1) if high is None else range(low + 1, high)
            return
        case "integer":
            yield from count() if high is None else count(high - 1, -1)
            return
        case "number":
            candidates: Sequence[Any] = _numbers(low, high)
        case _:
            candidates = _versions(low, high)
    above, below = (None if bound is None else comparable(kind, bound) for bound in (low, high))
    for candidate in candidates:
        if accepts(kind, candidate):
            key = comparable(kind, candidate)
            if (above is None or key > above) and (below is None or key < below):
                yield candidate
                return


def _numbers(low: float | None, high: float | None) -> list[float]:
    if low is None:
        return [0] if high is None else [math.ceil(high) - 1, math.nextafter(_float(high), -math.inf)]
    found: list[float] = [math.floor(low) + 1]
    if high is not None and math.isfinite(_float(low)) and math.isfinite(_float(high)):
        found += [round((_float(low) + _float(high)) / 2, digits) for digits in (1, 2, 4)]
    return [*found, math.nextafter(_float(low), math.inf)]


def _float(value: float) -> float:
    """Return the nearest double; a whole number too large for one becomes infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _versions(low: str | None, high: str | None) -> list[str]:
    # The lowest of all is 0-0, and next above a pre-release is the same with `.0` appended. Above a release there is
    # always another before any later version, with enough zeros.
    if low is None:
        return ["1.0", "0.1", "0.0.1", "0", "0-0"]
    numbers, release = version_key(low)
    parts = [str(number) for number in numbers] or ["0"]
    text = ".".join(parts)
    if release[0] == 0:
        tail = ".".join(str(each[1]) if each[0] == 0 else each[2] for each in release[1])
        return [text, f"{text}-{tail}.1", f"{text}-{tail}.0"]
    major, *minor = [int(part) for part in parts]
    zeros = 1 + (0 if high is None else len(version_key(high)[0]))
    return [f"{major}.{minor[0] + 1}" if minor else str(major + 1), f"{text}.1", f"{text}{'.0' * zeros}.1"]


def other_texts(name: str, literals: Collection[Any], used: Collection[str], prefix: str, suffix: str) -> Iterator[str]:
    """Yield texts that begin and end as required, more plausible ones first. Some may be mentioned or have longer affixes: the
    caller looks. Endlessly many have neither, since their middle begins and ends with a character not in `used`.
    """
    yield prefix + suffix
    if not prefix and not suffix:
        if "country" in name or (literals and all(isinstance(text, str) and len(text) == 2 for text in literals)):
            yield from COUNTRIES
        elif not name.endswith("id"):
            yield "other"
    filler = next(each for each in chain(FILLERS, map(chr, count(0x2460))) if each not in used)
    plain = not any(character.isdigit() for character in used) and not prefix and not suffix
    for number in count(1):
        yield str(number) if plain else f"{prefix}{filler}{number}{filler}{suffix}"


def wants_absence(terms: Sequence[Predicate]) -> bool:
    """Return whether conditions on one attribute hold at most on its absence."""
    return any(term.operator == "present" and not term.operand for term in terms)


def allows_absence(terms: Sequence[Predicate]) -> bool:
    """Return whether conditions on one attribute without a default hold on its absence."""
    return all(term.operator == "present" and not term.operand for term in terms)


def smallest_sets(terms: Sequence[Predicate], most: int) -> list[frozenset[str]] | None:
    """Return the sets that meet conditions and of which no part meets them, and perhaps a few larger ones.

    None: there are more than `most`.
    """
    needed = frozenset(text for term in terms if term.operator == "contains_all" for text in term.operand)
    lists = [term.operand for term in terms if term.operator == "contains_any" and needed.isdisjoint(term.operand)]
    if math.prod(map(len, lists)) > most:
        return None
    return list(dict.fromkeys(needed.union(chosen) for chosen in product(*lists)))
