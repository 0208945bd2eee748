"""What people look at and are called by: alarms, the rollback that two of them start, and a dashboard per concern."""

from __future__ import annotations

from collections.abc import Iterable

import aws_cdk as cdk
import jsii
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_lambda as lambda_
from constructs import Construct
from tidegate.control.guard import ALARM_PERIODS

from infra.contract import BUNDLE_AGE, FALLBACKS, PROBLEMS, REQUESTS, SERVICE_DIMENSION
from infra.shards import Shard
from infra.stacks.dashboards import add_dashboards
from infra.stacks.edge import EdgeStack
from infra.stacks.functions import FunctionsStack
from infra.stacks.parts import Stage
from infra.stacks.storage import StorageStack

MINUTE = cdk.Duration.minutes(1)
RATE_PERIODS = ALARM_PERIODS
"""Minutes on end that a rate must be above its threshold."""


@jsii.implements(cloudwatch.IAlarmAction)
class InvokeFunction:
    """Invokes a function of another stack. The library's own action would put its permission into that stack, and so make
    the two depend on each other."""

    def __init__(self, function: lambda_.IFunction) -> None:
        self._function = function

    def bind(self, scope: Construct, alarm: cloudwatch.IAlarm) -> cloudwatch.AlarmActionConfig:
        """Allow the alarm to invoke the function, and name the function as its action."""
        lambda_.CfnPermission(
            scope,
            "Invokes",
            action="lambda:InvokeFunction",
            function_name=self._function.function_arn,
            principal="lambda.alarms.cloudwatch.amazonaws.com",
            source_account=cdk.Aws.ACCOUNT_ID,
            source_arn=alarm.alarm_arn,
        )
        return cloudwatch.AlarmActionConfig(alarm_action_arn=self._function.function_arn)


class ObservabilityStack(cdk.Stack):
    """Alarms and dashboards over everything but single shards, whose alarms are theirs."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        shards: Iterable[Shard],
        storage: StorageStack,
        functions: FunctionsStack,
        edge: EdgeStack,
    ) -> None:
        super().__init__(
            scope,
            construct_id,
            stack_name=stage.called("observability"),
            description="Tidegate: alarms, rollback, dashboards",
        )
        self.stage, self._functions, self._edge = stage, functions, edge
        self._notify = actions.SnsAction(storage.topic)
        self._rollback = InvokeFunction(functions.functions["rollback"])
        self._door_alarms()
        self._gateway_alarms()
        self._function_alarms()
        self._store_alarms()
        self._queue_alarms()
        add_dashboards(self, stage=stage, shards=shards, api_id=edge.api_id)

    def own(self, name: str, service: str, statistic: str) -> cloudwatch.Metric:
        """A metric that a function publishes."""
        return cloudwatch.Metric(
            namespace=self.stage.settings.metrics_namespace,
            metric_name=name,
            dimensions_map={SERVICE_DIMENSION: service},
            statistic=statistic,
            period=MINUTE,
        )

    def _alarm(
        self,
        construct_id: str,
        metric: cloudwatch.IMetric,
        description: str,
        runbook: str,
        *,
        above: float,
        periods: int = 1,
        missing: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.NOT_BREACHING,
        rolls_back: bool = False,
    ) -> None:
        alarm = cloudwatch.Alarm(
            self,
            construct_id,
            alarm_name=self.stage.called(construct_id),
            alarm_description=f"{description} Runbook: docs/operations.md#{runbook}",
            metric=metric,
            threshold=above,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            evaluation_periods=periods,
            treat_missing_data=missing,
        )
        alarm.add_alarm_action(self._notify)
        alarm.add_ok_action(self._notify)
        if rolls_back and self.stage.settings.alarms.rollback:
            alarm.add_alarm_action(self._rollback)

    def _rate(self, part: cloudwatch.IMetric, whole: cloudwatch.IMetric, label: str) -> cloudwatch.MathExpression:
        """`part` in percent of `whole`; 0 where there are too few to judge."""
        fewest = self.stage.settings.alarms.min_requests
        return cloudwatch.MathExpression(
            expression=f"IF(whole >= {fewest}, 100 * FILL(part, 0) / whole, 0)",
            using_metrics={"part": part, "whole": whole},
            period=MINUTE,
            label=label,
        )

    def _door_alarms(self) -> None:
        thresholds, label = self.stage.settings.alarms, "5xx, percent"
        if self._edge.api_id is not None:
            errors, count = self._api("5xx", "Sum"), self._api("Count", "Sum")
            self._alarm(
                "api-5xx",
                self._rate(errors, count, label),
                "Too many answers of the HTTP API have a 5xx status.",
                "answers-fail",
                above=thresholds.errors_5xx_percent,
                periods=RATE_PERIODS,
                rolls_back=True,
            )
            self._alarm(
                "api-p99",
                self._api("Latency", "p99"),
                "The HTTP API is slow.",
                "answers-are-slow",
                above=thresholds.p99_ms,
                periods=5,
            )
        if self.stage.settings.door in ("function_url", "both"):
            errors, count = self._url("Url5xxCount", "Sum"), self._url("UrlRequestCount", "Sum")
            self._alarm(
                "url-5xx",
                self._rate(errors, count, label),
                "Too many answers of the Function URL have a 5xx status.",
                "answers-fail",
                above=thresholds.errors_5xx_percent,
                periods=RATE_PERIODS,
                rolls_back=True,
            )
            self._alarm(
                "url-p99",
                self._url("UrlRequestLatency", "p99"),
                "The Function URL is slow.",
                "answers-are-slow",
                above=thresholds.p99_ms,
                periods=5,
            )

    def _api(self, name: str, statistic: str) -> cloudwatch.Metric:
        assert self._edge.api_id is not None
        return cloudwatch.Metric(
            namespace="AWS/ApiGateway",
            metric_name=name,
            dimensions_map={"ApiId": self._edge.api_id},
            statistic=statistic,
            period=MINUTE,
        )

    def _url(self, name: str, statistic: str) -> cloudwatch.Metric:
        return _function_metric(self.stage.called("gateway"), name, statistic)

    def _gateway_alarms(self) -> None:
        thresholds = self.stage.settings.alarms
        self._alarm(
            "fallbacks",
            self._rate(
                self.own(FALLBACKS, "gateway", "Sum"), self.own(REQUESTS, "gateway", "Sum"), "fallbacks, percent"
            ),
            "Too many requests are answered by a fallback.",
            "answers-fail",
            above=thresholds.fallback_percent,
            periods=RATE_PERIODS,
            rolls_back=True,
        )
        for door in ("gateway", "resolve"):
            self._alarm(
                f"{door}-bundle-age",
                self.own(BUNDLE_AGE, door, "Maximum"),
                f"The {door} function decides by rules that it could not refresh.",
                "rules-are-stale",
                above=thresholds.bundle_age_s,
                periods=2,
            )

    def _function_alarms(self) -> None:
        for name in self._functions.functions:
            hyphenated = name.replace("_", "-")
            full_name = self.stage.called(hyphenated)
            self._alarm(
                f"{hyphenated}-throttles",
                _function_metric(full_name, "Throttles", "Sum"),
                f"Function {name} is throttled: its own or the account's concurrency is used up.",
                "a-function-is-throttled",
                above=0,
                periods=2,
            )
            self._alarm(
                f"{hyphenated}-errors",
                _function_metric(full_name, "Errors", "Sum"),
                f"Function {name} fails.",
                "a-function-fails",
                above=0,
                periods=3,
            )
        for name, every_min in (
            ("reconcile", self.stage.settings.control.reconcile_every_min),
            ("probe", self.stage.settings.control.probe_every_min),
        ):
            silent = cloudwatch.MathExpression(
                expression="IF(FILL(runs, 0) > 0, 0, 1)",
                using_metrics={
                    "runs": cloudwatch.Metric(
                        namespace="AWS/Lambda",
                        metric_name="Invocations",
                        dimensions_map={"FunctionName": self.stage.called(name)},
                        statistic="Sum",
                        period=cdk.Duration.minutes(every_min),
                    )
                },
                period=cdk.Duration.minutes(every_min),
                label="did not run",
            )
            self._alarm(
                f"{name}-silent",
                silent,
                f"Function {name} is not started by its schedule.",
                "a-function-fails",
                above=0,
                periods=5,
                missing=cloudwatch.TreatMissingData.BREACHING,
            )

    def _store_alarms(self) -> None:
        self._alarm(
            "reconcile-problems",
            self.own(PROBLEMS, "reconcile", "Maximum"),
            "Something that decides what is live, or what is loaded, is lost or damaged. Nothing is unloaded meanwhile.",
            "something-is-lost",
            above=0,
        )

    def _queue_alarms(self) -> None:
        for name, queue in self._functions.dead_queues.items():
            depth = cloudwatch.Metric(
                namespace="AWS/SQS",
                metric_name="ApproximateNumberOfMessagesVisible",
                dimensions_map={"QueueName": self.stage.called(name)},
                statistic="Maximum",
                period=MINUTE,
            )
            self._alarm(
                f"{name}-depth",
                depth,
                f"Events that could not be handled are in the queue {queue.node.id}.",
                "a-dead-letter-queue-fills",
                above=0,
            )


def _function_metric(function_name: str, name: str, statistic: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace="AWS/Lambda",
        metric_name=name,
        dimensions_map={"FunctionName": function_name},
        statistic=statistic,
        period=MINUTE,
    )
