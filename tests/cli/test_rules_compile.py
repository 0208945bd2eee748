"""`tidegate rules compile`: the bundle decides as its rules say, equal rules give equal bytes, and nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from tidegate.rules import load_bundle

from tests.cli.rules_runner import FLEET, RANKING, RULES, rules, rules_json, write

TIDEGATE = Path(sys.executable).parent / "tidegate"


def compile_rules(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [TIDEGATE, "rules", "compile", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_bundle_decides_as_the_rules_say(tmp_path: Path) -> None:
    file = tmp_path / "rules.bundle"
    done = compile_rules(write(tmp_path / "rules", {}), "-o", file)
    assert (done.returncode, done.stderr) == (0, "")
    data = file.read_bytes()
    engine = load_bundle(data)
    assert done.stdout == f"{file}: {len(data)} bytes, revision {engine.revision}\n"
    assert engine.decide("ranking", {"member_id": "1", "country": "SE"}).target.model == "better"
    assert engine.decide("ranking", {"member_id": "1"}).rule == "default"


def test_the_bundle_can_be_compared_and_replayed(tmp_path: Path) -> None:
    directory, file, log = write(tmp_path / "rules", {}), tmp_path / "rules.bundle", tmp_path / "log.jsonl"
    log.write_text('{"objective": "ranking", "context": {"member_id": "1"}}\n')
    assert rules("compile", directory, "-o", file).exit_code == 0
    assert rules("diff", file, directory).exit_code == 0
    assert rules("replay", file, "--log", log).exit_code == 0


def test_equal_rules_give_equal_bytes_whatever_their_form(tmp_path: Path) -> None:
    written = "# reviewed\n" + RANKING.replace("{id: home, when: {country: SE},", "{when: {country: [SE]}, id: home,")
    one = rules_json("compile", write(tmp_path / "one", {}), "-o", tmp_path / "one.bundle")
    two = rules_json("compile", write(tmp_path / "two", {"objectives/ranking.yaml": written}), "-o", tmp_path / "b")
    assert (tmp_path / "one.bundle").read_bytes() == (tmp_path / "b").read_bytes()
    assert one["revision"] == two["revision"] == load_bundle((tmp_path / "b").read_bytes()).revision
    other = RANKING.replace("better: 10", "better: 11")
    three = rules_json("compile", write(tmp_path / "three", {"objectives/ranking.yaml": other}), "-o", tmp_path / "c")
    assert three["revision"] != one["revision"]


def test_json_names_the_file_its_size_and_the_revision(tmp_path: Path) -> None:
    file = tmp_path / "rules.bundle"
    done = compile_rules(RULES, "-o", file, "--json")
    assert done.returncode == 0
    data = file.read_bytes()
    revision = {"revision": load_bundle(data).revision, "resolution": None}
    assert json.loads(done.stdout) == {"format_version": 1, "file": str(file), "size_bytes": len(data), **revision}


def test_a_bundle_is_replaced_and_rules_with_errors_leave_it(tmp_path: Path) -> None:
    file = tmp_path / "rules.bundle"
    file.write_text("an older one")
    assert rules("compile", write(tmp_path / "rules", {}), "-o", file).exit_code == 0
    before = sha256(file.read_bytes()).digest()
    broken = write(tmp_path / "rules", {"fleet.yaml": FLEET.replace("base@champion: base", "base@champion: bass")})
    done = rules("compile", broken, "-o", file)
    assert done.exit_code == 1
    assert "fleet.yaml:3" in done.stderr
    assert sha256(file.read_bytes()).digest() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{rules}",), "Missing option '-o' / '--output'"),
        (("{rules}", "-o", "{rules}/no/where"), "cannot be written"),
        (("{rules}", "-o", "{rules}/objectives"), "is a directory"),
        (("{rules}/nowhere", "-o", "{rules}/b"), "is neither a directory nor a bundle"),
    ],
)
def test_wrong_usage_is_told(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    directory = write(tmp_path, {})
    result = rules("compile", *(argument.format(rules=directory) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
