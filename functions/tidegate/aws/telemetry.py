"""What a function that answers HTTP says of itself: structured logs and metrics, by Powertools.

Metrics are CloudWatch's embedded metric format, two lines a request: one by function, which alarms watch, and one by
objective and variant, which people compare. Neither logs nor metrics hold a value of a context.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from tidegate.ports import Served

DEFAULT_NAMESPACE = "Tidegate"
MOST_DIMENSIONS = 200
"""Distinct pairs of objective and variant that a process reports by name; each is a metric that is paid for."""

OTHER = "other"


def namespace() -> str:
    """The CloudWatch namespace of the metrics, as Powertools' own variable says."""
    return os.environ.get("POWERTOOLS_METRICS_NAMESPACE") or DEFAULT_NAMESPACE


class Telemetry:
    """The logs and metrics of one function.

    Args:
        service: the function's short name: the dimension `service` of its metrics.
        level: of the logs.
    """

    def __init__(self, service: str, level: str = "INFO") -> None:
        self._service = service
        self._logger = Logger(service=service, level=level)
        self._reported: set[tuple[str, str]] = set()
        self._served: list[Served] = []
        self._cold = True
        project = logging.getLogger("tidegate")
        project.handlers = [self._logger.registered_handler]
        project.setLevel(level)
        project.propagate = False
        # Mangum logs each path, and a path is the caller's.
        logging.getLogger("mangum").setLevel(logging.WARNING)

    def begin(self, event: object, request_id: str) -> None:
        """Begin a request: what is logged from here on carries its ids."""
        self._served.clear()
        context = event.get("requestContext") if isinstance(event, Mapping) else None
        gateway_id = context.get("requestId") if isinstance(context, Mapping) else None
        self._logger.append_keys(correlation_id=str(gateway_id or request_id), request_id=request_id)

    def observe(self, served: Served) -> None:
        """Record an inference that was decided."""
        self._served.append(served)

    def end(self, status: int, bundle_age_s: float | None, open_breakers: int) -> None:
        """End a request: log what went wrong, and put out its metrics.

        Args:
            status: the answer's HTTP status.
            bundle_age_s: how long ago the rules were last known to be the live ones, in seconds.
            open_breakers: endpoints that are being left alone.
        """
        for served in self._served:
            if status >= 500 or served.is_fallback:
                self._logger.warning(
                    "a fallback answered" if served.is_fallback else "an inference failed",
                    extra={
                        "objective": served.decision.objective,
                        "rule": served.decision.rule,
                        "status": status,
                        "failed_attempts": served.failed_attempts,
                    },
                )
            self._by_objective(served)
        self._by_function(status, bundle_age_s, open_breakers)
        self._cold = False

    def _by_function(self, status: int, bundle_age_s: float | None, open_breakers: int) -> None:
        metrics = EphemeralMetrics(namespace=namespace(), service=self._service)
        metrics.add_metric("Requests", MetricUnit.Count, 1)
        metrics.add_metric("ClientErrors", MetricUnit.Count, int(400 <= status < 500))
        metrics.add_metric("ServerErrors", MetricUnit.Count, int(status >= 500))
        metrics.add_metric("Fallbacks", MetricUnit.Count, sum(served.is_fallback for served in self._served))
        metrics.add_metric("ColdStarts", MetricUnit.Count, int(self._cold))
        metrics.add_metric("OpenBreakers", MetricUnit.Count, open_breakers)
        if bundle_age_s is not None:
            metrics.add_metric("BundleAgeSeconds", MetricUnit.Seconds, bundle_age_s)
        for served in self._served:
            _add_times(metrics, served)
        metrics.flush_metrics()

    def _by_objective(self, served: Served) -> None:
        pair = (served.decision.objective, served.decision.variant or "none")
        if pair not in self._reported:
            if len(self._reported) >= MOST_DIMENSIONS:
                pair = (OTHER, OTHER)
            self._reported.add(pair)
        metrics = EphemeralMetrics(namespace=namespace(), service=self._service)
        metrics.add_dimension("Objective", pair[0])
        metrics.add_dimension("Variant", pair[1])
        metrics.add_metric("Requests", MetricUnit.Count, 1)
        metrics.add_metric("Fallbacks", MetricUnit.Count, int(served.is_fallback))
        metrics.add_metric("FailedAttempts", MetricUnit.Count, served.failed_attempts)
        metrics.add_metric("ServerErrors", MetricUnit.Count, int(served.status >= 500))
        _add_times(metrics, served)
        metrics.flush_metrics()


def _add_times(metrics: EphemeralMetrics, served: Served) -> None:
    metrics.add_metric("DecideTime", MetricUnit.Milliseconds, served.decide_ms)
    metrics.add_metric("DispatchTime", MetricUnit.Milliseconds, served.dispatch_ms)
    if served.triton_ms:
        metrics.add_metric("TritonTime", MetricUnit.Milliseconds, served.triton_ms)
