"""What the gateway counts is added up, and shown for the times that its reports cover."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tidegate.console import traffic
from tidegate.console.traffic import KEPT_S, STEP_S, TrafficHistory
from tidegate.gateway.traffic import MOST_SERIES, TrafficCounter
from tidegate.ports import Hedge, Served, StreamEnd
from tidegate.ports.traffic import LATENCY_BUCKETS, OTHER, Durations, bucket_start_s, latency_bucket
from tidegate.rules import Decision, compile_directory, load_bundle

from tests.support.stack import write_rules

NOW = 1_800_000_000.0
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def decision(tmp_path_factory: pytest.TempPathFactory) -> Decision:
    rules: Path = write_rules(tmp_path_factory.mktemp("rules"), {"a": 1}, {"scorer": ["a"]}, main="scorer")
    return load_bundle(compile_directory(rules)).decide("main", {"country": "US"})


def report(*served: Served) -> Any:
    """Return what a gateway reports of requests, as the control plane reads it."""
    counter = TrafficCounter(clock=lambda: NOW)
    for each in served:
        counter.observe(each)
    return json.loads(json.dumps(counter.take()))


def ok(decision: Decision, took_ms: float = 2.0) -> Served:
    return Served(decision, 200, decision.target, "a", dispatch_ms=took_ms)


def test_each_request_has_one_outcome(decision: Decision) -> None:
    other = replace(decision.target, name="second", model="second")
    history = TrafficHistory()
    history.add(
        report(
            ok(decision),
            Served(decision, 200, other, "a", failed_attempts=2),
            Served(decision, 400, decision.target, "a"),
            Served(decision, 503, failed_attempts=1),
            Served(decision, 200, decision.target, "a", hedge=Hedge.WON),
            Served(decision, 200, decision.target, "a", hedge=Hedge.LOST),
            Served(decision, 200, decision.target, "a", stream_end=StreamEnd.COMPLETE),
            Served(decision, 200, decision.target, "a", stream_end=StreamEnd.BROKEN),
            Served(decision, 200, decision.target, "a", stream_end=StreamEnd.CALLER_LEFT),
        ),
        1.0,
        NOW,
    )
    found = {(key.model, key.shard): tally for key, tally in history.sums().items()}
    assert found.keys() == {("scorer", "a"), ("second", "a"), ("scorer", "")}
    main, fallback, unanswered = found["scorer", "a"], found["second", "a"], found["scorer", ""]
    assert (main.answered, main.client_errors, main.hedges, main.hedges_won) == (6, 1, 2, 1)
    assert (main.streams, main.streams_broken, main.streams_left) == (3, 1, 1)
    assert (fallback.fallbacks, fallback.failed_attempts, fallback.requests) == (1, 2, 1)
    assert (unanswered.server_errors, unanswered.failed_attempts, unanswered.requests) == (1, 1, 1)
    figures = history.figures(60, NOW)
    assert (figures.requests, figures.errors, figures.fallbacks, figures.last_at) == (9, 1, 1, NOW)
    assert history.by(lambda key: key.model, 60, NOW)["second"].fallback_share == 1.0


def test_a_gateway_that_is_replaced_changes_no_sum(decision: Decision) -> None:
    history = TrafficHistory()
    history.add(report(*[ok(decision)] * 3), 1.0, NOW)
    # The next process begins at zero, and so do its reports.
    history.add(report(ok(decision)), 1.0, NOW + 30)
    (tally,) = history.sums().values()
    assert tally.requests == 4


def test_rates_are_of_the_time_that_the_reports_cover(decision: Decision) -> None:
    history = TrafficHistory()
    assert history.figures(60, NOW).requests_per_s is None
    for second in range(10):
        history.add(report(*[ok(decision)] * 4), 1.0, NOW + second)
    assert history.figures(60, NOW + 10).requests_per_s == 4.0
    # It was silent for 20 s, and then reports all that it counted.
    late = NOW + 30
    history.add(report(*[ok(decision)] * 80), 20.0, late)
    history.add(report(), 1.0, late + STEP_S)
    shown = history.series(late + 2 * STEP_S, window_s=45)
    assert shown.end == late + 2 * STEP_S
    assert shown.requests_per_s == [None, 4.0, 4.0, None, None, None, None, 4.0, 0.0]
    assert shown.error_share == [None, 0.0, 0.0, None, None, None, None, 0.0, None]
    assert history.figures(60, late + 300) == traffic.Figures(), "of a gateway that is silent nothing is known"


def test_the_history_ends_after_its_time_and_the_sums_do_not(decision: Decision) -> None:
    history = TrafficHistory()
    history.add(report(ok(decision)), 1.0, NOW)
    history.add(report(ok(decision)), 1.0, NOW + KEPT_S - STEP_S)
    assert history.figures(KEPT_S, NOW + KEPT_S - STEP_S).requests == 2
    history.add(report(ok(decision)), 1.0, NOW + KEPT_S + STEP_S)
    assert history.figures(KEPT_S, NOW + KEPT_S + STEP_S).requests == 2
    assert sum(tally.requests for tally in history.sums().values()) == 3
    # A clock that is set back: the requests are counted where the time was last.
    history.add(report(ok(decision)), 1.0, NOW)
    assert history.figures(STEP_S, NOW + KEPT_S + STEP_S).requests == 2


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_percentiles_are_exact_to_5_percent(share: float) -> None:
    chance, durations = random.Random(7), Durations()
    taken = sorted(chance.lognormvariate(1.0, 1.5) for _ in range(5_000))
    for took_ms in taken:
        durations.record(took_ms)
    found = durations.percentile_s(share)
    assert found == pytest.approx(taken[round(share * len(taken)) - 1] / 1000, rel=0.06)


def test_a_latency_is_within_its_bucket() -> None:
    starts = [bucket_start_s(bucket) for bucket in range(LATENCY_BUCKETS)]
    assert starts == sorted(set(starts))
    assert [latency_bucket(start * 1000) for start in starts] == list(range(LATENCY_BUCKETS))
    assert all(after <= before * 1.1000001 for before, after in pairwise(starts[10:]))
    assert (starts[-1], latency_bucket(-1.0), latency_bucket(0.0), latency_bucket(1e9)) == (100.0, 0, 0, 550)


def test_counts_below_a_bound_are_exact() -> None:
    durations = Durations()
    for took_ms in (0.5, 0.9, 1.0, 2.4, 2.5, 99.9, 100.0, 5_000_000.0):
        durations.record(took_ms)
    assert durations.cumulative([latency_bucket(bound_ms) for bound_ms in (0.1, 1.0, 2.5, 100.0, 10_000.0)]) == [
        0,
        2,
        4,
        6,
        7,
        8,
    ]


def test_the_last_trace_is_kept(decision: Decision) -> None:
    history = TrafficHistory()
    traced = Served(decision, 200, decision.target, "a", dispatch_ms=7.0, trace_id=TRACE)
    history.add(report(traced, ok(decision)), 1.0, NOW)
    history.add(report(ok(decision)), 1.0, NOW)
    (tally,) = history.sums().values()
    assert (tally.trace_id, tally.trace_took_s) == (TRACE, 0.007)


def test_series_are_bounded_and_no_request_is_lost(decision: Decision, monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = [replace(decision, rule=f"rule-{number}") for number in range(MOST_SERIES + 10)]
    found = report(*map(ok, decisions))
    assert len(found) == MOST_SERIES + 1
    monkeypatch.setattr(traffic, "MOST_TALLIES", 6_000)
    history = TrafficHistory()
    history.add(found, 1.0, NOW)
    assert len(history.sums()) == MOST_SERIES + 1
    assert history.sums()[OTHER].requests == 10
    assert history.figures(60, NOW, objective=OTHER.objective).requests == 10
    # The history is shorter then; the present step is always kept.
    history.add(found, 1.0, NOW + STEP_S)
    assert history.figures(60, NOW + STEP_S).requests == len(decisions)
    # A new series takes the place of those that had no request for long.
    later = NOW + traffic.IDLE_S + 2 * STEP_S
    history.add(report(ok(replace(decision, rule="new"))), 1.0, later)
    assert {key.rule for key in history.sums()} == {"", "new"}
    assert sum(tally.requests for tally in history.sums().values()) == 2 * len(decisions) + 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda series: series[0].append("more"),
        lambda series: series[0].__setitem__(0, 7),
        lambda series: series[1].update(answered=-1),
        lambda series: series[1].update(answered=1.5),
        lambda series: series[1].update(triton_s=float("nan")),
        lambda series: series[1].update(took=[0.0, [[LATENCY_BUCKETS, 1]]]),
        lambda series: series[1].pop("took"),
        lambda series: series[1].update(trace_id=["x"]),
    ],
)
def test_a_malformed_report_counts_nothing(decision: Decision, spoil: Callable[[Any], None]) -> None:
    found = report(ok(decision), ok(replace(decision, rule="second")))
    spoil(found[1])
    history = TrafficHistory()
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        history.add(found, 1.0, NOW)
    assert not history.sums()
    assert history.figures(60, NOW).covered_s == 0.0


def test_requests_of_callers_are_counted_by_route_and_status() -> None:
    counter, history = TrafficCounter(), TrafficHistory()
    for status, took_s in ((200, 0.002), (200, 0.004), (429, 0.0001), (None, 1.0)):
        counter.ended("POST", "/v2/models/{objective}/infer", status, took_s)
    counter.ended("", "inference.GRPCInferenceService/ModelInfer", "OK", 0.002)
    history.add_routes(json.loads(json.dumps(counter.take_routes())))
    assert counter.take_routes() == []
    found = {(key.method, key.status): durations.count for key, durations in history.routes().items()}
    assert found == {("POST", "200"): 2, ("POST", "429"): 1, ("POST", ""): 1, ("", "OK"): 1}
    with pytest.raises((ValueError, TypeError)):
        history.add_routes([[["POST", "/", 200], [0.0, []]]])


def test_routes_are_bounded() -> None:
    history = TrafficHistory()
    history.add_routes([[["GET", str(number), "200"], [1.0, [[5, 1]]]] for number in range(traffic.MOST_ROUTES + 9)])
    assert len(history.routes()) == traffic.MOST_ROUTES
