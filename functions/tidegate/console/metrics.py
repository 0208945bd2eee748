"""The metrics of a stack and of a shard agent, from what the control plane's process knows already.

Nothing here asks anything: see `tidegate.bootstrap.stack_metrics` and `tidegate.bootstrap.agent` for what is read, and when.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from tidegate import __version__
from tidegate.console.processes import ProcessFigures
from tidegate.control.endpoints import Times
from tidegate.control.status import ServerState
from tidegate.metrics import Metric
from tidegate.metrics.exposition import Exemplar, Family, Histogram, Labels, Value
from tidegate.ports import Endpoint
from tidegate.ports.traffic import Durations, RouteKey, SeriesKey, Tally, latency_bucket

BOUNDS_S = (
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0,
)  # fmt: skip
"""The buckets that are exposed: those of OpenTelemetry's semantic conventions for HTTP, with some below 5 ms and above 10 s. Each is a
bound of the buckets that latencies are counted in, so their counts are exact."""

_BOUNDS = (*BOUNDS_S, math.inf)
_ENDS = tuple(latency_bucket(bound * 1000.0) for bound in BOUNDS_S)

Json = Mapping[str, Any]

FOLLOW_STATES = ("off", "following", "paused", "ended")


def traffic_families(series: Mapping[SeriesKey, Tally]) -> Iterator[Family]:
    """Yield what was counted of requests."""
    items = list(series.items())
    yield Family(Metric.REQUEST_DURATION, ((key, _histogram(tally)) for key, tally in items))
    yield Family(Metric.REQUESTS, chain.from_iterable(_outcomes(key, tally) for key, tally in items))
    yield Family(Metric.LAST_REQUEST, ((key, tally.last_at) for key, tally in items))
    yield Family(Metric.DECIDE_TIME, ((key, tally.decide_s) for key, tally in items))
    yield Family(Metric.TRITON_TIME, ((key, tally.triton_s) for key, tally in items))
    yield Family(Metric.FAILED_ATTEMPTS, ((key, tally.failed_attempts) for key, tally in items))
    # Few rules hedge or stream; the series of others would only be zeros.
    yield Family(Metric.HEDGES, ((key, tally.hedges) for key, tally in items if tally.hedges))
    yield Family(Metric.HEDGES_WON, ((key, tally.hedges_won) for key, tally in items if tally.hedges))
    yield Family(Metric.STREAMS, chain.from_iterable(_ends(key, tally) for key, tally in items if tally.streams))


def _outcomes(key: Labels, tally: Tally) -> Iterator[tuple[Labels, Value]]:
    yield (*key, "answered"), tally.answered
    yield (*key, "fallback"), tally.fallbacks
    yield (*key, "client_error"), tally.client_errors
    yield (*key, "server_error"), tally.server_errors


def _ends(key: Labels, tally: Tally) -> Iterator[tuple[Labels, Value]]:
    yield (*key, "complete"), tally.streams - tally.streams_left - tally.streams_broken
    yield (*key, "caller-left"), tally.streams_left
    yield (*key, "broken"), tally.streams_broken


def _histogram(tally: Tally) -> Histogram:
    exemplar = Exemplar(tally.trace_id, tally.trace_took_s, tally.last_at) if tally.trace_id else None
    return Histogram(_BOUNDS, tally.took.cumulative(_ENDS), tally.took.total_s, exemplar)


def route_families(routes: Mapping[RouteKey, Durations]) -> Iterator[Family]:
    """Yield the requests of callers, over HTTP and over gRPC."""
    found = [
        (key, Histogram(_BOUNDS, durations.cumulative(_ENDS), durations.total_s)) for key, durations in routes.items()
    ]
    yield Family(Metric.HTTP_DURATION, (((*key,), value) for key, value in found if key.method))
    yield Family(Metric.RPC_DURATION, (((key.route, key.status), value) for key, value in found if not key.method))


def status_families(status: Json) -> Iterator[Family]:
    """Yield what `GET /v1/fleet` shows of a stack."""
    yield from _rules_families(status)
    yield from _fleet_families(status)
    yield from _load_families(status["gateway"]["endpoints"])


def _rules_families(status: Json) -> Iterator[Family]:
    source, follow = status["source"], status["follow"]
    yield Family(Metric.RULES, [((status["revision"], status["resolution"]), 1)] if status["revision"] else [])
    yield Family(Metric.BUNDLE_AGE_SECONDS, [] if source["age_s"] is None else [((), source["age_s"])])
    yield Family(Metric.FAILED_POLLS, [((), source["failures"])])
    yield Family(Metric.FOLLOW_STATE, [((state,), int(follow["state"] == state)) for state in FOLLOW_STATES])
    yield Family(Metric.RULES_REJECTED, [((), int(status["rules"]["last_rejected"] is not None))])
    yield Family(Metric.PUBLISHES, [((), sum(claim["revision"] is not None for claim in status["claims"]))])


def _fleet_families(status: Json) -> Iterator[Family]:
    since, gateway = status["since_start"], status["gateway"]
    states = {shard["name"]: Counter(each["state"] for each in shard["endpoints"]) for shard in status["shards"]}
    yield Family(
        Metric.ENDPOINTS, [((shard, state), states[shard][state]) for shard in states for state in ServerState]
    )
    yield Family(Metric.WANTED_ENDPOINTS, [((shard["name"],), shard["replicas"]) for shard in status["shards"]])
    yield Family(Metric.HEALTHY, [((), int(status["healthy"]))])
    yield Family(Metric.PROBLEMS, [((), len(status["problems"]))])
    yield Family(Metric.DEGRADED, [((), len(status["degraded"]))])
    yield Family(Metric.CHANGES, [((), len(status["drift"]))])
    yield Family(Metric.FAILED_LOADS, [((), len(status["waiting"]))])
    restarts = Counter(dict.fromkeys(states, 0))
    for each in since["restarts"]:
        restarts[each["shard"]] += each["count"]
    yield Family(Metric.SERVER_RESTARTS, [((shard,), count) for shard, count in restarts.items()])
    yield Family(
        Metric.MODEL_RELOADS,
        [((each["shard"], each["url"], each["model"]), each["count"]) for each in since["reloads"]],
    )
    yield Family(Metric.GATEWAY_RESTARTS, [((), since["gateway_restarts"]["count"])])
    yield Family(Metric.GATEWAY_UP, [((), int(gateway["state"] == "serving"))])


def _load_families(endpoints: Iterable[Json]) -> Iterator[Family]:
    loads = list(endpoints)
    servers = [((each["shard"], each["url"]), each) for each in loads]
    places = [((each["shard"], each["url"], place["model"]), place) for each in loads for place in each["places"]]
    yield Family(Metric.ENDPOINT_UP, ((key, int(not each["is_down"])) for key, each in servers))
    yield Family(Metric.OUTSTANDING, ((key, each["outstanding"]) for key, each in servers))
    yield Family(Metric.QUEUED, ((key, each["queue"]) for key, each in servers if each["queue"] is not None))
    yield Family(Metric.IN_FLIGHT, ((key, place["in_flight"]) for key, place in places))
    yield Family(Metric.IN_FLIGHT_LIMIT, ((key, place["limit"]) for key, place in places))
    yield Family(
        Metric.USUAL_TIME,
        ((key, place["usual_ms"] / 1000) for key, place in places if place["usual_ms"] is not None),
    )
    yield Family(Metric.SHARE, ((key, place["share"]) for key, place in places))
    yield Family(Metric.OPEN_BREAKERS, ((key, int(place["is_open"])) for key, place in places))


def shadow_families(counts: Mapping[str, int]) -> Iterator[Family]:
    """Yield the counts of `tidegate.shadows.counts`."""
    for metric, name in (
        (Metric.SHADOWS_SAMPLED, "sampled"),
        (Metric.SHADOWS_QUEUED, "queued"),
        (Metric.SHADOWS_SENT, "sent"),
    ):
        yield Family(metric, [((), counts[name])] if name in counts else [])
    for metric, kind in (
        (Metric.SHADOWS_LEFT_OUT, "left out: "),
        (Metric.SHADOWS_DROPPED, "dropped: "),
        (Metric.SHADOWS_FAILED, "failed: "),
    ):
        found = {name.removeprefix(kind): count for name, count in counts.items() if name.startswith(kind)}
        yield Family(metric, [((reason,), count) for reason, count in sorted(found.items())])


def step_families(times: Times) -> Iterator[Family]:
    """Yield what the servers say of their models."""
    items = [
        ((endpoint.shard, endpoint.url, model, version), found)
        for endpoint, models in times.items()
        for (model, version), found in models.items()
    ]
    yield Family(
        Metric.STEP_REQUESTS,
        chain.from_iterable(
            (((*key, "success"), found.requests), ((*key, "fail"), found.failed)) for key, found in items
        ),
    )
    yield Family(Metric.STEP_EXECUTIONS, ((key, found.executions) for key, found in items))
    yield Family(Metric.STEP_QUEUE_TIME, ((key, found.queue_ns / 1e9) for key, found in items))
    yield Family(Metric.STEP_INPUT_TIME, ((key, found.input_ns / 1e9) for key, found in items))
    yield Family(Metric.STEP_INFER_TIME, ((key, found.infer_ns / 1e9) for key, found in items))
    yield Family(Metric.STEP_OUTPUT_TIME, ((key, found.output_ns / 1e9) for key, found in items))


def agent_families(
    shard: str, is_ready: bool, restarts: int, reloads: Mapping[tuple[Endpoint, str], int]
) -> Iterator[Family]:
    """Yield what an agent knows of its server: its restarts, and the reloads of models by their endpoint and name."""
    yield Family(Metric.SERVER_READY, [((shard,), int(is_ready))])
    yield Family(Metric.SERVER_RESTARTS, [((shard,), restarts)])
    yield Family(
        Metric.MODEL_RELOADS,
        [((endpoint.shard, endpoint.url, model), count) for (endpoint, model), count in reloads.items()],
    )


def process_families(processes: Mapping[str, ProcessFigures], lags_s: Mapping[str, float]) -> Iterator[Family]:
    """Yield the figures of processes, and how late their event loops were, by the process's name."""
    yield Family(Metric.BUILD, [((__version__,), 1)])
    yield Family(Metric.LOOP_LAG, [((name,), lag_s) for name, lag_s in lags_s.items()])
    items = [((name,), found) for name, found in processes.items()]
    yield Family(Metric.PROCESS_CPU, ((key, found.cpu_s) for key, found in items))
    yield Family(Metric.PROCESS_MEMORY, ((key, found.resident_bytes) for key, found in items))
    yield Family(Metric.PROCESS_FILES, ((key, found.open_files) for key, found in items))
    yield Family(Metric.PROCESS_START, ((key, found.started_at) for key, found in items))
