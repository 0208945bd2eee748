"""The metrics of the serverless functions, for the code, the alarms, the dashboards and the documentation.

    python -m tidegate.metrics

prints the table of docs/functions.md.
"""

from __future__ import annotations

import sys
from enum import Enum, StrEnum


class Unit(StrEnum):
    COUNT = "Count"
    SECONDS = "Seconds"
    MILLISECONDS = "Milliseconds"
    PERCENT = "Percent"
    NONE = "None"


class Dimension(StrEnum):
    """CloudWatch finds a metric only by all the dimensions that it was emitted with."""

    SERVICE = "service"
    """The function's name; Powertools adds it to every metric."""

    OBJECTIVE = "Objective"
    VARIANT = "Variant"
    SHARD = "Shard"
    MODEL = "Model"
    REASON = "Reason"
    CALLER = "Caller"
    TRAFFIC = "Traffic"


_SERVICE = (Dimension.SERVICE,)
_VARIANT = (Dimension.SERVICE, Dimension.OBJECTIVE, Dimension.VARIANT)
_REASON = (Dimension.SERVICE, Dimension.REASON)
_ORIGIN = (Dimension.SERVICE, Dimension.CALLER, Dimension.TRAFFIC)
_SHARD = (Dimension.SERVICE, Dimension.SHARD)
_MODEL = (Dimension.SERVICE, Dimension.SHARD, Dimension.MODEL)

_GATEWAY = ("gateway",)
_HTTP = ("gateway", "resolve")
_PROBE = ("probe",)
_RECONCILE = ("reconcile",)
_VALIDATE = ("validate_rules",)


class Metric(Enum):
    """A metric: its unit, the functions that emit it, with which sets of dimensions, and its meaning."""

    REQUESTS = Unit.COUNT, _HTTP, (_SERVICE, _VARIANT, _ORIGIN), "Requests that were answered."
    CLIENT_ERRORS = Unit.COUNT, _HTTP, (_SERVICE,), "Answers with a 4xx status."
    LIMITED = Unit.COUNT, _HTTP, (_SERVICE,), "Requests above a limit (429)."
    SERVER_ERRORS = Unit.COUNT, _HTTP, (_SERVICE, _VARIANT, _ORIGIN), "Answers with a 5xx status."
    FALLBACKS = Unit.COUNT, _GATEWAY, (_SERVICE, _VARIANT), "Requests that a fallback answered."
    FAILED_ATTEMPTS = Unit.COUNT, _GATEWAY, (_VARIANT,), "Attempts that failed before one answered."
    HEDGES = Unit.COUNT, _GATEWAY, (_VARIANT,), "Requests that a second endpoint was asked for too."
    HEDGES_WON = Unit.COUNT, _GATEWAY, (_VARIANT,), "Of these, those that the second endpoint answered."
    DECIDE_TIME = Unit.MILLISECONDS, _GATEWAY, (_SERVICE, _VARIANT), "Reading the context and deciding."
    DISPATCH_TIME = Unit.MILLISECONDS, _GATEWAY, (_SERVICE, _VARIANT), "From the decision to the answer."
    TRITON_TIME = Unit.MILLISECONDS, _GATEWAY, (_SERVICE, _VARIANT), "The attempt that answered."
    OPEN_BREAKERS = Unit.COUNT, _GATEWAY, (_SERVICE,), "Endpoints whose breaker is open."
    BUNDLE_AGE_SECONDS = Unit.SECONDS, _HTTP, (_SERVICE,), "Time since the rules were last known to be live."
    COLD_STARTS = Unit.COUNT, _HTTP, (_SERVICE,), "First requests of an execution environment."
    SHADOWS_SAMPLED = Unit.COUNT, _GATEWAY, (_SERVICE,), "Requests that a shadow sampled."
    SHADOWS_LEFT_OUT = Unit.COUNT, _GATEWAY, (_SERVICE, _REASON), "Sampled requests that are never copied."
    SHADOWS_QUEUED = Unit.COUNT, _GATEWAY, (_SERVICE,), "Copies that were sent to the queue."
    SHADOW_QUEUE_TIME = Unit.MILLISECONDS, _GATEWAY, (_SERVICE,), "Sending a request's copies to the queue."
    SHADOWS_DROPPED = (
        Unit.COUNT,
        ("gateway", "shadow"),
        (_SERVICE, _REASON),
        "Copies that were dropped under pressure.",
    )
    SHADOWS_REPEATED = (
        Unit.COUNT,
        ("shadow",),
        (_SERVICE,),
        "Messages that were delivered again, and not carried out again.",
    )
    SHADOWS_SENT = Unit.COUNT, ("shadow",), (_SERVICE,), "Copies that were sent to their shadow."
    SHADOWS_FAILED = Unit.COUNT, ("shadow",), (_SERVICE,), "Copies without an answer of status 200."
    QUEUE_TIME_RATIO = Unit.NONE, _PROBE, (_SHARD, _MODEL), "Time in queues per time of compute."
    GPU_UTILISATION = Unit.PERCENT, _PROBE, (_SHARD,), "Mean utilisation of the GPUs."
    GPU_MEMORY_USED = Unit.PERCENT, _PROBE, (_SHARD,), "Used memory of the fullest GPU."
    GPU_FAULTS = Unit.COUNT, _PROBE, (_SHARD,), "Broken GPUs; only with the DCGM exporter."
    READY_ENDPOINTS = Unit.COUNT, _PROBE, (_SHARD,), "Endpoints that are ready."
    UNREACHABLE_ENDPOINTS = Unit.COUNT, _PROBE + _RECONCILE, (_SHARD, _SERVICE), "Endpoints that do not answer."
    REFUSED_ENDPOINTS = Unit.COUNT, _RECONCILE, (_SERVICE,), "Registered endpoints that are not trusted."
    PROBLEMS = Unit.COUNT, _RECONCILE, (_SERVICE,), "What is lost or damaged in the stores."
    CHANGES = Unit.COUNT, _RECONCILE, (_SERVICE,), "Loads and unloads of a reconcile."
    FAILED_LOADS = Unit.COUNT, _RECONCILE, (_SERVICE,), "Loads that failed, or wait to be tried again."
    ROLLBACKS = Unit.COUNT, ("rollback",), (_SERVICE,), "Rollbacks by alarms."
    IGNORED_EVENTS = (
        Unit.COUNT,
        ("reconcile", "rollback", "validate_rules"),
        (_SERVICE,),
        "Events that ask for nothing.",
    )
    ACCEPTED_RULES = Unit.COUNT, _VALIDATE, (_SERVICE,), "Archives of rules that were accepted."
    REFUSED_RULES = Unit.COUNT, _VALIDATE, (_SERVICE,), "Archives of rules that were refused."
    VALIDATION_TIME = Unit.MILLISECONDS, _VALIDATE, (_SERVICE,), "Reading and judging an archive of rules."

    def __init__(
        self, unit: Unit, functions: tuple[str, ...], dimensions: tuple[tuple[Dimension, ...], ...], meaning: str
    ) -> None:
        self.unit = unit
        self.functions = functions
        self.dimensions = dimensions
        self.meaning = meaning

    @property
    def metric_name(self) -> str:
        """The name in CloudWatch."""
        return self.name.title().replace("_", "")


def markdown_table() -> str:
    """Return the table of docs/functions.md."""
    lines = ["| metric | unit | from | by | meaning |", "|---|---|---|---|---|"]
    for metric in Metric:
        by = "; ".join(
            " and ".join(each.lower() for each in dimensions[1:] or dimensions) for dimensions in metric.dimensions
        )
        lines.append(
            f"| `{metric.metric_name}` | {metric.unit} | {', '.join(metric.functions)} | {by} | {metric.meaning} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.stdout.write(markdown_table())
