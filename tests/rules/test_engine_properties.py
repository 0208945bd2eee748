"""The engine decides and explains exactly as a naive reading of the same YAML does."""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tidegate.errors import ContextError, NoRuleError, UnknownObjectiveError
from tidegate.rules import Decision, Engine, Explanation, Target, compile_directory, load_bundle

from tests.support.effort import examples

from .oracle import Decided, Directory, Explained, NoRule, Rejected, Served, Yaml
from .strategies import VERSIONS, PlainDumper, contexts, directories, small_fleet, write_directory

CONTEXTS_PER_OBJECTIVE = 25
thorough = settings(
    max_examples=examples(1000),
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
brief = settings(thorough, max_examples=examples(150))
seeds = st.integers(0, 2**32)
T = TypeVar("T")


def compiled(directory: Directory) -> bytes:
    with tempfile.TemporaryDirectory() as root:
        return compile_directory(write_directory(directory, Path(root)))


def served(target: Target) -> Served:
    return target.name, target.model, target.version, target.shards


def as_decided(decision: Decision) -> Decided:
    return Decided(
        rule=decision.rule,
        target=served(decision.target),
        reason=decision.reason,
        variant=decision.variant,
        experiment=decision.experiment,
        cell=decision.cell,
        parameters=dict(decision.parameters),
        fallbacks=tuple(map(served, decision.fallbacks)),
        shadows=frozenset((served(shadow.target), float(shadow.percent)) for shadow in decision.shadows),
        timeout_ms=decision.timeout_ms,
        hedge_after_ms=decision.hedge_after_ms,
        hedge_at=decision.hedge_at,
        fault=decision.as_dict()["fault"],
    )


def attempt(call: Callable[..., T], objective: str, context: Yaml, at: float) -> T | NoRule | ContextError:
    try:
        return call(objective, context, at=at)
    except NoRuleError:
        return NoRule()
    except ContextError as error:
        return error


def check_decide(engine: Engine, directory: Directory, objective: str, context: Yaml, at: float) -> None:
    expected = directory.decide(objective, context, at)
    actual = attempt(engine.decide, objective, context, at)
    if isinstance(expected, Rejected):
        assert isinstance(actual, ContextError), (expected, actual)
        assert actual.attribute in expected.attributes
    elif isinstance(actual, Decision):
        assert (actual.objective, actual.revision) == (objective, engine.revision)
        assert as_decided(actual) == expected
    else:
        assert actual == expected


def check_explain(engine: Engine, directory: Directory, objective: str, context: Yaml, at: float) -> None:
    expected = directory.explain(objective, context, at)
    actual = attempt(engine.explain, objective, context, at)
    if isinstance(expected, Rejected):
        assert isinstance(actual, ContextError), (expected, actual)
        assert actual.attribute in expected.attributes
        return
    assert isinstance(actual, Explanation), actual
    assert [trace.rule for trace in actual.rules] == [rule for rule, _ in expected.rules]
    for trace, (_, failing) in zip(actual.rules, expected.rules, strict=True):
        assert trace.matched == (not failing), trace
        assert trace.failed in (failing or {None}), (trace, failing)
        assert bool(trace.detail) == bool(failing), trace
    decision = attempt(engine.decide, objective, context, at)
    assert actual.decision == (None if isinstance(decision, NoRule) else decision)
    assert isinstance(expected, Explained)


@thorough
@given(directories(), seeds)
def test_decides_as_the_oracle_does(directory: Directory, seed: int) -> None:
    engine = load_bundle(compiled(directory))
    for objective in directory.objectives:
        for context, at in contexts(seed, directory, objective, CONTEXTS_PER_OBJECTIVE):
            check_decide(engine, directory, objective, context, at)


@brief
@given(directories(), seeds)
def test_explains_as_the_oracle_does_and_agrees_with_decide(directory: Directory, seed: int) -> None:
    engine = load_bundle(compiled(directory))
    for objective in directory.objectives:
        for context, at in contexts(seed, directory, objective, CONTEXTS_PER_OBJECTIVE):
            check_explain(engine, directory, objective, context, at)


@brief
@given(directories(), seeds)
def test_a_decision_depends_on_the_values_of_the_attributes_that_the_engine_names_alone(
    directory: Directory, seed: int
) -> None:
    engine = load_bundle(compiled(directory))
    for objective in directory.objectives:
        named = engine.depends_on(objective)
        pairs = [*contexts(seed, directory, objective, 2 * CONTEXTS_PER_OBJECTIVE)]
        for (context, at), (other, _) in pairwise(pairs):
            # Another context with the same names and types, which agrees where it has to.
            mixed = {
                name: other[name]
                if name in other and name not in (*named, "allocations") and type(other[name]) is type(value)
                else value
                for name, value in context.items()
            }
            one, two = (attempt(engine.decide, objective, each, at) for each in (context, mixed))
            assert one is two if isinstance(one, Decision) else type(one) is type(two)


@brief
@given(directories(), seeds)
def test_the_outcome_changes_at_the_times_alone_that_the_engine_names(directory: Directory, seed: int) -> None:
    engine = load_bundle(compiled(directory))
    for objective in directory.objectives:
        for context, at in contexts(seed, directory, objective, 10):
            until = engine.changes_after(objective, at)
            assert until is None or until > at
            later = at + 1e9 if until is None else until - 0.0005
            one, two = (attempt(engine.decide, objective, context, moment) for moment in (at, max(at, later)))
            assert one is two if isinstance(one, Decision) else type(one) is type(two)


@brief
@given(directories(), seeds)
def test_the_draws_of_an_explanation_are_the_arithmetic_of_its_choice(directory: Directory, seed: int) -> None:
    engine = load_bundle(compiled(directory))
    for objective in directory.objectives:
        for context, at in contexts(seed, directory, objective, 10):
            explanation = attempt(engine.explain, objective, context, at)
            if not isinstance(explanation, Explanation) or explanation.decision is None:
                continue
            scores = {draw.variant: draw.score for draw in explanation.draws if draw.score is not None}
            assert set(scores) == {draw.variant for draw in explanation.draws if draw.weight > 0}
            if explanation.decision.reason == "split":
                assert min(scores, key=scores.__getitem__) == explanation.decision.variant
            elif explanation.decision.reason != "experiment":
                assert not explanation.draws
            for draw in explanation.draws:
                assert 0 < draw.u <= 1
                assert draw.score is None or draw.score == pytest.approx(-math.log(draw.u) / draw.weight)
            json.dumps(explanation.as_dict(), allow_nan=False)


@brief
@given(directories(), seeds)
def test_contexts_that_went_through_json_decide_the_same(directory: Directory, seed: int) -> None:
    """A caller's context arrives as JSON; tuples and sets become lists, and nothing else may change."""
    engine = load_bundle(compiled(directory))
    for objective in directory.objectives:
        for context, at in contexts(seed, directory, objective, 10):
            decision = attempt(engine.decide, objective, context, at)
            if isinstance(decision, Decision):
                again = json.loads(json.dumps(context, default=sorted))
                assert engine.decide(objective, again, at=at) == decision
                assert json.loads(json.dumps(decision.as_dict())) == decision.as_dict()


@brief
@given(directories(), seeds)
def test_equal_rules_give_equal_bytes_however_they_are_written(directory: Directory, seed: int) -> None:
    chance = random.Random(seed)
    plain = compiled(directory)
    with tempfile.TemporaryDirectory() as root:
        write_differently(chance, directory, Path(root))
        rewritten = compile_directory(root)
    assert rewritten == plain
    assert load_bundle(rewritten).revision == load_bundle(plain).revision


def write_differently(chance: random.Random, directory: Directory, root: Path) -> None:
    """The same rules: keys in another order, other quoting, indentation and line width, comments, CRLF."""
    documents = {f"objectives/{name}.yaml": document for name, document in directory.objectives.items()}
    files = list((documents | {"fleet.yaml": directory.fleet, "layers.yaml": directory.layers}).items())
    (root / "objectives").mkdir()
    for name, document in chance.sample(files, len(files)):
        text = yaml.dump(
            shuffled(chance, document, ordered=False),
            Dumper=PlainDumper,
            sort_keys=False,
            default_flow_style=chance.choice([None, True, False]),
            indent=chance.choice([2, 4, 7]),
            width=chance.choice([20, 80, 4096]),
            allow_unicode=chance.choice([True, False]),
        )
        text = f"# A remark.\n{chance.choice(['', '---'])}\n{text}\n   # The end.\n"
        (root / name).write_bytes(text.replace("\n", chance.choice(["\n", "\r\n"])).encode())


def shuffled(chance: random.Random, value: Any, ordered: bool) -> Any:
    """Mappings in another order, but for a split's: its first variant serves callers without a sticky key."""
    if isinstance(value, list):
        return [shuffled(chance, item, False) for item in value]
    if not isinstance(value, dict):
        return value
    items = [(key, shuffled(chance, item, key in ("split", "cells"))) for key, item in value.items()]
    return dict(items if ordered else chance.sample(items, len(items)))


def test_any_change_of_meaning_changes_the_revision() -> None:
    one = small_directory([{"id": "all", "serve": "ranker"}])
    other = small_directory([{"id": "all", "serve": "popularity"}])
    assert load_bundle(compiled(one)).revision != load_bundle(compiled(other)).revision


@brief
@given(directories())
def test_targets_and_representatives_cover_what_is_decided(directory: Directory) -> None:
    engine = load_bundle(compiled(directory))
    for name, document in directory.objectives.items():
        targets = {served(target) for target in engine.targets(name)}
        assert len(targets) == len(engine.targets(name))
        assert targets == {directory.resolve(target) for target in written_targets(document)}
        representative = engine.representative(name)
        last = document["rules"][-1]
        assert representative.rule == last["id"]
        first = rule_targets(last) if "experiment" in last else rule_targets(last)[:1]
        assert representative.target.name in first
    assert {served(target) for target in engine.targets()} == {
        directory.resolve(target) for document in directory.objectives.values() for target in written_targets(document)
    }


def rule_targets(rule: Yaml) -> list[str]:
    if "serve" in rule:
        return [rule["serve"]]
    if "split" in rule:
        return list(rule["split"])
    return [arm if isinstance(arm, str) else arm["serve"] for arm in rule["experiment"]["cells"].values()]


def written_targets(document: Yaml) -> set[str]:
    found: set[str] = set()
    for rule in document["rules"]:
        fallback = rule.get("fallback", document.get("fallback", []))
        found |= {*rule_targets(rule), *rule.get("shadow", {})}
        found |= {fallback} if isinstance(fallback, str) else set(fallback)
    return found


@brief
@given(directories(), st.text(max_size=8))
def test_unknown_objectives_are_refused_by_name(directory: Directory, name: str) -> None:
    engine = load_bundle(compiled(directory))
    if name not in directory.objectives:
        with pytest.raises(UnknownObjectiveError) as caught:
            engine.decide(name, {})
        assert caught.value.objective == name


def small_directory(rules: list[Yaml], context: Yaml | None = None, layers: Yaml | None = None) -> Directory:
    fleet = small_fleet("ranker", "popularity")
    objective = {
        "objective": "o",
        "summary": "s",
        "owner": "t",
        "context": context or {"a": {"type": "string"}},
        "rules": rules,
    }
    return Directory({"o": objective}, fleet, layers or {})


def test_long_allow_lists_and_many_thresholds() -> None:
    """What a bit index finds hard: thousands of distinct values and thresholds over hundreds of rules."""
    chance = random.Random(7)
    context = {
        "member": {"type": "string"},
        "age": {"type": "integer"},
        "app": {"type": "version"},
        "tags": {"type": "set"},
        "country": {"type": "string"},
    }
    rules: list[Yaml] = []
    for number in range(400):
        when: Yaml = {}
        if chance.random() < 0.5:
            members = [f"m{chance.randrange(4000)}" for _ in range(chance.choice([1, 30, 200]))]
            when["member"] = chance.choice([sorted(set(members)), {"not": sorted(set(members))}])
        if chance.random() < 0.5:
            low = chance.randrange(1000)
            when["age"] = {"gte": low, "lt": low + chance.choice([1, 2, 50])}
        if chance.random() < 0.5:
            when["app"] = {"gt": f"{chance.randrange(4)}.{chance.randrange(50)}.{chance.randrange(50)}"}
        if chance.random() < 0.5:
            when["tags"] = {chance.choice(["contains_any", "contains_all"]): [f"t{chance.randrange(30)}", "t30"]}
        if chance.random() < 0.5:
            when["country"] = {chance.choice(["prefix", "suffix"]): chance.choice(["A", "AB", "B", ["C", "CA"], "BA"])}
        rules.append(
            {"id": f"r{number}", "when": when or {"country": "ZZ"}, "serve": chance.choice(["ranker", "popularity"])}
        )
    directory = small_directory(rules, context)
    engine = load_bundle(compiled(directory))
    for _ in range(1000):
        everything = {
            "member": f"m{chance.randrange(4100)}",
            "age": chance.randrange(-1, 1060),
            "app": f"{chance.randrange(4)}.{chance.randrange(50)}.{chance.randrange(50)}",
            "tags": [f"t{chance.randrange(31)}" for _ in range(chance.randrange(5))],
            "country": "".join(chance.choices("ABC", k=chance.randrange(4))),
        }
        some = dict(chance.sample(list(everything.items()), chance.randrange(6)))
        check_decide(engine, directory, "o", some, 0.0)


def test_many_experiments_at_once() -> None:
    """A member allocated in several of many experiments gets the first whose conditions hold, layers between them."""
    chance = random.Random(11)
    owners = [f"e{number}" for number in range(0, 90, 3)]
    ranges: dict[str, list[list[int]]] = {owner: [] for owner in owners}
    for first in range(0, 10000, 100):
        ranges[chance.choice(owners)].append([first, first + 99])
    owned = {owner: many for owner, many in ranges.items() if many}
    rules: list[Yaml] = []
    for number in range(90):
        mode = {"layer": "home"} if f"e{number}" in owned else {"allocate": "caller"}
        cells = {cell: chance.choice(["ranker", "popularity"]) for cell in chance.sample([1, 2, "A", "B"], 2)}
        when = {"a": chance.sample(["US", "NO", "SE"], 2)} if chance.random() < 0.5 else {}
        rules.append({"id": f"r{number}", "when": when, "experiment": {"id": f"e{number}", "cells": cells} | mode})
    layers = {"home": {"key": "member", "experiments": owned}}
    directory = small_directory(rules, {"a": {"type": "string"}, "member": {"type": "string"}}, layers)
    engine = load_bundle(compiled(directory))
    for _ in range(500):
        allocations = {f"e{chance.randrange(95)}": chance.choice([1, "2", "A", "B", "C"]) for _ in range(4)}
        context: Yaml = {"a": chance.choice(["US", "NO", "SE", "DK"]), "allocations": allocations}
        if chance.random() < 0.5:
            context["member"] = f"m{chance.randrange(10**6)}"
        check_decide(engine, directory, "o", context, 0.0)
        check_explain(engine, directory, "o", context, 0.0)


@pytest.mark.parametrize("operator", ["gt", "gte", "lt", "lte", "not", "in"])
def test_versions_compare_by_semver_precedence(operator: str) -> None:
    rules = [
        {"id": f"r{number}", "when": {"app": {operator: [version] if operator == "in" else version}}, "serve": "ranker"}
        for number, version in enumerate(VERSIONS)
    ]
    directory = small_directory(rules, {"app": {"type": "version"}})
    engine = load_bundle(compiled(directory))
    for version in [
        *VERSIONS,
        "0",
        "8.0.0",
        "8.2.0.0",
        "8.2.0.0+a-b",
        "8.2.0-0",
        "8.2.1-alpha.2",
        "8.2.1-beta",
        "99999999999",
    ]:
        check_explain(engine, directory, "o", {"app": version}, 0.0)


def test_true_is_not_one_and_text_is_not_a_number() -> None:
    context = {
        "flag": {"type": "boolean"},
        "count": {"type": "integer"},
        "score": {"type": "number"},
        "text": {"type": "string"},
    }
    rules = [{"id": name, "when": {name: wanted}, "serve": "ranker"} for name, wanted in
             [("flag", True), ("count", 1), ("score", 1), ("text", "1")]]  # fmt: skip
    engine = load_bundle(compiled(small_directory(rules, context)))
    right: dict[str, Any] = {"flag": True, "count": 1, "score": 1.0, "text": "1"}
    for name, value in right.items():
        assert engine.decide("o", {name: value}, at=0.0).rule == name
        for other in right.values():
            if type(other) is not type(value) and (name, other) != ("score", 1):
                with pytest.raises(ContextError, match=name):
                    engine.decide("o", {name: other}, at=0.0)


def test_an_absent_attribute_matches_nothing_but_present_false() -> None:
    rules = [{"id": f"r{number}", "when": {"a": wanted}, "serve": "ranker"} for number, wanted in
             enumerate(["x", ["x"], {"not": "x"}, {"prefix": "x"}, {"present": True}, {"present": False}])]  # fmt: skip
    engine = load_bundle(compiled(small_directory(rules)))
    assert [trace.matched for trace in engine.explain("o", {}, at=0.0).rules] == [False] * 5 + [True]


@pytest.mark.parametrize(
    "condition", [None, 1, [1, 2], {"not": 1}, {"in": [1]}, {"gt": 1}, {"present": True}, {"present": False}]
)
@pytest.mark.parametrize("value", [None, True, "1", float("nan"), float("inf"), float("-inf"), [], {}])
def test_a_wrong_type_is_refused_whatever_the_rules_ask(condition: Any, value: Any) -> None:
    rules = [{"id": "r", "when": {} if condition is None else {"n": condition}, "serve": "ranker"}]
    engine = load_bundle(compiled(small_directory(rules, {"n": {"type": "number"}})))
    for call in (engine.decide, engine.explain):
        with pytest.raises(ContextError) as caught:
            call("o", {"n": value}, at=0.0)
        assert caught.value.attribute == "n"
