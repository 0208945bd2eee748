"""The configuration of a dispatcher."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DispatchConfig:
    """The limits of a dispatcher.

    A *place* is one model on one endpoint.

    Attributes:
        default_timeout_ms: the deadline of a decision without one of its own (> 0).
        attempt_share: the share of the remaining time that an attempt may use while another candidate follows and the
            budget has a retry (0–1). It leaves time for another attempt after a time-out: with 0.5, a rule's `timeout_ms`
            must be twice what its model needs.
        retry_ratio: retries of a request that an endpoint may have worked on (after a time-out or a reset), as a share of
            the requests (0–1). A time-out may be a sign of overload, which repeating multiplies; a request that was reset
            may have ended the server. Other retries cost no model any work and are not limited.
        retry_floor_per_s: such retries that accrue every second regardless of traffic (at least 0).
        retry_burst: the most unused retries that accumulate (at least 1).
        breaker_failures: consecutive failures of a place that open its breaker (at least 1).
        breaker_open_ms: how long an open breaker waits before the model is asked whether it is ready (> 0). The time
            doubles with every further failure, up to `breaker_longest_ms`.
        breaker_longest_ms: the longest such wait (> 0).
        probe_timeout_ms: how long an endpoint may take to answer a health request (> 0).
        probe_interval_ms: time between two health requests to an endpoint that is suspected or down (> 0).
        probe_misses: consecutive health requests without an answer after which an endpoint is taken out (at least 1).
        silent_ms: how long an endpoint with requests in flight may answer none before it is sent a health request (> 0).
        queue_ms: the longest that a request may wait in the queue of a place (at least 0).
        queue_most: the most requests that may wait at one place (at least 0).
        initial_in_flight: the concurrency limit of a place before it was measured (at least 1).
        most_in_flight: the highest concurrency limit of a place (at least 1).
        stream_idle_ms: how long a stream may pause between two parts (> 0).
        stream_most_ms: how long a stream may take from its first byte (> 0).
        slow_start_ms: how long an endpoint that came back, or a model there after its ejection, takes to get its full share of
            the requests (at least 0; 0: at once).
        ejection_ms: how long a place gets no requests that fails, or takes, far more than the model does on the shard's other
            endpoints, while those serve (at least 0; 0: never). The time grows each time, up to `longest_ejection_ms`.
        longest_ejection_ms: the longest such time (> 0).
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
    stream_idle_ms: float = 30_000.0
    stream_most_ms: float = 600_000.0
    slow_start_ms: float = 10_000.0
    ejection_ms: float = 30_000.0
    longest_ejection_ms: float = 300_000.0
    quarantine_s: float = 600.0
