"""What is said of two conditions on one attribute, against trying every value."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from tidegate.language.spare_conditions import implies, refutes
from tidegate.rules.conditions import Operator, Predicate, holds

TEXTS = ["", "a", "ab", "b", "ba", "aba", "c"]
NUMBERS = [0, 1, 2, 3, 4]
LISTS: dict[str, tuple[list[Operator], list[Any]]] = {
    "text": (["in", "not", "prefix", "suffix"], TEXTS),
    "number": (["in", "not"], NUMBERS),
    "set": (["contains_any", "contains_all"], ["a", "b", "c"]),
}
ORDERED: list[Operator] = ["gt", "gte", "lt", "lte"]
VALUES: dict[str, list[Any]] = {
    "text": [f"{before}{text}{after}" for text in TEXTS for before in ("", "z") for after in ("", "z")],
    "number": [half / 2 for half in range(-2, 11)],
    "set": [frozenset(each) for count in range(5) for each in combinations("abcz", count)],
}


@pytest.mark.parametrize("kind", LISTS)
def test_what_is_implied_or_refuted_is_so_for_every_value(kind: str) -> None:
    operators, items = LISTS[kind]
    lists = [frozenset(each) for count in (1, 2) for each in combinations(items, count)]
    predicates = [Predicate("x", operator, operand) for operator in operators for operand in lists]
    if kind == "number":
        predicates += [Predicate("x", operator, number) for operator in ORDERED for number in NUMBERS]
    accepted = {
        each: {value for value in VALUES[kind] if holds(each.operator, each.operand, value)} for each in predicates
    }
    implied = refuted = 0
    for given in predicates:
        assert implies(given, Predicate("x", "present", True))
        assert refutes(given, Predicate("x", "present", False))
        for term in predicates:
            if implies(given, term):
                implied += 1
                assert accepted[given] <= accepted[term], (given, term)
            elif kind == "number":
                assert not accepted[given] <= accepted[term], (given, term)
            if refutes(given, term):
                refuted += 1
                assert accepted[given].isdisjoint(accepted[term]), (given, term)
    assert implied > len(predicates)
    assert refuted > 0 or kind == "set"
