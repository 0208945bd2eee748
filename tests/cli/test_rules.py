"""`tidegate rules check | explain | compile` as an author uses them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tidegate.rules import compile_directory, load_bundle

ROOT = Path(__file__).parents[2]
RULES = ROOT / "routing_rules"


def tidegate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tidegate.cli", "rules", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    (tmp_path / "objectives").mkdir()
    (tmp_path / "fleet.yaml").write_text("shards: {alpha: {}}\nmodels:\n  ranker: {shards: [alpah]}\n")
    (tmp_path / "objectives/o.yaml").write_text(
        "objective: o\nrules:\n  - id: first\n    serve: rankr\n  - id: second\n    serv: ranker\n"
    )
    return tmp_path


def test_check_says_what_it_found_and_which_revision_it_is() -> None:
    done = tidegate("check", str(RULES), "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ok"], answer["findings"]) == (0, True, [])
    assert answer["revision"] == load_bundle(compile_directory(RULES)).revision


def test_check_names_every_error_in_one_run_and_exits_with_1(broken: Path) -> None:
    done = tidegate("check", str(broken))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for told in (
        "fleet.yaml:3",
        "'alpah'",
        "'alpha'",
        "objectives/o.yaml:4",
        "'first'",
        "'ranker'",
        "o.yaml:6",
        "'serve'",
    ):
        assert told in done.stderr, told


def test_check_gives_its_findings_as_json(broken: Path) -> None:
    done = tidegate("check", str(broken), "--json")
    findings = json.loads(done.stdout)["findings"]
    assert done.returncode == 1
    assert {(finding["file"], finding["line"], finding["rule"]) for finding in findings} == {
        ("fleet.yaml", 3, ""),
        ("objectives/o.yaml", 4, "first"),
        ("objectives/o.yaml", 6, "second"),
    }
    assert all(finding["message"] and finding["hint"] for finding in findings)


def test_explain_says_why_each_rule_matches_or_not() -> None:
    context = json.dumps({"member_id": "4", "app_version": "9.0"})
    done = tidegate("explain", str(RULES), "--objective", "title_ranking", "--context", context)
    assert done.returncode == 0, done.stderr
    assert "rule svd-canary → title_ranking_svd" in done.stdout
    assert "✗ kids: is_kids: must be true, and it is absent" in done.stdout
    assert "title_ranking@champion: weight 95" in done.stdout


def test_explain_takes_the_time_of_the_request() -> None:
    arguments = ("explain", str(RULES), "--objective", "title_search", "--json", "--at")
    inside = json.loads(tidegate(*arguments, "2026-12-24T12:00:00Z").stdout)
    after = json.loads(tidegate(*arguments, "2027-02-01").stdout)
    assert (inside["decision"]["rule"], after["decision"]["rule"]) == ("winter-holidays", "default")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--objective", "title_ranking", "--context", "{}"), 1, "'member_id' is required"),
        (("--objective", "nothing"), 1, "unknown objective 'nothing'"),
        (("--objective", "title_ranking", "--context", "{"), 2, "not JSON"),
        (("--objective", "title_ranking", "--context", "[]"), 2, "JSON object"),
        (("--objective", "title_search", "--at", "noon"), 2, "ISO 8601"),
        ((), 2, "--objective"),
    ],
)
def test_explain_refuses_with_an_error_that_says_what_is_wrong(
    arguments: tuple[str, ...], code: int, told: str
) -> None:
    done = tidegate("explain", str(RULES), *arguments)
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_compile_writes_a_bundle_that_loads(tmp_path: Path) -> None:
    done = tidegate("compile", str(RULES), "-o", str(tmp_path / "bundle"), "--json")
    answer = json.loads(done.stdout)
    data = (tmp_path / "bundle").read_bytes()
    assert (answer["size_bytes"], answer["revision"]) == (len(data), load_bundle(data).revision)
    assert data == compile_directory(RULES)
