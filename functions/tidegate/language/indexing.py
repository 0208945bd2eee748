"""Builds the bit index of an objective: from the conditions of its rules to the tables that a bundle carries.

Only the compiler runs this. `rules/masks.py` and `rules/dimensions.py` look values up in the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any

from tidegate.language.program import ObjectiveProgram
from tidegate.rules.bundle.rule import Experiment, Window
from tidegate.rules.bundle.tables import (
    AllocationMasks,
    DimensionMasks,
    IndexMasks,
    LayerMasks,
    PieceMasks,
    SlotMasks,
    ValueMasks,
)
from tidegate.rules.conditions import AFFIX, ORDERED, Predicate, Row, comparable, comparable_operand, holds, rows
from tidegate.rules.contract import Attribute, AttributeType
from tidegate.rules.masks import bits

DENSE_BITS = 2_000_000
"""A table with more mask bits than this is written sparse (250 kB of masks)."""

Flips = dict[Any, list[int]]
Slots = dict[tuple[str, int], dict[int, tuple[str, ...]]]
"""The texts of each row's condition, by the operator and by which of the row's conditions with the operator it is."""


def index_tables(objective: ObjectiveProgram) -> IndexMasks:
    """Build the index of an objective."""
    table = [(position, row) for position, rule in enumerate(objective.rules) for row in rows(rule.when)]
    rule_of_row = [position for position, _ in table]
    predicates = [row for _, row in table]
    ruled = [objective.rules[position] for position in rule_of_row]
    windows = {row: [bounds(rule.active)] for row, rule in enumerate(ruled) if rule.active is not None}
    layered = {row: each for row, rule in enumerate(ruled) if (each := rule.experiment_of("layer"))}
    allocated = {row: each for row, rule in enumerate(ruled) if (each := rule.experiment_of("caller"))}
    dimensions = {
        name: tables
        for name, attribute in objective.contract.attributes.items()
        if (tables := dimension(attribute, predicates)) is not None
    }
    count = len(table)
    return IndexMasks(
        count,
        len(objective.rules),
        dimensions,
        _layers(layered, count),
        None if count == len(objective.rules) else rule_of_row,
        interval_pieces(windows, count) if windows else None,
        _allocated(allocated, count) if allocated else None,
    )


def bounds(window: Window) -> tuple[float, float]:
    """Return the ends of a time window; infinite if it has none."""
    start, end = window
    return (-inf if start is None else start, inf if end is None else end)


def _layers(experiments: Mapping[int, Experiment], count: int) -> dict[str, LayerMasks]:
    owned: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for row, each in experiments.items():
        owned.setdefault(each.layer or "", {})[row] = [(first, last + 1) for first, last in each.ranges]
    return {name: LayerMasks(interval_pieces(rows, count), _free(rows, count)) for name, rows in owned.items()}


def _allocated(experiments: Mapping[int, Experiment], count: int) -> AllocationMasks:
    members: dict[str, dict[str, list[int]]] = {}
    for row, experiment in experiments.items():
        for each in experiment.cells:
            members.setdefault(experiment.id, {}).setdefault(str(each.cell), []).append(row)
    cells = {name: {cell: bits(rows, count) for cell, rows in of.items()} for name, of in members.items()}
    return AllocationMasks(cells, _free(experiments, count))


def _free(taken: Mapping[int, Any], count: int) -> int:
    """Return the mask of the rows that are not taken."""
    return bits([row for row in range(count) if row not in taken], count)


def dimension(attribute: Attribute, table: Sequence[Row]) -> DimensionMasks | None:
    """Build the tables of one attribute over all rows; None if no row has a condition on it."""
    count, name, kind = len(table), attribute.name, attribute.type
    looking = {
        index: predicates
        for index, row in enumerate(table)
        if (predicates := [term for term in row if term.attribute == name])
    }
    if not looking:
        return None
    absent = [
        index
        for index in range(count)
        if all(term.operator == "present" and not term.operand for term in looking.get(index, ()))
    ]
    absent_mask = bits(absent, count)
    if kind == "set":
        return _set_tables(absent_mask, looking, count)
    operators = {term.operator for predicates in looking.values() for term in predicates}
    if kind == "version" or operators & ORDERED:
        return DimensionMasks(absent_mask, pieces=_pieces(kind, looking, count))
    return _value_tables(absent_mask, looking, count)


def interval_pieces(ranges: Mapping[int, Iterable[tuple[float, float]]], count: int) -> PieceMasks:
    """Build the pieces in which row `r` holds on the half-open intervals `ranges[r]`; rows not named hold everywhere."""
    thresholds = sorted({bound for intervals in ranges.values() for pair in intervals for bound in pair})
    thresholds = [bound for bound in thresholds if abs(bound) != inf]
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
    return _piece_masks(thresholds, base, [_odd(step) for step in flips], count)


def _value_tables(absent: int, looking: Mapping[int, list[Predicate]], count: int) -> DimensionMasks:
    other = set(range(count))
    flips: Flips = {}
    slots: Slots = {}
    for row, predicates in looking.items():
        plain = [term for term in predicates if term.operator not in AFFIX]
        elsewhere = all(term.operator == "not" or (term.operator == "present" and term.operand) for term in plain)
        if not elsewhere:
            other.discard(row)
        for value in {value for term in plain if term.operator in ("in", "not") for value in term.operand}:
            if all(holds(term.operator, term.operand, value) for term in plain) != elsewhere:
                flips.setdefault(value, []).append(row)
        _fill_slots(slots, row, [term for term in predicates if term.operator in AFFIX])
    return DimensionMasks(absent, _value_masks(other, flips, count), slots=_slot_tables(slots, count))


def _set_tables(absent: int, looking: Mapping[int, list[Predicate]], count: int) -> DimensionMasks:
    present = set(range(count))
    slots: Slots = {}
    needs: Flips = {}
    for row, predicates in looking.items():
        if any(term.operator == "present" and not term.operand for term in predicates):
            present.discard(row)
        _fill_slots(slots, row, [term for term in predicates if term.operator == "contains_any"])
        for element in {e for term in predicates if term.operator == "contains_all" for e in term.operand}:
            needs.setdefault(element, []).append(row)
    return DimensionMasks(
        absent,
        _value_masks(present, {}, count),
        slots=_slot_tables(slots, count),
        needs={element: bits(needing, count) for element, needing in needs.items()},
    )


def _fill_slots(slots: Slots, row: int, predicates: Sequence[Predicate]) -> None:
    # A row may hold several predicates of one kind, which are ANDed: the first goes to slot 0, the second to slot 1 …
    taken: dict[str, int] = {}
    for term in predicates:
        position = taken.get(term.operator, 0)
        taken[term.operator] = position + 1
        slots.setdefault((term.operator, position), {})[row] = term.operand


def _slot_tables(slots: Slots, count: int) -> tuple[SlotMasks, ...]:
    tables = []
    for (operator, _), operands in sorted(slots.items()):
        flips: Flips = {}
        for row, texts in operands.items():
            for text in set(texts):
                flips.setdefault(text, []).append(row)
        tables.append(SlotMasks(operator, _free(operands, count), _value_masks((), flips, count)))
    return tuple(tables)


def _pieces(kind: AttributeType, looking: Mapping[int, list[Predicate]], count: int) -> PieceMasks:
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
    return _piece_masks([written[key] for key in thresholds], base, flips, count)


def _below_all(operator: str, operand: Any) -> bool:
    """Return whether a predicate holds below every threshold."""
    return operator in ("lt", "lte", "not") or (operator == "present" and bool(operand))


def _above(operator: str, operand: Any, key: Any) -> bool:
    """Return whether a predicate holds just above `key`, below the row's next threshold."""
    match operator:
        case "gt" | "gte":
            return bool(key >= operand)
        case "lt" | "lte":
            return bool(operand > key)
        case "present":
            return bool(operand)
        case _:
            return operator == "not"


def _value_masks(other: Iterable[int], flips: Flips, count: int) -> ValueMasks:
    keys, base = sorted(flips), bits(other, count)
    if len(keys) * count > DENSE_BITS:
        return ValueMasks(base, keys, flips=[flips[key] for key in keys])
    return ValueMasks(base, keys, [base ^ bits(flips[key], count) for key in keys])


def _piece_masks(thresholds: list[Any], base: list[int], flips: list[list[int]], count: int) -> PieceMasks:
    mask = bits(base, count)
    if (len(flips) + 1) * count > DENSE_BITS:
        return PieceMasks(thresholds, base=mask, flips=flips)
    masks = [mask]
    for step in flips:
        mask ^= bits(step, count)
        masks.append(mask)
    return PieceMasks(thresholds, masks)


def _odd(rows: Iterable[int]) -> list[int]:
    odd: set[int] = set()
    for row in rows:
        odd ^= {row}
    return sorted(odd)
