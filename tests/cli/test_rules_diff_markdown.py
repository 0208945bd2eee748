"""`tidegate rules diff --markdown`: what moves, for a pull request."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tidegate.analysis.pictures.flows import SHOWN_FLOWS

from tests.cli.diffed import FLEET, directory, with_rules
from tests.cli.rules_runner import rules, rules_json

LINK = re.compile(r"([\w/.-]+|\(all other targets\)|\([\w ]+\)) \(old\),(.+) \(new\),([0-9.]+)")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return directory(tmp_path / "old")


def links(text: str) -> dict[tuple[str, str], float]:
    """The links of the diagram, as shares in percent."""
    diagram = text.split("sankey-beta\n")[1].split("```")[0]
    found = [LINK.fullmatch(line) for line in diagram.splitlines()]
    return {(each[1], each[2]): float(each[3]) for each in found if each is not None} if all(found) else {}


def test_it_has_the_flows_as_a_diagram_and_as_a_table(old: Path, tmp_path: Path) -> None:
    new = directory(
        tmp_path / "new",
        fleet=FLEET | {"aliases": {"base@champion": "best"}},
        rules=with_rules({"parameters": {"top_k": 30}}, {}, {}),
    )
    file = tmp_path / "moves.md"
    done = rules("diff", old, new, "--markdown", file)
    assert done.exit_code == 1
    assert f"{file}: written" in done.stdout
    text = file.read_text("utf-8")
    assert text.startswith("### ranking\n\n63.33 % of the traffic moves, 33.33 % keeps its target with other settings")
    assert links(text) == {
        ("base", "best"): pytest.approx(63.3333),
        ("better", "better"): pytest.approx(36.6667),
    }
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert rows[0] == ["share", "from", "to", "rules", ""]
    assert ["33.33 %", "better", "better"] in [row[:3] for row in rows]
    assert rows[-1][:2] == ["3.33 %", "unchanged"]
    assert sum(float(row[0].rstrip(" %")) for row in rows[2:]) == pytest.approx(100, abs=0.05)


def test_it_stays_readable_with_many_targets_and_says_when_nothing_moves(tmp_path: Path) -> None:
    models = {f"model_{number}": {"shards": ["cpu"]} for number in range(SHOWN_FLOWS + 4)}
    fleet = {"shards": {"cpu": {}}, "models": models}
    split = {model: number + 1 for number, model in enumerate(models)}
    old = directory(tmp_path / "old", fleet=fleet, rules=[{"id": "all", "split": split}])
    turned = dict(zip(split, reversed(split.values()), strict=True))
    new = directory(tmp_path / "new", fleet=fleet, rules=[{"id": "all", "split": turned}])
    file = tmp_path / "moves.md"
    assert rules("diff", old, new, "--markdown", file).exit_code == 1
    found = links(file.read_text("utf-8"))
    assert len(found) == SHOWN_FLOWS + 1
    assert ("(all other targets)", "(all other targets)") in found
    assert sum(found.values()) == pytest.approx(100, abs=0.01)
    assert rules_json("diff", old, old, "--markdown", file)["changed"] is False
    assert file.read_text("utf-8") == "Nothing moves: every request is served as before.\n"
    assert rules("diff", old, old, "--markdown", tmp_path / "no/where.md").exit_code == 2
