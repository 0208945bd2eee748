"""Structured logs and metrics of the functions, by Powertools. Neither holds a value of a context.

Metrics are lines of the log in CloudWatch's embedded metric format, so that no request waits for CloudWatch.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

from tidegate.metrics import BY_OBJECTIVE, BY_RULE, Dimension, Metric
from tidegate.ports import Hedge, Served

DEFAULT_NAMESPACE = "Tidegate"
MOST_DIMENSIONS = 200
"""Distinct combinations of values that a process reports by name for each set of dimensions, such as pairs of objective and variant,
since each metric has a price."""

OTHER = "other"
NO_VARIANT = "none"
_REASONED = {Metric.SHADOWS_LEFT_OUT: "left out", Metric.SHADOWS_DROPPED: "dropped"}
_LIMITED = 429
_OF_SEQUENCES = 409
"""The gateway has no other conflicts."""


def function_logger(service: str, level: str) -> Logger:
    """Return the logger of a function, which also handles the package's own logs."""
    logger = Logger(service=service, level=level)
    project = logging.getLogger("tidegate")
    project.handlers = [logger.registered_handler]
    project.setLevel(level)
    project.propagate = False
    return logger


def metrics_namespace() -> str:
    return os.environ.get("POWERTOOLS_METRICS_NAMESPACE") or DEFAULT_NAMESPACE


def emit(service: str, values: Mapping[Metric, float], dimensions: Mapping[Dimension, str] | None = None) -> None:
    """Write one line of metrics to the log."""
    line = EphemeralMetrics(namespace=metrics_namespace(), service=service)
    for dimension, value in (dimensions or {}).items():
        line.add_dimension(dimension, value)
    for metric, number in values.items():
        line.add_metric(metric.metric_name, metric.unit, number)
    line.flush_metrics()


class Telemetry:
    """Logs and metrics of a function that answers HTTP: for each request a line of metrics by function, which alarms watch, and
    one by objective and variant. `by_rule` adds those by objective and by rule, which the console shows."""

    def __init__(self, service: str, level: str = "INFO", *, by_rule: bool = False) -> None:
        self._service = service
        self._by_rule = by_rule
        self._logger = function_logger(service, level)
        self._reported: set[tuple[str, ...]] = set()
        self._origins: set[tuple[str, ...]] = set()
        self._objectives: set[tuple[str, ...]] = set()
        self._rules: set[tuple[str, ...]] = set()
        self._served: Served | None = None
        self._cold = True
        # Mangum logs each path, which may contain a caller's data.
        logging.getLogger("mangum").setLevel(logging.WARNING)

    def begin(self, event: object, request_id: str) -> None:
        """Add the request's ids to all that is logged from now on."""
        self._served = None
        context = event.get("requestContext") if isinstance(event, Mapping) else None
        gateway_id = context.get("requestId") if isinstance(context, Mapping) else None
        self._logger.append_keys(correlation_id=str(gateway_id or request_id), request_id=request_id)

    def observe(self, served: Served) -> None:
        """Record the decided request."""
        self._served = served

    def shadows(self, counts: Mapping[str, int], queue_ms: float) -> None:
        """Emit how the copies of a request ended, by the counts of `tidegate.shadows.counts`."""
        values: dict[Metric, float] = {Metric.SHADOWS_SAMPLED: counts.get("sampled", 0)}
        if counts.get("tried"):
            values |= {Metric.SHADOWS_QUEUED: counts.get("queued", 0), Metric.SHADOW_QUEUE_TIME: queue_ms}
        for metric, kind in _REASONED.items():
            reasons = {name.removeprefix(f"{kind}: "): count for name, count in counts.items() if name.startswith(kind)}
            for reason, count in reasons.items():
                emit(self._service, {metric: count}, {Dimension.REASON: reason})
            if reasons:
                values[metric] = sum(reasons.values())
        emit(self._service, values)

    def log_request(self, line: bytes) -> None:
        """Log a request by its line; the log adds the time."""
        self._logger.info("request", extra={name: value for name, value in json.loads(line).items() if name != "time"})

    def end(self, status: int, bundle_age_s: float | None, open_breakers: int) -> None:
        """Log a failure of the request, and emit its metrics."""
        served = self._served
        values: dict[Metric, float] = {
            Metric.REQUESTS: 1,
            Metric.CLIENT_ERRORS: int(400 <= status < 500),
            Metric.LIMITED: int(status == _LIMITED),
            Metric.SEQUENCES_REFUSED: int(status == _OF_SEQUENCES),
            Metric.SERVER_ERRORS: int(status >= 500),
            Metric.FALLBACKS: int(served is not None and served.is_fallback),
            Metric.COLD_STARTS: int(self._cold),
            Metric.OPEN_BREAKERS: open_breakers,
        }
        if bundle_age_s is not None:
            values[Metric.BUNDLE_AGE_SECONDS] = bundle_age_s
        if served is not None:
            if status >= 500 or served.is_fallback:
                self._warn(served, status)
            self._emit_by_objective(served)
            if self._by_rule:
                self._emit_by_rule(served)
            if served.caller is not None:
                self._emit_by_origin(served, served.caller)
            values |= _times(served)
        emit(self._service, {metric: value for metric, value in values.items() if self._service in metric.functions})
        self._cold = False

    def _warn(self, served: Served, status: int) -> None:
        self._logger.warning(
            "a fallback answered" if served.is_fallback else "an inference failed",
            extra={
                "objective": served.decision.objective,
                "rule": served.decision.rule,
                "status": status,
                "failed_attempts": served.failed_attempts,
            },
        )

    def _emit_by_origin(self, served: Served, caller: str) -> None:
        pair = _bounded((caller, served.traffic.value), self._origins)
        values: dict[Metric, float] = {Metric.REQUESTS: 1, Metric.SERVER_ERRORS: int(served.status >= 500)}
        emit(self._service, values, {Dimension.CALLER: pair[0], Dimension.TRAFFIC: pair[1]})

    def _emit_by_objective(self, served: Served) -> None:
        pair = _bounded((served.decision.objective, served.decision.variant or NO_VARIANT), self._reported)
        values: dict[Metric, float] = {
            Metric.REQUESTS: 1,
            Metric.FALLBACKS: int(served.is_fallback),
            Metric.FAILED_ATTEMPTS: served.failed_attempts,
            Metric.HEDGES: int(served.hedge is not None),
            Metric.HEDGES_WON: int(served.hedge is Hedge.WON),
            Metric.SERVER_ERRORS: int(served.status >= 500),
            **_times(served),
        }
        emit(self._service, values, {Dimension.OBJECTIVE: pair[0], Dimension.VARIANT: pair[1]})

    def _emit_by_rule(self, served: Served) -> None:
        decision, target = served.decision, served.target or served.decision.target
        by_rule = (decision.objective, decision.rule, decision.variant or NO_VARIANT, target.model)
        values: dict[Metric, float] = {
            Metric.SERVER_ERRORS: int(served.status >= 500),
            Metric.FALLBACKS: int(served.is_fallback),
            Metric.DISPATCH_TIME: served.dispatch_ms,
        }
        for dimensions, named in (
            (BY_OBJECTIVE, _bounded((decision.objective,), self._objectives)),
            (BY_RULE, _bounded(by_rule, self._rules)),
        ):
            # Powertools adds the first, the function.
            emit(self._service, values, dict(zip(dimensions[1:], named, strict=True)))


def _bounded(values: tuple[str, ...], reported: set[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the values to report: `OTHER` for a new combination once enough have been reported."""
    if values not in reported:
        if len(reported) >= MOST_DIMENSIONS:
            values = (OTHER,) * len(values)
        reported.add(values)
    return values


def _times(served: Served) -> dict[Metric, float]:
    times = {Metric.DECIDE_TIME: served.decide_ms, Metric.DISPATCH_TIME: served.dispatch_ms}
    return {**times, Metric.TRITON_TIME: served.triton_ms} if served.triton_ms else times
