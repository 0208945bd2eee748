"""A small fleet on a simulated clock, with the harm of the large one."""

from __future__ import annotations

import pytest

from simulation.fleet import Outcome, Size, describe, simulate

SIZE = Size(
    shards=8,
    replicas=6,
    ensembles=80,
    families=8,
    objectives=4,
    gateways=3,
    hours=0.5,
    publish_every_s=240.0,
    zone_at_s=60.0,
    replace_at_s=400.0,
    replaced_at_once=3,
    restart_at_s=1200.0,
    ends_every_s=600.0,
)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return simulate(SIZE)


def test_no_gateway_can_decide_for_what_is_ready_nowhere(outcome: Outcome) -> None:
    assert outcome.checks > 100
    assert outcome.violations == []


def test_most_publishes_end_well_and_soon(outcome: Outcome) -> None:
    assert len(outcome.publishes) >= 4
    assert len(outcome.publishes) > len(outcome.failed), outcome.failed
    assert max(outcome.publishes) < 300


def test_the_fleet_is_whole_again_after_each_harm(outcome: Outcome) -> None:
    assert len(outcome.recovered) == 3
    # A boot takes up to three minutes, a replacement of all servers two rounds of boots and of loads.
    assert outcome.recovered["the loss of a zone"] < 300
    assert outcome.recovered["the restart of half of the servers"] < 300
    assert outcome.recovered["the replacement of all servers"] < 600


def test_calls_grow_with_servers_and_not_with_their_square(outcome: Outcome) -> None:
    servers = SIZE.servers
    agents = outcome.calls["agents"]
    # With all servers starting at once, each reads what it must hold a few times.
    assert max(agents["bundles.claims"].values()) <= 2 * servers
    assert agents["registry.gateways"].total() <= 30 * servers
    control = outcome.calls["publisher and reconciler"]
    publishes = len(outcome.publishes) + len(outcome.failed)
    assert control["endpoint.loaded"].total() <= 12 * servers * (publishes + len(outcome.reconciles))
    assert "endpoint.model_ready" not in control


def test_it_is_described(outcome: Outcome) -> None:
    text = describe(outcome)
    assert "48 servers in 3 zones" in text
    assert "| the loss of a zone |" in text
    assert "xychart-beta" in text
