"""The panels of the Grafana dashboard, and their queries in PromQL; each name and label is one of the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tidegate.metrics.definitions import Kind, Label
from tidegate.metrics.table import Metric

_RATE = "$__rate_interval"


class Panel(NamedTuple):
    """A graph: its title, Grafana's unit, and the legend and PromQL of each line."""

    title: str
    unit: str
    lines: Sequence[tuple[str, str]]
    stacked: bool = False


def sample_of(metric: Metric, suffix: str = "") -> str:
    """Return the name of the samples of a metric."""
    exposed = metric.exposed
    assert exposed is not None, metric
    return exposed.sample + suffix


def _selected(metric: Metric, where: str = "", suffix: str = "") -> str:
    """Return the selector of a metric, of the chosen objectives where it has some."""
    exposed = metric.exposed
    assert exposed is not None, metric
    chosen = [f'{Label.OBJECTIVE}=~"$objective"'] if Label.OBJECTIVE in exposed.labels else []
    matchers = ",".join([*chosen, *([where] if where else [])])
    return f"{sample_of(metric, suffix)}{{{matchers}}}" if matchers else sample_of(metric, suffix)


def _rate(metric: Metric, *by: Label, where: str = "", suffix: str = "") -> str:
    """Return the sum of a counter's rates, by labels."""
    return f"sum{_by(metric, by)} (rate({_selected(metric, where, suffix)}[{_RATE}]))"


def _sum(metric: Metric, *by: Label, where: str = "") -> str:
    return f"sum{_by(metric, by)} ({_selected(metric, where)})"


def _by(metric: Metric, by: Sequence[Label]) -> str:
    exposed = metric.exposed
    assert exposed is not None, metric
    assert set(by) <= set(exposed.labels), (metric, by)
    return f" by ({', '.join(by)})" if by else ""


def _quantile(metric: Metric, share: float, *by: Label) -> str:
    exposed = metric.exposed
    assert exposed is not None, metric
    assert exposed.kind is Kind.HISTOGRAM, metric
    assert set(by) <= set(exposed.labels), (metric, by)
    buckets = f"rate({_selected(metric, suffix='_bucket')}[{_RATE}])"
    return f"histogram_quantile({share}, sum by ({', '.join(('le', *by))}) ({buckets}))"


def _share(metric: Metric, where: str, *by: Label) -> str:
    return f"{_rate(metric, *by, where=where)} / {_rate(metric, *by)}"


def _outcome(name: str) -> str:
    return f'{Label.OUTCOME}="{name}"'


def _legend(*labels: Label) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def rows() -> Iterator[tuple[str, list[Panel]]]:
    """Yield the rows of the dashboard: the title of each, and its panels."""
    yield "Inferences and requests", _requests()
    yield "Rules and variants", _rules()
    yield "Steps of ensembles, by the servers' own statistics", _steps()
    yield "Fleet", _fleet()
    yield "Rules, shadows and processes", _stack()


def _requests() -> list[Panel]:
    objective = _legend(Label.OBJECTIVE)
    duration = Metric.REQUEST_DURATION
    return [
        Panel("Inferences by objective", "reqps", [(objective, _rate(Metric.REQUESTS, Label.OBJECTIVE))]),
        Panel(
            "Server errors and fallbacks, share",
            "percentunit",
            [
                (f"{objective} errors", _share(Metric.REQUESTS, _outcome("server_error"), Label.OBJECTIVE)),
                (f"{objective} fallbacks", _share(Metric.REQUESTS, _outcome("fallback"), Label.OBJECTIVE)),
            ],
        ),
        Panel(
            "Latency",
            "s",
            [(f"{objective} p{share * 100:g}", _quantile(duration, share, Label.OBJECTIVE)) for share in (0.5, 0.99)],
        ),
        Panel(
            "Where the time goes, per inference",
            "s",
            [
                (name, f"{_rate(metric)} / {_rate(Metric.REQUESTS)}")
                for name, metric in (("deciding", Metric.DECIDE_TIME), ("Triton", Metric.TRITON_TIME))
            ]
            + [("whole", f"{_rate(duration, suffix='_sum')} / {_rate(duration, suffix='_count')}")],
        ),
        Panel(
            "All HTTP requests by status",
            "reqps",
            [(_legend(Label.HTTP_STATUS), _rate(Metric.HTTP_DURATION, Label.HTTP_STATUS, suffix="_count"))],
            stacked=True,
        ),
        Panel(
            "Failed attempts and hedges",
            "reqps",
            [
                (f"{objective} failed attempts", _rate(Metric.FAILED_ATTEMPTS, Label.OBJECTIVE)),
                (f"{objective} hedges", _rate(Metric.HEDGES, Label.OBJECTIVE)),
                (f"{objective} hedges won", _rate(Metric.HEDGES_WON, Label.OBJECTIVE)),
            ],
        ),
    ]


def _rules() -> list[Panel]:
    rule = (Label.OBJECTIVE, Label.RULE)
    variant = (Label.OBJECTIVE, Label.RULE, Label.VARIANT)
    return [
        Panel("Inferences by rule", "reqps", [(_legend(*rule), _rate(Metric.REQUESTS, *rule))], stacked=True),
        Panel(
            "Inferences by variant",
            "reqps",
            [(_legend(*variant), _rate(Metric.REQUESTS, *variant, where=f'{Label.VARIANT}!=""'))],
            stacked=True,
        ),
        Panel("p99 by variant", "s", [(_legend(*variant), _quantile(Metric.REQUEST_DURATION, 0.99, *variant))]),
        Panel(
            "Server errors by variant, share",
            "percentunit",
            [(_legend(*variant), _share(Metric.REQUESTS, _outcome("server_error"), *variant))],
        ),
    ]


def _steps() -> list[Panel]:
    model = Label.MODEL
    requests = _rate(Metric.STEP_REQUESTS, model)
    times = (
        ("queue", Metric.STEP_QUEUE_TIME),
        ("input", Metric.STEP_INPUT_TIME),
        ("infer", Metric.STEP_INFER_TIME),
        ("output", Metric.STEP_OUTPUT_TIME),
    )
    return [
        Panel(
            "Time of a step, per request",
            "s",
            [(f"{_legend(model)} {name}", f"{_rate(metric, model)} / {requests}") for name, metric in times],
        ),
        Panel("Requests of a step", "reqps", [(_legend(model), requests)]),
        Panel(
            "Failed requests of a step",
            "reqps",
            [(_legend(model), _rate(Metric.STEP_REQUESTS, model, where=f'{Label.RESULT}="fail"'))],
        ),
        Panel(
            "Requests in a batch",
            "short",
            [(_legend(model), f"{requests} / {_rate(Metric.STEP_EXECUTIONS, model)}")],
        ),
    ]


def _fleet() -> list[Panel]:
    shard, endpoint, model = Label.SHARD, Label.ENDPOINT, Label.MODEL
    return [
        Panel(
            "Endpoints",
            "short",
            [
                (f"{_legend(shard)} ready", _sum(Metric.ENDPOINTS, shard, where=f'{Label.STATE}="ready"')),
                (f"{_legend(shard)} wanted", _sum(Metric.WANTED_ENDPOINTS, shard)),
            ],
        ),
        Panel(
            "Requests at an endpoint, and in its queues",
            "short",
            [
                (f"{_legend(endpoint)} outstanding", _sum(Metric.OUTSTANDING, endpoint)),
                (f"{_legend(endpoint)} queued", _sum(Metric.QUEUED, endpoint)),
            ],
        ),
        Panel(
            "In flight, of the limit",
            "percentunit",
            [
                (
                    _legend(model, endpoint),
                    f"{_sum(Metric.IN_FLIGHT, model, endpoint)} / {_sum(Metric.IN_FLIGHT_LIMIT, model, endpoint)}",
                )
            ],
        ),
        Panel(
            "Open breakers",
            "short",
            [(_legend(model, endpoint), f"{_sum(Metric.OPEN_BREAKERS, model, endpoint)} > 0")],
        ),
        Panel(
            "Restarts and reloads",
            "short",
            [
                (f"{_legend(shard)} servers", _sum(Metric.SERVER_RESTARTS, shard)),
                (f"{_legend(model)} reloads", _sum(Metric.MODEL_RELOADS, model)),
                ("gateway", _sum(Metric.GATEWAY_RESTARTS)),
            ],
        ),
        Panel(
            "Problems and drift",
            "short",
            [
                ("problems", _sum(Metric.PROBLEMS)),
                ("degraded", _sum(Metric.DEGRADED)),
                ("drift", _sum(Metric.CHANGES)),
                ("failed loads", _sum(Metric.FAILED_LOADS)),
            ],
        ),
    ]


def _stack() -> list[Panel]:
    process, reason = Label.PROCESS, Label.REASON
    return [
        Panel("Age of the rules", "s", [("age", f"max ({_selected(Metric.BUNDLE_AGE_SECONDS)})")]),
        Panel(
            "Shadows",
            "reqps",
            [
                ("sampled", _rate(Metric.SHADOWS_SAMPLED)),
                ("sent", _rate(Metric.SHADOWS_SENT)),
                (f"dropped: {_legend(reason)}", _rate(Metric.SHADOWS_DROPPED, reason)),
                (f"failed: {_legend(reason)}", _rate(Metric.SHADOWS_FAILED, reason)),
            ],
        ),
        Panel("CPU", "percentunit", [(_legend(process), _rate(Metric.PROCESS_CPU, process))]),
        Panel("Resident memory", "bytes", [(_legend(process), _sum(Metric.PROCESS_MEMORY, process))]),
        Panel(
            "Lateness of the event loop",
            "s",
            [(_legend(process), f"max by ({process}) ({_selected(Metric.LOOP_LAG)})")],
        ),
        Panel("Open file descriptors", "short", [(_legend(process), _sum(Metric.PROCESS_FILES, process))]),
    ]
