"""Builds the bit index of an objective: from rows of predicates to the tables that a bundle carries.

Only the compiler runs this. The tables are read by `masks.py` and `dimensions.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tidegate.rules.conditions import AFFIX, ORDERED, Row, comparable, comparable_operand, holds
from tidegate.rules.contract import Attribute, AttributeType
from tidegate.rules.masks import bits

DENSE_BITS = 2_000_000
"""A table with more mask bits than this is written sparse (250 kB of masks)."""

Flips = dict[Any, list[int]]


def dimension(attribute: Attribute, rows: Sequence[Row]) -> dict[str, Any] | None:
    """The tables of one attribute over all rows, or None where no row looks at it."""
    count, name, kind = len(rows), attribute.name, attribute.type
    looking = {
        index: predicates
        for index, row in enumerate(rows)
        if (predicates := [term for term in row if term.attribute == name])
    }
    if not looking:
        return None
    absent = [
        index
        for index in range(count)
        if all(term.operator == "present" and not term.operand for term in looking.get(index, ()))
    ]
    data: dict[str, Any] = {"absent": _hex(absent, count)}
    if kind == "set":
        return data | _set_tables(looking, count)
    operators = {term.operator for predicates in looking.values() for term in predicates}
    if kind == "version" or operators & ORDERED:
        return data | {"pieces": _pieces(kind, looking, count)}
    return data | _value_tables(looking, count)


def interval_pieces(ranges: Mapping[int, Iterable[tuple[float, float]]], count: int) -> dict[str, Any]:
    """A `PieceTable` in which row `r` holds on the half-open intervals `ranges[r]`; rows not named hold everywhere."""
    thresholds = sorted({bound for intervals in ranges.values() for pair in intervals for bound in pair})
    thresholds = [bound for bound in thresholds if abs(bound) != float("inf")]
    place = {bound: 2 * position + 1 for position, bound in enumerate(thresholds)}
    flips: list[list[int]] = [[] for _ in range(2 * len(thresholds))]
    base = [row for row in range(count) if row not in ranges]
    for row, intervals in ranges.items():
        for start, end in intervals:
            if start in place:
                flips[place[start] - 1].append(row)
            else:
                base.append(row)
            if end in place:
                flips[place[end] - 1].append(row)
    return _piece_table(thresholds, sorted(base), [_odd(step) for step in flips], count)


def _value_tables(looking: Mapping[int, list[Any]], count: int) -> dict[str, Any]:
    other = set(range(count))
    flips: Flips = {}
    slots: dict[tuple[str, int], dict[int, tuple[str, ...]]] = {}
    for row, predicates in looking.items():
        plain = [term for term in predicates if term.operator not in AFFIX]
        elsewhere = all(term.operator == "not" or (term.operator == "present" and term.operand) for term in plain)
        if not elsewhere:
            other.discard(row)
        for value in {value for term in plain if term.operator in ("in", "not") for value in term.operand}:
            if all(holds(term.operator, term.operand, value) for term in plain) != elsewhere:
                flips.setdefault(value, []).append(row)
        _fill_slots(slots, row, [term for term in predicates if term.operator in AFFIX])
    table = _mask_table(sorted(other), flips, count)
    return {"table": table} | ({"slots": _slot_tables(slots, count)} if slots else {})


def _set_tables(looking: Mapping[int, list[Any]], count: int) -> dict[str, Any]:
    present = set(range(count))
    slots: dict[tuple[str, int], dict[int, tuple[str, ...]]] = {}
    needs: Flips = {}
    for row, predicates in looking.items():
        if any(term.operator == "present" and not term.operand for term in predicates):
            present.discard(row)
        _fill_slots(slots, row, [term for term in predicates if term.operator == "contains_any"])
        for element in {e for term in predicates if term.operator == "contains_all" for e in term.operand}:
            needs.setdefault(element, []).append(row)
    return {
        "table": _mask_table(sorted(present), {}, count),
        "slots": _slot_tables(slots, count),
        "needs": {element: _hex(needs[element], count) for element in sorted(needs)},
    }


def _fill_slots(slots: dict[tuple[str, int], dict[int, tuple[str, ...]]], row: int, predicates: Sequence[Any]) -> None:
    # A row may hold several predicates of one kind, which are ANDed: the first goes to slot 0, the second to slot 1 …
    taken: dict[str, int] = {}
    for term in predicates:
        position = taken.get(term.operator, 0)
        taken[term.operator] = position + 1
        slots.setdefault((term.operator, position), {})[row] = term.operand


def _slot_tables(slots: Mapping[tuple[str, int], Mapping[int, tuple[str, ...]]], count: int) -> list[dict[str, Any]]:
    tables = []
    for (operator, _), operands in sorted(slots.items()):
        flips: Flips = {}
        for row, texts in operands.items():
            for text in set(texts):
                flips.setdefault(text, []).append(row)
        free = [row for row in range(count) if row not in operands]
        tables.append({"operator": operator, "free": _hex(free, count)} | _mask_table([], flips, count))
    return tables


def _pieces(kind: AttributeType, looking: Mapping[int, list[Any]], count: int) -> dict[str, Any]:
    written: dict[Any, Any] = {}
    own: dict[int, list[Any]] = {}
    for row, predicates in looking.items():
        mine = own.setdefault(row, [])
        for term in predicates:
            if term.operator != "present":
                for value in term.operand if isinstance(term.operand, tuple) else (term.operand,):
                    key = comparable(kind, value)
                    written[key] = min(value, written.get(key, value))
                    mine.append(key)
    thresholds = sorted(written)
    place = {key: 2 * position + 1 for position, key in enumerate(thresholds)}
    flips: list[list[int]] = [[] for _ in range(2 * len(thresholds))]
    base = [row for row in range(count) if row not in looking]
    for row, predicates in looking.items():
        terms = [(term.operator, comparable_operand(kind, term)) for term in predicates]
        holding = all(_below_all(operator, operand) for operator, operand in terms)
        if holding:
            base.append(row)
        for key in sorted(set(own[row])):
            for piece, here in (
                (place[key], all(holds(operator, operand, key) for operator, operand in terms)),
                (place[key] + 1, all(_above(operator, operand, key) for operator, operand in terms)),
            ):
                if here != holding:
                    flips[piece - 1].append(row)
                    holding = here
    return _piece_table([written[key] for key in thresholds], sorted(base), flips, count)


def _below_all(operator: str, operand: Any) -> bool:
    """Whether a predicate holds below every threshold."""
    return operator in ("lt", "lte", "not") or (operator == "present" and bool(operand))


def _above(operator: str, operand: Any, key: Any) -> bool:
    """Whether a predicate holds just above `key`, below the row's next threshold."""
    match operator:
        case "gt" | "gte":
            return bool(key >= operand)
        case "lt" | "lte":
            return bool(operand > key)
        case "present":
            return bool(operand)
        case _:
            return operator == "not"


def _mask_table(other: Sequence[int], flips: Flips, count: int) -> dict[str, Any]:
    keys = sorted(flips)
    table: dict[str, Any] = {"other": _hex(other, count), "keys": keys}
    if len(keys) * count > DENSE_BITS:
        return table | {"flips": [flips[key] for key in keys]}
    base = bits(other, count)
    return table | {"masks": [f"{base ^ bits(flips[key], count):x}" for key in keys]}


def _piece_table(thresholds: list[Any], base: list[int], flips: list[list[int]], count: int) -> dict[str, Any]:
    if (len(flips) + 1) * count > DENSE_BITS:
        return {"thresholds": thresholds, "base": _hex(base, count), "flips": flips}
    mask = bits(base, count)
    masks = [f"{mask:x}"]
    for step in flips:
        mask ^= bits(step, count)
        masks.append(f"{mask:x}")
    return {"thresholds": thresholds, "masks": masks}


def _odd(rows: Iterable[int]) -> list[int]:
    odd: set[int] = set()
    for row in rows:
        odd ^= {row}
    return sorted(odd)


def _hex(rows: Iterable[int], count: int) -> str:
    return f"{bits(rows, count):x}"
