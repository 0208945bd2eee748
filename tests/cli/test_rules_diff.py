"""`tidegate rules diff`: what changed between two revisions, and exactly which share moves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import pytest

from tests.cli.diffed import (
    EXPERIMENT,
    FLEET,
    LAYERS,
    RANKING,
    changes,
    counted,
    diff,
    directory,
    flows,
    ranking,
    with_rules,
)
from tests.cli.rules_runner import rules, rules_json

STANDARD_DEVIATIONS = 4.5
"""A count is further from its mean than this with a probability of 7e-6; the keys are fixed, so no test is flaky."""

MEMBERS = [f"member-{number}" for number in range(200_000)]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return directory(tmp_path / "old")


def test_nothing_changed(old: Path, tmp_path: Path) -> None:
    told = rules_json("diff", old, old)
    assert (told["format_version"], told["ok"], told["changed"], told["changes"]) == (1, True, False, [])
    assert (ranking(told)["moved"], ranking(told)["retuned"], ranking(told)["exact"]) == (0, 0, True)
    assert sum(flow["share"] for flow in ranking(told)["flows"]) == pytest.approx(1)
    assert "nothing changed" in rules("diff", old, old).stdout
    copy = directory(tmp_path / "copy", summary="")
    assert rules("diff", old, copy).exit_code == 0


# Countries: 3 cases. Devices: 2 and absence. Versions: below 8.2 and the others.
EDITS: list[tuple[str, list[dict[str, Any]], float, float, list[tuple[str, str, str, str | None]]]] = [
    (
        "ramp 10 % to 50 %",
        with_rules({}, {"split": {"base@champion": 50, "better": 50}}, {}),
        2 / 3 * 1 / 2 * 0.4,
        0,
        [("changed", "rule", "canary", "split")],
    ),
    (
        "narrow a condition by one closed value",
        with_rules({"when": {"country": ["SE"], "device": "tv"}}, {}, {}),
        1 / 3 * 2 / 3 * (1 / 2 + 1 / 2 * 0.9),
        1 / 3 * 2 / 3 * 1 / 2 * 0.1,
        [("changed", "rule", "sweden", "when")],
    ),
    (
        "widen a condition by one closed value",
        with_rules({"when": {"country": ["SE", "US"]}}, {}, {}),
        1 / 3 * (1 / 2 + 1 / 2 * 0.9),
        1 / 3 * 1 / 2 * 0.1,
        [("changed", "rule", "sweden", "when")],
    ),
    (
        "change parameters alone",
        with_rules({"parameters": {"top_k": 30}}, {}, {}),
        0,
        1 / 3,
        [("changed", "rule", "sweden", "parameters")],
    ),
    (
        "true is not 1 to a model",
        with_rules({"parameters": {"top_k": 20, "strict": True}}, {}, {}),
        0,
        1 / 3,
        [("changed", "rule", "sweden", "parameters")],
    ),
    (
        "remove a rule",
        with_rules(None, {}, {}),
        1 / 3 * (1 / 2 + 1 / 2 * 0.9),
        1 / 3 * 1 / 2 * 0.1,
        [("removed", "rule", "sweden", None)],
    ),
    (
        "rename a split: its draws are independent",
        with_rules({}, {"id": "canary-2"}, {}),
        2 / 3 * 1 / 2 * 2 * 0.9 * 0.1,
        0,
        [("renamed", "rule", "canary", None)],
    ),
    (
        "rename a rule without a split",
        with_rules({"id": "nordics"}, {}, {}),
        0,
        0,
        [("renamed", "rule", "sweden", None)],
    ),
    (
        "an edit that no context meets",
        with_rules({}, {}, {"when": {"version": {"lt": "8.2"}}}),
        0,
        0,
        [("changed", "rule", "default", "when")],
    ),
]


@pytest.mark.parametrize(("made", "moved", "retuned", "told"), [edit[1:] for edit in EDITS], ids=[e[0] for e in EDITS])
def test_an_edit_moves_exactly_what_it_should(
    made: list[dict[str, Any]],
    moved: float,
    retuned: float,
    told: list[tuple[str, str, str, str | None]],
    old: Path,
    tmp_path: Path,
) -> None:
    found = diff(old, directory(tmp_path / "new", rules=made))
    assert ranking(found)["moved"] == pytest.approx(moved, abs=1e-15)
    assert ranking(found)["retuned"] == pytest.approx(retuned, abs=1e-15)
    assert ranking(found)["exact"] is True
    assert changes(found) == told
    back = diff(tmp_path / "new", old)
    assert flows(back) == {(there, here): share for (here, there), share in flows(found).items()}


def test_swapping_two_rules_moves_who_meets_both(old: Path, tmp_path: Path) -> None:
    first, second, last = RANKING["rules"]
    found = diff(old, directory(tmp_path / "new", rules=[second, first, last]))
    ((kind, _, name, _),) = changes(found)
    assert (kind, name in ("sweden", "canary")) == ("moved", True)
    assert flows(found)["better", "base"] == pytest.approx(1 / 3 * 1 / 2 * 0.9)
    assert ranking(found)["moved"] == flows(found)["better", "base"]
    assert ranking(found)["retuned"] == pytest.approx(1 / 3 * 1 / 2 * 0.1)


def test_an_alias_moves_all_that_it_serves(old: Path, tmp_path: Path) -> None:
    new = directory(tmp_path / "new", fleet=FLEET | {"aliases": {"base@champion": "best/2"}})
    found = diff(old, new)
    assert changes(found) == [("changed", "alias", "base@champion", "target")]
    assert flows(found)["base", "best/2"] == pytest.approx(2 / 3 * (1 / 2 + 1 / 2 * 0.9))
    assert ranking(found)["moved"] == flows(found)["base", "best/2"]


def test_an_attribute_that_becomes_required_refuses_who_lacks_it(old: Path, tmp_path: Path) -> None:
    context = RANKING["context"] | {"device": {"type": "string", "values": ["mobile", "tv"], "required": True}}
    found = diff(old, directory(tmp_path / "new", context=context))
    assert changes(found) == [("changed", "attribute", "device", "required")]
    assert flows(found)["better", "(refused)"] + flows(found)["base", "(refused)"] == pytest.approx(1 / 3)
    narrower = RANKING["context"] | {"country": {"type": "string", "values": ["SE", "US"], "required": True}}
    found = diff(old, directory(tmp_path / "narrower", context=narrower))
    assert flows(found)["base", "(refused)"] == pytest.approx(1 / 3 * (1 / 2 + 1 / 2 * 0.9))


def test_an_objective_that_is_added_or_removed(old: Path, tmp_path: Path) -> None:
    new = directory(tmp_path / "new")
    (new / "objectives/search.yaml").write_text("objective: search\nrules: [{id: all, serve: best}]\n", "utf-8")
    found = diff(old, new)
    assert changes(found) == [("added", "objective", "search", None)]
    assert [each["objective"] for each in found["objectives"]] == ["ranking", "search"]
    assert found["objectives"][1]["flows"] == [{"from": "(no objective)", "to": "best", "share": 1, "retuned": 0}]
    back = diff(new, old)
    assert back["objectives"][1]["moved"] == 1
    assert back["objectives"][1]["flows"] == [{"from": "best", "to": "(no objective)", "share": 1, "retuned": 0}]
    assert rules_json("diff", new, old, "--objective", "ranking")["objectives"][0]["objective"] == "ranking"


def test_callers_fleet_and_contract_are_told(old: Path, tmp_path: Path) -> None:
    fleet = {
        "shards": {"cpu": {"replicas": 2}, "gpu": {}},
        "models": {"base": {"shards": ["cpu", "gpu"]}, "better": {"shards": ["cpu"]}, "new": {"shards": ["gpu"]}},
        "aliases": {"base@champion": "base"},
    }
    new = directory(tmp_path / "new", fleet=fleet, owner="search", sticky_key=["member_id"], timeout_ms=50)
    (new / "callers.yaml").write_text("callers: {home: {objectives: '*'}}\n", "utf-8")
    found = diff(old, new)
    assert changes(found) == [
        ("changed", "shard", "cpu", "replicas"),
        ("added", "shard", "gpu", None),
        ("changed", "model", "base", "shards"),
        ("removed", "model", "best", None),
        ("added", "model", "new", None),
        ("added", "callers", "callers", None),
        ("added", "caller", "home", None),
        ("changed", "objective", "ranking", "owner"),
        ("changed", "objective", "ranking", "timeout_ms"),
        *(("changed", "rule", rule["id"], "timeout_ms") for rule in RANKING["rules"]),
    ]
    assert ranking(found)["retuned"] == 1
    (old / "callers.yaml").write_text("callers: {home: {objectives: ranking, rate_per_s: 5}}\n", "utf-8")
    texts = [each["text"] for each in diff(old, new)["changes"]]
    assert "caller home: objectives ranking → *" in texts
    assert "caller home: rate_per_s 5 → none" in texts


def test_changes_hold_the_values_in_the_form_of_the_rule_language(old: Path, tmp_path: Path) -> None:
    when = {"country": ["SE", "US"], "any_of": [{"device": "tv"}, {"version": {"lt": "9"}}]}
    window = {"from": "2026-03-01T00:00:00Z"}
    fault = {"percent": 100, "delay_ms": 3}
    made = with_rules({"when": when, "active": window, "fault": fault}, {}, {})
    found = diff(old, directory(tmp_path / "new", rules=made, responses="stream"))
    by_field = {each["field"]: each for each in found["changes"]}
    assert by_field["when"]["old"] == {"country": {"in": ["SE"]}}
    assert by_field["when"]["new"] == {
        "country": {"in": ["SE", "US"]},
        "any_of": [{"device": {"in": ["tv"]}}, {"version": {"lt": "9"}}],
    }
    assert by_field["active"]["new"] == window
    assert by_field["fault"]["new"] == fault
    assert by_field["fault"]["text"] == 'rule sweden: fault none → {"percent": 100, "delay_ms": 3}'
    assert by_field["responses"]["new"] == "stream"
    assert by_field["when"]["text"] == (
        "rule sweden: when country must be SE → "
        "country must be one of SE, US and (device must be tv or version must be < 9)"
    )


def test_time_windows_hold_at_the_time_that_is_given(old: Path, tmp_path: Path) -> None:
    made = with_rules({"active": {"until": "2026-03-01T00:00:00Z"}}, {}, {})
    new = directory(tmp_path / "new", rules=made)
    assert ranking(diff(old, new, "--at", "2026-02-28T00:00:00Z"))["moved"] == 0
    told = diff(old, new, "--at", "2026-03-01T00:00:00Z")
    assert told["at"] == "2026-03-01T00:00:00Z"
    assert ranking(told)["moved"] == pytest.approx(1 / 3 * (1 / 2 + 1 / 2 * 0.9))
    assert rules("diff", old, new, "--at", "noon").exit_code == 2


def test_the_table_tells_shares_and_changes_in_words(old: Path, tmp_path: Path) -> None:
    new = directory(tmp_path / "new", rules=with_rules({}, {"split": {"base@champion": 50, "better": 50}}, {}))
    shown = rules("diff", old, new)
    assert shown.exit_code == 1
    assert "ranking: 13.33 % of the traffic moves (exact; every case of a context counts alike)" in shown.stdout
    row = r"13\.33 % +base +better +canary +moved"
    assert re.search(row, shown.stdout)
    assert "rule canary: split base@champion 90, better 10 → base@champion 50, better 50" in shown.stdout


def test_rules_that_do_not_compile_are_located_on_their_side(old: Path, tmp_path: Path) -> None:
    broken = directory(tmp_path / "broken", rules=[{"id": "all", "serve": "nothing"}])
    shown = rules("diff", old, broken)
    assert shown.exit_code == 1
    assert f"NEW ({broken}): 1 error in the rules" in shown.stderr
    assert re.search(r"objectives/ranking\.yaml:\d+(:\d+)?: rule 'all': unknown model 'nothing'", shown.stderr)
    told = rules_json("diff", broken, old, exit_code=1)
    assert (told["ok"], told["side"]) == (False, "old")
    assert told["findings"][0]["file"] == "objectives/ranking.yaml"
    assert rules("diff", old, old, "--objective", "rankin").exit_code == 2


def test_shares_agree_with_counting_200_000_members(tmp_path: Path) -> None:
    """A layer, its experiment's cells and a split below it, all by one key, and all three changed."""
    splits = {"id": "rest", "split": {"base": 6, "better": 3, "best": 1}}
    cells = {1: {"serve": "base", "weight": 2}, 2: "better", 3: "best"}
    after = EXPERIMENT["experiment"] | {"cells": cells}  # type: ignore[operator]
    old = directory(tmp_path / "old", rules=[EXPERIMENT, splits])
    new = directory(
        tmp_path / "new",
        layers={"home": LAYERS["home"] | {"experiments": {"12345": [[0, 999], [4000, 5999]]}}},
        rules=[EXPERIMENT | {"experiment": after}, splits | {"split": {"base": 2, "better": 3, "best": 5}}],
    )
    contexts = ({"member_id": member, "country": "SE", "version": "1"} for member in MEMBERS)
    found, told = counted(old, new, contexts), diff(old, new)
    shares = flows(told)
    assert found.keys() <= shares.keys()
    for pair, share in shares.items():
        deviation = sqrt(len(MEMBERS) * share * (1 - share))
        assert abs(found[pair] - len(MEMBERS) * share) <= STANDARD_DEVIATIONS * deviation, pair


def test_what_is_not_decided_is_said_with_the_reason_and_a_bound(tmp_path: Path) -> None:
    one, other = ([f"{side}{number}" for number in range(200)] for side in "ab")
    # 200 times 200 ways to meet both conditions are too many to look at one by one.
    both = {"tags": {"contains_any": one}, "any_of": [{"tags": {"contains_any": other}}, {"device": "tv"}]}
    context = {"tags": {"type": "set"}, "device": {"type": "string", "values": ["mobile", "tv"]}}
    context["member_id"] = {"type": "string", "required": True}
    old, new = (
        directory(
            tmp_path / served,
            context=context,
            rules=[{"id": "tagged", "when": both, "serve": served}, {"id": "default", "serve": "base"}],
        )
        for served in ("better", "best")
    )
    told = ranking(diff(old, new))
    assert not told["exact"]
    assert 0 < told["bound"] < 0.05
    assert "drawn at random" in told["undecided"]
    printed = rules("diff", old, new).stdout
    assert "estimated, ± " in printed
    assert told["undecided"] in printed


def many_keys(root: Path, count: int, changed: Mapping[str, Any]) -> Path:
    """So many experiments in a layer of their own each, with a key of its own each, and one rule changed."""
    numbers = range(count)
    experiments = [
        {"id": f"r{each}", "experiment": {"id": f"e{each}", "layer": f"l{each}", "cells": {1: "base"}}}
        for each in numbers
    ]
    experiments[5] |= changed
    return directory(
        root,
        context={f"k{each}": {"type": "string"} for each in numbers},
        sticky_key="k0",
        layers={f"l{each}": {"key": f"k{each}", "experiments": {f"e{each}": [0, 4_999]}} for each in numbers},
        rules=[*experiments, {"id": "default", "serve": "base"}],
    )


def test_layers_of_many_keys_are_compared(tmp_path: Path) -> None:
    old, new = (many_keys(tmp_path / name, 120, {"when": {"k5": name}}) for name in ("a", "b"))
    told = ranking(diff(old, new))
    assert told["exact"] or (0 < told["bound"] < 0.05 and told["undecided"])
    same = rules_json("diff", old, old)
    assert (same["changed"], ranking(same)["moved"], ranking(same)["exact"]) == (False, 0, True)
