"""What a context names and its objective does not declare: said by an explanation, and an error where the objective asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tidegate.errors import ContextError
from tidegate.rules import Engine, compile_directory, load_bundle

OTHER = "objective: other\ncontext: {county: {type: string}}\nrules: [{id: only, serve: m}]\n"


def engine(folder: Path, extra: str = "") -> Engine:
    """One objective with `country` and `device`, and another that declares `county`."""
    (folder / "objectives").mkdir(parents=True)
    (folder / "fleet.yaml").write_text("shards: {a: {}}\nmodels: {m: {shards: [a]}}\n")
    (folder / "objectives/picked.yaml").write_text(
        f"objective: picked\ncontext: {{country: {{type: string}}, device: {{type: string}}}}\n{extra}"
        "rules: [{id: nl, when: {country: NL}, serve: m}, {id: rest, serve: m}]\n"
    )
    (folder / "objectives/other.yaml").write_text(OTHER)
    return load_bundle(compile_directory(folder))


@pytest.mark.parametrize("extra", ["", "unknown_attributes: ignore\n"])
def test_an_explanation_lists_what_was_ignored_and_what_it_may_have_meant(tmp_path: Path, extra: str) -> None:
    context = {"coutry": "NL", "zzz": ["secret"], "allocations": {}, "device": "tv"}
    found = engine(tmp_path, extra).explain("picked", context)
    assert found.decision is not None
    assert found.decision.rule == "rest"
    told = found.as_dict()["ignored"]
    assert told == [{"name": "coutry", "did_you_mean": "country"}, {"name": "zzz", "did_you_mean": None}]
    assert "secret" not in str(told)


def test_no_name_of_another_objective_is_suggested(tmp_path: Path) -> None:
    rules = engine(tmp_path)
    for objective, near in (("picked", "country"), ("other", "county")):
        (told,) = rules.explain(objective, {"countyr": "NL"}).ignored
        assert told.did_you_mean == near
    (told,) = rules.explain("other", {"devcie": "tv"}).ignored
    assert told.did_you_mean is None, "only another objective has a device"


@pytest.mark.parametrize("method", ["decide", "explain"])
def test_an_objective_that_refuses_what_it_does_not_declare_names_all_of_it(tmp_path: Path, method: str) -> None:
    rules = engine(tmp_path, "unknown_attributes: refuse\n")
    ask = getattr(rules, method)
    assert rules.objectives["picked"].refuses_unknown
    with pytest.raises(ContextError) as caught:
        ask("picked", {"coutry": "secret", "country": "NL", "zzz": 1})
    assert caught.value.attribute == "coutry"
    assert "'coutry' (did you mean 'country'?), 'zzz'" in str(caught.value)
    assert "secret" not in str(caught.value)
    ask("picked", {"country": "NL", "allocations": {"1": 1}})
    ask("picked", {})
    with pytest.raises(ContextError) as caught:
        ask("picked", {f"name{number}" + "x" * 99: 0 for number in range(100)})
    assert "and 90 more" in str(caught.value)
    assert len(str(caught.value)) < 1000
    rules.decide("other", {"zzz": 1})


def test_a_key_that_is_neither_is_a_mistake_in_the_rules(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="unknown_attributes"):
        engine(tmp_path, "unknown_attributes: reject\n")


def test_rules_that_ignore_compile_to_what_they_did_before(tmp_path: Path) -> None:
    revisions: list[Any] = [
        engine(tmp_path / str(number), extra).revision
        for number, extra in enumerate(("", "unknown_attributes: ignore\n", "unknown_attributes: refuse\n"))
    ]
    assert revisions[0] == revisions[1] != revisions[2]
