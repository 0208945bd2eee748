"""The cases of an attribute: what "uniform" weighs alike. docs/diff.md defines them for who wants to recompute a share.

A closed domain has a case per value. In an open one each value that a condition of either revision names is a case; the
other texts are told apart by the longest prefix and the longest suffix that a condition names and they have, the other
numbers and versions by the pieces into which conditions cut their line. Absence is one more case.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tidegate.rules.compare.between import value_between
from tidegate.rules.conditions import ORDERED, Predicate, comparable
from tidegate.rules.contract import Attribute, AttributeType

MOST_AFFIX_PAIRS = 50_000
"""How many pairs of a prefix and a suffix are told apart before an attribute is sampled."""

Cut = tuple[Any, int]
"""Where a number line is cut: just below a value (its key, 0) or just above it (its key, 1)."""


@dataclass(frozen=True, slots=True)
class Listed:
    """All cases of an attribute, each by a value that stands for it. `is_closed`: each case is that value alone."""

    values: tuple[Any, ...]
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """Cases that are too many to list: how many, and a value of one at random."""

    count: int
    draw: Callable[[random.Random], Any]


def cases_of(declared: Sequence[Attribute], predicates: Sequence[Predicate], is_key: bool) -> Listed | Drawn:
    """The cases of a present attribute that is no `set`.

    Args:
        declared: its declarations in one or both revisions, of one type.
        predicates: every condition on it.
        is_key: whether choices hash it. An open key is taken to have countless values, so a value that a condition
            names has no weight of its own.
    """
    kind = declared[0].type
    domains = [attribute.values for attribute in declared]
    if kind == "boolean":
        domains = [(False, True) if domain is None else domain for domain in domains]
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
    """A character that none of the texts has."""
    used = set("".join(texts))
    return next(character for character in map(chr, range(0xE000, 0x110000)) if character not in used)


def draw_subset(elements: Sequence[str], chance: random.Random) -> list[str]:
    """A random subset, all equally likely."""
    bits = chance.getrandbits(len(elements))
    return [element for place, element in enumerate(elements) if bits >> place & 1]


def _operands(predicates: Iterable[Predicate], operator: str) -> Iterator[str]:
    return (text for term in predicates if term.operator == operator for text in term.operand)


def _pieces(kind: AttributeType, predicates: Sequence[Predicate], closed: Iterable[Any], is_key: bool) -> Iterator[Any]:
    """A value of each piece of an ordered attribute, in ascending order.

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
        if term.operator in ORDERED:
            cut(term.operand, (0 if term.operator in ("gte", "lt") else 1,), True)
        elif term.operator != "present":
            for value in term.operand:
                cut(value, (0, 1), not is_key)
    is_served = False
    for low, high in pairwise([None, *sorted(cuts), None]):
        if low is None or cuts[low]:
            is_served = False
        if is_served or (is_key and _is_point(kind, low, high)):
            continue
        value = _inside(kind, low, high, written)
        if value is not None:
            is_served = True
            yield value


def _is_point(kind: AttributeType, low: Cut | None, high: Cut | None) -> bool:
    if low is None or high is None:
        return False
    if kind == "integer":
        return bool(high[0] == low[0] + 1)
    return bool(low[0] == high[0])


def _inside(kind: AttributeType, low: Cut | None, high: Cut | None, written: dict[Any, Any]) -> Any:
    """A value of the piece between two cuts, or None where it has none."""
    if low is not None and low[1] == 0:
        return written[low[0]]
    if high is not None and high[1] == 1:
        return written[high[0]]
    return value_between(kind, None if low is None else written[low[0]], None if high is None else written[high[0]])
