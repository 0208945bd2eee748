"""How a dispatcher behaves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DispatchConfig:
    """The bounds of a dispatcher.

    A *place* is one model on one endpoint.

    Attributes:
        default_timeout_ms: the deadline of a decision that names none (> 0).
        attempt_share: the share of the time left that an attempt may use while another candidate stands after it and
            a retry is in the budget (0–1). A time-out can only be followed by another attempt because the first does
            not get all the time: with 0.5, a rule's `timeout_ms` must be twice what its model needs.
        retry_ratio: retries of a request that an endpoint may have worked on (after a time-out or a reset), as a share of
            the requests (0–1). A time-out is what overload looks like, and repeating it multiplies the load; a request
            that was reset may be what ended the server. Other retries cost no model any work and are not rationed.
        retry_floor_per_s: such retries that accrue every second whatever the traffic (at least 0).
        retry_burst: how many unused ones are kept at most (at least 1).
        breaker_failures: consecutive failures of a place that open its breaker (at least 1).
        breaker_open_ms: how long an open breaker waits before it asks whether the model is ready (> 0); it doubles with
            every failure after that, up to `breaker_longest_ms`.
        breaker_longest_ms: the longest that it doubles to (> 0).
        probe_timeout_ms: how long an endpoint may take to answer a health request (> 0).
        probe_interval_ms: time between two health requests to an endpoint that is suspected or down (> 0).
        probe_misses: consecutive health requests without an answer that take an endpoint out (at least 1).
        silent_ms: an endpoint that has requests under way and has answered nothing for so long is asked for its health (> 0).
        queue_ms: the longest that a request waits for room at a place (at least 0).
        queue_most: the most requests that wait at one place (at least 0).
        initial_in_flight: requests under way at a place before anything is known of it (at least 1).
        most_in_flight: the most requests under way at a place, whatever was measured (at least 1).
        quarantine_s: how long a request that has ended two servers is refused, in seconds (at least 0).
    """

    default_timeout_ms: float = 10_000.0
    attempt_share: float = 0.5
    retry_ratio: float = 0.2
    retry_floor_per_s: float = 1.0
    retry_burst: float = 64.0
    breaker_failures: int = 5
    breaker_open_ms: float = 1_000.0
    breaker_longest_ms: float = 30_000.0
    probe_timeout_ms: float = 1_000.0
    probe_interval_ms: float = 500.0
    probe_misses: int = 2
    silent_ms: float = 1_000.0
    queue_ms: float = 1_000.0
    queue_most: int = 1_024
    initial_in_flight: int = 32
    most_in_flight: int = 256
    quarantine_s: float = 600.0
