"""The axis of an attribute whose conditions are equality, `in`, `not`, `prefix`, `suffix` and `present`.

A class is the absent attribute, listed values that no condition tells apart, or *others*: values that no condition lists, of
which a prefix and a suffix are known. Others with a longer prefix are held by more boxes, and so is a listed value that no
`not` names. So of what a condition allows, few classes are worth looking at: others with no more of a prefix and a suffix
than it wants, and what some `not` names. Others exist, endlessly many, wherever the domain is open, since characters
that no condition mentions exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, product
from typing import Any, Literal

from tidegate.analysis.reach.axis import ABSENT, EVERY, NO_KEY, AttributeAxis, Conditions, Owners, slots
from tidegate.analysis.space.bits import bitset, members
from tidegate.analysis.space.values import allows_absence, closed_domain, other_texts
from tidegate.rules.conditions import AFFIX, Row, holds
from tidegate.rules.contract import Attribute
from tidegate.rules.sticky import key_value

Affixes = tuple[str, str]
"""A prefix and a suffix that others have."""


class ListedAxis(AttributeAxis):
    """The axis of a string or boolean, or of a number without ordered conditions."""

    def __init__(
        self,
        attribute: Attribute,
        conditions: Conditions,
        owners_of: Callable[[Any], Owners] | None = None,
        *,
        is_key: bool = False,
    ) -> None:
        """Build the axis.

        `owners_of` returns the owners of the buckets of a value, for an attribute that keys layers. `is_key`: sticky choices hash
        the attribute, so that an empty text is a class of its own.

        Raises:
            TooManyClassesError: there are more classes than are looked at.
        """
        super().__init__(conditions)
        self._attribute, self._owners_of = attribute, owners_of
        self._may_be_absent = not attribute.required and attribute.default is None
        self._domain = closed_domain(attribute)
        self._prefixes = _AffixMasks(conditions, self.boxes, "prefix")
        self._suffixes = _AffixMasks(conditions, self.boxes, "suffix")
        self._has_empty = is_key and attribute.type == "string"
        self._are_alike = owners_of is None and not self._prefixes.slots and not self._suffixes.slots
        self._values: list[Any] = [None]
        self._class_of: dict[Any, int] = {}
        self._others: dict[int, Affixes] = {}
        self._class_of_others: dict[Affixes, int] = {}
        self._held: dict[int, int] = {}
        self._read_conditions()
        telling = self._domain
        if telling is None:
            telling = [value for number in self._but for value in self._but[number]]
            telling += [""] if self._has_empty else []
        self._telling = self._classes(telling)
        may_be_empty = self._has_empty and (self._domain is None or "" in self._domain)
        if may_be_empty and key_value("", attribute.default) is None:
            self.keyless |= self._classes([""])
        self._check_size(len(self._values))
        absent = self.free | sum(self.boxes[number] for number in self._want_absence)
        self._begin([absent, *map(self._mask_of, self._values[1:])])

    def candidates(self, condition: int | None) -> int:
        absent = 1 << ABSENT if self._may_be_absent else 0
        terms: Row = ()
        known, allows_others = self._telling, True
        if condition is not None:
            absent = absent if condition in self._want_absence else 0
            terms = self.conditions.distinct[condition]
            allows_others = condition in self._but
            known = (
                known & ~self._classes(self._but[condition]) if allows_others else self._classes(self._only[condition])
            )
            known = self._with_affixes(known, terms)
        if allows_others and self._domain is None:
            for pair in product(_shortest(terms, "prefix"), _shortest(terms, "suffix")):
                number = self._class_of_others.setdefault(pair, len(self._values))
                if number == len(self._values):
                    self._values.append(None)
                    self._others[number] = pair
                known |= 1 << number
        return absent | known

    def inside(self, classes: int, box: int) -> int:
        condition = self.conditions.of_box.get(box)
        if condition is None:
            return classes
        held = self._held.get(condition)
        if held is None:
            masks = self._blocks.masks
            held = self._held[condition] = bitset([number for number, mask in enumerate(masks) if mask >> box & 1])
        return classes & held | bitset(
            [number for number in self._late_classes(classes) if self.mask(number) >> box & 1]
        )

    def owners(self, number: int) -> Iterable[Owners | None]:
        if self.keyless >> number & 1:
            return (NO_KEY,)
        if number in self._others or self._owners_of is None:
            return (None,)
        return (self._owners_of(key_value(self._values[number], self._attribute.default)),)

    def values(self, number: int) -> Iterator[Any]:
        if number not in self._others:
            yield self._values[number]
        elif self._attribute.type != "string":
            yield from (value for value in count(1) if value not in self._flips)
        else:
            prefix, suffix = self._others[number]
            used = self._prefixes.characters | self._suffixes.characters
            mask = self.mask(number)
            for text in other_texts(self._attribute.name, self._flips.keys(), used, prefix, suffix):
                if text not in self._flips and self._on_others & self._met(text, text) == mask:
                    yield text

    def _read_conditions(self) -> None:
        """Note for each condition the only values that it holds on, or all but which; and by value, on which conditions it
        makes a difference to be that value rather than others."""
        self._want_absence: set[int] = set()
        self._only: dict[int, list[Any]] = {}
        self._but: dict[int, list[Any]] = {}
        self._flips: dict[Any, list[int]] = {}
        if self._has_empty:
            self._flips[""] = []
        self._on_others = self.free
        for number, terms in enumerate(self.conditions.distinct):
            if allows_absence(terms):
                self._want_absence.add(number)
            plain = [
                (term.operator, frozenset(term.operand) if isinstance(term.operand, tuple) else term.operand)
                for term in terms
                if term.operator not in AFFIX
            ]
            holds_on_others = all(
                operator == "not" or (operator == "present" and operand) for operator, operand in plain
            )
            differing = (self._but if holds_on_others else self._only)[number] = []
            if holds_on_others:
                self._on_others |= self.boxes[number]
            for value in dict.fromkeys(
                text for term in terms if term.operator in ("in", "not") for text in term.operand
            ):
                flips = self._flips.setdefault(value, [])
                if all(holds(operator, operand, value) for operator, operand in plain) != holds_on_others:
                    flips.append(number)
                    differing.append(value)

    def _late_mask(self, number: int) -> int:
        if number in self._others:
            return self._on_others & self._met(*self._others[number])
        return self._mask_of(self._values[number])

    def _mask_of(self, value: Any) -> int:
        mask = self._on_others
        for condition in self._flips.get(value, ()):
            mask ^= self.boxes[condition]
        return mask & self._met(value, value)

    def _met(self, start: Any, end: Any) -> int:
        return self._prefixes.met(start) & self._suffixes.met(end)

    def _with_affixes(self, classes: int, terms: Row) -> int:
        """Return those of some classes of listed values that have the prefixes and suffixes of a condition."""
        for term in terms:
            if term.operator in AFFIX:
                held = [each for each in members(classes) if holds(term.operator, term.operand, self._values[each])]
                classes = bitset(held)
        return classes

    def _classes(self, values: Iterable[Any]) -> int:
        numbers = []
        for value in values:
            # Where only lists are compared, values of the same lists are alike.
            is_alone = not self._are_alike or (self._has_empty and value == "")
            alike = value if is_alone else tuple(self._flips.get(value, ()))
            number = self._class_of.setdefault(alike, len(self._values))
            if number == len(self._values):
                self._values.append(value)
            numbers.append(number)
        return bitset(numbers)


class _AffixMasks:
    """The boxes whose every prefix (or suffix) condition a text meets."""

    def __init__(self, conditions: Conditions, boxes: Sequence[int], operator: Literal["prefix", "suffix"]) -> None:
        self._at_start = operator == "prefix"
        wanted = [[term.operand for term in terms if term.operator == operator] for terms in conditions.distinct]
        self.slots = slots(conditions, boxes, wanted)
        texts = {text for _, table in self.slots for text in table}
        self._lengths = sorted({len(text) for text in texts})
        self.characters = frozenset("".join(texts))
        """The characters of all prefixes (or suffixes)."""

    def met(self, text: Any) -> int:
        """Return the boxes whose conditions a text meets (any value, where there are none)."""
        every = EVERY
        for free, table in self.slots:
            mask, size = free, len(text)
            for length in self._lengths:
                if length > size:
                    break
                mask |= table.get(text[:length] if self._at_start else text[size - length :], 0)
            every &= mask
        return every


def _shortest(terms: Row, operator: Literal["prefix", "suffix"]) -> list[str]:
    """Return prefixes (or suffixes) with which a text meets all of some conditions. Each text that meets them has one."""
    wanted = [term for term in terms if term.operator == operator]
    if not wanted:
        return [""]
    texts = dict.fromkeys(text for term in wanted for text in term.operand)
    return [text for text in texts if all(holds(term.operator, term.operand, text) for term in wanted)]
