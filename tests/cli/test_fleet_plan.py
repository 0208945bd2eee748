"""`tidegate fleet plan`: where models go, what moves, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tidegate.cli import main
from tidegate.rules import compile_directory

OBJECTIVE = "objective: o\nrules: [{id: default, serve: big}]\n"
FLEET = """\
shards:
  alpha: {memory_mb: 100, traffic_per_s: 50}
  beta: {memory_mb: 60}
models:
  big: {shards: auto, traffic_per_s: 20}
  small: {shards: auto, memory_mb: 5}
  late: {shards: [beta]}
steps:
  shared: {memory_mb: 30}
"""


def plan(*arguments: object) -> Result:
    """The outcome of the command; an exception that escapes fails the test."""
    return CliRunner().invoke(main, ["fleet", "plan", *map(str, arguments)], catch_exceptions=False)


def plan_json(*arguments: object, exit_code: int = 0) -> Any:
    result = plan(*arguments, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def write_rules(root: Path, fleet: str = FLEET) -> Path:
    (root / "objectives").mkdir(parents=True)
    (root / "objectives" / "o.yaml").write_text(OBJECTIVE)
    (root / "fleet.yaml").write_text(fleet)
    return root


def add_model(repository: Path, name: str, *sizes_bytes: int, steps: tuple[str, ...] = (), more: str = "") -> None:
    """A model with a file of a size in each version."""
    config = f'name: "{name}"\n{more}\n'
    if steps:
        entries = ", ".join(f'{{ model_name: "{step}" model_version: 1 }}' for step in steps)
        config += f'platform: "ensemble"\nensemble_scheduling {{ step [ {entries} ] }}\n'
    for version, size in enumerate(sizes_bytes, 1):
        folder = repository / name / str(version)
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(bytes(size))
    (repository / name / "config.pbtxt").write_text(config)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return write_rules(tmp_path / "rules")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """`big` and `small` share a step; `big` has one more, of which only the latest version is served."""
    repository = tmp_path / "models"
    add_model(repository, "big", 10, steps=("shared", "scorer"))
    add_model(repository, "small", 10, steps=("shared",))
    add_model(repository, "shared", 3_000_000)
    add_model(repository, "scorer", 40_000_000, 2_000_001)
    return repository


def test_a_plan_from_nothing_says_where_and_why(rules: Path, models: Path) -> None:
    told = plan_json("--rules", rules, "--models", models)
    assert told["placement"] == {"big": ["alpha"], "small": ["alpha"], "late": ["beta"]}
    assert told["reasons"] == {
        "big": "adds 34 MB to alpha",
        "small": "adds 5 MB to alpha (30 MB of its steps are there)",
        "late": "pinned",
    }
    assert [shard["after"] for shard in told["shards"]] == [
        {"memory_mb": 39, "traffic_per_s": 20, "models": 2},
        {"memory_mb": 0, "traffic_per_s": 0, "models": 1},
    ]
    assert (told["ok"], told["fits"], told["moves"]) == (True, True, [])
    assert told["notes"] == [
        "no memory_mb, so that it counts by the size of its files, the least that it takes: big, scorer",
        f"no folder in {models}, so that it counts by what is declared: late",
    ]


def test_every_served_version_counts(rules: Path, models: Path) -> None:
    config = models / "scorer" / "config.pbtxt"
    config.write_text(config.read_text() + "version_policy: { all {} }\n")
    assert plan_json("--rules", rules, "--models", models)["reasons"]["big"] == "adds 74 MB to alpha"


def test_nothing_moves_against_the_bundle_of_the_same_rules(rules: Path, models: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(compile_directory(rules))
    result = plan("--rules", rules, "--current", bundle)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "nothing moves"
    assert plan_json("--rules", rules, "--current", bundle)["moves"] == []
    assert plan_json("--rules", rules, "--current", rules)["moves"] == []


def test_moves_are_told_with_what_is_loaded_and_end_with_1(rules: Path, models: Path, tmp_path: Path) -> None:
    changed = FLEET.replace("alpha: {memory_mb: 100", "alpha: {memory_mb: 34") + "aliases: {}\n"
    later = write_rules(tmp_path / "later", changed.replace("  late: {shards: [beta]}\n", ""))
    told = plan_json("--rules", later, "--models", models, "--current", rules, exit_code=1)
    assert (told["ok"], told["fits"], told["load_mb"]) == (False, True, 35)
    assert told["moves"] == [
        {
            "model": "small",
            "shard": "beta",
            "action": "load",
            "memory_mb": 35,
            "reason": "alpha was 5 MB over its memory",
        },
        {
            "model": "small",
            "shard": "alpha",
            "action": "unload",
            "memory_mb": 5,
            "reason": "alpha was 5 MB over its memory",
        },
        {
            "model": "late",
            "shard": "beta",
            "action": "unload",
            "memory_mb": 0,
            "reason": "the rules do not place it any more",
        },
    ]
    result = plan("--rules", later, "--models", models, "--current", rules)
    assert result.exit_code == 1
    assert "39 → 34" in result.stdout
    assert "alpha was 5 MB over its memory" in result.stdout
    assert result.stdout.splitlines()[-1] == "3 moves, 35 MB to load"


def test_what_does_not_fit_with_its_real_steps_is_told_and_ends_with_1(models: Path, tmp_path: Path) -> None:
    rules = write_rules(tmp_path / "rules", FLEET.replace("memory_mb: 30", "memory_mb: 99"))
    assert plan("--rules", rules).exit_code == 0
    result = plan("--rules", rules, "--models", models)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-2:] == [
        "error: model 'big' needs 103 MB with its steps, and the largest shard has 100: 3 MB are missing; give a shard a memory_mb of at "
        "least 103",
        "error: model 'small' needs 104 MB with its steps, and the largest shard has 100: 4 MB are missing; give a shard a memory_mb of at "
        "least 104",
    ]
    assert result.stdout.splitlines()[-1] == "does not fit: 2 problems"
    assert "Traceback" not in result.output


def test_unsound_rules_and_models_are_told_and_end_with_1(rules: Path, models: Path, tmp_path: Path) -> None:
    broken = write_rules(tmp_path / "broken", FLEET.replace("[beta]", "[gamma]"))
    for arguments in (("--rules", broken), ("--rules", rules, "--current", broken)):
        result = plan(*arguments)
        assert result.exit_code == 1
        assert "fleet.yaml:7:19: model 'late' is placed on the unknown shard 'gamma'" in result.stderr
    assert plan_json("--rules", broken, exit_code=1)["findings"][0]["line"] == 7
    (models / "shared" / "config.pbtxt").write_text("nonsense: 1\n")
    result = plan("--rules", rules, "--models", models)
    assert result.exit_code == 1
    assert "shared/config.pbtxt:1:1" in result.stderr
    add_model(models, "late", 1, steps=("late",))
    (models / "shared" / "config.pbtxt").write_text("")
    assert "an ensemble calls itself: late -> late" in plan("--rules", rules, "--models", models).stderr


def test_a_file_that_is_no_bundle_ends_with_1_and_wrong_usage_with_2(rules: Path, tmp_path: Path) -> None:
    result = plan("--rules", rules, "--current", rules / "fleet.yaml")
    assert (result.exit_code, "not a Tidegate bundle" in result.stderr) == (1, True)
    assert plan().exit_code == 2
    assert plan("--rules", tmp_path / "nowhere").exit_code == 2
    assert plan("--rules", rules, "--current", tmp_path / "nowhere").exit_code == 2
    assert plan("--rules", rules, "--models", rules / "fleet.yaml").exit_code == 2
