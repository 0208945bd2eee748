"""Restarts and fallbacks are counted since the start, and what happened lately counts as degraded."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from tidegate.bootstrap.incidents import LOG_EVERY_S, RECENT_S, GatewayRestarts, Incidents
from tidegate.console.traffic import TrafficHistory
from tidegate.fleet.healing import Reloads
from tidegate.fleet.slot import Restarts
from tidegate.gateway.traffic import TrafficCounter
from tidegate.ports import Endpoint, Served
from tidegate.rules import Decision, compile_directory, load_bundle

from tests.support.stack import write_rules


@pytest.fixture
def decision(tmp_path: Path) -> Decision:
    rules = write_rules(tmp_path, {"a": 1}, {"scorer": ["a"]}, main="scorer")
    return load_bundle(compile_directory(rules)).decide("main", {"country": "US"})


def test_only_what_a_fallback_answered_is_counted(decision: Decision, caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    incidents, counter = Incidents(clock=lambda: now), TrafficCounter(clock=lambda: now)
    history = TrafficHistory()
    other = replace(decision.target, name="second", model="second")

    def report() -> None:
        for key, tally in history.add(counter.take(), 1.0, now):
            incidents.count(key, tally)

    with caplog.at_level(logging.WARNING):
        for served in (Served(decision, 200, decision.target), Served(decision, 503), Served(decision, 200, other)):
            counter.observe(served)
            report()
        counter.observe(Served(decision, 200, other))
        report()
        assert len(caplog.records) == 1, "a flood is one line"
        now += LOG_EVERY_S
        counter.observe(Served(decision, 200, other))
        report()
    warning = caplog.records[1].getMessage()
    assert "the fallback second answered instead of scorer (rule default)" in warning
    assert warning.endswith("3 such requests since the start")
    found = incidents.as_dict((), (), GatewayRestarts())
    assert found["since_start"]["fallbacks"] == [
        {"objective": "main", "count": 3, "last_at": "1970-01-01T00:16:50+00:00"}
    ]
    assert "objective main: a fallback answered 3 requests" in found["degraded"][0]


def test_what_happened_long_ago_is_counted_and_degrades_nothing(decision: Decision) -> None:
    now = 1000.0
    incidents = Incidents(clock=lambda: now)
    counter = TrafficCounter(clock=lambda: now)
    counter.observe(Served(decision, 200, replace(decision.target, name="second", model="second")))
    for key, tally in TrafficHistory().add(counter.take(), 1.0, now):
        incidents.count(key, tally)
    gateway = GatewayRestarts(1, now, "was ended by SIGKILL")
    restarts = (Restarts("a", "http://127.0.0.1:1", 2, now, "ended with signal 9"),)
    reloads = (
        Reloads(Endpoint("a", "127.0.0.1", 1), "scorer", 1, now, "its process had ended"),
        Reloads(Endpoint("a", "127.0.0.1", 1), "other", 4, now, "it did not answer", "other/1 does not answer"),
    )
    degraded = incidents.as_dict(restarts, reloads, gateway)["degraded"]
    assert len(degraded) == 5
    assert "model scorer on http://127.0.0.1:1 of shard a was reloaded once" in degraded[1]
    assert "it answers again" in degraded[1]
    assert "other/1 does not answer, so that is done more and more rarely" in degraded[2]
    now += RECENT_S + 1
    found = incidents.as_dict(restarts, reloads, gateway)
    assert [each["model"] for each in found["since_start"]["reloads"]] == ["scorer", "other"]
    assert found["degraded"] == []
    assert (
        found["since_start"]["restarts"][0].items() >= {"shard": "a", "count": 2, "url": "http://127.0.0.1:1"}.items()
    )
