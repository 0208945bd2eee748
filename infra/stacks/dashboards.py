"""One dashboard per concern: requests, fleet, control plane. They name metrics by names alone, never by another stack's
resources, so that no dashboard holds up a change."""

from __future__ import annotations

from collections.abc import Iterable

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct
from tidegate.metrics import BY_REASON, BY_VARIANT, Metric

from infra.shards import ENVOY, Shard
from infra.stacks.metrics import (
    MINUTE,
    added_up,
    emitted,
    of_api,
    of_function,
    of_service,
    probed,
    queue_time_ratio,
    searched,
    waiting_messages,
)
from infra.stacks.parts import Stage

HTTP_FUNCTIONS = ("gateway", "resolve")
EVENT_FUNCTIONS = ("validate_rules", "reconcile", "probe", "rollback")
SERVICE_METRICS = ("CPUUtilization", "MemoryUtilization")
MAX_SHARDS_PER_GRAPH = 100
"""Most lines of a graph: it can show 500 metrics, but more than a hundred cannot be distinguished."""


def add_dashboards(scope: Construct, *, stage: Stage, shards: Iterable[Shard], api_id: str | None) -> None:
    """Add the three dashboards of a stage."""
    for name, widgets in (
        ("requests", _requests(stage, api_id)),
        ("fleet", _fleet(stage, list(shards))),
        ("control", _control(stage)),
    ):
        dashboard = cloudwatch.Dashboard(
            scope,
            f"{name.title()}Dashboard",
            dashboard_name=stage.called(name),
            default_interval=cdk.Duration.hours(3),
        )
        for row in widgets:
            dashboard.add_widgets(*row)


def _graph(
    title: str, *metrics: cloudwatch.IMetric, right: Iterable[cloudwatch.IMetric] = ()
) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(title=title, left=list(metrics), right=list(right), width=12, height=6)


def _emitted(stage: Stage, metric: Metric, function: str, statistic: str) -> cloudwatch.Metric:
    return emitted(stage, metric, function, statistic).with_(label=f"{metric.metric_name} ({function})")


def _of_functions(stage: Stage, name: str, functions: Iterable[str], *statistics: str) -> list[cloudwatch.Metric]:
    return [
        of_function(stage, function, name, statistic).with_(label=f"{function} {statistic}")
        for function in functions
        for statistic in statistics
    ]


def _requests(stage: Stage, api_id: str | None) -> list[list[cloudwatch.IWidget]]:
    rows: list[list[cloudwatch.IWidget]] = []
    if api_id is not None:

        def api(name: str, statistic: str) -> cloudwatch.Metric:
            return of_api(api_id, name, statistic).with_(label=f"{name} {statistic}")

        rows.append(
            [
                _graph("Requests and errors", api("Count", "Sum"), right=[api("4xx", "Sum"), api("5xx", "Sum")]),
                _graph("Latency, ms", *(api("Latency", each) for each in ("p50", "p90", "p99"))),
            ]
        )
    if stage.settings.data_plane == "envoy":
        rows.append(_envoy(stage))
    rows += [
        [
            _graph(
                "Fallbacks",
                _emitted(stage, Metric.REQUESTS, "gateway", "Sum"),
                right=[_emitted(stage, Metric.FALLBACKS, "gateway", "Sum")],
            ),
            _graph(
                "Age of the rules, s",
                *(_emitted(stage, Metric.BUNDLE_AGE_SECONDS, function, "Maximum") for function in HTTP_FUNCTIONS),
            ),
        ],
        [
            _graph(
                "Refused: over a limit, by their sequence",
                *(_emitted(stage, Metric.LIMITED, function, "Sum") for function in HTTP_FUNCTIONS),
                right=[_emitted(stage, Metric.SEQUENCES_REFUSED, "gateway", "Sum")],
            ),
            _graph(
                "Attempts that failed; hedges",
                *(
                    added_up(stage, metric, BY_VARIANT, "gateway", metric.metric_name)
                    for metric in (Metric.FAILED_ATTEMPTS, Metric.HEDGES, Metric.HEDGES_WON)
                ),
                right=[_emitted(stage, Metric.OPEN_BREAKERS, "gateway", "Maximum")],
            ),
        ],
        [
            _graph("HTTP functions, ms", *_of_functions(stage, "Duration", HTTP_FUNCTIONS, "p50", "p99")),
            _graph(
                "Concurrency and throttles",
                *_of_functions(stage, "ConcurrentExecutions", HTTP_FUNCTIONS, "Maximum"),
                right=_of_functions(stage, "Throttles", HTTP_FUNCTIONS, "Sum"),
            ),
        ],
    ]
    return rows


def _envoy(stage: Stage) -> list[cloudwatch.IWidget]:
    return [
        _graph(
            "Envoy: requests; fallbacks, without a decision",
            _emitted(stage, Metric.REQUESTS, ENVOY, "Sum"),
            right=[_emitted(stage, metric, ENVOY, "Sum") for metric in (Metric.FALLBACKS, Metric.UNDECIDED)],
        ),
        _graph(
            "Envoy: CPU and memory, percent",
            *(of_service(stage, ENVOY, name, "Average") for name in SERVICE_METRICS),
        ),
    ]


def _fleet(stage: Stage, shards: list[Shard]) -> list[list[cloudwatch.IWidget]]:
    shown = shards[:MAX_SHARDS_PER_GRAPH]

    def of_probe(metric: Metric, statistic: str, of: Iterable[Shard] = shown) -> list[cloudwatch.IMetric]:
        return [probed(stage, metric, shard.name, statistic).with_(label=shard.name) for shard in of]

    with_gpus = [shard for shard in shown if shard.gpus]
    queues = [queue_time_ratio(stage, shard.name).with_(label=shard.name) for shard in shown]
    # The balancers' own figures do not tell them from requests.
    included = ", with polls of the pointer" if stage.settings.pointer_cache else ""
    balancers = "{AWS/ApplicationELB,LoadBalancer}"
    named = f'"app/tidegate-{stage.name}-"'

    def search(metric: str, statistic: str) -> cloudwatch.MathExpression:
        return cloudwatch.MathExpression(
            expression=f"SEARCH('{balancers} MetricName=\"{metric}\" {named}', '{statistic}', 60)",
            label="",
            period=MINUTE,
        )

    return [
        [
            _graph("Time in queue per time in compute", *queues),
            _graph("Ready endpoints", *of_probe(Metric.READY_ENDPOINTS, "Minimum")),
        ],
        [
            _graph("GPUs busy, percent", *of_probe(Metric.GPU_UTILISATION, "Average", with_gpus)),
            _graph(
                "Memory of the fullest GPU, percent; broken GPUs",
                *of_probe(Metric.GPU_MEMORY_USED, "Maximum", with_gpus),
                right=of_probe(Metric.GPU_FAULTS, "Maximum", with_gpus),
            ),
        ],
        [
            _graph(f"Requests by shard{included}", search("RequestCount", "Sum")),
            _graph(f"Time of servers, p99, s{included}", search("TargetResponseTime", "p99")),
        ],
        [
            _graph(f"Server errors by shard{included}", search("HTTPCode_Target_5XX_Count", "Sum")),
            _graph(f"Requests without a server{included}", search("HTTPCode_ELB_503_Count", "Sum")),
        ],
    ]


def _control(stage: Stage) -> list[list[cloudwatch.IWidget]]:
    with_shadows = stage.settings.shadows
    others = {"shadow": with_shadows, "console": stage.settings.console is not None}
    functions = (*EVENT_FUNCTIONS, *(name for name, there in others.items() if there))
    queues = ("reconcile", "validate-rules", "reconcile-dead", "validate-rules-dead", "dead", "shadow", "shadow-dead")
    shadows: list[list[cloudwatch.IWidget]] = (
        [
            [
                _graph(
                    "Shadows",
                    *(
                        _emitted(stage, metric, "gateway", "Sum")
                        for metric in (Metric.SHADOWS_SAMPLED, Metric.SHADOWS_QUEUED)
                    ),
                    *(
                        _emitted(stage, metric, "shadow", "Sum")
                        for metric in (Metric.SHADOWS_SENT, Metric.SHADOWS_FAILED, Metric.SHADOWS_REPEATED)
                    ),
                ),
                _graph(
                    "Copies dropped; sending to the queue, ms",
                    *(_emitted(stage, Metric.SHADOWS_DROPPED, function, "Sum") for function in ("gateway", "shadow")),
                    right=[_emitted(stage, Metric.SHADOW_QUEUE_TIME, "gateway", "p99")],
                ),
            ],
            [
                _graph(
                    "Requests of which no copy is made, by reason",
                    searched(stage, Metric.SHADOWS_LEFT_OUT, BY_REASON, "gateway", "Sum"),
                ),
                _graph(
                    "Copies dropped, by reason",
                    *(
                        searched(stage, Metric.SHADOWS_DROPPED, BY_REASON, function, "Sum")
                        for function in ("gateway", "shadow")
                    ),
                ),
            ],
        ]
        if with_shadows
        else []
    )
    return [
        *shadows,
        [
            _graph("Runs", *_of_functions(stage, "Invocations", functions, "Sum")),
            _graph("Errors", *_of_functions(stage, "Errors", functions, "Sum")),
        ],
        [
            _graph("Time, ms", *_of_functions(stage, "Duration", functions, "Maximum")),
            _graph("Messages in queues", *(waiting_messages(stage, name).with_(label=name) for name in queues)),
        ],
        [
            _graph("Rollbacks by alarms", _emitted(stage, Metric.ROLLBACKS, "rollback", "Sum")),
            _graph(
                "Reconciling",
                *(_emitted(stage, metric, "reconcile", "Sum") for metric in (Metric.CHANGES, Metric.FAILED_LOADS)),
            ),
        ],
    ]
