"""Finds an example of each flow: a context with the flow's decisions in both engines.

The cases of a context are searched: on every axis one that leaves the rows that match, so that together they leave none of
the rows above. Sticky choices and layers hash a key, so keys are tried until both engines agree with the flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import Any

from tidegate.analysis.compare.axes import Axes
from tidegate.analysis.compare.axis import ABSENT, ANY, Axis, Case, Element, Markers
from tidegate.analysis.compare.joint import NEW, OLD, REFUSED_BY
from tidegate.analysis.compare.space import Leaf
from tidegate.analysis.space.bits import members
from tidegate.analysis.space.outcomes import Example, Outcome, outcome_of, rule_of, target_text
from tidegate.rules.contract import AttributeType
from tidegate.rules.engine import Engine
from tidegate.rules.values import accepts

FILLERS = frozenset(map(chr, range(0xE000, 0xF900)))
"""Characters for private use, one of which marks a text that represents all texts that no condition mentions."""

MOST_NODES = 500
"""Most cases that the search for one context tries."""

MOST_LOOKED_AT = 1_500_000
MOST_KEYS = 20_000
MOST_KEYS_OF_ALL = 100_000
"""Most cases and keys that are tried for one context, and for all contexts of an objective."""

AXES_PER_KEY = 64
"""A space of n times so many axes has one (n + 1)th of the keys of all contexts."""


class Examples:
    """Finds contexts for the leaves of an objective; `engines` decide by the old and by the new revision."""

    def __init__(self, axes: Axes, engines: tuple[Engine, Engine], at: float) -> None:
        self._axes, self._joint, self._engines, self._at = axes, axes.joint, engines, at
        self._has_windows = any(rule.active is not None for side in self._joint.sides for rule in side.rules)
        # A decision takes the longer, the more attributes and layers there are.
        self._looked, self._keys = MOST_LOOKED_AT, MOST_KEYS_OF_ALL // (1 + len(axes.space.axes) // AXES_PER_KEY)
        self._cases: dict[tuple[int, Markers], list[Case]] = {}

    def find(self, leaf: Leaf, old: Outcome, new: Outcome) -> Example | None:
        """Return a context that leads to a leaf and has these outcomes; None if none was found."""
        wanted, name = [_shown(old), _shown(new)], self._joint.sides[OLD].objective.name
        for context in self._contexts(next(self._points(leaf), None)):
            if self._keys < 0:
                break
            self._keys -= 1
            if [_shown(outcome_of(engine, name, context, self._at)) for engine in self._engines] == wanted:
                return Example(context, self._at, self._has_windows)
        return None

    def _points(self, leaf: Leaf) -> Iterator[list[Case]]:
        """Yield the cases of contexts that lead to a leaf, by axis."""
        was, now, markers, cells = leaf
        refusing = sum(flag for flag, row in zip(REFUSED_BY, (was, now), strict=True) if row is None)
        wanted, above = 0, 0
        for row, mine in ((was, self._joint.of[OLD]), (now, self._joint.of[NEW])):
            if row is not None:
                wanted |= 1 << row if row >= 0 else 0
                above |= mine & ((1 << row) - 1 if row >= 0 else -1)
        options = []
        for place, axis in enumerate(self._axes.space.axes):
            cases = self._cases_of(place, markers)
            self._looked -= len(cases)
            if not cases or self._looked < 0:
                return
            found = [
                (rows, effect)
                for rows, effect in cases
                if rows & wanted == wanted
                and not effect.refused & ~refusing
                and _fits(effect.marker, axis.key, markers)
                and (axis.cell is None or cells[axis.cell] is None or effect.cell == cells[axis.cell])
            ]
            if not found:
                return
            options.append(found)
        for fixed in self._refusals(options, refusing):
            bad = above & self._joint.active(self._at)
            yield from self._search(fixed, bad, [MOST_NODES])

    def _cases_of(self, place: int, markers: Markers) -> list[Case]:
        """Return the cases of an axis; empty if they are too many to list."""
        key = place, markers
        if key not in self._cases:
            of = self._axes.space.axes[place].cases
            rows = self._joint.all_rows
            self._cases[key] = [] if of is None else [(left, effect) for left, effect, _ in of(markers).of(rows)]
        return self._cases[key]

    def _refusals(self, options: list[list[Case]], refusing: int) -> Iterator[list[list[Case]]]:
        """Yield the options, so narrowed that exactly the revisions of some flags refuse."""
        if not refusing:
            yield options
            return
        for axis, cases in enumerate(options):
            mine = [case for case in cases if case[1].refused == refusing]
            if mine:
                yield [*options[:axis], mine, *options[axis + 1 :]]

    def _search(self, options: list[list[Case]], bad: int, left: list[int]) -> Iterator[list[Case]]:
        """Yield one case of each axis, so that no bad row can match."""
        for cases in options:
            rows = 0
            for mask, _ in cases:
                rows |= mask
            bad &= rows
        self._looked -= sum(map(len, options))
        left[0] -= 1
        if left[0] < 0 or self._looked < 0:
            return
        if not bad:
            yield [self._plainest(axis, cases) for axis, cases in zip(self._axes.space.axes, options, strict=True)]
            return
        row = next(members(bad))
        ways = []
        for axis, cases in enumerate(options):
            if len(cases) > 1:
                lacking = dict.fromkeys(
                    (mask & bad, place) for place, (mask, _) in enumerate(cases) if not mask >> row & 1
                )
                ways += [(kept.bit_count(), axis, cases[place]) for kept, place in lacking]
        for _, axis, case in sorted(ways, key=lambda way: way[:2]):
            yield from self._search([*options[:axis], [case], *options[axis + 1 :]], bad, left)

    def _plainest(self, axis: Axis, cases: Sequence[Case]) -> Case:
        values = [(case, axis.samples[case][1] if case in axis.samples else "") for case in cases]
        present = next((case for case, value in values if value != ""), cases[0])
        return next((case for case, value in values if value is None), present)

    def _contexts(self, cases: Sequence[Case] | None) -> Iterator[dict[str, Any]]:
        """Yield contexts of some cases, one for each key that is tried, for each attribute that choices hash."""
        if cases is None:
            return
        context: dict[str, Any] = {}
        open_keys: list[str] = []
        for axis, case in zip(self._axes.space.axes, cases, strict=True):
            if axis.cell is not None and case[1].cell is not None:
                context.setdefault("allocations", {})[self._axes.cells[axis.cell]] = case[1].cell
            name, value = axis.samples.get(case, ("", None))
            if value is None:
                continue
            if isinstance(value, Element):
                if isinstance(context.get(name), list):
                    context[name].append(value.text)
            else:
                context[name] = list(value) if isinstance(value, tuple) else value
                if case[1].marker == ANY:
                    open_keys.append(name)
        plain = {name: _readable(value) for name, value in context.items()}
        bases = (plain, context) if plain != context else (context,)
        yield from bases if not open_keys else ()
        # Which of them is hashed, the rules decide: a few values of each come first.
        tried = [
            (base, name, _keys(kind, context[name]))
            for base in bases
            for name in open_keys
            # The two revisions may declare different types.
            for kind in [each.type for _, each in self._joint.declared(name) if accepts(each.type, context[name])][:1]
        ]
        for size in (MOST_KEYS // 100, MOST_KEYS) if len(tried) > 1 else (MOST_KEYS,):
            for base, name, keys in tried:
                yield from ({**base, name: key} for key in islice(keys, size))


def _fits(marker: int | str | None, key: int | None, markers: Sequence[int | str]) -> bool:
    """Return whether a case gives a sticky attribute what a leaf knows of it.

    Where a leaf knows none to be there, its rows do not look at any."""
    return key is None or all(each == ABSENT for each in markers) or marker == markers[key]


def _shown(outcome: Outcome) -> tuple[str | None, str]:
    return rule_of(outcome), target_text(outcome)


def _readable(value: Any) -> Any:
    """Return a value with a word in place of the character that represents texts that no condition mentions."""
    if isinstance(value, list):
        return [_readable(each) for each in value]
    if isinstance(value, str):
        return "".join("other" if each in FILLERS else each for each in value)
    return value


def _keys(kind: AttributeType, value: Any) -> Iterator[Any]:
    """Yield the value, and others that are likely of the same case."""
    match kind:
        case "string":
            filler = next((character for character in value if character in FILLERS), "")
            if filler:
                yield from (value.replace(filler, f"{number}") for number in range(1, 1000))
                yield from (value.replace(filler, f"m{number}") for number in range(1, MOST_KEYS))
            yield value
            yield from (f"{value}{number}" for number in count(1))
        case "version":
            yield value
            yield from (f"{value.partition('+')[0]}+{number}" for number in count(1))
        case "integer":
            yield value
            for number in count(1):
                yield from (value + number, value - number)
        case "number":
            yield value
            for number in count(1):
                yield from (value + number / 1024, value - number / 1024)
        case _:
            yield value
