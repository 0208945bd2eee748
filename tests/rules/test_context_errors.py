"""A caller's error names the attribute and says what is expected; it never repeats the value, nor any other value."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from tidegate.errors import ContextError, NoRuleError, UnknownObjectiveError
from tidegate.rules import Engine, compile_directory, load_bundle

from .oracle import Directory, Yaml
from .strategies import small_fleet, write_directory

SECRET = "kF9-personal-datum"
CONTEXT: dict[str, dict[str, Any]] = {
    "member_id": {"type": "string", "required": True},
    "age": {"type": "integer"},
    "score": {"type": "number"},
    "is_kids": {"type": "boolean"},
    "app_version": {"type": "version"},
    "tags": {"type": "set"},
    "device": {"type": "string", "values": ["tv", "mobile", "web"]},
    "tier": {"type": "integer", "values": [1, 2, 3]},
    "interests": {"type": "set", "values": ["drama", "sports"]},
    "api": {"type": "version", "values": ["8.2", "9"]},
    "unused": {"type": "integer"},
}


@pytest.fixture(scope="module")
def engine() -> Engine:
    rules: list[Yaml] = [
        {
            "id": "kids",
            "when": {"is_kids": True, "age": {"lt": 13}, "tags": {"contains_any": ["x"]}},
            "serve": "ranker",
        },
        {"id": "ab", "experiment": {"id": "12345", "allocate": "caller", "cells": {1: "ranker", "B": "popularity"}}},
        {
            "id": "new",
            "when": {"score": {"gt": 0.5}, "app_version": {"gte": "8.2"}},
            "split": {"ranker": 1, "popularity": 1},
        },
        {"id": "tv", "when": {"device": "tv"}, "serve": "ranker"},
    ]
    return engine_of(rules, "member_id", CONTEXT)


def engine_of(rules: list[Yaml], sticky_key: str, context: Yaml) -> Engine:
    objective = {"objective": "o", "summary": "s", "owner": "t", "context": context, "sticky_key": sticky_key}
    directory = Directory({"o": objective | {"rules": rules}}, small_fleet("ranker", "popularity"))
    with tempfile.TemporaryDirectory() as root:
        return load_bundle(compile_directory(write_directory(directory, Path(root))))


WRONG_TYPES = [
    ("member_id", 987654321, "string"),
    ("member_id", [SECRET], "string"),
    ("member_id", SECRET.encode(), "string"),
    ("age", SECRET, "integer"),
    ("age", 987654.25, "integer"),
    ("age", 987654.0, "integer"),
    ("age", True, "integer"),
    ("score", SECRET, "number"),
    ("score", False, "number"),
    ("score", float("nan"), "number"),
    ("score", float("inf"), "number"),
    ("score", float("-inf"), "number"),
    ("is_kids", 1, "boolean"),
    ("is_kids", "true", "boolean"),
    ("is_kids", SECRET, "boolean"),
    ("app_version", SECRET, "version"),
    ("app_version", 987654.25, "version"),
    ("app_version", 8, "version"),
    ("app_version", "", "version"),
    ("app_version", "987..654", "version"),
    ("app_version", "v987654", "version"),
    ("app_version", "-987654", "version"),
    ("app_version", "987654-", "version"),
    ("app_version", "987654.", "version"),
    ("app_version", " 987654", "version"),
    ("app_version", "987654\n", "version"),
    ("app_version", "٩٨٧", "version"),
    ("tags", SECRET, "set"),
    ("tags", [SECRET, 987654321], "set"),
    ("tags", {SECRET: 1}, "set"),
    ("unused", SECRET, "integer"),
    *((name, None, spec["type"]) for name, spec in CONTEXT.items()),
]
WANTED = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "true or false",
    "version": "version",
    "set": "list of texts",
}
OUTSIDE = [
    ("device", SECRET),
    ("device", "TV"),
    ("tier", 987654321),
    ("interests", ["drama", SECRET]),
    ("api", "98.76.54"),
]
ALLOCATIONS: list[Any] = [
    SECRET, [SECRET], 987654321, None, {"12345": None}, {"12345": True}, {"12345": 1.0}, {"12345": [SECRET]}, {12345: 1},
]  # fmt: skip


def refused(engine: Engine, context: Any) -> ContextError:
    errors = []
    for call in (engine.decide, engine.explain):
        with pytest.raises(ContextError) as caught:
            call("o", context, at=0.0)
        errors.append(caught.value)
    assert str(errors[0]) == str(errors[1])
    return errors[0]


def assert_discreet(error: ContextError) -> None:
    """Neither the message, the arguments nor a chained exception carries what the caller sent."""
    link: BaseException | None = error
    while link is not None:
        for leak in (SECRET, "987", "TV", "٩", "nan", "-inf"):
            assert leak not in str(link) and leak not in repr(link.args)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


@pytest.mark.parametrize(("attribute", "value", "kind"), WRONG_TYPES, ids=lambda part: ascii(part)[:24])
def test_a_wrong_type_names_the_attribute_and_the_type(engine: Engine, attribute: str, value: Any, kind: str) -> None:
    error = refused(engine, {"member_id": "m", attribute: value})
    assert error.attribute == attribute
    assert attribute in str(error) and WANTED[kind] in str(error)
    assert_discreet(error)


@pytest.mark.parametrize(("attribute", "value"), OUTSIDE)
def test_a_value_outside_the_domain_names_the_attribute_and_the_domain(
    engine: Engine, attribute: str, value: Any
) -> None:
    error = refused(engine, {"member_id": "m", attribute: value})
    assert error.attribute == attribute
    assert attribute in str(error) and str(CONTEXT[attribute]["values"][0]) in str(error)
    assert_discreet(error)


@pytest.mark.parametrize("context", [{}, {"age": 7, "device": "tv"}, {"MEMBER_ID": SECRET}])
def test_a_missing_required_attribute_is_named(engine: Engine, context: dict[str, Any]) -> None:
    error = refused(engine, context)
    assert error.attribute == "member_id"
    assert "member_id" in str(error) and "required" in str(error)
    assert_discreet(error)


@pytest.mark.parametrize("allocations", ALLOCATIONS, ids=lambda part: repr(part)[:24])
def test_malformed_allocations_are_the_caller_s_error(engine: Engine, allocations: Any) -> None:
    error = refused(engine, {"member_id": "m", "allocations": allocations})
    assert error.attribute == "allocations"
    assert "allocations" in str(error)
    assert_discreet(error)


def test_attributes_that_nobody_declared_are_ignored(engine: Engine) -> None:
    plain = {"member_id": "m", "device": "tv"}
    assert engine.decide("o", plain | {"zzz": None, "any_of": 3, "": []}, at=0.0) == engine.decide("o", plain, at=0.0)


@pytest.mark.parametrize("experiments", [{}, {"gone": 1}, {"12345": "C"}, {"12345": 99}, {"12345": "b"}])
def test_an_allocation_that_names_no_cell_falls_through(engine: Engine, experiments: dict[str, Any]) -> None:
    context = {"member_id": "m", "device": "tv", "allocations": experiments}
    assert engine.decide("o", context, at=0.0).rule == "tv"


@pytest.mark.parametrize(
    ("allocated", "cell", "model"), [(1, 1, "ranker"), ("1", 1, "ranker"), ("B", "B", "popularity")]
)
def test_cells_compare_as_text(engine: Engine, allocated: int | str, cell: int | str, model: str) -> None:
    decision = engine.decide("o", {"member_id": "m", "allocations": {"12345": allocated}}, at=0.0)
    assert (decision.cell, decision.variant, decision.model) == (cell, str(cell), model)


@pytest.mark.parametrize("value", [2**1023, 2**1024 - 1, -(2**1024) + 1, 2**1024, -(2**1024)])
def test_a_number_is_any_integer_below_2_to_the_1024(engine: Engine, value: int) -> None:
    context = {"member_id": "m", "app_version": "8.1", "score": value}
    if abs(value) < 2**1024:
        assert engine.explain("o", context, at=0.0).rules[2].failed == "app_version"
    else:
        with pytest.raises(ContextError, match="score"):
            engine.decide("o", context, at=0.0)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("age", 10**400),
        ("age", 10**5000),
        ("score", 10**400),
        ("score", -(10**400)),
        ("app_version", "9" * 5000),
        ("app_version", "9-" + "9" * 5000),
        ("app_version", ".".join("9" * 5000)),
        ("tags", ["\ud800"]),
        ("member_id", "m" * 100_000),
    ],
    ids=lambda part: part if isinstance(part, str) and len(part) < 20 else "",
)
def test_oversized_values_are_decided_or_refused_as_the_caller_s_error(attribute: str, value: Any) -> None:
    """JSON can spell an integer beyond any float, and text can hold more digits than Python's `int` takes."""
    sticky = attribute if attribute in ("member_id", "age", "app_version") else "member_id"
    conditions: dict[str, Any] = {
        "age": {"gt": 5},
        "score": {"gt": 0.5},
        "app_version": {"gt": "8.2-rc.1"},
        "tags": {"contains_any": ["x"]},
        "member_id": {"prefix": "mm"},
    }
    split = {"ranker": 1, "popularity": 1}
    rules = [{"id": "a", "when": {attribute: conditions[attribute]}, "split": split}, {"id": "b", "split": split}]
    engine = engine_of(rules, sticky, CONTEXT | {"member_id": {"type": "string"}})
    for call in (engine.decide, engine.explain):
        try:
            call("o", {attribute: value}, at=0.0)
        except ContextError as error:
            assert error.attribute == attribute
            assert len(str(error)) < 300


@pytest.mark.parametrize("text", ["\ud800", "m\udfff"])
def test_text_that_is_no_unicode_is_decided_or_refused_as_the_caller_s_error(engine: Engine, text: str) -> None:
    """JSON can spell half a surrogate pair, which has no UTF-8 to hash."""
    context = {"member_id": text, "score": 0.75, "app_version": "9"}
    for call in (engine.decide, engine.explain):
        with pytest.raises(ContextError) as caught:
            call("o", context, at=0.0)
        assert caught.value.attribute == "member_id"


def test_no_rule_and_unknown_objective_name_the_objective_only(engine: Engine) -> None:
    with pytest.raises(NoRuleError, match="'o'") as unmatched:
        engine.decide("o", {"member_id": SECRET}, at=0.0)
    assert SECRET not in str(unmatched.value)
    explanation = engine.explain("o", {"member_id": SECRET}, at=0.0)
    assert explanation.decision is None and len(explanation.rules) == 4
    with pytest.raises(UnknownObjectiveError, match="nope"):
        engine.decide("nope", {})


def test_a_trace_says_what_the_rule_asks_for_and_not_what_the_caller_sent(engine: Engine) -> None:
    context = {
        "member_id": SECRET,
        "age": 987654321,
        "tags": [SECRET],
        "score": -987.5,
        "app_version": "0.987",
        "is_kids": True,
    }
    explanation = engine.explain("o", context, at=0.0)
    text = repr(explanation.rules)
    assert SECRET not in text and "987" not in text
    failed = {trace.rule: trace for trace in explanation.rules}
    assert failed["kids"].failed in ("age", "tags") and failed["kids"].detail
    assert failed["tv"].failed == "device" and "tv" in str(failed["tv"].detail)
    assert failed["ab"].failed == "experiment"


@pytest.mark.parametrize("context", [None, [], "text", 7])
def test_a_context_that_is_no_mapping_is_the_callers_error(engine: Engine, context: Any) -> None:
    with pytest.raises(ContextError, match="must be a mapping"):
        engine.decide("o", context)
