"""A part of a rule as its author would write it, and in words."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from tidegate.errors import printable
from tidegate.rules.conditions import AnyOf, Conjunction, from_json
from tidegate.rules.times import utc_text
from tidegate.rules.values import json_text


def author_form(field: str, value: Any) -> Any:
    """A field of a rule in the bundle, as JSON in the form of the rule language; anything else as it is."""
    if value is None:
        return None
    match field:
        case "when":
            return _when(from_json(value))
        case "split" | "shadow":
            return dict(value)
        case "active":
            named = zip(("from", "until"), value, strict=True)
            return {key: utc_text(seconds) for key, seconds in named if seconds is not None}
        case _:
            return value


def in_words(field: str, value: Any) -> str:
    """A field of a rule in the bundle, or a value of something else, in one line."""
    match field:
        case _ if value is None or value == []:
            return "none"
        case "when":
            return _condition(from_json(value)) or "always"
        case "split":
            return ", ".join(f"{name} {weight}" for name, weight in value)
        case "shadow":
            return ", ".join(f"{name} {plain(percent)} %" for name, percent in value)
        case "active":
            return " ".join(f"{key} {moment}" for key, moment in author_form(field, value).items())
        case "experiment":
            return _experiment(value)
        case "fallback" | "shards" | "key" | "sticky_key" | "values" | "objectives" | "overrides" if isinstance(
            value, list
        ):
            return ", ".join(map(json_text, value))
        case _:
            return printable(value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False))


def _experiment(value: Any) -> str:
    cells = []
    for cell in value["cells"]:
        parameters = f" with {json.dumps(cell['parameters'], ensure_ascii=False)}" if "parameters" in cell else ""
        cells.append(f"{cell['cell']}: {cell['serve']} weight {cell['weight']}{parameters}")
    ranges = ", ".join(f"{first}–{last}" for first, last in value.get("ranges", ()))
    where = (
        f"in layer {value['layer']}, buckets {ranges}" if value["allocate"] == "layer" else "allocated by the caller"
    )
    return f"{value['id']} {where}; cells {', '.join(cells)}"


def _condition(conjunction: Conjunction) -> str:
    parts = []
    for term in conjunction:
        if isinstance(term, AnyOf):
            parts.append("(" + " or ".join(_condition(each) or "always" for each in term.alternatives) + ")")
        else:
            parts.append(f"{term.attribute} {term.words()}")
    return " and ".join(parts)


def _when(conjunction: Conjunction) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for term in conjunction:
        if isinstance(term, AnyOf):
            made["any_of"] = [_when(each) for each in term.alternatives]
        else:
            operand = list(term.operand) if isinstance(term.operand, tuple) else term.operand
            made.setdefault(term.attribute, {})[term.operator] = operand
    return made


def plain(number: float) -> str:
    """A number in decimal notation, however small."""
    return f"{number:g}" if number == 0 or abs(number) >= 0.0001 else f"{Decimal(repr(number)):f}"
