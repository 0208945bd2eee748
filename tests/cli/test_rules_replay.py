"""`tidegate rules replay`: what it counts, tests, compares and draws."""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import scipy
from tidegate.errors import RequestError
from tidegate.rules import Decision, Engine, compile_directory, load_bundle

from tests.cli.replayed import RANKING, line, write_log, write_rules
from tests.cli.rules_runner import RULES, rules, rules_json

SVG = "{http://www.w3.org/2000/svg}"


def random_line(draw: random.Random) -> str:
    """A request as it may come: some are refused, some match no rule."""
    objective = draw.choice(["ranking", "ranking", "search", "anonymous"])
    member = {"member_id": f"m{draw.randrange(400)}"}
    if objective == "ranking":
        context: dict[str, Any] = {
            **member,
            "country": draw.choice(["US", "SE"]),
            "device": draw.choice(["tv", "web", "fridge"]),
            "age": draw.choice([7, 18, "old"]),
        }
    else:
        context = {**(member if objective == "search" else {}), "mode": draw.choice(["deep", "plain"])}
        if draw.random() < 0.5:
            context["allocations"] = {"outside": draw.choice(["a", "b", "c"])}
    kept = {name: value for name, value in context.items() if draw.random() < 0.9}
    more = draw.choice([{}, {"at": "2026-12-24T12:00:00Z"}, {"at": 1_780_000_000}, {"at": None, "id": 7}])
    return line(objective, kept, **more)


def decided(root: Path, text: str, now: float = 1_780_000_000.0) -> Decision | str:
    record = json.loads(text)
    at = {"2026-12-24T12:00:00Z": 1_798_113_600.0, None: now}.get(record.get("at"), record.get("at"))
    try:
        return load_engine(root).decide(record["objective"], record["context"], at=at)
    except RequestError as error:
        return type(error).__name__


@cache
def load_engine(root: Path) -> Engine:
    return load_bundle(compile_directory(root))


@pytest.fixture(name="log")
def random_log(tmp_path: Path) -> Path:
    draw = random.Random(5)
    return write_log(tmp_path / "log.jsonl", (random_line(draw) for _ in range(4000)))


def members_of(root: Path, log: Path, objective: str, rule: str) -> Counter[str]:
    """The distinct members of each variant of a rule."""
    found: set[tuple[str, str]] = set()
    for text in log.read_text(encoding="utf-8").splitlines():
        record, decision = json.loads(text), decided(root, text)
        if isinstance(decision, Decision) and (decision.objective, decision.rule) == (objective, rule):
            found.add((record["context"].get("member_id"), str(decision.variant)))
    return Counter(variant for member, variant in found if member is not None)


def test_it_counts_what_the_engine_decides(tmp_path: Path, log: Path) -> None:
    root = write_rules(tmp_path / "rules")
    outcomes = [decided(root, text) for text in log.read_text(encoding="utf-8").splitlines()]
    found = rules_json("replay", root, "--log", log, exit_code=1)
    assert (found["format_version"], found["complete"], found["ok"]) == (1, True, False)
    assert found["revision"] == load_engine(root).revision
    assert (found["lines"], found["contexts"]) == (4000, 4000)
    expected = Counter(
        (each.objective, each.rule, each.target.name, each.model, each.version, each.variant, each.cell, each.reason)
        for each in outcomes
        if isinstance(each, Decision)
    )
    keys = ("objective", "rule", "target", "model", "version", "variant", "cell", "reason")
    assert {tuple(each[key] for key in keys): each["requests"] for each in found["decisions"]} == expected
    assert found["decided"] == sum(expected.values())
    failed = Counter(each for each in outcomes if isinstance(each, str))
    kinds: Counter[str] = Counter()
    for error in found["errors"]:
        kinds[error["kind"]] += error["count"]
    assert kinds == {"context": failed["ContextError"], "no_rule": failed["NoRuleError"]}
    for objective in found["objectives"]:
        mine = [each for each in found["decisions"] if each["objective"] == objective["objective"]]
        assert sum(each["requests"] for each in mine) == objective["decided"]
        assert sum(each["share"] for each in mine) == pytest.approx(objective["decided"] / objective["contexts"])


def test_errors_have_their_count_and_first_lines_and_no_value(tmp_path: Path) -> None:
    root = write_rules(tmp_path / "rules")
    good = line("ranking", {"member_id": "SECRET-1"})
    bad = line("ranking", {"member_id": "SECRET-2", "device": "SECRET-3"})
    lines = [good, *[bad] * 7, line("ranking", {"age": 3}), line("search", {"mode": "SECRET-4"}), '{"SECRET-5', good]
    log = write_log(tmp_path / "log.jsonl", [*lines, line("rankign", {}), line("SECRET 6", {})])
    found = rules_json("replay", root, "--log", log, exit_code=1)
    assert [(each["kind"], each["objective"], each["count"], each["first_lines"]) for each in found["errors"]] == [
        ("context", "ranking", 7, [2, 3, 4, 5, 6]),
        ("context", "ranking", 1, [9]),
        ("malformed", None, 1, [11]),
        ("no_rule", "search", 1, [10]),
        ("unknown_objective", None, 1, [13]),
        ("unknown_objective", None, 1, [14]),
    ]
    details = [each["detail"] for each in found["errors"]]
    assert details[0] == "attribute 'device' must be one of tv, web"
    assert "'member_id' is required" in details[1]
    assert details[4] == "the rules have no objective 'rankign'"
    plain = rules("replay", root, "--log", log)
    assert plain.exit_code == 1
    assert "2, 3, 4, 5, 6 …" in plain.stdout
    assert "SECRET" not in plain.output + json.dumps(found)


def test_members_are_counted_once_per_split_and_experiment(tmp_path: Path, log: Path) -> None:
    root = write_rules(tmp_path / "rules")
    found = rules_json("replay", root, "--log", log, exit_code=1)
    by_rule = {(each["objective"], each["rule"]): each for each in found["shares"]}
    assert list(by_rule) == [("anonymous", "ab"), ("ranking", "ab"), ("ranking", "canary"), ("search", "ab")]
    for objective, rule, weights in (("ranking", "ab", [2, 1]), ("ranking", "canary", [80, 20])):
        shares = by_rule[objective, rule]
        expected = members_of(root, log, objective, rule)
        assert shares["unit"] == "members"
        assert {each["variant"]: each["count"] for each in shares["variants"]} == expected
        counts = [each["count"] for each in shares["variants"]]
        for each, weight in zip(shares["variants"], weights, strict=True):
            assert each["configured"] == pytest.approx(weight / sum(weights))
            assert each["actual"] == pytest.approx(each["count"] / sum(counts))
            interval = scipy.stats.binomtest(each["count"], sum(counts)).proportion_ci(0.95, method="wilson")
            assert (each["low"], each["high"]) == pytest.approx((interval.low, interval.high))
            assert each["requests"] >= each["count"]
        test = scipy.stats.chisquare(counts, [sum(counts) * weight / sum(weights) for weight in weights])
        assert shares["test"]["statistic"] == pytest.approx(test.statistic)
        assert shares["test"]["p_value"] == pytest.approx(test.pvalue)
        assert shares["test"]["degrees_of_freedom"] == 1


def fell(root: Path, rule: str, variant: str, count: int, **context: Any) -> list[str]:
    """Members whom a rule of `ranking` gives this variant."""
    decide, found, number = load_engine(root).decide, [], 0
    while len(found) < count:
        number += 1
        decision = decide("ranking", {"member_id": f"m{number}", **context}, at=0.0)
        if (decision.rule, decision.variant) == (rule, variant):
            found.append(f"m{number}")
    return found


def test_lost_members_of_a_variant_are_a_sample_ratio_mismatch(tmp_path: Path) -> None:
    """40 of 160 members of the treatment are missing: chi-square 8.4 at 1 degree passes, and 60 do not."""
    root = write_rules(tmp_path / "rules")
    base = fell(root, "canary", "base@champion", 640, device="tv")
    better = fell(root, "canary", "better", 160, device="tv")
    for missing, exit_code, verdict in ((0, 0, "match"), (40, 0, "match"), (60, 1, "mismatch")):
        kept = base + better[missing:]
        log = write_log(tmp_path / "log.jsonl", (line("ranking", {"member_id": m, "device": "tv"}) for m in kept))
        found = rules_json("replay", root, "--log", log, exit_code=exit_code)
        assert found["shares"][0]["verdict"] == verdict
        assert found["tests"] == {"made": 1, "mismatch_below": 0.001, "mismatches": int(verdict == "mismatch")}
        assert found["ok"] is (exit_code == 0)
    plain = rules("replay", root, "--log", log)
    assert plain.exit_code == 1
    assert "SAMPLE RATIO MISMATCH, chi-square" in plain.stdout
    assert "1 test of shares made, 1 mismatch (p < 0.001)" in plain.stdout


def test_a_member_that_comes_often_is_no_mismatch(tmp_path: Path) -> None:
    root = write_rules(tmp_path / "rules")
    members = fell(root, "canary", "base@champion", 80, device="tv") + fell(root, "canary", "better", 20, device="tv")
    lines = [line("ranking", {"member_id": member, "device": "tv"}) for member in [*members, *members[-1:] * 5000]]
    found = rules_json("replay", root, "--log", write_log(tmp_path / "log.jsonl", lines))
    variants = {each["variant"]: (each["requests"], each["count"]) for each in found["shares"][0]["variants"]}
    assert variants == {"base@champion": (80, 80), "better": (5020, 20)}
    assert found["shares"][0]["test"]["p_value"] == pytest.approx(1.0)


def test_an_allocation_of_the_callers_own_is_tested_against_its_weights(tmp_path: Path) -> None:
    """60 % in the cell of weight 1 of 2. Without a key members cannot be told apart, and requests prove nothing."""
    root = write_rules(tmp_path / "rules")
    lines = [
        line(objective, {"member_id": f"m{number}", "allocations": {"outside": "a" if number % 5 < 3 else "b"}})
        for objective in ("search", "anonymous")
        for number in range(2000)
    ]
    log = write_log(tmp_path / "log.jsonl", lines)
    found = rules_json("replay", root, "--log", log, exit_code=1)
    anonymous, search = found["shares"]
    assert (search["allocate"], search["unit"], search["verdict"]) == ("caller", "members", "mismatch")
    assert (anonymous["unit"], anonymous["verdict"]) == ("requests", "suspect")
    assert found["tests"]["made"] == 1
    alone = rules("replay", root, "--log", log, "--objective", "anonymous")
    assert alone.exit_code == 0
    assert "requests, which are not independent of each other" in alone.stdout


def test_a_cell_of_weight_0_that_is_counted_is_a_mismatch(tmp_path: Path) -> None:
    cells = "cells: {a: base, b: {serve: better, weight: 0}}"
    rule = f"rules: [{{id: ab, experiment: {{id: outside, allocate: caller, {cells}}}}}]\n"
    text = f"objective: search\ncontext: {{member_id: {{type: string}}}}\nsticky_key: member_id\n{rule}"
    root = write_rules(tmp_path / "rules", {"objectives/search.yaml": text})
    log = write_log(tmp_path / "log.jsonl", [line("search", {"member_id": "1"}, allocations={"outside": "b"})])
    shares = rules_json("replay", root, "--log", log, exit_code=1)["shares"][0]
    assert (shares["verdict"], shares["test"]["statistic"], shares["test"]["p_value"]) == ("mismatch", None, 0.0)
    assert "infinite" in rules("replay", root, "--log", log).stdout


def test_too_few_members_are_not_tested_and_it_says_how_many_are_needed(tmp_path: Path) -> None:
    root = write_rules(tmp_path / "rules")
    log = write_log(tmp_path / "log.jsonl", [line("ranking", {"member_id": "1", "device": "tv"})])
    shares = rules_json("replay", root, "--log", log)["shares"][0]
    assert (shares["verdict"], shares["test"]) == ("untested", None)
    assert shares["untested"] == "too few members: 25 are needed"


def test_keyless_requests_are_no_part_of_a_splits_shares(tmp_path: Path) -> None:
    text = RANKING.replace(", required: true", "")
    root = write_rules(tmp_path / "rules", {"objectives/ranking.yaml": text})
    contexts = [{"device": "tv"}, {"device": "tv", "member_id": ""}]
    log = write_log(tmp_path / "log.jsonl", [line("ranking", context) for context in contexts] * 50)
    found = rules_json("replay", root, "--log", log)
    assert [(each["rule"], each["reason"]) for each in found["decisions"]] == [("canary", "no_sticky_key")]
    assert found["shares"] == []


# Time.


def test_a_context_is_decided_at_its_own_time_and_at_says_otherwise(tmp_path: Path) -> None:
    root = write_rules(tmp_path / "rules")
    inside = [
        "2026-12-24T12:00:00Z",
        "2026-12-18T01:00:00+01:00",
        "2027-01-06T23:59:59.999",
        1_798_113_600,
        1.8e9 - 2e6,
    ]
    outside = ["2026-12-17T23:59:59Z", "2027-01-07", 0, -1.5]
    lines = [line("ranking", {"member_id": "1", "age": 20}, at=at) for at in [*inside, *outside]]
    log = write_log(tmp_path / "log.jsonl", lines)

    def reached(*options: str) -> dict[str, int]:
        found = rules_json("replay", root, "--log", log, *options)
        return {each["rule"]: each["requests"] for each in found["decisions"]}

    assert reached() == {"holidays": len(inside), "adults": len(outside)}
    assert reached("--at", "2026-12-24T00:00:00Z") == {"holidays": 9}
    assert reached("--at", "2026-12-01") == {"adults": 9}


# Against another revision.


def test_against_counts_every_flow(tmp_path: Path, log: Path) -> None:
    changed = RANKING.replace("base@champion: 80, better: 20", "base@champion: 50, better: 50")
    changed = changed.replace("serve: better}\n", "serve: better, parameters: {top_k: 3}}\n", 1).replace(
        "tv, web]", "tv]"
    )
    old, new = write_rules(tmp_path / "old"), write_rules(tmp_path / "new", {"objectives/ranking.yaml": changed})
    (old / "objectives/anonymous.yaml").unlink()
    words = {"ContextError": "(refused)", "NoRuleError": "(no rule)", "UnknownObjectiveError": "(no objective)"}

    def target(outcome: Decision | str) -> str:
        if isinstance(outcome, str):
            return words[outcome]
        return outcome.model if outcome.version is None else f"{outcome.model}/{outcome.version}"

    expected: Counter[tuple[str, str, str, bool]] = Counter()
    for text in log.read_text(encoding="utf-8").splitlines():
        was, now = decided(old, text), decided(new, text)
        retuned = isinstance(was, Decision) and isinstance(now, Decision) and was.parameters != now.parameters
        same = target(was) == target(now)
        expected[json.loads(text)["objective"], target(was), target(now), same and retuned] += 1
    found = rules_json("replay", new, "--log", log, "--against", old, exit_code=1)["against"]
    assert found["revision"] == load_engine(old).revision
    flows = {
        (each["objective"], flow["from"], flow["to"], flow["retuned"]): flow["contexts"]
        for each in found["objectives"]
        for flow in each["flows"]
    }
    assert flows == expected
    moved = sum(count for (_, was, now, _), count in expected.items() if was != now)
    assert (found["contexts"], found["moved"]) == (4000, moved)
    assert found["moved_share"] == pytest.approx(moved / 4000)
    assert found["retuned"] == sum(count for (*_, retuned), count in expected.items() if retuned) > 0
    for each in found["objectives"]:
        assert sum(flow["share"] for flow in each["flows"]) == pytest.approx(1.0)


def test_against_itself_nothing_moves_and_a_bundle_will_do(tmp_path: Path, log: Path) -> None:
    root = write_rules(tmp_path / "rules")
    bundle = tmp_path / "bundle"
    assert rules("compile", root, "-o", bundle).exit_code == 0
    found = rules_json("replay", bundle, "--log", log, "--against", root, exit_code=1)
    assert (found["against"]["contexts"], found["against"]["moved"], found["against"]["retuned"]) == (4000, 0, 0)
    plain = rules("replay", root, "--log", log, "--against", bundle)
    assert re.search(r"^0.00 % move, 0 of [\d,]+ contexts, from revision", plain.stdout, re.MULTILINE)


# One objective.


def test_one_objective_alone(tmp_path: Path, log: Path) -> None:
    root = write_rules(tmp_path / "rules")
    whole = rules_json("replay", root, "--log", log, exit_code=1)
    found = rules_json("replay", root, "--log", log, "--objective", "search", exit_code=1)
    assert found["decisions"] == [each for each in whole["decisions"] if each["objective"] == "search"]
    assert found["skipped"] + found["contexts"] == 4000


def test_rules_that_no_context_reached_are_listed(tmp_path: Path) -> None:
    root = write_rules(tmp_path / "rules")
    log = write_log(tmp_path / "log.jsonl", [line("ranking", {"member_id": "1"})])
    found = rules_json("replay", root, "--log", log)
    assert found["objectives"] == [
        {
            "objective": "ranking",
            "contexts": 1,
            "decided": 1,
            "rules": 5,
            "unreached_rules": ["holidays", "adults", "ab", "canary"],
        }
    ]
    assert "no context reached 4 of 5 rules: holidays, adults, ab, canary" in rules("replay", root, "--log", log).stdout


# Plots.


def drawn(file: Path) -> ET.Element:
    root = ET.fromstring(file.read_text(encoding="utf-8"))
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    return root


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_the_plot_shows_counted_and_configured_shares_to_scale(tmp_path: Path) -> None:
    root = write_rules(tmp_path / "rules")
    members = fell(root, "canary", "base@champion", 70, device="tv") + fell(root, "canary", "better", 30, device="tv")
    log = write_log(tmp_path / "log.jsonl", (line("ranking", {"member_id": m, "device": "tv"}) for m in members))
    file = tmp_path / "shares.svg"
    assert rules("replay", root, "--log", log, "--svg", file).exit_code == 0
    picture = drawn(file)
    shown = texts(picture)
    for text in ("ranking · canary", "base@champion", "70.00 %", "80.00 %", "30.00 %", "20.00 %"):
        assert text in shown
    reach = float(next(text for text in shown if text.endswith("points")).removesuffix(" points"))
    bars = [
        each for each in picture.iter(f"{SVG}rect") if each.get("class") in ("c0", "c1") and each.get("height") == "14"
    ]
    assert [float(bar.get("width", "")) / 300 for bar in bars] == pytest.approx([0.7, 0.3])
    lines = [
        tuple(float(each.get(key, "")) for key in ("x1", "y1", "x2", "y2"))
        for each in picture.iter(f"{SVG}line")
        if each.get("class") == "ink"
    ]
    whiskers = [each for each in lines if each[1] == each[3]]
    interval = scipy.stats.binomtest(70, 100).proportion_ci(0.95, method="wilson")
    ends = [(x - 836) / 120 * reach for x in (whiskers[0][0], whiskers[0][2])]
    assert ends == pytest.approx([100 * (interval.low - 0.8), 100 * (interval.high - 0.8)], abs=0.01 * reach)


def test_plots_are_one_file_for_each_split_and_experiment(tmp_path: Path, log: Path) -> None:
    root, folder = write_rules(tmp_path / "rules"), tmp_path / "plots" / "here"
    result = rules("replay", root, "--log", log, "--plots", folder)
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.svg"))
    assert files == ["anonymous/ab.svg", "ranking/ab.svg", "ranking/canary.svg", "search/ab.svg"]
    assert "ranking · canary" in texts(drawn(folder / "ranking/canary.svg"))
    assert f"{folder / 'ranking/canary.svg'}: written" in result.stdout


def test_a_plot_of_nothing_says_so(tmp_path: Path) -> None:
    root = write_rules(tmp_path / "rules")
    log = write_log(tmp_path / "log.jsonl", [line("ranking", {"member_id": "1"})])
    assert rules("replay", root, "--log", log, "--svg", tmp_path / "x.svg").exit_code == 0
    assert "No context of the log reached a split or an experiment." in texts(drawn(tmp_path / "x.svg"))


# Wrong usage.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--log", "missing.jsonl"], "missing.jsonl"),
        (["--log", "."], "directory"),
        ([], "--log"),
        (["--log", "LOG", "--at", "soon"], "ISO 8601"),
        (["--log", "LOG", "--objective", "rankign"], "did you mean"),
        (["--log", "LOG", "--svg", "no/such/folder/x.svg"], "cannot be written"),
        (["--log", "LOG", "--plots", "LOG/plots"], "cannot be written"),
        (["--log", "LOG", "--against", "nowhere"], "nowhere"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], words: str, tmp_path: Path) -> None:
    root = write_rules(tmp_path / "rules")
    log = write_log(tmp_path / "log.jsonl", [line("ranking", {"member_id": "1", "device": "tv"})])
    result = rules("replay", root, *(argument.replace("LOG", str(log)) for argument in arguments))
    assert result.exit_code == 2
    assert words in result.stderr
    assert ("cannot be written" in words) == bool(result.stdout), "a long replay is not lost for a plot"


def test_rules_with_findings_are_exit_code_1_and_what_is_no_rules_is_wrong_usage(tmp_path: Path) -> None:
    root = write_rules(tmp_path / "rules")
    log = write_log(tmp_path / "log.jsonl", [line("ranking", {"member_id": "1"})])
    (tmp_path / "bundle").write_bytes(b"no bundle\n")
    damaged = rules("replay", tmp_path / "bundle", "--log", log)
    assert (damaged.exit_code, "not a Tidegate bundle" in damaged.stderr) == (2, True)
    broken = write_rules(tmp_path / "broken", {"objectives/search.yaml": "objective: search\nrules: []\n"})
    for arguments in ((broken,), (root, "--against", broken)):
        result = rules("replay", *arguments, "--log", log)
        assert result.exit_code == 1
        assert "objectives/search.yaml:2" in result.stderr


def test_rules_may_come_from_a_git_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rules(tmp_path / "rules")
    log = write_log(tmp_path / "log.jsonl", [line("ranking", {"member_id": "1", "device": "tv"})])
    monkeypatch.chdir(tmp_path)
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    for command in (("init", "-q"), ("add", "rules"), (*who, "commit", "-q", "-m", "rules")):
        subprocess.run(["git", *command], check=True)
    told = rules_json("replay", "HEAD:rules", "--log", log, "--against", "rules")
    assert told["decided"] == 1
    assert rules("replay", "HEAD:elsewhere", "--log", log).exit_code == 2


def test_the_example_rules_replay(tmp_path: Path) -> None:
    context = {"member_id": "42", "country": "US", "device": "tv", "app_version": "8.2", "is_kids": False}
    log = write_log(tmp_path / "log.jsonl", [line("title_ranking", context)])
    assert rules_json("replay", RULES, "--log", log)["decided"] == 1
