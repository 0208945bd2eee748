"""The planner of placements: what always holds, whatever the fleet; and what it says and does in cases worked out by hand.

`problems_of` judges a placement by itself, with sets and sums, and shares no code with the planner.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tidegate.placement import (
    EVERYONE,
    PlacementItem,
    PlacementPlan,
    ShardCapacity,
    plan_placement,
)

Placement = Mapping[str, Sequence[str]]
Apart = Collection[tuple[str, str]]
Fleet = tuple[list[PlacementItem], list[ShardCapacity], list[tuple[str, str]]]

TENANTS = ("acme", "globex", "initech")
STEPS = {"tokenizer": 10, "history": 40, "encoder": 90, "topk": 5}


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """Items, shards, and tenants that are kept apart; most fit, some do not."""
    limit = st.none() | st.integers(60, 400)
    traffic = st.none() | st.integers(20, 300)
    shards = [ShardCapacity(f"s{number}", draw(limit), draw(traffic)) for number in range(draw(st.integers(1, 4)))]
    names = [shard.name for shard in shards]
    items = []
    for number in range(draw(st.integers(0, 9))):
        parts = draw(st.lists(st.sampled_from(sorted(STEPS)), unique=True, max_size=3))
        pins = draw(st.just([]) | st.just([]) | st.lists(st.sampled_from(names), unique=True, max_size=2))
        items.append(
            PlacementItem(
                f"m{number}",
                draw(st.integers(0, 80)),
                draw(st.sampled_from([0, 0, 0.5, 7, 30, 90])),
                draw(st.none() | st.integers(1, len(shards))),
                draw(st.none() | st.sampled_from(TENANTS)),
                tuple(pins),
                {part: STEPS[part] for part in parts},
            )
        )
    pairs = st.tuples(st.sampled_from(TENANTS), st.sampled_from([*TENANTS, EVERYONE])).filter(lambda p: p[0] != p[1])
    return items, shards, draw(st.lists(pairs, max_size=2))


def held(items: Sequence[PlacementItem], placement: Placement, shard: str) -> dict[str, int]:
    """The memory of every part on a shard, once each."""
    parts: dict[str, int] = {}
    for item in items:
        if shard in placement.get(item.model, ()):
            parts |= {**item.parts, item.model: item.memory_mb}
    return parts


def sent(items: Sequence[PlacementItem], shards: Sequence[ShardCapacity], placement: Placement) -> dict[str, float]:
    """The traffic of every shard: a model's first takes what it can, the next what is left."""
    limits = {shard.name: shard.traffic_per_s for shard in shards}
    found = dict.fromkeys(limits, 0.0)
    for item in items:
        left = item.traffic_per_s
        on = placement.get(item.model, ())
        for shard in on:
            limit = limits[shard]
            taken = left if limit is None or shard == on[-1] else min(left, limit)
            found[shard] += taken
            left -= taken
    return found


def are_apart(apart: Apart, one: str | None, other: str | None) -> bool:
    pairs = {frozenset(pair) for pair in apart}
    if one == other:
        return False
    return any(
        frozenset(pair) in pairs for pair in ((one, other), (one, EVERYONE), (other, EVERYONE)) if None not in pair
    )


def problems_of(
    items: Sequence[PlacementItem], shards: Sequence[ShardCapacity], apart: Apart, placement: Placement
) -> list[str]:
    """What is wrong with a placement."""
    wrong = []
    traffic = sent(items, shards, placement)
    for shard in shards:
        memory = sum(held(items, placement, shard.name).values())
        if shard.memory_mb is not None and memory > shard.memory_mb:
            wrong.append(f"{shard.name}: {memory} MB")
        if shard.traffic_per_s is not None and traffic[shard.name] > shard.traffic_per_s + 1e-6:
            wrong.append(f"{shard.name}: {traffic[shard.name]}/s")
        tenants = {item.tenant for item in items if shard.name in placement.get(item.model, ())}
        if any(are_apart(apart, one, other) for one in tenants for other in tenants):
            wrong.append(f"{shard.name}: tenants {tenants}")
    for item in items:
        on = tuple(placement.get(item.model, ()))
        if len(set(on)) != len(on) or (item.pins and on != item.pins):
            wrong.append(f"{item.model}: on {on}, pinned to {item.pins}")
        if not item.pins and len(on) < (item.replicas or 1):
            wrong.append(f"{item.model}: on {on} of {item.replicas}")
    return wrong


def subjects(items: Sequence[PlacementItem], fleet: Fleet, placement: Placement) -> set[str]:
    """The shards and models that something is wrong with."""
    return {text.partition(":")[0] for text in problems_of(items, *fleet[1:], placement)}


def shuffled(plan: PlacementPlan) -> dict[str, tuple[str, ...]]:
    """Its placement, in another order of models."""
    return dict(random.Random(3).sample(sorted(plan.placement.items()), len(plan.placement)))


@settings(deadline=None)
@given(fleets())
@example(
    (
        [PlacementItem("m0", traffic_per_s=30, parts={"encoder": 90})],
        [ShardCapacity("s0"), ShardCapacity("s1", memory_mb=60, traffic_per_s=20)],
        [],
    )
)
@example(
    ([PlacementItem("m0", traffic_per_s=90)], [ShardCapacity(name, traffic_per_s=20) for name in ("s0", "s1")], [])
)
def test_a_plan_without_problems_keeps_every_limit_and_one_with_problems_has_a_cause(fleet: Fleet) -> None:
    items, shards, apart = fleet
    plan = plan_placement(items, shards, apart=apart)
    wrong = problems_of(items, shards, apart, plan.placement)
    assert bool(plan.problems) == bool(wrong), (plan.problems, wrong)
    if plan.problems:
        # What does not fit is left out, so that nothing but pins is ever wrong on a shard.
        short = {model for problem in plan.problems if not problem.shard for model in (problem.model, *problem.also)}
        whole = {model: on for model, on in plan.placement.items() if model not in short}
        pinned = {item.model: item.pins for item in items if item.pins}
        names = {shard.name for shard in shards}
        assert names & subjects(items, fleet, whole) <= names & subjects(items, fleet, pinned)


@settings(deadline=None)
@given(fleets())
def test_planning_again_from_a_plan_moves_nothing(fleet: Fleet) -> None:
    items, shards, apart = fleet
    plan = plan_placement(items, shards, apart=apart)
    assume(not plan.problems)
    again = plan_placement(items, shards, shuffled(plan), apart)
    assert again.moves == ()
    assert again.placement == plan.placement
    assert {decision.reason for decision in again.decisions} <= {"stays", "pinned"}


@settings(deadline=None)
@given(fleets(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(fleet: Fleet, draw: random.Random) -> None:
    items, shards, apart = fleet
    plan = plan_placement(items, shards, apart=apart)
    draw.shuffle(items)
    draw.shuffle(shards)
    items = [replace(item, parts=dict(sorted(item.parts.items(), reverse=True))) for item in items]
    assert plan_placement(items, shards, apart=[pair[::-1] for pair in reversed(apart)]) == plan


@settings(deadline=None)
@given(fleets(), st.data())
def test_a_new_model_moves_no_other_where_it_fits(fleet: Fleet, data: st.DataObject) -> None:
    items, shards, apart = fleet
    items = [replace(item, replicas=item.replicas or 1) for item in items if not item.pins]
    assume(items)
    new = data.draw(st.sampled_from(items))
    new = replace(new, replicas=1)
    others = [item for item in items if item is not new and item.model != new.model]
    before = plan_placement(others, shards, apart=apart)
    assume(not before.problems)
    room = [
        shard.name
        for shard in shards
        if not problems_of([*others, new], shards, apart, {**before.placement, new.model: (shard.name,)})
    ]
    after = plan_placement([*others, new], shards, before.placement, apart)
    if room:
        assert {move.model for move in after.moves} == {new.model}
        assert after.placement == {**before.placement, new.model: after.placement[new.model]}


@settings(deadline=None)
@given(fleets(), st.data())
def test_what_goes_moves_nothing_that_stays(fleet: Fleet, data: st.DataObject) -> None:
    items, shards, apart = fleet
    plan = plan_placement(items, shards, apart=apart)
    assume(items and not plan.problems)
    gone = data.draw(st.sampled_from(items))
    after = plan_placement([item for item in items if item is not gone], shards, plan.placement, apart)
    assert {(move.model, move.action) for move in after.moves} == {(gone.model, "unload")}


@settings(deadline=None)
@given(fleets(), st.data())
def test_from_any_placement_it_comes_to_a_sound_one_and_its_moves_lead_there(fleet: Fleet, data: st.DataObject) -> None:
    items, shards, apart = fleet
    names = [*(shard.name for shard in shards), "gone"]
    current = {
        item.model: tuple(data.draw(st.lists(st.sampled_from(names), unique=True, max_size=3))) for item in items
    }
    plan = plan_placement(items, shards, current, apart)
    wrong = problems_of(items, shards, apart, plan.placement)
    assert bool(plan.problems) == bool(wrong), (plan.problems, wrong)
    reached = {model: set(on) for model, on in current.items()}
    for move in plan.moves:
        if move.action == "load":
            reached[move.model].add(move.shard)
        elif move.action == "unload":
            reached[move.model].remove(move.shard)
    assert {model: on for model, on in reached.items() if on} == {
        model: set(on) for model, on in plan.placement.items()
    }
    for shard in plan.shards:
        name = shard.capacity.name
        parts, were = held(items, plan.placement, name), held(items, current, name)
        assert (shard.before.memory_mb, shard.after.memory_mb) == (sum(were.values()), sum(parts.values()))
        loads = [move.memory_mb for move in plan.moves if move.shard == name and move.action == "load"]
        assert sum(loads) == sum(size for part, size in parts.items() if part not in were)
        frees = [move.memory_mb for move in plan.moves if move.shard == name and move.action == "unload"]
        assert sum(frees) == sum(size for part, size in were.items() if part not in parts)
    if not plan.problems:
        assert plan_placement(items, shards, plan.placement, apart).moves == ()


# Cases worked out by hand.


def shard(name: str, memory_mb: int | None = None, traffic_per_s: float | None = None) -> ShardCapacity:
    return ShardCapacity(name, memory_mb, traffic_per_s)


def reasons(plan: PlacementPlan) -> dict[str, str]:
    return {decision.model: decision.reason for decision in plan.decisions}


def moves(plan: PlacementPlan) -> list[tuple[str, str, str, int]]:
    return [(move.model, move.action, move.shard, move.memory_mb) for move in plan.moves]


def ensemble(model: str, *steps: str, memory_mb: int = 1, **rest: Any) -> PlacementItem:
    return PlacementItem(model, memory_mb, parts={step: STEPS[step] for step in steps}, **rest)


def test_ensembles_that_share_steps_come_together_while_there_is_room() -> None:
    family = [ensemble(f"ranking_{number}", "encoder", "history") for number in range(3)]
    plan = plan_placement(family, [shard("a", 140), shard("b", 140)])
    assert set(plan.placement.values()) == {("a",)}
    assert reasons(plan)["ranking_1"] == "adds 1 MB to a (130 MB of its steps are there)"
    assert [(each.capacity.name, each.after.memory_mb, each.after.models) for each in plan.shards] == [
        ("a", 133, 3),
        ("b", 0, 0),
    ]


def test_models_that_share_nothing_are_spread_by_memory_and_traffic() -> None:
    items = [PlacementItem(f"m{number}", 50, 10) for number in range(6)]
    plan = plan_placement(items, [shard("a"), shard("b"), shard("c")])
    assert [each.after.models for each in plan.shards] == [2, 2, 2]
    busy = PlacementItem("busy", 50, 60, replicas=1)
    plan = plan_placement([*items, busy], [shard("a", 900, 100), shard("b", 900, 100)])
    assert [(each.after.models, each.after.traffic_per_s) for each in plan.shards] == [(2, 70), (5, 50)]


def test_a_hot_model_gets_the_shards_that_its_traffic_needs_and_a_second_one_from_half_a_shard_on() -> None:
    shards = [shard(name, 500, 100) for name in "abcd"]
    items = [PlacementItem("cool", 10, 49), PlacementItem("warm", 10, 50), PlacementItem("hot", 10, 150)]
    plan = plan_placement(items, shards)
    assert not plan.problems
    assert {model: len(on) for model, on in plan.placement.items()} == {"cool": 1, "warm": 2, "hot": 2}
    assert sorted(each.after.traffic_per_s for each in plan.shards) == [49, 50, 50, 100]
    assert reasons(plan)["hot"].endswith("; on 2 shards for its traffic")
    boundless = plan_placement([PlacementItem("hot", 10, 350)], [*shards[:3], shard("d", 500)])
    assert len(boundless.placement["hot"]) == 4


def test_an_own_number_of_shards_is_kept_however_hot_the_model_is() -> None:
    shards = [shard("a", 500, 100), shard("b", 500, 100)]
    assert plan_placement([PlacementItem("warm", 10, 90, replicas=1)], shards).placement == {"warm": ("a",)}
    (problem,) = plan_placement([PlacementItem("hot", 10, 150, replicas=1)], shards).problems
    assert str(problem) == (
        "model 'hot' expects 150/s, and one shard takes 100/s at most: 50/s are missing; place it on more shards (replicas), or give shards "
        "more servers and a higher traffic_per_s"
    )


def test_the_least_loaded_shard_is_preferred() -> None:
    pinned = [PlacementItem("p", 10, 30, pins=("a",)), PlacementItem("q", 10, 20, pins=("b",))]
    plan = plan_placement([*pinned, PlacementItem("twice", 10, 5, replicas=3)], [shard("a"), shard("b"), shard("c")])
    assert plan.placement["twice"] == ("c", "b", "a")


def test_the_order_of_a_models_shards_stays_and_changes_only_where_traffic_asks_for_it() -> None:
    items = [PlacementItem("m", 10, 60, replicas=2), PlacementItem("n", 10, 30)]
    shards = [shard("a", 100, 100), shard("b", 100, 100)]
    now = {"m": ("a", "b"), "n": ("a",)}
    assert plan_placement(items, shards, now).moves == ()
    busier = plan_placement([items[0], replace(items[1], traffic_per_s=45)], shards, now)
    assert moves(busier) == [("m", "prefer", "b", 0)]
    assert busier.load_mb == 0
    assert reasons(busier) == {"m": "a was 5/s over its traffic", "n": "stays"}


def test_what_a_shard_may_not_hold_any_more_moves_and_nothing_else() -> None:
    items = [PlacementItem("large", 60), PlacementItem("mid", 30), PlacementItem("small", 10)]
    now = {"large": ("a",), "mid": ("a",), "small": ("a",)}
    plan = plan_placement(items, [shard("a", 75), shard("b", 100)], now)
    assert moves(plan) == [("mid", "load", "b", 30), ("mid", "unload", "a", 30)]
    assert reasons(plan) == {"large": "stays", "mid": "a was 25 MB over its memory", "small": "stays"}


def test_the_models_of_a_shard_that_is_gone_move_and_those_that_go_are_unloaded() -> None:
    items = [ensemble("kept", "history"), ensemble("homeless", "history", "topk")]
    now = {"kept": ("b",), "homeless": ("a",), "deleted": ("b",)}
    plan = plan_placement(items, [shard("b", 100), shard("c", 100)], now)
    assert moves(plan) == [
        ("homeless", "load", "b", 6),
        ("homeless", "unload", "a", 46),
        ("deleted", "unload", "b", 0),
    ]
    assert [move.reason for move in plan.moves] == ["there is no shard a any more"] * 2 + [
        "the rules do not place it any more"
    ]
    assert [(each.capacity.name, each.before.models, each.after.models) for each in plan.shards] == [
        ("a", 1, 0),
        ("b", 1, 2),
        ("c", 0, 0),
    ]


def test_a_model_that_fits_nowhere_as_things_stand_gets_room() -> None:
    items = [PlacementItem("a1", 40), PlacementItem("b1", 40), PlacementItem("b2", 30), PlacementItem("new", 70)]
    now = {"a1": ("a",), "b1": ("b",), "b2": ("b",)}
    plan = plan_placement(items, [shard("a", 100), shard("b", 100)], now)
    assert not plan.problems
    assert moves(plan) == [("b1", "load", "a", 40), ("new", "load", "b", 70), ("b1", "unload", "b", 40)]
    assert reasons(plan) == {
        "a1": "stays",
        "b1": "makes room on b for 'new'",
        "b2": "stays",
        "new": "adds 70 MB to b",
    }


def test_tenants_that_are_apart_share_no_shard_and_others_still_find_one() -> None:
    items = [PlacementItem(f"bank_{number}", 10, tenant="bank") for number in range(3)]
    items += [PlacementItem(f"other_{number}", 10) for number in range(9)]
    plan = plan_placement(items, [shard(name) for name in "abcd"], apart=[("bank", EVERYONE)])
    assert not plan.problems
    assert {plan.placement[f"bank_{number}"] for number in range(3)} == {("a",)}
    assert {on for model, on in plan.placement.items() if model.startswith("other")} == {("b",), ("c",), ("d",)}


def test_tenants_are_parted_when_the_rules_come_to_say_so() -> None:
    items = [PlacementItem("a1", 50, tenant="acme"), PlacementItem("g1", 20, tenant="globex"), PlacementItem("n", 5)]
    now = {"a1": ("s",), "g1": ("s",), "n": ("s",)}
    plan = plan_placement(items, [shard("s"), shard("t")], now, [("globex", "acme")])
    assert plan.placement == {"a1": ("s",), "g1": ("t",), "n": ("s",)}
    assert reasons(plan)["g1"] == "it may not share s with models of tenant 'acme'"


PROBLEMS: dict[str, tuple[list[PlacementItem], list[ShardCapacity], list[tuple[str, str]], str]] = {
    "too large": (
        [ensemble("m", "encoder", memory_mb=300)],
        [shard("a", 200), shard("b", 350)],
        [],
        "model 'm' needs 390 MB with its steps, and the largest shard has 350: 40 MB are missing; give a shard a memory_mb of at least 390",
    ),
    "too many": (
        [PlacementItem("m", 1, replicas=3)],
        [shard("a"), shard("b")],
        [],
        "model 'm' asks for 3 shards, and the fleet has 2; lower its replicas, or add a shard",
    ),
    "no memory left": (
        [PlacementItem("p", 80, pins=("a",)), PlacementItem("q", 70, pins=("b",)), PlacementItem("m", 50)],
        [shard("a", 100), shard("b", 100)],
        [],
        "model 'm' (50 MB with its steps) fits on no shard: b has 30 of the 50 MB free that it would add; a has 20 of the "
        "50 MB free that it would add; raise the memory_mb of 'b' by 20, or add a shard of at least 50 MB",
    ),
    "one replica short": (
        [PlacementItem("p", 80, pins=("a",)), PlacementItem("m", 50, replicas=2)],
        [shard("a", 100), shard("b", 100)],
        [],
        "model 'm' (50 MB with its steps) fits on 1 of 2 shards: a has 20 of the 50 MB free that it would add; raise the "
        "memory_mb of 'a' by 30, or add a shard of at least 50 MB",
    ),
    "no traffic left": (
        [PlacementItem("p", 1, 80, pins=("a",)), PlacementItem("m", 1, 30)],
        [shard("a", 100, 100)],
        [],
        "model 'm' (1 MB with its steps, 30/s) fits on no shard: a has 20/s of its traffic free; raise the traffic_per_s of "
        "a shard with more servers, or add a shard that takes 30/s",
    ),
    "tenants in the way": (
        [PlacementItem("p", 1, pins=("a",), tenant="globex"), PlacementItem("m", 1, tenant="acme")],
        [shard("a", 100)],
        [("acme", "globex")],
        "model 'm' of tenant 'acme' (1 MB with its steps) fits on no shard: a holds models of globex, which is kept apart; "
        "add a shard of at least 1 MB for its tenant, or keep fewer tenants apart",
    ),
    "pins over memory": (
        [PlacementItem("p", 80, pins=("a",)), PlacementItem("q", 50, pins=("b", "a"))],
        [shard("a", 100), shard("b", 100)],
        [],
        "the models pinned to shard 'a' need 130 MB, and it has 100; pin fewer, or raise its memory_mb by 30",
    ),
    "pins over traffic": (
        [PlacementItem("p", 1, 80, pins=("a",)), PlacementItem("q", 1, 40, pins=("a", "b"))],
        [shard("a", 100, 100), shard("b", 100, 100)],
        [],
        "the models pinned first to shard 'a' expect 120/s, and it takes 100/s; pin fewer there first, or raise its "
        "traffic_per_s by 20",
    ),
    "pins of tenants that are apart": (
        [PlacementItem("p", 1, pins=("a",), tenant="acme"), PlacementItem("q", 1, pins=("a",))],
        [shard("a")],
        [("acme", EVERYONE)],
        "model 'p' of tenant 'acme' and model 'q' are pinned to shard 'a', and their tenants are kept apart; pin one of "
        "them to another shard",
    ),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_what_does_not_fit_is_told_with_what_would_help(case: str) -> None:
    items, shards, apart, told = PROBLEMS[case]
    assert [str(problem) for problem in plan_placement(items, shards, apart=apart).problems] == [told]


def test_contradictory_input_is_an_error_of_the_caller() -> None:
    shards = [shard("a")]
    with pytest.raises(ValueError, match="'step' has 2 MB for 'n' and 1 MB before"):
        plan_placement([PlacementItem("m", parts={"step": 1}), PlacementItem("n", parts={"step": 2})], shards)
    with pytest.raises(ValueError, match="two items have the same model"):
        plan_placement([PlacementItem("m"), PlacementItem("m")], shards)
    with pytest.raises(ValueError, match="'m' is pinned to the unknown shard 'b'"):
        plan_placement([PlacementItem("m", pins=("b",))], shards)


def test_a_large_fleet_is_planned_in_seconds() -> None:
    draw = random.Random(7)
    steps = {f"step_{number}": draw.choice([20, 70, 200]) for number in range(200)}
    items = [
        PlacementItem(
            f"m{number}",
            draw.randint(1, 200),
            draw.randint(0, 20),
            parts={name: steps[name] for name in draw.sample(sorted(steps), 3)},
        )
        for number in range(2000)
    ]
    shards = [shard(f"s{number}", 13_000, 700) for number in range(50)]
    started = time.monotonic()
    plan = plan_placement(items, shards)
    assert not plan.problems
    assert time.monotonic() - started < 25, "it takes about half a second alone"


def full_fleet(*more: PlacementItem) -> tuple[list[PlacementItem], list[ShardCapacity], PlacementPlan]:
    """Forty models on four shards that have room for a little more, the plan of these, and the models with some more."""
    items = [PlacementItem(f"m{number:02}", 10, 10) for number in range(40)]
    shards = [shard(name, 110, 110) for name in "abcd"]
    plan = plan_placement(items, shards)
    assert not plan.problems
    return [*items, *more], shards, plan


IMPOSSIBLE: dict[str, tuple[list[PlacementItem], list[tuple[str, str]]]] = {
    "a rate": (
        [PlacementItem("hog", 1, 200_000)],
        [("hog", "model 'hog' expects 200000/s, and 4 shards take 440/s at most: 199560/s are missing")],
    ),
    "a rate on one shard": (
        [PlacementItem("hog", 1, 111, replicas=1)],
        [("hog", "model 'hog' expects 111/s, and one shard takes 110/s at most: 1/s are missing")],
    ),
    "memory": (
        [PlacementItem("hog", 111)],
        [("hog", "model 'hog' needs 111 MB with its steps, and the largest shard has 110: 1 MB are missing")],
    ),
    "replicas": (
        [PlacementItem("hog", 1, replicas=5)],
        [("hog", "model 'hog' asks for 5 shards, and the fleet has 4")],
    ),
    "two of them": (
        [PlacementItem("hog", 1, 1_000), PlacementItem("sow", 300)],
        [
            ("hog", "model 'hog' expects 1000/s, and 4 shards take 440/s at most: 560/s are missing"),
            ("sow", "model 'sow' needs 300 MB with its steps, and the largest shard has 110: 190 MB are missing"),
        ],
    ),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
@pytest.mark.parametrize("is_placed", [True, False])
def test_a_model_that_no_fleet_could_take_is_named_alone_and_moves_nobody(case: str, is_placed: bool) -> None:
    asking, told = IMPOSSIBLE[case]
    items, shards, before = full_fleet(*asking)
    plan = plan_placement(items, shards, before.placement if is_placed else None)
    assert [(problem.model, problem.message) for problem in plan.problems] == told
    assert dict(plan.placement) == dict(before.placement), "all others are where they are without it"
    if is_placed:
        assert plan.moves == ()


@pytest.mark.parametrize(
    ("asking", "model", "words"),
    [
        # Fits on an empty fleet, and there is not enough for all.
        (PlacementItem("hog", 1, 200), "hog", "expect 600/s together, and the shards take 440/s: 160/s are missing"),
        (PlacementItem("hog", 100, 1), "hog", "(100 MB with its steps, 1/s) fits on no shard"),
        (PlacementItem("hog", 11, replicas=4), "hog", "fits on no shard"),
    ],
)
def test_who_comes_last_to_a_full_fleet_is_named_and_moves_nobody(
    asking: PlacementItem, model: str, words: str
) -> None:
    items, shards, before = full_fleet(asking)
    plan = plan_placement(items, shards, before.placement)
    (problem,) = plan.problems
    assert (problem.model, words in problem.message or problem.also == ()) == (model, True)
    assert all(plan.placement[name] == on for name, on in before.placement.items())
    assert {move.model for move in plan.moves} <= {"hog"}


def test_what_is_missing_for_many_is_said_once_with_who_asks_for_most() -> None:
    items = [PlacementItem(f"m{number:04}", 1, 1) for number in range(1_700)] + [PlacementItem("hog", 1, 900)]
    plan = plan_placement(items, [shard("a", 10_000, 500), shard("b", 10_000, 500)])
    (problem,) = plan.problems
    assert problem.model == "hog"
    assert problem.message.startswith(
        "the models expect 2600/s together, and the shards take 1000/s: 1600/s are missing, so that "
    )
    assert "most is asked for by 'hog' (900/s)" in problem.message
    assert len(str(problem)) < 500
    memory = plan_placement(
        [PlacementItem(f"m{number}", 60) for number in range(9)], [shard("a", 200), shard("b", 200)]
    )
    (problem,) = memory.problems
    assert "the models need 540 MB together, each step once, and the shards have 400 MB: 140 MB are missing" in str(
        problem
    )


def test_a_shard_that_is_too_small_for_its_pins_blames_them_alone() -> None:
    items = [PlacementItem(f"m{number}", 10) for number in range(5)]
    pinned = [PlacementItem("hog", 500, pins=("a",))]
    plan = plan_placement([*items, *pinned], [shard("a", 100), shard("b", 100)])
    assert [(problem.model, problem.shard) for problem in plan.problems] == [("", "a")]
    assert {plan.placement[item.model] for item in items} == {("b",)}


def test_models_without_room_that_nothing_in_all_explains_are_told_together() -> None:
    """Each shard has room for a part of a model, and no shard for a whole one."""
    pinned = [PlacementItem(f"p{name}", 60, pins=(name,)) for name in "abcd"]
    plan = plan_placement([*pinned, *(PlacementItem(f"m{number}", 45) for number in range(3))], [
        shard(name, 100) for name in "abcd"
    ])  # fmt: skip
    (problem,) = plan.problems
    assert problem.model == "m0"
    assert problem.also == ("m1", "m2")
    assert "a has 40 of the 45 MB free that it would add" in problem.message
    assert "nor is there room for 'm1', 'm2'" in problem.message
