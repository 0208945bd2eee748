"""`tidegate rules explain` and `compile`: what an analyst reads, and can recompute."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from tidegate.cli import main
from tidegate.rules import load_bundle

from tests.cli.rules_runner import RULES, rules, rules_json, write

MEMBER = '{"member_id": "17", "country": "US", "device": "tv"}'


def test_every_rule_tells_why_not() -> None:
    result = rules("explain", RULES, "--objective", "title_ranking", "--context", '{"member_id": "42"}')
    assert result.exit_code == 0
    assert "title_ranking → rule default → title_ranking_ease (title_ranking@champion)" in result.stdout
    assert "✗ kids: is_kids: must be true, and it is absent" in result.stdout
    assert "✗ svd-canary: app_version: must be >= 8.2, and it is absent" in result.stdout
    assert "✓ default" in result.stdout


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("hedge_after_ms: 40", "  hedged after 40 ms"),
        ("hedge_at: p95", "  hedged at p95 of the target's latencies"),
        ("fault: {delay_ms: 3, percent: 0.5}", "  fault of synthetic requests: percent 0.5, delay_ms 3"),
    ],
)
def test_hedges_and_faults_are_shown(setting: str, shown: str, tmp_path: Path) -> None:
    (tmp_path / "objectives").mkdir()
    (tmp_path / "fleet.yaml").write_text("{shards: {a: {replicas: 1}}, models: {m: {shards: [a]}}}")
    rule = f"{{id: default, serve: m, {setting}}}"
    (tmp_path / "objectives" / "o.yaml").write_text(
        f"{{objective: o, summary: A test., owner: tests, timeout_ms: 90, context: {{}}, rules: [{rule}]}}"
    )
    result = rules("explain", tmp_path, "--objective", "o", "--context", "{}")
    assert shown in result.stdout.splitlines()


def test_misspelt_attributes_are_named_with_what_they_may_have_meant() -> None:
    context = '{"member_id": "42", "devcie": "secret"}'
    result = rules("explain", RULES, "--objective", "title_ranking", "--context", context)
    assert (result.exit_code, "secret" in result.stdout) == (0, False)
    assert "'devcie'; did you mean 'device'?" in result.stdout
    explained = rules_json("explain", RULES, "--objective", "title_ranking", "--context", context)
    assert explained["ignored"] == [{"name": "devcie", "did_you_mean": "device"}]


def test_the_arithmetic_of_a_split_can_be_recomputed_from_what_is_printed() -> None:
    context = '{"member_id": "4", "app_version": "8.2"}'
    explained = rules_json("explain", RULES, "--objective", "title_ranking", "--context", context)
    draws = explained["draws"]
    assert [draw["weight"] for draw in draws] == [95, 5]
    for draw in draws:
        assert draw["hashed"] == f"title_ranking/svd-canary\x1f{draw['variant']}\x1f4"
        digest = hashlib.sha256(draw["hashed"].encode()).digest()
        assert draw["first_8_bytes"] == digest[:8].hex()
        assert draw["integer"] == int(draw["first_8_bytes"], 16)
        assert draw["u"] == (draw["integer"] + 0.5) / 2**64
        assert draw["score"] == pytest.approx(-math.log(draw["u"]) / draw["weight"])
    winner = min(draws, key=lambda draw: float(draw["score"]))
    assert [draw["won"] for draw in draws] == [draw is winner for draw in draws]
    assert winner["variant"] == explained["decision"]["variant"]

    printed = rules("explain", RULES, "--objective", "title_ranking", "--context", context).stdout
    assert f"{winner['variant']}  ← wins" in printed
    for draw in draws:
        assert f'SHA-256 of "title_ranking/svd-canary␟{draw["variant"]}␟4"' in printed
        assert f"first 8 bytes {draw['first_8_bytes']} = {draw['integer']}; u = {draw['u']!r}" in printed
        assert repr(draw["score"]) in printed


def test_a_layers_bucket_can_be_recomputed_and_shows_who_owns_it() -> None:
    explained = rules_json("explain", RULES, "--objective", "title_ranking", "--context", MEMBER)
    (layer,) = explained["layers"]
    assert layer["hashed"] == "home\x1f17"
    number = int.from_bytes(hashlib.sha256(layer["hashed"].encode()).digest()[:8], "big")
    assert (layer["integer"], layer["bucket"]) == (number, number * 10_000 // 2**64)
    assert layer["ranges"] == {"12345": [[500, 4499]]}
    assert explained["buckets"] == {"home": layer["bucket"]}
    assert [draw["hashed"] for draw in explained["draws"]] == [f"12345\x1f{cell}\x1f17" for cell in (1, 2, 3)]

    printed = rules("explain", RULES, "--objective", "title_ranking", "--context", MEMBER).stdout
    assert 'layer home: SHA-256 of "home␟17"' in printed
    assert f"= bucket {layer['bucket']}" in printed
    assert "experiment 12345: 500–4499  ← this bucket" in printed


def test_a_member_of_the_holdout_is_told_so() -> None:
    context = '{"member_id": "6", "country": "US", "device": "tv"}'
    printed = rules("explain", RULES, "--objective", "title_ranking", "--context", context).stdout
    assert "holdout: 0–499  ← this bucket" in printed
    assert "✗ ab-12345: experiment: bucket" in printed


def test_the_free_buckets_of_a_layer_are_shown(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "layers.yaml": "home: {key: member_id, holdout: [0, 499], experiments: {ab: [[600, 699], [1000, 8999]]}}\n",
        "objectives/ranking.yaml": """
objective: ranking
context: {member_id: {type: string}}
rules:
  - {id: ab, experiment: {id: ab, layer: home, cells: {1: base, 2: better}}}
  - {id: default, serve: base}
""",
    }
    directory = write(tmp_path, files)
    printed = [
        rules("explain", directory, "--objective", "ranking", "--context", f'{{"member_id": "{member}"}}').stdout
        for member in range(20)
    ]
    assert all("  free: 500–599, 700–999, 9000–9999" in each for each in printed)
    assert any("9000–9999  ← this bucket" in each for each in printed)


def test_a_split_without_its_key_says_that_the_first_variant_serves(tmp_path: Path) -> None:
    ranking = """
objective: ranking
context: {member_id: {type: string}}
sticky_key: member_id
rules: [{id: canary, split: {base: 0, better: 1}}]
"""
    directory = write(tmp_path, {"objectives/ranking.yaml": ranking})
    assert "so the first variant serves" in rules("explain", directory, "--objective", "ranking").stdout
    with_key = rules(
        "explain", directory, "--objective", "ranking", "--context", '{"member_id": "a\\u001fb\\n"}'
    ).stdout
    assert "weight 0: cannot win" in with_key
    assert '"ranking/canary␟better␟a␟b\\n"' in with_key


def test_time_windows_follow_at() -> None:
    at = ("explain", RULES, "--objective", "title_search", "--at")
    assert rules_json(*at, "2026-12-24T12:00:00Z")["decision"]["rule"] == "winter-holidays"
    assert rules_json(*at, "2026-12-18T01:00:00+02:00")["decision"]["rule"] == "default"
    assert rules_json(*at, "2026-12-18")["decision"]["rule"] == "winter-holidays"


def test_a_refused_context_names_the_attribute_and_not_its_value() -> None:
    arguments = (
        "explain",
        RULES,
        "--objective",
        "title_ranking",
        "--context",
        '{"member_id": "1", "device": "fridge"}',
    )
    result = rules(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "'device' must be one of mobile, tv, web" in result.stderr
    assert "fridge" not in result.stderr
    assert rules_json(*arguments, exit_code=1)["error"]["attribute"] == "device"


def test_no_rule_is_a_finding_with_its_trace(tmp_path: Path) -> None:
    ranking = (
        "objective: ranking\ncontext: {country: {type: string}}\nrules: [{id: se, when: {country: SE}, serve: base}]\n"
    )
    directory = write(tmp_path, {"objectives/ranking.yaml": ranking})
    result = rules("explain", directory, "--objective", "ranking")
    assert result.exit_code == 1
    assert "no rule matches" in result.stdout
    assert "✗ se: country" in result.stdout


def test_many_rules_are_shortened_but_not_in_json(tmp_path: Path) -> None:
    lines = "".join(f"  - {{id: r{n}, when: {{n: {n}}}, serve: base}}\n" for n in range(200))
    ranking = f"objective: ranking\ncontext: {{n: {{type: integer}}}}\nrules:\n{lines}"
    directory = write(tmp_path, {"objectives/ranking.yaml": ranking})
    arguments = ("explain", directory, "--objective", "ranking", "--context", '{"n": 199}')
    printed = rules(*arguments).stdout
    assert printed.count("✗") == 50
    assert "✓ r199" in printed
    assert len(rules_json(*arguments)["rules"]) == 200


@pytest.mark.parametrize(
    "arguments",
    [
        ("--objective", "title_rankin"),
        ("--objective", "title_ranking", "--context", "{"),
        ("--objective", "title_ranking", "--context", "[1]"),
        ("--objective", "title_ranking", "--context", "[" * 100_000),
        ("--objective", "title_ranking", "--at", "tomorrow"),
        (),
    ],
)
def test_wrong_usage_is_told_apart_from_findings(arguments: tuple[str, ...]) -> None:
    result = rules("explain", RULES, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_an_unknown_objective_has_a_suggestion() -> None:
    assert "did you mean 'title_ranking'?" in rules("explain", RULES, "--objective", "title_rankin").stderr


def test_compile_writes_the_bundle_and_tells_its_revision(tmp_path: Path) -> None:
    file = tmp_path / "rules.bundle"
    told = rules_json("compile", RULES, "-o", file)
    data = file.read_bytes()
    revision = hashlib.sha256(data).hexdigest()
    identity = {"revision": revision, "resolution": None}
    assert told == {"format_version": 1, "file": str(file), "size_bytes": len(data), **identity}
    assert load_bundle(data).revision == told["revision"]
    again = rules("compile", RULES, "-o", tmp_path / "again")
    assert told["revision"] in again.stdout
    assert (tmp_path / "again").read_bytes() == data


def test_compile_writes_nothing_where_the_rules_have_errors(tmp_path: Path) -> None:
    directory = write(tmp_path, {"objectives/ranking.yaml": "objective: ranking\nrules: [{id: a, serve: bse}]\n"})
    file = tmp_path / "bundle"
    told = rules_json("compile", directory, "-o", file, exit_code=1)
    assert [(each["line"], each["rule"]) for each in told["findings"]] == [(2, "a")]
    assert "did you mean 'base'?" in rules("compile", directory, "-o", file).stderr
    assert not file.exists()
    assert rules("compile", RULES, "-o", tmp_path / "nowhere" / "bundle").exit_code == 2


@pytest.mark.parametrize("written", ["@{file}", "-", "@-"])
def test_a_context_comes_from_a_file_or_from_standard_input(written: str, tmp_path: Path) -> None:
    file = tmp_path / "context.json"
    file.write_text(f"\ufeff{MEMBER}\n", encoding="utf-8")
    arguments = ["rules", "explain", str(RULES), "--objective", "title_ranking", "--context"]
    result = CliRunner().invoke(main, [*arguments, written.format(file=file)], input=MEMBER, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stdout == CliRunner().invoke(main, [*arguments, MEMBER]).stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"\xff", "not UTF-8"),
        (b"{", "not JSON"),
        (b"[]", "JSON object"),
        (b'{"member_id": NaN}', "not JSON"),
        (b'{"country": "SE", "allocations": {"ab": 1, "ab": 2}}', "'ab' is duplicated"),
        (b'{"country": "SE"}' + b" " * (17 << 20), "larger than"),
    ],
    ids=str,
)
def test_a_context_file_that_cannot_be_used_is_named(content: bytes | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "context.json"
    if content is not None:
        file.write_bytes(content)
    result = rules("explain", RULES, "--objective", "title_ranking", "--context", f"@{file}")
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr


def test_a_context_is_not_read_from_a_pipe_that_nobody_writes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = rules("explain", RULES, "--objective", "title_ranking", "--context", f"@{tmp_path / 'pipe'}")
    assert (result.exit_code, "named pipe" in result.stderr) == (2, True), result.stderr


def test_a_context_with_a_name_twice_is_refused_as_the_gateway_does() -> None:
    twice = '{"member_id": "1", "member_id": "2"}'
    result = rules("explain", RULES, "--objective", "title_ranking", "--context", twice)
    assert (result.exit_code, "duplicated" in result.stderr) == (2, True), result.stderr
