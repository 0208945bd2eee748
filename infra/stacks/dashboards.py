"""One dashboard per concern: requests, fleet, control plane. They name metrics by names alone, never by another stack's
resources, so that a dashboard is in nobody's way."""

from __future__ import annotations

from collections.abc import Iterable

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from infra.contract import (
    BUNDLE_AGE,
    CHANGES,
    FAILED_LOADS,
    FALLBACKS,
    GPU_FAULTS,
    GPU_MEMORY_USED,
    GPU_UTILISATION,
    READY_ENDPOINTS,
    REQUESTS,
    ROLLBACKS,
    SERVICE_DIMENSION,
)
from infra.shards import Shard
from infra.stacks.parts import Stage
from infra.stacks.shard.scaling import probe_dimensions, queue_time_ratio

MINUTE = cdk.Duration.minutes(1)
FUNCTIONS = ("gateway", "resolve", "validate_rules", "reconcile", "probe", "rollback")
MAX_SHARDS_PER_GRAPH = 100
"""A graph shows at most 500 metrics; beyond a hundred lines nobody tells them apart."""


def add_dashboards(scope: Construct, *, stage: Stage, shards: Iterable[Shard], api_id: str | None) -> None:
    """The three dashboards of a stage."""
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


def _own(stage: Stage, name: str, service: str, statistic: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=stage.settings.metrics_namespace,
        metric_name=name,
        dimensions_map={SERVICE_DIMENSION: service},
        statistic=statistic,
        label=f"{name} ({service})",
        period=MINUTE,
    )


def _function(stage: Stage, name: str, metric: str, statistic: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace="AWS/Lambda",
        metric_name=metric,
        dimensions_map={"FunctionName": stage.called(name.replace("_", "-"))},
        statistic=statistic,
        label=f"{name} {statistic}",
        period=MINUTE,
    )


def _requests(stage: Stage, api_id: str | None) -> list[list[cloudwatch.IWidget]]:
    rows: list[list[cloudwatch.IWidget]] = []
    if api_id is not None:
        of_api = {"ApiId": api_id}

        def api(name: str, statistic: str) -> cloudwatch.Metric:
            return cloudwatch.Metric(
                namespace="AWS/ApiGateway",
                metric_name=name,
                dimensions_map=of_api,
                statistic=statistic,
                label=f"{name} {statistic}",
                period=MINUTE,
            )

        rows.append(
            [
                _graph("Requests and errors", api("Count", "Sum"), right=[api("4xx", "Sum"), api("5xx", "Sum")]),
                _graph("Latency, ms", *(api("Latency", each) for each in ("p50", "p90", "p99"))),
            ]
        )
    rows += [
        [
            _graph(
                "Fallbacks",
                _own(stage, REQUESTS, "gateway", "Sum"),
                right=[_own(stage, FALLBACKS, "gateway", "Sum")],
            ),
            _graph(
                "Age of the rules, s", *(_own(stage, BUNDLE_AGE, door, "Maximum") for door in ("gateway", "resolve"))
            ),
        ],
        [
            _graph(
                "Doors, ms",
                *(
                    _function(stage, door, "Duration", each)
                    for door in ("gateway", "resolve")
                    for each in ("p50", "p99")
                ),
            ),
            _graph(
                "Concurrency and throttles",
                *(_function(stage, door, "ConcurrentExecutions", "Maximum") for door in ("gateway", "resolve")),
                right=[_function(stage, door, "Throttles", "Sum") for door in ("gateway", "resolve")],
            ),
        ],
    ]
    return rows


def _fleet(stage: Stage, shards: list[Shard]) -> list[list[cloudwatch.IWidget]]:
    shown = shards[:MAX_SHARDS_PER_GRAPH]

    def of_probe(name: str, statistic: str, of: Iterable[Shard] = shown) -> list[cloudwatch.IMetric]:
        return [
            cloudwatch.Metric(
                namespace=stage.settings.metrics_namespace,
                metric_name=name,
                dimensions_map=probe_dimensions(shard.name),
                statistic=statistic,
                label=shard.name,
                period=MINUTE,
            )
            for shard in of
        ]

    with_gpus = [shard for shard in shown if shard.gpus]
    queues = [queue_time_ratio(stage, shard.name).with_(label=shard.name) for shard in shown]
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
            _graph("Ready endpoints", *of_probe(READY_ENDPOINTS, "Minimum")),
        ],
        [
            _graph("GPUs busy, percent", *of_probe(GPU_UTILISATION, "Average", with_gpus)),
            _graph(
                "Memory of the fullest GPU, percent; broken GPUs",
                *of_probe(GPU_MEMORY_USED, "Maximum", with_gpus),
                right=of_probe(GPU_FAULTS, "Maximum", with_gpus),
            ),
        ],
        [
            _graph("Requests by shard", search("RequestCount", "Sum")),
            _graph("Time of servers, p99, s", search("TargetResponseTime", "p99")),
        ],
        [
            _graph("Server errors by shard", search("HTTPCode_Target_5XX_Count", "Sum")),
            _graph("Requests without a server", search("HTTPCode_ELB_503_Count", "Sum")),
        ],
    ]


def _control(stage: Stage) -> list[list[cloudwatch.IWidget]]:
    queues = ("reconcile", "validate-rules", "reconcile-dead", "validate-rules-dead", "dead")
    depth = [
        cloudwatch.Metric(
            namespace="AWS/SQS",
            metric_name="ApproximateNumberOfMessagesVisible",
            dimensions_map={"QueueName": stage.called(name)},
            statistic="Maximum",
            label=name,
            period=MINUTE,
        )
        for name in queues
    ]
    beside = FUNCTIONS[2:]
    return [
        [
            _graph("Runs", *(_function(stage, name, "Invocations", "Sum") for name in beside)),
            _graph("Errors", *(_function(stage, name, "Errors", "Sum") for name in beside)),
        ],
        [
            _graph("Time, ms", *(_function(stage, name, "Duration", "Maximum") for name in beside)),
            _graph("Messages in queues", *depth),
        ],
        [
            _graph("Rollbacks by alarms", _own(stage, ROLLBACKS, "rollback", "Sum")),
            _graph("Reconciling", *(_own(stage, name, "reconcile", "Sum") for name in (CHANGES, FAILED_LOADS))),
        ],
    ]
