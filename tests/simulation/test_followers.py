"""Gateways on a simulated clock: what is promised of the age of their rules, and what they read at most."""

from __future__ import annotations

import pytest
from tidegate.gateway.follower import LATE_S

from simulation.followers import PATTERNS, SECONDS, WAYS, Pattern, Way, simulate


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_no_decision_is_by_rules_older_than_promised_and_reads_are_bounded(way: Way, pattern: Pattern) -> None:
    environments = 4
    counts = simulate(way, pattern, environments)
    assert counts.requests > 50
    config = way.config
    # Half a second of the store, the cache and the wait for them is far more than they take here.
    assert counts.longest_s <= config.poll_interval_s + config.cached_s + LATE_S + 0.5
    polls = counts.cache if way.kept_s else counts.pointers
    started = environments * (SECONDS / pattern.lives_s + 1)
    assert polls <= min(counts.requests, environments * SECONDS / (config.poll_interval_s * 0.9)) + started
    if way.kept_s:
        assert counts.pointers <= way.agents * SECONDS / way.kept_s
    assert max(counts.waits_s) <= config.fresh_wait_s
