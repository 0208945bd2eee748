"""The alarms of Envoy, and the metrics that CloudWatch counts in its log of requests."""

from __future__ import annotations

import aws_cdk as cdk
import jsii
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from constructs import Construct
from tidegate.control.guard import ALARM_PERIODS
from tidegate.metrics import Dimension, Metric

from infra.shards import ENVOY
from infra.stacks.data_plane.balancer import EnvoyBalancer
from infra.stacks.data_plane.tasks import EnvoyTasks
from infra.stacks.metrics import MINUTE, emitted, of_balancer, percent
from infra.stacks.parts import Stage

COUNTED = {
    Metric.REQUESTS: "{ $.outcome = * }",
    Metric.FALLBACKS: '{ $.outcome = "fallback" }',
    Metric.UNDECIDED: '{ ($.outcome = "degraded") || ($.outcome = "undecided") }',
    Metric.UNRESOLVED: '{ ($.outcome = "undecided") && ($.status = 503) }',
}
"""What is counted of the log: the metric, and the lines by their members."""

ROLLING_BACK = (f"{ENVOY}-5xx", f"{ENVOY}-fallbacks")
"""The alarms that start a rollback, as those of the other addresses do."""


def add_alarms(
    scope: Construct, *, stage: Stage, tasks: EnvoyTasks, balancer: EnvoyBalancer, topic: sns.ITopic
) -> None:
    """Add the metrics of the log, and alarms for no healthy task, errors, slow answers, fallbacks, and resolvers that are gone."""
    thresholds = stage.settings.alarms
    for metric, pattern in COUNTED.items():
        logs.CfnMetricFilter(
            scope,
            f"Counts{metric.metric_name}",
            log_group_name=tasks.logs.log_group_name,
            filter_pattern=pattern,
            metric_transformations=[
                logs.CfnMetricFilter.MetricTransformationProperty(
                    metric_namespace=stage.settings.metrics_namespace,
                    metric_name=metric.metric_name,
                    metric_value="1",
                    unit=str(metric.unit),
                    dimensions=[
                        logs.CfnMetricFilter.DimensionProperty(
                            key=str(Dimension.SERVICE), value=f"$.{Dimension.SERVICE}"
                        )
                    ],
                )
            ],
        )

    def add(
        suffix: str,
        metric: cloudwatch.IMetric,
        description: str,
        runbook: str,
        *,
        threshold: float,
        periods: int,
        comparison: cloudwatch.ComparisonOperator = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
        missing: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.NOT_BREACHING,
    ) -> None:
        name = f"{ENVOY}-{suffix}"
        alarm = cloudwatch.Alarm(
            scope,
            f"Alarm{suffix.title()}",
            alarm_name=stage.called(name),
            alarm_description=f"{description} Runbook: docs/operations.md#{runbook}",
            metric=metric,
            threshold=threshold,
            comparison_operator=comparison,
            evaluation_periods=periods,
            treat_missing_data=missing,
        )
        alarm.add_alarm_action(actions.SnsAction(topic))
        alarm.add_ok_action(actions.SnsAction(topic))
        if name in ROLLING_BACK and thresholds.rollback:
            alarm.add_alarm_action(_Rollback(stage))

    count = of_balancer("RequestCount", balancer.dimensions, "Sum")
    add(
        "unserved",
        of_balancer("HealthyHostCount", balancer.http_dimensions, "Minimum"),
        "Envoy has no healthy task.",
        "envoy-does-not-answer",
        threshold=1,
        comparison=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
        periods=thresholds.unhealthy_min,
        # No figure at all means no target at all.
        missing=cloudwatch.TreatMissingData.BREACHING,
    )
    errors = cloudwatch.MathExpression(
        # Resolvers that are gone have an alarm of their own, and other rules would not bring them back.
        expression="FILL(own, 0) + FILL(envoys, 0) - FILL(unresolved, 0)",
        using_metrics={
            "unresolved": emitted(stage, Metric.UNRESOLVED, ENVOY, "Sum"),
            "own": of_balancer("HTTPCode_ELB_5XX_Count", balancer.dimensions, "Sum"),
            "envoys": of_balancer("HTTPCode_Target_5XX_Count", balancer.dimensions, "Sum"),
        },
        period=MINUTE,
    )
    add(
        "5xx",
        percent(stage, errors, count, "5xx, percent"),
        "Too many answers of Envoy have a 5xx status.",
        "answers-fail",
        threshold=thresholds.errors_5xx_percent,
        periods=ALARM_PERIODS,
    )
    add(
        "p99",
        of_balancer("TargetResponseTime", balancer.dimensions, "p99"),
        "Envoy is slow.",
        "answers-are-slow",
        threshold=thresholds.p99_ms / 1000,
        periods=5,
    )
    add(
        "fallbacks",
        percent(
            stage,
            emitted(stage, Metric.FALLBACKS, ENVOY, "Sum"),
            emitted(stage, Metric.REQUESTS, ENVOY, "Sum"),
            "fallbacks, percent",
        ),
        "Too many requests are answered by a fallback.",
        "answers-fail",
        threshold=thresholds.fallback_percent,
        periods=ALARM_PERIODS,
    )
    add(
        "degraded",
        emitted(stage, Metric.UNDECIDED, ENVOY, "Sum"),
        "Envoy's resolvers do not answer: requests get what their objectives declare as `degraded`, or a 503.",
        "envoy-does-not-answer",
        threshold=0,
        periods=3,
    )


@jsii.implements(cloudwatch.IAlarmAction)
class _Rollback:
    """Starts the function `rollback`, by its name: the stack that observes the stage allows it, as the function's own may not be
    there yet."""

    def __init__(self, stage: Stage) -> None:
        self._name = stage.called("rollback")

    def bind(self, scope: Construct, _alarm: cloudwatch.IAlarm) -> cloudwatch.AlarmActionConfig:
        """Return the function as the alarm's action."""
        stack = cdk.Stack.of(scope)
        arn = f"arn:{stack.partition}:lambda:{stack.region}:{stack.account}:function:{self._name}"
        return cloudwatch.AlarmActionConfig(alarm_action_arn=arn)
