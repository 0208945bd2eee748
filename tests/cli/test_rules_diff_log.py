"""`tidegate rules diff --log`: contexts weigh as a recorded log has them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.diffed import RANKING, counted, diff, directory, flows, ranking, with_rules
from tests.cli.rules_runner import rules


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return directory(tmp_path / "old")


def write_log(file: Path, contexts: Iterator[dict[str, Any]]) -> Path:
    text = "".join(json.dumps({"objective": "ranking", "context": context}) + "\n" for context in contexts)
    file.write_bytes(gzip.compress(text.encode(), 1) if file.suffix == ".gz" else text.encode())
    return file


def logged(count: int) -> Iterator[dict[str, Any]]:
    """Contexts of every kind, some of which one of the revisions refuses."""
    for number in range(count):
        context: dict[str, Any] = {
            "member_id": f"member-{number * 7919 % 1009}",
            "country": ["US", "US", "SE", "CA", "XX"][number % 5],
            "version": ["8.1", "8.2", "9.0-beta"][number % 3],
        }
        if number % 4:
            context["device"] = ["tv", "mobile", None][number % 7 % 3]
        yield context


def test_a_log_weighs_contexts_as_both_engines_count_them(old: Path, tmp_path: Path) -> None:
    """Without splits nothing is left to the hash, so that the shares are the counts."""
    plain = with_rules({}, {"split": None, "serve": "best"}, {})
    context = RANKING["context"] | {"device": {"type": "string", "values": ["mobile", "tv"], "required": True}}
    edited = with_rules(
        {"when": {"country": ["SE", "CA"], "version": {"gt": "8.1"}}}, {"split": None, "serve": "best"}, {}
    )
    old = directory(tmp_path / "plain", rules=plain)
    new = directory(tmp_path / "new", rules=edited, context=context)
    log = write_log(tmp_path / "log.jsonl.gz", logged(5000))
    told = diff(old, new, "--log", log)
    found = counted(old, new, logged(5000))
    assert {pair: round(share * 5000, 6) for pair, share in flows(told).items()} == dict(found)
    assert (told["weighting"], ranking(told)["contexts"], ranking(told)["exact"]) == ("log", 5000, True)
    assert {"(refused)"} < {target for pair in found for target in pair}


def test_a_log_is_weighed_exactly_over_all_members(old: Path, tmp_path: Path) -> None:
    new = directory(tmp_path / "new", rules=with_rules({}, {"split": {"base@champion": 50, "better": 50}}, {}))
    contexts = [{"member_id": "one", "country": "US", "version": version} for version in ("8.2", "8.3", "7", "6")]
    told = diff(old, new, "--log", write_log(tmp_path / "log.jsonl", iter(contexts)))
    assert ranking(told)["moved"] == pytest.approx(2 / 4 * 0.4)
    shown = rules("diff", old, new, "--log", tmp_path / "log.jsonl").stdout
    assert "ranking: 20.00 % of the traffic moves (exact; over 4 contexts of the log)" in shown


def test_a_logged_empty_key_gets_what_an_absent_one_gets(old: Path, tmp_path: Path) -> None:
    context = RANKING["context"] | {"member_id": {"type": "string"}}
    old = directory(tmp_path / "keyless", context=context)
    new = directory(
        tmp_path / "new", rules=with_rules({}, {"split": {"better": 40, "base@champion": 60}}, {}), context=context
    )
    contexts = [{"member_id": "", "country": "US", "version": "8.2"}, {"country": "US", "version": "8.2"}]
    for each in contexts:
        told = diff(old, new, "--log", write_log(tmp_path / "log.jsonl", iter([each])))
        assert flows(told) == {pair: float(share) for pair, share in counted(old, new, [each]).items()}


def test_lines_that_are_no_context_are_told_and_left_out(old: Path, tmp_path: Path) -> None:
    new = directory(tmp_path / "new", owner="search")
    good = json.dumps({"objective": "ranking", "context": {"member_id": "1", "country": "US", "version": "1"}})
    lines = [good, "{", json.dumps({"objective": "search", "context": {}}), "[]", "", good]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(lines), "utf-8")
    told = diff(old, new, "--log", log)
    assert ranking(told)["contexts"] == 2
    assert sorted((each["reason"], each["first_lines"]) for each in told["skipped"]) == [
        ("not JSON", [2]),
        ("not a JSON object", [4]),
        ("of no objective that is compared", [3]),
    ]
    log.write_text("\n".join(lines[1:4]), "utf-8")
    refused = rules("diff", old, new, "--log", log)
    assert refused.exit_code == 2
    assert "no line of" in refused.stderr
    assert "not JSON" in refused.stderr
    (new / "objectives/search.yaml").write_text("objective: search\nrules: [{id: all, serve: best}]\n", "utf-8")
    log.write_text(good, "utf-8")
    assert diff(old, new, "--log", log)["unseen"] == ["search"]
