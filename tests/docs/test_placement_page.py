"""The fleet, the commands and the Python of docs/placement.md do what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidegate.language.directory import read_directory

from tests.docs.blocks import ROOT, Block, blocks
from tests.support.commands import typed

PAGE = blocks("docs/placement.md")
COMMANDS = [
    line.removeprefix("$ ")
    for block in PAGE
    if block.language == "console"
    for line in block.text.splitlines()
    if line.startswith("$ ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_succeeds(command: str) -> None:
    done = typed(command)
    assert done.returncode == 0, done.stderr
    assert "title_ranking_svd" in done.stdout or "nothing moves" in done.stdout


@pytest.mark.parametrize("block", [block for block in PAGE if block.language == "python"], ids=str)
def test_the_pages_python_runs(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(block.text, str(block), "exec"), {"__name__": "page"})


def test_the_pages_fleet_is_placed_as_its_comments_say(tmp_path: Path) -> None:
    (fleet,) = (block.text for block in PAGE if block.language == "yaml")
    (tmp_path / "fleet.yaml").write_text(fleet, encoding="utf-8")
    (tmp_path / "objectives").mkdir()
    (tmp_path / "objectives/o.yaml").write_text("objective: o\nrules: [{id: default, serve: ranking_v1}]\n")
    program, findings = read_directory(tmp_path)
    assert findings == []
    steps = {"ranking_features": 0, "ranking_scorer": 0}
    closures = {model: {model: 0} | steps for model in ("ranking_v1", "ranking_v2", "ranking_v3")}
    plan = program.world.demand.plan(closures)
    assert not plan.problems
    assert (plan.placement["ranking_v1"], len(plan.placement["ranking_v2"])) == (("alpha", "beta"), 2)
    alone = plan.placement["propensity"]
    assert not any(set(alone) & set(shards) for model, shards in plan.placement.items() if model != "propensity")


def test_the_pages_example_of_what_does_not_fit_is_what_the_planner_says(tmp_path: Path) -> None:
    from tidegate.placement import PlacementItem, ShardCapacity, plan_placement

    told, together = (block.text for block in PAGE if block.language == "text")
    items = [PlacementItem("pinned", 1300, pins=("gamma",)), PlacementItem("similar", 900, replicas=2)]
    (problem,) = plan_placement(items, [ShardCapacity("alpha", 4000), ShardCapacity("gamma", 2000)]).problems
    assert str(problem) == " ".join(told.split())
    many = [PlacementItem(f"m{number:04}", 1, 1) for number in range(1_700)] + [PlacementItem("hog", 1, 900)]
    (problem,) = plan_placement(many, [ShardCapacity(name, 10_000, 500) for name in "ab"]).problems
    assert problem.message == " ".join(together.split())
