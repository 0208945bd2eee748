"""Contexts for the corpus: those that look for an edge of the language, and random ones around the values that rules mention."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tidegate.rules import Attribute, Objective
from tidegate.rules.bundle import unpack
from tidegate.rules.bundle.rule import Experiment, Rule, decode_rule
from tidegate.rules.conditions import AnyOf, Conjunction

Context = dict[str, Any]
At = int | float

SEED = "tidegate conformance 1"
POOLS: Mapping[str, Sequence[Any]] = {
    "string": ["", "US", "us", "NO", "SE", "DK", "FI", "é", "e\u0301", "\U0001f600", "日本語", "null", "a\u0000b", "x" * 300],
    "integer": [-1, 0, 1, 2**31, 2**53 - 1, 2**53, 2**53 + 1, 2**63, 2**64 - 1, 2**64, -(2**53) - 1],
    "number": [-1.5, 0, 0.0, -0.0, 0.1, 0.30000000000000004, 1, 1.0, 1000, 1e3, 2**53 + 1, 5e-324, 1e308, 10**400, -(10**30)],
    "version": ["0", "8", "8.2", "8.2.0.0", "8.10", "8.2.1-alpha", "8.2.1-alpha.1", "8.2.1-01", "9.0+build", "2026.11.30"],
    "boolean": [True, False],
    "set": [[], ["hdr"], ["hdr", "hdr"], ["rows", "hdr", "hero"], ["hd", "basic"], ["e\u0301"], ["é"], [""]],
}  # fmt: skip
WRONG: Sequence[Any] = [None, True, 1, 1.5, 1.0, "1", "", "v8", "8..2", [], ["x"], [1], {}, {"x": 1}]
"""Values of which each is wrong for most types."""

TIMES: Sequence[At] = [
    0, 1767225600, 1772359199.999, 1772359200.499, 1772359200.5, 1782881999, 1785542400, 1797552000, 1798675200, 1799279999.999,
    1799280000, 4102444800,
]  # fmt: skip


class Mentioned:
    """The values and the experiments that the rules of a bundle mention."""

    def __init__(self, bundle: bytes) -> None:
        whole = unpack(bundle)
        self._rules: dict[str, list[Rule]] = {
            name: [decode_rule(line) for line in whole.rule_lines(entry, whole.tables(entry).rules)]
            for name, entry in whole.manifest.objectives.items()
        }

    def values(self, objective: str) -> Mapping[str, list[Any]]:
        """Return the operands of conditions, by attribute."""
        found: dict[str, list[Any]] = defaultdict(list)

        def walk(conjunction: Conjunction) -> None:
            for term in conjunction:
                if isinstance(term, AnyOf):
                    for alternative in term.alternatives:
                        walk(alternative)
                elif term.operator != "present":
                    found[term.attribute].extend(term.operand if isinstance(term.operand, tuple) else [term.operand])

        for rule in self._rules[objective]:
            walk(rule.when)
        return found

    def experiments(self, objective: str) -> list[Experiment]:
        """Return the experiments whose cells callers allocate."""
        found = (rule.experiment_of("caller") for rule in self._rules[objective])
        return [each for each in found if each is not None]


def contexts(
    objective: Objective, mentioned: Mapping[str, list[Any]], experiments: Sequence[Experiment], count: int
) -> Iterator[tuple[Context, At]]:
    """Yield `count` random contexts of an objective, each with the time of its decision; the same ones at each call."""
    chance = random.Random(f"{SEED} {objective.name}")
    for _ in range(count):
        careless = chance.random() < 0.15
        context: Context = {}
        for attribute in objective.attributes.values():
            if chance.random() < (0.25 if careless or not attribute.required else 0.0):
                continue
            context[attribute.name] = _value(chance, attribute, mentioned.get(attribute.name, ()), careless)
        if chance.random() < 0.1:
            context["undeclared"] = chance.choice([None, 1, "x", [1]])
        if experiments and chance.random() < 0.5:
            context["allocations"] = _allocations(chance, experiments)
        elif careless and chance.random() < 0.3:
            context["allocations"] = chance.choice([None, "1", [], 7, {"1": True}, {"1": None}, {"1": 1.5}])
        names = list(context)
        chance.shuffle(names)
        yield {name: context[name] for name in names}, chance.choice(TIMES)


def _value(chance: random.Random, attribute: Attribute, mentioned: Sequence[Any], careless: bool) -> Any:
    kind = attribute.type
    if careless and chance.random() < 0.3:
        return chance.choice(WRONG)
    if attribute.values is not None and not careless:
        values = list(attribute.values)
        return chance.sample(values, chance.randrange(len(values) + 1)) if kind == "set" else chance.choice(values)
    if kind in ("string", "integer") and chance.random() < 0.3:
        number = chance.randrange(10**6)
        return f"member-{number}" if kind == "string" else number
    if kind == "set" and mentioned:
        return chance.sample(list(mentioned), chance.randrange(len(mentioned) + 1))
    if mentioned and chance.random() < 0.6:
        return chance.choice(list(_near(kind, chance.choice(list(mentioned)))))
    return chance.choice(POOLS[kind])


def _near(kind: str, value: Any) -> Iterator[Any]:
    """Yield a value that a rule mentions, and what lies beside it."""
    yield value
    match kind:
        case "string":
            yield from (f"{value}x", f"x{value}", value[:-1], value.upper())
        case "integer":
            yield from (value - 1, value + 1)
        case "number":
            yield from (value - 0.25, value + 0.25, float(value), int(value))
        case "version":
            bare = value.partition("+")[0].partition("-")[0]
            yield from (bare, f"{bare}.0", f"{bare}.1", f"{bare}-0", f"{bare}-rc.10", f"{bare}+x")


def _allocations(chance: random.Random, experiments: Sequence[Experiment]) -> Context:
    found: Context = {"ended-long-ago": chance.choice([1, "A"])}
    for experiment in experiments:
        cell = chance.choice([each.cell for each in experiment.cells] + ["nowhere", 99])
        found[experiment.id] = chance.choice([cell, str(cell)])
    return found


def by_hand(objective: str) -> list[tuple[Context, At]]:
    """Return the contexts that no random one is likely to be."""
    return [(context, 0) for context in _BY_HAND.get(objective, [])]


_BY_HAND: Mapping[str, list[Context]] = {
    "texts": [
        {"tenant": "t", "title": "café"},
        {"tenant": "t", "title": "cafe\u0301"},
        {"tenant": "t", "title": "CAFÉ"},
        {"tenant": "t", "title": "\U0001f600!"},
        # Half of a character outside the basic plane is text, and the start of none.
        {"tenant": "t", "title": "\ud83d"},
        {"tenant": "t", "title": "\ud83dx", "country": "US"},
        {"tenant": "t", "title": "The end!", "country": "US"},
        {"tenant": "t", "country": "US "},
        {"tenant": "t", "device": "e\u0301"},
        {"tenant": "acme", "title": None},
        {},
    ],
    "numbers": [
        {"id": 2**53}, {"id": 2**53 + 1}, {"id": -(2**53) - 1}, {"id": 2**64 - 1}, {"id": 10**400}, {"id": 1.0}, {"id": True},
        {"score": 0}, {"score": -0.0}, {"score": 0.1}, {"score": 1e3, "level": 3.0}, {"score": 1000.5, "level": 0.5},
        {"score": 2**53 + 1}, {"score": 9007199254740992.0}, {"score": 2**1024 - 1}, {"score": 2**1024}, {"score": True},
        {"level": 1.0, "beta": True}, {"level": True}, {"beta": 1}, {"is_kids": 0}, {"age": 13.0},
    ],
    "versions": [
        {"app": text}
        for text in ("8.2.1+a.b", "8.2.1-rc.2", "8.2.1-RC.2", "8.3.0-rc.2", "8.3-rc.02", "8.2.1-1", "8.2.1--", "1" * 18, "1" * 19,
                     "1." * 127 + "1", "1." * 127 + "11", "1." * 128 + "1", " 8.2", "8.2\n", "٨.٢", "8.2-", "8.2+", "8.2.1-alpha..1", "v8.2", "08.02")
    ],
    "sets": [
        {"features": ["hdr", "rows", "日本"]}, {"features": []}, {"features": ["hdr", 1]}, {"features": "hdr"}, {"features": {"hdr": True}},
        {"plans": ["e\u0301"]}, {"plans": ["é"]}, {"plans": []}, {"plans": ["basic", "basic"]},
    ],
    "choices": [
        *({"member_id": f"m{number}", "country": country} for number in range(12) for country in ("US", "GB", "SE", "NO", "DK", "FI")),
        *({"account": number, "country": country} for number in (0, -7, 42, 2**64, 10**30) for country in ("US", "NO", "DK")),
        {"member_id": "m6799", "country": "FR"},
        {"member_id": "", "account": 0, "country": "DK"},
        {"member_id": "", "country": "DK"},
        {"app": "8.2", "country": "DK"},
        {"app": "8.2.0", "country": "DK"},
        {"member_id": "caf\u00e9", "country": "DK"},
        {"member_id": "cafe\u0301", "country": "DK"},
        {"member_id": "\U0001f600", "country": "DK"},
        {"member_id": "a\u001fb", "country": "DK"},
        {"member_id": "\ud83d", "country": "DK"},
        {"member_id": "\ud83d", "country": "US"},
        {"member_id": "\ud83d", "allocations": {"search-2026": "control"}},
        {"member_id": "1", "allocations": {"search-2026": 7}},
        {"member_id": "1", "allocations": {"search-2026": "7"}},
        {"member_id": "1", "allocations": {"search-2026": 7.0}},
        {"member_id": "1", "allocations": {"search-2026": "07"}},
    ],
    "windows": [{}, {"country": "US"}],
    "strict": [
        {"member_id": "1", "plan": "premium", "tags": [], "app": "1", "is_new": True, "weight": 1},
        {"member_id": "1", "plan": "basic", "tags": [], "app": "1", "is_new": True, "weight": 1, "seats": 4},
        {"member_id": "1", "plan": "basic", "tags": [], "app": "1", "is_new": True, "weight": 1, "seats": 1},
        {"member_id": "1", "plan": "basic", "tags": [], "app": "1", "is_new": True, "weight": 1, "allocations": {}},
        {"member_id": "", "plan": "premium", "tags": [], "app": "1", "is_new": True, "weight": 1},
        {"member_id": "1", "plan": "Premium", "tags": ["x", None], "app": "1.x", "is_new": "true", "weight": "1", "Plan": 1},
    ],
}  # fmt: skip
