"""Alarms, the rollback that two of them start, and a dashboard for each concern."""

from __future__ import annotations

from collections.abc import Iterable

import aws_cdk as cdk
import jsii
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_lambda as lambda_
from constructs import Construct
from tidegate.control.guard import ALARM_PERIODS
from tidegate.metrics import Metric

from infra.shards import Shard
from infra.stacks.dashboards import add_dashboards
from infra.stacks.data_plane.alarms import ROLLING_BACK
from infra.stacks.edge import EdgeStack
from infra.stacks.functions import SHADOW_QUEUE, FunctionsStack
from infra.stacks.metrics import emitted, of_api, of_function, oldest_message_s, percent, waiting_messages
from infra.stacks.parts import Stage
from infra.stacks.storage import StorageStack

OLDEST_COPY_S = 60
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
    """Dashboards, and all alarms but those of single shards."""

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
        self._http_alarms()
        self._gateway_alarms()
        self._function_alarms()
        self._store_alarms()
        self._queue_alarms()
        if stage.settings.data_plane == "envoy" and stage.settings.alarms.rollback:
            self._let_envoys_alarms_roll_back()
        add_dashboards(self, stage=stage, shards=shards, api_id=edge.api_id)

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

    def _http_alarms(self) -> None:
        api_id = self._edge.api_id
        if api_id is not None:
            self._alarms_of_address(
                "api",
                "the HTTP API",
                count=of_api(api_id, "Count", "Sum"),
                errors=of_api(api_id, "5xx", "Sum"),
                latency=of_api(api_id, "Latency", "p99"),
            )
        if self.stage.settings.entry_point in ("function_url", "both"):
            self._alarms_of_address(
                "url",
                "the Function URL",
                count=of_function(self.stage, "gateway", "UrlRequestCount", "Sum"),
                errors=of_function(self.stage, "gateway", "Url5xxCount", "Sum"),
                latency=of_function(self.stage, "gateway", "UrlRequestLatency", "p99"),
            )

    def _alarms_of_address(
        self, prefix: str, name: str, *, count: cloudwatch.Metric, errors: cloudwatch.Metric, latency: cloudwatch.Metric
    ) -> None:
        thresholds = self.stage.settings.alarms
        self._alarm(
            f"{prefix}-5xx",
            percent(self.stage, errors, count, "5xx, percent"),
            f"Too many answers of {name} have a 5xx status.",
            "answers-fail",
            above=thresholds.errors_5xx_percent,
            periods=RATE_PERIODS,
            rolls_back=True,
        )
        self._alarm(
            f"{prefix}-p99",
            latency,
            f"{name[0].upper()}{name[1:]} is slow.",
            "answers-are-slow",
            above=thresholds.p99_ms,
            periods=5,
        )

    def _gateway_alarms(self) -> None:
        thresholds = self.stage.settings.alarms
        self._alarm(
            "fallbacks",
            percent(
                self.stage,
                emitted(self.stage, Metric.FALLBACKS, "gateway", "Sum"),
                emitted(self.stage, Metric.REQUESTS, "gateway", "Sum"),
                "fallbacks, percent",
            ),
            "Too many requests are answered by a fallback.",
            "answers-fail",
            above=thresholds.fallback_percent,
            periods=RATE_PERIODS,
            rolls_back=True,
        )
        for function in ("gateway", "resolve"):
            self._alarm(
                f"{function}-bundle-age",
                emitted(self.stage, Metric.BUNDLE_AGE_SECONDS, function, "Maximum"),
                f"The {function} function decides by rules that it could not refresh.",
                "rules-are-stale",
                above=thresholds.bundle_age_s,
                periods=2,
            )

    def _function_alarms(self) -> None:
        for name in self._functions.functions:
            hyphenated = name.replace("_", "-")
            self._alarm(
                f"{hyphenated}-throttles",
                of_function(self.stage, name, "Throttles", "Sum"),
                f"Function {name} is throttled: its own or the account's concurrency is used up.",
                "a-function-is-throttled",
                above=0,
                periods=2,
            )
            self._alarm(
                f"{hyphenated}-errors",
                of_function(self.stage, name, "Errors", "Sum"),
                f"Function {name} fails.",
                "a-function-fails",
                above=0,
                periods=3,
            )
        for name, every_min in (
            ("reconcile", self.stage.settings.control.reconcile_every_min),
            ("probe", self.stage.settings.control.probe_every_min),
        ):
            period = cdk.Duration.minutes(every_min)
            silent = cloudwatch.MathExpression(
                expression="IF(FILL(runs, 0) > 0, 0, 1)",
                using_metrics={"runs": of_function(self.stage, name, "Invocations", "Sum", period)},
                period=period,
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

    def _let_envoys_alarms_roll_back(self) -> None:
        """Allow the alarms of Envoy's own stack to invoke the rollback, by their names."""
        for name in ROLLING_BACK:
            lambda_.CfnPermission(
                self,
                f"Invokes-{name}",
                action="lambda:InvokeFunction",
                function_name=self._functions.functions["rollback"].function_arn,
                principal="lambda.alarms.cloudwatch.amazonaws.com",
                source_account=cdk.Aws.ACCOUNT_ID,
                source_arn=f"arn:{self.partition}:cloudwatch:{self.region}:{self.account}:alarm:{self.stage.called(name)}",
            )

    def _store_alarms(self) -> None:
        self._alarm(
            "reconcile-problems",
            emitted(self.stage, Metric.PROBLEMS, "reconcile", "Maximum"),
            "Something that decides what is live, or what is loaded, is lost or damaged. Nothing is unloaded meanwhile.",
            "something-is-lost",
            above=0,
        )

    def _queue_alarms(self) -> None:
        for name, queue in self._functions.dead_queues.items():
            self._alarm(
                f"{name}-depth",
                waiting_messages(self.stage, name),
                f"Events that could not be handled are in the queue {queue.node.id}.",
                "a-dead-letter-queue-fills",
                above=0,
            )
        if self.stage.settings.shadows:
            self._alarm(
                "shadow-age",
                oldest_message_s(self.stage, SHADOW_QUEUE),
                f"Copies for shadows have waited for over {OLDEST_COPY_S} s, and will be dropped.",
                "copies-for-shadows-wait",
                above=OLDEST_COPY_S,
                periods=5,
            )
