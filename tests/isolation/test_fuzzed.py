"""Requests of every kind that the fuzzer generates do not affect other callers."""

from __future__ import annotations

from tests.fuzz.gateway import flatness, fuzz
from tests.isolation.place import Place
from tests.support.effort import is_full

REQUESTS = 50_000 if is_full() else 400
MIXED, ABORTED = (200_000, 12_000) if is_full() else (1_500, 300)
GROWTH_MIB = 60
MORE_DESCRIPTORS = 20


def test_whatever_is_sent_nothing_happens_that_must_not(place: Place) -> None:
    place.wait_whole()
    result = fuzz(place, REQUESTS, seed=7)
    print(result["sent"], result["statuses"])
    assert result["problems"] == []


def test_many_requests_and_aborted_connections_leave_nothing_behind(place: Place) -> None:
    place.wait_whole()
    left = flatness(place, MIXED, ABORTED)
    print(left)
    assert left["memory_mib"]["after_aborted"] < left["memory_mib"]["before"] + GROWTH_MIB
    assert left["descriptors"]["after_aborted"] < left["descriptors"]["before"] + MORE_DESCRIPTORS
