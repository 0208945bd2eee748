"""The cases of an attribute, which have the same weight in "uniform". docs/diff.md defines them, so that a share can be
recomputed.

A closed domain has a case per value. In an open one each value that a condition of either revision names is a case; the
other texts are distinguished by the longest prefix and the longest suffix that a condition names and they have, the other
numbers and versions by the pieces into which conditions cut their line. Absence is one more case.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tidegate.analysis.space.values import Cut, closed_domain, cuts_of, values_of_piece
from tidegate.rules.conditions import ORDERED, Predicate, comparable
from tidegate.rules.contract import Attribute, AttributeType

MOST_AFFIX_PAIRS = 50_000
"""Most pairs of a prefix and a suffix that are distinguished; an attribute with more is sampled."""


@dataclass(frozen=True, slots=True)
class Listed:
    """All cases of an attribute, each as a value that represents it. `is_closed`: each case is that value alone."""

    values: tuple[Any, ...]
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """Cases that are too many to list: their number, and a value of a random one."""

    count: int
    draw: Callable[[random.Random], Any]


def cases_of(declared: Sequence[Attribute], predicates: Sequence[Predicate], is_key: bool) -> Listed | Drawn:
    """Return the cases of a present attribute of another type than `set`.

    `declared` has its declarations in one or both revisions, of one type, and `predicates` every condition on it. `is_key`:
    choices hash it; an open key is taken to have countless values, so a value that a condition names has no weight of its own.
    """
    kind = declared[0].type
    domains = [closed_domain(attribute) for attribute in declared]
    closed = {comparable(kind, value): value for domain in domains for value in domain or ()}
    if all(domain is not None for domain in domains):
        return Listed(tuple(closed[key] for key in sorted(closed)), is_closed=True)
    if kind == "string":
        return _texts(set(closed), predicates, is_key)
    return Listed(tuple(_pieces(kind, predicates, closed.values(), is_key)))


def _texts(closed: set[str], predicates: Sequence[Predicate], is_key: bool) -> Listed | Drawn:
    prefixes = sorted({"", *_operands(predicates, "prefix")})
    suffixes = sorted({"", *_operands(predicates, "suffix")})
    named = {*closed, *_operands(predicates, "in"), *_operands(predicates, "not")}
    texts = [] if is_key else sorted(named)
    # Around a character that no condition mentions, a prefix and a suffix never overlap.
    filler = unused_text([*prefixes, *suffixes, *named])
    if len(prefixes) * len(suffixes) <= MOST_AFFIX_PAIRS:
        others = (f"{prefix}{filler}{suffix}" for prefix in prefixes for suffix in suffixes)
        return Listed((*texts, *others))

    def draw(chance: random.Random) -> str:
        place = chance.randrange(count)
        if place < len(texts):
            return texts[place]
        return f"{chance.choice(prefixes)}{filler}{chance.choice(suffixes)}"

    count = len(texts) + len(prefixes) * len(suffixes)
    return Drawn(count, draw)


def unused_text(texts: Iterable[str]) -> str:
    used = set("".join(texts))
    return next(character for character in map(chr, range(0xE000, 0x110000)) if character not in used)


def draw_subset(elements: Sequence[str], chance: random.Random) -> list[str]:
    """Return a random subset, all equally likely."""
    bits = chance.getrandbits(len(elements))
    return [element for place, element in enumerate(elements) if bits >> place & 1]


def _operands(predicates: Iterable[Predicate], operator: str) -> Iterator[str]:
    return (text for term in predicates if term.operator == operator for text in term.operand)


def _pieces(kind: AttributeType, predicates: Sequence[Predicate], closed: Iterable[Any], is_key: bool) -> Iterator[Any]:
    """Yield a value of each piece of an ordered attribute, in ascending order.

    In a key, a value that only equality names cuts nothing, and a piece of one value has no weight.
    """
    written: dict[Any, Any] = {}
    cuts: dict[Cut, bool] = {}

    def cut(value: Any, sides: Iterable[int], tells_apart: bool) -> None:
        key = comparable(kind, value)
        for side in sides:
            # Just above a whole number is just below the next.
            place = (key + side, 0) if kind == "integer" else (key, side)
            written.setdefault(place[0], place[0] if kind == "integer" else value)
            cuts[place] = cuts.get(place, False) or tells_apart

    for value in closed:
        cut(value, (0, 1), True)
    for term in predicates:
        for value, sides in cuts_of(term):
            cut(value, sides, term.operator in ORDERED or not is_key)
    is_served = False
    for low, high in pairwise([None, *sorted(cuts), None]):
        if low is None or cuts[low]:
            is_served = False
        # One whole number is the piece up to the next.
        is_point = low is not None and high is not None and high[0] == (low[0] + 1 if kind == "integer" else low[0])
        if is_served or (is_key and is_point):
            continue
        value = next(values_of_piece(kind, low, high, written), None)
        if value is not None:
            is_served = True
            yield value
