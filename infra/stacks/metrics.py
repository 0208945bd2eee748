"""The CloudWatch metrics that alarms, dashboards and scaling look at, a figure a minute."""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from tidegate.metrics import Dimension, Metric

from infra.stacks.parts import Stage

MINUTE = cdk.Duration.minutes(1)


def emitted(stage: Stage, metric: Metric, function: str, statistic: str) -> cloudwatch.Metric:
    """Return a metric that a function emits."""
    return _own(stage, metric, statistic, {Dimension.SERVICE: function})


def probed(stage: Stage, metric: Metric, shard: str, statistic: str) -> cloudwatch.Metric:
    """Return a metric of a shard that the probe emits."""
    return _own(stage, metric, statistic, {Dimension.SERVICE: "probe", Dimension.SHARD: shard})


def queue_time_ratio(stage: Stage, shard: str) -> cloudwatch.Metric:
    """Return the metric by which a shard scales."""
    return probed(stage, Metric.QUEUE_TIME_RATIO, shard, "Average")


def searched(
    stage: Stage, metric: Metric, dimensions: tuple[Dimension, ...], function: str, statistic: str
) -> cloudwatch.MathExpression:
    """Return every series of a metric that a function emits with these dimensions, whose values only CloudWatch knows.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html
    """
    _check(metric, function, dimensions)
    schema = ",".join(f'"{each}"' for each in (stage.settings.metrics_namespace, *dimensions))
    search = f"SEARCH('{{{schema}}} MetricName=\"{metric.metric_name}\" service=\"{function}\"', '{statistic}', 60)"
    return cloudwatch.MathExpression(expression=search, label="", period=MINUTE)


def added_up(
    stage: Stage, metric: Metric, dimensions: tuple[Dimension, ...], function: str, label: str
) -> cloudwatch.MathExpression:
    """Return the sum over every series of a metric that a function emits with these dimensions."""
    found = searched(stage, metric, dimensions, function, "Sum")
    return cloudwatch.MathExpression(expression=f"SUM({found.expression})", label=label, period=MINUTE)


def of_function(
    stage: Stage, function: str, name: str, statistic: str, period: cdk.Duration = MINUTE
) -> cloudwatch.Metric:
    """Return Lambda's metric of a function."""
    return _metric("AWS/Lambda", name, {"FunctionName": stage.called(function.replace("_", "-"))}, statistic, period)


def of_api(api_id: str, name: str, statistic: str) -> cloudwatch.Metric:
    """Return API Gateway's metric of the HTTP API."""
    return _metric("AWS/ApiGateway", name, {"ApiId": api_id}, statistic)


def percent(stage: Stage, part: cloudwatch.IMetric, whole: cloudwatch.IMetric, label: str) -> cloudwatch.MathExpression:
    """Return `part` in percent of `whole`; 0 if there are too few to judge."""
    fewest = stage.settings.alarms.min_requests
    return cloudwatch.MathExpression(
        expression=f"IF(whole >= {fewest}, 100 * FILL(part, 0) / whole, 0)",
        using_metrics={"part": part, "whole": whole},
        period=MINUTE,
        label=label,
    )


def waiting_messages(stage: Stage, queue: str) -> cloudwatch.Metric:
    """Return the metric of the waiting messages of a queue."""
    return _metric("AWS/SQS", "ApproximateNumberOfMessagesVisible", {"QueueName": stage.called(queue)}, "Maximum")


def oldest_message_s(stage: Stage, queue: str) -> cloudwatch.Metric:
    """Return the metric of how long the oldest message of a queue has waited."""
    return _metric("AWS/SQS", "ApproximateAgeOfOldestMessage", {"QueueName": stage.called(queue)}, "Maximum")


def of_service(stage: Stage, cluster: str, name: str, statistic: str) -> cloudwatch.MathExpression:
    """Return ECS's metric of the one service of a cluster, whose own name only CloudFormation knows."""
    search = (
        f'SEARCH(\'{{AWS/ECS,ClusterName,ServiceName}} MetricName="{name}" ClusterName="{stage.called(cluster)}"\', '
    )
    return cloudwatch.MathExpression(expression=f"{search}'{statistic}', 60)", label=name, period=MINUTE)


def of_balancer(
    name: str, dimensions: Mapping[str, str], statistic: str, period: cdk.Duration = MINUTE
) -> cloudwatch.Metric:
    """Return a load balancer's metric, for all of it or one target group."""
    return _metric("AWS/ApplicationELB", name, dimensions, statistic, period)


def _own(stage: Stage, metric: Metric, statistic: str, dimensions: Mapping[Dimension, str]) -> cloudwatch.Metric:
    _check(metric, dimensions[Dimension.SERVICE], tuple(dimensions))
    named = {str(dimension): value for dimension, value in dimensions.items()}
    return _metric(stage.settings.metrics_namespace, metric.metric_name, named, statistic)


def _check(metric: Metric, function: str, dimensions: tuple[Dimension, ...]) -> None:
    """Check that something emits it: an alarm on a figure that nothing emits never goes off."""
    assert function in metric.functions, metric
    assert dimensions in metric.dimensions, metric


def _metric(
    namespace: str, name: str, dimensions: Mapping[str, str], statistic: str, period: cdk.Duration = MINUTE
) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=namespace, metric_name=name, dimensions_map=dict(dimensions), statistic=statistic, period=period
    )
