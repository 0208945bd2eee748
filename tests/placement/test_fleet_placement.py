"""fleet.yaml's `shards: auto`: what the compiler makes of it, and what it says of an author's mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidegate.errors import RulesError
from tidegate.language.directory import read_directory
from tidegate.rules import Fleet, compile_directory, load_bundle
from tidegate.rules.resolved import resolve_bundle

OBJECTIVE = "objective: o\nrules: [{id: default, serve: pinned}]\n"
FLEET = """\
shards:
  alpha: {memory_mb: 1000, traffic_per_s: 100}
  beta: {memory_mb: 800, traffic_per_s: 100}
models:
  pinned: {shards: [beta], memory_mb: 700}
  wide: {shards: auto, replicas: 2, memory_mb: 50}
  busy: {shards: auto, memory_mb: 10, traffic_per_s: 30}
  ours: {shards: auto, tenant: acme}
  theirs: {shards: [alpha], tenant: globex}
steps:
  tokenizer: {memory_mb: 60}
tenants:
  acme: {apart_from: [globex]}
  globex: {}
aliases: {champion@now: busy}
"""


def write(root: Path, fleet: str) -> Path:
    (root / "objectives").mkdir(parents=True, exist_ok=True)
    (root / "objectives" / "o.yaml").write_text(OBJECTIVE)
    (root / "fleet.yaml").write_text(fleet)
    return root


def compiled(root: Path, fleet: str) -> Fleet:
    return load_bundle(compile_directory(write(root, fleet))).fleet


def test_auto_models_have_concrete_shards_in_the_bundle(tmp_path: Path) -> None:
    assert compiled(tmp_path, FLEET).models == {
        "pinned": ("beta",),
        "wide": ("beta", "alpha"),
        "busy": ("alpha",),
        "ours": ("beta",),
        "theirs": ("alpha",),
    }


def test_equal_fleets_give_equal_bundles_whatever_the_order_of_their_lines(tmp_path: Path) -> None:
    head, *models = FLEET.partition("  pinned:")[0], *FLEET.splitlines(keepends=True)[4:9]
    tail = FLEET.partition("steps:")[2]
    turned = "".join([head, *reversed(models), "steps:", tail])
    assert turned != FLEET
    assert compile_directory(write(tmp_path / "a", FLEET)) == compile_directory(write(tmp_path / "b", turned))


def test_auto_needs_no_sizes_and_spreads_by_number(tmp_path: Path) -> None:
    fleet = "shards: {a: {}, b: {}}\nmodels:\n  pinned: {shards: auto}\n" + "".join(
        f"  m{number}: {{shards: auto}}\n" for number in range(5)
    )
    placed = compiled(tmp_path, fleet).models
    assert sorted(placed.values()) == [("a",)] * 3 + [("b",)] * 3


def test_a_publisher_plans_with_closures_and_from_what_is_live(tmp_path: Path) -> None:
    program, findings = read_directory(write(tmp_path, FLEET))
    assert not findings
    demand = program.world.demand
    assert demand.auto == ("busy", "ours", "wide")
    closures = {"busy": {"busy": 300, "tokenizer": 300, "scorer": 25}, "ours": {"ours": 7, "scorer": 25}}
    items = {item.model: item for item in demand.items(closures)}
    assert (items["busy"].memory_mb, dict(items["busy"].parts)) == (10, {"tokenizer": 60, "scorer": 25})
    assert (items["ours"].memory_mb, dict(items["ours"].parts)) == (7, {"scorer": 25})
    live = {**program.world.fleet.models, "wide": ("alpha", "beta")}
    plan = demand.plan(closures, live)
    assert (plan.problems, plan.moves) == ((), ())
    resolved = resolve_bundle(compile_directory(tmp_path), {"pinned": 1}, {}, plan.placement)
    assert load_bundle(resolved).fleet.models == live


def test_a_fleet_of_pins_alone_is_as_it_was(tmp_path: Path) -> None:
    fleet = "shards: {a: {}, b: {}}\nmodels:\n  pinned: {shards: [b, a], memory_mb: 5000, traffic_per_s: 9.5}\n"
    assert compiled(tmp_path, fleet).models == {"pinned": ("b", "a")}


MISTAKES: dict[str, tuple[str, str, str]] = {
    "auto among pins": (
        "busy: {shards: auto,",
        "busy: {shards: [alpha, auto],",
        "model 'busy' has shards and 'auto' (write shards: auto, or name its shards alone)",
    ),
    "auto misspelt": ("busy: {shards: auto,", "busy: {shards: Auto,", "write auto or a list of"),
    "replicas of pins": (
        "pinned: {shards: [beta],",
        "pinned: {shards: [beta], replicas: 2,",
        "model 'pinned' names its shards and has replicas, which is for the planner",
    ),
    "more replicas than shards": (
        "wide: {shards: auto, replicas: 2",
        "wide: {shards: auto, replicas: 3",
        "model 'wide' asks for 3 shards, and the fleet has 2 (lower its replicas, or add a shard)",
    ),
    "no replica": ("wide: {shards: auto, replicas: 2", "wide: {shards: auto, replicas: 0", "an integer from 1 to 1000"),
    "larger than any shard": (
        "busy: {shards: auto, memory_mb: 10",
        "busy: {shards: auto, memory_mb: 1001",
        "model 'busy' needs 1001 MB, and the largest shard has 1000 (give a shard a memory_mb of at least 1001)",
    ),
    "hotter than a shard": (
        "busy: {shards: auto, memory_mb: 10, traffic_per_s: 30",
        "busy: {shards: auto, memory_mb: 10, replicas: 1, traffic_per_s: 130",
        "model 'busy' expects 130/s, and one shard takes 100/s at most",
    ),
    "no room": (
        "pinned: {shards: [beta], memory_mb: 700",
        "pinned: {shards: [beta], memory_mb: 760",
        "model 'wide' (50 MB with its steps) fits on 1 of 2 shards: beta has 40 of the 50 MB free that it would add",
    ),
    "pins over memory": (
        "pinned: {shards: [beta], memory_mb: 700",
        "pinned: {shards: [beta], memory_mb: 801",
        "the models pinned to shard 'beta' need 801 MB, and it has 800",
    ),
    "fractional memory": ("memory_mb: 700", "memory_mb: 0.5", "an integer from 0 to 1000000000"),
    "unknown tenant": ("tenant: acme", "tenant: acm", "unknown tenant 'acm' (declare it under tenants; did you mean"),
    "apart from an unknown tenant": ("apart_from: [globex]", "apart_from: [globx]", "unknown tenant 'globx'"),
    "apart from itself": ("apart_from: [globex]", "apart_from: acme", "tenant 'acme' cannot be kept apart from itself"),
    "pinned together and apart": (
        "ours: {shards: auto, tenant",
        "ours: {shards: [alpha], tenant",
        "model 'ours' of tenant 'acme' and model 'theirs' of tenant 'globex' are pinned to shard 'alpha'",
    ),
    "step that is a model": ("tokenizer: {memory_mb: 60}", "busy: {memory_mb: 60}", "under models and under steps"),
}

LINES = {"no room": "wide:", "pins over memory": "beta:"}
"""The line that is named where it is not the one that was changed."""


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_told_with_its_line_and_what_would_be_right(case: str, tmp_path: Path) -> None:
    old, new, told = MISTAKES[case]
    assert FLEET.count(old) == 1
    text = FLEET.replace(old, new)
    with pytest.raises(RulesError) as caught:
        compile_directory(write(tmp_path, text))
    place = LINES.get(case, new)
    line = next(number for number, each in enumerate(text.splitlines(), 1) if place in each)
    own = [str(finding) for finding in caught.value.findings if finding.line == line]
    assert any(each.startswith(f"fleet.yaml:{line}:") and told in each for each in own), caught.value.findings


def test_apart_from_everyone(tmp_path: Path) -> None:
    fleet = FLEET.replace("apart_from: [globex]", 'apart_from: "*"').replace("beta: {mem", "gamma: {}\n  beta: {mem")
    assert compiled(tmp_path, fleet).models["ours"] == ("gamma",)
